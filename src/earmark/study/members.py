"""The models of a pool, each with its place in the tables and how it is come by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ..models.classifier import Classifier, Role
from ..results import Record

if TYPE_CHECKING:
    from .pools import Control, Family, Pool

Made = Literal["loaded", "finetuned", "trained", "untrained", "vacant"]


@dataclass(frozen=True)
class Member:
    """One model of a pool.

    Attributes:
        name: What records, tables and files call it: its id, as a rule.
        source: What it is made of: the id or path that `load_model` takes, of the model
            itself, of the one that is finetuned, or of the one whose architecture a
            control has; of a model that is trained from scratch, its architecture.
        made: How it is come by.
        backbone: As the tables' first column shows it.
        pretraining: As the second column shows it.
        role: Its part in the study.
        group: Of figures; or which control it is.
        note: What may take the place of a vacant one.
    """

    name: str
    source: str
    made: Made
    backbone: str
    pretraining: str
    role: Role
    group: str = ""
    note: str = ""

    def called(self, classifier: Classifier) -> Classifier:
        """A classifier under this member's name, role and labels."""
        return replace(
            classifier,
            name=self.name,
            role=self.role,
            backbone=self.backbone,
            pretraining=self.pretraining,
        )

    def grouped(
        self, records: Sequence[Record], *, alpha: float | None = None
    ) -> list[Record]:
        """Its records, with their group of figures."""
        return [replace(record, group=self.group, alpha=alpha) for record in records]


@dataclass(frozen=True)
class Part:
    """What is studied together: a family's two models, or a model on its own.

    Attributes:
        first: The zero-shot model, or the only one.
        second: The finetuned model, of a family.
    """

    first: Member
    second: Member | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """Its one or two models."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def label(self) -> str:
        """Backbone and pretraining in one line."""
        first = self.first
        return " · ".join(part for part in (first.backbone, first.pretraining) if part)


def parts_of(pool: "Pool") -> list[Part]:
    """What a study of a pool consists of: families, supervised models, controls.

    Args:
        pool: The pool.

    Returns:
        The parts, in the order of the pool's file; last the untrained towers that it does
        not name, one for each backbone.
    """
    families = [
        Part(
            Member(
                family.zero_shot,
                pool.located(family.zero_shot),
                "loaded",
                family.backbone,
                family.pretraining,
                "zero-shot",
                family.group,
            ),
            Member(
                family.finetuned or f"{family.zero_shot} finetuned",
                pool.located(family.finetuned or family.zero_shot),
                "loaded" if family.finetuned else "finetuned",
                family.backbone,
                family.pretraining,
                "finetuned",
                family.group,
            ),
        )
        for family in pool.families
    ]
    supervised = [
        Part(
            Member(
                one.model or f"{one.train} supervised",
                pool.located(one.model or one.train or ""),
                "loaded" if one.model else "trained",
                one.backbone,
                "ImageNet",
                "supervised",
            )
        )
        for one in pool.supervised
    ]
    controls = [_control(one, pool) for one in pool.controls] + _untrained(pool)
    return families + supervised + [Part(one) for one in controls]


def _untrained(pool: "Pool") -> list[Member]:
    """An untrained control for each backbone for which the pool names none."""
    named = {one.backbone for one in pool.controls if one.kind == "untrained"}
    first: dict[str, Family] = {}
    for family in pool.families:
        first.setdefault(family.backbone, family)
    return [
        Member(
            f"{family.zero_shot} untrained",
            pool.located(family.zero_shot),
            "untrained",
            family.backbone,
            "none",
            "other",
            "untrained",
        )
        for family in first.values()
        if family.backbone not in named
    ]


def _control(control: "Control", pool: "Pool") -> Member:
    made: Made = "vacant"
    if control.model:
        made = "finetuned" if control.finetune else "loaded"
    name = control.model or f"{control.kind} (vacant)"
    return Member(
        f"{name} finetuned" if made == "finetuned" else name,
        pool.located(control.model or ""),
        made,
        control.backbone,
        control.pretraining,
        "zero-shot" if control.kind == "captioned-id" else "other",
        control.kind,
        control.note,
    )
