"""Classes of known subsets of ImageNet, by other libraries' lists."""

import re
from importlib.util import find_spec
from pathlib import Path


def _read_imagenette() -> tuple[str, ...]:
    """Read torchvision's list without importing torchvision."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "datasets" / "imagenette.py").read_text()
    return tuple(sorted({*re.findall(r'"(n\d{8})"', source)}))


IMAGENETTE = _read_imagenette()
