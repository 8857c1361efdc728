"""The tables of a study: the paper's numbers beside ours, its controls, and LaTeX."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.report_fakes import paper_records
from scipy.stats import spearmanr

import earmark
from earmark.quantities import PAPER_COUNT
from earmark.records import Record, select
from earmark.report.claims.claims import findings
from earmark.report.exhibits import build_exhibits
from earmark.report.paper_values import match_paper_models, paper_concept_row
from earmark.report.results_grid import ResultsGrid
from earmark.report.tables.latex import to_latex
from earmark.report.tables.table import Cell, Table
from earmark.statistics.rank_correlation import spearman

SINGULAR = {"basis": "singular", **PAPER_COUNT}
FACTS = Path(earmark.__file__).parent / "data" / "facts"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return paper_records(directions=4, layers=2, alphas=(0.5,))


@pytest.fixture(scope="module")
def made(records: list[Record]) -> dict[str, Table]:
    return tables(records)


def tables(records: list[Record]) -> dict[str, Table]:
    built = build_exhibits(ResultsGrid.from_records(records), "table-").values()
    return {one.number: one for one in built if isinstance(one, Table)}


def read(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


def facts(number: str) -> Iterable[dict[str, str]]:
    """The paper's table, as the file has it."""
    with (FACTS / "paper_models.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["table"].startswith(number)]


# Beside the paper


@pytest.mark.parametrize(
    ("number", "quantity", "wanted", "first"),
    [
        ("1", "effective_robustness", {}, {"Baseline": "paper"}),
        ("2", "activation_kurtosis", {"dataset": "imagenet", "variant": ""}, {}),
        ("3", "unique_concepts", SINGULAR, {}),
        ("4", "accuracy", {"dataset": "imagenet", "variant": ""}, {"Images": "ImageNet"}),
        ("6", "polysemanticity", SINGULAR, {}),
        ("7", "unique_concepts", SINGULAR | {"basis": "neuron"}, {}),
    ],
)
def test_the_papers_numbers_stand_beside_ours(
    records: list[Record],
    made: dict[str, Table],
    number: str,
    quantity: str,
    wanted: dict[str, object],
    first: dict[str, str],
):
    """Of every number in the paper's table: ours, the paper's, ours less the paper's."""
    rows = read(made[number])
    label = rows[0][next(iter(rows[0]))]
    block = [row for row in rows if row[next(iter(rows[0]))] == label]
    assert first.items() <= rows[0].items()
    seen = 0
    for fact in facts(number):
        whole = 100 if "percent" in fact["unit"] else 1
        paper = 0.5 if fact["value"] == "<1" else float(fact["value"])
        learned, role = fact["pretraining"], fact["role"]
        ours = select(records, backbone=fact["backbone"], role=role, quantity=quantity, **wanted)
        (one,) = [r for r in ours if r.pretraining == learned]
        column = role.capitalize()
        (row,) = [
            row
            for row in block
            if row["Backbone"] == fact["backbone"]
            and (role == "supervised" or row["Pretraining"] == learned)
            and row[column]
        ]
        assert float(row[column]) == one.value
        assert float(row[f"{column} paper"]) == pytest.approx(paper / whole)
        assert float(row[f"{column} difference"]) == pytest.approx(one.value - paper / whole)
        seen += 1
    assert sum(bool(row.get(f"{c} paper")) for row in rows for c in ROLES) == seen


ROLES = ("Zero-shot", "Finetuned", "Supervised", "Untrained")


def test_the_papers_first_block_has_its_rows(made: dict[str, Table]):
    """Twelve rows, as in the paper, before those that it does not have."""
    labels = [row[0] for row, _ in made["4"].rows]

    assert labels[:12] == ["ImageNet"] * 12
    assert labels[12] == "Mean of the shifts"
    assert [row[0] for row, _ in made["3"].rows][11:13] == ["AP 0.9", "AP 0.85"]


def test_no_number_of_the_paper_stands_beside_another_model(records: list[Record]):
    """Another checkpoint, and with it its finetuned model and its backbone's supervised."""
    other = [replace(record, model=record.model + "x") for record in records]

    assert match_paper_models(ResultsGrid.from_records(other)) == {}
    for one in tables(other).values():
        assert not [cell for _, cells in one.rows for cell in cells if cell.paper]
        assert "paper" not in one.csv().split("\n")[0]
    assert "The paper's NoCLIP" not in other_names(other)


def other_names(records: list[Record]) -> list[str]:
    return [labels[0] for labels, _ in tables(records)["8"].rows]


def test_openais_weights_are_the_papers_with_the_activation_that_it_ran():
    blank = Record("RN50-quickgelu,openai", "R", "O", "zero-shot", "polysemanticity", 4.0)
    tag = replace(blank, model="RN50-quickgelu,yfcc15m", pretraining="Y")
    plain = replace(blank, model="RN50,openai", pretraining="P")

    found = match_paper_models(ResultsGrid.from_records([blank, tag, plain]))

    assert found == {blank.model: ("ResNet50", "OpenAI", "zero-shot")}


def test_an_under_one_is_told(made: dict[str, Table]):
    cells = [cell for _, cells in made["1"].rows for cell in cells if "<" in cell.paper]

    assert [cell.paper for cell in cells] == ["paper < 1, \N{MINUS SIGN}5.5"] * 2
    assert "“< 1” counts as 0.5 in the difference." in made["1"].caption
    assert "< 1" not in made["4"].caption


def test_concepts_of_the_paper(made: dict[str, Table]):
    rows = {tuple(labels): cells for labels, cells in made["5"].rows}
    cell = rows["ViT-B-32", "OpenAI", "Zero-shot"][0]

    assert cell.paper == "paper: meshed, AP 0.95"
    assert rows["ResNet50", "CC-12M", "Finetuned"][0].raw["paper concept"] == "sacristy-s"
    assert "CC-12M by elimination" in rows["ResNet50", "CC-12M", "Finetuned"][0].note
    assert paper_concept_row(("ViT-B-16", "YFCC-15M", "NoCLIP"))[2].name == "black-c"


# Controls, and models between two others


def test_controls_stand_in_table_8_alone(records: list[Record], made: dict[str, Table]):
    noclip = [r for r in records if r.group == "no-clip"]
    (row,) = [cells for labels, cells in made["8"].rows if labels[0] == "NoCLIP"]
    values = [
        select(noclip, quantity="accuracy", dataset="imagenet")[0].value,
        select(noclip, quantity="effective_robustness")[0].value,
        select(noclip, quantity="activation_kurtosis", dataset="imagenet")[0].value,
        select(noclip, quantity="unique_concepts", **SINGULAR)[0].value,
    ]

    assert [cell.raw[""] for cell in row] == values
    assert other_names(records) == ["NoCLIP", "Captioned ID", "The paper's NoCLIP"]
    pool = ResultsGrid.from_records(records)
    assert not [m for _, _, m in pool.models() if "no-clip" in m or "captioned" in m]
    for number, one in made.items():
        assert number == "8" or not re.search("SimCLR|ID captions", one.markdown())


def test_untrained_by_its_group(records: list[Record]):
    pool = ResultsGrid.from_records([
        replace(r, model=r.model.replace("untrained", "u")) for r in records
    ])

    assert pool.roles == ("zero-shot", "finetuned", "supervised", "untrained")
    assert len(pool.rows) == 12
    assert pool.groups == {"main", "large", "small", "no-clip", "captioned-id"}


def test_paths_go_from_end_to_end():
    pool = ResultsGrid.from_records(
        paper_records(groups=("small",), directions=2, alphas=(0.7, 0.2))
    )

    assert [row.alpha_path for row in pool.rows if row.pretraining == "CC-12M"] == [
        (
            (0.0, "zero-shot", "RN50,cc12m"),
            (0.2, "interpolated", "RN50,cc12m@0.2"),
            (0.7, "interpolated", "RN50,cc12m@0.7"),
            (1.0, "finetuned", "finetuned/RN50-cc12m"),
        )
    ]
    assert "interpolated" not in pool.roles


@pytest.mark.parametrize("told", ["centered", "pruned_accuracy"])
def test_own_images_are_known_though_kurtosis_is_measured_on_shifts(told: str):
    blank = Record("m", "RN", "W", "zero-shot", "activation_kurtosis", 3.0)
    records = [replace(blank, dataset=name) for name in ("a-shift", "mine", "shifts")]
    own = replace(blank, dataset="mine")
    records.append(
        replace(own, variant=told) if told == "centered" else replace(own, quantity=told)
    )

    assert ResultsGrid.from_records(records).id_dataset == "mine"
    assert ResultsGrid.from_records([*records, replace(blank, dataset="imagenet")]).id_dataset == ""


# The claim along alpha


@pytest.mark.parametrize(
    ("kurtosis", "verdict"),
    [
        ((9.0, 7.0, 6.0, 5.0, 3.0), "reproduced"),
        ((3.0, 5.0, 6.0, 7.0, 9.0), "not reproduced"),
        ((9.0, 5.0, 3.0, 6.0, 7.0), "inconclusive"),
        ((3.0, 3.0, 3.0, 3.0, 3.0), "inconclusive"),
    ],
)
def test_signatures_follow_robustness(kurtosis: tuple[float, ...], verdict: str):
    robust = (0.3, 0.25, 0.2, 0.15, 0.1)
    records: list[Record] = []
    for k, (er, value) in enumerate(zip(robust, kurtosis, strict=True)):
        role = {0: "zero-shot", 4: "finetuned"}.get(k, "interpolated")
        blank = Record(f"m{k}", "R", "W", role, "effective_robustness", er, baseline="l")
        blank = replace(blank, alpha=k / 4 if 0 < k < 4 else None)
        tailed = replace(blank, quantity="activation_kurtosis", value=value, baseline="")
        records += [blank, replace(tailed, dataset="imagenet")]

    one = findings(ResultsGrid.from_records(records))[-1]

    assert (one.claim.key, one.verdict) == ("interpolation", verdict)
    assert "along 3 values of alpha" in one.observations[0]
    fewer = findings(ResultsGrid.from_records([r for r in records if r.model != "m2"]))[-1]
    assert fewer.observations[0].startswith("It cannot be judged here: that needs ")
    without = findings(ResultsGrid.from_records([r for r in records if r.alpha is None]))
    assert "interpolation" not in {finding.claim.key for finding in without}


@pytest.mark.parametrize("other", [[3.0, 1.0, 2.0, 2.0, 9.0], [1.0, 1.0, 5.0, 1.0, 0.0]])
def test_spearman_is_scipys(other: list[float]):
    one = [1.0, 2.0, 2.0, 4.0, 5.0]

    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)


