"""Configuration of a study: its schema, and its TOML file."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Lt
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from .._io import read_bytes
from .._text import quote, shorten
from ..models.model_id import parse_model_id
from ..training.recipes import Decay

BUILTIN_POOLS = ("paper-v1", "paper-v1-fixed", "paper-v2", "lab")
BASELINE_ROLES = ("zero-shot", "finetuned", "supervised")
"""Roles that stand for all models of the pool in it, in the list of a baseline's models."""

FigureGroup = Literal["main", "large", "small"]
Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Ge(1)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
_MAX_BYTES = 2**18  # of a file; that of the paper's pool has 14,000
_MAX_PROBLEMS = 50  # that are listed
# tomllib takes a time that is quadratic in the parts of a name
_LONG_NAME = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++\s*+\.\s*+){32}""")
TOML_ARRAY = Field(strict=False)  # strict pydantic takes no list for a tuple
_Item = TypeVar("_Item")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Cka(_Table):
    """Layer-wise comparison of a finetuned model with its zero-shot model."""

    layers: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]  # name patterns
    sample: Annotated[int, Ge(4)] = 2000  # images of each dataset
    batch_size: Annotated[int, Ge(4)] = 64


class Overrides(_Table):
    """Changes to the paper's training recipe; None keeps the paper's value."""

    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Annotated[float, Gt(0)] | None = None
    weight_decay: Annotated[float, Ge(0)] | None = None
    decay: Decay | None = None
    clip: Annotated[float, Gt(0)] | None = None
    warmup: Annotated[int, Ge(0)] | None = None  # steps
    milestones: Annotated[tuple[Count, ...] | None, TOML_ARRAY] = None  # epochs
    label_smoothing: Annotated[float, Ge(0), Lt(1)] | None = None
    seed: Annotated[int, Ge(0)] | None = None
    micro_batch: Count | None = None  # images on a device at a time
    precision: Literal["float32", "bfloat16", "float16"] | None = None

    def set_fields(self) -> dict[str, Any]:
        """Return the values that are not None."""
        return self.model_dump(exclude_none=True)


class ModelPair(_Table):
    """A zero-shot model, as a rule with its finetuned model: one row of the paper's tables."""

    backbone: Text
    pretraining: Text
    group: FigureGroup  # of figures; OpenAI, LAION, YFCC in the paper
    zero_shot: Text
    finetuned: Text | None = None  # None: the study finetunes it
    finetune: bool = True  # False: the zero-shot model stands alone

    @model_validator(mode="after")
    def _is_consistent(self) -> "ModelPair":
        if self.finetuned and not self.finetune:
            raise ValueError("finetuned and finetune = false exclude each other: give one")
        return self


class Supervised(_Table):
    """A backbone trained on labels alone: an architecture to train, or a trained model."""

    backbone: Text
    pretraining: Text | None = None  # its training data; None is ImageNet if the data is
    train: Text | None = None
    model: Text | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> "Supervised":
        if (self.train is None) == (self.model is None):
            raise ValueError("give either train or model")
        return self


class SingleModel(_Table):
    """A model without a counterpart: one of several finetuned models of one start, or a soup."""

    model: Text
    role: Literal["finetuned", "soup", "other"]
    backbone: Text
    pretraining: str = ""
    group: FigureGroup = "main"  # of figures


class SoupEntry(_Table):
    """A soup that the study makes: the mean of the weights of its members.

    A member is a model id, or a role of `BASELINE_ROLES`, which stands for the pool's models of
    that role with the soup's backbone and, if it is given, pretraining.
    """

    name: Text
    members: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    kind: Literal["uniform", "greedy"] = "uniform"
    backbone: Text
    pretraining: str = ""
    group: FigureGroup = "main"  # of figures
    held_out: Text | None = None  # folder of class folders, on which a greedy soup is chosen

    @model_validator(mode="after")
    def _is_chosen_on_other_images(self) -> "SoupEntry":
        if (self.kind == "greedy") != (self.held_out is not None):
            raise ValueError(
                "a greedy soup needs held_out, a folder of images that nothing is reported on; a "
                "uniform one takes none"
            )
        return self


