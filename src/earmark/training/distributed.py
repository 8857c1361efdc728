"""Training steps of one process, or of several that share each batch.

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
from .loop import TrainableClassifier, adamw, check_loss
from .recipes import EpochRecipe

if TYPE_CHECKING:
    from accelerate import Accelerator

MicroBatches = Iterator[tuple[Tensor, Tensor]]
"""Images (image, channel, height, width) and their labels, a micro-batch at a time."""

_ACCELERATE_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
_GROUP_COUNTER = count()


@contextmanager
def make_accelerator(device: str, precision: str) -> Generator["Accelerator"]:
    """Join the processes that ``torchrun`` started, if any, for the length of the block."""
    # Random states, accelerate's global state and the process group are restored after it.
    if precision not in _ACCELERATE_PRECISIONS:
        names = ", ".join(_ACCELERATE_PRECISIONS)
        raise ValueError(f"Unknown precision {precision!r}: use {names}.")
    kind, _, number = device.partition(":")
    with _restore_accelerate_state(), torch.cuda.device(int(number)) if number else nullcontext():
        from accelerate import Accelerator

        _init_process_group(kind)
        accelerator = Accelerator(
            cpu=kind == "cpu", mixed_precision=_ACCELERATE_PRECISIONS[precision]
        )
        if accelerator.device.type != kind:
            raise ValueError(f"Cannot train on {device!r}: this machine has none; try cpu.")
        devices = [torch.cuda.current_device()] if kind == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield accelerator


@contextmanager
def _restore_accelerate_state() -> Generator[None]:
    """Reset the states and the process group that are created within the block."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states: tuple[Any, ...] = (AcceleratorState, GradientState, PartialState)
    new = [state for state in states if not state._shared_state]
    had_group = dist.is_initialized()
    try:
        yield
    finally:
        for state in new:
            state._reset_state()
        if dist.is_initialized() and not had_group:
            dist.destroy_process_group()


def _init_process_group(kind: str) -> None:
    from torch.distributed.rendezvous import rendezvous

    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        return
    store, rank, world_size = next(iter(rendezvous("env://")))
    # with a shared prefix, a second group would read the addresses of the first
    prefix = f"earmark {next(_GROUP_COUNTER)}"
    store = dist.PrefixStore(prefix, store)  # pyright: ignore[reportPrivateImportUsage]
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)


@dataclass(frozen=True)
class StepMetrics:
    """Mean loss and accuracy on a batch of augmented images, before its step."""

    loss: float
    accuracy: float


class Trainer:
    """Trainer of a classifier, which changes in place, in all processes together."""

    # The gradient is that of the mean loss over the whole batch, however it is split among
    # processes and micro-batches. BatchNorm is the exception: it normalizes over one process's
    # micro-batch, and keeps the first process's running statistics.

    def __init__(
        self, learner: TrainableClassifier, recipe: EpochRecipe, accelerator: "Accelerator"
    ) -> None:
        self.learner, self._recipe, self._accelerator = learner, recipe, accelerator
        optimizer = adamw([*learner.parameters()], recipe)
        self._model, self._optimizer = accelerator.prepare(learner, optimizer)

    def step(
        self, micro_batches: MicroBatches, n_micro_batches: int, *, step: int, lr: float
    ) -> StepMetrics:
        """Make step number ``step`` (from 0) on this process's share of a batch."""
        # n_micro_batches, taken from the iterator, must be the same in every process
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.zero_grad()
        accelerator = self._accelerator
        rank = accelerator.process_index
        seeds = np.random.SeedSequence((self._recipe.seed, step, rank))
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        sums = torch.zeros(2, device=accelerator.device)
        for n_left in reversed(range(n_micro_batches)):
            # processes average their gradients once, after the last micro-batch
            with accelerator.no_sync(self._model) if n_left else nullcontext():
                sums += self._accumulate_gradient(*next(micro_batches))
        total: Any = accelerator.reduce(sums, reduction="sum")
        loss, accuracy = (total / self._recipe.batch_size).tolist()
        check_loss(loss, step)
        if self._recipe.clip is not None:
            accelerator.clip_grad_norm_(self._model.parameters(), self._recipe.clip)
        self._optimizer.step()
        return StepMetrics(loss, accuracy)

    def _accumulate_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add a micro-batch's gradient; return its summed loss and correct predictions."""
        device = self._accelerator.device
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        logits = self._model(images)
        loss = cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self._recipe.label_smoothing
        )
        # DDP averages over processes, but each of them holds a part of the sum
        scale = self._accelerator.num_processes / self._recipe.batch_size
        self._accelerator.backward(loss * scale)
        return torch.stack([loss.detach(), (logits.argmax(dim=1) == labels).sum()])

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the top-1 classes of images, on the CPU, in evaluation mode."""
        self.learner.eval()
        with self._accelerator.autocast():
            logits = self.learner(images.to(self._accelerator.device, non_blocking=True))
        self.learner.train()
        if not logits.isfinite().all():
            raise ValueError("Logits of validation images are not finite: use bfloat16.")
        return logits.argmax(dim=1).cpu()

    def sync_buffers(self) -> None:
        """Copy the first process's buffers to all, as DDP does in each forward pass."""
        from accelerate.utils import broadcast

        for buffer in self.learner.buffers():
            broadcast(buffer)

    def classifier(self, start: Classifier) -> Classifier:
        """Return ``start`` with the encoder, not copied, and the head that are trained."""
        head = self.learner.detach_head()
        bias = None if head.bias is None else head.bias.cpu()
        head = Head(head.weight.cpu(), bias, head.normalizes)
        return replace(start, encoder=self.learner.encoder, head=head, text_tower=None)

    def state(self) -> dict[str, Tensor]:
        """Return all tensors that later steps depend on, by name."""
        state = {f"learner.{key}": value for key, value in self.learner.state_dict().items()}
        for weight, slots in self._optimizer.state_dict()["state"].items():
            state |= {f"adamw.{weight}.{key}": value for key, value in slots.items()}
        scaler = self._accelerator.scaler  # of float16's gradients
        scales = scaler.state_dict() if scaler else {}
        return state | {f"scaler.{key}": torch.tensor(scales[key]) for key in scales}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a result of `state`."""
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


def check_device(device: str) -> None:
    """Raise a ValueError if PyTorch cannot use a device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Cannot use the device {device!r} ({reason}); try cpu or cuda."
        ) from error
