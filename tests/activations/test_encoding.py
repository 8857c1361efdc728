"""`encode` against a plain loop, in this process and in others."""

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers.encoding_fakes import (
    FEATURES,
    IMAGES,
    SIDE,
    ToTensor,
    make_classifier,
    make_images,
    write_image,
)
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

from earmark.activations import EncodeConfig, encode
from earmark.data.image_set import ImageSet
from earmark.models.classifier import Classifier


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return make_images(tmp_path / "images")


def plain_loop(classifier: Classifier, images: ImageSet, batch_size: int) -> Tensor:
    """What `encode` promises, without care: full batches, zeros after the last image."""
    rows = []
    for start in range(0, len(images), batch_size):
        opened = [images.open(i) for i in range(start, min(start + batch_size, len(images)))]
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

    assert torch.equal(encode(make_classifier(nn.Flatten()), images, batch_size=4), expected)


def test_leaves_modes_and_statistics_as_they_were(images: ImageSet):
    classifier = make_classifier()
    expected = encode(classifier, images)
    classifier.encoder.train()
    classifier.encoder[1].eval()
    before = {name: tensor.clone() for name, tensor in classifier.encoder.state_dict().items()}

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

    with pytest.raises(ValueError, match=r"not finite for image 7 of small, .*images/7\.png"):
        encode(make_classifier(nn.Flatten(), transform), images, batch_size=4)


class Normalized(nn.Module):
    """Gives 0 / 0 for an image of zeros, such as the padding."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        return images.flatten(1) / images.flatten(1).sum(dim=1, keepdim=True)


def test_padding_may_have_no_activations(images: ImageSet):
    assert len(encode(make_classifier(Normalized()), images, batch_size=8)) == IMAGES


@pytest.mark.parametrize(
    ("encoder", "shape"), [(nn.Identity(), "4, 3, 16, 16"), (nn.Flatten(0, 1), "12, 16, 16")]
)
def test_tokens_must_be_pooled_first(images: ImageSet, encoder: nn.Module, shape: str):
    with pytest.raises(ValueError, match=rf"of tiny must .* got shape \({shape}\) for 4 im"):
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

    with pytest.raises(ValueError, match=r"5\.png is .* \(3, 8, 8\), .*4\.png to \(3, 16, 16\)"):
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


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_change_no_bit(images: ImageSet, workers: int):
    classifier, done = make_classifier(), []

    encoded = encode(
        classifier, images, batch_size=3, workers=workers, progress=lambda *n: done.append(n)
    )

    assert torch.equal(encoded, plain_loop(classifier, images, 3))
    assert done == [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert not multiprocessing.active_children()


def test_processes_read_channels_last(images: ImageSet):
    recorder = Recorder()

    encode(make_classifier(recorder), images, batch_size=8, workers=1)

    assert all(b.is_contiguous(memory_format=torch.channels_last) for b in recorder.batches)


def test_an_error_in_a_process_is_one_line(images: ImageSet):
    write_image(images.path(5), seed=0, side=8)

    with pytest.raises(ValueError, match=r"^[^\n]*5\.png is .* must crop\.$"):
        encode(make_classifier(), images, batch_size=4, workers=1)

    assert not multiprocessing.active_children()


def test_an_error_of_the_encoder_ends_the_processes(images: ImageSet):
    with pytest.raises(ValueError, match="must return"):
        encode(make_classifier(nn.Identity()), images, batch_size=1, workers=1)

    assert not multiprocessing.active_children()


@dataclass(frozen=True)
class Killed:
    """What happens to a process that takes too much memory."""

    def __call__(self, image: Image.Image) -> Tensor:  # noqa: D102
        os.kill(os.getpid(), signal.SIGKILL)
        return ToTensor()(image)


def test_a_process_that_is_killed(images: ImageSet):
    with pytest.raises(OSError, match=r"^A process that decodes .* killed.*or 0\.$"):
        encode(make_classifier(transform=Killed()), images, workers=1)


def test_the_next_batch_is_read_while_one_is_encoded(images: ImageSet):
    opened = threading.Event()

    def transform(image: Image.Image) -> Tensor:
        if image == images.open(5):
            opened.set()
        return ToTensor()(image)

    class Waiting(nn.Flatten):
        def forward(self, pixels: Tensor) -> Tensor:
            assert opened.wait(timeout=300)
            return super().forward(pixels)

    encode(make_classifier(Waiting(), transform), images, batch_size=4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast(images: ImageSet, precision: str):
    classifier, dtype = make_classifier(), getattr(torch, precision)
    exact = encode(classifier, images, batch_size=10)
    pixels = torch.stack([ToTensor()(images.open(i)) for i in range(IMAGES)])
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        expected = classifier.encoder(pixels)

    encoded = encode(classifier, images, batch_size=10, precision=precision)

    assert expected.dtype == dtype
    assert torch.equal(encoded, expected.float())
    assert not torch.equal(encoded, exact)
    assert_close(encoded, exact, atol=0.05, rtol=0.05)


class Large(nn.Flatten):
    """Sums that float16 cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * SIDE * SIDE, 2)
        nn.init.constant_(self.linear.weight, 1e4)

    def forward(self, pixels: Tensor) -> Tensor:  # noqa: D102
        return self.linear(super().forward(pixels))


def test_an_overflow_within_float16(images: ImageSet):
    with pytest.raises(ValueError, match=r"for image 0 of small.*compute in bfloat16"):
        encode(make_classifier(Large()), images, precision="float16")
    assert encode(make_classifier(Large()), images, precision="bfloat16").isfinite().all()


class Full(nn.Flatten):
    """Has no memory for more than two images."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, pixels: Tensor) -> Tensor:  # noqa: D102
        if len(pixels) > 2:
            raise self.error
        return super().forward(pixels)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("whatever it says"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 7 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
    ],
)
def test_a_batch_that_does_not_fit(images: ImageSet, error: Exception):
    with pytest.raises(ValueError, match=r"of 5 images does not fit .* batch size of 2\.$"):
        encode(make_classifier(Full(error)), images, batch_size=5)
    assert len(encode(make_classifier(Full(error)), images, batch_size=2)) == IMAGES


def test_memory_that_is_truly_lacking(images: ImageSet):
    class Vast(nn.Flatten):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.empty(len(pixels), 2**50)

    with pytest.raises(ValueError, match=r"A batch of 1 images .*: use a larger device\.$"):
        encode(make_classifier(Vast()), images, batch_size=1)


def test_other_errors_stay_what_they_are(images: ImageSet):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        encode(make_classifier(nn.Sequential(nn.Flatten(), nn.Linear(3, 3))), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"precision": "float8"}, "Unknown precision 'float8': use float32, bfloat16, float16"),
        ({"kept_as": "int8"}, "Unknown precision 'int8'"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        EncodeConfig(**options)
