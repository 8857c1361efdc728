"""What a study will do: a row for each model, with its sizes and what is there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..tuning.recipes import FINETUNE, SUPERVISED
from .bench import changed, name_along, name_of_layers, records_file
from .members import Member, Part, parts_of
from .pools import STUDY_IMAGES, Pool, model_size

_WORK = {
    "loaded": "load",
    "finetuned": "finetune for {epochs} epochs",
    "trained": "train for {epochs} epochs",
    "untrained": "draw random weights",
}


@dataclass(frozen=True)
class Planned:
    """One row of a plan.

    Attributes:
        part: Backbone and pretraining.
        model: The model's full name; or ``between the two`` of a family.
        role: Its role, or which control it is.
        work: What is to be done.
        weights: Bytes of its weights, to be had or made; None where nobody can say.
        activations: Bytes of its stored activations; None where nobody can say.
        state: ``there`` where an earlier run left its records, which are used again if
            nothing that determines them has changed; ``to do``; or ``vacant``.
    """

    part: str
    model: str
    role: str
    work: str
    weights: int | None
    activations: int | None
    state: str


def plan(pool: Pool, out: Path | None = None) -> list[Planned]:
    """What a study of a pool will do, told without weights, data or network.

    Args:
        pool: The pool.
        out: The study's folder, where records of an earlier run may be.

    Returns:
        A row for each model, and one for what lies between the two of each family.
    """
    rows: list[Planned] = []
    for part in parts_of(pool):
        rows += [_model(pool, part, member, out) for member in part.members]
        if part.second is not None and (pool.alphas or pool.cka):
            rows.append(_between(pool, part, out))
    return rows


def _model(pool: Pool, part: Part, member: Member, out: Path | None) -> Planned:
    size = model_size(member.source)
    if member.made == "vacant":
        return Planned(part.label, member.name, member.group, "", None, None, "vacant")
    weights = size.saved() if member.made in {"finetuned", "trained"} else size.file
    if member.made == "untrained":
        weights = 0
    alone = part.second is None  # a control, or a supervised model, which has no group
    kind = member.group if alone and member.group else member.role
    return Planned(
        part.label,
        member.name,
        kind,
        f"{_WORK[member.made].format(epochs=_epochs(pool, member))}, measure",
        weights,
        size.activations(sum(STUDY_IMAGES.values())),
        _state(out, [member.name]),
    )


def _between(pool: Pool, part: Part, out: Path | None) -> Planned:
    works: list[str] = []
    if pool.alphas:
        first, *_, last = (*pool.alphas, pool.alphas[-1])
        several = f"{len(pool.alphas)} alphas, {first:g} to {last:g}"
        alphas = several if len(pool.alphas) > 1 else f"alpha {first:g}"
        works.append(f"measure at {alphas}")
    if pool.cka is not None:
        works.append("compare layers")
    names = [name_along(part, alpha) for alpha in pool.alphas]
    names += [name_of_layers(part)] if pool.cka else []
    state = _state(out, names)
    work = ", ".join(works)
    return Planned(part.label, "between the two", "interpolated", work, None, None, state)


def _epochs(pool: Pool, member: Member) -> int:
    """How many epochs the study trains a model for."""
    if member.made == "finetuned":
        return changed(FINETUNE, pool.finetune).epochs
    return changed(SUPERVISED, pool.train).epochs


def _state(out: Path | None, names: Sequence[str]) -> str:
    there = [out is not None and records_file(out, name).is_file() for name in names]
    if all(there):
        return "there"
    return f"{sum(there)} of {len(there)} there" if any(there) else "to do"
