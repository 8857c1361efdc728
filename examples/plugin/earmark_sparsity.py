"""Sparsity of activations, as a signature that earmark measures beside its own."""

from torch import Tensor

from earmark import AuditSpec, MeasureContext, Measurement, Quantity, Record, Variant, mean_interval

HOYER = Quantity(
    "earmark_sparsity:hoyer",
    title="Hoyer sparsity",
    section="Sparsity",
    description="Mean over images of Hoyer's sparsity of the activations: 0 where all "
    "features are equal in size, 1 where one feature alone is not 0.",
    decimals=3,
    variants=(Variant("", "{dataset}", {}, summary=True, audit=AuditSpec()),),
)


def measure_sparsity(context: MeasureContext) -> list[Record]:
    """Record the mean Hoyer sparsity of the in-distribution activations."""
    values = [
        value
        for batch in context.id_activations
        for value in _hoyer_sparsity(batch.double()).tolist()
    ]
    low, high = mean_interval(values) if len(values) > 1 else (None, None)
    return [
        context.row(
            quantity=HOYER.name,
            value=sum(values) / len(values),
            dataset=context.eval_sets.in_distribution.name,
            low=low,
            high=high,
            n=len(values),
        )
    ]


def _hoyer_sparsity(activations: Tensor) -> Tensor:
    root = activations.shape[1] ** 0.5
    ratio = activations.abs().sum(dim=1) / activations.norm(dim=1)
    return (root - ratio) / (root - 1)


SPARSITY = Measurement((HOYER,), needs="images", measure=measure_sparsity)
