"""Training run of a classifier on images on disk, with checkpoints and a log."""

import json
import os
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._io import DamagedFileError, atomic_write, lock_folder, read_json
from .._progress import ProgressCallback, no_progress
from ..data.image_set import ImageSet
from ..data.loader import LoadedBatch, load_batches
from ..models.classifier import Classifier
from ..models.own_code import OwnCode
from ..models.serialization import load_classifier, read_tensors, save_classifier, write_tensors
from .distributed import Trainer, make_accelerator
from .image_stream import AugmentedStream, TrainData, crop_transform
from .loop import TrainableClassifier
from .recipes import EpochRecipe
from .run_log import RunLog, check_wandb, open_run_log

if TYPE_CHECKING:
    from accelerate import Accelerator

MODEL_FILE = "model.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class ComputeConfig:
    """Configuration of the computation of a training run."""

    # Of these fields, only the precision changes the trained weights beyond rounding; with
    # BatchNorm or dropout, so do the micro-batch and the number of processes.
    device: str = "cpu"  # under torchrun with "cuda", each process takes its local rank's GPU
    micro_batch: int = 64  # images that a process computes at a time; gradients accumulate
    workers: int | None = None  # processes that decode; None chooses 0 on the CPU, else up to 8
    precision: str = "float32"  # of autocast; weights stay float32
    checkpoint_every: int = 1000  # steps; each epoch ends with a checkpoint too
    wandb: bool = False

    def __post_init__(self) -> None:
        for name, low in (("micro_batch", 1), ("checkpoint_every", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} must be >= {low}, got {value}.")


def train_on_images(
    start: Classifier,
    train_data: TrainData,
    recipe: EpochRecipe,
    out: Path,
    *,
    compute_config: ComputeConfig | None = None,
    progress: ProgressCallback = no_progress,
) -> Classifier:
    """Train a copy of a classifier, encoder and head, on images on disk, and return it."""
    # `out` is the run's own folder, for model.safetensors, log.jsonl, tensorboard, run.json (all
    # that determines the run) and, until the run is finished, checkpoint.safetensors. An
    # interrupted run continues from its last checkpoint, to the same bits on a CPU; the model of a
    # finished run is read. Under torchrun all processes share each batch equally and read the same
    # folders; only the first writes. The order of images and their crops depend on the recipe's
    # seed, the epoch and the image alone.
    compute_config = compute_config or ComputeConfig()
    _check_trainable(start, train_data)
    check_wandb(required=compute_config.wandb)
    recipe.steps(len(train_data.train))
    identity = _run_identity(start, train_data, recipe, compute_config)
    _check_folder(out, identity)
    if (trained := _read_model(out, start)) is None:
        with _lock_run(out):
            if (
                trained := _read_model(out, start)
            ) is None:  # nor did another process just finish it
                device, precision = compute_config.device, compute_config.precision
                with make_accelerator(device, precision) as accelerator:
                    run = _TrainingRun(
                        start, train_data, recipe, out, compute_config, identity, accelerator
                    )
                    run.train(progress if accelerator.is_main_process else no_progress)
                trained = load_classifier(out / MODEL_FILE, codes=_codes(start))
    return replace(trained, name=start.name, role=start.role)


def _read_model(out: Path, start: Classifier) -> Classifier | None:
    """Return the model of a finished run; None, with a warning, if its file is damaged."""
    path = out / MODEL_FILE
    if not path.is_file():
        return None
    try:
        return load_classifier(path, codes=_codes(start))
    except DamagedFileError as error:
        warnings.warn(f"{error} The model is trained again.", stacklevel=3)
        return None


def _codes(start: Classifier) -> tuple[OwnCode, ...]:
    """Return the own code that built a classifier, which may build the trained one."""
    spec = start.encoder_spec
    return (spec.code,) if spec and spec.code else ()


def _lock_run(out: Path) -> AbstractContextManager[None]:
    """Lock the folder of a run; under torchrun the first process does so for all."""
    is_other_process = "LOCAL_RANK" in os.environ and os.environ.get("RANK", "0") != "0"
    return nullcontext() if is_other_process else lock_folder(out)


@dataclass(frozen=True)
class _TrainingRun:
    """One process's part of a run."""

    start: Classifier
    train_data: TrainData
    recipe: EpochRecipe
    out: Path
    compute_config: ComputeConfig
    identity: dict[str, Any]
    accelerator: "Accelerator"

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def train(self, progress: ProgressCallback) -> None:
        epoch_steps = self.recipe.steps(len(self.train_data.train))
        total = self.recipe.epochs * epoch_steps
        self._micro_batches(0)  # raises before anything is written
        trainer = Trainer(TrainableClassifier(self.start), self.recipe, self.accelerator)
        done = self._resume(trainer)
        with open_run_log(
            self.out if self.is_main else None, start_step=done, wandb=self._wandb_settings()
        ) as log:
            for epoch in range(done // epoch_steps, self.recipe.epochs):
                steps = range(max(done, epoch * epoch_steps), (epoch + 1) * epoch_steps)
                for done, values in self._train_steps(trainer, steps, epoch_steps):
                    log.write(done, epoch=epoch, **values)
                    progress(f"train {self.start.name}", done, total)
                    due = done % self.compute_config.checkpoint_every == 0
                    if due and done < steps.stop:
                        self._save_checkpoint(trainer, done, log)
                if self.train_data.validation:
                    accuracy = self._validate(trainer, self.train_data.validation)
                    log.write(done, epoch=epoch, validation_accuracy=accuracy)
                self._save_checkpoint(trainer, done, log)
        if self.is_main:
            save_classifier(self.out / MODEL_FILE, trainer.classifier(self.start))
            (self.out / CHECKPOINT_FILE).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def _train_steps(
        self, trainer: Trainer, steps: range, epoch_steps: int
    ) -> Generator[tuple[int, dict[str, float]]]:
        """Make steps of one epoch; yield the number of steps made and the metrics."""
        with closing(self._iter_micro_batches(steps)) as micro_batches:
            for step in steps:
                lr = self.recipe.lr(step, epoch_steps)
                count = len(self._micro_batches(step))
                with _oom_hint(self.compute_config.micro_batch):
                    metrics = trainer.step(micro_batches, count, step=step, lr=lr)
                yield step + 1, {**asdict(metrics), "learning_rate": lr}

    def _micro_batches(self, step: int) -> list[range]:
        """Return the positions in the image stream that this process computes, one range each."""
        batch_size, processes = self.recipe.batch_size, self.accelerator.num_processes
        if batch_size % processes:
            raise ValueError(
                f"A batch of {batch_size} images cannot be shared equally by {processes} "
                "processes: change the number of processes or the batch size."
            )
        share = batch_size // processes
        start = step * batch_size + self.accelerator.process_index * share
        return _split(range(start, start + share), self.compute_config.micro_batch)

    def _iter_micro_batches(self, steps: range) -> Generator[tuple[Tensor, Tensor]]:
        batches = [turns for step in steps for turns in self._micro_batches(step)]
        stream = AugmentedStream.from_images(self.train_data.train, self.recipe)
        with closing(self._load(crop_transform(self.start), stream, batches)) as loaded:
            for turns, batch in zip(batches, loaded, strict=True):
                yield batch.pixels[: len(turns)], stream.batch_labels(turns)

    def _validate(self, trainer: Trainer, images: ImageSet) -> float:
        """Return the accuracy on images, of which each process takes a share."""
        trainer.sync_buffers()
        correct = torch.zeros(1, device=self.accelerator.device)
        share = range(self.accelerator.process_index, len(images), self.accelerator.num_processes)
        batches = _split(share, self.compute_config.micro_batch)
        labels = torch.from_numpy(np.asarray(images.labels))
        with (
            closing(self._load(self.start.transform, images, batches)) as loaded,
            _oom_hint(self.compute_config.micro_batch),
        ):
            for batch in loaded:
                predictions = trainer.predict(batch.pixels)[batch.rows]
                correct += (predictions == labels[batch.indices]).sum()
        total: Any = self.accelerator.reduce(correct, reduction="sum")
        return total.item() / len(images)

    def _load(
        self, transform: Callable[[Image.Image], Tensor], images: ImageSet, batches: Sequence[range]
    ) -> Generator[LoadedBatch]:
        """Yield batches, padded to the size of the largest; raise if one is unreadable."""
        if not batches:
            return
        for batch in load_batches(
            transform,
            images,
            batches,
            max(map(len, batches)),
            workers=self.compute_config.workers,
            device=self.accelerator.device.type,
        ):
            for message in batch.unreadable.values():
                raise ValueError(message)
            yield batch

    def _resume(self, trainer: Trainer) -> int:
        """Load the last checkpoint, if there is one; return the number of steps made."""
        if (checkpoint := self._read_checkpoint()) is None:
            if self.is_main:
                with atomic_write(self.out / RUN_FILE) as tmp_path:
                    tmp_path.write_text(json.dumps(self.identity, indent=2), "utf-8")
            return 0
        tensors, description = checkpoint
        trainer.load_state(tensors)
        return int(description["step"])

    def _read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the last checkpoint; None, with a warning, if it is damaged."""
        path = self.out / CHECKPOINT_FILE
        if not path.is_file():
            return None
        try:
            tensors, description = read_tensors(path)
        except DamagedFileError as error:
            warnings.warn(f"{error} The run starts anew.", stacklevel=5)
            return None
        if description.get("run") != self.identity:
            raise ValueError(
                f"{path} is of another training run: remove it, or give another folder."
            )
        return tensors, description

    def _save_checkpoint(self, trainer: Trainer, step: int, log: RunLog) -> None:
        if self.is_main:
            log.flush()
            description = {"run": self.identity, "step": step}
            write_tensors(self.out / CHECKPOINT_FILE, trainer.state(), description)

    def _wandb_settings(self) -> dict[str, Any] | None:
        if not self.compute_config.wandb:
            return None
        return {
            "project": "earmark",
            "name": self.start.name,
            "dir": str(self.out),
            "id": sha256(json.dumps(self.identity).encode()).hexdigest()[:16],
            "resume": "allow",
            "config": self.identity,
        }


def _split(indices: range, size: int) -> list[range]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _check_trainable(start: Classifier, train_data: TrainData) -> None:
    """Raise ValueError for what would fail after training, before anything is written."""
    if not start.classes:
        raise ValueError(f"{start.name} has no head to train: give it a head first.")
    for images in (train_data.train, train_data.validation):
        if images is None:
            continue
        if images.labels is None:
            raise ValueError(
                f"The images of {images.name} have no labels: put them in class folders."
            )
        if images.classes != start.classes:
            raise ValueError(
                f"The {len(images.classes)} classes of {images.name} do not match the "
                f"{len(start.classes)} classes of {start.name}'s head: pass "
                "classes=classifier.classes when you read the images."
            )
    if start.encoder_spec is None:
        raise ValueError(
            f"{start.name} could not be saved after training: earmark cannot rebuild its "
            f"encoder, a {type(start.encoder).__name__}."
        )
    crop_transform(start)


def _run_identity(
    start: Classifier, train_data: TrainData, recipe: EpochRecipe, compute_config: ComputeConfig
) -> dict[str, Any]:
    """Return everything that determines the trained weights, up to rounding, as JSON values."""
    head, images = start.head, train_data.train
    bias = torch.empty(0) if head.bias is None else head.bias
    tensors = (head.weight, bias, torch.from_numpy(np.asarray(images.labels)))
    weight, bias, labels = (
        sha256(tensor.detach().cpu().numpy().tobytes()).hexdigest() for tensor in tensors
    )
    identity: dict[str, Any] = {
        "encoder": start.fingerprint,
        "head": [weight, bias, head.normalizes],
        "classes": list(start.classes),
        "recipe": asdict(recipe),
        "images": [images.fingerprint(), labels],
        "precision": compute_config.precision,
    }
    if _is_batch_dependent(start):
        split = [compute_config.micro_batch, int(os.environ.get("WORLD_SIZE", "1"))]
        identity["micro-batch and processes"] = split
    return json.loads(json.dumps(identity))


def _is_batch_dependent(classifier: Classifier) -> bool:
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    return any(
        isinstance(module, norms) or (isinstance(module, torch.nn.Dropout) and module.p > 0)
        for module in classifier.encoder.modules()
    )


def run_key(
    start: Classifier, train_data: TrainData, recipe: EpochRecipe, compute_config: ComputeConfig
) -> str:
    """Return the SHA-256 of everything that determines the trained weights, up to rounding."""
    identity = _run_identity(start, train_data, recipe, compute_config)
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _check_folder(out: Path, identity: dict[str, Any]) -> None:
    names = [RUN_FILE, MODEL_FILE, CHECKPOINT_FILE]
    existing = [name for name in names if (out / name).exists()]
    if not existing:
        return
    if existing[0] != RUN_FILE:
        raise ValueError(
            f"{out} holds {existing[0]} but no {RUN_FILE}, so its run is unknown: use another "
            "folder."
        )
    try:
        before = read_json(out / RUN_FILE)
        changed = [key for key, value in identity.items() if before.get(key) != value]
    except (ValueError, AttributeError):
        changed = [f"{RUN_FILE}, which cannot be read"]
    if changed:
        raise ValueError(
            f"{out} holds another training run, which differs in: {', '.join(changed)}. Use "
            "another folder, or empty this one."
        )


@contextmanager
def _oom_hint(size: int) -> Generator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(
            f"{size} images at a time do not fit into memory: use a smaller micro-batch; "
            "the batch size of the recipe stays the same."
        ) from error
