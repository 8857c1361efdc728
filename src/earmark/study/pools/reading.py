"""A pool from its file: everything that is wrong with it is told at once."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from .schema import Cka, Control, Family, Overrides, Pool, Supervised

POOLS = ("paper-v1", "paper-v1-fixed", "lab")
"""The pools that ship with earmark."""

_TABLES: Mapping[str, type[BaseModel]] = {
    "cka": Cka,
    "finetune": Overrides,
    "train": Overrides,
    "family": Family,
    "supervised": Supervised,
    "control": Control,
}
_LISTS = ("family", "supervised", "control")


def read_pool(name: str | Path, *, base: Path | None = None) -> Pool:
    """Read a pool, and say all that is wrong with what its file says.

    Where its file is at fault, the models that it names are asked for too, so that all is
    told together; where it is not, that is for `pool_problems`.

    Args:
        name: One of `POOLS`, or the path of a TOML file of the same shape.
        base: The folder that relative paths of a shipped pool start from: the study's. In
            any other file they start from where the file is.

    Returns:
        The pool.

    Raises:
        ValueError: If there is no such pool, or its file is not TOML or not a pool's; the
            message names every problem.

    Example:
        >>> pool = read_pool("paper-v1")
        >>> len(pool.families), pool.families[0].zero_shot
        (12, 'RN50-quickgelu,openai')
    """
    shipped = str(name) in POOLS
    document = _document(pool_text(name), str(name))
    folder = (base or Path()) if shipped else Path(name).parent
    if problems := [*_unknown_base(document), *_invalid(document), *_conflicts(document)]:
        from .checking import pool_problems

        problems += pool_problems(_readable(document, folder))
        listed = "".join(f"\n- {problem}" for problem in problems)
        things = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ValueError(f"The pool {name} has {things}:{listed}")
    return Pool.model_validate({"name": Path(name).stem, **document, "base": folder})


def pool_text(name: str | Path) -> str:
    """The file of a pool as it is, to copy and change.

    Args:
        name: As for `read_pool`.

    Returns:
        TOML.

    Raises:
        ValueError: If there is no such pool, or its file cannot be read.
    """
    shipped = str(name) in POOLS
    path = Path(__file__).parent / f"{name}.toml" if shipped else Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not TOML: it is not UTF-8 text ({error}).") from error
    except OSError as error:
        near = get_close_matches(str(name), POOLS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{', '.join(POOLS)} ship."
        raise ValueError(
            f"No pool {str(name)!r}, nor a file of that name that can be read "
            f"({error.strerror}): {hint}"
        ) from error


def pool_toml(pool: Pool) -> str:
    """A pool as TOML that `read_pool` reads to an equal one, but for its ``base``.

    Args:
        pool: The pool.

    Returns:
        TOML, without what is as by default.
    """
    said = pool.model_dump(by_alias=True, exclude_defaults=True)
    tables = {key: said.pop(key) for key in _TABLES if key in said}
    blocks = [_lines(said)]
    for key, table in tables.items():
        heading = f"[[{key}]]" if key in _LISTS else f"[{key}]"
        entries = table if key in _LISTS else [table]
        blocks += [f"{heading}\n{_lines(entry)}" for entry in entries]
    return "\n".join(blocks)


def _lines(entry: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_written(value)}\n" for key, value in entry.items())


def _written(value: Any) -> str:
    """JSON's notation, which TOML shares but for a control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _document(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not TOML: {error}.") from error


def _readable(document: Mapping[str, Any], base: Path) -> Pool:
    """The models that a faulty file names, to be asked for all the same."""
    fields = {"family": "families", "supervised": "supervised", "control": "controls"}
    entries: dict[str, Any] = {
        field: tuple(_named(entry, _TABLES[key]) for entry in _entries(document, key))
        for key, field in fields.items()
    }
    return Pool.model_construct(base=base, **entries)


