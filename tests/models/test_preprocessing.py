"""One preprocessing stands for every library's: bit for bit, whatever the image's shape."""

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hf_fakes import image_processor
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import earmark.models._torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models.preprocessing import Preprocessing, describe_transform, transform_fields

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDES = st.integers(1, 90)


def noise(width: int, height: int) -> Image.Image:
    """Every pixel differs, so that a shift by one shows."""
    drawn = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(drawn.astype(np.uint8))


def preprocessing(**changed: Any) -> Preprocessing:
    return replace(Preprocessing(24, (24, 24), MEAN, STD), **changed)


@pytest.mark.parametrize(
    "interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
)
@settings(max_examples=40)
@given(width=SIDES, height=SIDES, resize=st.integers(1, 40), crop=st.tuples(*[SIDES] * 2))
@example(width=300, height=7, resize=20, crop=(20, 20))
@example(width=7, height=300, resize=20, crop=(21, 20))
@example(width=1, height=1, resize=8, crop=(9, 12))
@example(width=29, height=32, resize=29, crop=(29, 29))
@example(width=33, height=27, resize=27, crop=(24, 40))
def test_equals_torchvision(
    interpolation: str, width: int, height: int, resize: int, crop: tuple[int, int]
):
    from torchvision import transforms

    theirs = transforms.Compose([
        transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
        transforms.CenterCrop(crop),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])
    ours = preprocessing(resize=resize, crop=crop, interpolation=interpolation)
    image = noise(width, height)
    assert torch.equal(ours(image), theirs(image))


