"""Models ranked on images without labels: estimates, pairs, the choice, the labels it needs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .._io import atomic_write
from .._progress import ProgressCallback, no_progress
from .._tabular import Tabular
from .._text import format_csv, replace_control_characters, replace_surrogates
from ..data.image_folder import read_unlabeled
from ..data.image_set import ImageSet
from ..estimation.accuracy import AccuracyEstimate, estimate_from_scores
from ..estimation.agreement import AgreementEstimate, agreement_on_the_line
from ..estimation.comparison import (
    Choice,
    JointEstimate,
    LabelRequest,
    PairComparison,
    choose_model,
    compare_pairs,
    request_labels,
)
from ..estimation.formulas import FORMULAS
from ..estimation.methods import DEFAULT_RANK_BY, FITTED_METHODS, METHODS, Method, RankBy
from ..estimation.shift_errors import MIN_SHIFTS
from ..models.classifier import Classifier
from ..signatures.directions import privileged_directions
from ..signatures.kurtosis import activation_kurtosis
from ..statistics.intervals import accuracy_interval
from ..weights.interpolation import interpolate_classifiers
from .baselines import baselines_for
from .eval_sets import EvalSets, find_eval_sets
from .merge import LoadConfig
from .target_labels import TargetLabels, read_target_labels
from .target_logits import TargetLogits, find_duplicates, read_target_logits

SHOWN_METHODS: tuple[Method, ...] = ("line", "confidence", "atc-entropy")
"""Methods that a ranking shows; `METHODS` are all."""

PATH_ALPHAS = tuple(k / 10 for k in range(11))
LEVEL = 0.9
ESTIMATES_FILE = "estimates.json"
TABLE_FILE = "estimates.csv"
LABELS_FILE = "images-to-label.txt"


@dataclass(frozen=True)
class RankConfig:
    """Models, images and options of a ranking."""

    # ids or paths, of which ``A..B`` is the Wise-FT path between two, or classifiers
    models: Sequence[str | Classifier]
    data: Path
    target: Path
    load_config: LoadConfig
    methods: Sequence[Method] = METHODS
    rank_by: RankBy = DEFAULT_RANK_BY
    shifts: Mapping[str, Path] = field(default_factory=dict[str, Path])
    target_labels: Path | None = None


@dataclass(frozen=True)
class Interval:
    """A number with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankedModel:
    """Estimates and signatures of one model."""

    model: str
    role: str
    group: str  # models of a group are not independent
    id_accuracy: Interval
    estimates: Mapping[str, AccuracyEstimate]
    signatures: Mapping[str, float]  # by title


