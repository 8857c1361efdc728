"""Heads come apart from their networks exactly, and those that tell nothing apart are named."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark.models.classifier import Head
from earmark.models.head_extraction import (
    check_head,
    class_names,
    has_numbered_classes,
    split_head,
    strip_head,
)


class TwoHeads(nn.Module):
    """Two linear heads over one vector or two, whose logits are combined."""

    def __init__(
        self, *, shared: bool, bias: tuple[bool, bool] = (True, True), share: float = 0.5
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(12 if shared else 5, 4, bias=bias[0])
        self.head_dist = nn.Linear(12 if shared else 7, 4, bias=bias[1])
        self.shared, self.share = shared, share

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        features = self.body(images)
        first, second = (features, features) if self.shared else features.split([5, 7], dim=1)
        return self.share * self.head(first) + (1 - self.share) * self.head_dist(second)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("bias", [(True, True), (True, False), (False, False)])
@torch.no_grad()
def test_two_averaged_heads_are_one(shared: bool, bias: tuple[bool, bool]):
    model, images = TwoHeads(shared=shared, bias=bias).eval(), torch.randn(6, 3, 9, 9)
    logits = model(images)

    with pytest.warns(UserWarning, match="it averages the logits of two heads, head and head_dist"):
        path, head = split_head(model, (9, 9), model_name="it")

    activations = model(images)
    assert activations.shape == (6, 12)
    torch.testing.assert_close(activations, model.body(images), rtol=0, atol=0)
    torch.testing.assert_close(head.logits(activations), logits)
    assert (head.bias is None) == (not any(bias))
    again = TwoHeads(shared=shared, bias=bias).eval()
    strip_head(again, path)
    assert repr(again) == repr(model)
    assert torch.equal(again(images), activations)


@pytest.mark.parametrize("share", [0.4, 1.0, 0.0])
def test_two_heads_that_are_not_averaged_are_refused(share: float):
    model = TwoHeads(shared=True, share=share).eval()

    with pytest.raises(ValueError, match="not the output of one linear head"):
        split_head(model, (9, 9), model_name="it")


def test_two_heads_of_zeros_are_refused():
    model = TwoHeads(shared=False, share=0.3).eval()
    for weight in (*model.head.parameters(), *model.head_dist.parameters()):
        nn.init.zeros_(weight)

    with pytest.raises(ValueError, match="not the output of one linear head"):
        split_head(model, (9, 9), model_name="it")


def test_a_multi_layer_head_is_split_at_its_last_layer():
    layers = [nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 4)]
    model, images = nn.Sequential(*layers).eval(), torch.randn(2, 3, 2, 2)
    logits = model(images)

    path, head = split_head(model, (2, 2), model_name="it")

    assert path == "4"
    assert head.weight.shape == (4, 6)
    torch.testing.assert_close(head.logits(model(images)), logits)


def test_a_head_that_tells_classes_apart_passes():
    check_head(Head(torch.randn(5, 3)), model_name="it")
    check_head(Head(torch.ones(1, 3)), model_name="it")  # of one class
    check_head(Head(torch.zeros(0, 3)), model_name="it")


@given(row=st.integers(0, 6), value=st.sampled_from([torch.nan, torch.inf]), in_bias=st.booleans())
def test_rows_that_are_not_finite_are_named(row: int, value: float, in_bias: bool):
    weight, bias = torch.randn(7, 3), torch.zeros(7)
    if in_bias:
        bias[row] = value
    else:
        weight[row, 1] = value

    with pytest.raises(ValueError, match=rf"head of it has NaN or infinite values, in row {row}:"):
        check_head(Head(weight, bias), model_name="it")


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-30])
def test_a_head_of_equal_rows_is_refused(scale: float):
    """Equal texts in batches of different sizes are encoded equally but for rounding."""
    rows = scale * (torch.randn(1, 6) * (1 + 1e-7 * torch.randn(4, 1)))

    with pytest.raises(ValueError, match=r"All 4 rows of the head of it are equal"):
        check_head(Head(rows), model_name="it")


def test_single_rows_are_named():
    weight = torch.randn(9, 3)
    weight[2] = 0
    weight[[4, 8]] = weight[1].clone()

    with pytest.warns(UserWarning, match="of 9 rows") as caught:
        check_head(Head(weight, torch.randn(9)), model_name="it")

    texts = [str(warning.message) for warning in caught]
    assert "1 of 9 rows that are zero (row 2)" in texts[0]
    assert "2 of 9 rows that are equal to an earlier row (rows 4, 8)" in texts[1]


def test_many_rows_are_not_all_listed():
    weight = torch.randn(9, 3)
    weight[:7] = 0

    with pytest.warns(UserWarning, match=r"\(rows 0, 1, 2, 3, 4, \.\.\.\)"):
        check_head(Head(weight), model_name="it")


def test_rows_of_one_name_are_equal_by_right():
    weight = torch.randn(3, 2)
    weight[2] = weight[0]

    check_head(Head(weight), model_name="it", names=["missile", "goose", "missile"])
    with pytest.warns(UserWarning, match=r"\(row 2\)"):
        check_head(Head(weight), model_name="it", names=["missile", "goose", "rocket"])


def test_a_zero_row_of_two_is_a_reference():
    check_head(Head(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.ones(2)), model_name="it")


def test_openais_names_of_imagenet_give_two_pairs_of_equal_rows():
    import open_clip

    names = open_clip.IMAGENET_CLASSNAMES
    weight = torch.randn(1000, 4)[[names.index(name) for name in names]]

    check_head(Head(weight), model_name="it")
    with pytest.warns(UserWarning, match=r"2 of 999 rows .*\(rows 744, 837\)"):
        check_head(Head(weight[:-1]), model_name="it")


def test_a_background_class_stands_before_imagenets():
    names = class_names(1001)

    assert names[0] == "background"
    assert names[1:] == class_names(1000)


def test_classes_without_names():
    assert has_numbered_classes(class_names(100))
    assert not has_numbered_classes(class_names(1000))
    assert not has_numbered_classes(())
    assert not has_numbered_classes(("1", "0"))
