"""Preprocessing of models of timm: that of their tag, or what a file of weights says."""

import warnings
from collections.abc import Iterator, Mapping
from math import floor
from pathlib import Path
from typing import Any, cast

from torch import nn

from .._io import parse_json, read_json
from .allowed_arguments import TimmPreprocessing, check_arguments, is_allowed
from .preprocessing import Preprocessing
from .weight_files import Settings, read_content, read_metadata

_FIELDS = tuple(TimmPreprocessing.model_fields)
_TITLES = {"input_size": "image size", "crop_pct": "crop", "crop_mode": "crop"}


def find_preprocessing(
    path: Path, config: Mapping[str, Any], *, is_tagged: bool
) -> Mapping[str, Any]:
    """Return what a file of weights says of its preprocessing; warn where tags differ on the rest.

    ``config`` is that of timm's own weights. A tag that the id names comes before the file.
    """
    if is_tagged:
        return {}
    architecture = str(config.get("architecture"))
    stated = _read_preprocessing(path, architecture)
    _warn_about_tags(path, config, stated)
    return stated


def select_preprocessing(config: Mapping[str, Any], *, source: object) -> dict[str, Any]:
    """Return the preprocessing in a configuration of timm, compared with the closed list."""
    stated = {key: _as_list(config[key]) for key in _FIELDS if config.get(key)}
    check_arguments(stated, TimmPreprocessing, source=source)
    return stated


def resolve_preprocessing(
    title: str, model: nn.Module, stated: Mapping[str, Any] | None = None
) -> tuple[Preprocessing, tuple[int, int]]:
    """Return the transform of a model, with what is stated of it, and its (height, width)."""
    from timm.data.config import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(model, args=dict(stated or {}))
    channels, *size = config["input_size"]
    height, width = size
    mode = config["crop_mode"] or "center"
    if channels != 3 or mode not in {"center", "squash"}:
        raise ValueError(
            f"{title} reads {channels} channels cropped by {mode!r}: earmark supports 3 "
            "channels, cropped by 'center' or 'squash'."
        )
    if mode == "center" and height != width:
        raise ValueError(
            f"{title} crops {height} by {width} pixels from the center: earmark supports squares."
        )
    return _make_transform(config), (height, width)


def _make_transform(config: Mapping[str, Any]) -> Preprocessing:
    _, height, width = config["input_size"]
    resized = [floor(side / config["crop_pct"]) for side in (height, width)]
    return Preprocessing(
        resize=resized if config["crop_mode"] == "squash" else resized[0],
        crop=(height, width),
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
    )


def _read_preprocessing(path: Path, architecture: str) -> dict[str, Any]:
    """Return what a file of weights, or a ``config.json`` beside it, says of its preprocessing."""
    for source, config in _iter_configs(path, architecture):
        if stated := select_preprocessing(config, source=source):
            return stated
    return {}


def _iter_configs(path: Path, architecture: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the configurations of a file of weights, each with its place."""
    if path.suffix == ".safetensors":
        if text := read_metadata(path).get("pretrained_cfg"):
            source = f"The pretrained_cfg of {path}"
            yield source, _as_mapping(parse_json(text, source=source))
    else:
        content = _as_mapping(read_content(path))
        yield f"The pretrained_cfg of {path}", _as_mapping(content.get("pretrained_cfg"))
        yield f"The args of {path}", _select_arguments(content.get("args"), architecture)
    beside = path.with_name("config.json")
    if beside.is_file():
        config = _as_mapping(read_json(beside))
        if config.get("architecture") == architecture:
            yield str(beside), _as_mapping(config.get("pretrained_cfg", config))


def _select_arguments(args: object, architecture: str) -> dict[str, Any]:
    """Return the preprocessing among the arguments of a training script, of any kind."""
    values = args.values if isinstance(args, Settings) else _as_mapping(args)
    name, _, tag = str(values.get("model")).partition(".")
    side = values.get("img_size") or values.get("input_size")
    stated = dict(_tag_configs(architecture).get(tag, {})) if name == architecture else {}
    stated |= {key: _as_list(values[key]) for key in _FIELDS if values.get(key)}
    if isinstance(side, int):
        stated["input_size"] = [3, side, side]
    return {key: stated[key] for key in stated if is_allowed({key: stated[key]}, TimmPreprocessing)}


def _warn_about_tags(path: Path, config: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    """Warn where timm's tags of an architecture differ in what a file does not say."""
    architecture, tag = str(config.get("architecture")), str(config.get("tag"))
    configs = _tag_configs(architecture)
    taken = configs.get(tag, {})
    unstated = [key for key in taken if key not in stated]
    others = {
        name: differing
        for name, other in configs.items()
        if (differing := [key for key in unstated if other[key] != taken[key]])
    }
    if not others:
        return
    keys = [key for key in unstated if any(key in differing for differing in others.values())]
    titles = ", ".join(dict.fromkeys(_TITLES.get(key, key) for key in keys))
    transform = _make_transform({**taken, **stated})
    warnings.warn(
        f"{path} does not say its preprocessing, and the tags of timm:{architecture} differ in "
        f"{titles}: that of {tag} is taken ({transform.describe()}); for another, give "
        f"timm:{architecture}.TAG,{path}, with a tag such as {next(iter(others))}.",
        stacklevel=5,
    )


def _tag_configs(architecture: str) -> dict[str, dict[str, Any]]:
    """Return the preprocessing of each tag of an architecture."""
    import timm
    from timm.data.config import resolve_data_config

    configs: dict[str, dict[str, Any]] = {}
    for name in timm.list_pretrained(f"{architecture}.*"):
        config: Any = timm.get_pretrained_cfg(name)
        resolved = resolve_data_config(pretrained_cfg=config.to_dict())
        configs[name.partition(".")[2]] = {key: _as_list(resolved[key]) for key in _FIELDS}
    return configs


def _as_mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _as_list(value: Any) -> Any:
    return [*value] if isinstance(value, tuple) else value
