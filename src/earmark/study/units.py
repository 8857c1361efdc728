"""Units of a study: its models, how each is obtained and where it appears in tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from ..models.classifier import Classifier, Role
from ..records import Record

if TYPE_CHECKING:
    from .config import Control, ModelPair, StudyConfig, Supervised

Origin = Literal["loaded", "finetuned", "trained", "untrained", "vacant"]


@dataclass(frozen=True)
class StudyModel:
    """One model of a study."""

    name: str  # in records, tables and files: its id, as a rule
    source: str  # id, path or architecture that it is loaded, trained or reinitialized from
    origin: Origin
    backbone: str
    pretraining: str
    role: Role
    group: str = ""  # of figures, or kind of control
    note: str = ""  # what may take the place of a vacant control

    def label(self, classifier: Classifier) -> Classifier:
        """Return a classifier under this model's name, role and labels."""
        labels = {"backbone": self.backbone, "pretraining": self.pretraining}
        return replace(classifier, name=self.name, role=self.role, **labels)

    def tag(self, records: Sequence[Record], *, alpha: float | None = None) -> list[Record]:
        """Return records with this model's group of figures."""
        return [replace(record, group=self.group, alpha=alpha) for record in records]


@dataclass(frozen=True)
class StudyUnit:
    """Models that are studied together: a family's two, or one on its own."""

    first: StudyModel  # the zero-shot model, or the only one
    second: StudyModel | None = None  # the finetuned model of a family

    @property
    def models(self) -> tuple[StudyModel, ...]:
        """The one or two models."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def label(self) -> str:
        """Backbone and pretraining in one line."""
        first = self.first
        return " · ".join(part for part in (first.backbone, first.pretraining) if part)


def study_units(config: "StudyConfig") -> list[StudyUnit]:
    """Return families, supervised models, controls, and untrained controls that are not named."""
    singles = [_supervised_model(entry, config) for entry in config.supervised]
    singles += [_control_model(control, config) for control in config.controls]
    singles += _untrained_controls(config)
    families = [_family_unit(family, config) for family in config.families]
    return families + [StudyUnit(model) for model in singles]


def _family_unit(family: "ModelPair", config: "StudyConfig") -> StudyUnit:
    labels = family.backbone, family.pretraining
    source = config.resolve_model_id(family.zero_shot)
    first = StudyModel(family.zero_shot, source, "loaded", *labels, "zero-shot", family.group)
    name, origin = f"{family.zero_shot} finetuned", "finetuned"
    if family.finetuned:
        name, origin = family.finetuned, "loaded"
        source = config.resolve_model_id(name)
    return StudyUnit(first, StudyModel(name, source, origin, *labels, "finetuned", family.group))


def _supervised_model(entry: "Supervised", config: "StudyConfig") -> StudyModel:
    name = entry.model or f"{entry.train} supervised"
    source = config.resolve_model_id(entry.model or entry.train or "")
    origin = "loaded" if entry.model else "trained"
    return StudyModel(name, source, origin, entry.backbone, "ImageNet", "supervised")


def _untrained_controls(config: "StudyConfig") -> list[StudyModel]:
    named = {entry.backbone for entry in config.controls if entry.kind == "untrained"}
    sources: dict[str, str] = {}  # the first zero-shot model of each backbone
    for family in config.families:
        sources.setdefault(family.backbone, family.zero_shot)
    model = partial(StudyModel, pretraining="none", role="other", group="untrained")
    return [
        model(f"{name} untrained", config.resolve_model_id(name), "untrained", backbone)
        for backbone, name in sources.items()
        if backbone not in named
    ]


def _control_model(control: "Control", config: "StudyConfig") -> StudyModel:
    name, origin = f"{control.kind} (vacant)", "vacant"
    if control.model:
        name, origin = control.model, "loaded"
        if control.finetune:
            name, origin = f"{name} finetuned", "finetuned"
    source = config.resolve_model_id(control.model or "")
    role = "zero-shot" if control.kind == "captioned-id" else "other"
    labels = control.backbone, control.pretraining
    return StudyModel(name, source, origin, *labels, role, control.kind, control.note)
