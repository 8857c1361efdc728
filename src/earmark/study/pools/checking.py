"""Whether the models of a pool can be had, asked before any work."""

import warnings
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from importlib.util import find_spec

from .ids import split_file
from .schema import Pool


def pool_problems(pool: Pool) -> list[str]:
    """What is wrong with the models that a pool names: all of it, without the network.

    A model in a file is loaded and let go again; of a published one its name is looked up
    in its library. What is on the hub alone (``hf:REPO``, ``hf-hub:REPO``) is not asked.

    Args:
        pool: The pool.

    Returns:
        A line for each model that could not be loaded; none if all is well.

    Example:
        >>> from earmark.study.pools import read_pool
        >>> pool_problems(read_pool("paper-v1"))
        []
    """
    told = [
        f"{where}: {problem}"
        for where, name, classifies in _models(pool)
        if name and (problem := _model_problem(name, pool, classifies=classifies))
    ]
    for one in pool.supervised:
        if one.train and (problem := _architecture_problem(one.train)):
            told.append(f"supervised {one.backbone}: {problem}")
    return told


def _models(pool: Pool) -> Iterator[tuple[str, str, bool]]:
    """Where each model stands, its id, and whether it must classify as it is."""
    for family in pool.families:
        where = f"family {family.backbone} · {family.pretraining}"
        yield where, family.zero_shot, True
        if family.finetuned:
            yield where, family.finetuned, True
    for one in pool.supervised:
        if one.model:
            yield f"supervised {one.backbone}", one.model, True
    for control in pool.controls:
        if control.model:
            yield f"control {control.kind}", control.model, not control.finetune


def _model_problem(name: str, pool: Pool, *, classifies: bool) -> str:
    before, file = split_file(name, pool.base)
    if file and not (pool.base / file).exists():
        return f"no file {pool.base / file}: check the path"
    family, colon, rest = before.partition(":")
    if file or (colon and family == "lab"):
        return _loading_problem(pool.located(name), classifies=classifies)
    if colon and family in {"hf", "hf-hub", "local-dir"}:
        return _hub_problem(family)
    if not colon:
        architecture, _, tag = name.partition(",")
        return _architecture_problem(architecture) or _tag_problem(architecture, tag)
    first, comma, second = rest.partition(",")
    problem = _architecture_problem(f"{family}:{first}")
    return problem or (_weights_problem(first, second) if comma else "")


def _loading_problem(name: str, *, classifies: bool) -> str:
    from ...models.loading import load_model

    try:
        with warnings.catch_warnings(action="ignore"):  # the study itself will be told
            model = load_model(name, prompts=None)
    except (ValueError, OSError) as error:
        return f"{error}"
    if classifies and not model.classes and model.text is None:
        return f"{name} has neither a head nor a text tower to make one with"
    return ""


def _hub_problem(family: str) -> str:
    if family == "hf" and find_spec("transformers") is None:
        return 'models with hf: need transformers: pip install "earmark[hf]"'
    return ""


def _architecture_problem(name: str) -> str:
    """Of open_clip where no other library is named."""
    from ...models import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]

    family, colon, rest = name.partition(":")
    match family if colon else "":
        case "timm":
            return "" if rest.startswith("hf-hub:") else _timm_problem(rest)
        case "torchvision":
            from torchvision import models

            known = models.list_models(module=models)
            return "" if rest in known else _unknown("torchvision", rest, known)
        case "":
            import open_clip

            known = open_clip.list_models()
            found = name.replace("/", "-") in known
            return "" if found else _unknown("open_clip", name, known)
        case _:
            return f"no library {family!r} (of {name}): see the ids of earmark.load_model"


def _timm_problem(name: str) -> str:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        return _unknown("timm", architecture, timm.list_models())
    published = timm.list_pretrained(f"{architecture}.*")
    return _unknown("timm", name, published) if tag and name not in published else ""


def _tag_problem(architecture: str, tag: str) -> str:
    import open_clip

    name = architecture.replace("/", "-")
    if tag and open_clip.is_pretrained_cfg(name, tag):
        return ""
    tags = [f"{name},{one}" for one in open_clip.list_pretrained_tags_by_model(name)]
    return _unknown("open_clip", f"{architecture},{tag}", tags)


def _weights_problem(name: str, tag: str) -> str:
    from torchvision import models

    known = list(models.get_model_weights(name).__members__)
    return "" if tag in known else _unknown(f"torchvision's {name}", tag, known)


def _unknown(library: str, name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.5) or [*known][:5]
    nearest = ", ".join(near) or "none: give a file"
    return f"{library} has no {name!r}; the nearest are {nearest}"
