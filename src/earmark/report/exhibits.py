"""Every table and figure of the report, declared once, in the order of the page."""

from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from .figures.accuracy import accuracy_figure
from .figures.charts import Figure, rename_figure_images
from .figures.cka import cka_figure
from .figures.concept_controls import concept_controls_figure
from .figures.concepts import threshold_figure, venn_bars
from .figures.control_models import control_models_figure
from .figures.estimation import estimation_figure
from .figures.importance import all_families_importance_figure, importance_figure
from .figures.interpolation import CURVE_QUANTITIES, interpolation_figure
from .figures.pruning import pruning_figure
from .formatting import rename_images
from .results_grid import CONTROL_TITLES, LARGE_GROUPS, MAIN_GROUPS, SMALL_GROUPS, ResultsGrid
from .tables import paper_tables, special
from .tables.estimation import estimation_table
from .tables.table import Table

Built: TypeAlias = Table | Figure


@dataclass(frozen=True)
class Exhibit:
    """Declaration of one table or figure of the page."""

    id: str  # stem of its file names, such as table-1 or fig-04b
    needs: str  # what must be measured for it; empty if the page never reports it as missing
    builder: Callable[[ResultsGrid], Built | None]
    groups: tuple[str, ...] | None = None  # of families or controls that it shows; None: all
    claims: tuple[str, ...] = ()  # keys of the claims that follow it on the page
    roles: tuple[str, ...] = ()  # that one family must have for it to be missed

    @property
    def title(self) -> str:
        """Return its kind and number, such as ``Figure 4b``."""
        kind, _, number = self.id.partition("-")
        return f"Table {number}" if kind == "table" else f"Figure {number.lstrip('0')}"

    def build(self, grid: ResultsGrid) -> Built | None:
        """Return the table or figure of its groups of families, or None."""
        families = set(self.groups or ()) - CONTROL_TITLES.keys()
        if "main" in families:  # families without a group are shown with these
            families.add("")
        built = self.builder(grid.filter_groups(sorted(families)) if families else grid)
        if built is None or not grid.id_dataset:
            return built
        if isinstance(built, Figure):
            return rename_figure_images(built, grid.id_title)
        return built.rename_images(grid.id_title)

    def is_missed(self, grid: ResultsGrid) -> bool:
        """Return whether the study has models of its groups, so that it should be there."""
        has_group = self.groups is None or bool(grid.groups & set(self.groups))
        has_roles = not self.roles or any({*self.roles} <= row.models.keys() for row in grid.rows)
        return bool(self.needs) and has_group and has_roles


@dataclass(frozen=True)
class Section:
    """Section of the page."""

    title: str
    lead: str
    exhibits: tuple[Exhibit, ...]

    @property
    def anchor(self) -> str:
        """Return the name that links to it."""
        return self.title.lower().replace(",", "").replace(" ", "-")


_PAIR = ("zero-shot", "finetuned")
_FIRST_GROUPS = ("main", "large")
_ALL_GROUPS = ("main", "large", "small")
_CONTROL_GROUPS = tuple(CONTROL_TITLES)
_IMPORTANCE = "the importance of directions"
_PRUNED = "accuracy with directions removed"
_CONTROLS = "the controls of unique concepts"
_PRECISION = "the average precision of each concept"
_CURVE_NEEDS = {
    "accuracy": "accuracy along alpha",
    "effective_robustness": "effective robustness along alpha",
    "activation_kurtosis": "activation kurtosis along alpha",
    "unique_concepts": "the number of unique concepts along alpha",
}


def _section(title: str, lead: str, *exhibits: Exhibit) -> Section:
    return Section(title, lead, exhibits)


