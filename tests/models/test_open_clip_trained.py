"""A CLIP that open_clip trained on the lab's captions: earmark against open_clip alone."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

import earmark
from earmark.activations import cached_activations
from earmark.data.registry import DATASETS, PAPER_SHIFTS
from earmark.lab import world
from earmark.models import _torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models.classifier import Classifier
from earmark.models.zeroshot import load_prompts
from earmark.records import RECORDS_FILE, Record, read_records, select
from earmark.study.eval_sets import find_eval_sets
from earmark.study.scan import ScanConfig, ScanOutput, scan_model
from earmark.training.loop import shuffled_batches

SETS = ("imagenet", *PAPER_SHIFTS)
COUNTS = {"imagenet": 640, **dict.fromkeys(PAPER_SHIFTS, 256), "broden": 400}
STEPS, BATCH, PAIRS, RATE = 160, 128, 6000, 4e-3
TEMPLATES = ("a {}", "a photo of a {}", "a picture of a {}")
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.3, 0.35)  # none's default, so that all must be read
WORDS = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
EYES = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "image_size": 32}
MODEL: dict[str, Any] = {"embed_dim": 64, "vision_cfg": EYES, "text_cfg": WORDS}
SEEN = {"size": [32, 32], "mean": MEAN, "std": STD}
CLOSE = 2e-6  # of cosines: rounding, which differs with the batch, was seen below 5e-7


def pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images of the training split, and of the tokens of their captions."""
    from open_clip import SimpleTokenizer

    factors = world.sample_id(PAIRS, seed=0, split="train")
    images = torch.from_numpy(world.render(factors)).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    images = images.contiguous(memory_format=torch.channels_last)
    tokenizer = SimpleTokenizer(context_length=WORDS["context_length"])
    tokens = tokenizer(world.make_captions(factors, seed=0))
    return shuffled_batches(images, tokens, size=BATCH, generator=torch.Generator().manual_seed(0))


