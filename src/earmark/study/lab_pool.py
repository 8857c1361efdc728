"""The towers of the pool ``lab`` that do not ship: two backbones, two worlds, two seeds."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..data.lab import COUNTS, write_lab
from ..models.lab_resnet import LabArchitecture
from .lab_towers import LabPlan, make_towers
from .progress import Tell, silent

NARROW = LabArchitecture(stem=16, blocks=(32, 64, 96))
_FAMILY = ("zero-shot", "finetuned")

LAB_TOWERS: dict[str, tuple[str, ...]] = {
    "wide-60000-0": ("captioned-id", "no-clip"),  # the rest of this family ships
    "wide-60000-1": _FAMILY,
    "wide-30000-0": _FAMILY,
    "wide-30000-1": _FAMILY,
    "narrow-60000-0": (*_FAMILY, "supervised"),
    "narrow-60000-1": _FAMILY,
    "narrow-30000-0": _FAMILY,
    "narrow-30000-1": _FAMILY,
}
"""For each family, named by its backbone, the images of its world and its seed, what is
trained."""


def train_lab_pool(
    out: Path, *, plan: LabPlan | None = None, device: str = "cpu", tell: Tell = silent
) -> None:
    """Train the towers of the pool ``lab``; those that are in the folder stay.

    Args:
        out: The folder: ``wide-60000-1/zero-shot.safetensors`` and so on.
        plan: How much they learn from; the small world has half of its images, seen
            twice as often, so that it is diversity that is lacking and not steps.
        device: Where to train.
        tell: Told of progress.

    Raises:
        ValueError: If there is no such device.
    """
    plan = plan or LabPlan()
    for done, (family, names) in enumerate(LAB_TOWERS.items()):
        told = partial(_told, tell, family)
        tell("train the lab's families", done, len(LAB_TOWERS))
        make_towers(
            out / family,
            names,
            device=device,
            seed=int(family.rpartition("-")[2]),
            plan=family_plan(family, plan),
            tell=told,
        )
    tell("train the lab's families", len(LAB_TOWERS), len(LAB_TOWERS))


def family_plan(family: str, plan: LabPlan) -> LabPlan:
    """What one family learns from.

    Args:
        family: A key of `LAB_TOWERS`.
        plan: Of the wide tower in the large world.

    Returns:
        The same, but for the tower's widths, the world's images and how often it sees them.

    Example:
        >>> family_plan("wide-30000-1", LabPlan()).epochs
        (18, 10, 3)
    """
    backbone, images, _ = family.split("-")
    if backbone == "narrow":
        plan = replace(plan, architecture=NARROW)
    if images == "30000":
        contrastive, *others = plan.epochs
        plan = replace(plan, world=plan.world // 2, epochs=(2 * contrastive, *others))
    return plan


def _told(tell: Tell, family: str, what: str, done: int, total: int) -> None:
    tell(f"{what.replace('lab:', '')} ({family})", done, total)


def prepare_lab(
    out: Path,
    *,
    counts: Mapping[str, int] = COUNTS,
    plan: LabPlan | None = None,
    device: str = "cpu",
    tell: Tell = silent,
) -> Path:
    """Make what a study of the pool ``lab`` needs and does not ship: images and towers.

    Args:
        out: The study's folder: images go to ``data``, towers to ``models``.
        counts: How many images of each set.
        plan: How much the towers learn from.
        device: Where to train.
        tell: Told of progress.

    Returns:
        The folder of the images.

    Raises:
        ValueError: If there is no such device.
        OSError: If the folder cannot be written to.
    """
    write_lab(
        out / "data",
        counts=counts,
        progress=lambda done, total: tell("draw the lab's images", done, total),
    )
    train_lab_pool(out / "models", plan=plan, device=device, tell=tell)
    return out / "data"
