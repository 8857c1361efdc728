"""torchvision beside a torch of another build, such as a CPU torch from another index.

torchvision then finds no compiled operators and its import fails, for want of two schemas
that no image model needs. The adapters import this module before anything that imports
torchvision.
"""

from contextlib import suppress

from torch import library

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _schemas() -> library.Library | None:
    """The two operators' schemas where torchvision lacks them, kept alive by the caller."""
    with suppress(RuntimeError, ImportError):
        import torchvision  # noqa: F401 # pyright: ignore[reportUnusedImport]

        return None
    missing = library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with suppress(RuntimeError):  # one that a half-done import has left behind
            missing.define(f"{name}{_SIGNATURE}")
    return missing


KEPT = _schemas()
