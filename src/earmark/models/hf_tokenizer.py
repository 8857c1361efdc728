"""Bounds of a ``tokenizer.json``, whose steps could take any time or memory for a short text."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import ceil, prod
from pathlib import Path
from typing import Any, cast

from .._io import read_json
from .._text import quote

_STEPS: Mapping[str, frozenset[str]] = {
    "normalizer": frozenset({
        *("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "Strip", "StripAccents", "Prepend"),
        *("BertNormalizer", "ByteLevel", "Precompiled", "Replace", "Sequence"),
    }),
    "pre_tokenizer": frozenset({
        *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Sequence"),
        *("Punctuation", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
    }),
    "model": frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"}),
    "post_processor": frozenset({
        *("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing")
    }),
    "decoder": frozenset({
        *("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence"),
        *("Strip", "WordPiece"),
    }),
}
"""Types of steps that are known, by the entry of ``tokenizer.json``."""

_PARTS = ("normalizers", "pretokenizers", "processors", "decoders")  # of a Sequence
_MAX_STEPS, _MAX_DEPTH = 64, 4
_MAX_GROWTH = 64  # of a text's length, by all replacements together
_MAX_CHARSMAP = 2_000_000  # characters; those of XLM-RoBERTa are 316,720
_MAX_TOKENS = 65_536  # of a text, with its padding
_MAX_PATTERN, _MAX_ALTERNATIVES = 1_000, 100

# Pieces of a regular expression. What is none of them, such as a reference to a group, is refused.
_PIECE = re.compile(
    r"(?P<escape>\\[pP]\{\^?\w+\}|\\x\{?[0-9A-Fa-f]+\}?|\\u[0-9A-Fa-f]{4}|\\[^0-9kgKGRXyYxpPuc])"
    r"|(?P<set>\[\^?\]?(?:\\[^0-9kgKG]|\[:\^?\w+:\]|[^\\\[\]])*\])"
    r"|(?P<open>\((?:\?(?:i?:|[=!]))?(?!\?))"
    r"|(?P<close>\))"
    r"|(?P<repeat>[*+]|\{\d{1,3}(?:,\d{0,3})?\})"
    r"|(?P<optional>\?)"
    r"|(?P<alternative>\|)"
    r"|(?P<character>[^\\\[\](){}*+?|])",
    re.DOTALL,
)


def check_tokenizer_json(path: Path) -> None:
    """Raise a ValueError if a ``tokenizer.json`` has unknown steps, or any without a bound."""
    content = read_json(path)
    if problem := _find_problem(content):
        raise ValueError(f"{path} {problem}: give another tokenizer.")


def _find_problem(content: object) -> str:
    if not isinstance(content, dict):
        return "is no JSON object"
    entries = cast("dict[str, Any]", content)
    for entry, known in _STEPS.items():
        steps = [*_iter_steps(entries.get(entry))]
        for step in steps:
            kind = step.get("type", "BPE" if entry == "model" else None)  # old files name none
            if not (isinstance(kind, str) and kind in known):
                return f"has the {entry} {quote(str(kind))}, which earmark does not know"
        if len(steps) > _MAX_STEPS:
            return f"has more than {_MAX_STEPS} steps as its {entry}, or nests them too deep"
        if entry != "model" and (problem := _find_step_problem(steps)):
            return problem
    return _find_length_problem(entries)


def _iter_steps(step: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield a step and those of a Sequence; too many if they are nested too deep."""
    if step is None:
        return
    if not isinstance(step, dict):
        yield {"type": type(step).__name__}
        return
    entries = cast("dict[str, Any]", step)
    yield entries
    for key in _PARTS:
        parts = entries.get(key)
        for part in cast("list[Any]", parts) if isinstance(parts, list) else ():
            if depth >= _MAX_DEPTH:
                yield from [entries] * _MAX_STEPS
                return
            yield from _iter_steps(part, depth + 1)


def _find_step_problem(steps: list[Mapping[str, Any]]) -> str:
    for step in steps:
        pattern = step.get("pattern")
        expression = cast("Any", pattern).get("Regex") if isinstance(pattern, dict) else None
        if expression is not None and (problem := find_pattern_problem(str(expression))):
            return f"has the pattern {quote(str(expression))}, which {problem}"
    charsmaps = [len(str(s.get("precompiled_charsmap"))) for s in steps if _is(s, "Precompiled")]
    if len(charsmaps) > 1 or sum(charsmaps) > _MAX_CHARSMAP:
        return "has several or too large tables of characters"
    growth = prod(_growth(step) for step in steps) * (8 if charsmaps else 1)
    if growth > _MAX_GROWTH:
        return f"makes a text {growth:,} times as long by its replacements"
    return ""


def _is(step: Mapping[str, Any], kind: str) -> bool:
    return step.get("type") == kind


def _growth(step: Mapping[str, Any]) -> int:
    """Return how many times as long a step can make a text."""
    if _is(step, "Prepend"):
        return 1 + len(str(step.get("prepend")))
    if not _is(step, "Replace"):
        return 1
    content, pattern = len(str(step.get("content"))), step.get("pattern")
    text = cast("Any", pattern).get("String") if isinstance(pattern, dict) else None
    return max(1, ceil(content / len(text))) if isinstance(text, str) and text else 1 + content


def _find_length_problem(entries: Mapping[str, Any]) -> str:
    """Return why a text could become too many tokens, or ""."""
    numbers: list[Any] = []
    for key in ("padding", "truncation"):
        options = entries.get(key)
        values: list[Any] = [*cast("Any", options).values()] if isinstance(options, dict) else []
        for value in values:
            numbers += [*cast("Any", value).values()] if isinstance(value, dict) else [value]
    if any(isinstance(number, int | float) and number > _MAX_TOKENS for number in numbers):
        return f"pads texts to more than {_MAX_TOKENS:,} tokens"
    for step in _iter_steps(entries.get("post_processor")):
        templates = [step.get("single"), step.get("pair"), step.get("special_tokens")]
        if any(len(f"{template}") > _MAX_TOKENS for template in templates):
            return "has a template of too many tokens"
    return ""


def find_pattern_problem(pattern: str) -> str:
    r"""Return why a regular expression could take very long on a short text, or "".

    >>> find_pattern_problem(r"'s|[\p{L}]+| ?[^\s\p{L}]+[\r\n]*"), find_pattern_problem("(a+)+;")
    ('', 'repeats what may repeat')
    """
    if len(pattern) > _MAX_PATTERN:
        return f"has more than {_MAX_PATTERN} characters"
    pieces = [*_PIECE.finditer(pattern)]
    if sum(len(piece[0]) for piece in pieces) < len(pattern):
        return "has parts that earmark does not know"
    kinds = [str(piece.lastgroup) for piece in pieces]
    repeated = {before for before, kind in pairwise(kinds) if kind == "repeat"}
    alternatives = " ".join(kinds).split("alternative")
    if len(alternatives) > _MAX_ALTERNATIVES:
        return "has too many alternatives"
    # an option after a repetition makes it lazy
    if any(part.count("repeat") > 2 or part.count("optional") > 4 for part in alternatives):
        return "has too many repetitions in a row"
    return "repeats what may repeat" if repeated & {"close", "repeat", "optional"} else ""
