"""Saved classifiers: what is read is what was written, or one line says what is wrong."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.models.classifier import Classifier, Head
from earmark.models.serialization import load_classifier, save_classifier

SMALL = LabArchitecture(stem=4, blocks=(8, 8, 12), features=6, heads=2, side=16)


def classifier(*, bias: bool = True, normalizes: bool = False) -> Classifier:
    encoder = LabResNet(SMALL)
    encoder(torch.randn(4, 3, 16, 16))  # moves the running statistics
    return Classifier(
        name="birds",
        role="supervised",
        encoder=encoder.eval(),
        head=Head(torch.randn(3, 6), torch.randn(3) if bias else None, normalizes),
        classes=("goose", "duck", "grey_heron"),
        transform=LabTransform(side=16, mean=0.4, std=0.3),
        backbone="lab ResNet",
        pretraining="none",
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_classifier(tmp_path / "birds.safetensors", classifier())
    return tmp_path / "birds.safetensors"


def rewritten(path: Path, **changes: object) -> None:
    """The same tensors, with another description and no checksum; None removes an entry."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["earmark"]) | {"seal": None} | changes
    kept = {name: value for name, value in description.items() if value is not None}
    save_file(load_file(path), path, {"earmark": json.dumps(kept)})


def lab(**architecture: object) -> dict[str, object]:
    return {"blueprint": {"family": "lab", "architecture": architecture}}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalizes", [True, False])
def test_what_is_read_is_what_was_written(tmp_path: Path, bias: bool, normalizes: bool):
    before = classifier(bias=bias, normalizes=normalizes)

    save_classifier(tmp_path / "birds.safetensors", before)
    after = load_classifier(tmp_path / "birds.safetensors")

    assert replace(after, encoder=before.encoder, head=before.head) == before
    assert after.fingerprint == before.fingerprint  # every bit of the encoder's state
    assert torch.equal(after.head.weight, before.head.weight)
    assert after.head.normalizes == normalizes
    assert (after.head.bias is None) == (not bias)
    if bias:
        assert torch.equal(after.head.bias, before.head.bias)
    images = torch.randn(5, 3, 16, 16)
    assert torch.equal(after.encoder(images), before.encoder(images))
    assert not after.encoder.training


def test_pictures_channels_last_make_no_difference(tmp_path: Path):
    before = classifier()
    moved = replace(before, encoder=before.encoder.to(memory_format=torch.channels_last))

    save_classifier(tmp_path / "birds.safetensors", moved)

    assert load_classifier(tmp_path / "birds.safetensors").fingerprint == before.fingerprint


def test_half_the_room(tmp_path: Path, saved: Path):
    before = load_classifier(saved)

    save_classifier(tmp_path / "half.safetensors", before, dtype=torch.float16)
    after = load_classifier(tmp_path / "half.safetensors")

    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * saved.stat().st_size
    for name, value in after.encoder.state_dict().items():
        expected = before.encoder.state_dict()[name]
        if value.is_floating_point():
            expected = expected.half().float()
        assert torch.equal(value, expected), name
    assert torch.equal(after.head.weight, before.head.weight.half().float())


def test_a_weight_too_large(tmp_path: Path):
    large = replace(classifier(), head=Head(torch.full((3, 6), 1e5)))

    with pytest.raises(ValueError, match=r"head.weight holds .* not finite in torch.float16"):
        save_classifier(tmp_path / "large.safetensors", large, dtype=torch.float16)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["encoder", "transform"])
def test_only_what_can_be_rebuilt_is_saved(tmp_path: Path, part: str):
    strange = replace(classifier(), **{part: torch.nn.Flatten()})

    with pytest.raises(ValueError, match=r"birds cannot be saved.*Flatten"):
        save_classifier(tmp_path / "birds.safetensors", strange)


