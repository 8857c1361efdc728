"""Steps that one process takes, or several together, each on its share of a batch.

References:
    Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training,
    VLDB 2020. https://arxiv.org/abs/2006.15704
"""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..models.classifier import Classifier, Head
from .recipes import EpochRecipe
from .training import Learner, adamw, check_loss

if TYPE_CHECKING:
    from accelerate import Accelerator

Parts = Iterator[tuple[Tensor, Tensor]]
"""Images (image, channel, height, width) and their labels, a few at a time."""

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
_GROUPS = count()


@contextmanager
def accelerated(device: str, precision: str) -> Generator["Accelerator"]:
    """The processes that ``torchrun`` started, or else this one, ready to train.

    Random numbers, accelerate's own state and the process group are afterwards as before.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:1``; of several processes on GPUs, each takes
            the one of its own number.
        precision: ``float32``, ``bfloat16`` or ``float16``: of products, by autocast.

    Yields:
        What puts a model on its device and lets the processes agree.

    Raises:
        ValueError: If there is no such device or precision here.
    """
    if precision not in _MIXED:
        raise ValueError(f"There is no precision {precision!r}: take {', '.join(_MIXED)}.")
    kind, _, number = device.partition(":")
    with _as_found(), torch.cuda.device(int(number)) if number else nullcontext():
        from accelerate import Accelerator

        _join(kind)
        accelerator = Accelerator(cpu=kind == "cpu", mixed_precision=_MIXED[precision])
        if accelerator.device.type != kind:
            raise ValueError(f"Cannot train on {device!r}: there is none here; try cpu.")
        devices = [torch.cuda.current_device()] if kind == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield accelerator


@contextmanager
def _as_found() -> Generator[None]:
    """Whoever made accelerate's state, or the process group, ends it."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states: tuple[Any, ...] = (AcceleratorState, GradientState, PartialState)
    new = [state for state in states if not state._shared_state]
    grouped = dist.is_initialized()
    try:
        yield
    finally:
        for state in new:
            state._reset_state()
        if dist.is_initialized() and not grouped:
            dist.destroy_process_group()


def _join(kind: str) -> None:
    """Let the processes that torchrun started find one another."""
    from torch.distributed.rendezvous import rendezvous

    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        return
    store, process, processes = next(iter(rendezvous("env://")))
    # without a name of its own, a second group would find the addresses of the first
    name = f"earmark {next(_GROUPS)}"
    own = dist.PrefixStore(name, store)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo", store=own, rank=process, world_size=processes
    )


@dataclass(frozen=True)
class Step:
    """What was found on one batch, before its step was made.

    Attributes:
        loss: Mean over the batch.
        accuracy: The share of its images that were classified rightly, as augmented.
    """

    loss: float
    accuracy: float


class Descent:
    """A learner on its way down, in as many processes as there are.

    The gradient is that of the mean loss over the whole batch, however it is shared out
    among processes and over micro-batches. BatchNorm is the exception: while learning, it
    sees the images of one micro-batch of one process, and the running statistics kept are
    those of the first process.

    Args:
        learner: What learns; it is put on the device, and its weights change in place.
        recipe: How.
        accelerator: The processes.

    Attributes:
        learner: What learns.
    """

    def __init__(
        self, learner: Learner, recipe: EpochRecipe, accelerator: "Accelerator"
    ) -> None:
        self.learner, self._recipe, self._accelerator = learner, recipe, accelerator
        optimizer = adamw([*learner.parameters()], recipe)
        self._model, self._optimizer = accelerator.prepare(learner, optimizer)

    def step(self, parts: Parts, portions: int, *, step: int, rate: float) -> Step:
        """Learn from one batch.

        Args:
            parts: Where this process finds its share of the batch.
            portions: How many parts that is; the same in every process.
            step: How many steps were made before.
            rate: The learning rate.

        Returns:
            What the learner made of the whole batch.

        Raises:
            ValueError: If the loss is not finite.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        accelerator = self._accelerator
        torch.manual_seed(_mixed(self._recipe.seed, step, accelerator.process_index))
        found = torch.zeros(2, device=accelerator.device)
        for left in reversed(range(portions)):
            # processes agree on the gradient once, when all parts have been added up
            with accelerator.no_sync(self._model) if left else nullcontext():
                found += self._learn(*next(parts))
        total: Any = accelerator.reduce(found, reduction="sum")
        loss, accuracy = (total / self._recipe.batch_size).tolist()
        check_loss(loss, step)
        accelerator.clip_grad_norm_(self._model.parameters(), self._recipe.clip)
        self._optimizer.step()
        return Step(loss, accuracy)

    def _learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add the gradient of one part, and tell its summed loss and its right answers."""
        device = self._accelerator.device
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        logits = self._model(images)
        loss = cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self._recipe.label_smoothing
        )
        # DDP takes the mean over processes, of which each holds a part of the sum
        share = self._accelerator.num_processes / self._recipe.batch_size
        self._accelerator.backward(loss * share)
        return torch.stack([loss.detach(), (logits.argmax(dim=1) == labels).sum()])

    def agree(self) -> None:
        """Give every process the first one's running statistics, as DDP does by itself."""
        from accelerate.utils import broadcast

        for buffer in self.learner.buffers():
            broadcast(buffer)

    def classifier(self, start: Classifier) -> Classifier:
        """What has been learned so far.

        Args:
            start: What the learner was copied from.

        Returns:
            The same model with the learner's own encoder, on its device, and a head on the
            CPU; it has no text tower, since that did not learn.
        """
        head = self.learner.detached()
        bias = None if head.bias is None else head.bias.cpu()
        head = Head(head.weight.cpu(), bias, head.normalizes)
        return replace(start, encoder=self.learner.encoder, head=head, text=None)

    def state(self) -> dict[str, Tensor]:
        """All that later steps depend on: weights, and the optimizer's memories."""
        held = {f"learner.{key}": part for key, part in self.learner.state_dict().items()}
        for weight, slots in self._optimizer.state_dict()["state"].items():
            held |= {f"adamw.{weight}.{key}": part for key, part in slots.items()}
        return held | {f"scaler.{key}": value for key, value in self._scale().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` told.

        Args:
            state: Tensors by name.
        """
        parts: dict[str, dict[str, Tensor]] = {"learner": {}, "adamw": {}, "scaler": {}}
        for key, value in state.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        self.learner.load_state_dict(parts["learner"])
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["adamw"].items():
            weight, _, name = key.partition(".")
            slots.setdefault(int(weight), {})[name] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": slots})
        if scaler := self._accelerator.scaler:
            scales = {key: value.item() for key, value in parts["scaler"].items()}
            scaler.load_state_dict({**scaler.state_dict(), **scales})

    def _scale(self) -> dict[str, Tensor]:
        """What float16's gradients are multiplied by, which changes as training goes."""
        scaler = self._accelerator.scaler
        held = scaler.state_dict() if scaler else {}
        return {key: torch.tensor(value) for key, value in held.items()}


def _mixed(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
