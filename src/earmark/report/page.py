"""One page of everything: a single HTML file that needs no network."""

import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import replacing
from ..results import Record
from ..signatures.association import FEWEST
from .audit import Audit, audit
from .audit_numbers import measured
from .audit_sentences import audit_sentences
from .audit_tables import audit_tables
from .findings import findings
from .latex import latex
from .palette import DARK, LIGHT
from .pool import Pool
from .sections import sections
from .table import Table
from .tables import tables
from .verdicts import RULE

if TYPE_CHECKING:
    from .figures import Figure

TEMPLATE = Path(__file__).parent / "template"


def write_report(
    records: Sequence[Record],
    out: Path,
    *,
    samples: Mapping[str, bytes] | None = None,
    title: str = "What the signatures of robustness show",
    lacks: Sequence[str] = (),
) -> Path:
    """Write the paper's tables and figures, and a page that judges its claims by them.

    Makes ``report.html``, ``tables/table-1.csv``, ``.md`` and ``.tex``,
    ``figures/fig-01.svg`` and ``.pdf``, and their like; each file is written aside and
    then renamed. Tables and figures of an earlier report are removed where the records no
    longer hold their numbers.

    Args:
        records: All that a study measured.
        out: The folder; it is made if need be.
        samples: For each title a sheet of sample images, as PNG.
        title: The page's heading.
        lacks: What could not be measured, and why: a sentence each.

    Returns:
        Where the page is.

    Raises:
        ValueError: If no model has a record, or a number is not finite.
        OSError: If the folder cannot be written to.
    """
    from .figures import figures

    _check_finite(records)
    pool = Pool.of(records)
    audited = _audited(pool)
    of_audit = audit_tables(audited) if audited and _enough(audited) else []
    made, drawn = [*tables(pool), *of_audit], figures(pool)
    files = {f"tables/{table.name}.csv": table.csv() for table in made}
    files |= {f"tables/{table.name}.md": table.markdown() for table in made}
    files |= {f"tables/{table.name}.tex": latex(table) for table in made}
    files |= {f"figures/{figure.name}.svg": figure.svg() for figure in drawn}
    words = Words(title, lacks, audit_sentences(audited) if audited else {}, of_audit)
    files["report.html"] = _page(pool, made, drawn, samples or {}, words)
    contents = {name: text.encode() for name, text in files.items()}
    contents |= {f"figures/{figure.name}.pdf": figure.pdf() for figure in drawn}
    for name, content in contents.items():
        with replacing(out / name) as aside:
            aside.write_bytes(content)
    _remove_older(out, {out / name for name in contents})
    return out / "report.html"


@dataclass(frozen=True)
class Words:
    """What the page says besides tables, figures and findings.

    Attributes:
        title: Its heading.
        lacks: What could not be measured, and why: a sentence each.
        audit: For each heading of the audit its sentences.
        of_audit: The audit's tables; none where no role has models enough.
    """

    title: str
    lacks: Sequence[str]
    audit: Mapping[str, Sequence[str]]
    of_audit: Sequence[Table]


def _audited(pool: Pool) -> Audit | None:
    """The audit of a pool whose models' effective robustness was measured."""
    return audit(pool) if measured(pool) else None


def _enough(audited: Audit) -> bool:
    """Whether a role has as many models as a correlation needs an interval of."""
    return any(len(audited.of(role)) >= FEWEST for role in audited.roles)


def _check_finite(records: Sequence[Record]) -> None:
    for record in records:
        for number in (record.value, record.low, record.high, record.x):
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"A record of {record.quantity} for {record.model!r} holds {number}; "
                    "measure it again or leave it out."
                )


def _remove_older(out: Path, written: set[Path]) -> None:
    for kind in (
        *(f"tables/table-*.{end}" for end in ("csv", "md", "tex")),
        *(f"figures/fig-*.{end}" for end in ("svg", "pdf")),
    ):
        for path in {*out.glob(kind)} - written:
            path.unlink()


def _page(
    pool: Pool,
    made: Sequence[Table],
    drawn: "Sequence[Figure]",
    samples: Mapping[str, bytes],
    words: Words,
) -> str:
    import vl_convert
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_bound,
    )
    script = vl_convert.javascript_bundle((TEMPLATE / "page.js").read_text("utf-8"))
    exhibits = {exhibit.name: exhibit for exhibit in (*made, *drawn)}
    found = {finding.claim.key: finding for finding in findings(pool)}
    specs = {figure.name: figure.spec for figure in drawn}
    return templates.get_template("page.html").render(
        words=words,
        cautions=_cautions(pool),
        rule=RULE,
        sections=sections(pool, exhibits, found),
        exhibits=exhibits,
        findings=found,
        samples={name: b64encode(png).decode() for name, png in samples.items()},
        data=_inlined({"figures": specs, "light": LIGHT, "dark": DARK}),
        style=(TEMPLATE / "page.css").read_text("utf-8"),
        script=script.replace("</script", r"<\/script"),
    )


def _cautions(pool: Pool) -> list[str]:
    """What nobody should read into the page; of the lab's models, that first."""
    models = [model for _, _, model in pool.models()]
    lab = (
        "These models were made and measured in the lab, a small generated world. It is "
        "the place where every part of the method meets real training and real shifts. "
        "It is no proof about CLIP. The zero-shot tower learned from captioned images of "
        "every colour, scene and style, so that the shifts are no news to it; the others "
        "learned labels from photos, most of them in their class's usual colours and "
        "scenes. V2 loosens those habits, ObjectNet drops them, R and Sketch change the "
        "style, and A holds what a small network got wrong."
    )
    once = ", none trained more than once" * (len(pool.rows) == 1)
    few = (
        f"The claims are judged by {len(models)} model{'s' * (len(models) > 1)}{once}. "
        "The intervals say how a number could move with other images, not with another "
        "training run: another seed could change a verdict. "
        "“Seen” says that these models show it, “not seen” that they do not; neither "
        "settles the claim for other models."
    )
    own = (
        f"“ImageNet” stands on this page for the in-distribution images of this study, "
        f"“{pool.own}”."
    )
    of_lab = any(model.startswith("lab:") for model in models)
    return [*([own] if pool.own else []), *([lab] if of_lab else []), few]


def _bound(value: object) -> object:
    """Text whose numbers stay with their percent signs when a line breaks."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def _inlined(data: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(data, allow_nan=False).replace("<", r"\u003c")
