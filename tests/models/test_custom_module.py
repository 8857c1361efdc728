"""An own module becomes a classifier that gives the module's own logits."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.encoding_fakes import ToTensor, make_images
from PIL import Image
from torch import Tensor, nn

from earmark import Classifier, encode, scan
from earmark.data.loader import load_batches
from earmark.weights.interpolation import interpolate_classifiers
from earmark.weights.soups import soup_classifiers


class Net(nn.Module):
    """A small network with dropout and batch statistics, which training mode would show."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(20, classes)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        return self.fc(self.drop(self.body(images).flatten(1)))


def picture(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1) / 255


@pytest.mark.parametrize("own_head", [False, True])
def test_the_last_linear_layer_is_the_head(own_head: bool):
    module, images = Net().train(), torch.rand(4, 3, 16, 16)
    module(images)  # moves the running statistics
    head = module.fc if own_head else None

    model = Classifier.from_module(
        module, head=head, transform=picture, class_names=["a", "b", "c"], role="supervised"
    )

    assert (model.name, model.role, model.classes) == ("Net", "supervised", ("a", "b", "c"))
    logits = model.head.logits(model.encoder(images))
    assert torch.allclose(logits, module.eval()(images), atol=1e-6)
    assert module.training is False
    assert isinstance(module.fc, nn.Linear)  # the user's module is left as it was


def test_an_encoder_takes_a_weight_or_no_head():
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    weight = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)

    model = Classifier.from_module(encoder, head=weight, transform=picture, name="mine")
    bare = Classifier.from_module(encoder, head=weight[:0], transform=picture)

    assert torch.equal(model.head.weight, torch.from_numpy(weight))
    assert model.classes == ("0", "1", "2", "3", "4")
    assert bare.head.weight.shape == (0, 12)
    assert bare.classes == ()


def test_the_default_transform_is_imagenets():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model = Classifier.from_module(module)

    shown = model.transform(Image.new("RGB", (300, 400), (124, 116, 104)))

    assert shown.shape == (3, 224, 224)
    assert shown.abs().max() < 0.01  # about the mean of ImageNet


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (nn.Conv2d(3, 4, 3), {"head": np.ones((2, 4))}, r"it gave shape \(1, 4, 14, 14\)"),
        (nn.Identity(), {"head": np.ones((2, 4))}, r"must map images .* it gave shape"),
        (Net(), {"head": np.ones((2, 7))}, r"reads 7 features, and the module gives 3"),
        (nn.Flatten(), {}, "not the output of one linear head"),
        (Net(), {"class_names": ["a"]}, "names 1 classes"),
        (Net(), {"transform": np.array}, "it gave ndarray"),
        (Net(), {"transform": lambda image: torch.ones(16, 16)}, r"it gave \(16, 16\)"),
    ],
)
def test_what_does_not_fit_is_named(module: nn.Module, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Classifier.from_module(module, **{"transform": picture} | options)


def test_an_output_that_is_no_tensor_is_named():
    class Two(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(ValueError, match="no tensor but tuple"):
        Classifier.from_module(Two(), head=np.ones((2, 3)), transform=picture)


def test_fingerprints_tell_transforms_and_code_apart():
    def brighter(image: Image.Image) -> Tensor:
        return picture(image) + 0.5

    class Louder(Net):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(2 * self.body(images).flatten(1))

    def fingerprint(module: nn.Module, transform: Callable = picture) -> str:
        return Classifier.from_module(module, head=module.fc, transform=transform).fingerprint

    net, louder = Net().eval(), Louder().eval()
    louder.load_state_dict(net.state_dict())
    again = Net().eval()
    again.load_state_dict(net.state_dict())

    assert fingerprint(net) == fingerprint(again)
    assert fingerprint(net) == fingerprint(net, lambda image: picture(image) + 0)
    assert fingerprint(net) != fingerprint(net, brighter)
    assert fingerprint(net) != fingerprint(louder)


def test_a_head_that_tells_nothing_apart_is_noted_and_refused_where_it_counts(tmp_path: Path):
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    weight = np.array([[1.0] * 12, [np.nan] * 12])
    with pytest.raises(ValueError, match="The head of mine has NaN or infinite values, in row 1"):
        Classifier.from_module(encoder, head=weight, transform=picture, name="mine")
    with pytest.warns(UserWarning, match="All 3 rows of the head of mine are equal"):
        flat = Classifier.from_module(
            encoder, head=np.ones((3, 12)), transform=picture, name="mine"
        )
    rows = np.eye(3, 12) * [[1], [1], [0]]
    with pytest.warns(UserWarning, match=r"1 of 3 rows that are zero \(row 2\)"):
        Classifier.from_module(encoder, head=rows, transform=picture, name="mine")
    make_images(tmp_path / "images", 3)
    with pytest.raises(ValueError, match="All 3 rows of the head of mine are equal"):
        scan(flat, tmp_path / "images")


def test_a_state_of_other_than_tensors_is_named():
    class Extra(Net):
        def get_extra_state(self) -> dict[str, int]:
            return {"epoch": 3}

        def set_extra_state(self, _: object) -> None: ...

    with pytest.raises(ValueError, match="has _extra_state in its state, which are no tensors"):
        Classifier.from_module(Extra(), transform=picture)


def test_an_error_of_the_module_names_the_size_of_the_images():
    with pytest.raises(ValueError, match=r"Sequential does not read images of 16 by 16") as error:
        Classifier.from_module(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), transform=picture)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [None, 2])
def test_a_transform_that_no_process_can_take_is_run_here_or_named(
    tmp_path: Path, workers: int | None
):
    images = make_images(tmp_path / "images", 2)

    def inner(image: Image.Image) -> Tensor:
        return picture(image)

    load = partial(load_batches, inner, images, [range(2)], 2)
    if workers:
        with pytest.raises(ValueError, match=r"cannot be sent to worker processes.* 0 workers"):
            next(load(workers=workers, device="cpu"))
    else:
        assert len(next(load(workers=None, device="meta")).indices) == 2


def test_own_modules_are_merged():
    first, second = (Classifier.from_module(Net(), transform=picture) for _ in range(2))
    middle = interpolate_classifiers(first, second, 0.5)
    mean = soup_classifiers([first, second])
    assert torch.allclose(middle.head.weight, (first.head.weight + second.head.weight) / 2)
    assert middle.fingerprint == replace(mean, transform=middle.transform).fingerprint
    assert middle.fingerprint != first.fingerprint


def test_it_cannot_be_saved_but_says_why(tmp_path: Path):
    model = Classifier.from_module(Net(), transform=picture)

    with pytest.raises(ValueError, match="Net cannot be saved"):
        model.save(tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_its_activations_are_the_modules(tmp_path: Path):
    images = make_images(tmp_path / "images", 5)
    module = Net().eval()
    model = Classifier.from_module(module, transform=ToTensor())

    found = encode(model, images).tensor()

    shown = torch.stack([ToTensor()(images.open(image)) for image in range(5)])
    assert torch.allclose(found, module.body(shown).flatten(1), atol=1e-6)
