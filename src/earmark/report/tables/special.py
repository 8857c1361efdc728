"""Tables 1b, 2b, 2c, 5, 8 and P1, which are more than one quantity by role."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from ...data.registry import dataset_title
from ...quantities import AP_THRESHOLD, QUANTITIES, Quantity, all_quantities
from ...records import Record, select
from ...signatures.effective_robustness import Baseline
from ..formatting import (
    TIMES,
    format_correlation,
    format_fixed,
    format_percent,
    format_points,
    quantity_formatter,
)
from ..paper_values import PaperConcept, match_paper_models, paper_concept_row, paper_noclip_row
from ..results_grid import CONTROL_TITLES, PRIVILEGED_RATIO, ROLE_TITLES, ResultsGrid
from .layout import LabeledCells, record_cells, role_table
from .table import Cell, LabeledRow, Table


def _record_cell(record: Record | None) -> Cell:
    if record is None:
        return Cell()
    return Cell.from_record(record, quantity_formatter(QUANTITIES[record.quantity]))


# Table 1b


def baselines_table(grid: ResultsGrid) -> Table | None:
    """Return Table 1b: the baselines side by side."""
    baselines = grid.baselines()
    if not baselines:
        return None
    columns = ["Slope", "Intercept", "r", "Models", "Fitted from", "to"]
    rows = [((baseline.name,), _baseline_cells(grid, baseline)) for baseline in baselines]
    caption = (
        "Each baseline is a line from the logit of the accuracy on ImageNet to the logit of the "
        "mean accuracy on the shifts. Intervals: 95 %, over the models of the fit."
    )
    if len(baselines) > 1:
        columns.append("Change of ER")
        for baseline, (_, cells) in zip(baselines, rows, strict=True):
            cells.append(_robustness_change_cell(grid, baseline, baselines[0]))
        caption += (
            " Change of ER: of effective robustness, in percentage points, with this baseline "
            f"instead of “{baselines[0].name}”: smallest and largest over models."
        )
    return Table("1b", "Baselines", caption, ("Baseline",), columns, rows)


def _baseline_cells(grid: ResultsGrid, baseline: Baseline) -> list[Cell]:
    records = select(grid.baseline_records, baseline=baseline.name)
    by_quantity = {record.quantity: record for record in reversed(records)}

    def cell(name: str) -> Cell:
        return _record_cell(by_quantity.get(f"baseline_{name}"))

    r = by_quantity.get("baseline_r")
    n = baseline.n
    return [
        cell("slope"),
        cell("intercept"),
        Cell.from_record(r, format_correlation) if r else Cell(),
        Cell(str(n), raw={"": n}) if n else Cell(),
        cell("id_low"),
        cell("id_high"),
    ]


def _robustness_change_cell(grid: ResultsGrid, baseline: Baseline, reference: Baseline) -> Cell:
    if baseline is reference:
        return Cell("reference")
    changes: list[float] = []
    for _, _, model in grid.models():
        here, there = (
            grid.first(model, "effective_robustness", baseline=b.name)
            for b in (baseline, reference)
        )
        if here and there:
            changes.append(here.value - there.value)
    if not changes:
        return Cell()
    low, high = (f"{'+' * (end >= 0)}{format_points(end)}" for end in (min(changes), max(changes)))
    text = low if low == high else f"{low} to {high}"
    return Cell(text, raw={"low": min(changes), "high": max(changes)})


# Tables 2b and 2c

_CENTERING_SUFFIXES: Mapping[str, str] = {"": "", "class-centered": ", class-centered"}


def directions_table(grid: ResultsGrid) -> Table | None:
    """Return Table 2b: the direction of largest importance in numbers."""
    cells: LabeledCells = {
        (label + suffix, model): cell
        for variant, suffix in _CENTERING_SUFFIXES.items()
        for _, _, model in grid.models()
        for label, cell in _direction_cells(grid, model, variant).items()
    }
    cells |= record_cells(
        grid.all_records("spearman_sigma_importance", variant=""),
        lambda _: "Spearman of singular value and importance",
        format_correlation,
    )
    return role_table(
        grid,
        cells,
        number="2b",
        title="The direction of largest importance",
        header="Measure",
        caption="Figure 2 in numbers; the paper has no such table. A direction that adds "
        "the same to the logits of all classes is important by Eq. 4, but changes no "
        "decision. For the most important direction, the table says how much of its effect "
        "on the logits is the same for all classes, and how many predictions on "
        f"{grid.id_title} change without it. Class-centered: the mean over classes is "
        "subtracted from the head, which changes no prediction, and activations are centered. "
        "Mean of all: over as many directions as features, as in the paper; where features "
        "outnumber classes, the rest have importance 0. The others: those of non-zero singular "
        "value.",
    )


def _direction_cells(grid: ResultsGrid, model: str, variant: str) -> dict[str, Cell]:
    top = grid.top_direction(model, variant=variant)
    if top is None:
        return {}
    ratio = grid.first(model, "importance_ratio", variant=variant)
    others = grid.first(model, "importance_ratio_to_others", variant=variant)
    n = top.n_privileged
    cells = {
        "Largest importance": _record_cell(top.importance_record),
        "Largest ÷ mean of all": Cell.from_record(ratio, _format_ratio)
        if ratio
        else Cell(_format_ratio(top.ratio), raw={"": top.ratio}),
        f"Directions of {PRIVILEGED_RATIO:g} times the mean or more": Cell(
            str(n), note="no interval: counted on the estimates", raw={"": n}
        ),
    }
    if others:
        cells["Largest ÷ mean of the others"] = Cell.from_record(others, _format_ratio)
    if variant:
        return cells
    if share := grid.first(model, "decision_share", variant="", coordinate=top.direction):
        constant = 1 - share.value
        cells["Class-constant part of the largest"] = Cell(
            format_percent(constant), note=share.note, raw={"": constant}
        )
        cells["Part of it that can change a decision"] = _record_cell(share)
    if flips := grid.first(model, "flipped_predictions", coordinate=top.direction):
        cells["Predictions that change without the largest"] = _record_cell(flips)
    return cells


def outliers_table(grid: ResultsGrid) -> Table | None:
    """Return Table 2c: outlier features, and the direction of largest importance on them."""
    models = [model for _, _, model in grid.models()]
    cells: LabeledCells = {
        (label, model): cell
        for model in models
        for label, cell in _outlier_cells(grid, model).items()
    }
    cells |= {
        (f"Energy of the direction of largest importance on them{suffix}", model): cell
        for variant, suffix in _CENTERING_SUFFIXES.items()
        for model in models
        if (cell := _energy_cell(grid, model, variant))
    }
    return role_table(
        grid,
        cells,
        number="2c",
        title="Outlier features and privileged directions",
        header="Measure",
        caption="The paper has no such table. Outlier features: those, at most 1 % of the "
        "features, with at least 10 times the mean share of the others in the activation "
        f"kurtosis on {grid.id_title}. One half of the images chooses them, the other half "
        "measures their shares; they are numbered from 0. Energy: the "
        "share of the direction's squared norm on these features. The note gives the energy of "
        "a random direction.",
    )


def _outlier_cells(grid: ResultsGrid, model: str) -> dict[str, Cell]:
    records = grid.records(model, "outlier_share")
    records.sort(key=lambda record: record.coordinate or 0.0)
    number = grid.first(model, "outlier_count")
    cells = {"Outlier features": _record_cell(number)} if number else {}
    if not records:
        return cells
    largest, total = records[0], sum(record.value for record in records)
    name = Cell(f"Feature {largest.item}", note=largest.note, raw={"": largest.item})
    cells |= {"Largest outlier feature": name, "Its share of the kurtosis": _record_cell(largest)}
    if len(records) > 1:
        note = "no interval: the sum of shares that have intervals"
        cells["Share of all outlier features"] = Cell(
            format_percent(total), note=note, raw={"": total}
        )
    return cells


def _energy_cell(grid: ResultsGrid, model: str, variant: str) -> Cell | None:
    top = grid.top_direction(model, variant=variant)
    if top is None or top.direction is None:
        return None
    fields = {"variant": variant, "coordinate": top.direction}
    record = grid.first(model, "outlier_energy", **fields)
    return _record_cell(record) if record else None


def _format_ratio(value: float) -> str:
    return quantity_formatter(QUANTITIES["importance_ratio"])(value) + TIMES


# Table 5


def top_concepts_table(grid: ResultsGrid) -> Table | None:
    """Return Table 5: what the direction of largest importance of each model encodes best."""
    rows: list[LabeledRow] = []
    paper_keys = match_paper_models(grid)
    for _, role, model in grid.models():
        for control, suffix in (("", ""), ("matched", ", matched negatives")):
            records = grid.records(model, "top_concept", basis="singular", control=control)
            by_rank = {record.coordinate: record for record in records}
            paper = {} if control else paper_concept_row(paper_keys.get(model))
            cells = [_concept_cell(by_rank.get(float(k)), paper.get(k)) for k in (1, 2, 3)]
            for record in records[:1]:
                title = ROLE_TITLES[role] + suffix
                rows.append(((record.backbone, record.pretraining, title), cells))
    if not rows:
        return None
    has_paper = any(cell.paper for _, cells in rows for cell in cells)
    return Table(
        "5",
        "The concepts that the direction of largest importance encodes best",
        "With their average precision (AP)."
        + _MATCHED_NOTE * _has_matched(rows)
        + " Beneath, where the model is the paper's: the paper's concept." * has_paper,
        ("Backbone", "Pretraining", "Role"),
        ("First", "Second", "Third"),
        rows,
    )


_MATCHED_NOTE = (
    " Matched negatives: images annotated in the concept's category, so that a direction which "
    "knows only the source data set of an image encodes nothing."
)


def _has_matched(rows: Sequence[LabeledRow]) -> bool:
    return any(labels[2].endswith("matched negatives") for labels, _ in rows)


def _concept_cell(record: Record | None, paper: PaperConcept | None) -> Cell:
    if record is None:
        return Cell()
    raw: dict[str, object] = {"concept": record.item, "AP": record.value}
    cell = Cell(record.item, f"AP {format_fixed(record.value)}", record.note, raw=raw)
    if paper is None:
        return cell
    note = f"In the paper {paper.note}" if paper.note else ""
    return replace(
        cell,
        note="; ".join(filter(None, (record.note, note))),
        paper=f"paper: {paper.name}, AP {format_fixed(paper.average_precision)}",
        raw=raw | {"paper concept": paper.name, "paper AP": paper.average_precision},
    )


# Table 8

_CONTROL_COLUMNS = {
    "accuracy": ("Accuracy on ImageNet", "ImageNet accuracy"),
    "effective_robustness": ("Effective robustness", "effective robustness"),
    "activation_kurtosis": ("Activation kurtosis", "activation kurtosis"),
    "unique_concepts": ("Unique concepts", "unique concepts"),
}
"""Quantities of Table 8, with the header here and the name in the paper's table."""