@dataclass(frozen=True, repr=False)
class RankResult(Tabular):
    """Models ranked on a target without labels.

    Attributes:
        models: The models, the best first.
        target: Name of the target.
        images: Number of its images.
        id_images: Number of labeled in-distribution images.
        shifts: Names of the labeled shifts.
        ranked_by: What the order is by: ``id-accuracy``, a method, or ``labels``.
        pairs: Comparison of each pair of models, by their places in ``models``.
        choice: The best model and its contenders; None for a single model.
        request: Labels that would tell the contenders apart; None where nothing needs them.
        files_to_label: Files of these images, the first ones first.
        agreement: Agreement on the line; None for fewer than three models.
        notes: What a reader must know beside the numbers.
    """

    models: Sequence[RankedModel]
    target: str
    images: int
    id_images: int
    shifts: Sequence[str]
    ranked_by: str
    pairs: Sequence[PairComparison]
    choice: Choice | None
    request: LabelRequest | None
    files_to_label: Sequence[str]
    agreement: AgreementEstimate | None
    notes: Sequence[str]

    @property
    def chosen(self) -> str | None:
        """Name of the model to take; None while several may be the best."""
        if self.choice is None or not self.choice.is_clear:
            return None
        return self.models[self.choice.best].model

    def answer(self) -> list[str]:
        """Return in sentences what to choose, or which labels would tell."""
        if self.choice is None:
            return []
        names = [model.model for model in self.models]
        best, *rivals = (names[place] for place in self.choice.contenders)
        loss = 100 * self.choice.expected_regret
        cost = f"Expected loss against the truly best model: {loss:.1f} points."
        if not rivals:
            return [f"Choice: {best}.", cost]
        others = ", ".join(rivals[:3]) + (f" and {len(rivals) - 3} more" if rivals[3:] else "")
        lines = [f"No choice: {best} cannot be told from {others}.", cost]
        if self.request is not None and self.request.images:
            lines.append(
                f"Label the first {self.request.images:,} images of {LABELS_FILE}, on which these "
                "models differ, and repeat with --target-labels FILE."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-like values; NaN is None."""
        names = [model.model for model in self.models]
        choice = self.choice
        content = {
            "target": {"name": self.target, "images": self.images},
            "id_images": self.id_images,
            "shifts": list(self.shifts),
            "ranked_by": self.ranked_by,
            "level": LEVEL,
            "models": [
                {
                    **{key: getattr(model, key) for key in ("model", "role", "group")},
                    "id_accuracy": asdict(model.id_accuracy),
                    "estimates": [vars(estimate) for estimate in model.estimates.values()],
                    "signatures": dict(model.signatures),
                }
                for model in self.models
            ],
            "pairs": [
                {
                    **asdict(pair),
                    "first": names[pair.first],
                    "second": names[pair.second],
                    "distinguishable": pair.is_distinguishable,
                }
                for pair in self.pairs
            ],
            "choice": self.chosen,
            "contenders": [names[place] for place in choice.contenders] if choice else [],
            "expected_regret": choice.expected_regret if choice else None,
            "labels_needed": self.request.images if self.request else 0,
            "images_to_label": list(self.files_to_label),
            "agreement": None
            if self.agreement is None
            else {
                "r_squared": self.agreement.r_squared,
                "r_squared_interval": self.agreement.r_squared_interval,
                "refusal": self.agreement.refusal,
            },
            "notes": list(self.notes),
        }
        return _replace_nan(content)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the columns of a table with a row for each model and method."""
        rows: list[tuple[object, ...]] = []
        for model in self.models:
            accuracy = model.id_accuracy
            ends = accuracy.value, accuracy.low, accuracy.high
            rows.append((model.model, model.role, "id-accuracy", *ends, self.id_images, "", ""))
            rows += [
                (model.model, model.role, e.method, e.value, e.low, e.high, e.n, e.refusal, e.note)
                for e in model.estimates.values()
            ]
        names = ("model", "role", "method", "value", "low", "high", "n", "refusal", "note")
        return dict(zip(names, zip(*rows, strict=True), strict=True))

    def describe(self) -> str:
        """Return the answer in a few words."""
        answer = self.answer() or [f"{len(self.models)} model on {self.images:,} images"]
        return answer[0]

    def to_csv(self) -> str:
        """Return the table as CSV."""
        columns = self.columns()
        return format_csv(list(columns), zip(*columns.values(), strict=True))


def rank_models(config: RankConfig, *, progress: ProgressCallback = no_progress) -> RankResult:
    """Estimate the accuracy of models on images without labels, and rank them."""
    ranking = _Ranking(config, progress)
    for classifier, group in _load_models(config, progress):
        ranking.add(classifier, group)
    result = ranking.finish()
    for name, text in (
        (ESTIMATES_FILE, result.to_json()),
        (TABLE_FILE, result.to_csv()),
        (LABELS_FILE, "".join(f"{file}\n" for file in result.files_to_label)),
    ):
        with atomic_write(config.load_config.out / name) as tmp_path:
            tmp_path.write_text(replace_surrogates(text), encoding="utf-8")
    return result


def _load_models(
    config: RankConfig, progress: ProgressCallback
) -> Iterator[tuple[Classifier, str]]:
    """Load one model at a time, each with the group of those that it depends on."""
    load = config.load_config.load
    for name in config.models:
        if isinstance(name, Classifier):
            yield name, name.name
            continue
        first, dots, last = name.partition("..")
        is_path = dots and first and last and not Path(name).exists()
        if not is_path:
            yield load(name, progress), name
            continue
        ends = load(first, progress), load(last, progress)
        for alpha in PATH_ALPHAS:
            is_end = alpha in {0, 1}
            yield ends[int(alpha)] if is_end else interpolate_classifiers(*ends, alpha), name


@dataclass(frozen=True, eq=False)
class _Entry:
    """One model, with what its estimates and comparisons are made of."""

    ranked: RankedModel
    target_predictions: NDArray[np.int64]
    target_confidence: NDArray[np.float64]
    id_predictions: NDArray[np.int64]
    id_labels: NDArray[np.int64]
    rank_value: float
    id_influence: NDArray[np.float64]
    target_influence: NDArray[np.float64]
    shift_errors: NDArray[np.float64]


class _Ranking:
    """Models that are added one at a time; the images are found once."""

    def __init__(self, config: RankConfig, progress: ProgressCallback) -> None:
        self._config, self._progress = config, progress
        self._entries: list[_Entry] = []
        self._classes: tuple[str, ...] = ()
        self._images: tuple[EvalSets, ImageSet] | None = None
        self._notes: list[str] = []

    def add(self, classifier: Classifier, group: str) -> None:
        """Estimate the accuracy of one model."""
        eval_sets, target = self._find_images(classifier)
        load_config = self._config.load_config
        logits = read_target_logits(classifier, eval_sets, target, load_config, self._progress)
        estimates = self._estimate(classifier, logits, eval_sets)
        source = logits.source
        count, n = int(source.is_correct.sum()), len(source)
        accuracy = Interval(count / n, *accuracy_interval(count, n, level=LEVEL))
        ranked = RankedModel(
            replace_surrogates(classifier.name),
            classifier.role,
            group,
            accuracy,
            estimates,
            _measure_signatures(classifier, logits),
        )
        value, id_influence, target_influence, errors = self._rank_inputs(logits)
        scores = logits.target.scores()
        self._entries.append(
            _Entry(
                ranked,
                scores.predictions,
                scores.confidence,
                source.scores().predictions,
                source.known_labels,
                value,
                id_influence,
                target_influence,
                errors,
            )
        )

    def _find_images(self, classifier: Classifier) -> tuple[EvalSets, ImageSet]:
        if not classifier.classes:
            raise ValueError(f"{classifier.name} has no head: estimates need logits.")
        if self._images is None:
            out, target = self._config.load_config.out, self._config.target
            eval_sets = find_eval_sets(
                classifier,
                self._config.data,
                shifts=self._config.shifts or None,
                concepts=False,
                exclude=[out, target],
                progress=self._progress,
            ).with_fingerprints()
            name = f"target {target.resolve().name}"
            images = read_unlabeled(target, name=name, exclude=[out])
            self._images, self._classes = (eval_sets, images), classifier.classes
            self._note_duplicates(images, eval_sets.in_distribution)
        if classifier.classes != self._classes:
            raise ValueError(
                f"{classifier.name} has other classes than the models before it: rank models "
                "of the same classes."
            )
        return self._images

    def _note_duplicates(self, target: ImageSet, id_images: ImageSet) -> None:
        if duplicates := find_duplicates(target, id_images):
            self._notes.append(
                f"{len(duplicates)} of the {len(target):,} target images are in-distribution "
                f"images too, such as {replace_control_characters(duplicates[0])}: estimates "
                "lean towards the ID accuracy"
            )

    def _estimate(
        self, classifier: Classifier, logits: TargetLogits, eval_sets: EvalSets
    ) -> dict[str, AccuracyEstimate]:
        baselines = baselines_for(classifier.classes, eval_sets).baselines
        estimates: dict[str, AccuracyEstimate] = {}
        for method in self._config.methods:
            if method == "line" and not baselines:
                continue
            if method in FITTED_METHODS and len(logits.shifts) < MIN_SHIFTS:
                continue
            estimates[method] = estimate_from_scores(
                logits.source,
                logits.target,
                method=method,
                labeled_shifts=logits.shifts,
                baseline=baselines[0] if baselines else None,
                level=LEVEL,
            )
        return estimates

    def _rank_inputs(
        self, logits: TargetLogits
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the value to rank by, what each image adds to it, and its errors on shifts."""
        source, target, method = logits.source, logits.target, self._config.rank_by
        if method == "id-accuracy":
            own = [(source.accuracy, images) for source, images in logits.shifts.values()]
            value = source.accuracy
            influences = source.is_correct.astype(np.float64), np.zeros(len(target), np.float64)
        else:
            formula, z = FORMULAS[method], float(ndtri((1 + LEVEL) / 2))
            raw = formula(source, target, z=z)
            own = [(formula(s, images, z=z).value, images) for s, images in logits.shifts.values()]
            value, influences = raw.value, (raw.id_influence, raw.target_influence)
        errors = [images.accuracy - estimate for estimate, images in own]
        return value, influences[0], influences[1], np.array(errors, dtype=np.float64)

    def finish(self) -> RankResult:
        """Compare the models, and choose among them."""
        eval_sets, target = self._images or _no_models()
        entries = sorted(self._entries, key=lambda entry: -entry.rank_value)
        ranked_by: str = self._config.rank_by
        if self._config.target_labels is None:
            joint = _join(entries)
            pairs = compare_pairs(joint)
        else:
            labels = read_target_labels(self._config.target_labels, target, self._classes)
            entries, joint = self._rank_by_labels(entries, labels)
            predictions = np.stack([entry.target_predictions for entry in entries])
            pairs = [labels.compare(predictions, pair) for pair in compare_pairs(joint)]
            ranked_by = "labels"
        choice = choose_model(joint, pairs) if len(entries) > 1 else None
        request = None
        if choice is not None and not choice.is_clear:
            places = list(choice.contenders)
            predictions = np.stack([entries[place].target_predictions for place in places])
            request = request_labels(predictions, joint.values[places])
        files = [target.files[image] for image in request.order] if request else []
        agreement, notes = self._agree(entries)
        ranked = [
            _with_agreement(entry.ranked, agreement, place, len(target))
            for place, entry in enumerate(entries)
        ]
        return RankResult(
            ranked,
            target.name.removeprefix("target "),
            len(target),
            len(entries[0].id_labels),
            [images.name for images in (*eval_sets.shifts, *eval_sets.extra_shifts)],
            ranked_by,
            pairs,
            choice,
            request,
            files,
            agreement,
            [*self._notes, *notes],
        )

    def _agree(self, entries: Sequence[_Entry]) -> tuple[AgreementEstimate | None, list[str]]:
        if len(entries) < 3:
            return None, []
        try:
            agreement = agreement_on_the_line(
                np.stack([entry.id_predictions for entry in entries]),
                entries[0].id_labels,
                np.stack([entry.target_predictions for entry in entries]),
                groups=[entry.ranked.group for entry in entries],
            )
        except ValueError as error:  # too few of them predict differently
            return None, [str(error)]
        return agreement, [agreement.note] if agreement.note else []

    def _rank_by_labels(
        self, entries: Sequence[_Entry], labels: TargetLabels
    ) -> tuple[list[_Entry], JointEstimate]:
        predictions = np.stack([entry.target_predictions for entry in entries])
        if labels.are_enough and not labels.is_selected(predictions):
            estimates = [
                labels.estimate(entry.target_predictions, entry.target_confidence, level=LEVEL)
                for entry in entries
            ]
            values = np.array([estimate.value for estimate in estimates])
            entries = [*map(_with_estimate, entries, estimates)]
        else:
            gains = [
                labels.compare(predictions, PairComparison(place, 0, 0.0, 0.0, 0.0)).difference
                for place in range(len(entries))
            ]
            values = entries[0].rank_value + np.array(gains)
            self._notes.append(
                "the labels are few, or of images on which the models differ: they tell the "
                "difference of two accuracies, and neither of them"
            )
        order = np.argsort(-values, kind="stable")
        return [entries[place] for place in order], labels.join(predictions[order], values[order])


def _no_models() -> tuple[EvalSets, ImageSet]:
    raise ValueError("No model is given: name one or more.")


def _measure_signatures(classifier: Classifier, logits: TargetLogits) -> dict[str, float]:
    """Measure the paper's signatures that need no label."""
    id_rows, target_rows = logits.id_activations, logits.target_activations
    directions = privileged_directions(
        classifier.head.weight, id_rows, precision=classifier.head.precision
    )
    return {
        "kurtosis, ID": float(activation_kurtosis(id_rows).mean()),
        "kurtosis, target": float(activation_kurtosis(target_rows).mean()),
        "importance ratio": directions.importance_ratio,
    }


def _join(entries: Sequence[_Entry]) -> JointEstimate:
    covariance = _covariance([entry.id_influence for entry in entries])
    covariance += _covariance([entry.target_influence for entry in entries])
    errors = np.stack([entry.shift_errors for entry in entries], axis=1)
    return JointEstimate(np.array([entry.rank_value for entry in entries]), covariance, errors)


def _covariance(influences: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the covariance of the means of what each image adds."""
    rows = np.stack(influences)
    centered = rows - rows.mean(axis=1, keepdims=True)
    return centered @ centered.T / rows.shape[1] ** 2


def _with_agreement(
    ranked: RankedModel, agreement: AgreementEstimate | None, place: int, n: int
) -> RankedModel:
    if agreement is None:
        return ranked
    estimate = AccuracyEstimate(
        float(agreement.values[place]),
        float(agreement.low[place]),
        float(agreement.high[place]),
        "agreement",
        n,
        agreement.note,
        agreement.refusal,
    )
    return replace(ranked, estimates={**ranked.estimates, "agreement": estimate})


def _with_estimate(entry: _Entry, estimate: AccuracyEstimate) -> _Entry:
    estimates = {**entry.ranked.estimates, estimate.method: estimate}
    return replace(entry, ranked=replace(entry.ranked, estimates=estimates))


def _replace_nan(value: Any) -> Any:
    """Return JSON-like values with None for NaN."""
    if isinstance(value, dict):
        return {key: _replace_nan(entry) for key, entry in value.items()}  # pyright: ignore
    if isinstance(value, (list, tuple)):
        return [_replace_nan(entry) for entry in value]  # pyright: ignore
    return None if isinstance(value, float) and np.isnan(value) else value
