"""Training of the lab's models, from random weights."""

import csv
import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Int64
from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator
from torch import Tensor

from .._io import (
    DamagedFileError,
    atomic_write,
    has_seal,
    lock_folder,
    new_seal,
    read_bytes,
    write_seal,
)
from .._progress import ProgressCallback, no_progress
from ..models.classifier import Classifier, Head
from ..models.serialization import read_tensors, save_classifier
from ..models.zeroshot import zero_shot_head
from ..training.distributed import check_device
from ..training.loop import Batches, Recipe, fit, shuffled_batches, train_contrastive
from ..training.random_init import use_seed
from . import world
from .baselines import BASELINES_FILE, read_csv_rows
from .checkpoints import LAB_MODELS, checkpoint_path, load_lab
from .model import LabArchitecture, LabResNet, LabTransform
from .simclr import train_simclr
from .text import LabText

HARD_EXAMPLES_FILE = "lab_a.json"
BATCH_SIZE = 256
TEST_SEED = 0  # of the demo's images
_COLUMNS: tuple[str, ...] = ("model", "dataset", "correct", "images", "checksum")


@dataclass(frozen=True)
class LineBaseline:
    """A small supervised network of ID images alone: one point of the lab's baseline."""

    width: int  # channels of its first block; the other widths are in proportion
    images: int
    epochs: int

    @property
    def name(self) -> str:
        """Label in tables."""
        return f"ResNet {self.width}, {self.images} images, {self.epochs} epochs"


@dataclass(frozen=True)
class LabTrainConfig:
    """Training of the lab's models; the defaults are those of the shipped ones."""

    n_world_images: int = 60_000  # of all styles, with captions
    n_train_images: int = 20_000  # in-distribution, with labels
    n_candidates: int = 12_000  # images from which shift A is selected
    counts: Mapping[str, int] = field(default_factory=lambda: world.DEFAULT_IMAGE_COUNTS)
    architecture: LabArchitecture = field(default_factory=LabArchitecture)
    epochs: tuple[int, int, int] = (9, 10, 3)  # contrastive, supervised, finetuning
    view_epochs: int = 4  # SimCLR
    line_baselines: tuple[LineBaseline, ...] = (
        LineBaseline(8, 20_000, 2), LineBaseline(8, 20_000, 4), LineBaseline(8, 20_000, 12),
        LineBaseline(16, 4_000, 8), LineBaseline(16, 8_000, 6), LineBaseline(16, 20_000, 3),
        LineBaseline(16, 20_000, 5), LineBaseline(16, 20_000, 8), LineBaseline(24, 4_000, 20),
        LineBaseline(24, 8_000, 10), LineBaseline(24, 20_000, 4), LineBaseline(24, 20_000, 8),
    )  # fmt: skip
    judge: LineBaseline = LineBaseline(12, 20_000, 6)  # its errors become shift A


def train_lab(
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    config: LabTrainConfig | None = None,
    progress: ProgressCallback = no_progress,
) -> None:
    """Make what ships with the lab: models, shift A, the table of baselines; keep what exists."""
    config = config or LabTrainConfig()
    check_device(device)
    trainer = _LabTrainer(out, device, seed, config, progress)
    with lock_folder(out):
        _make_missing_towers(trainer, LAB_MODELS)
        choice = _read_hard_examples(out) or _write_hard_examples(trainer)
        _write_baselines(trainer, choice)


def make_towers(
    out: Path,
    names: Sequence[str],
    *,
    device: str = "cpu",
    seed: int = 0,
    config: LabTrainConfig | None = None,
    progress: ProgressCallback = no_progress,
) -> None:
    """Train models of the lab into ``out/NAME.safetensors``; files that exist are kept."""
    check_device(device)
    for name in names:
        if name not in _MAKERS:
            raise ValueError(f"The lab has no model {name!r}; choose {', '.join(_MAKERS)}.")
    trainer = _LabTrainer(out, device, seed, config or LabTrainConfig(), progress)
    if not all(_is_made(out, name) for name in names):
        with lock_folder(out):
            _make_missing_towers(trainer, names)


def _make_missing_towers(trainer: "_LabTrainer", names: Sequence[str]) -> None:
    for name in names:
        if not _is_made(trainer.out, name):
            path = checkpoint_path(trainer.out, name)
            save_classifier(path, _MAKERS[name](trainer), dtype=torch.float16)