_CONTROL_NOTES = {
    "no-clip": "NoCLIP was pretrained on images without captions, then on labels.",
    "captioned-id": "Captioned ID was pretrained as CLIP is, on captions of the "
    "in-distribution images alone.",
}


def control_models_table(grid: ResultsGrid) -> Table | None:
    """Return Table 8: NoCLIP, and the control of the paper's second version."""
    names = control_names(grid)
    baseline = next(iter(grid.baselines()), None)
    rows: list[LabeledRow] = []
    for control in grid.controls:
        cells = [_control_cell(grid, control.model, name, baseline) for name in _CONTROL_COLUMNS]
        if any(cell.text for cell in cells):
            labels = names[control.model], control.backbone, control.pretraining
            rows.append((labels, cells))
    if not rows:
        return None
    if match_paper_models(grid):
        rows.append(_paper_control_row())
    kinds = {record.group for record in grid.controls}
    sentences = [_CONTROL_NOTES[kind] for kind in CONTROL_TITLES if kind in kinds]
    if baseline:
        unit = "percentage points above the baseline"
        sentences.append(f"Effective robustness: {unit} “{baseline.name}”.")
    sentences.append(f"Concepts: AP {AP_THRESHOLD:g}, along singular directions.")
    return Table(
        "8",
        "Models without captions, and without diversity",
        " ".join(sentences),
        ("Model", "Backbone", "Pretraining"),
        [title for title, _ in _CONTROL_COLUMNS.values()],
        rows,
    )