class Control(_Table):
    """A control model.

    ``no-clip`` is pretrained on images without captions (the paper's NoCLIP),
    ``captioned-id`` on captions of the in-distribution images alone, ``untrained`` has
    random weights. Without a model, the note says which model fits.
    """

    kind: Literal["no-clip", "captioned-id", "untrained"]
    backbone: Text
    pretraining: str = ""
    model: Text | None = None
    finetune: bool = False  # on labels, before it is measured
    note: str = ""

    @model_validator(mode="after")
    def _is_explained(self) -> "Control":
        if self.model is None and not self.note:
            raise ValueError("give model, or a note that says which model fits")
        return self


class Shift(_Table):
    """An own shift: a folder of class folders, in place of ImageNet's shifts."""

    name: Text
    folder: Text


class BaselineFit(_Table):
    """A baseline of effective robustness that the study fits on models."""

    models: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    # each an id, a path, or a role of `BASELINE_ROLES`
    name: Text = "own"

    @model_validator(mode="after")
    def _has_own_name(self) -> "BaselineFit":
        from .robustness_table import NAMED_BASELINES, TIMM_BASELINE

        if self.name in {*NAMED_BASELINES, TIMM_BASELINE, "lab"}:
            raise ValueError(f"the name {self.name!r} is that of a shipped baseline: rename it")
        return self


def _baseline_tag(value: object) -> str:
    return "table" if isinstance(value, dict | BaselineFit) else "text"


BaselineSetting = Annotated[
    Annotated[Text, Tag("text")] | Annotated[BaselineFit, Tag("table")],
    Discriminator(_baseline_tag),
]


class StudyConfig(_Table):
    """Models that are studied together, and how."""

    name: Text
    title: str = ""
    renders_data: bool = False  # the study renders the lab's images and trains its towers
    alphas: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], TOML_ARRAY] = ()
    concepts: Text | None = None  # folder of a concept set; None looks in the data
    classnames: Text | None = None  # file, for zero-shot heads and heads with numbered classes
    templates: Text | None = None  # "openai", "simple" or a file
    # name of a baseline, a file of results to fit one on, or models to fit one on
    baseline: BaselineSetting | None = None
    shifts: Annotated[tuple[Shift, ...], Field(strict=False, alias="shift")] = ()
    cka: Cka | None = None
    finetune: Overrides = Overrides()
    train: Overrides = Overrides()
    families: Annotated[tuple[ModelPair, ...], Field(strict=False, alias="family")] = ()
    supervised: Annotated[tuple[Supervised, ...], TOML_ARRAY] = ()
    singles: Annotated[tuple[SingleModel, ...], Field(strict=False, alias="model")] = ()
    soups: Annotated[tuple[SoupEntry, ...], Field(strict=False, alias="soup")] = ()
    controls: Annotated[tuple[Control, ...], Field(strict=False, alias="control")] = ()
    model_from: dict[Text, Sha256] = {}  # hashes that own code, FILE.py:FUNCTION, must have
    base: Annotated[Path, Field(exclude=True)] = Path()  # start of relative paths

    def resolve_model_id(self, name: str) -> str:
        """Return an id of the config with its file, if it names one, under ``base``."""
        return str(parse_model_id(name, self.base).resolve(self.base))

    def resolve_path(self, path: str) -> Path:
        """Return a path of the config, relative ones under ``base``."""
        return self.base / Path(path).expanduser()

    def with_absolute_paths(self) -> "StudyConfig":
        """Return the same config with paths that are valid from any folder."""

        def resolve(entry: _Table, *keys: str) -> _Table:
            ids = {key: name for key in keys if (name := getattr(entry, key))}
            update = {key: self.resolve_model_id(name) for key, name in ids.items()}
            return entry.model_copy(update=update)

        def resolve_path(path: str) -> str:
            return str(self.resolve_path(path).resolve())

        update: dict[str, Any] = {
            "shifts": tuple(
                shift.model_copy(update={"folder": resolve_path(shift.folder)})
                for shift in self.shifts
            ),
            "families": tuple(resolve(entry, "zero_shot", "finetuned") for entry in self.families),
            "supervised": tuple(resolve(entry, "model") for entry in self.supervised),
            "singles": tuple(resolve(entry, "model") for entry in self.singles),
            "controls": tuple(resolve(entry, "model") for entry in self.controls),
            "soups": tuple(
                entry.model_copy(
                    update={
                        "members": self._resolve_members(entry.members),
                        "held_out": entry.held_out and resolve_path(entry.held_out),
                    }
                )
                for entry in self.soups
            ),
        }
        hashes = {resolve_path(code): hashed for code, hashed in self.model_from.items()}
        update["model_from"] = hashes
        for key in ("concepts", "classnames", "templates", "baseline"):
            path = getattr(self, key)
            is_name = key in {"templates", "baseline"}  # as a rule
            if isinstance(path, str) and not (is_name and not self.resolve_path(path).exists()):
                update[key] = resolve_path(path)
        if isinstance(self.baseline, BaselineFit):
            models = self._resolve_members(self.baseline.models)
            update["baseline"] = self.baseline.model_copy(update={"models": models})
        return self.model_copy(update=update)

    def _resolve_members(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            name if name in BASELINE_ROLES else self.resolve_model_id(name) for name in names
        )

    def missing_controls(self) -> tuple[Control, ...]:
        """Return the controls without a model."""
        return tuple(control for control in self.controls if control.model is None)


