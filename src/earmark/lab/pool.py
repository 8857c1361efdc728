"""Images and models that a study of the pool ``lab`` needs and that do not ship."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from .._progress import ProgressCallback, no_progress
from .model import LabArchitecture
from .train import LabTrainConfig, make_towers
from .world import DEFAULT_IMAGE_COUNTS, write_lab

NARROW_ARCHITECTURE = LabArchitecture(stem=16, blocks=(32, 64, 96))
_FAMILY_ROLES = ("zero-shot", "finetuned")

# Models to train for each family, named by backbone, world images and seed.
LAB_TOWERS: dict[str, tuple[str, ...]] = {
    "wide-60000-0": ("captioned-id", "no-clip"),  # the rest of this family ships
    "wide-60000-1": _FAMILY_ROLES,
    "wide-30000-0": _FAMILY_ROLES,
    "wide-30000-1": _FAMILY_ROLES,
    "narrow-60000-0": (*_FAMILY_ROLES, "supervised"),
    "narrow-60000-1": _FAMILY_ROLES,
    "narrow-30000-0": _FAMILY_ROLES,
    "narrow-30000-1": _FAMILY_ROLES,
}


def prepare_lab(
    out: Path,
    *,
    counts: Mapping[str, int] = DEFAULT_IMAGE_COUNTS,
    config: LabTrainConfig | None = None,
    device: str = "cpu",
    progress: ProgressCallback = no_progress,
) -> Path:
    """Write the images to ``out/data``, train the models into ``out/models``."""
    write_lab(out / "data", counts=counts, progress=partial(progress, "draw the lab's images"))
    config, task = config or LabTrainConfig(), "train the lab's families"
    for done, (family, names) in enumerate(LAB_TOWERS.items()):
        progress(task, done, len(LAB_TOWERS))
        folder, seed = out / "models" / family, int(family.rpartition("-")[2])
        own, report = family_config(family, config), partial(_report_family, progress, family)
        make_towers(folder, names, device=device, seed=seed, config=own, progress=report)
    progress(task, len(LAB_TOWERS), len(LAB_TOWERS))
    return out / "data"


def family_config(family: str, config: LabTrainConfig) -> LabTrainConfig:
    """Return the training of one family of `LAB_TOWERS`, from that of the shipped one."""
    backbone, images, _ = family.split("-")
    if backbone == "narrow":
        config = replace(config, architecture=NARROW_ARCHITECTURE)
    if images == "30000":  # seen twice as often: it lacks diversity, not steps
        contrastive, *others = config.epochs
        n_world_images, epochs = config.n_world_images // 2, (2 * contrastive, *others)
        config = replace(config, n_world_images=n_world_images, epochs=epochs)
    return config


def _report_family(
    progress: ProgressCallback, family: str, task: str, done: int, total: int
) -> None:
    progress(f"{task.replace('lab:', '')} ({family})", done, total)
