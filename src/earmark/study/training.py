"""A classifier trained on images on disk: where data, models and training meet."""

import json
import os
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..activations import encode
from ..activations.reading import reads
from ..data.images import ImageSet
from ..files import replacing
from ..models.classifier import Classifier
from ..models.lab_resnet import LabResNet
from ..models.saved import load_classifier, read_tensors, save_classifier, write_tensors
from ..tuning.descent import Descent, accelerated
from ..tuning.log import Log, check_wandb, logging_to
from ..tuning.recipes import EpochRecipe
from ..tuning.training import Learner
from .lessons import Lessons, Stream, squashing
from .progress import Tell, silent

if TYPE_CHECKING:
    from accelerate import Accelerator

MODEL, CHECKPOINT, RUN = "model.safetensors", "checkpoint.safetensors", "run.json"


@dataclass(frozen=True)
class Running:
    """How a training run is computed.

    Of all this only the precision is part of what it is; and where BatchNorm or dropout
    depends on them, the micro-batch and the number of processes.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:1``; under ``torchrun`` with ``cuda``, each
            process takes the GPU of its own number.
        micro_batch: How many images a process sees at a time. Gradients are added up until
            the recipe's batch is whole.
        workers: How many processes decode images for each one that trains; None takes 0 on
            the CPU and up to 8 elsewhere.
        precision: ``float32``, ``bfloat16`` or ``float16``: of products, by autocast;
            weights stay float32.
        checkpoint_every: How many steps are lost at most when a run is cut short; the end
            of an epoch is kept too.
        wandb: Whether Weights & Biases is told.

    Raises:
        ValueError: If a number is out of its range.
    """

    device: str = "cpu"
    micro_batch: int = 64
    workers: int | None = None
    precision: str = "float32"
    checkpoint_every: int = 1000
    wandb: bool = False

    def __post_init__(self) -> None:
        for name, least in (("micro_batch", 1), ("checkpoint_every", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} cannot be {value}: give {least} or more.")


def train_on(
    start: Classifier,
    lessons: Lessons,
    recipe: EpochRecipe,
    out: Path,
    *,
    running: Running | None = None,
    tell: Tell = silent,
) -> Classifier:
    """Train encoder and head together on images on disk, from where they stand.

    From a zero-shot classifier this is finetuning; from one with random weights it is
    supervised training. In a process that ``torchrun`` started, all processes share each
    batch, of which each must get as many images; they must see the same folders, and only
    the first writes.

    A run that was cut short goes on from its last checkpoint, to the same bits on a CPU;
    one that was finished is read. The order of the images and their crops depend on the
    recipe's seed, the epoch and the image alone. The last few images of an epoch that make
    no whole batch are left out of it.

    BatchNorm sees, while learning, the images of one micro-batch of one process, as usual;
    the running statistics kept are the first process's. So with BatchNorm, or dropout, the
    answer depends on the number of processes and on the micro-batch; without, they change
    its rounding only.

    Args:
        start: Where to start, with a head for the images' classes; it stays as it is. Its
            name and role are those of the answer.
        lessons: The images.
        recipe: How to train.
        out: The run's own folder, for ``model.safetensors``, ``log.jsonl`` (loss, accuracy
            and learning rate of each step; accuracy on validation images after each epoch),
            ``tensorboard``, ``run.json`` (what determines the run) and, until it is
            finished, ``checkpoint.safetensors``.
        running: How it is computed; None is `Running()`.
        tell: Told of progress, in the first process.

    Returns:
        The classifier as it was saved, on the CPU, without a text tower.

    Raises:
        ValueError: If the images have no labels or other classes than the head, there are
            fewer than a batch, a batch cannot be shared equally, earmark could not save the
            model, an image cannot be read, the loss is not finite, a micro-batch does not
            fit into memory, or the folder holds another run.
        OSError: If a file is missing or the folder cannot be written to.
    """
    running = running or Running()
    _check(start, lessons)
    check_wandb(wanted=running.wandb)
    recipe.steps(len(lessons.train))
    determined = _determined(start, lessons, recipe, running)
    _check_folder(out, determined)
    if not (out / MODEL).is_file():
        with accelerated(running.device, running.precision) as accelerator:
            run = _Run(start, lessons, recipe, out, running, determined, accelerator)
            run.train(tell if accelerator.is_main_process else silent)
    return replace(load_classifier(out / MODEL), name=start.name, role=start.role)


@dataclass(frozen=True)
class _Run:
    """One process's part of a run."""

    start: Classifier
    lessons: Lessons
    recipe: EpochRecipe
    out: Path
    running: Running
    determined: dict[str, Any]
    accelerator: "Accelerator"

    @property
    def first(self) -> bool:
        return self.accelerator.is_main_process

    def train(self, tell: Tell) -> None:
        """Learn from where the checkpoint stands, and save what comes of it."""
        size = self.recipe.steps(len(self.lessons.train))
        self._portions(0)
        descent = Descent(Learner(self.start), self.recipe, self.accelerator)
        done = self._resume(descent)
        with logging_to(
            self.out if self.first else None, since=done, wandb=self._wandb()
        ) as log:
            for epoch in range(done // size, self.recipe.epochs):
                steps = range(max(done, epoch * size), (epoch + 1) * size)
                for done, values in self._learn(descent, steps, size):
                    log.write(done, epoch=epoch, **values)
                    tell(f"train {self.start.name}", done, self.recipe.epochs * size)
                    if done % self.running.checkpoint_every == 0 and done < steps.stop:
                        self._keep(descent, done, log)
                if self.lessons.validation:
                    accuracy = self._ask(descent, self.lessons.validation)
                    log.write(done, epoch=epoch, validation_accuracy=accuracy)
                self._keep(descent, done, log)
        self._finish(descent)

    def _learn(
        self, descent: Descent, steps: range, epoch_steps: int
    ) -> Generator[tuple[int, dict[str, float]]]:
        """The steps of an epoch, or of what is left of it."""
        with closing(self._parts(steps)) as parts, _memory(self.running.micro_batch):
            for step in steps:
                rate = self.recipe.rate(step, epoch_steps)
                portions = len(self._portions(step))
                found = descent.step(parts, portions, step=step, rate=rate)
                yield step + 1, {**asdict(found), "learning_rate": rate}

    def _portions(self, step: int) -> list[range]:
        """Which turns of the stream this process takes in a step, a micro-batch each."""
        batch, processes = self.recipe.batch_size, self.accelerator.num_processes
        if batch % processes:
            raise ValueError(
                f"A batch of {batch} images cannot be shared equally by {processes} "
                "processes: take another number of processes, or a batch size to match."
            )
        share, size = batch // processes, self.running.micro_batch
        begin = step * batch + self.accelerator.process_index * share
        turns = range(begin, begin + share)
        return [turns[part : part + size] for part in range(0, share, size)]

    def _parts(self, steps: range) -> Generator[tuple[Tensor, Tensor]]:
        """This process's images and labels in some steps, a micro-batch at a time."""
        batches = [turns for step in steps for turns in self._portions(step)]
        stream = Stream.of(self.lessons.train, self.recipe)
        read = reads(
            squashing(self.start),
            stream,
            batches,
            max(map(len, batches)),
            workers=self.running.workers,
            device=self.accelerator.device.type,
        )
        with closing(read):
            for turns, one in zip(batches, read, strict=True):
                for message in one.unreadable.values():
                    raise ValueError(message)
                yield one.pixels[: len(turns)], stream.answers(turns)

    def _ask(self, descent: Descent, images: ImageSet) -> float:
        """Accuracy, each process asking its share of the images."""
        descent.agree()
        processes, own = self.accelerator.num_processes, self.accelerator.process_index
        right = torch.zeros(1, device=self.accelerator.device)
        mine = images.without(k for k in range(len(images)) if k % processes != own)
        if len(mine):
            classifier, running = descent.classifier(self.start), self.running
            activations = encode(
                classifier,
                mine,
                batch_size=running.micro_batch,
                workers=running.workers,
                precision=running.precision,
            )
            answers = classifier.head.predict(activations)
            right += int((answers == torch.from_numpy(mine.labels)).sum())
        total: Any = self.accelerator.reduce(right, reduction="sum")
        return total.item() / len(images)

    def _resume(self, descent: Descent) -> int:
        """How many steps were made before, and the state after them."""
        path = self.out / CHECKPOINT
        if not path.is_file():
            if self.first:
                with replacing(self.out / RUN) as aside:
                    aside.write_text(json.dumps(self.determined, indent=2), "utf-8")
            return 0
        tensors, description = read_tensors(path)
        if description.get("run") != self.determined:
            raise ValueError(
                f"{path} is of another training run: remove it, or give another folder."
            )
        descent.restore(tensors)
        return int(description["step"])

    def _keep(self, descent: Descent, done: int, log: Log) -> None:
        if self.first:
            log.flush()
            description = {"run": self.determined, "step": done}
            write_tensors(self.out / CHECKPOINT, descent.state(), description)

    def _finish(self, descent: Descent) -> None:
        if self.first:
            save_classifier(self.out / MODEL, descent.classifier(self.start))
            (self.out / CHECKPOINT).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def _wandb(self) -> dict[str, Any] | None:
        if not self.running.wandb:
            return None
        number = sha256(json.dumps(self.determined).encode()).hexdigest()[:16]
        told = {"project": "earmark", "name": self.start.name, "dir": str(self.out)}
        return {**told, "id": number, "resume": "allow", "config": self.determined}


def _check(start: Classifier, lessons: Lessons) -> None:
    """What cannot be is refused before anything is read or written."""
    if not start.classes:
        raise ValueError(
            f"{start.name} has no head to train: give it one of words, or of a probe."
        )
    for images in (lessons.train, lessons.validation):
        if images is None:
            continue
        if images.labels is None:
            raise ValueError(
                f"The images of {images.name} have no labels: put them in class folders."
            )
        if images.classes != start.classes:
            raise ValueError(
                f"The {len(images.classes)} classes of {images.name} are not the "
                f"{len(start.classes)} of {start.name}'s head: read the images for it."
            )
    if not (start.blueprint or isinstance(start.encoder, LabResNet)):
        raise ValueError(
            f"{start.name} could not be saved after training: its encoder is a "
            f"{type(start.encoder).__name__} that earmark could not build again."
        )
    squashing(start)


def _determined(
    start: Classifier, lessons: Lessons, recipe: EpochRecipe, running: Running
) -> dict[str, Any]:
    """All that the trained weights depend on but for rounding, as JSON gives it back."""
    head, images = start.head, lessons.train
    bias = torch.empty(0) if head.bias is None else head.bias
    parts = (head.weight, bias, torch.from_numpy(np.asarray(images.labels)))
    weight, bias, labels = (
        sha256(part.detach().cpu().numpy().tobytes()).hexdigest() for part in parts
    )
    determined: dict[str, Any] = {
        "encoder": start.fingerprint,
        "head": [weight, bias, head.normalizes],
        "classes": list(start.classes),
        "recipe": asdict(recipe),
        "images": [images.fingerprint(), labels],
        "precision": running.precision,
    }
    if _sees_the_batch(start):
        shared = [running.micro_batch, int(os.environ.get("WORLD_SIZE", "1"))]
        determined["micro-batch and processes"] = shared
    return json.loads(json.dumps(determined))


def _sees_the_batch(classifier: Classifier) -> bool:
    """Whether what is learned of an image depends on the others beside it, or on a draw."""
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    return any(
        isinstance(part, norms) or (isinstance(part, torch.nn.Dropout) and part.p > 0)
        for part in classifier.encoder.modules()
    )


def run_key(
    start: Classifier, lessons: Lessons, recipe: EpochRecipe, running: Running
) -> str:
    """A hash of all that the trained weights depend on but for rounding.

    Args:
        start: Where the run starts.
        lessons: Its images.
        recipe: How it trains.
        running: How it is computed.

    Returns:
        64 hexadecimal digits.
    """
    determined = _determined(start, lessons, recipe, running)
    return sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()


def _check_folder(out: Path, determined: dict[str, Any]) -> None:
    """A folder holds one run, the same one for ever."""
    held = [name for name in (RUN, MODEL, CHECKPOINT) if (out / name).exists()]
    if held and held[0] != RUN:
        raise ValueError(f"{out} holds a {held[0]} of no known run: give another folder.")
    if not held:
        return
    try:
        before = json.loads((out / RUN).read_text("utf-8"))
        other = [key for key, value in determined.items() if before.get(key) != value]
    except (ValueError, AttributeError):
        other = [f"{RUN}, which cannot be read"]
    if other:
        raise ValueError(
            f"{out} holds another training run, of other {', '.join(other)}: give another "
            "folder, or empty this one."
        )


@contextmanager
def _memory(size: int) -> Generator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(
            f"{size} images at a time do not fit into memory: take a smaller micro-batch; "
            "the batch that is learned from stays the same."
        ) from error
