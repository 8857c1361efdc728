"""Wise-FT: between two models lies what numpy says, and at the ends they are themselves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark import load_model
from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.models.classifier import Classifier, Head, TextTower
from earmark.models.serialization import load_classifier, save_classifier
from earmark.weights.interpolation import interpolate, interpolate_classifiers

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CLASSES = ("goose", "duck", "heron")
SMALL = LabArchitecture(stem=4, blocks=(8, 8, 12), features=6, heads=2, side=16)


def state(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "weight": torch.randn(7, 5).to(dtype),
        "scalar": torch.randn(()).to(dtype),
        "seen": torch.randint(0, 2**40, ()),
        "mask": torch.rand(4) > 0.5,
        "none": torch.zeros(0, 3, dtype=dtype),
    }


def same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return (
        one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()
        if (one.dtype != torch.bfloat16)
        else torch.equal(one.view(torch.int16), other.view(torch.int16))
    )


def classifier(seed: int = 0, *, bias: bool = True, normalizes: bool = False) -> Classifier:
    torch.manual_seed(seed)
    encoder = LabResNet(SMALL)
    for _ in range(seed + 1):  # so that the running statistics and counts differ
        encoder(torch.randn(4, 3, 16, 16) * (1 + seed))
    return Classifier(
        name=f"m{seed}",
        role="finetuned",
        encoder=encoder.eval(),
        head=Head(torch.randn(3, 6), torch.randn(3) if bias else None, normalizes),
        classes=CLASSES,
        transform=LabTransform(side=16),
        backbone="lab ResNet",
        pretraining="none",
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", [0, 1])
def test_the_ends_are_the_two_bit_for_bit_and_no_aliases(dtype: torch.dtype, alpha: int):
    ends = state(dtype), state(dtype)
    ends[0]["scalar"].fill_(-0.0)
    ends[1]["weight"][0, :3] = torch.tensor([np.nan, np.inf, -0.0])

    found = interpolate(*ends, alpha)

    assert list(found) == list(ends[alpha])
    for name, value in found.items():
        assert same_bits(value, ends[alpha][name])
        assert not value.numel() or value.data_ptr() != ends[alpha][name].data_ptr()


@pytest.mark.parametrize("dtype", FLOATS)
@given(alpha=st.floats(0.001, 0.999), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_in_between_is_the_line_to_the_precision_of_the_type(
    dtype: torch.dtype, alpha: float, scale: float, seed: int
):
    generator = torch.Generator().manual_seed(seed)
    ends = [(scale * torch.randn(50, generator=generator)).to(dtype) for _ in range(2)]
    x, y = (end.double().numpy() for end in ends)

    found = interpolate({"w": ends[0]}, {"w": ends[1]}, alpha)["w"]

    assert found.dtype == dtype
    bound = torch.finfo(dtype).eps * np.maximum(abs(x), abs(y)) + torch.finfo(dtype).tiny
    assert (abs(found.double().numpy() - ((1 - alpha) * x + alpha * y)) <= bound).all()


def test_half_types_go_through_wider_ones():
    """1 + 2^-12 is no bfloat16, so (x + y) / 2 in bfloat16 would miss the mean."""
    x, y = torch.tensor([256.0]).bfloat16(), torch.tensor([1.0]).bfloat16()

    found = interpolate({"w": x}, {"w": y}, 0.5)["w"]

    assert float(found) == float(torch.tensor(128.5).bfloat16())
    large = torch.full((2,), 60000.0).half()
    assert (interpolate({"w": -large}, {"w": large}, 0.75)["w"] == 30000).all()


@given(st.floats(0, 1), st.floats(allow_nan=False))
def test_what_is_equal_stays_so(alpha: float, value: float):
    kept = {"w": torch.tensor([value, torch.inf, -torch.inf, 0.1], dtype=torch.float64)}

    found = interpolate(kept, {"w": kept["w"].clone()}, alpha)["w"]

    assert torch.equal(found, kept["w"])


def test_integers_in_between_are_the_first_ones():
    ends = state(), state()

    found = interpolate(*ends, 0.9)

    for name in ("seen", "mask"):
        assert torch.equal(found[name], ends[0][name])
        assert found[name].data_ptr() != ends[0][name].data_ptr()


def test_parameters_become_plain_tensors_and_arrays_are_taken():
    layer = nn.Linear(2, 2)
    arrays = {name: part.detach().numpy() + 1 for name, part in layer.named_parameters()}

    found = interpolate(dict(layer.named_parameters()), arrays, 0.5)

    assert not any(part.requires_grad for part in found.values())
    torch.testing.assert_close(found["bias"], layer.bias.detach() + 0.5)


W = {"w": torch.zeros(2)}


@pytest.mark.parametrize(
    ("first", "second", "alpha", "complaint"),
    [
        (W, W, 1.5, "alpha is 1.5: give a number from 0 to 1"),
        (W, W, -1e-9, "alpha is -1e-09"),
        (W, W, float("nan"), "alpha is nan"),
        (W, W, float("inf"), "alpha is inf"),
        (W, W, "half", "alpha is half"),
        (W, W, None, "alpha is None"),
        ({}, {}, 0.5, "state_0 must hold tensors by name, one or more.*got nothing"),
        (W, [W], 0.5, "state_1 must hold tensors by name.*got list"),
        (W, {**W, "b": W["w"], "c": W["w"]}, 0.5, "b is in one of them only, and so are 1 more"),
        ({**W, "b": W["w"]}, W, 0, "b is in one of them only"),
        (W, {"w": torch.zeros(3)}, 0.5, r"w has shape \(2,\) of torch.float32.*\(3,\)"),
        (W, {"w": torch.zeros(2).half()}, 1, "torch.float32.*torch.float16"),
        ({"w": 1.0}, W, 0.5, "w in state_0 is of float: give tensors"),
        ({"w": torch.zeros(2) + 0j}, W, 0.5, "w in state_0 is of torch.complex64"),
        ({"w": np.array(["a"])}, W, 0.5, "w in state_0 is of ndarray"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(first: Any, second: Any, alpha: Any, complaint: str):
    with pytest.raises(ValueError, match=complaint) as error:
        interpolate(first, second, alpha)
    assert "\n" not in str(error.value)


def test_a_classifier_between_two_is_between_in_every_tensor():
    text = TextTower(lambda _: torch.zeros(1, 6), 1.0, "", nn.Identity())
    zero, one = replace(classifier(0), text_tower=text), classifier(2)
    zero.encoder.train()
    before = zero.fingerprint, one.fingerprint

    found = interpolate_classifiers(zero, one, 0.3)

    ends = zero.encoder.state_dict(), one.encoder.state_dict()
    names = set()
    for name, value in found.encoder.state_dict().items():
        x, y = (end[name].double().numpy() for end in ends)
        expected = 0.7 * x + 0.3 * y if value.is_floating_point() else x
        assert value.numpy() == pytest.approx(expected, rel=2e-7, abs=1e-9), name
        names |= {name.rpartition(".")[2]} if not np.array_equal(x, y) else set()
    assert {"running_mean", "running_var", "num_batches_tracked", "weight"} <= names
    for part in ("weight", "bias"):
        x, y = (getattr(end.head, part).double().numpy() for end in (zero, one))
        assert getattr(found.head, part).numpy() == pytest.approx(0.7 * x + 0.3 * y)
    assert (zero.fingerprint, one.fingerprint) == before
    assert (found.role, found.name) == ("interpolated", "m0 to m2 at 0.3")
    assert (found.backbone, found.pretraining) == ("lab ResNet", "none")
    assert found.text_tower is None
    assert not found.encoder.training


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("biases", [(True, True), (False, True), (True, False)])
def test_at_the_ends_it_is_the_end(alpha: float, biases: tuple[bool, bool]):
    ends = classifier(0, bias=biases[0]), classifier(1, bias=biases[1])

    found, end = interpolate_classifiers(*ends, alpha), ends[int(alpha)]

    assert found.fingerprint == end.fingerprint  # every bit, counts of batches too
    assert same_bits(found.head.weight, end.head.weight)
    assert (found.head.bias is None) == (end.head.bias is None)
    if end.head.bias is not None:
        assert same_bits(found.head.bias, end.head.bias)


def test_a_missing_bias_counts_as_zero():
    zero, one = classifier(0, bias=False), classifier(1)

    assert torch.equal(interpolate_classifiers(zero, one, 0.25).head.bias, one.head.bias / 4)
    assert torch.equal(interpolate_classifiers(one, zero, 0.25).head.bias, one.head.bias * 0.75)
    plain = interpolate_classifiers(zero, classifier(1, bias=False), 0.25)
    assert plain.head.bias is None


def test_classes_are_matched_by_name():
    zero, one = classifier(0), classifier(1)
    order = [2, 0, 1]
    turned = replace(
        one,
        head=Head(one.head.weight[order], one.head.bias[order]),
        classes=tuple(CLASSES[place] for place in order),
    )

    for alpha in (0.5, 1):
        plain, found = (
            interpolate_classifiers(zero, one, alpha),
            interpolate_classifiers(zero, turned, alpha),
        )
        assert found.classes == CLASSES
        assert torch.equal(found.head.weight, plain.head.weight)
        assert torch.equal(found.head.bias, plain.head.bias)


def test_two_classes_of_one_name_keep_their_rows():
    """As torchvision's two cranes do."""
    zero, one = (replace(classifier(seed), classes=("crane", "x", "crane")) for seed in (0, 1))

    assert torch.equal(interpolate_classifiers(zero, one, 1).head.weight, one.head.weight)
    with pytest.raises(ValueError, match="two have the same name"):
        interpolate_classifiers(zero, replace(one, classes=("x", "crane", "crane")), 0.5)