def _is_made(out: Path, name: str) -> bool:
    """Return whether the file of a model is there; a damaged one is named, and counts as none."""
    path = checkpoint_path(out, name)
    if not path.is_file():
        return False
    try:
        read_tensors(path)
    except DamagedFileError as error:
        warnings.warn(f"{error} The model is trained again.", stacklevel=4)
        return False
    return True


@dataclass(frozen=True)
class _LabTrainer:
    out: Path
    device: str
    seed: int
    config: LabTrainConfig
    progress: ProgressCallback

    @cached_property
    def train_data(self) -> tuple[Tensor, Tensor]:
        """In-distribution training images and their labels."""
        n = self.config.n_train_images
        return _render_tensors(world.sample_id(n, seed=self.seed, split="train"))

    def iter_batches(self, task: str, images: Tensor, targets: Tensor, steps: int) -> Batches:
        """Yield shuffled batches of preprocessed images, reporting each one."""
        generator = torch.Generator().manual_seed(self.seed)
        batches = shuffled_batches(images, targets, size=BATCH_SIZE, generator=generator)
        for step, (pixels, batch_targets) in zip(range(steps), batches, strict=False):
            self.progress(task, step + 1, steps)
            yield LabTransform().batch(pixels), batch_targets

    def fit_classifier(self, start: Classifier, n_images: int, recipe: Recipe) -> Classifier:
        """Train a classifier on the first of the in-distribution training images."""
        images, labels = (tensor[:n_images] for tensor in self.train_data)
        batches = self.iter_batches(f"train {start.name}", images, labels, recipe.steps)
        return fit(self.move_to_device(start), batches, recipe)

    def move_to_device(self, classifier: Classifier) -> Classifier:
        head = classifier.head
        bias = None if head.bias is None else head.bias.to(self.device)
        encoder = classifier.encoder.to(self.device)
        # the fastest memory format of convolutions
        encoder = encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        head = Head(head.weight.to(self.device), bias, head.normalizes)
        return replace(classifier, encoder=encoder, head=head)


def _make_zero_shot_tower(trainer: _LabTrainer) -> Classifier:
    factors = world.sample_world(trainer.config.n_world_images, seed=trainer.seed)
    classifier = _train_with_captions(trainer, "zero-shot", factors)
    return replace(classifier, pretraining="lab captions")


def _make_captioned_id_tower(trainer: _LabTrainer) -> Classifier:
    """Make the control of the paper's second version: language without diversity."""
    factors = world.sample_id(trainer.config.n_train_images, seed=trainer.seed, split="train")
    classifier = _train_with_captions(trainer, "captioned-id", factors)
    return replace(classifier, pretraining="captions of ID images")


def _train_with_captions(trainer: _LabTrainer, name: str, factors: world.Factors) -> Classifier:
    start = _random_tower(name, trainer.config.architecture, trainer.seed)
    with use_seed(trainer.seed):
        texts = LabText(world.VOCABULARY, trainer.config.architecture.features)
    words = texts.tokenize(world.make_captions(factors, seed=trainer.seed))
    recipe = _contrastive_recipe(len(words), trainer.config.epochs[0])
    images = torch.from_numpy(world.render(factors))
    batches = trainer.iter_batches(f"train {start.name}", images, words, recipe.steps)
    encoder, texts = train_contrastive(
        trainer.move_to_device(start).encoder, texts.to(trainer.device), batches, recipe
    )
    texts = texts.cpu().half().float()  # as when the shipped models were made
    prompts = [world.make_prompts(label) for label in world.CLASSES]
    head = zero_shot_head(texts.embed, prompts, scale=texts.scale.item())
    return replace(start, role="zero-shot", encoder=encoder, head=head)


def _make_no_clip_tower(trainer: _LabTrainer) -> Classifier:
    """Make the paper's NoCLIP: the world's images without captions, then labels."""
    config = trainer.config
    start = _random_tower("no-clip", config.architecture, trainer.seed)
    factors = world.sample_world(config.n_world_images, seed=trainer.seed)
    images = torch.from_numpy(world.render(factors))
    recipe = _contrastive_recipe(len(images), config.view_epochs)
    task = "train lab:no-clip on views"
    encoder = train_simclr(
        trainer.move_to_device(start).encoder,
        trainer.iter_batches(task, images, images, recipe.steps),
        recipe,
        features=config.architecture.features,
        generator=torch.Generator().manual_seed(trainer.seed),
    )
    start = replace(start, encoder=encoder, pretraining="world images, no captions")
    return _finetune(trainer, start, learning_rate=1e-3)