_TABLES: Mapping[str, type[BaseModel]] = {
    "cka": Cka,
    "finetune": Overrides,
    "train": Overrides,
    "baseline": BaselineFit,
    "shift": Shift,
    "family": ModelPair,
    "supervised": Supervised,
    "model": SingleModel,
    "soup": SoupEntry,
    "control": Control,
}
_MODEL_TABLES = {
    "family": "families",
    "supervised": "supervised",
    "model": "singles",
    "control": "controls",
}
_ARRAY_TABLES = {"shift": "shifts", "soup": "soups", **_MODEL_TABLES}


def load_study_config(name: str | Path, *, base: Path | None = None) -> StudyConfig:
    """Load a built-in pool or a TOML file, or report every problem of the file at once."""
    document = _parse_toml(builtin_config_text(name), str(name))
    folder = (base or Path()) if str(name) in BUILTIN_POOLS else Path(name).parent
    partial = _partial_config(document, folder)
    problems = [*_schema_errors(document), *_find_conflicts(document)]
    problems += _find_missing_files(document, folder)
    if not problems:
        problems += _find_soup_problems(_validate(document, name, folder))
    if problems := [*problems, *_find_baseline_problems(partial)]:
        from .availability import find_unavailable_models

        problems += find_unavailable_models(partial)
        lines = "".join(f"\n- {problem}" for problem in problems[:_MAX_PROBLEMS])
        if (others := len(problems) - _MAX_PROBLEMS) > 0:
            lines += f"\n- {others:,} more"
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ValueError(f"The pool {name} has {count}:{lines}")
    return _validate(document, name, folder)


def _validate(document: Mapping[str, Any], name: str | Path, folder: Path) -> StudyConfig:
    return StudyConfig.model_validate({"name": Path(name).stem, **document, "base": folder})


