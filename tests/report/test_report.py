"""The report's tables and page: cells by hand, one file, no network, nothing left out."""

import csv
import io
import math
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.report_fakes import fake_records

from earmark.data.registry import PAPER_SHIFTS as SHIFTS
from earmark.data.registry import dataset_title
from earmark.quantities import PAPER_COUNT
from earmark.records import Record
from earmark.report import write_report
from earmark.report.exhibits import EXHIBITS, build_exhibits
from earmark.report.results_grid import ResultsGrid
from earmark.report.tables.table import Cell, Table

HOSTILE = "</script><script>alert(1)</script>"
PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def model(role: str, *, backbone: str = "RN50", pretraining: str = "Web", name: str = ""):
    name = name or f"{backbone}/{pretraining}/{role}"
    return Record(name, backbone, pretraining, role, "", 0.0)


def measured(blank: Record, quantity: str, value: float, **fields: object) -> Record:
    return replace(blank, quantity=quantity, value=value, **fields)


def table(records: list[Record], number: str) -> Table:
    built = build_exhibits(ResultsGrid.from_records(records), "table-")[f"table-{number}"]
    assert isinstance(built, Table)
    return built


def shown(one: Table) -> list[list[str]]:
    return [[*labels, *(cell.text for cell in cells)] for labels, cells in one.rows]


def xml(path: Path) -> list[ElementTree.Element]:
    """Every element of an XML file, the root first."""
    return list(ElementTree.parse(path).iter())  # noqa: S314 (of our own making)


# Rows and columns


def test_rows_and_columns_are_the_papers():
    """As in Table 1: the supervised model stands once, in the first row of its backbone."""
    records = [
        measured(model("supervised", pretraining="ImageNet"), "effective_robustness", 0.01),
        measured(model("zero-shot", pretraining="OpenAI"), "effective_robustness", 0.21),
        measured(model("finetuned", pretraining="OpenAI"), "effective_robustness", 0.08),
        measured(model("zero-shot", pretraining="YFCC"), "effective_robustness", 0.07),
        measured(model("zero-shot", backbone="ViT"), "effective_robustness", 0.31),
    ]
    records = [replace(record, baseline="paper") for record in records]

    one = table(records, "1")

    assert one.columns == ["Zero-shot", "Finetuned", "Supervised"]
    assert shown(one) == [
        ["paper", "RN50", "OpenAI", "21.0", "8.0", "1.0"],
        ["paper", "RN50", "YFCC", "7.0", "", ""],
        ["paper", "ViT", "Web", "31.0", "", ""],
    ]


def test_a_second_model_of_a_kind_has_a_row_of_its_own():
    first, second = model("zero-shot", name="a"), model("zero-shot", name="b")
    records = [measured(first, "polysemanticity", 1.0), measured(second, "polysemanticity", 2.0)]

    rows = ResultsGrid.from_records(records).rows

    assert [(row.pretraining, row.models) for row in rows] == [
        ("Web", {"zero-shot": "a"}),
        ("Web (b)", {"zero-shot": "b"}),
    ]


def test_each_row_is_compared_with_its_backbones_supervised_model():
    records = [
        measured(model(role, pretraining=pretraining), "polysemanticity", 1.0)
        for role, pretraining in (
            ("zero-shot", "A"),
            ("zero-shot", "B"),
            ("supervised", "ImageNet"),
        )
    ]

    rows = ResultsGrid.from_records(records).rows

    assert [row.models["supervised"] for row in rows] == ["RN50/ImageNet/supervised"] * 2


def test_baselines_are_no_models_of_the_pool():
    baseline = measured(model("other", name="b"), "accuracy", 0.5, variant="baseline")
    slope = measured(model("other", name=""), "baseline_slope", 0.8, baseline="line")
    zero_shot = measured(model("zero-shot"), "effective_robustness", 0.1, baseline="baseline")

    pool = ResultsGrid.from_records([baseline, replace(slope, model=""), zero_shot])

    assert [name for _, _, name in pool.models()] == [zero_shot.model]
    assert pool.roles == ("zero-shot",)


def test_an_untrained_control_is_named_as_such_and_other_models_are_not():
    records = [
        measured(model("other", name="lab:untrained"), "polysemanticity", 1.0),
        measured(model("other", name="noclip"), "polysemanticity", 1.0),
    ]

    assert ResultsGrid.from_records(records).roles == ("untrained", "other")


# Cells, by hand


