"""Units of a study: its models, how each is obtained and where it appears in tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..data.imagenet import available_datasets
from ..models.classifier import Classifier, Role
from ..records import Record

if TYPE_CHECKING:
    from .config import Control, ModelPair, SingleModel, SoupEntry, StudyConfig, Supervised

Origin = Literal["loaded", "finetuned", "trained", "untrained", "averaged", "vacant"]


@dataclass(frozen=True)
class StudyModel:
    """One model of a study."""

    name: str  # in records, tables and files: its id, as a rule
    source: str  # id, path or architecture that it is loaded, trained or reinitialized from
    origin: Origin
    backbone: str
    pretraining: str
    role: Role
    group: str = ""  # of figures, or kind of control, or ``baseline`` of a model outside the pool
    note: str = ""  # what may take the place of a vacant control
    members: tuple["StudyModel", ...] = ()  # of a soup
    held_out: Path | None = None  # folder of images on which a greedy soup is chosen

    @property
    def in_pool(self) -> bool:
        """Whether it is a model of the pool, and not of its baseline alone."""
        return self.group != "baseline"

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


def study_units(config: "StudyConfig", data: Path | None = None) -> list[StudyUnit]:
    """Return families, single models, soups, controls, and untrained controls not named."""
    controls = [_control_model(control, config) for control in config.controls]
    controls += _untrained_controls(config)
    soups = [_soup_model(soup, config, data) for soup in config.soups]
    return _pool_units(config, data) + [StudyUnit(model) for model in soups + controls]


def pool_models(config: "StudyConfig", data: Path | None = None) -> list[StudyModel]:
    """Return the models of a pool without its soups and its controls."""
    return [model for unit in _pool_units(config, data) for model in unit.models]


def soup_members(
    soup: "SoupEntry", config: "StudyConfig", data: Path | None = None
) -> list[StudyModel]:
    """Return the models that a soup averages: those that it names, and those of its roles."""
    from .config import BASELINE_ROLES

    pool = pool_models(config, data)
    members: dict[str, StudyModel] = {}
    for name in soup.members:
        if name in BASELINE_ROLES:
            found = [
                model
                for model in pool
                if (model.role, model.backbone) == (name, soup.backbone)
                and soup.pretraining in {"", model.pretraining}
            ]
        else:
            source = config.resolve_model_id(name)
            found = [StudyModel(name, source, "loaded", soup.backbone, soup.pretraining, "other")]
        for model in found:
            members.setdefault(f"{model.origin} {model.source}", model)
    return list(members.values())


def baseline_models(config: "StudyConfig", data: Path | None = None) -> list[StudyModel]:
    """Return the models that the study fits its own baseline on, of the pool or others."""
    from .config import BASELINE_ROLES, BaselineFit

    if not isinstance(config.baseline, BaselineFit):
        return []
    names = config.baseline.models
    pool = pool_models(config, data)
    models = {model.name: model for model in pool if model.role in names}
    loaded = {
        model.source: model
        for unit in study_units(config, data)
        for model in unit.models
        if model.origin == "loaded"
    }
    for name in names:
        if name not in BASELINE_ROLES:
            source = config.resolve_model_id(name)
            other = StudyModel(name, source, "loaded", "", "", "other", "baseline")
            model = loaded.get(source, other)
            models.setdefault(model.name, model)
    return list(models.values())


def _pool_units(config: "StudyConfig", data: Path | None) -> list[StudyUnit]:
    """Return the units of a pool without its controls."""
    on_imagenet = data is not None and "imagenet" in available_datasets(data)
    pretraining = "ImageNet" if on_imagenet else ""
    singles = [_supervised_model(entry, config, pretraining) for entry in config.supervised]
    singles += [_single_model(entry, config) for entry in config.singles]
    families = [_family_unit(family, config) for family in config.families]
    return families + [StudyUnit(model) for model in singles]


def _family_unit(family: "ModelPair", config: "StudyConfig") -> StudyUnit:
    labels = family.backbone, family.pretraining
    source = config.resolve_model_id(family.zero_shot)
    first = StudyModel(family.zero_shot, source, "loaded", *labels, "zero-shot", family.group)
    if not family.finetune:
        return StudyUnit(first)
    name, origin = f"{family.zero_shot} finetuned", "finetuned"
    if family.finetuned:
        name, origin = family.finetuned, "loaded"
        source = config.resolve_model_id(name)
    return StudyUnit(first, StudyModel(name, source, origin, *labels, "finetuned", family.group))


def _supervised_model(entry: "Supervised", config: "StudyConfig", pretraining: str) -> StudyModel:
    name = entry.model or f"{entry.train} supervised"
    source = config.resolve_model_id(entry.model or entry.train or "")
    origin = "loaded" if entry.model else "trained"
    pretraining = entry.pretraining or pretraining
    return StudyModel(name, source, origin, entry.backbone, pretraining, "supervised")


def _single_model(entry: "SingleModel", config: "StudyConfig") -> StudyModel:
    labels = entry.backbone, entry.pretraining, entry.role, entry.group
    return StudyModel(entry.model, config.resolve_model_id(entry.model), "loaded", *labels)


def _soup_model(soup: "SoupEntry", config: "StudyConfig", data: Path | None) -> StudyModel:
    members = soup_members(soup, config, data)
    source = members[0].source if members else ""
    labels = soup.backbone, soup.pretraining, "soup", soup.group
    held_out = config.resolve_path(soup.held_out) if soup.held_out else None
    model = StudyModel(soup.name, source, "averaged", *labels)
    return replace(model, members=tuple(members), held_out=held_out)


def _untrained_controls(config: "StudyConfig") -> list[StudyModel]:
    named = {entry.backbone for entry in config.controls if entry.kind == "untrained"}
    models = [(family.backbone, family.zero_shot) for family in config.families]
    models += [(entry.backbone, entry.model) for entry in config.supervised if entry.model]
    models += [(entry.backbone, entry.model) for entry in config.singles]
    sources: dict[str, str] = {}  # the first of each backbone that is not trained here
    for backbone, name in models:
        sources.setdefault(backbone, name)
    model = partial(StudyModel, pretraining="none", role="other", group="untrained")
    return [
        model(f"{name} untrained", config.resolve_model_id(name), "untrained", backbone)
        for backbone, name in sources.items()
        if backbone not in named
    ]


def _control_model(control: "Control", config: "StudyConfig") -> StudyModel:
    name, origin = f"{control.kind} (no model)", "vacant"
    if control.model:
        name, origin = control.model, "loaded"
        if control.finetune:
            name, origin = f"{name} finetuned", "finetuned"
    source = config.resolve_model_id(control.model or "")
    role = "zero-shot" if control.kind == "captioned-id" else "other"
    labels = control.backbone, control.pretraining
    return StudyModel(name, source, origin, *labels, role, control.kind, control.note)