def learn(batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    """A CLIP from nothing, trained by open_clip's own loss at a rate that falls to zero."""
    from open_clip import CLIP, ClipLoss

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, loss = CLIP(**MODEL), ClipLoss()
    model.visual.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(model.parameters(), RATE, (0.9, 0.98), weight_decay=0.05, fused=True)
    pace = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, STEPS, pct_start=0.1)
    for images, tokens in islice(batches, STEPS):
        adam.zero_grad()
        loss(*model(images, tokens)[:3]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        pace.step()
    return model.eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    world.write_lab(root, counts=COUNTS)
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The trained model's folder, as open_clip pushes one to a hub."""
    folder = tmp_path_factory.mktemp("models") / "Lab-CLIP"
    folder.mkdir()
    config = {"model_cfg": MODEL, "preprocess_cfg": SEEN}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = learn(pairs()).state_dict()
    weights = {name: part.contiguous() for name, part in weights.items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def request_(place: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> ScanConfig:
    """What a person would ask, the words in files."""
    words = tmp_path_factory.mktemp("words")
    names = zip(world.CLASS_FOLDERS, world.CLASSES, strict=True)
    classnames, templates = words / "classnames.txt", words / "templates.txt"
    classnames.write_text("".join(f"{folder}\t{name}\n" for folder, name in names))
    templates.write_text("\n".join(TEMPLATES))
    out = tmp_path_factory.mktemp("out")
    return ScanConfig(place, data, out, classnames=classnames, templates=str(templates))


@pytest.fixture(scope="module")
def scanned(request_: ScanConfig) -> ScanOutput:
    return scan_model(request_)


@pytest.fixture(scope="module")
def classifier(request_: ScanConfig) -> Classifier:
    prompts = load_prompts(request_.classnames, request_.templates)
    return earmark.load_model(request_.model, prompts=prompts)


@dataclass(frozen=True)
class Truth:
    """What open_clip finds for one set; an entry or row for each image, by its path."""

    paths: list[str]
    labels: Tensor
    activations: Tensor
    cosines: Tensor
    weight: Tensor

    @property
    def predicted(self) -> Tensor:
        """The nearest class of each image."""
        return self.cosines.argmax(dim=1)

    @property
    def close(self) -> Tensor:
        """Whether the two best classes are so near that rounding may choose."""
        best = self.cosines.topk(2).values
        return best[:, 0] - best[:, 1] < CLOSE

    @property
    def ties(self) -> int:
        """How many images are so."""
        return int(self.close.sum())

    @property
    def correct(self) -> int:
        """How many images are classified as they are labelled."""
        return int((self.predicted == self.labels).sum())


@torch.no_grad()
def by_open_clip(place: str, root: Path) -> Truth:
    """The zero-shot loop of open_clip's README over torchvision's ImageFolder."""
    import open_clip
    from torchvision.datasets import ImageFolder

    model, _, preprocess = open_clip.create_model_and_transforms(place)
    tokenizer = open_clip.get_tokenizer(place)
    model.eval()
    texts = [
        model.encode_text(tokenizer([t.format(name) for t in TEMPLATES]), normalize=True)
        for name in world.CLASSES
    ]
    weight = nn.functional.normalize(torch.stack([rows.mean(dim=0) for rows in texts]))
    images = ImageFolder(str(root), preprocess)
    pixels = torch.stack([image for image, _ in images])
    label = [world.CLASS_FOLDERS.index(folder) for folder in images.classes]
    return Truth(
        [Path(path).relative_to(root).as_posix() for path, _ in images.samples],
        torch.tensor([label[target] for target in images.targets]),
        model.encode_image(pixels),
        model.encode_image(pixels, normalize=True) @ weight.T,
        weight * model.logit_scale.exp(),
    )


@pytest.fixture(scope="module")
def truths(place: str, data: Path) -> dict[str, Truth]:
    return {name: by_open_clip(place, data / DATASETS[name].folder) for name in SETS}


def one(scanned: ScanOutput, **wanted: object) -> Record:
    (record,) = select(scanned.records, model=scanned.model, **wanted)
    return record


@pytest.mark.parametrize("name", SETS)
def test_accuracy_is_open_clips(scanned: ScanOutput, truths: dict[str, Truth], name: str):
    """Equal to the image, unless rounding may choose between an image's best classes."""
    truth = truths[name]
    record = one(scanned, quantity="accuracy", dataset=name)

    assert record.n == len(truth.labels) == COUNTS[name]
    assert truth.ties <= 2
    assert abs(round(record.value * record.n) - truth.correct) <= truth.ties


@pytest.mark.parametrize("name", SETS)
def test_each_image_is_seen_and_classified_as_by_open_clip(
    request_: ScanConfig,
    scanned: ScanOutput,
    classifier: Classifier,
    truths: dict[str, Truth],
    name: str,
):
    """On the very activations that the scan's records rest on."""
    truth, sets = truths[name], find_eval_sets(classifier, request_.data)
    images = next(images for images in sets.image_sets if images.name == name)
    kept = {path.name for path in (request_.out / "activations").iterdir()}
    stored = cached_activations(classifier, images, request_.out / "activations")
    assert {path.name for path in (request_.out / "activations").iterdir()} == kept

    row = {path: at for at, path in enumerate(images.files)}
    order = [row[path] for path in truth.paths]
    activations = stored.tensor()[order]
    assert sorted(row) == sorted(truth.paths)
    assert torch.from_numpy(images.labels)[order].tolist() == truth.labels.tolist()
    assert_close(activations, truth.activations, rtol=0, atol=1e-4)
    differ = classifier.head.predict(activations) != truth.predicted
    assert not (differ & ~truth.close).any()


def test_the_head_is_open_clips(classifier: Classifier, truths: dict[str, Truth]):
    assert classifier.classes == world.CLASS_FOLDERS
    assert classifier.head.normalizes
    assert_close(classifier.head.weight, truths["imagenet"].weight, rtol=0, atol=1e-4)


def test_it_has_learned(scanned: ScanOutput):
    """Far more than by chance, or equal accuracies would say little."""
    for dataset in ("imagenet", "shifts"):
        assert one(scanned, quantity="accuracy", dataset=dataset).low > 3 / 128


def test_the_mean_over_shifts_is_of_open_clips(scanned: ScanOutput, truths: dict[str, Truth]):
    shares = [truths[name].correct / COUNTS[name] for name in PAPER_SHIFTS]
    ties = sum(truths[name].ties / COUNTS[name] for name in PAPER_SHIFTS) / len(PAPER_SHIFTS)

    found = one(scanned, quantity="accuracy", dataset="shifts").value
    assert found == pytest.approx(np.mean(shares), abs=ties + 1e-9)


def test_kurtosis_is_scipys_of_open_clips(scanned: ScanOutput, truths: dict[str, Truth]):
    h = truths["imagenet"].activations.double().numpy()

    for variant, values in (("", h), ("centered", h - h.mean(axis=0))):
        wanted = {"dataset": "imagenet", "variant": variant}
        found = one(scanned, quantity="activation_kurtosis", **wanted)
        expected = scipy.stats.kurtosis(values, axis=1, fisher=False).mean()
        assert found.value == pytest.approx(expected, rel=1e-4)


def test_directions_are_those_of_open_clips_head(scanned: ScanOutput, truths: dict[str, Truth]):
    """Eq. 4 by numpy: a direction's share of the spectrum times its mean cosine.

    The text tower is half as wide as the embeddings, so that the head has at most half
    their rank; directions that hardly count are turned by rounding.
    """
    truth = truths["imagenet"]
    _, sigma, right = np.linalg.svd(truth.weight.numpy(), full_matrices=False)
    units = nn.functional.normalize(truth.activations).numpy()
    along = np.abs(units @ right.T).mean(axis=0)
    firm = int((sigma > sigma[0] / 100).sum())
    expected = {
        "singular_value": sigma,
        "head_importance": sigma / sigma.sum(),
        "encoder_importance": along,
        "importance": sigma / sigma.sum() * along,
    }

    assert 8 < firm <= WORDS["width"] == MODEL["embed_dim"] // 2
    for quantity, column in expected.items():
        found = select(scanned.records, quantity=quantity, variant="")
        assert [record.coordinate for record in found] == list(range(MODEL["embed_dim"]))
        values = [record.value for record in found][:firm]
        assert values == pytest.approx(column[:firm].tolist(), rel=1e-3, abs=1e-4)


def test_pruning_starts_from_open_clips_accuracy(scanned: ScanOutput):
    for dataset in ("imagenet", "shifts"):
        whole = one(scanned, quantity="accuracy", dataset=dataset).value
        for variant in ("singular", "importance"):
            curve = select(
                scanned.records, quantity="pruned_accuracy", dataset=dataset, variant=variant
            )
            value = {record.coordinate: record.value for record in curve}
            assert value[0.0] == pytest.approx(whole)
            assert value[max(value)] < whole / 2


def test_concepts_are_the_labs(scanned: ScanOutput, data: Path):
    with (data / "broden1_224" / "label.csv").open() as file:
        shown = {row["name"] for row in csv.DictReader(file) if row["frequency"] != "0"}

    for basis in ("singular", "neuron", "random"):
        best = select(
            scanned.records, quantity="best_average_precision", basis=basis, variant="", control=""
        )
        unique = one(
            scanned,
            quantity="unique_concepts",
            basis=basis,
            variant="",
            seed=0 if basis == "random" else None,
            threshold=0.9,
            control="",
            width=None,
            min_positives=None,
        )
        assert {record.item for record in best} == shown
        assert unique.value == sum(record.value >= 0.9 for record in best)
        assert unique.n == len(shown)
    often = [record.item for record in best if record.n >= 60 and record.value > 0.75]
    assert any(name.endswith("-s") for name in often)  # it has learned to tell scenes


@torch.no_grad()
def test_concept_images_are_seen_as_by_open_clip(
    request_: ScanConfig, scanned: ScanOutput, classifier: Classifier
):
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(request_.model)
    concepts = find_eval_sets(classifier, request_.data).concepts
    assert concepts is not None
    images = concepts.images
    opened = [Image.open(images.root / file) for file in images.files]
    expected = model.eval().encode_image(torch.stack([preprocess(one) for one in opened]))

    stored = cached_activations(classifier, images, request_.out / "activations")
    assert len(stored) == COUNTS["broden"]
    assert_close(stored.tensor(), expected, rtol=0, atol=1e-4)


def test_all_is_written(request_: ScanConfig, scanned: ScanOutput):
    assert read_records(request_.out / RECORDS_FILE) == scanned.records
    assert (scanned.model, scanned.role) == (request_.model, "zero-shot")
    assert scanned.missing == []
    (beyond,) = select(scanned.records, quantity="effective_robustness")
    assert beyond.baseline == "lab"
