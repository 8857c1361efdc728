"""The report: a single HTML page that needs no network, and its exhibits as files."""

import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..._io import atomic_write
from ..._text import replace_surrogates
from ...records import Record, with_valid_text
from ...statistics.rank_correlation import MIN_MODELS_CI
from ..audit.audit import audit, collect_audited_models
from ..audit.tables import audit_tables
from ..audit.text import audit_sentences
from ..claims.claims import findings
from ..results_grid import ResultsGrid
from ..tables.latex import to_latex
from ..tables.table import Table
from ..verdicts import RULE
from .preprocessing import preprocessing_caution, preprocessing_sentences

if TYPE_CHECKING:
    from ..exhibits import Built

TEMPLATE_FOLDER = Path(__file__).parent / "template"


def write_report(
    records: Sequence[Record],
    out: Path,
    *,
    samples: Mapping[str, bytes] | None = None,
    title: str = "Robustness signatures",
    missing: Sequence[str] = (),
) -> Path:
    """Write tables, figures and a page with a verdict on each claim; return the page's path.

    The records are those of a study, ``samples`` sheets of sample images as PNG by title,
    and ``missing`` sentences on what could not be measured. Tables and figures of an earlier
    report are deleted where the records lack their numbers. A ValueError says that no model
    has a record, or that a number is not finite.
    """
    from ..exhibits import build_exhibits

    _check_finite(records)
    grid = ResultsGrid.from_records(with_valid_text(records))
    text = _page_text(grid, title, missing)
    exhibits = build_exhibits(grid)
    contents: dict[str, bytes] = {}
    for exhibit in (*exhibits.values(), *text.audit_tables):
        contents |= _exhibit_files(exhibit)
    page = _render_page(grid, exhibits, samples or {}, text)
    contents["report.html"] = replace_surrogates(page).encode()
    for name, content in contents.items():
        with atomic_write(out / name) as tmp_path:
            tmp_path.write_bytes(content)
    _delete_older(out, {out / name for name in contents})
    return out / "report.html"


@dataclass(frozen=True)
class PageText:
    """Text of the page besides tables, figures and findings."""

    title: str
    missing: Sequence[str]  # what could not be measured, and why
    audit: Mapping[str, Sequence[str]]  # sentences by heading
    audit_tables: Sequence[Table]  # none where no role has enough models


def _page_text(grid: ResultsGrid, title: str, missing: Sequence[str]) -> PageText:
    if not collect_audited_models(grid):  # none has an effective robustness
        return PageText(title, missing, {}, ())
    result = audit(grid)
    largest = max(len(result.models_in_role(role)) for role in result.roles)
    tables = audit_tables(result) if largest >= MIN_MODELS_CI else ()
    return PageText(title, missing, audit_sentences(result), tables)


def _check_finite(records: Sequence[Record]) -> None:
    for record in records:
        for number in (record.value, record.low, record.high, record.coordinate):
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"A record of {record.quantity} for {record.model!r} holds {number}: "
                    "measure it again, or leave it out."
                )


def _exhibit_files(exhibit: "Built") -> dict[str, bytes]:
    """Return the content of a table's or a figure's files by their names."""
    if isinstance(exhibit, Table):
        stem = f"tables/{exhibit.name}"
        texts = {"csv": exhibit.csv(), "md": exhibit.markdown(), "tex": to_latex(exhibit)}
        return {f"{stem}.{suffix}": text.encode() for suffix, text in texts.items()}
    stem = f"figures/{exhibit.name}"
    return {f"{stem}.svg": exhibit.svg().encode(), f"{stem}.pdf": exhibit.pdf()}


def _delete_older(out: Path, written: set[Path]) -> None:
    tables = (f"tables/table-*.{suffix}" for suffix in ("csv", "md", "tex"))
    figures = (f"figures/fig-*.{suffix}" for suffix in ("svg", "pdf"))
    for pattern in (*tables, *figures):
        for path in {*out.glob(pattern)} - written:
            path.unlink()


@cache
def _bundle_script() -> str:
    """Return the page's script with the libraries that it needs."""
    import vl_convert

    return vl_convert.javascript_bundle((TEMPLATE_FOLDER / "page.js").read_text("utf-8"))


def _render_page(
    grid: ResultsGrid, exhibits: "Mapping[str, Built]", samples: Mapping[str, bytes], text: PageText
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from ..exhibits import EXHIBITS, page_sections
    from ..figures.theme import DARK, LIGHT

    templates = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_nonbreaking,
    )
    script = _bundle_script()
    by_claim = {finding.claim.key: finding for finding in findings(grid)}
    specs = {id_: figure.spec for id_, figure in exhibits.items() if not isinstance(figure, Table)}
    return templates.get_template("page.html").render(
        text=text,
        cautions=_cautions(grid),
        rule=RULE,
        preprocessing=preprocessing_sentences(grid),
        sections=page_sections(grid, exhibits, by_claim),
        exhibits=exhibits,
        missed={exhibit.id for exhibit in EXHIBITS if exhibit.is_missed(grid)},
        findings=by_claim,
        samples={name: b64encode(png).decode() for name, png in samples.items()},
        data=to_inline_json({"figures": specs, "light": LIGHT, "dark": DARK}),
        style=(TEMPLATE_FOLDER / "page.css").read_text("utf-8"),
        script=script.replace("</script", r"<\/script"),
    )


_LAB_CAUTION = (
    "These are models of the lab: small networks on a generated world. The lab tests the "
    "whole method with real training and real shifts. It says nothing about CLIP. Its "
    "zero-shot model learned from captioned images of every color, scene and style, so the "
    "shifts are not new to it. Its other models learned labels from photos, most of them "
    "with the usual colors and scenes of their class. ImageNet-V2 loosens these "
    "correlations, ObjectNet removes them, ImageNet-R and ImageNet-Sketch change the "
    "style, and ImageNet-A has images that a small network misclassified."
)


def _cautions(grid: ResultsGrid) -> list[str]:
    """Return the limits of the page."""
    models = [model for _, _, model in grid.models()]
    cautions: list[str] = []
    if grid.id_dataset:
        cautions.append(
            f"The in-distribution images are “{grid.id_title}”. The paper's claims and numbers are "
            "of ImageNet."
        )
    if any(model.startswith("lab:") for model in models):
        cautions.append(_LAB_CAUTION)
    if caution := preprocessing_caution(grid):
        cautions.append(caution)
    number = f"{len(models)} model{'s' * (len(models) > 1)}"
    once = ", none trained more than once" * (len(grid.rows) == 1)
    cautions.append(
        f"The verdicts rest on {number}{once}. Intervals cover the choice of images, not the "
        "variation between training runs: another seed could change a verdict. “Reproduced” means "
        "that these models show the claim, “not reproduced” that they do not. Neither settles it "
        "for other models."
    )
    return cautions


def _nonbreaking(value: object) -> object:
    """Keep numbers and their percent signs on one line."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def to_inline_json(data: object) -> str:
    """Return JSON that cannot end the script element around it."""
    return json.dumps(data, allow_nan=False).replace("<", r"\u003c")