def test_effective_robustness_is_shown_in_points_with_its_interval_and_note():
    blank = model("zero-shot")
    robust = measured(blank, "effective_robustness", -0.0512, baseline="lab", note="outside")

    one = table([replace(robust, low=-0.0634, high=0.004)], "1")

    cell = one.rows[0][1][0]
    assert (cell.text, cell.small) == ("\N{MINUS SIGN}5.1", "\N{MINUS SIGN}6.3 to 0.4")
    assert one.notes == (("", "outside"),)


def test_accuracies_come_in_order_with_unknown_shifts_last():
    blank = measured(model("zero-shot"), "accuracy", 0.0)
    v2, *_, a = SHIFTS
    values = {"mine": 0.1, a: 0.2, "shifts": 0.3, "imagenet": 0.4567, v2: 0.5}
    records = [replace(blank, dataset=name, value=value) for name, value in values.items()]

    records[0] = replace(records[0], n=10000)
    records[2] = replace(records[2], n=2000)

    rows = shown(table(records, "4"))

    assert table(records, "4").caption.endswith(" Over 2,000 to 10,000 images.")
    assert [row[2:] for row in rows] == [
        ["ImageNet", "45.7"],
        ["Mean of the shifts", "30.0"],
        ["ImageNet-V2", "50.0"],
        ["ImageNet-A", "20.0"],
        ["mine", "10.0"],
    ]


def test_privileged_direction_by_hand():
    """Importances 6, 1, 1, 0: the mean is 2, the largest is 3 times that."""
    blank = model("zero-shot")
    records = [
        measured(blank, "importance", value, coordinate=float(x))
        for x, value in enumerate((0.1, 0.6, 0.1, 0.0))
    ]
    records += [measured(blank, "decision_share", 0.006 * x, coordinate=float(x)) for x in range(4)]

    rows = {row[2]: row[3] for row in shown(table(records, "2b"))}

    assert rows == {
        "Largest importance": "0.600",
        "Largest ÷ mean of all": "3.0\N{MULTIPLICATION SIGN}",
        "Directions of 10 times the mean or more": "0",
        "Class-constant part of the largest": "99.4\N{NO-BREAK SPACE}%",
        "Part of it that can change a decision": "0.6\N{NO-BREAK SPACE}%",
    }


def test_counts_and_bases():
    blank = measured(model("zero-shot"), "unique_concepts", 117.0, n=271)
    records = [
        replace(blank, basis="singular", threshold=0.9),
        replace(blank, basis="singular", threshold=0.85, value=1271.0),
        replace(blank, basis="random", seed=0, threshold=0.9, value=3.0),
        replace(blank, basis="neuron", threshold=0.9, value=90.0),
    ]

    assert [row[2:] for row in shown(table(records, "3"))] == [
        ["AP 0.9", "117"],
        ["AP 0.85", "1,271"],
    ]
    assert [row[2:] for row in shown(table(records, "7"))] == [
        ["AP 0.9, neuron basis", "90"],
        ["AP 0.9, random basis", "3"],
    ]
    assert "Over 271 concepts." in table(records, "3").caption


def test_top_concepts_stand_by_rank_with_their_own_pretraining():
    zero_shot = measured(model("zero-shot"), "top_concept", 0.95, basis="singular")
    untrained = replace(zero_shot, model="untrained", role="other", pretraining="none")
    records = [
        replace(zero_shot, coordinate=2.0, item="flecked", value=0.9149),
        replace(zero_shot, coordinate=1.0, item="meshed"),
        replace(untrained, coordinate=1.0, item="red-c"),
    ]

    one = table(records, "5")

    assert shown(one) == [
        ["RN50", "Web", "Zero-shot", "meshed", "flecked", ""],
        ["RN50", "none", "Untrained", "red-c", "", ""],
    ]
    assert one.rows[0][1][1].small == "AP 0.91"


def test_line_is_described_where_its_robustness_stands():
    line = measured(model("other", name=""), "", 0.0, baseline="lab", n=10)
    numbers = {"slope": 0.594, "intercept": -2.0, "r": 0.98, "id_low": 0.13, "id_high": 0.74}
    records = [
        replace(line, model="", quantity=f"baseline_{name}", value=value)
        for name, value in numbers.items()
    ]
    records.append(measured(model("zero-shot"), "effective_robustness", 0.2, baseline="lab"))

    (labels, cells), *others = table(records, "1b").rows

    assert (labels, others) == (("lab",), [])
    texts = [cell.text.replace("\N{NO-BREAK SPACE}", " ") for cell in cells]
    assert texts == ["0.59", "\N{MINUS SIGN}2.00", "0.980", "10", "13.0 %", "74.0 %"]