def _make_finetuned_tower(trainer: _LabTrainer) -> Classifier:
    start = load_lab("zero-shot", folder=trainer.out)
    start = replace(start, name="lab:finetuned", role="finetuned")
    return _finetune(trainer, start, learning_rate=1e-4)


def _finetune(trainer: _LabTrainer, start: Classifier, learning_rate: float) -> Classifier:
    n_images = trainer.config.n_train_images
    steps = _count_steps(n_images, trainer.config.epochs[2])
    recipe = Recipe(steps, learning_rate, weight_decay=0.1, bfloat16=True)
    return trainer.fit_classifier(start, n_images, recipe)


def _make_supervised_tower(trainer: _LabTrainer) -> Classifier:
    n_images = trainer.config.n_train_images
    start = _random_tower("supervised", trainer.config.architecture, trainer.seed)
    recipe = _supervised_recipe(n_images, trainer.config.epochs[1])
    return trainer.fit_classifier(replace(start, role="supervised"), n_images, recipe)


_MAKERS: Mapping[str, Callable[[_LabTrainer], Classifier]] = MappingProxyType({
    "zero-shot": _make_zero_shot_tower,
    "finetuned": _make_finetuned_tower,
    "supervised": _make_supervised_tower,
    "untrained": lambda trainer: _random_tower(
        "untrained", trainer.config.architecture, trainer.seed
    ),
    "captioned-id": _make_captioned_id_tower,
    "no-clip": _make_no_clip_tower,
})


def _contrastive_recipe(n_images: int, epochs: int) -> Recipe:
    steps = _count_steps(n_images, epochs)
    return Recipe(steps, 2e-3, weight_decay=0.1, betas=(0.9, 0.98), bfloat16=True)


def _supervised_recipe(n_images: int, epochs: int) -> Recipe:
    steps = _count_steps(n_images, epochs)
    return Recipe(steps, 2e-3, weight_decay=0.05, label_smoothing=0.1, bfloat16=True)


def _count_steps(n_images: int, epochs: int) -> int:
    return max(1, round(n_images * epochs / BATCH_SIZE))


def _random_tower(name: str, architecture: LabArchitecture, seed: int) -> Classifier:
    with use_seed(seed):
        encoder = LabResNet(architecture).eval()
        linear = torch.nn.Linear(architecture.features, len(world.CLASSES))
    head, transform = Head(linear.weight.detach(), linear.bias.detach()), LabTransform()
    labels = "lab ResNet", "none"
    return Classifier(
        f"lab:{name}", "other", encoder, head, world.CLASS_FOLDERS, transform, *labels
    )


