"""The limit counts what is made, and nothing twice."""

import pytest
import torch
from torch import nn

from earmark.models.allocation import AllocationLimit


def test_views_and_changes_in_place_make_nothing():
    weight = torch.zeros(100)

    with AllocationLimit(0) as limit:
        weight.view(10, 10).transpose(0, 1).add_(1)
        weight[3:].normal_()

    assert limit.n_bytes == 0


def test_each_new_tensor_counts_once():
    with AllocationLimit(10**3) as limit:
        first = torch.empty(100)  # 400 bytes
        first.add_(1)
        second = first.double()  # 800 bytes
        second.chunk(4)

    assert limit.n_bytes == 1200


def test_more_is_refused_before_it_is_written():
    with (
        pytest.raises(ValueError, match="more memory than its 1,000 bytes of weights"),
        AllocationLimit(10**3),
    ):
        nn.Linear(10_000, 10_000)


def test_a_layer_is_what_its_weights_are():
    with AllocationLimit(10**3) as limit:
        layer = nn.Linear(100, 50)

    assert 4 * sum(p.numel() for p in layer.parameters()) <= limit.n_bytes <= 10**5
