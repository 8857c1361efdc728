"""Which concepts a model encodes, by its records."""

from .pool import Pool

PAPER_THRESHOLD = 0.9
SECOND_THRESHOLD = 0.85
"""Section 4 of the paper, and its footnote 4: the conclusions should hold at both."""


def encoded(
    pool: Pool, model: str, *, threshold: float, basis: str = "singular"
) -> frozenset[str] | None:
    """The concepts that some direction of a basis encodes.

    Args:
        pool: The records, arranged.
        model: A model's id.
        threshold: The average precision from which a concept counts as encoded.
        basis: The setting of its ``best_average_precision``: singular or neuron.

    Returns:
        Their names; None where the model was not probed.
    """
    best = pool.all(model, "best_average_precision", setting=basis)
    if not best:
        return None
    return frozenset(record.item for record in best if record.value >= threshold)
