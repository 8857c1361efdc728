"""torchvision beside a torch of another build, such as a CPU torch from another index.

Such a torchvision finds no compiled operators, and its import fails because two schemas are missing
that no image model needs. Import this module before anything that imports torchvision.
"""

from contextlib import suppress

from torch import library

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _define_missing_schemas() -> library.Library | None:
    with suppress(RuntimeError, ImportError):
        import torchvision  # noqa: F401 # pyright: ignore[reportUnusedImport]

        return None
    missing = library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with suppress(RuntimeError):  # the failed import may have defined it
            missing.define(f"{name}{_SIGNATURE}")
    return missing


_LIBRARY = _define_missing_schemas()  # the schemas live as long as this object