def test_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No saved weights at .*nothing"):
        load_classifier(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x00" * 100, b'{"birds": 1}' * 50])
def test_no_safetensors_file(tmp_path: Path, content: bytes):
    (tmp_path / "birds").write_bytes(content)

    with pytest.raises(ValueError, match="birds is not a safetensors file") as error:
        load_classifier(tmp_path / "birds")

    assert "\n" not in str(error.value)


def test_half_a_file(saved: Path):
    saved.write_bytes(saved.read_bytes()[:-100])

    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_classifier(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_someone_elses_file(tmp_path: Path, metadata: dict[str, str] | None):
    save_file({"weight": torch.zeros(2)}, tmp_path / "theirs", metadata)

    with pytest.raises(ValueError, match="theirs was not saved by earmark"):
        load_classifier(tmp_path / "theirs")


@pytest.mark.parametrize(
    "word",
    ["name", "role", "backbone", "pretraining", "classes", "normalizes", "blueprint",
     "transform"],
)  # fmt: skip
def test_a_description_that_lacks_a_word(saved: Path, word: str):
    rewritten(saved, **{word: None})

    with pytest.raises(ValueError, match=f"birds.* its description lacks '{word}'"):
        load_classifier(saved)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"architecture": "vgg"}, "'vgg' for 'architecture': input should be 'lab-resnet'"),
        ({"role": "teacher"}, "'teacher' for 'role': input should be 'zero-shot', 'finetuned'"),
        ({"classes": ["goose"]}, "names 1 classes, but its head has 3"),
        (lab(**asdict(SMALL), depth=3), "has the key 'depth'"),
        (lab(**asdict(replace(SMALL, blocks=(8, 8, 16)))), "should have shape"),
        (lab(**asdict(SMALL) | {"blocks": 8}), "8 for 'blocks'"),
        ({"blueprint": {"family": "lab", "size": 8}}, "has the key 'blueprint.size'"),
        ({"transform": {"side": 24}}, "does not read images of 24 by 24 pixels"),
    ],
)
def test_a_description_that_does_not_fit(saved: Path, change: dict[str, object], complaint: str):
    rewritten(saved, **change)

    with pytest.raises(ValueError, match=complaint) as error:
        load_classifier(saved)

    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["head.weight", "encoder.pool.query.weight"])
def test_a_weight_is_missing(saved: Path, name: str):
    tensors = load_file(saved)
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    del tensors[name]
    save_file(tensors, saved, metadata)

    with pytest.raises(ValueError, match=re.escape(name.removeprefix("encoder."))):
        load_classifier(saved)


def test_the_transform():
    image = Image.new("RGB", (16, 16), (0, 51, 255))

    seen = LabTransform(side=16, mean=0.4, std=0.5)(image)

    assert seen.shape == (3, 16, 16)
    assert_close(seen[:, 3, 5], torch.tensor([-0.8, -0.4, 1.2]))


def test_the_transform_resizes_and_takes_any_mode():
    striped = Image.new("RGB", (64, 64))
    striped.paste((255, 255, 255), (0, 0, 64, 32))

    seen = LabTransform()(striped.convert("P"))

    assert seen.shape == (3, 32, 32)
    assert_close(seen[:, :14], torch.full((3, 14, 32), 2.0))
    assert_close(seen[:, 18:], torch.full((3, 14, 32), -2.0))


def test_a_batch_is_its_images():
    pixels = torch.randint(256, (5, 32, 32, 3), dtype=torch.uint8)

    one_by_one = [LabTransform()(Image.fromarray(image.numpy())) for image in pixels]

    assert torch.equal(LabTransform().batch(pixels), torch.stack(one_by_one))


def test_a_file_of_the_first_format_is_read(saved: Path):
    new = load_classifier(saved)
    with safe_open(saved, framework="pt") as file:
        spec = json.loads(file.metadata()["earmark"])["blueprint"]

    rewritten(saved, blueprint=None, architecture="lab-resnet", widths=spec["architecture"])

    assert load_classifier(saved).fingerprint == new.fingerprint
