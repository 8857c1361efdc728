"""An audit as files and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ..files import replacing
from .audit import Audit, Line
from .audit_sentences import audit_sentences
from .audit_tables import audit_tables
from .audit_verdicts import RULE
from .latex import latex


def write_audit(found: Audit, out: Path) -> list[Path]:
    """Write an audit: sentences and tables as Markdown, the tables as CSV and LaTeX.

    Args:
        found: The audit.
        out: The folder; it is made if need be.

    Returns:
        The files: ``audit.md``, ``audit.csv``, ``audit-left-out.csv`` and ``audit.tex``.

    Raises:
        OSError: If the folder cannot be written to.
    """
    correlations, errors = audit_tables(found)
    said = [
        f"## {heading}\n\n" + "\n".join(f"- {text}" for text in texts) + "\n"
        for heading, texts in audit_sentences(found).items()
    ]
    texts = {
        "audit.md": "\n".join([
            "# Audit\n", correlations.markdown(), errors.markdown(), *said
        ]),
        "audit.csv": correlations.csv(),
        "audit-left-out.csv": errors.csv(),
        "audit.tex": latex(correlations) + "\n" + latex(errors),
    }  # fmt: skip
    for name, text in texts.items():
        with replacing(out / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def audit_json(found: Audit) -> dict[str, object]:
    """An audit as what JSON can hold.

    Args:
        found: The audit.

    Returns:
        Models, correlations, errors, sentences and the rule of the verdicts; effective
        robustness, accuracies and errors are fractions.
    """
    return {
        "line": found.line,
        "models": [
            asdict(one) | {"signatures": dict(one.signatures)} for one in found.models
        ],
        "correlations": [_line(line) for line in found.lines],
        "left_out": [
            {"role": role, "left_out": out, "from": name, **asdict(one)}
            for (role, out), errors in found.errors.items()
            for name, one in errors.items()
        ],
        "sentences": audit_sentences(found),
        "rule": RULE,
    }


def _line(line: Line) -> Mapping[str, object]:
    alone, given = line.adjusted
    return {
        "signature": line.signature.key,
        "role": line.role,
        **asdict(line.found),
        "spearman_with_accuracy": asdict(line.follows) if line.follows else None,
        "holm_p": alone,
        "holm_p_given": given,
        "verdict": line.verdict,
        "against": list(line.why),
    }
