"""Measurement of one model: activations in, records of every signature out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from .._progress import ProgressCallback, no_progress
from ..activations import Activations, EncodeConfig, cached_activations
from ..data.coverage import describe_coverage
from ..data.image_set import ImageSet
from ..estimation.methods import METHODS, Method
from ..models.classifier import Classifier
from ..quantities import QUANTITIES, Measurement, Quantity, plugin_measurements
from ..records import Record
from ..signatures.anisotropy import UnitMoments, read_unit_moments
from ..signatures.decomposition import has_class_variation
from ..signatures.directions import Directions, privileged_directions
from ..signatures.effective_robustness import Baseline
from ..signatures.kurtosis import OutlierFeatures, outlier_features
from .eval_sets import EvalSets
from .records.accuracy import Batches, accuracy_records, join_notes, model_row
from .records.anisotropy import anisotropy_records, modality_gap_records
from .records.concepts import concept_count_records, concept_records
from .records.directions import ablation_records, direction_records, outlier_energy_records
from .records.estimation import PATH_METHODS, estimation_records
from .records.kurtosis import centered_kurtosis_record, kurtosis_records, outlier_records
from .records.pruning import pruning_records
from .records.spectrum import spectrum_records

MAX_MEMORY = 1 << 31  # bytes of activations to hold in memory; the rest stays memory-mapped


@dataclass(frozen=True)
class MeasureContext:
    """A model, its evaluation sets and their activations: the input of a `Measurement`.

    Attributes:
        classifier: The model.
        eval_sets: The images, without those that could not be read.
        activations: Activations of each set by its name, in batches (image, feature).
        baselines: Baselines of effective robustness; pruning curves use the first.
    """

    classifier: Classifier
    eval_sets: EvalSets
    activations: Mapping[str, Batches]
    baselines: Sequence[Baseline] = ()

    @cached_property
    def row(self) -> partial[Record]:
        """`Record` with the fields that all records of the model share."""
        return model_row(self.classifier)

    @property
    def id_activations(self) -> Batches:
        """Activations of the in-distribution images."""
        return self.activations[self.eval_sets.in_distribution.name]

    @property
    def has_several_images(self) -> bool:
        """Whether there is more than one image; centering a single image gives 0."""
        return sum(map(len, self.id_activations)) > 1

    @cached_property
    def directions(self) -> Directions:
        """Singular directions of the head, with their importance."""
        head = self.classifier.head
        return privileged_directions(head.weight, self.id_activations, precision=head.precision)

    @cached_property
    def centered_directions(self) -> Directions | None:
        """Class-centered directions; None for one image, or if all classes have equal weights."""
        head = self.classifier.head
        if not (self.has_several_images and has_class_variation(head.weight, head.precision)):
            return None
        return privileged_directions(
            head.weight, self.id_activations, class_centered=True, precision=head.precision
        )

    @cached_property
    def outliers(self) -> OutlierFeatures:
        """Outlier features of the in-distribution images."""
        return outlier_features(self.id_activations)

    @cached_property
    def unit_moments(self) -> UnitMoments:
        """Sums over the in-distribution images of unit activations and their products."""
        return read_unit_moments(self.id_activations)

    def supports(self, need: str) -> bool:
        """Return whether the data has what a measurement needs."""
        sets, has_head = self.eval_sets, bool(self.classifier.classes)
        has_labels = has_head and sets.in_distribution.labels is not None
        return {
            "images": True,
            "head": has_head,
            "labels": has_labels,
            "shifts": has_labels and bool(sets.shifts),
            "concepts": sets.concepts is not None,
        }[need]


def _accuracy(context: MeasureContext) -> list[Record]:
    return accuracy_records(
        context.row, context.classifier, context.eval_sets, context.activations, context.baselines
    )


def _kurtosis(context: MeasureContext) -> list[Record]:
    return kurtosis_records(context.row, context.eval_sets, context.activations)


def _outliers(context: MeasureContext) -> list[Record]:
    name, activations = context.eval_sets.in_distribution.name, context.id_activations
    records: list[Record] = []
    if context.has_several_images:
        records.append(centered_kurtosis_record(context.row, name, activations))
    return records + outlier_records(context.row, name, context.outliers)


def _anisotropy(context: MeasureContext) -> list[Record]:
    name = context.eval_sets.in_distribution.name
    if not context.has_several_images:
        return []
    return anisotropy_records(context.row, name, context.unit_moments)


def _spectrum(context: MeasureContext) -> list[Record]:
    name = context.eval_sets.in_distribution.name
    return spectrum_records(context.row, name, context.id_activations)


def _modality_gap(context: MeasureContext) -> list[Record]:
    if context.classifier.role != "zero-shot":  # only its head is made of text
        return []
    name, weight = context.eval_sets.in_distribution.name, context.classifier.head.weight
    return modality_gap_records(context.row, name, context.unit_moments, weight)


def _directions(context: MeasureContext) -> list[Record]:
    records: list[Record] = []
    for directions in filter(None, (context.directions, context.centered_directions)):
        records += direction_records(context.row, directions, context.id_activations)
        records += outlier_energy_records(context.row, directions, context.outliers)
    images, head = context.eval_sets.in_distribution, context.classifier.head
    h, directions = context.id_activations, context.directions
    return records + ablation_records(context.row, head, images, h, directions)


def _pruning(context: MeasureContext) -> list[Record]:
    inputs = context.row, context.classifier, context.eval_sets, context.activations
    return pruning_records(*inputs, context.directions, context.baselines)


def _concepts(context: MeasureContext) -> list[Record]:
    concepts = context.eval_sets.concepts
    assert concepts is not None  # noqa: S101 (needs="concepts")
    directions = context.directions if context.supports("head") else None
    activations = context.activations[concepts.images.name]
    return concept_records(context.row, concepts, activations, directions)


def _concept_counts(context: MeasureContext) -> list[Record]:
    concepts = context.eval_sets.concepts
    if concepts is None or not context.supports("head"):
        return []
    activations = context.activations[concepts.images.name]
    return concept_count_records(context.row, concepts, activations, context.directions)


def _estimation(context: MeasureContext, methods: Sequence[Method] = METHODS) -> list[Record]:
    sets = context.eval_sets, context.activations
    head, baselines = context.classifier.head, context.baselines
    return list(estimation_records(context.row, head, *sets, baselines, methods))


def _quantities(*names: str) -> tuple[Quantity, ...]:
    return tuple(QUANTITIES[name] for name in names)


_DIRECTION_QUANTITIES = (
    "head_rank", "singular_value", "head_importance", "encoder_importance", "importance",
    "importance_ratio", "importance_ratio_to_others", "decision_share", "flipped_predictions",
    "outlier_energy", "spearman_sigma_importance",
)  # fmt: skip
_ACCURACY = Measurement(_quantities("accuracy", "effective_robustness"), "labels", _accuracy)
_KURTOSIS = Measurement(_quantities("activation_kurtosis"), "images", _kurtosis)
MEASUREMENTS = (
    _ACCURACY,
    _KURTOSIS,
    Measurement(_quantities("outlier_count", "outlier_share"), "images", _outliers),
    Measurement(_quantities("anisotropy", "anisotropy_share"), "images", _anisotropy),
    Measurement(_quantities("rankme", "spectrum_slope", "spectrum_fit"), "images", _spectrum),
    Measurement(
        _quantities("modality_gap", "modality_gap_cosine", "modality_gap_share"),
        "head",
        _modality_gap,
    ),
    Measurement(_quantities(*_DIRECTION_QUANTITIES), "head", _directions),
    Measurement(_quantities("pruned_accuracy", "pruned_effective_robustness"), "labels", _pruning),
    Measurement(_quantities("estimated_accuracy"), "shifts", _estimation),
    Measurement(
        _quantities("unique_concepts", "polysemanticity", "best_average_precision", "top_concept"),
        "concepts",
        _concepts,
    ),
)
"""Measurements of a scan, in the order of the paper's sections."""

