"""Runner of a study: one unit at a time, from its models to their records."""

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from re import sub
from shutil import rmtree
from typing import TYPE_CHECKING

from .._io import atomic_write
from .._progress import ProgressCallback, no_progress
from ..activations import EncodeConfig, cached_activations
from ..data.image_folder import list_folders
from ..data.image_set import ImageSet
from ..models._quiet import one_line
from ..models.classifier import Classifier
from ..models.factory import load_model
from ..models.head_extraction import name_classes
from ..models.own_code import OwnCode
from ..models.serialization import save_classifier
from ..models.zeroshot import Prompts, load_prompts
from ..records import Record, Records, read_keyed_records, read_records, write_records
from ..signatures.effective_robustness import Baseline
from ..training.image_run import ComputeConfig, run_key, train_on_images
from ..training.image_stream import find_train_data, training_folder
from ..training.random_init import add_zero_bias, random_classifier, random_head, reinitialize
from ..training.recipes import FINETUNE, SUPERVISED, EpochRecipe
from ..weights.interpolation import interpolate_classifiers
from ..weights.soups import greedy_soup, soup_classifiers
from .baselines import AvailableBaselines, baselines_for, load_baseline
from .eval_sets import EvalSets, find_eval_sets, missing_labels
from .measure import ACCURACY_MEASUREMENTS, INTERPOLATION_MEASUREMENTS, measure_model
from .merge import MODEL_FILE, HeldOutAccuracy, LoadConfig, Soup
from .pool_baseline import PoolBaseline, add_robustness_note
from .record_key import baselines_key, eval_sets_key, model_key, record_key, settings_key
from .records.cka import layer_cka_records
from .units import StudyModel, StudyUnit

if TYPE_CHECKING:
    from .config import Cka, Overrides, StudyConfig

RECORDS_FOLDER = "records"
INTERPOLATED_FOLDER = "along"  # of activations that are deleted once they are measured
_MODEL_ERRORS = (ValueError, OSError, RuntimeError)  # of one model; the study goes on
_VERBS = {
    "loaded": "load",
    "finetuned": "finetune",
    "trained": "train",
    "untrained": "make",
    "averaged": "average the members of",
}


@dataclass(frozen=True)
class RunConfig:
    """Data, output folder and compute settings of a study."""

    study_config: "StudyConfig"
    data: Path  # folder of ImageNet, its shifts and Broden
    out: Path
    device: str = "cpu"
    encoding: EncodeConfig = field(default_factory=EncodeConfig)
    cache_images: bool = False  # keep decoded images in memory
    model_from: tuple[OwnCode, ...] = ()  # own code that may run
    baseline: PoolBaseline | None = None  # that of the config, once it is fitted

    @property
    def cache(self) -> Path:
        """Folder of cached activations."""
        return self.out / "activations"


@dataclass(frozen=True)
class Failure:
    """Task that failed, with the full name of its model, and the reason in one line."""

    task: str
    reason: str


@dataclass
class UnitResult:
    """Records, failures and warnings of one study unit, filled as the unit runs."""

    records: list[Record]
    failures: list[Failure]
    warnings: list[str] = field(default_factory=list[str])  # of a unit in another process


@dataclass(frozen=True)
class _FamilyEndpoint:
    """Model with its key, which is computed once since it reads all weights."""

    model: Classifier
    key: dict[str, object]