# LaTeX


def unescaped_ampersands(line: str) -> int:
    return len(re.findall(r"(?<!\\)&", line))


def test_every_row_of_latex_has_all_columns(made: dict[str, Table]):
    for one in made.values():
        text = to_latex(one)
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") >= 1
        assert text.count("{") == text.count("}")
        columns = len(one.index) + len(one.columns)
        spec = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
        assert {len(one) for one in spec} == {columns}
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {unescaped_ampersands(row) for row in rows} == {columns - 1}
        assert text.count(r"\midrule") == text.count(r"\toprule") == len(spec)


def test_long_tables_are_parted(made: dict[str, Table]):
    text = to_latex(made["4"])

    assert text.count(r"\begin{table}") == 7
    assert "Accuracy (ObjectNet)." in text
    assert len(made["4"].visible_rows[0]) == 12
    assert len(made["4"].visible_rows[1]) == 72


HOSTILE = r"\input{x} & 5 % $a_1^2$ #1 ~ < > | [x] * " + '"' + "\n% {"
ESCAPED = (
    r"\textbackslash{}input\{x\} \& 5 \% \$a\_1\textasciicircum{}2\$ \#1 "
    r"\textasciitilde{} \textless{} \textgreater{} \textbar{} {[}x] {*} '' \% \{"
)


def test_latex_prints_what_it_is_given():
    cell = Cell("1", small=HOSTILE, note=HOSTILE, paper=HOSTILE)
    one = Table("1", HOSTILE, HOSTILE, (HOSTILE,), (HOSTILE,), [([HOSTILE], [cell])])

    text = to_latex(one)

    assert text.count(ESCAPED) == 8
    assert "$" not in text.replace(r"\$", "")
    assert len(text.splitlines()) == 15


def test_numbers_in_latex(made: dict[str, Table]):
    assert r"{\footnotesize paper \textless{} 1, \ensuremath{-}5.5}" in to_latex(made["1"])
    assert "\N{MINUS SIGN}" not in to_latex(made["1"])
    assert r"\textsuperscript{1}" in to_latex(made["1"])