def _control_cell(grid: ResultsGrid, model: str, quantity: str, baseline: Baseline | None) -> Cell:
    fields = dict(QUANTITIES[quantity].variant("").fields)
    if quantity in {"accuracy", "activation_kurtosis"}:
        fields["dataset"] = "imagenet"
    if quantity == "effective_robustness" and baseline:
        fields["baseline"] = baseline.name
    return _record_cell(grid.first(model, quantity, **fields))


def control_names(grid: ResultsGrid) -> dict[str, str]:
    """Return the name of each control by its id: its kind, and its id where needed."""
    names = {control.model: CONTROL_TITLES[control.group] for control in grid.controls}
    kinds = Counter((c.group, c.backbone, c.pretraining) for c in grid.controls)
    for control in grid.controls:
        if kinds[control.group, control.backbone, control.pretraining] > 1:
            names[control.model] += f" ({control.model})"
    return names


def _paper_control_row() -> LabeledRow:
    values = paper_noclip_row()
    cells: list[Cell] = []
    for quantity, (_, key) in _CONTROL_COLUMNS.items():
        unit = " %" * (QUANTITIES[quantity].unit == "fraction")
        cells.append(Cell(values[key].text + unit, raw={"": values[key].value}))
    return ("The paper's NoCLIP", "ViT-B-16", "SimCLR on YFCC-15M, then labels"), cells


# Table P1


def plugin_table(grid: ResultsGrid) -> Table | None:
    """Return Table P1: the quantities of plug-ins, one row for each variant and dataset."""
    quantities = all_quantities()
    cells: LabeledCells = {}
    for name in dict.fromkeys(name for _, name in grid.record_index if ":" in name):
        quantity = quantities.get(name) or Quantity(name, name, "", "")
        cells |= record_cells(
            grid.all_records(name, item="", coordinate=None),
            partial(_plugin_label, quantity),
            quantity_formatter(quantity),
        )
    return role_table(
        grid,
        cells,
        number="P1",
        title="Quantities of plug-ins",
        header="Quantity",
        caption="Measured by packages other than earmark.",
    )


def _plugin_label(quantity: Quantity, record: Record) -> str:
    dataset = dataset_title(record.dataset)
    labels = [
        variant.label.format(dataset=dataset, baseline=record.baseline)
        for variant in quantity.variants
        if not variant.reduction
        and all(getattr(record, name) == value for name, value in variant.fields.items())
    ]
    parts = labels[:1] or [dataset, record.variant, record.basis, record.control]
    return ", ".join(filter(None, (quantity.title, *parts)))
