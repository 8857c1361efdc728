"""The lab's towers from nothing: where its data, its models and their training meet."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ..data.imagenet import SHIFTS
from ..data.lab import (
    CLASS_FOLDERS,
    CLASSES,
    COUNTS,
    VOCABULARY,
    Factors,
    captions,
    draw_candidates,
    draw_id,
    draw_shift,
    draw_world,
    prompts,
    render,
)
from ..files import replacing
from ..models.classifier import Classifier, Head
from ..models.lab import LAB_MODELS, load_lab, rounded_text, save_lab_text, tower_file
from ..models.lab_resnet import LabArchitecture, LabResNet, LabTransform
from ..models.lab_text import LabText
from ..models.saved import save_classifier
from ..models.zeroshot import zero_shot_head
from ..tuning.training import Batches, Recipe, contrast, fit, shuffled
from ..tuning.untrained import seeded
from ..tuning.views import contrast_views
from .lab_baselines import BASELINES, read_rows
from .progress import Tell, silent

MISTAKES = "lab_a.json"
BATCH = 256
TEST_SEED = 0  # the seed with which the demo draws its sets
_COLUMNS: tuple[str, ...] = ("model", "dataset", "correct", "images")


@dataclass(frozen=True)
class Novice:
    """A small network trained with supervision on ID images alone: a point of the line.

    Attributes:
        width: Channels of its first residual block; the other widths are in proportion.
        images: How many of the training images it sees.
        epochs: How many times it sees them.
    """

    width: int
    images: int
    epochs: int

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"ResNet {self.width}, {self.images} images, {self.epochs} epochs"


@dataclass(frozen=True)
class LabPlan:
    """How much the towers learn from; by default, what those that ship learned from.

    Attributes:
        world: Images with captions, of all styles, for the zero-shot tower.
        train: Images of the training split, for the others.
        candidates: Images among which the small network's mistakes become the shift A.
        counts: Images of each set that the baselines are measured on.
        architecture: Of the four towers.
        epochs: Of contrastive training, of supervised training, of finetuning.
        view_epochs: Of contrastive training without captions.
        novices: The small networks of the line.
        judge: The small network whose mistakes become the shift A.
    """

    world: int = 60_000
    train: int = 20_000
    candidates: int = 12_000
    counts: Mapping[str, int] = field(default_factory=lambda: COUNTS)
    architecture: LabArchitecture = field(default_factory=LabArchitecture)
    epochs: tuple[int, int, int] = (9, 10, 3)
    view_epochs: int = 4
    novices: tuple[Novice, ...] = (
        Novice(8, 20_000, 2),
        Novice(8, 20_000, 4),
        Novice(8, 20_000, 12),
        Novice(16, 4_000, 8),
        Novice(16, 8_000, 6),
        Novice(16, 20_000, 3),
        Novice(16, 20_000, 5),
        Novice(16, 20_000, 8),
        Novice(24, 4_000, 20),
        Novice(24, 8_000, 10),
        Novice(24, 20_000, 4),
        Novice(24, 20_000, 8),
    )
    judge: Novice = Novice(12, 20_000, 6)


def train_lab(
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    plan: LabPlan | None = None,
    tell: Tell = silent,
) -> None:
    """Make from nothing all that ships with the lab: towers, shift A, baselines.

    What is in the folder already is not made again, so that a run that was cut short goes
    on where it stopped.

    Args:
        out: The folder: ``zero-shot``, ``finetuned``, ``supervised``, ``untrained`` and
            ``text`` as ``.safetensors``, ``lab_a.json``, and ``lab_baselines.csv``.
        device: Where to train, such as ``cpu`` or ``cuda``.
        seed: Of first weights and of the training images. The images that the baselines
            are measured on are the demo's, whatever the seed.
        plan: How much to learn from.
        tell: Told of progress.

    Raises:
        ValueError: If there is no such device.
    """
    plan = plan or LabPlan()
    make_towers(out, LAB_MODELS, device=device, seed=seed, plan=plan, tell=tell)
    shop = _Workshop(out, device, seed, plan, tell)
    if not (out / MISTAKES).is_file():
        _write_mistakes(shop)
    _write_baselines(shop)


def make_towers(
    out: Path,
    names: Sequence[str],
    *,
    device: str = "cpu",
    seed: int = 0,
    plan: LabPlan | None = None,
    tell: Tell = silent,
) -> None:
    """Train towers of the lab, each written when it is done; those that are there stay.

    Args:
        out: The folder: ``NAME.safetensors``, and ``text`` beside a zero-shot tower.
        names: Which: ``zero-shot``; ``finetuned``, which starts from it; ``supervised``;
            ``untrained``; ``captioned-id``, as zero-shot but of captions of the ID images
            alone; ``no-clip``, of the world's images without captions, then finetuned on
            labels.
        device: Where to train, such as ``cpu`` or ``cuda``.
        seed: Of first weights and of the training images.
        plan: How much to learn from.
        tell: Told of progress.

    Raises:
        ValueError: If there is no such device or tower.
    """
    check_device(device)
    shop = _Workshop(out, device, seed, plan or LabPlan(), tell)
    for name in names:
        if name not in _MAKERS:
            raise ValueError(f"The lab has no tower {name!r}; choose {', '.join(_MAKERS)}.")
        if not (file := tower_file(out, name)).is_file():
            save_classifier(file, _MAKERS[name](shop), dtype=torch.float16)


@dataclass(frozen=True)
class _Workshop:
    """Where the towers are made, and of what."""

    out: Path
    device: str
    seed: int
    plan: LabPlan
    tell: Tell

    @cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        """ID training images and their labels."""
        return _drawn(draw_id(self.plan.train, seed=self.seed, split="train"))

    def batches(self, what: str, images: Tensor, targets: Tensor, steps: int) -> Batches:
        """Batches as a tower reads them, in an order of their own, telling of each."""
        generator = torch.Generator().manual_seed(self.seed)
        endless = shuffled(images, targets, size=BATCH, generator=generator)
        for step, (pixels, answers) in zip(range(steps), endless, strict=False):
            self.tell(what, step + 1, steps)
            yield LabTransform().batch(pixels), answers

    def fitted(self, start: Classifier, images: int, recipe: Recipe) -> Classifier:
        """A classifier trained on so many of the ID training images."""
        pixels, labels = self.train
        batches = self.batches(
            f"train {start.name}", pixels[:images], labels[:images], recipe.steps
        )
        return fit(self.moved(start), batches, recipe)

    def moved(self, classifier: Classifier) -> Classifier:
        """On the device, with pictures channels last in memory, which is fastest."""
        head = classifier.head
        bias = None if head.bias is None else head.bias.to(self.device)
        encoder = classifier.encoder.to(self.device)
        encoder = encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return replace(
            classifier,
            encoder=encoder,
            head=Head(head.weight.to(self.device), bias, head.normalizes),
        )


def _zero_shot(shop: _Workshop) -> Classifier:
    factors = draw_world(shop.plan.world, seed=shop.seed)
    start = _start("zero-shot", shop.plan.architecture, shop.seed)
    classifier, texts = _captioned(shop, start, factors)
    save_lab_text(shop.out, texts)
    return replace(classifier, pretraining="lab captions")


def _captioned_id(shop: _Workshop) -> Classifier:
    """The control of the paper's second version: words, but no diversity of images."""
    factors = draw_id(shop.plan.train, seed=shop.seed, split="train")
    start = _start("captioned-id", shop.plan.architecture, shop.seed)
    return replace(_captioned(shop, start, factors)[0], pretraining="captions of ID images")