ACCURACY_MEASUREMENTS = (_ACCURACY,)
"""Measurements of a model that a baseline is fitted on."""

INTERPOLATION_MEASUREMENTS = (
    _ACCURACY,
    _KURTOSIS,
    Measurement(
        _quantities("estimated_accuracy"), "shifts", partial(_estimation, methods=PATH_METHODS)
    ),
    Measurement(_quantities("unique_concepts", "polysemanticity"), "concepts", _concept_counts),
)
"""Measurements of interpolated models: the paper's (Wise-FT, Appendix G), and estimates."""


def measure_model(  # noqa: PLR0913
    classifier: Classifier,
    eval_sets: EvalSets,
    baselines: Sequence[Baseline],
    cache: Path,
    *,
    measurements: Sequence[Measurement] | None = None,
    encoding: EncodeConfig | None = None,
    progress: ProgressCallback = no_progress,
    fingerprint: str | None = None,
) -> list[Record]:
    """Measure, for one model, every signature that the data supports."""
    fingerprint = fingerprint or classifier.fingerprint
    encode = partial(
        cached_activations, classifier, cache=cache, encoding=encoding, fingerprint=fingerprint
    )
    task = partial(progress, f"encode {classifier.name}")
    activations, skipped = _encode_sets(eval_sets, encode, task)
    notes = {
        images.name: note
        for images in eval_sets.image_sets
        if (note := _describe_limits(images, len(skipped[images.name])))
    }
    readable, batches = _exclude_skipped(eval_sets, skipped), _load_into_memory(activations)
    context = MeasureContext(classifier, readable, batches, baselines)
    plugins = plugin_measurements() if measurements is None else {}
    records: list[Record] = []
    for measurement in MEASUREMENTS if measurements is None else measurements:
        if context.supports(measurement.needs):
            records += (
                _with_set_notes(record, measurement.needs, readable, notes)
                for record in measurement.measure(context)
            )
    for name, plugin in plugins.items():
        if context.supports(plugin.needs):
            records += (
                _with_set_notes(record, plugin.needs, readable, notes)
                for record in _measure_plugin(name, plugin, context)
            )
    return records