@given(width=SIDES, height=SIDES, odd=st.integers(10, 25))
def test_equals_the_presets_of_torchvision(width: int, height: int, odd: int):
    from torchvision.transforms._presets import ImageClassification

    theirs = ImageClassification(crop_size=odd, resize_size=26)
    ours = Preprocessing(26, (odd, odd), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
    image = noise(width, height)
    assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize(("mode", "resize"), [("shortest", 24), ("squash", (24, 24))])
@given(width=SIDES, height=SIDES)
@example(width=400, height=3)
def test_equals_open_clip(mode: str, resize: Any, width: int, height: int):
    from open_clip.transform import image_transform

    theirs = image_transform(24, is_train=False, resize_mode=mode)
    image = noise(width, height)
    assert torch.equal(preprocessing(resize=resize)(image), theirs(image))


@pytest.mark.parametrize(("mode", "whole"), [("center", False), ("squash", True)])
@given(width=SIDES, height=SIDES, share=st.sampled_from([0.875, 0.9, 0.95, 1.0]))
@example(width=3, height=400, share=0.9)
def test_equals_timm(mode: str, whole: bool, width: int, height: int, share: float):
    from timm.data import create_transform

    theirs = create_transform(
        (3, 24, 24), mean=MEAN, std=STD, crop_pct=share, crop_mode=mode, interpolation="box"
    )
    side = int(24 / share)
    ours = preprocessing(resize=(side, side) if whole else side, interpolation="box")
    image = noise(width, height)
    assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("crop", [(24, 24), (21, 24), (30, 33)])
@settings(max_examples=60)
@given(width=SIDES, height=SIDES)
@example(width=400, height=3)
@example(width=1, height=1)
def test_equals_transformers_that_rounds_crops_down(crop: tuple[int, int], width: int, height: int):
    size = {"shortest_edge": 24}, dict(zip(("height", "width"), crop, strict=True))
    theirs = image_processor("CLIP")(size=size[0], crop_size=size[1])
    image = noise(width, height)
    expected = theirs(image, return_tensors="pt", input_data_format="channels_last")
    ours = preprocessing(crop=crop, centring="floor")(image)
    torch.testing.assert_close(ours, expected["pixel_values"][0], atol=1e-5, rtol=0)


@given(width=SIDES, height=SIDES)
def test_leaves_a_size_that_it_is_not_told_to_change(width: int, height: int):
    image = noise(width, height)
    plain = Preprocessing(None, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(image)
    pixels = np.asarray(image).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(plain.numpy(), pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_takes_an_image_of_another_mode_as_rgb(mode: str):
    image = noise(40, 30).convert(mode)
    assert torch.equal(preprocessing()(image), preprocessing()(image.convert("RGB")))


def test_does_not_change_the_image_and_gives_memory_of_its_own():
    image = noise(24, 24)
    before = image.tobytes()
    tensor = preprocessing()(image)
    assert tensor.is_contiguous()
    tensor.zero_()
    assert image.tobytes() == before


@pytest.mark.parametrize(
    "changed", [{}, {"resize": (5, 7)}, {"resize": None, "crop": None, "centring": "floor"}]
)
def test_goes_through_json_and_keeps_its_repr(changed: dict[str, Any]):
    kept = preprocessing(**changed)
    again = Preprocessing(**json.loads(json.dumps(asdict(kept))))
    assert again == kept
    assert repr(again) == repr(kept)
    assert hash(again) == hash(kept)


def test_repr_tells_apart_all_that_it_does():
    changes = [
        {"resize": 25},
        {"crop": None},
        {"mean": (0, 0, 0)},
        {"std": (1, 1, 1)},
        {"interpolation": "box"},
        {"centring": "floor"},
    ]
    assert len({repr(preprocessing(**change)) for change in ({}, *changes)}) == 7


IMAGENET = "mean 0.485 0.456 0.406, std 0.229 0.224 0.225"


@pytest.mark.parametrize(
    ("resize", "crop", "text"),
    [
        (256, (224, 192), "resized to a shorter side of 256 (bicubic), cropped to the central 224"),
        ((224, 160), None, f"resized to 224 x 160 (bicubic), {IMAGENET}"),
        (None, (8, 8), f"cropped to the central 8 x 8, {IMAGENET}"),
        (None, None, IMAGENET),
    ],
)
def test_it_is_described_in_one_line(resize: Any, crop: Any, text: str):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    described = describe_transform(Preprocessing(resize, crop, mean, std))
    assert described.startswith(text)
    assert described.endswith(IMAGENET)


def test_ones_own_transform_is_described_by_its_repr():
    class Own:
        def __call__(self, image: Image.Image) -> torch.Tensor:
            return torch.zeros(3, 2, 2)

        def __repr__(self) -> str:
            return "Own(\n  side=2\n)"

    assert describe_transform(Own()) == "Own( side=2 )"
    assert transform_fields(Own()) == {"transform": "Own( side=2 )"}


def test_its_settings_are_json():
    transform = Preprocessing(256, (224, 224), (0.5,) * 3, (0.25,) * 3)
    fields = json.loads(json.dumps(transform_fields(transform)))
    assert (fields["resize"], fields["crop"], fields["mean"]) == (256, [224, 224], [0.5] * 3)
    assert Preprocessing(**fields) == transform


def test_whole_numbers_and_floats_are_one_preprocessing():
    assert repr(preprocessing(mean=(0, 0, 0))) == repr(preprocessing(mean=(0.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"resize": 0}, "resize must be .* from 1 to .* got 0"),
        ({"resize": -3}, "resize"),
        ({"resize": True}, "resize"),
        ({"resize": (3, 0)}, "resize"),
        ({"crop": (24,)}, r"crop must be .*\(height, width\) .* or None, got \(24,\)"),
        ({"crop": (1, 2, 3)}, "crop"),
        ({"mean": (0.5, 0.5)}, "mean must be three finite numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean"),
        ({"std": (1.0, 0.0, 1.0)}, "std must not hold 0"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest.*got 'cubic'"),
        ({"centring": "ceil"}, "centring must be one of round, floor, got 'ceil'"),
    ],
)
def test_refuses_what_it_cannot_do(changed: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        preprocessing(**changed)