def _captioned(
    shop: _Workshop, start: Classifier, factors: Factors
) -> tuple[Classifier, LabText]:
    """A zero-shot classifier trained with captions of these images, and its text tower."""
    with seeded(shop.seed):
        texts = LabText(VOCABULARY, shop.plan.architecture.features)
    words = texts.read(captions(factors, seed=shop.seed))
    recipe = _contrast(len(words), shop.plan.epochs[0])
    images = torch.from_numpy(render(factors))
    batches = shop.batches(f"train {start.name}", images, words, recipe.steps)
    encoder, texts = contrast(
        shop.moved(start).encoder, texts.to(shop.device), batches, recipe
    )
    texts = rounded_text(texts)  # the head is that of the text tower as it is kept
    phrasings = [prompts(name) for name in CLASSES]
    head = zero_shot_head(texts.embed, phrasings, scale=texts.scale.item())
    return replace(start, role="zero-shot", encoder=encoder, head=head), texts


def _no_clip(shop: _Workshop) -> Classifier:
    """The paper's NoCLIP: the world's images without their words, then labels."""
    start = _start("no-clip", shop.plan.architecture, shop.seed)
    images = torch.from_numpy(render(draw_world(shop.plan.world, seed=shop.seed)))
    recipe = _contrast(len(images), shop.plan.view_epochs)
    batches = shop.batches("train lab:no-clip on views", images, images, recipe.steps)
    encoder = contrast_views(
        shop.moved(start).encoder,
        batches,
        recipe,
        features=shop.plan.architecture.features,
        generator=torch.Generator().manual_seed(shop.seed),
    )
    steps = _steps(shop.plan.train, shop.plan.epochs[2])
    recipe = Recipe(steps, learning_rate=1e-3, weight_decay=0.1, bfloat16=True)
    start = replace(start, encoder=encoder, pretraining="world images, no captions")
    return shop.fitted(start, shop.plan.train, recipe)


