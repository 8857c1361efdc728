"""The limit counts what is made, and nothing twice."""

import pytest
import torch
from torch import Tensor, nn

from earmark.models.allocation import AllocationLimit, ExcessError, check_cost, check_memory


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


def test_what_is_too_large_is_refused_without_memory():
    """The system would not give 2**62 bytes, even if nothing writes to them."""
    with pytest.raises(ExcessError, match="more memory than its 1,000 bytes"):
        check_memory(lambda: nn.Linear(2**30, 2**30), 1000)


def test_the_number_of_operations_is_bounded():
    with pytest.raises(ExcessError, match="more than 50,000 operations"):
        check_memory(lambda: [torch.empty(0) for _ in range(50_001)], 0)


def test_what_reads_its_weights_is_left_to_the_limit():
    def build() -> object:
        return nn.Linear(2, 2).weight[0, 0].item()

    check_memory(build, 10**3)


class Attention(nn.Module):
    """Attention between all pixels, with a table kept after the first pass."""

    kept: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean of what the pixels attend to."""
        tokens = images.flatten(2).transpose(1, 2)
        if self.kept is None:
            self.kept = torch.eye(3)
        scores = tokens @ self.kept @ tokens.transpose(1, 2)
        return (scores @ tokens).mean(dim=1)


def test_the_cost_of_an_image_is_known_without_computing_it():
    model = Attention()

    assert check_cost(model, (4, 4)) == (1, 3)
    assert model.kept is None
    assert model(torch.ones(1, 3, 4, 4)).shape == (1, 3)
    with pytest.raises(ExcessError, match="a tensor of 17,179,869,184 bytes for one image"):
        check_cost(model, (256, 256))


def test_the_time_of_an_image_is_bounded():
    layers = [nn.Conv2d(3, 512, 3, padding=1), *(nn.Conv2d(512, 512, 3) for _ in range(100))]

    with pytest.raises(ExcessError, match=r"takes .* operations for one image of 512 x 512 pixels"):
        check_cost(nn.Sequential(*layers).to("meta"), (512, 512))


def test_what_cannot_be_judged_is_left_to_the_pass():
    class Reading(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * float(images.sum())

    assert check_cost(Reading(), (4, 4)) is None
