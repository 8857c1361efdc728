"""`encode` against a plain loop; the store against damage, change and interruption."""

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from earmark import activations
from earmark.activations import encode, stored_activations
from earmark.data.images import ImageSet
from earmark.models.classifier import Classifier, Head

IMAGES, FEATURES, SIDE = 10, 6, 16


@dataclass(frozen=True)
class ToTensor:
    """One image to one tensor; its repr says all that it does."""

    scale: float = 255.0

    def __call__(self, image: Image.Image) -> Tensor:  # noqa: D102
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / self.scale


def make_classifier(encoder: nn.Module | None = None, transform: Callable | None = None):
    encoder = encoder or nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(16 * SIDE * SIDE // 4, FEATURES),
    )
    head = Head(torch.zeros(2, FEATURES))
    return Classifier(
        "tiny", "other", encoder.eval(), head, ("cat", "dog"), transform or ToTensor()
    )


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    root = tmp_path / "images"
    root.mkdir()
    files = tuple(f"{image}.png" for image in range(IMAGES))
    for image, file in enumerate(files):
        write_image(root / file, seed=image)
    return ImageSet("small", root, files)


def write_image(path: Path, *, seed: int, side: int = SIDE) -> None:
    pixels = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def plain_loop(classifier: Classifier, images: ImageSet, batch_size: int) -> Tensor:
    """What `encode` promises, without care: full batches, zeros after the last image."""
    rows = []
    for start in range(0, len(images), batch_size):
        opened = [
            images.open(i) for i in range(start, min(start + batch_size, len(images)))
        ]
        pixels = torch.stack([classifier.transform(image) for image in opened])
        padding = torch.zeros(batch_size - len(pixels), *pixels.shape[1:])
        batch = torch.cat([pixels, padding]).contiguous(memory_format=torch.channels_last)
        dtype = next(classifier.encoder.parameters()).dtype
        with torch.no_grad():
            rows.append(classifier.encoder(batch.to(dtype))[: len(pixels)].float())
    return torch.cat(rows)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 16])
def test_equals_a_plain_loop_bit_for_bit(images: ImageSet, batch_size: int):
    classifier = make_classifier()

    encoded = encode(classifier, images, batch_size=batch_size)

    assert encoded.dtype == torch.float32
    assert torch.equal(encoded, plain_loop(classifier, images, batch_size))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_runs_in_the_precision_of_the_weights(images: ImageSet, dtype: torch.dtype):
    classifier = make_classifier()
    classifier.encoder.to(dtype)

    encoded = encode(classifier, images, batch_size=4)

    assert encoded.dtype == torch.float32
    assert torch.equal(encoded, plain_loop(classifier, images, 4))


@pytest.mark.parametrize("count", range(1, IMAGES))
def test_later_images_change_no_bit(images: ImageSet, count: int):
    classifier = make_classifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 512)))
    fewer = replace(images, files=images.files[:count])

    encoded = encode(classifier, images, batch_size=8)

    assert torch.equal(encode(classifier, fewer, batch_size=8), encoded[:count])


class Recorder(nn.Module):
    """Keeps every batch that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        self.batches.append(images)
        return images.flatten(1)


def test_batches_are_full_and_channels_last(images: ImageSet):
    recorder = Recorder()

    encode(make_classifier(recorder), images, batch_size=8)

    assert [batch.shape for batch in recorder.batches] == [(8, 3, SIDE, SIDE)] * 2
    assert all(b.is_contiguous(memory_format=torch.channels_last) for b in recorder.batches)
    assert not recorder.batches[1][2:].any()


def test_an_encoder_without_weights(images: ImageSet):
    expected = torch.stack([ToTensor()(images.open(i)).flatten() for i in range(IMAGES)])

    assert torch.equal(
        encode(make_classifier(nn.Flatten()), images, batch_size=4), expected
    )


def test_leaves_modes_and_statistics_as_they_were(images: ImageSet):
    classifier = make_classifier()
    expected = encode(classifier, images)
    classifier.encoder.train()
    classifier.encoder[1].eval()
    before = {
        name: tensor.clone() for name, tensor in classifier.encoder.state_dict().items()
    }

    encoded = encode(classifier, images)

    assert torch.equal(encoded, expected)
    assert [part.training for part in classifier.encoder] == [True, False, *[True] * 4]
    assert classifier.encoder.training
    after = classifier.encoder.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_leaves_grad_mode_and_a_tensor_to_learn_from(images: ImageSet):
    weight = torch.ones(FEATURES, requires_grad=True)

    encoded = encode(make_classifier(), images)
    (encoded @ weight).sum().backward()

    assert torch.is_grad_enabled()
    assert not encoded.requires_grad
    assert_close(weight.grad, encoded.sum(dim=0))


def test_modes_come_back_after_an_error(images: ImageSet):
    classifier = make_classifier(nn.Conv2d(3, 3, 1))
    classifier.encoder.train()

    with pytest.raises(ValueError, match="must return"):
        encode(classifier, images)

    assert classifier.encoder.training


def test_progress(images: ImageSet):
    done = []

    encode(make_classifier(), images, batch_size=4, progress=lambda *n: done.append(n))

    assert done == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_the_image_whose_activations_are_not_finite(images: ImageSet, value: float):
    def transform(image: Image.Image) -> Tensor:
        pixels = ToTensor()(image)
        return pixels.fill_(value) if image == images.open(7) else pixels

    with pytest.raises(
        ValueError, match=r"not finite for image 7 of small, .*images/7\.png"
    ):
        encode(make_classifier(nn.Flatten(), transform), images, batch_size=4)


class Normalized(nn.Module):
    """Gives 0 / 0 for an image of zeros, such as the padding."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        return images.flatten(1) / images.flatten(1).sum(dim=1, keepdim=True)