def _contrast(images: int, epochs: int) -> Recipe:
    return Recipe(
        steps=_steps(images, epochs),
        learning_rate=2e-3,
        weight_decay=0.1,
        betas=(0.9, 0.98),
        bfloat16=True,
    )


def _finetuned(shop: _Workshop) -> Classifier:
    start = load_lab("zero-shot", folder=shop.out)
    steps = _steps(shop.plan.train, shop.plan.epochs[2])
    recipe = Recipe(steps, learning_rate=1e-4, weight_decay=0.1, bfloat16=True)
    renamed = replace(start, name="lab:finetuned", role="finetuned")
    return shop.fitted(renamed, shop.plan.train, recipe)


def _supervised(shop: _Workshop) -> Classifier:
    start = _start("supervised", shop.plan.architecture, shop.seed)
    start = replace(start, role="supervised")
    return shop.fitted(
        start, shop.plan.train, _supervision(shop.plan.train, shop.plan.epochs[1])
    )


def _untrained(shop: _Workshop) -> Classifier:
    return _start("untrained", shop.plan.architecture, shop.seed)


_MAKERS: Mapping[str, Callable[[_Workshop], Classifier]] = MappingProxyType({
    "zero-shot": _zero_shot,
    "finetuned": _finetuned,
    "supervised": _supervised,
    "untrained": _untrained,
    "captioned-id": _captioned_id,
    "no-clip": _no_clip,
})


def _supervision(images: int, epochs: int) -> Recipe:
    return Recipe(
        steps=_steps(images, epochs),
        learning_rate=2e-3,
        weight_decay=0.05,
        label_smoothing=0.1,
        bfloat16=True,
    )


def _write_mistakes(shop: _Workshop) -> None:
    """The shift A: as ImageNet-A is made of the mistakes of one ResNet-50."""
    judge, candidates = shop.plan.judge, shop.plan.candidates
    images, labels = _drawn(draw_candidates(candidates, seed=TEST_SEED))
    network = _novice(shop, judge)
    wrong = _predictions(network, images) != labels
    chosen = choose_mistakes(labels.numpy(), wrong.numpy(), shop.plan.counts["a"])
    choice = {"seed": TEST_SEED, "candidates": candidates, "chosen": chosen.tolist()}
    with replacing(shop.out / MISTAKES) as aside:
        aside.write_text(json.dumps(choice), encoding="utf-8")


