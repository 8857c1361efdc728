"""Role tables of the report: the paper's, and the controls of its counts of concepts."""

from collections.abc import Sequence
from functools import partial

from ...data.registry import DATASETS, dataset_title
from ...quantities import AP_THRESHOLD, PAPER_COUNT, QUANTITIES, Variant
from ...records import Record
from ..results_grid import ResultsGrid
from .layout import LabelKey, RoleTable

PAPER_BASELINE_NAME = "paper"
PAPER_COUNT_LABEL = "As the paper counts"

_AP_LABEL = f"AP {AP_THRESHOLD:g}"
_KURTOSIS_LABELS = {"": "As they are", "centered": "Centered"}
_VARIANT_LABELS = {"": "", "rank": "over the rank alone", "both-orientations": "both orientations"}
_VARIANT_NOTES = {
    "rank": " Over the rank alone: without the directions that the head maps to 0, whose "
    "basis is arbitrary.",
    "both-orientations": " Both orientations: each direction counts with either sign.",
}


def _label_dataset(record: Record, grid: ResultsGrid) -> LabelKey:
    if record.dataset == "imagenet":
        return 0, grid.id_title
    order = ["imagenet", "shifts", *DATASETS, record.dataset]
    return order.index(record.dataset), dataset_title(record.dataset)


def _label_kurtosis(record: Record, _: ResultsGrid) -> LabelKey:
    return record.variant, _KURTOSIS_LABELS.get(record.variant, record.variant)


def _label_basis(record: Record, _: ResultsGrid) -> LabelKey:
    threshold = record.threshold or 0.0
    seed = f", seed {record.seed}" if record.seed else ""
    parts = [
        f"AP {threshold:g}" if threshold else "",
        _VARIANT_LABELS.get(record.variant, record.variant),
        f"{record.basis} basis{seed}" if record.basis not in {"", "singular"} else "",
    ]
    bases = ["singular", "neuron", "random", record.basis]
    variants = [*_VARIANT_LABELS, record.variant]
    key = bases.index(record.basis), variants.index(record.variant), record.seed or 0
    return (*key, -threshold), ", ".join(filter(None, parts))


def _note_variants(_: ResultsGrid, records: Sequence[Record]) -> str:
    variants = {record.variant for record in records}
    return "".join(text for variant, text in _VARIANT_NOTES.items() if variant in variants)


_ANY_VARIANT = {
    key: value for key, value in PAPER_COUNT.items() if key not in {"variant", "threshold"}
}

ROBUSTNESS_TABLE = RoleTable(
    "effective_robustness",
    "Baseline",
    "Percentage points above the baseline. The 95 % intervals cover the choice of images "
    "and of the models that the baseline was fitted to. Table 1b lists the baselines.",
    lambda record, _: (0, record.baseline),
    paper_label=PAPER_BASELINE_NAME,
)
KURTOSIS_TABLE = RoleTable(
    "activation_kurtosis",
    "Activations",
    "A Gaussian has 3. Centered: the mean of each feature over images is subtracted first; "
    "the paper does not do this.",
    _label_kurtosis,
    {"dataset": "imagenet"},
    paper_label=_KURTOSIS_LABELS[""],
    counted="images",
)
ACCURACY_TABLE = RoleTable(
    "accuracy",
    "Images",
    "Top-1, in percent, with 95 % intervals. The paper's table has ImageNet alone.",
    _label_dataset,
    {"variant": ""},
    paper_label=dataset_title("imagenet"),
    counted="images",
)
UNIQUE_CONCEPTS_TABLE = RoleTable(
    "unique_concepts",
    "Encoded from",
    "Concepts that at least one singular direction encodes (Eq. 5).",
    _label_basis,
    {"basis": "singular", **_ANY_VARIANT},
    paper_label=_AP_LABEL,
    counted="concepts",
    notes=_note_variants,
)
POLYSEMANTICITY_TABLE = RoleTable(
    "polysemanticity",
    "Encoded from",
    "Concepts that a direction encodes, on average. The paper's table has the zero-shot "
    "models alone, along singular directions.",
    _label_basis,
    _ANY_VARIANT,
    paper_label=_AP_LABEL,
    counted="directions",
    notes=_note_variants,
)


