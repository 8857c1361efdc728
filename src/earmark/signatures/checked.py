"""What the checks of a count of concepts rest on, kept from the one sort per direction."""

from dataclasses import dataclass

from jaxtyping import Bool, Float64
from torch import Tensor

from .permuting import Ordered


@dataclass(frozen=True, eq=False)
class Checked:
    """What the checks of a probe's counts rest on.

    Attributes:
        redrawn: Average precision with the images drawn by further seeds, of shape (seed,
            concept, direction).
        halves: With the first and the second half of each balanced set, each direction
            turned as suits the first if it may be turned; of shape (2, concept, direction).
            NaN where a concept has one positive, and no second half.
        ordered: The members of each concept of few positives along every direction.
    """

    redrawn: Float64[Tensor, "seed concept direction"]
    halves: Float64[Tensor, "half concept direction"]
    ordered: tuple[Ordered | None, ...]

    def of_concepts(self, kept: Bool[Tensor, "concept"]) -> "Checked":
        """Of some of the concepts alone."""
        ordered = zip(self.ordered, kept.tolist(), strict=True)
        return Checked(
            self.redrawn[:, kept],
            self.halves[:, kept],
            tuple(one for one, keep in ordered if keep),
        )

    def first_directions(self, count: int) -> "Checked":
        """Along the first directions alone."""
        ordered = (one and Ordered(one.images, one.orders[:count]) for one in self.ordered)
        return Checked(self.redrawn[..., :count], self.halves[..., :count], tuple(ordered))