SECTIONS = (
    _section(
        "Accuracy and effective robustness",
        "Effective robustness is the accuracy on shifted images beyond what the accuracy on "
        "ImageNet predicts.",
        Exhibit("table-4", "accuracy", paper_tables.ACCURACY_TABLE, claims=("accuracy",)),
        Exhibit("table-1", "effective robustness", paper_tables.ROBUSTNESS_TABLE),
        Exhibit(
            "table-1b", "effective robustness above a recorded baseline", special.baselines_table
        ),
        Exhibit(
            "fig-01",
            "an accuracy on ImageNet and on the shifts, strictly between 0 and 1,",
            accuracy_figure,
            claims=("robustness",),
        ),
    ),
    _section(
        "Outlier features",
        "An outlier feature is far larger than the other features of an image. Activation "
        "kurtosis measures this.",
        Exhibit(
            "table-2", "activation kurtosis", paper_tables.KURTOSIS_TABLE, claims=("kurtosis",)
        ),
    ),
    _section(
        "Privileged directions",
        "A privileged direction of the representation matters far more to the head than the "
        "others.",
        Exhibit("fig-02", _IMPORTANCE, importance_figure, MAIN_GROUPS),
        Exhibit("table-2b", _IMPORTANCE, special.directions_table),
        Exhibit(
            "table-2c",
            "the kurtosis of each feature",
            special.outliers_table,
            claims=("directions", "order"),
        ),
        Exhibit("fig-07", _IMPORTANCE, all_families_importance_figure, _ALL_GROUPS),
    ),
    _section(
        "Pruning",
        "The least important directions are removed from the head.",
        Exhibit("fig-03", _PRUNED, pruning_figure, MAIN_GROUPS, ("pruning",)),
        Exhibit("fig-08", _PRUNED, partial(pruning_figure, number="8", sets="large"), LARGE_GROUPS),
        Exhibit("fig-09", _PRUNED, partial(pruning_figure, number="9", sets="small"), SMALL_GROUPS),
    ),
    _section(
        "Concepts",
        "A direction encodes a concept if projections on it separate images with the concept "
        "from images without it, with a high average precision (AP).",
        Exhibit(
            "table-3",
            "the number of unique concepts along singular directions",
            paper_tables.UNIQUE_CONCEPTS_TABLE,
        ),
        Exhibit("table-3b", _CONTROLS, paper_tables.UNIQUE_CONTROLS_TABLE),
        Exhibit("fig-04c", _CONTROLS, concept_controls_figure, MAIN_GROUPS),
        Exhibit("fig-04b", _PRECISION, threshold_figure, MAIN_GROUPS, ("unique",)),
        Exhibit(
            "fig-04", f"{_PRECISION}, for two roles or more,", venn_bars, MAIN_GROUPS, ("overlap",)
        ),
        Exhibit(
            "table-7",
            "the number of unique concepts in other bases",
            paper_tables.OTHER_BASES_TABLE,
            claims=("neuron",),
        ),
        Exhibit(
            "table-5",
            "what the direction of largest importance encodes",
            special.top_concepts_table,
            claims=("texture",),
        ),
    ),
    _section(
        "Polysemanticity",
        "A polysemantic direction encodes several concepts.",
        Exhibit("table-6", "polysemanticity", paper_tables.POLYSEMANTICITY_TABLE),
        Exhibit(
            "table-6b",
            "the controls of polysemanticity",
            paper_tables.POLYSEMANTICITY_CONTROLS_TABLE,
            claims=("polysemanticity",),
        ),
    ),
    _section(
        "Layer by layer",
        "CKA shows at which layers a finetuned model differs from the zero-shot one.",
        Exhibit("fig-05", "CKA", partial(cka_figure, number="5"), _FIRST_GROUPS, roles=_PAIR),
        Exhibit("fig-06", "CKA", partial(cka_figure, number="6"), SMALL_GROUPS, roles=_PAIR),
    ),
    _section(
        "Without captions, and without diversity",
        "Two kinds of models separate language from diversity: NoCLIP saw diverse images "
        "without captions, Captioned ID saw captions of ImageNet's images alone.",
        Exhibit(
            "table-8", "any quantity of Table 8", special.control_models_table, _CONTROL_GROUPS
        ),
        Exhibit(
            "fig-10",
            "the importance of these models' directions",
            control_models_figure,
            _CONTROL_GROUPS,
        ),
    ),
    _section(
        "Between zero-shot and finetuned",
        "Wise-FT averages the weights of the zero-shot and the finetuned model; alpha is the "
        "share of the finetuned one.",
        *(
            Exhibit(
                f"fig-{number}",
                _CURVE_NEEDS[quantity],
                partial(interpolation_figure, quantity_name=quantity, number=str(number)),
                groups,
                ("interpolation",) if number == 18 else (),
                _PAIR,
            )
            for place, quantity in enumerate(CURVE_QUANTITIES)
            for number, groups in ((11 + 2 * place, _FIRST_GROUPS), (12 + 2 * place, SMALL_GROUPS))
        ),
    ),
    _section(
        "Accuracy without labels",
        "A checkpoint is often chosen for images that have no labels. Here the labels of each "
        "shift are hidden, and every method and signature is judged by the choice it makes.",
        Exhibit("table-9", "", estimation_table),
        Exhibit("fig-20", "", estimation_figure),
    ),
    _section(
        "Quantities of plug-ins",
        "These quantities were added by other packages.",
        Exhibit("table-P1", "", special.plugin_table),
    ),
)
EXHIBITS = tuple(exhibit for section in SECTIONS for exhibit in section.exhibits)


def build_exhibits(grid: ResultsGrid, prefix: str = "") -> dict[str, Built]:
    """Return the tables and figures that the records have the numbers for, by id.

    With a prefix, such as ``table-``, only those whose id starts with it are built.
    """
    wanted = (exhibit for exhibit in EXHIBITS if exhibit.id.startswith(prefix))
    built = ((exhibit.id, exhibit.build(grid)) for exhibit in wanted)
    return {id_: exhibit for id_, exhibit in built if exhibit}


def page_sections(
    grid: ResultsGrid, built: Container[str], claims: Container[str]
) -> list[Section]:
    """Return the sections that have an exhibit, a claim, or an exhibit that is missed."""
    sections: list[Section] = []
    title = grid.id_title if grid.id_dataset else ""
    for section in SECTIONS:
        exhibits = tuple(
            replace(exhibit, needs=rename_images(exhibit.needs, title))
            for exhibit in section.exhibits
            if exhibit.id in built
            or exhibit.is_missed(grid)
            or any(claim in claims for claim in exhibit.claims)
        )
        if exhibits:
            lead = rename_images(section.lead, title)
            sections.append(replace(section, lead=lead, exhibits=exhibits))
    return sections
