"""The lab's models as a family, which the package's own entry point registers."""

from typing import TYPE_CHECKING

from ..models.family import Family, lazy_function

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..models.size import ModelSize


def known_names() -> "Iterable[str]":
    """Return the names of all lab models."""
    from .checkpoints import LAB_MODELS

    return LAB_MODELS


def measure(name: str) -> "ModelSize":
    """Return the size of a lab model."""
    from ..models.size import saved_size
    from .checkpoints import CHECKPOINT_DIR, checkpoint_path

    return saved_size(checkpoint_path(CHECKPOINT_DIR, name))


LAB = Family(
    name="lab",
    title="the lab",
    ids=("lab:NAME",),
    load=lazy_function("earmark.lab.checkpoints:load_lab"),
    build_encoder=lazy_function("earmark.lab.model:build_encoder"),
    build_transform=lazy_function("earmark.lab.model:LabTransform"),
    known_names=known_names,
    measure=measure,
)