def _named(entry: Mapping[str, Any], table: type[BaseModel]) -> BaseModel:
    """An entry's texts, whatever else is wrong with it."""
    texts: dict[str, Any] = {
        name: value if isinstance(value := entry.get(name), str) else ""
        for name in table.model_fields
        if name != "finetune"
    }
    return table.model_construct(**texts)


def _unknown_base(document: Mapping[str, Any]) -> Iterator[str]:
    if "base" in document:
        yield "unknown key 'base': relative paths start from the folder of the file"


def _invalid(document: Mapping[str, Any]) -> Iterator[str]:
    """What the schema says of each value that it does not take."""
    try:
        Pool.model_validate({"name": "unnamed", **document, "base": Path()})
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            if error["type"] == "too_short" and error["input"]:
                continue  # each of the entries that are missing here is told on its own
            yield _told(error["loc"], error)


def _told(where: tuple[int | str, ...], error: Mapping[str, Any]) -> str:
    *places, last = where
    match error["type"]:
        case "extra_forbidden":
            table = _TABLES.get(str(places[0])) if places else Pool
            return f"{_place(places)}unknown key {last!r}{_nearest(str(last), table)}"
        case "missing":
            return f"{_place(places)}{last} is missing"
        case "value_error":
            return f"{_place(where)}{error['ctx']['error']}"
        case _:
            said = error["msg"].replace("Input", "it", 1)
            return f"{_place(where)}{said}, got {error['input']!r}"


def _place(where: Sequence[int | str]) -> str:
    """Where in the file, counting from 1 as people do."""
    words = [f"{part + 1}" if isinstance(part, int) else part for part in where]
    return f"{' '.join(words)}: " if words else ""


def _nearest(key: str, table: type[BaseModel] | None) -> str:
    fields = table.model_fields if table else {}
    known = [field.alias or name for name, field in fields.items() if name != "base"]
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}" if near else f"known are {', '.join(known)}"
    return f" ({hint})" if known else ""


def _conflicts(document: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit together, told of all entries that can be read."""
    families, supervised, controls = (_entries(document, key) for key in _LISTS)
    pairs = [_texts(family, "backbone", "pretraining") for family in families]
    for pair in _repeated(pairs, 2):
        yield f"family: {', '.join(pair)} is there more than once"
    for (backbone,) in _repeated([_texts(one, "backbone") for one in supervised], 1):
        yield f"supervised: {backbone} is there more than once"
    names = [_texts(family, key) for family in families for key in _FAMILY_MODELS]
    names += [_texts(one, "model") for one in (*supervised, *controls)]
    for (model,) in _repeated(names, 1):
        yield f"the model {model} is there more than once, but has one part in a pool"
    known = {pair[0] for pair in pairs if len(pair) == 2}
    for backbone in (text for one in supervised for text in _texts(one, "backbone")):
        if backbone not in known:
            yield f"supervised: no family has the backbone {backbone!r}"
    yield from _unordered(document)


_FAMILY_MODELS = ("zero_shot", "finetuned")


def _entries(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = document.get(key)
    known: Iterable[Any] = entries if isinstance(entries, list) else ()
    return [entry for entry in known if isinstance(entry, dict)]


def _texts(entry: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    return tuple(value for key in keys if isinstance(value := entry.get(key), str))


def _repeated(found: Sequence[tuple[str, ...]], whole: int) -> list[tuple[str, ...]]:
    times = Counter(texts for texts in found if len(texts) == whole)
    return [texts for texts, count in times.items() if count > 1]


def _unordered(document: Mapping[str, Any]) -> Iterator[str]:
    alphas = document.get("alphas")
    known: Iterable[Any] = alphas if isinstance(alphas, list) else ()
    numbers = [alpha for alpha in known if isinstance(alpha, int | float)]
    if any(second <= first for first, second in pairwise(numbers)):
        yield f"alphas: {numbers} do not ascend"