# CSV and Markdown


def test_csv_holds_the_unrounded_numbers():
    records = fake_records(pretrainings=2, directions=8)
    wanted = {
        (record.pretraining, dataset_title(record.dataset)): record
        for record in records
        if record.quantity == "accuracy" and record.role == "zero-shot"
    }

    rows = list(csv.DictReader(io.StringIO(table(records, "4").csv())))

    assert len(rows) == 14
    for row in rows:
        record = wanted[row["Pretraining"], row["Images"]]
        assert float(row["Zero-shot"]) == record.value
        assert float(row["Zero-shot low"]) == record.low
        assert float(row["Zero-shot high"]) == record.high
    assert rows[7]["Supervised"] == ""


def test_markdown_cells_cannot_break_the_table():
    cell = Cell("a|b\n<b>", small="x", note="why | not")
    one = Table("1", "T", "C", ("I",), ("A", "B"), [(["i"], [cell, Cell("c", note="else")])])

    lines = one.markdown().splitlines()

    assert lines[2:5] == [
        "| I | A | B |",
        "| :-- | --: | --: |",
        r"| i | a\|b &lt;b> (x) [1] | c [2] |",
    ]
    assert lines[6] == r"[1] why \| not"


def test_labels_span_their_rows():
    rows = [(["a", "x", "1"], [Cell("1")]), (["a", "x", "2"], [Cell("1")])]
    rows += [(["a", "y", "2"], [Cell("1")]), (["b", "y", "2"], [Cell("1")])]
    one = Table("1", "", "", ("", "", ""), ("",), rows)

    assert [spans for _, spans in one.row_spans] == [[3, 2, 1], [0, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert one.constant_labels == ()
    assert replace(one, rows=rows[:3]).constant_labels == ("a",)
    assert replace(one, rows=rows[:2]).constant_labels == ("a", "x")
    assert replace(one, rows=rows[:1]).constant_labels == ("a", "x")


def test_a_note_on_some_cells_is_marked():
    cells = [Cell("1", note="first"), Cell("2"), Cell("3", note="second"), Cell("", note="none")]
    one = Table("1", "", "", ("",), ("", "", "", ""), [([""], cells)])

    assert one.notes == (("1", "first"), ("2", "second"))
    assert [one.mark(cell) for cell in cells] == ["1", "", "2", ""]


# The page


class Page(HTMLParser):
    """What a browser would load, see and be told of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.images = 0
        self.seen: list[str] = []
        self.hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        held = {name: value or "" for name, value in attrs}
        self.hidden = tag in {"script", "style"}
        self.scripts += tag == "script"
        self.images += tag == "img"
        self.ids += [held["id"]] if "id" in held else []
        if tag == "a":
            self.links.append(held["href"])
        else:
            self.loads += [held[name] for name in ("src", "href", "data") if name in held]

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        self.hidden = False

    def handle_data(self, data: str) -> None:  # noqa: D102
        if not self.hidden:
            self.seen.append(data)

    @property
    def text(self) -> str:  # noqa: D102
        return " ".join(" ".join(self.seen).split())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    samples = {"ImageNet": PIXEL, "Sketch <b>": PIXEL}
    written = write_report(fake_records(directions=16), folder, samples=samples, title="T & T")
    assert written == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "report.html").read_text("utf-8"))


GRID = ResultsGrid.from_records(fake_records(directions=2))
EXPECTED = {exhibit.id for exhibit in EXHIBITS if exhibit.is_missed(GRID)}


def test_page_holds_every_table_and_figure(page: Page, out: Path):
    files = {path.stem for path in out.glob("*/*")}

    assert set(page.ids) >= EXPECTED
    assert files == EXPECTED
    assert "is left out" not in page.text
    assert page.images == 2


def test_page_shows_every_cell(page: Page):
    built = build_exhibits(ResultsGrid.from_records(fake_records(directions=16)), "table-")
    for one in built.values():
        for labels, cells in one.rows if isinstance(one, Table) else ():
            for text in (*labels, *(cell.text for cell in cells)):
                assert " ".join(text.split()) in page.text


def test_names_of_other_bytes_are_shown_with_a_mark(tmp_path: Path):
    one, other = (model("zero-shot", name=name, backbone=name) for name in ("caf\udce9", "b"))
    records = [measured(m, "accuracy", 0.5, dataset="imagenet") for m in (one, other)]
    records += [measured(m, "importance", 0.5, coordinate=k) for m in (one, other) for k in (0, 1)]

    page = write_report(records, tmp_path, title="caf\udce9", missing=["caf\udce9: needs"])

    assert "caf\ufffd" in Page(page.read_text("utf-8")).text
    for suffix in ("csv", "md", "tex"):
        assert "caf\ufffd" in (tmp_path / "tables" / f"table-4.{suffix}").read_text("utf-8")
    assert any("caf\ufffd" in path.read_text("utf-8") for path in tmp_path.glob("figures/*.svg"))


def test_the_page_says_what_is_done_to_images(tmp_path: Path):
    zero_shot, finetuned = (
        replace(model(role), preprocessing="resized to 32 x 32")
        for role in ("zero-shot", "finetuned")
    )
    records = [measured(m, "accuracy", 0.5, dataset="imagenet") for m in (zero_shot, finetuned)]
    same = Page(write_report(records, tmp_path).read_text("utf-8"))
    records[1] = replace(records[1], preprocessing="resized to 64 x 64")
    mixed = Page(write_report(records, tmp_path).read_text("utf-8"))

    assert "Preprocessing. Of each image: resized to 32 x 32." in same.text
    assert "differ in preprocessing" not in same.text
    assert "The models of RN50 · Web differ in preprocessing" in mixed.text
    for one, side in ((zero_shot, 32), (finetuned, 64)):
        assert f"For {one.model}: resized to {side} x {side}." in mixed.text


def test_page_without_preprocessing(page: Page):
    assert "Preprocessing." not in page.text


def test_page_loads_nothing(page: Page):
    assert {load.partition(",")[0] for load in page.loads} == {"data:", "data:image/png;base64"}
    assert all(link.startswith(("#", "https://arxiv.org/")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_page_forbids_itself_the_network(out: Path):
    assert "default-src 'none';" in (out / "report.html").read_text("utf-8")


def test_bundle_stands_in_the_page_once(out: Path):
    text = (out / "report.html").read_text("utf-8")

    assert len(text) < 1.6e6
    assert text.count("</script>") == 2


def test_files_are_well_formed(out: Path):
    for path in out.glob("figures/*.svg"):
        assert xml(path)[0].tag.endswith("svg")
    for path in out.glob("tables/*.csv"):
        rows = csv.reader(path.read_text("utf-8").splitlines())
        assert len({len(row) for row in rows}) == 1


def test_nothing_else_is_left_in_the_folder(out: Path):
    assert {path.name for path in out.iterdir()} == {"report.html", "tables", "figures"}
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_hostile_names_stay_text(tmp_path: Path):
    records = [
        replace(record, model=record.model + HOSTILE, backbone=HOSTILE, item=HOSTILE, note=HOSTILE)
        for record in fake_records(directions=4)
    ]

    text = write_report(records, tmp_path, samples={HOSTILE: PIXEL}, title=HOSTILE).read_text(
        "utf-8"
    )

    assert Page(text).scripts == 2
    assert HOSTILE in Page(text).text
    assert "<script>alert" not in text
    for path in tmp_path.glob("figures/*.svg"):
        assert not [node for node in xml(path) if "script" in node.tag]


def test_control_characters_in_names_are_marked(tmp_path: Path):
    """As a figure in SVG can hold none."""
    name = "a\x1b[31mb"
    records = [
        replace(record, model=record.model + name, backbone=name)
        for record in fake_records(directions=4)
        if record.quantity in {"accuracy", "effective_robustness", "importance"}
    ]

    text = write_report(records, tmp_path).read_text("utf-8")

    assert "a\ufffd[31mb" in text
    assert [*tmp_path.glob("figures/*.svg")]
    assert "\x1b" not in text


def test_caution_of_the_lab_comes_first(tmp_path: Path):
    lab = measured(model("zero-shot", name="lab:zero-shot"), "polysemanticity", 1.0)

    text = Page(write_report([lab], tmp_path).read_text("utf-8")).text

    assert "It says nothing about CLIP." in text
    assert text.index("nothing about CLIP") < text.index("Take-away 1")
    assert "rest on 1 model, none trained more than once" in text


# What was not measured

NEEDS = {
    "accuracy": {"table-4", "fig-01"},
    "effective_robustness": {"table-1", "table-1b"},
    "activation_kurtosis": {"table-2"},
    "importance": {"fig-02"},
    "outlier_share outlier_energy": {"table-2c"},
    "controls of unique_concepts": {"table-3b", "fig-04c"},
    "controls of polysemanticity": {"table-6b"},
    "pruned_accuracy pruned_effective_robustness": {"fig-03"},
    "unique_concepts": {"table-3", "table-3b", "table-7", "fig-04c"},
    "best_average_precision": {"fig-04", "fig-04b"},
    "top_concept": {"table-5"},
    "polysemanticity": {"table-6", "table-6b"},
}


def without(quantities: str) -> list[Record]:
    """Return records without some quantities, or without the controls of one."""
    has_prefix = quantities.startswith("controls of ")
    names = quantities.removeprefix("controls of ").split()
    return [
        record
        for record in fake_records(directions=4)
        if record.quantity not in names
        or (has_prefix and all(getattr(record, k) == v for k, v in PAPER_COUNT.items()))
    ]


@pytest.mark.parametrize("quantities", NEEDS)
def test_what_was_not_measured_is_left_out(quantities: str):
    grid = ResultsGrid.from_records(without(quantities))

    assert {*build_exhibits(grid)} == EXPECTED - NEEDS[quantities]


def test_page_says_what_is_left_out(tmp_path: Path):
    write_report(fake_records(directions=4), tmp_path)
    gone = ["activation_kurtosis", "importance", "best_average_precision", "top_concept"]
    missing = set().union(*(NEEDS[quantity] for quantity in gone))

    page = Page(write_report(without(" ".join(gone)), tmp_path).read_text("utf-8"))

    assert EXPECTED - missing <= set(page.ids)
    assert not missing & set(page.ids)
    assert not missing & {path.stem for path in tmp_path.glob("*/*")}
    assert page.text.count("is left out: ") == len(missing)
    assert "Table 2 is left out: activation kurtosis was not measured." in page.text
    assert "Figure 4b is left out: the average precision of each concept was not" in page.text
    needs = "that needs the activation kurtosis of a zero-shot, a finetuned and"
    assert f"It cannot be judged here: {needs}" in page.text


def test_nothing_but_one_number(tmp_path: Path):
    one = measured(model("zero-shot"), "polysemanticity", 3.25, basis="singular")

    page = Page(write_report([one], tmp_path).read_text("utf-8"))

    assert [path.name for path in tmp_path.glob("figures/*")] == []
    assert "3.25" in page.text


def test_a_users_own_files_stay(tmp_path: Path):
    (tmp_path / "figures").mkdir()
    mine = tmp_path / "figures" / "mine.svg"
    mine.write_text("<svg/>")

    write_report(fake_records(directions=4), tmp_path)

    assert mine.read_text() == "<svg/>"


# Refusals


@pytest.mark.parametrize("records", [[], [fake_records(directions=4)[0]]])
def test_no_model(records: list[Record], tmp_path: Path):
    with pytest.raises(ValueError, match=r"No model among \d records: run the study first"):
        write_report(records, tmp_path)


@pytest.mark.parametrize("field", ["value", "low", "high", "coordinate"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_must_be_finite(field: str, number: float, tmp_path: Path):
    good = measured(model("zero-shot"), "polysemanticity", 1.0)
    bad = replace(good, **{field: number})

    with pytest.raises(ValueError, match="polysemanticity for 'RN50/Web/zero-shot' holds"):
        write_report([bad], tmp_path)
    assert not list(tmp_path.iterdir())


# Plug-ins


def test_quantities_of_plugins_have_a_table_of_their_own():
    zero_shot = measured(model("zero-shot"), "package:sharpness", 0.25)
    finetuned = measured(model("finetuned"), "package:sharpness", 0.5)
    records = [
        replace(zero_shot, dataset="imagenet", low=0.2, high=0.3),
        replace(zero_shot, dataset="shifts", value=0.125),
        replace(finetuned, dataset="imagenet"),
    ]

    one = table(records, "P1")

    assert [row[2:] for row in shown(one)] == [
        ["package:sharpness, ImageNet", "0.25", "0.50"],
        ["package:sharpness, Mean of the shifts", "0.12", ""],
    ]
    assert one.rows[0][1][0].small == "0.20 to 0.30"
    assert "table-P1" not in build_exhibits(GRID)