class StudyRunner:
    """Runner of study units, one after another; evaluation sets are read once for all."""

    def __init__(self, run_config: RunConfig, progress: ProgressCallback = no_progress) -> None:
        self._config = run_config
        self._progress = progress
        # by classes, and whether of all signatures
        self._eval_set_cache: dict[
            tuple[tuple[str, ...], bool], tuple[EvalSets, dict[str, object]]
        ] = {}
        self._loaded: dict[str, Classifier] = {}  # of the unit at work
        encoding = run_config.encoding
        self._measure_model = partial(measure_model, encoding=encoding, progress=progress)

    def run_unit(self, unit: StudyUnit) -> UnitResult:
        """Measure a unit's models, what lies between them, and their layers; failures are noted."""
        result = UnitResult([], [])
        endpoints: list[_FamilyEndpoint] = []
        for study_model in unit.models:
            if (model := self._prepare(study_model, result)) is not None:
                endpoints.append(endpoint := _FamilyEndpoint(model, model_key(model)))
                with _collect_failures(f"measure {study_model.name}", result):
                    result.records.extend(self._measure(study_model, endpoint))
        config = self._config.study_config
        for alpha in config.alphas if len(endpoints) == 2 else ():
            with _collect_failures(f"measure {unit.label} at alpha {alpha:g}", result):
                result.records.extend(self._interpolate(unit, endpoints, alpha))
        if len(endpoints) == 2 and config.cka is not None:
            with _collect_failures(f"compare the layers of {unit.label}", result):
                result.records.extend(self._compare_layers(unit, endpoints, config.cka))
        self._loaded.clear()
        return result

    def measure_accuracy(self, unit: StudyUnit) -> UnitResult:
        """Measure a model of the baseline on the ID images and, in the mean, on the shifts."""
        result, study_model = UnitResult([], []), unit.first
        if (model := self._prepare(study_model, result)) is not None:
            with _collect_failures(f"measure {study_model.name}", result):
                result.records.extend(self._measure_accuracy(model))
        self._loaded.clear()
        return result

    def _measure_accuracy(self, model: Classifier) -> list[Record]:
        eval_sets, hashes = self._eval_sets(model, signatures=False)
        id_set = eval_sets.in_distribution
        if id_set.labels is None:
            raise ValueError(f"The baseline needs {missing_labels(model, id_set)}.")
        if not eval_sets.shifts:
            raise ValueError("The baseline needs shifts: give them as [[shift]] in the TOML.")

        def compute() -> list[Record]:
            inputs = model, eval_sets, (), self._config.cache
            return self._measure_model(*inputs, measurements=ACCURACY_MEASUREMENTS)

        key = self._key("accuracy", hashes, (), model=model_key(model))
        records = self._cached_records(accuracy_name(model.name), key, compute)
        return [
            replace(record, variant="baseline")
            for name in (id_set.name, "shifts")
            for record in records.select(quantity="accuracy", dataset=name, variant="")
        ]

    def _prepare(self, study_model: StudyModel, result: UnitResult) -> Classifier | None:
        """Load or train a model; None if it is vacant, a control that cannot be, or fails."""
        if study_model.origin == "vacant":
            return None
        with _collect_failures(f"{_VERBS[study_model.origin]} {study_model.name}", result):
            is_control = study_model.origin == "untrained"
            if is_control and self._load(study_model.source).encoder_spec is None:
                return None  # its encoder cannot be built again
            return study_model.label(self._build(study_model))
        return None

    def _build(self, study_model: StudyModel) -> Classifier:
        if study_model.origin == "trained":
            return self._train_from_scratch(study_model)
        if study_model.origin == "averaged":
            return self._average(study_model)
        loaded = self._load(study_model.source)
        if study_model.origin == "finetuned":
            return self._finetune(study_model, loaded)
        if study_model.origin == "untrained":
            control = reinitialize(loaded)
            control.encoder.to(self._config.device)
            return control
        if not loaded.classes:
            raise ValueError(
                f"{study_model.source} has neither a head nor a text tower to make one "
                "with: give a model with a head, or finetune it."
            )
        return loaded

    def _average(self, soup: StudyModel) -> Classifier:
        """Average the members of a soup, which are loaded one at a time, and save the result."""
        folder = self._config.out / "models" / slug(soup.name)
        names = tuple(member.name for member in soup.members)
        loaders = [partial(self._build_member, member) for member in soup.members]
        if soup.held_out is None:
            model = soup_classifiers(load() for load in loaders)
            report = Soup(soup.name, folder / MODEL_FILE, names, names)
        else:
            cache = self._config.out / INTERPOLATED_FOLDER / slug(soup.name)
            load_config = LoadConfig(cache, encoding=self._config.encoding)
            held_out = HeldOutAccuracy(soup.held_out, load_config, self._progress)
            self._check_held_out(soup, loaders[0](), held_out)
            try:
                greedy = greedy_soup(loaders, held_out.compute)
            finally:
                rmtree(cache, ignore_errors=True)
            model, trials = greedy.classifier, greedy.trials
            members = tuple(names[trial.index] for trial in trials if trial.accepted)
            n_images = held_out.n_images
            report = Soup(soup.name, folder / MODEL_FILE, members, names, trials, n_images)
        model = soup.label(model)
        save_classifier(report.path, model)
        with atomic_write(folder / "soup.json") as tmp_path:
            tmp_path.write_text(report.as_json() + "\n", encoding="utf-8")
        model.encoder.to(self._config.device)
        return model

    def _build_member(self, member: StudyModel) -> Classifier:
        model = self._build(member)
        self._loaded.clear()
        return model

    def _check_held_out(
        self, soup: StudyModel, member: Classifier, held_out: HeldOutAccuracy
    ) -> None:
        """Raise a ValueError if a greedy soup is chosen on images that it is measured on."""
        chosen_on, (measured, _) = held_out.find_images(member), self._eval_sets(member)
        files = {path for images in measured.image_sets for path in _iter_paths(images)}
        shared = sum(path in files for path in _iter_paths(chosen_on))
        if shared:
            raise ValueError(
                f"{shared} of {len(chosen_on)} held-out images in {soup.held_out} are images that "
                "models are measured on: give others."
            )

    def _load(self, source: str) -> Classifier:
        if source not in self._loaded:
            prompts = self._load_prompts()
            loaded = load_model(
                source,
                model_from=self._config.model_from,
                prompts=prompts or "imagenet",
                device=self._config.device,
                cache=self._config.out / "heads",
                progress=partial(self._progress, "encode the class names"),
            )
            if prompts is not None and self._config.study_config.classnames is not None:
                loaded = name_classes(loaded, prompts.classes)
            self._loaded[source] = loaded
        return self._loaded[source]

    def _load_prompts(self) -> Prompts | None:
        study = self._config.study_config
        if study.classnames is None and study.templates is None:
            return None
        classnames = study.resolve_path(study.classnames) if study.classnames else None
        path = study.resolve_path(study.templates) if study.templates else None
        templates = path if path is not None and path.is_file() else study.templates
        return load_prompts(classnames, templates)

    def _train_from_scratch(self, study_model: StudyModel) -> Classifier:
        overrides = self._config.study_config.train
        recipe, classes = apply_overrides(SUPERVISED, overrides), self._training_classes()
        start = random_classifier(
            study_model.source, classes, name=study_model.name, seed=recipe.seed
        )
        return self._train(study_model, start, recipe, overrides)

    def _finetune(self, study_model: StudyModel, classifier: Classifier) -> Classifier:
        overrides = self._config.study_config.finetune
        recipe = apply_overrides(FINETUNE, overrides)
        if not classifier.classes:  # an encoder that learned without labels or words
            classes, features = self._training_classes(), classifier.head.weight.shape[1]
            head = random_head(features, len(classes), seed=recipe.seed)
            classifier = replace(classifier, head=head, classes=classes)
        classifier = replace(classifier, head=add_zero_bias(classifier.head))
        return self._train(study_model, classifier, recipe, overrides)

    def _training_classes(self) -> tuple[str, ...]:
        return tuple(list_folders(training_folder(self._config.data)))

    def _train(
        self,
        study_model: StudyModel,
        start: Classifier,
        recipe: EpochRecipe,
        overrides: "Overrides",
    ) -> Classifier:
        config = self._config
        compute = ComputeConfig(
            config.device,
            micro_batch=min(overrides.micro_batch or 64, recipe.batch_size),
            workers=config.encoding.workers,
            precision=overrides.precision or "float32",
        )
        start = study_model.label(start)
        train_data = find_train_data(config.data, start.classes)
        # Other weights, images or recipes are another run, in a folder of its own.
        key = run_key(start, train_data, recipe, compute)[:8]
        folder = config.out / "models" / f"{slug(study_model.name)}-{key}"
        trained = train_on_images(
            start, train_data, recipe, folder, compute_config=compute, progress=self._progress
        )
        trained.encoder.to(config.device)
        return trained

    def _measure(self, study_model: StudyModel, endpoint: _FamilyEndpoint) -> list[Record]:
        model = endpoint.model
        eval_sets, hashes = self._eval_sets(model)
        members = [member.name for member in study_model.members]
        baselines = self._baselines(model, eval_sets, [model.name, *members])
        fingerprint, cache = str(endpoint.key["encoder"]), self._config.cache
        inputs = model, eval_sets, baselines.baselines, cache
        compute = partial(self._measure_model, *inputs, fingerprint=fingerprint)
        key = self._key("scan", hashes, baselines.baselines, model=endpoint.key)
        records = self._cached_records(study_model.name, key, compute)
        records = add_robustness_note(records, baselines.note)
        return [*baselines.records, *study_model.tag(records)]

    def _interpolate(
        self, unit: StudyUnit, endpoints: Sequence[_FamilyEndpoint], alpha: float
    ) -> list[Record]:
        zero_shot, finetuned = (endpoint.model for endpoint in endpoints)
        eval_sets, hashes = self._eval_sets(zero_shot)
        if eval_sets.in_distribution.labels is None:
            need = missing_labels(zero_shot, eval_sets.in_distribution)
            raise ValueError(f"Interpolated models need {need}; or give no alphas.")
        available = self._baselines(zero_shot, eval_sets, [zero_shot.name, finetuned.name])
        baselines = available.baselines
        name = interpolation_name(unit, alpha)
        cache = self._config.out / INTERPOLATED_FOLDER / slug(name)

        def compute() -> list[Record]:
            model = replace(interpolate_classifiers(zero_shot, finetuned, alpha), name=name)
            inputs, measurements = (eval_sets, baselines, cache), INTERPOLATION_MEASUREMENTS
            return self._measure_model(model, *inputs, measurements=measurements)

        ends = [endpoint.key for endpoint in endpoints]
        key = self._key("along", hashes, baselines, ends=ends, alpha=alpha)
        try:
            records = self._cached_records(name, key, compute)
        finally:
            rmtree(cache, ignore_errors=True)  # as many gigabytes again for each alpha
        return unit.first.tag(add_robustness_note(records, available.note), alpha=alpha)

    def _compare_layers(
        self, unit: StudyUnit, endpoints: Sequence[_FamilyEndpoint], cka_config: "Cka"
    ) -> list[Record]:
        zero_shot, finetuned = (endpoint.model for endpoint in endpoints)
        eval_sets, hashes = self._eval_sets(zero_shot)

        def compute() -> list[Record]:
            inputs = finetuned, zero_shot, self._readable_sets(zero_shot, eval_sets), cka_config
            workers = self._config.encoding.workers
            return layer_cka_records(*inputs, workers=workers, progress=self._progress)

        ends = [endpoint.key for endpoint in endpoints]
        key = self._key("cka", hashes, (), ends=ends, how=cka_config.model_dump())
        return unit.first.tag(self._cached_records(layer_cka_name(unit), key, compute))

    def _readable_sets(self, model: Classifier, eval_sets: EvalSets) -> EvalSets:
        """Return the sets without the images that measuring skipped."""
        encoding = self._config.encoding
        if not encoding.skip_unreadable:
            return eval_sets
        id_set, *shifts = (
            images.exclude(
                cached_activations(model, images, self._config.cache, encoding=encoding).skipped
            )
            for images in (eval_sets.in_distribution, *eval_sets.shifts)
        )
        return replace(eval_sets, in_distribution=id_set, shifts=tuple(shifts))

    def _eval_sets(
        self, model: Classifier, *, signatures: bool = True
    ) -> tuple[EvalSets, dict[str, object]]:
        """Return the images for a model's classes, and their hashes; found once.

        Without signatures, these are the images of effective robustness alone.
        """
        cache_key = model.classes, signatures
        if cache_key not in self._eval_set_cache:
            config, study = self._config, self._config.study_config
            concepts = study.resolve_path(study.concepts) if study.concepts else None
            eval_sets = find_eval_sets(
                model,
                config.data,
                shifts={shift.name: study.resolve_path(shift.folder) for shift in study.shifts},
                concepts=concepts if signatures else False,
                exclude=[config.out, *([concepts] if concepts else [])],
                progress=self._progress,
            )
            if not signatures:
                eval_sets = replace(eval_sets, extra_shifts=())
            eval_sets = eval_sets.with_fingerprints()
            hashes = eval_sets_key(eval_sets)
            if config.cache_images:
                eval_sets = eval_sets.cached()
            self._eval_set_cache[cache_key] = eval_sets, hashes
        return self._eval_set_cache[cache_key]

    def _baselines(
        self, model: Classifier, eval_sets: EvalSets, names: Sequence[str]
    ) -> AvailableBaselines:
        """Return the baselines for a model; the study's own leaves out the models of a name."""
        study = self._config.study_config
        if self._config.baseline is not None and eval_sets.shifts:
            available = self._config.baseline.leave_out(*names)
        else:
            named = study.baseline if isinstance(study.baseline, str) else None
            own = load_baseline(named, study.base) if named else None
            available = baselines_for(model.classes, eval_sets, own=own)
        if available.missing and eval_sets.shifts:
            message = f"{model.name} has no effective robustness: it needs {available.missing}."
            warnings.warn(message, stacklevel=2)
        return available

    def _key(
        self,
        kind: str,
        hashes: Mapping[str, object],
        baselines: Sequence[Baseline],
        **inputs: object,
    ) -> str:
        settings = settings_key(self._config.encoding, self._config.device)
        lines = baselines_key(baselines)
        return record_key(kind, sets=hashes, lines=lines, settings=settings, **inputs)

    def _cached_records(
        self, name: str, key: str, compute: Callable[[], Sequence[Record]]
    ) -> Records:
        """Read the records of a key; compute and write them if there are none, or damaged ones."""
        path = records_file(self._config.out, name)
        try:
            if (records := read_keyed_records(path, key)) is not None:
                return records
        except ValueError as error:
            warnings.warn(f"{error} What it held is measured again.", stacklevel=2)
        write_records(path, compute(), key=key)
        return read_records(path)