def _train_line_baseline(trainer: _LabTrainer, baseline: LineBaseline) -> Classifier:
    width, n_images = baseline.width, min(baseline.images, trainer.config.n_train_images)
    architecture = LabArchitecture(stem=width // 2, blocks=(width, 2 * width, 4 * width))
    start = _random_tower(baseline.name, architecture, trainer.seed)
    recipe = _supervised_recipe(n_images, baseline.epochs)
    return trainer.fit_classifier(start, n_images, recipe)


class HardExamples(BaseModel):
    """Choice of shift A: some of the candidates of a seed."""

    model_config = ConfigDict(frozen=True, strict=True)

    seed: int
    candidates: int
    chosen: list[NonNegativeInt]

    @model_validator(mode="after")
    def _is_in_range(self) -> "HardExamples":
        if max(self.chosen, default=0) >= self.candidates:
            raise ValueError(f"{max(self.chosen)} is none of {self.candidates} candidates")
        return self


def _write_hard_examples(trainer: _LabTrainer) -> HardExamples:
    """Choose shift A from one network's errors, as ImageNet-A was from a ResNet-50's."""
    n_candidates, counts = trainer.config.n_candidates, trainer.config.counts
    images, labels = _render_tensors(world.sample_candidates(n_candidates, seed=TEST_SEED))
    network = _train_line_baseline(trainer, trainer.config.judge)
    is_wrong = _predict(network, images) != labels
    indices = select_hard_examples(labels.numpy(), is_wrong.numpy(), counts["imagenet-a"])
    choice = HardExamples(seed=TEST_SEED, candidates=n_candidates, chosen=indices.tolist())
    seal = new_seal()
    with atomic_write(trainer.out / HARD_EXAMPLES_FILE) as tmp_path:
        tmp_path.write_text(json.dumps({**choice.model_dump(), "seal": seal}), encoding="utf-8")
        write_seal(tmp_path, seal)
    return choice


def _read_hard_examples(out: Path) -> HardExamples | None:
    """Return the choice of shift A; None, with a warning, for a damaged file."""
    path = out / HARD_EXAMPLES_FILE
    if not path.is_file():
        return None
    try:
        has_seal(path)  # an older earmark's has none
        return HardExamples.model_validate_json(read_bytes(path))
    except ValueError as error:
        reason = " ".join(f"{error}".split())
        warnings.warn(f"{path} is damaged ({reason}): shift A is chosen again.", stacklevel=3)
        return None


def select_hard_examples(
    labels: Int64[np.ndarray, " image"], is_wrong: Bool[np.ndarray, " image"], count: int
) -> Int64[np.ndarray, " chosen"]:
    """Return ascending indices of misclassified images, balanced over classes."""
    n_seen: Counter[int] = Counter()
    ranked: list[tuple[int, int]] = []
    for image in np.flatnonzero(is_wrong).tolist():
        ranked.append((n_seen[labels[image]], image))
        n_seen[labels[image]] += 1
    return np.array(sorted(image for _, image in sorted(ranked)[:count]), dtype=np.int64)


def _write_baselines(trainer: _LabTrainer, choice: HardExamples) -> None:
    path = trainer.out / BASELINES_FILE
    rows = _read_intact_rows(path) if path.is_file() else []
    names = {row["model"] for row in rows}
    order = {line.name: place for place, line in enumerate(trainer.config.line_baselines)}
    missing = [line for line in trainer.config.line_baselines if line.name not in names]
    test_sets = _test_sets(trainer, choice) if missing else {}
    for baseline in missing:
        network = _train_line_baseline(trainer, baseline)
        for dataset, (images, labels) in test_sets.items():
            correct = int((_predict(network, images) == labels).sum())
            rows.append(_seal_row([baseline.name, dataset, str(correct), str(len(labels))]))
        rows.sort(key=lambda row: order.get(row["model"], -1))
        with (
            atomic_write(path) as tmp_path,
            tmp_path.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _read_intact_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of the networks that have an intact row of each dataset."""
    try:
        rows = read_csv_rows(path)
    except (ValueError, csv.Error) as error:
        warnings.warn(f"{path} is damaged ({error}): it is made again.", stacklevel=3)
        return []
    sealed = [_seal_row([f"{row.get(column)}" for column in _COLUMNS[:-1]]) for row in rows]
    intact = [
        mine
        for mine, row in zip(sealed, rows, strict=True)
        if row.get("checksum", mine["checksum"]) == mine["checksum"]  # older tables have none
    ]
    counts = Counter(row["model"] for row in intact)
    kept = [row for row in intact if counts[row["model"]] == 1 + len(world.LAB_SHIFTS)]
    if len(kept) < len(rows):
        warnings.warn(
            f"{path} is damaged: the networks of {len(rows) - len(kept)} of its {len(rows)} rows "
            "are trained again.",
            stacklevel=3,
        )
    return kept


def _seal_row(cells: Sequence[str]) -> dict[str, str]:
    """Return a row of the table of baselines, with its checksum."""
    checksum = sha256(json.dumps([*cells]).encode()).hexdigest()[:16]
    return dict(zip(_COLUMNS, (*cells, checksum), strict=True))


def _test_sets(trainer: _LabTrainer, choice: HardExamples) -> dict[str, tuple[Tensor, Tensor]]:
    counts = trainer.config.counts
    candidates = world.sample_candidates(choice.candidates, seed=choice.seed)
    factors = {"imagenet": world.sample_id(counts["imagenet"], seed=TEST_SEED, split="val")}
    for name in world.LAB_SHIFTS:
        if name != "imagenet-a":
            factors[name] = world.sample_shift(name, counts[name], seed=TEST_SEED)
    factors["imagenet-a"] = candidates[np.array(choice.chosen)]
    return {name: _render_tensors(images) for name, images in factors.items()}


def _render_tensors(factors: world.Factors) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(world.render(factors)), torch.from_numpy(factors.labels)


@torch.inference_mode()
def _predict(classifier: Classifier, images: Tensor) -> Tensor:
    device = classifier.head.weight.device
    predictions = [
        classifier.head.predict(classifier.encoder(LabTransform().batch(pixels).to(device)))
        for pixels in images.split(BATCH_SIZE)
    ]
    return torch.cat(predictions).cpu()