def _other_bases(grid: ResultsGrid) -> list[Record]:
    records = grid.all_records("unique_concepts", **_ANY_VARIANT)
    return [record for record in records if record.basis != "singular"]


OTHER_BASES_TABLE = RoleTable(
    "unique_concepts",
    "Encoded from",
    "As Table 3, along other directions. The paper has the neuron basis alone.",
    _label_basis,
    number="7",
    title="Unique concepts in other bases",
    paper_label=f"{_AP_LABEL}, neuron basis",
    counted="concepts",
    select=_other_bases,
)


# Controls of the counts of concepts


def control_variants(quantity: str) -> list[Variant]:
    """Return the paper's count and its controls, along singular directions."""
    return [v for v in QUANTITIES[quantity].variants if v.fields["basis"] == "singular"]


def control_label(record: Record, _: ResultsGrid) -> LabelKey:
    """Return place and label of a control of a count of concepts."""
    variants = control_variants(record.quantity)
    for place, variant in enumerate(variants):
        if all(getattr(record, name) == value for name, value in variant.fields.items()):
            label = variant.label[:1].upper() + variant.label[1:]
            return place, label if place else PAPER_COUNT_LABEL
    return len(variants), f"Along {record.width} directions"


def select_controls(
    grid: ResultsGrid, quantity: str, *, models: Sequence[str] | None = None
) -> list[Record]:
    """Return a count with its controls; none where no control was measured."""
    fields = {"basis": "singular", "threshold": AP_THRESHOLD, "variant": ""}
    models = [model for _, _, model in grid.models()] if models is None else models
    width, has_rare = grid.common_width(), grid.has_rare_concepts()
    records = [
        record
        for model in models
        for record in grid.records(model, quantity, **fields)
        if record.width in {None, width} and (has_rare or record.min_positives is None)
    ]
    has_controls = any(record.control or record.min_positives for record in records)
    return records if has_controls else []


_CONTROLS_CAPTION = (
    f"At AP {AP_THRESHOLD:g}, along singular directions. Permutation null: the labels "
    "of each concept's images are permuted 999 times, in the same way for all directions; for "
    "a concept that would hardly ever reach the threshold by chance, an exact bound is used "
    "instead. The interval holds 95 % of the permuted counts. Beyond the permutation null: the "
    "paper's count minus the expected one. After false-discovery control: at most 5 % of these are "
    "expected to be false (Benjamini and Hochberg, over {tested})."
)
_MATCHED_NOTE = (
    " With negatives of the concept's category: each category of Broden comes from source data "
    "sets of its own, which a direction may know instead of the concept; concepts with too few "
    "such negatives are left out."
)
_HELD_OUT_NOTE = (
    " On held-out images too: the best direction on half of a concept's images encodes it "
    "on the other half as well; for very rare concepts this happens by chance."
)
_COMMON_NOTE = " 20 positives or more: without rarer concepts, which are easily encoded by chance."
_NO_RARE_NOTE = " All concepts have 20 positives or more."


def _note_controls(grid: ResultsGrid, records: Sequence[Record]) -> str:
    is_unique = any(record.quantity == "unique_concepts" for record in records)
    text = _MATCHED_NOTE if any(record.control == "matched" for record in records) else ""
    text += _HELD_OUT_NOTE if is_unique else ""
    text += _COMMON_NOTE if grid.has_rare_concepts() else _NO_RARE_NOTE
    if is_unique and (width := grid.common_width()):
        text += (
            f" Along {width} directions: the expected count along {width} random ones of "
            "the basis, since more directions encode more concepts."
        )
    return text


UNIQUE_CONTROLS_TABLE = RoleTable(
    "unique_concepts",
    "Counted",
    _CONTROLS_CAPTION.format(tested="concepts, each by its best direction"),
    control_label,
    number="3b",
    title="Controls of the unique concepts",
    counted="concepts",
    select=partial(select_controls, quantity="unique_concepts"),
    notes=_note_controls,
    n_visible=5,
)
POLYSEMANTICITY_CONTROLS_TABLE = RoleTable(
    "polysemanticity",
    "Counted",
    _CONTROLS_CAPTION.format(tested="pairs of a concept and a direction"),
    control_label,
    number="6b",
    title="Controls of polysemanticity",
    select=partial(select_controls, quantity="polysemanticity"),
    notes=_note_controls,
)