def test_padding_may_have_no_activations(images: ImageSet):
    assert len(encode(make_classifier(Normalized()), images, batch_size=8)) == IMAGES


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [(nn.Identity(), "4, 3, 16, 16"), (nn.Flatten(0, 1), "12, 16, 16")],
)
def test_tokens_must_be_pooled_first(images: ImageSet, encoder: nn.Module, shape: str):
    with pytest.raises(
        ValueError, match=rf"of tiny must .* got shape \({shape}\) for 4 im"
    ):
        encode(make_classifier(encoder), images, batch_size=4)


class Repeated(nn.Module):
    """Returns two rows per image."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        return images.flatten(1).repeat(2, 1)


def test_one_row_per_image(images: ImageSet):
    with pytest.raises(ValueError, match=r"got shape \(8, 768\) for 4 images"):
        encode(make_classifier(Repeated()), images, batch_size=4)


def test_a_transform_that_does_not_crop(images: ImageSet):
    write_image(images.path(5), seed=0, side=8)

    with pytest.raises(
        ValueError, match=r"5\.png is .* \(3, 8, 8\), .*4\.png to \(3, 16, 16\)"
    ):
        encode(make_classifier(), images, batch_size=4)


def test_an_image_that_would_broadcast(images: ImageSet):
    def transform(image: Image.Image) -> Tensor:
        return ToTensor()(image)[: 1 if image == images.open(1) else 3]

    with pytest.raises(ValueError, match=r"1\.png is preprocessed to shape \(1, 16, 16\)"):
        encode(make_classifier(transform=transform), images)


def test_a_broken_image(images: ImageSet):
    images.path(3).write_bytes(images.path(3).read_bytes()[:100])

    with pytest.raises(ValueError, match=r"Cannot read the image .*/3\.png"):
        encode(make_classifier(), images)


def test_no_images():
    with pytest.raises(ValueError, match="small has no images"):
        encode(make_classifier(), ImageSet("small", Path(), ()))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_no_batch(images: ImageSet, batch_size: int):
    with pytest.raises(ValueError, match=f"must be at least 1, got {batch_size}"):
        encode(make_classifier(), images, batch_size=batch_size)


def stored_file(store: Path) -> Path:
    [path] = store.iterdir()
    return path


def unreadable(image: Image.Image) -> Tensor:
    raise AssertionError("An image was preprocessed, though its activations are stored.")


def test_encodes_once(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    expected = encode(classifier, images, batch_size=4)
    done = []

    first = stored_activations(
        classifier,
        images,
        tmp_path / "a" / "b",
        batch_size=4,
        progress=lambda *n: done.append(n),
    )
    written = stored_file(tmp_path / "a" / "b").stat()
    shutil.copytree(images.root, tmp_path / "moved")
    moved = replace(images, name="moved", root=tmp_path / "moved")
    again = stored_activations(
        classifier, moved, tmp_path / "a" / "b", batch_size=4, progress=lambda *_: 1 / 0
    )

    assert torch.equal(first, expected)
    assert torch.equal(again, expected)
    assert done == [(4, 10), (8, 10), (10, 10)]
    assert stored_file(tmp_path / "a" / "b").stat().st_mtime_ns == written.st_mtime_ns


def test_the_file_says_what_it_was_made_of(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    stored_activations(classifier, images, tmp_path / "store", batch_size=4)

    path = stored_file(tmp_path / "store")
    with safe_open(path, "pt") as file:
        key = file.metadata()["key"]

    assert path.stem == sha256(key.encode()).hexdigest()
    assert json.loads(key) == {
        "model": classifier.fingerprint,
        "images": images.fingerprint(),
        "precision": "torch.float32",
        "batch_size": 4,
        "device": "cpu",
        "torch": torch.__version__,
    }


def changed_weight(classifier: Classifier, images: ImageSet) -> dict:
    with torch.no_grad():
        classifier.encoder[0].weight[3, 2, 1, 0] += 1e-6
    return {"classifier": replace(classifier)}


def changed_statistic(classifier: Classifier, images: ImageSet) -> dict:
    classifier.encoder[1].running_mean += 0.5
    return {"classifier": replace(classifier)}


def changed_precision(classifier: Classifier, images: ImageSet) -> dict:
    classifier.encoder.double()
    return {"classifier": replace(classifier)}


def changed_transform(classifier: Classifier, images: ImageSet) -> dict:
    return {"classifier": replace(classifier, transform=ToTensor(scale=128.0))}


def changed_image(classifier: Classifier, images: ImageSet) -> dict:
    write_image(images.path(2), seed=99)
    return {}


def fewer_images(classifier: Classifier, images: ImageSet) -> dict:
    return {"images": replace(images, files=images.files[:-1])}


def other_batch_size(classifier: Classifier, images: ImageSet) -> dict:
    return {"batch_size": 5}


@pytest.mark.parametrize(
    "change",
    [
        changed_weight,
        changed_statistic,
        changed_precision,
        changed_transform,
        changed_image,
        fewer_images,
        other_batch_size,
    ],
)
def test_whatever_changes_the_values_changes_the_key(
    images: ImageSet, tmp_path: Path, change: Callable[[Classifier, ImageSet], dict]
):
    call = {"classifier": make_classifier(), "images": images, "batch_size": 4}
    stored_activations(store=tmp_path / "store", **call)
    call |= change(call["classifier"], images)

    stored = stored_activations(store=tmp_path / "store", **call)

    assert torch.equal(stored, encode(**call))
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_any_flipped_byte_is_noticed_and_mended(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    expected = encode(classifier, images)
    stored_activations(classifier, images, tmp_path / "store")
    path = stored_file(tmp_path / "store")
    whole = path.read_bytes()

    for place in [*range(0, len(whole), 9), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.warns(UserWarning, match=rf"{path} .* It is made again\."):
            mended = stored_activations(classifier, images, tmp_path / "store")
        assert torch.equal(mended, expected)
        assert torch.equal(
            stored_activations(classifier, images, tmp_path / "store"), expected
        )


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_that_was_cut_off(images: ImageSet, tmp_path: Path, length: int):
    classifier = make_classifier()
    stored_activations(classifier, images, tmp_path / "store")
    path = stored_file(tmp_path / "store")
    path.write_bytes(path.read_bytes()[:length])

    with pytest.warns(UserWarning, match=r"is no file of activations"):
        mended = stored_activations(classifier, images, tmp_path / "store")

    assert torch.equal(mended, encode(classifier, images))


@pytest.mark.parametrize(("old", "new"), [(b"[10,6]", b"[6,10]"), (b'"F32"', b'"I32"')])
def test_a_header_that_tells_another_shape(
    images: ImageSet, tmp_path: Path, old: bytes, new: bytes
):
    classifier = make_classifier()
    stored_activations(classifier, images, tmp_path / "store")
    path = stored_file(tmp_path / "store")
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new))

    with pytest.warns(UserWarning, match="is damaged: its bytes do not fit"):
        mended = stored_activations(classifier, images, tmp_path / "store")

    assert torch.equal(mended, encode(classifier, images))


def test_a_file_that_somebody_else_made(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    stored_activations(classifier, images, tmp_path / "store")
    save_file({"activations": torch.ones(2, 2)}, stored_file(tmp_path / "store"))

    with pytest.warns(UserWarning, match="holds the activations of something else"):
        mended = stored_activations(classifier, images, tmp_path / "store")

    assert torch.equal(mended, encode(classifier, images))


def test_a_file_of_another_model(images: ImageSet, tmp_path: Path):
    mine, other = make_classifier(), make_classifier()
    stored_activations(mine, images, tmp_path / "mine")
    stored_activations(other, images, tmp_path / "other")
    shutil.copy(stored_file(tmp_path / "other"), stored_file(tmp_path / "mine"))

    with pytest.warns(UserWarning, match="holds the activations of something else"):
        mended = stored_activations(mine, images, tmp_path / "mine")

    assert torch.equal(mended, encode(mine, images))


def test_writing_to_the_answer_changes_no_file(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    expected = encode(classifier, images)

    stored_activations(classifier, images, tmp_path / "store").zero_()

    assert torch.equal(stored_activations(classifier, images, tmp_path / "store"), expected)


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="reads Linux's list of maps"
)
def test_the_answer_is_mapped_from_the_file(images: ImageSet, tmp_path: Path):
    stored = stored_activations(make_classifier(), images, tmp_path / "store")
    path = stored_file(tmp_path / "store")

    places = [
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]

    assert any(int(low, 16) <= stored.data_ptr() < int(high, 16) for low, high in places)


def test_an_interrupted_write_leaves_nothing(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(tensors: dict, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(activations, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stored_activations(make_classifier(), images, tmp_path / "store")

    assert list((tmp_path / "store").iterdir()) == []


def test_a_full_disk(images: ImageSet, tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    classifier = make_classifier(nn.Flatten())  # 30 kB of activations
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"Cannot write .*\.safetensors: .*too large"):
            stored_activations(classifier, images, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert list((tmp_path / "store").iterdir()) == []


def test_an_image_that_is_gone(images: ImageSet, tmp_path: Path):
    images.path(4).unlink()

    with pytest.raises(FileNotFoundError, match=r"4\.png"):
        stored_activations(make_classifier(), images, tmp_path / "store")