def choose_mistakes(
    labels: Int64[np.ndarray, " image"], wrong: Bool[np.ndarray, " image"], count: int
) -> Int64[np.ndarray, " chosen"]:
    """Images that were classified wrongly, from every class as equally as can be.

    Args:
        labels: The class of each image.
        wrong: Whether it was classified wrongly.
        count: How many to choose, or all where there are fewer.

    Returns:
        Their places, rising.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1])
        >>> choose_mistakes(labels, np.array([True, True, True, False, True]), 3)
        array([0, 1, 4])
    """
    seen: Counter[int] = Counter()
    turns: list[tuple[int, int]] = []
    for image in np.flatnonzero(wrong).tolist():
        turns.append((seen[labels[image]], image))
        seen[labels[image]] += 1
    return np.array(sorted(image for _, image in sorted(turns)[:count]), dtype=np.int64)


def _write_baselines(shop: _Workshop) -> None:
    path = shop.out / BASELINES
    rows = read_rows(path) if path.is_file() else []
    known = {row["model"] for row in rows}
    missing = [novice for novice in shop.plan.novices if novice.name not in known]
    sets = _test_sets(shop) if missing else {}
    for novice in missing:
        network = _novice(shop, novice)
        for dataset, (images, labels) in sets.items():
            correct = int((_predictions(network, images) == labels).sum())
            values = (novice.name, dataset, correct, len(labels))
            rows.append(dict(zip(_COLUMNS, map(str, values), strict=True)))
        _write_rows(path, rows)


def _test_sets(shop: _Workshop) -> dict[str, tuple[Tensor, Tensor]]:
    counts = shop.plan.counts
    choice = json.loads((shop.out / MISTAKES).read_text(encoding="utf-8"))
    candidates = draw_candidates(choice["candidates"], seed=choice["seed"])
    drawn = {
        "imagenet": draw_id(counts["imagenet"], seed=TEST_SEED, split="val"),
        **{
            name: draw_shift(name, counts[name], seed=TEST_SEED)
            for name in SHIFTS
            if name != "a"
        },
        "a": candidates[np.array(choice["chosen"])],
    }
    return {name: _drawn(factors) for name, factors in drawn.items()}


def _novice(shop: _Workshop, novice: Novice) -> Classifier:
    width = novice.width
    architecture = LabArchitecture(stem=width // 2, blocks=(width, 2 * width, 4 * width))
    start = _start(novice.name, architecture, shop.seed)
    images = min(novice.images, shop.plan.train)
    return shop.fitted(start, images, _supervision(images, novice.epochs))


def _start(name: str, architecture: LabArchitecture, seed: int) -> Classifier:
    """A tower with random weights, and a head of random weights that fit its features."""
    with seeded(seed):
        encoder = LabResNet(architecture).eval()
        linear = torch.nn.Linear(architecture.features, len(CLASSES))
    return Classifier(
        name=f"lab:{name}",
        role="other",
        encoder=encoder,
        head=Head(linear.weight.detach(), linear.bias.detach()),
        classes=CLASS_FOLDERS,
        transform=LabTransform(),
        backbone="lab ResNet",
        pretraining="none",
    )


def _steps(images: int, epochs: int) -> int:
    return max(1, round(images * epochs / BATCH))


def _drawn(factors: Factors) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(render(factors)), torch.from_numpy(factors.labels)


@torch.inference_mode()
def _predictions(classifier: Classifier, images: Tensor) -> Tensor:
    device = classifier.head.weight.device
    parts = [
        classifier.head.predict(classifier.encoder(LabTransform().batch(pixels).to(device)))
        for pixels in images.split(BATCH)
    ]
    return torch.cat(parts).cpu()


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def check_device(device: str) -> None:
    """See that a device can be used.

    Args:
        device: Such as ``cpu`` or ``cuda:1``.

    Raises:
        ValueError: If it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"Cannot use the device {device!r} ({why}); try cpu or cuda."
        ) from error