def builtin_config_text(name: str | Path) -> str:
    """Return the TOML text of a built-in pool or of a file."""
    is_builtin = str(name) in BUILTIN_POOLS
    path = Path(__file__).parent / "pools" / f"{name}.toml" if is_builtin else Path(name)
    try:
        return read_bytes(path, max_bytes=_MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not TOML: it is not UTF-8 text ({error}).") from error
    except OSError as error:
        near = get_close_matches(str(name), BUILTIN_POOLS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{', '.join(BUILTIN_POOLS)} ship."
        raise ValueError(
            f"No pool {str(name)!r}, nor a file of that name that can be read "
            f"({error.strerror}): {hint}"
        ) from error


def to_toml(config: StudyConfig) -> str:
    """Return TOML, without defaults and ``base``, that `load_study_config` reads."""
    values = config.model_dump(by_alias=True, exclude_defaults=True)
    keys = [key for key in _TABLES if not isinstance(values.get(key, ""), str)]
    tables = {key: values.pop(key) for key in keys}
    hashes = values.pop("model_from", {})
    blocks = [_format_table(values)]
    if hashes:
        quoted = {_format_value(code): hashed for code, hashed in hashes.items()}
        blocks.append(f"[model_from]\n{_format_table(quoted)}")
    for key, table in tables.items():
        if key in _ARRAY_TABLES:
            blocks += [f"[[{key}]]\n{_format_table(entry)}" for entry in table]
        else:
            blocks.append(f"[{key}]\n{_format_table(table)}")
    return "\n".join(blocks)


def _format_table(entry: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_format_value(value)}\n" for key, value in entry.items())


def _format_value(value: Any) -> str:
    """Format as JSON, which TOML shares but for a control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    try:
        if name_parts := _LONG_NAME.search(text):
            raise ValueError(f"the name {quote(name_parts[0])} has more than 32 parts")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not TOML: {str(error).rstrip('.')}.") from error


def _partial_config(document: Mapping[str, Any], base: Path) -> StudyConfig:
    """Return the models that an invalid file names, so that they are checked too."""
    entries: dict[str, Any] = {
        field: tuple(_partial_entry(entry, _TABLES[key]) for entry in _get_entries(document, key))
        for key, field in _MODEL_TABLES.items()
    }
    if isinstance(fit := document.get("baseline"), dict):
        models = tuple(text for text in _get_list(fit, "models") if text and isinstance(text, str))
        entries["baseline"] = BaselineFit.model_construct(models=models)
    return StudyConfig.model_construct(base=base, **entries)


def _partial_entry(entry: Mapping[str, Any], table: type[BaseModel]) -> BaseModel:
    names = table.model_fields.keys() - {"finetune"}
    texts: dict[str, Any] = {
        name: value if isinstance(value := entry.get(name), str) else "" for name in names
    }
    return table.model_construct(**texts)


def _schema_errors(document: Mapping[str, Any]) -> Iterator[str]:
    if "base" in document:
        yield "unknown key 'base': relative paths start from the folder of the file"
    try:
        StudyConfig.model_validate({"name": "unnamed", **document, "base": Path()})
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            if error["type"] == "too_short" and error["input"]:
                continue  # its invalid entries are reported one by one
            yield _format_error(error["loc"], error)


def _format_error(path: tuple[int | str, ...], error: Mapping[str, Any]) -> str:
    if path[0] == "baseline":  # after it stands the tag of its form
        path = (path[0], *path[2:])
    *parents, key = path
    match error["type"]:
        case "extra_forbidden":
            table = _TABLES.get(str(parents[0])) if parents else StudyConfig
            hint = _suggest_key(str(key), table)
            return f"{_location(parents)}unknown key {quote(key)}{hint}"
        case "missing":
            return f"{_location(parents)}{key} is missing"
        case "value_error":
            return f"{_location(path)}{error['ctx']['error']}"
        case _:
            message = error["msg"].replace("Input", "it", 1)
            return f"{_location(path)}{message}, got {quote(error['input'])}"


def _location(path: Sequence[int | str]) -> str:
    """Return a position in the file, counting from 1."""
    words = [f"{part + 1}" if isinstance(part, int) else shorten(part) for part in path]
    return f"{' '.join(words)}: " if words else ""


def _suggest_key(key: str, table: type[BaseModel] | None) -> str:
    fields = table.model_fields if table else {}
    names = [field.alias or name for name, field in fields.items() if name != "base"]
    near = get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]}" if near else f"keys are {', '.join(names)}"
    return f" ({hint})" if names else ""


def _find_conflicts(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield contradictions between entries, as far as these can be read."""
    families, supervised, singles, controls = (_get_entries(document, key) for key in _MODEL_TABLES)
    if not any(document.get(key) for key in ("family", "supervised", "model")):
        yield "the pool has no model: give [[family]], [[supervised]] or [[model]]"
    pairs = [_get_texts(family, "backbone", "pretraining") for family in families]
    models = _get_column(families, "zero_shot", "finetuned")
    models += _get_column([*supervised, *singles, *controls], "model")
    for pair in _find_duplicates(pair for pair in pairs if len(pair) == 2):
        yield f"family: {', '.join(pair)} is there more than once"
    for architecture in _find_duplicates(_get_column(supervised, "train")):
        yield f"supervised: {architecture} is trained more than once: one recipe gives one model"
    for model in _find_duplicates(models):
        yield f"the model {model} is there more than once: give each model once"
    for key in ("alphas", "cka"):
        if document.get(key) and all(family.get("finetune") is False for family in families):
            yield f"{key}: no family has a finetuned model to compare: give one, or leave out {key}"
    yield from _find_order_conflicts(document)


def _find_order_conflicts(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield shifts of one name, and alphas that do not ascend."""
    for name in _find_duplicates(_get_column(_get_entries(document, "shift"), "name")):
        yield f"shift: {name} is there more than once"
    alphas = [a for a in _get_list(document, "alphas") if isinstance(a, int | float)]
    if any(second <= first for first, second in pairwise(alphas)):
        yield f"alphas: {alphas} do not ascend"


def _find_missing_files(document: Mapping[str, Any], base: Path) -> Iterator[str]:
    """Yield the files of class names and templates that do not exist."""
    for key, names in (("classnames", ()), ("templates", ("openai", "simple"))):
        for name in _get_texts(document, key):
            path = base / Path(name).expanduser()
            if name not in names and not path.is_file():
                yield f"{key}: no file {path}: check the path"


def _find_baseline_problems(config: StudyConfig) -> Iterator[str]:
    """Yield why no baseline can be fitted on the models that a config names."""
    from .units import baseline_models

    if not isinstance(config.baseline, BaselineFit):
        return
    models = baseline_models(config)
    roles = {model.role for model in models if model.in_pool}
    for role in BASELINE_ROLES:
        if role in config.baseline.models and role not in roles:
            yield f"baseline models: the pool has no {role} model"
    needed, reason = 3, ""
    if any(model.in_pool for model in models):
        needed, reason = 4, ", since the baseline of a model of the pool is fitted without it"
    if len(models) < needed:
        yield f"baseline models: {needed} or more are needed{reason}, got {len(models)}: add some"


def _find_soup_problems(config: StudyConfig) -> list[str]:
    """Return what is wrong with the names and the members of soups."""
    from .units import pool_models, soup_members

    problems: list[str] = []
    names = [model.name for model in pool_models(config)]
    for soup in config.soups:
        if soup.name in names:
            problems.append(f"soup {soup.name}: another model has this name: rename it")
        names.append(soup.name)
        members = [model.name for model in soup_members(soup, config)]
        if len({*members}) < 2:
            problems.append(
                f"soup {soup.name}: a soup needs two members or more, got {len({*members})}: give "
                "ids, or a role that models of its backbone and pretraining have"
            )
        if soup.held_out and not config.resolve_path(soup.held_out).is_dir():
            folder = config.resolve_path(soup.held_out)
            problems.append(f"soup {soup.name}: no folder {folder}: give held-out images")
    return problems


def _get_list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []


def _get_entries(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    return [entry for entry in _get_list(document, key) if isinstance(entry, dict)]


def _get_texts(entry: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    return tuple(value for key in keys if isinstance(value := entry.get(key), str))


def _get_column(entries: Sequence[Mapping[str, Any]], *keys: str) -> list[str]:
    return [text for entry in entries for text in _get_texts(entry, *keys)]


def _find_duplicates(items: Iterable[_Item]) -> list[_Item]:
    return [item for item, count in Counter(items).items() if count > 1]