def _describe_limits(images: ImageSet, n_skipped: int) -> str:
    """Return a note on missing and unreadable images of a dataset; empty if there are none."""
    coverage = describe_coverage(images)
    part = coverage.note if coverage.title else f"{images.name}: {coverage.note}"
    skipped = f"{n_skipped:,} of {len(images):,} images of {images.name} could not be read"
    notes = (part, coverage.note), (f"{skipped} and were skipped", n_skipped)
    return "; ".join(note for note, is_needed in notes if is_needed)


def _measure_plugin(name: str, plugin: Measurement, context: MeasureContext) -> list[Record]:
    try:
        records = list(plugin.measure(context))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The plug-in {name} failed ({type(error).__name__}: {reason}): update or uninstall it."
        ) from error
    own = {quantity.name for quantity in plugin.quantities}
    for record in records:
        if not isinstance(record, Record) or record.quantity not in own:  # pyright: ignore[reportUnnecessaryIsInstance]
            quantity = getattr(record, "quantity", type(record).__name__)
            raise ValueError(
                f"The plug-in {name} returned {quantity!r}, but declares {', '.join(sorted(own))}."
            )
    return records


def _encode_sets(
    eval_sets: EvalSets, encode: Callable[..., Activations], progress: Callable[[int, int], object]
) -> tuple[dict[str, Batches], dict[str, tuple[int, ...]]]:
    """Return the activations of all sets, and the images that were skipped, by set."""
    n_done, total = 0, sum(map(len, eval_sets.image_sets))
    activations: dict[str, Batches] = {}
    skipped: dict[str, tuple[int, ...]] = {}
    for images in eval_sets.image_sets:

        def report(done: int, _: int, start: int = n_done) -> None:
            progress(start + done, total)

        fingerprint = eval_sets.fingerprints.get(images.name)
        cached = encode(images=images, progress=report, images_fingerprint=fingerprint)
        activations[images.name], skipped[images.name] = cached.batches, cached.skipped
        n_done += len(images)
        progress(n_done, total)
    return activations, skipped


def _load_into_memory(activations: Mapping[str, Batches]) -> dict[str, Batches]:
    """Load the sets of memory-mapped activations that fit into `MAX_MEMORY` bytes."""
    loaded, room = dict(activations), MAX_MEMORY
    for name, batches in activations.items():
        room -= sum(batch.nbytes for batch in batches)
        if room >= 0:
            loaded[name] = tuple(batch.clone() for batch in batches)
    return loaded


def _exclude_skipped(eval_sets: EvalSets, skipped: Mapping[str, tuple[int, ...]]) -> EvalSets:
    concepts = eval_sets.concepts
    readable = eval_sets.map_labeled(lambda images: images.exclude(skipped[images.name]))
    return replace(readable, concepts=concepts and concepts.exclude(skipped[concepts.images.name]))


def _with_set_notes(
    record: Record, needs: str, eval_sets: EvalSets, notes: Mapping[str, str]
) -> Record:
    """Add the notes of the sets that a record was computed from."""
    if needs == "concepts":
        names = [eval_sets.image_sets[-1].name]
    elif record.dataset != "shifts":
        names = [record.dataset or eval_sets.in_distribution.name]
    else:
        names = [shift.name for shift in eval_sets.shifts]
        if record.quantity.endswith("effective_robustness"):
            names.insert(0, eval_sets.in_distribution.name)
    own = [notes[name] for name in names if name in notes]
    return replace(record, note=join_notes(record.note, *own)) if own else record