def with_encoder(*layers: nn.Module) -> Classifier:
    return replace(classifier(), encoder=nn.Sequential(nn.Linear(2, 6), *layers).eval())


@pytest.mark.parametrize(
    ("zero", "one", "complaint"),
    [
        (
            classifier(),
            replace(classifier(), classes=("goose", "duck", "swan")),
            "heron is a class of one of them only, and so are 1 more",
        ),
        (classifier(), classifier(normalizes=True), "read unnormalized and normalized"),
        (
            classifier(),
            replace(classifier(), encoder=LabResNet(replace(SMALL, stem=8)).eval()),
            r"encoder.stem.* has shape \(4",
        ),
        (with_encoder(nn.GELU()), with_encoder(nn.ReLU()), r"has \(1\): GELU.* \(1\): ReLU"),
        (
            classifier(),
            replace(classifier(), head=Head(torch.zeros(3, 5), torch.zeros(3))),
            r"heads have shapes \(3, 6\) and \(3, 5\)",
        ),
    ],
    ids=["classes", "normalised", "widths", "activation", "features"],
)
def test_models_that_are_not_alike(zero: Classifier, one: Classifier, complaint: str):
    with pytest.raises(ValueError, match=complaint) as error:
        interpolate_classifiers(zero, one, 0.5)
    assert "\n" not in str(error.value)
    assert "cannot be averaged" in str(error.value)


def test_another_preprocessing_is_told():
    seen_otherwise = replace(classifier(1), transform=LabTransform(side=16, mean=0.4))

    with pytest.warns(UserWarning, match="m0 and m1 preprocess images differently"):
        found = interpolate_classifiers(classifier(), seen_otherwise, 0.5)

    assert found.transform == LabTransform(side=16)


def test_the_labs_towers_between_saved_and_read(tmp_path: Path):
    ends = load_model("lab:zero-shot"), load_model("lab:finetuned")

    between = interpolate_classifiers(*ends, 0.5)
    save_classifier(tmp_path / "between.safetensors", between)
    found = load_classifier(tmp_path / "between.safetensors")

    assert found.fingerprint == between.fingerprint
    assert (found.role, found.classes) == ("interpolated", ends[0].classes)
    mean = sum(end.head.weight.double() for end in ends) / 2
    assert torch.equal(found.head.weight, mean.float())
    assert found.fingerprint not in {end.fingerprint for end in ends}