def _iter_paths(images: ImageSet) -> Iterator[Path]:
    return (images.path(index).resolve() for index in range(len(images)))


def accuracy_name(model: str) -> str:
    """Return the name of the accuracy of a model of the baseline."""
    return f"{model}, accuracy"


def interpolation_name(unit: StudyUnit, alpha: float) -> str:
    """Return the name of a model between the two of a family."""
    first, second = unit.models
    return f"{first.name} to {second.name}, alpha {alpha:g}"


def layer_cka_name(unit: StudyUnit) -> str:
    """Return the name of the layer comparison of a family's two models."""
    first, second = unit.models
    return f"{first.name} to {second.name}, layers"


def apply_overrides(recipe: EpochRecipe, overrides: "Overrides") -> EpochRecipe:
    """Return a recipe with the changes of a study config; compute settings are no part."""
    fields = overrides.set_fields()
    return replace(recipe, **{key: fields[key] for key in fields if hasattr(recipe, key)})


def records_file(out: Path, name: str) -> Path:
    """Return the path of the records of one piece of work, which no other name has.

    >>> records_file(Path("s"), "ViT-B-16,openai").name
    'ViT-B-16_openai-28cfe8.parquet'
    """
    return out / RECORDS_FOLDER / f"{slug(name)}.parquet"


def slug(name: str) -> str:
    """Return a name that a file can have, with six digits of a hash against collisions."""
    return f"{sub(r'[^A-Za-z0-9.-]+', '_', name)[:80]}-{sha256(name.encode()).hexdigest()[:6]}"


@contextmanager
def _collect_failures(task: str, result: UnitResult) -> Generator[None]:
    """Note a failure of one model, so that the study goes on."""
    try:
        yield
    except _MODEL_ERRORS as error:
        result.failures.append(Failure(task, one_line(error)))
