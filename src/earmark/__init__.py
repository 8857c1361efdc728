"""Signatures said to tell robust vision models from fragile ones, and their credibility.

The public names are listed in ``__init__.pyi``. Each is imported at first use, so that
``import earmark`` loads nothing heavy.
"""

import re
from importlib import import_module
from pathlib import Path

__version__ = "0.1.0.dev0"

_MODULES = {
    name: module
    for module, name in re.findall(
        r"^from (\.\S+) import \w+ as (\w+)$",
        Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}

__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
