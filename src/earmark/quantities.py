"""Registry of quantities: names, titles, units and variants, each in this file alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ._plugins import iter_plugins, plugin_name

if TYPE_CHECKING:
    from .records import Record

AP_THRESHOLD = 0.9  # from this average precision on, the paper counts a concept as encoded
MIN_POSITIVES = 20  # fewest positives of a concept in the counts without rare concepts
PAPER_COUNT: Mapping[str, object] = MappingProxyType({
    "threshold": AP_THRESHOLD,
    "variant": "",
    "control": "",
    "width": None,
    "min_positives": None,
})
"""Fields of the records that count concepts as the paper does, along any basis."""

SINGULAR_COUNT: Mapping[str, object] = MappingProxyType({"basis": "singular", **PAPER_COUNT})
"""Fields of the records that count concepts as the paper does, along singular directions."""

Unit = Literal["", "fraction", "points", "count"]
Reduction = Literal["", "largest over mean", "last", "kept at 0.8"]

TOP_DIRECTION = "top direction"
"""Stands for the coordinate of the direction of largest importance in `Variant.fields`."""


@dataclass(frozen=True)
class AuditSpec:
    """Treatment of a variant in the audit.

    Attributes:
        claimed_sign: Whether the paper claims that robust models have more of it. If not,
            the audit accepts a correlation of either sign.
        primary: Whether it is one of the paper's own three signatures.
        log_scale: Whether its logarithm is the predictor.
    """

    claimed_sign: bool = True
    primary: bool = False
    log_scale: bool = False


@dataclass(frozen=True)
class Variant:
    """Named selection of a quantity's records: a row of the summary, a table or the audit.

    Attributes:
        key: Name in files; empty for the paper's own variant.
        label: Name for a reader; ``{dataset}`` and ``{baseline}`` stand for the record's.
        fields: Values of `Record` fields that its records have.
        reduction: How several records become one number, unless the number is one record's.
        summary: Whether the summary of a scan shows it.
        audit: How the audit treats it, if it does.
    """

    key: str
    label: str
    fields: Mapping[str, object]
    reduction: Reduction = ""
    summary: bool = False
    audit: AuditSpec | None = None


@dataclass(frozen=True)
class Quantity:
    """Description of a measured quantity, on which summary, tables and audit draw.

    Attributes:
        name: Value of `Record.quantity`; those of other packages are ``package:name``.
        title: Name for a reader.
        section: Section of the summary and of the page.
        description: Meaning of the value, and of the other fields of its records.
        unit: ``fraction`` is shown in percent, ``points`` in percentage points.
        decimals: Number of digits after the decimal point; None for three significant digits,
            where values span decades.
        variants: Selections of its records, in order.
        paper_table: Number of the paper's table that prints it.
        curve: Whether it is measured for interpolated models (Wise-FT).
    """

    name: str
    title: str
    section: str
    description: str
    unit: Unit = ""
    decimals: int | None = 2
    variants: tuple[Variant, ...] = ()
    paper_table: int | None = None
    curve: bool = False

    def variant(self, key: str) -> Variant:
        """Return the variant of a key."""
        return next(variant for variant in self.variants if variant.key == key)


_AS_PAPER = {"variant": ""}
_CENTERED_ACTIVATIONS = {"variant": "centered"}
_NO_CLAIM = AuditSpec(claimed_sign=False)
_CENTERED = {"variant": "class-centered"}
_LARGEST_RATIO = AuditSpec(primary=True, log_scale=True)


def _controls(*, is_audited: bool) -> tuple[Variant, ...]:
    """Return the controls of a count of encoded concepts along singular directions."""
    rows = (
        ("matched", "with negatives of the concept's category", "matched", None, True),
        ("null", "expected under the permutation null", "null", None, False),
        ("excess", "beyond the permutation null", "excess", None, True),
        ("fdr", "after false-discovery control", "fdr", None, True),
        ("held_out", "on held-out images too", "held-out", None, True),
        ("common", "of concepts with 20 positives or more", "", MIN_POSITIVES, True),
        (
            "common_null",
            "of concepts with 20 positives or more, expected under the permutation null",
            "null",
            MIN_POSITIVES,
            False,
        ),
        (
            "common_excess",
            "of concepts with 20 positives or more, beyond the permutation null",
            "excess",
            MIN_POSITIVES,
            True,
        ),
        (
            "common_fdr",
            "of concepts with 20 positives or more, after false-discovery control",
            "fdr",
            MIN_POSITIVES,
            False,
        ),
        (
            "common_held_out",
            "of concepts with 20 positives or more, on held-out images too",
            "held-out",
            MIN_POSITIVES,
            False,
        ),
    )
    return tuple(
        Variant(
            key,
            label,
            {**SINGULAR_COUNT, "control": control, "min_positives": floor},
            summary=key in {"matched", "null", "fdr", "held_out", "common"},
            audit=AuditSpec() if is_audited and audited else None,
        )
        for key, label, control, floor, audited in rows
    )


def _counts(*, is_unique: bool) -> tuple[Variant, ...]:
    """Return the variants of a count of encoded concepts."""
    audit = AuditSpec(primary=is_unique)
    return (
        Variant("", "along singular directions", SINGULAR_COUNT, summary=True, audit=audit),
        *_controls(is_audited=is_unique),
        Variant(
            "neuron",
            "along single features",
            {**SINGULAR_COUNT, "basis": "neuron"},
            summary=True,
            audit=AuditSpec() if is_unique else None,
        ),
        Variant(
            "random",
            "along random directions",
            {**SINGULAR_COUNT, "basis": "random", "seed": 0},
            summary=True,
        ),
    )


def _pruned(dataset: str) -> tuple[Variant, ...]:
    """Return the variants of a pruning curve that the summary shows."""
    orders = {
        "singular": "",
        "singular-centered": ", class-centered",
        "pca": ", PCA directions",
        "reduced-rank": ", reduced-rank regression",
        "random": ", random directions",
    }
    whole = Variant(
        "whole", "{dataset}, none removed", {"variant": "singular", "coordinate": 0.0}, summary=True
    )
    return (
        whole,
        *(
            Variant(
                "" if order == "singular" else order,
                "{dataset}, 80 % removed" + suffix,
                {"variant": order, "coordinate": 0.8},
                summary=True,
            )
            for order, suffix in orders.items()
        ),
        Variant(
            "kept",
            "share kept with 80 % removed",
            {"variant": "singular", "dataset": dataset},
            reduction="kept at 0.8",
            audit=AuditSpec(),
        ),
    )


_ACCURACY = "Accuracy"
_ROBUSTNESS = "Effective robustness"
_KURTOSIS = "Outlier features"
_ANISOTROPY = "Anisotropy"
_SPECTRUM = "Spectrum"
_DIRECTIONS = "Privileged directions"
_PRUNING = "Pruning"
_CONCEPTS = "Concepts"
_POLYSEMANTICITY = "Polysemanticity"
_LAYERS = "Layer by layer"
_ESTIMATION = "Accuracy without labels"

_BUILTIN = (
    Quantity(
        "accuracy",
        "Accuracy",
        _ACCURACY,
        "Top-1 accuracy on `dataset`. Variant: empty (among the classes that the dataset "
        "has), unmasked (among all classes of the head), or baseline (of a model that a "
        "baseline was fitted to).",
        "fraction",
        1,
        (
            Variant("", "{dataset}", _AS_PAPER, summary=True),
            Variant("unmasked", "{dataset}, unmasked", {"variant": "unmasked"}, summary=True),
        ),
        paper_table=4,
        curve=True,
    ),
    Quantity(
        "effective_robustness",
        "Effective robustness",
        _ROBUSTNESS,
        "Eq. 1: accuracy on the shifts above the baseline named by `baseline`.",
        "points",
        1,
        (Variant("", "above the baseline “{baseline}”", {}, summary=True),),
        paper_table=1,
        curve=True,
    ),
    Quantity(
        "estimated_accuracy",
        "Estimated accuracy",
        _ESTIMATION,
        "Accuracy on `dataset`, a shift, estimated by the method `variant` without its labels; the "
        "other shifts' labels are known. Its interval holds the method's error on them; there is "
        "none where the method refuses.",
        "fraction",
        1,
    ),
    Quantity(
        "baseline_slope",
        "Slope of the baseline",
        _ROBUSTNESS,
        "Slope of the baseline named by `baseline`, on logit axes, fitted to n models.",
    ),
    Quantity(
        "baseline_intercept",
        "Intercept of the baseline",
        _ROBUSTNESS,
        "Intercept of the baseline named by `baseline`, on logit axes.",
    ),
    Quantity(
        "baseline_r",
        "Correlation of the baseline's models",
        _ROBUSTNESS,
        "Pearson correlation of in-distribution and shift accuracy over the models of the "
        "baseline, on logit axes.",
    ),
    Quantity(
        "baseline_id_low",
        "Lowest accuracy of the baseline's models",
        _ROBUSTNESS,
        "Lowest in-distribution accuracy that the baseline was fitted on.",
        "fraction",
        1,
    ),
    Quantity(
        "baseline_id_high",
        "Highest accuracy of the baseline's models",
        _ROBUSTNESS,
        "Highest in-distribution accuracy that the baseline was fitted on.",
        "fraction",
        1,
    ),
    Quantity(
        "activation_kurtosis",
        "Activation kurtosis",
        _KURTOSIS,
        "Eq. 2 on `dataset`. Variant: empty, or centered (each feature's mean over images "
        "is subtracted first).",
        variants=(
            Variant(
                "",
                "{dataset}",
                _AS_PAPER,
                summary=True,
                audit=AuditSpec(primary=True, log_scale=True),
            ),
            Variant(
                "centered",
                "{dataset}, centered",
                {"variant": "centered"},
                summary=True,
                audit=AuditSpec(log_scale=True),
            ),
        ),
        paper_table=2,
        curve=True,
    ),
    Quantity(
        "outlier_count",
        "Outlier features",
        _KURTOSIS,
        "Number of features that stand out: at most 1 %, each with at least 10 times the mean "
        "share of the kurtosis of the other 99 %, on one half of the images of `dataset`.",
        "count",
        0,
        (Variant("", "features that stand out, {dataset}", {}, summary=True),),
    ),
    Quantity(
        "outlier_share",
        "Share of the kurtosis of one feature",
        _KURTOSIS,
        "Share of the activation kurtosis that feature `item` contributes, one of those that "
        "stand out. Measured on the half of the images that did not choose it; `coordinate` is "
        "its rank on the half that did, 0 for the largest.",
        "fraction",
        1,
    ),
    Quantity(
        "anisotropy",
        "Mean cosine of images",
        _ANISOTROPY,
        "Mean cosine of the activations over all pairs of distinct images of `dataset` (Timkey "
        "and van Schijndel 2021).",
        variants=(Variant("", "{dataset}", {}, summary=True, audit=_NO_CLAIM),),
    ),
    Quantity(
        "anisotropy_share",
        "Share of the mean cosine of one feature",
        _ANISOTROPY,
        "Share of the mean cosine that feature `item` contributes; `coordinate` is its rank, 0 "
        "for the largest. Not recorded if the mean cosine may be 0.",
        "fraction",
        1,
        (
            Variant(
                "",
                "share of one feature, the largest, {dataset}",
                {"coordinate": 0.0},
                summary=True,
                audit=_NO_CLAIM,
            ),
        ),
    ),
    Quantity(
        "modality_gap",
        "Modality gap",
        _ANISOTROPY,
        "Distance of the mean unit activation on `dataset` from the mean unit class embedding "
        "of a head made of text (Liang et al. 2022, who measured captions: class embeddings "
        "are means over prompts). Zero-shot models only.",
        variants=(
            Variant(
                "", "images of {dataset} to class embeddings", {}, summary=True, audit=_NO_CLAIM
            ),
        ),
    ),
    Quantity(
        "modality_gap_cosine",
        "Cosine of the modality gap and the first direction",
        _ANISOTROPY,
        "Cosine of the modality gap with the head's first singular direction, whose sign is such "
        "that the images' mean projection is positive. The mean class embedding is nearly this "
        "direction, which adds about the same to every logit.",
        variants=(
            Variant(
                "",
                "modality gap, cosine with the first singular direction",
                {},
                summary=True,
                audit=_NO_CLAIM,
            ),
        ),
    ),
    Quantity(
        "modality_gap_share",
        "Share of the modality gap of one feature",
        _ANISOTROPY,
        "Share of the squared modality gap that lies on feature `item`; `coordinate` is its "
        "rank, 0 for the largest.",
        "fraction",
        1,
        (
            Variant(
                "",
                "modality gap, share of one feature, the largest",
                {"coordinate": 0.0},
                summary=True,
                audit=_NO_CLAIM,
            ),
        ),
    ),
    Quantity(
        "rankme",
        "RankMe",
        _SPECTRUM,
        "Effective rank of the activations on `dataset`: exponential of the entropy of their "
        "normalized singular values (Garrido et al. 2023). Variant: empty, or centered (the mean "
        "over images is subtracted first). Few images bias it low.",
        decimals=1,
        variants=(
            Variant("", "RankMe, {dataset}", _AS_PAPER, summary=True, audit=_NO_CLAIM),
            Variant(
                "centered",
                "RankMe, {dataset}, centered",
                _CENTERED_ACTIVATIONS,
                summary=True,
                audit=_NO_CLAIM,
            ),
        ),
    ),
    Quantity(
        "spectrum_slope",
        "Exponent of the spectrum",
        _SPECTRUM,
        "Exponent of the power law of the eigenvalues of the activations' second moment on "
        "`dataset`, over ranks 11 to min(100, rank / 2) (alpha-ReQ, Agrawal et al. 2022). Variant: "
        "empty, or centered (of the covariance). Few images make it too steep.",
        variants=(
            Variant(
                "", "exponent of the spectrum, {dataset}", _AS_PAPER, summary=True, audit=_NO_CLAIM
            ),
            Variant(
                "centered",
                "exponent of the spectrum, {dataset}, centered",
                _CENTERED_ACTIVATIONS,
                summary=True,
                audit=_NO_CLAIM,
            ),
        ),
    ),
    Quantity(
        "spectrum_fit",
        "R² of the spectrum's power law",
        _SPECTRUM,
        "R² of the fit whose exponent is `spectrum_slope`, of the same variants.",
        variants=(
            Variant("", "R² of the exponent, {dataset}", _AS_PAPER, summary=True),
            Variant(
                "centered",
                "R² of the exponent, {dataset}, centered",
                _CENTERED_ACTIVATIONS,
                summary=True,
            ),
        ),
    ),
    Quantity(
        "head_rank",
        "Rank of the head",
        _DIRECTIONS,
        "Number of singular values that rounding cannot have made, of `n` = min(classes, "
        "features). Variant: empty, or class-centered (the head minus its mean over classes).",
        "count",
        0,
        (Variant("", "rank of the head", _AS_PAPER, summary=True),),
    ),
    Quantity(
        "singular_value",
        "Singular value",
        _DIRECTIONS,
        "Singular value of direction `coordinate`, counted from 0. Variant: empty, or "
        "class-centered (the head minus its mean over classes).",
        variants=(
            Variant(
                "",
                "singular value, largest / mean",
                _AS_PAPER,
                reduction="largest over mean",
                summary=True,
            ),
            Variant(
                "centered",
                "singular value, largest / mean, class-centered",
                _CENTERED,
                reduction="largest over mean",
                summary=True,
            ),
        ),
    ),
    Quantity(
        "head_importance",
        "Head importance",
        _DIRECTIONS,
        "First factor of Eq. 4 of direction `coordinate`: its share of singular values.",
        decimals=None,
    ),
    Quantity(
        "encoder_importance",
        "Encoder importance",
        _DIRECTIONS,
        "Second factor of Eq. 4 of direction `coordinate`: mean absolute cosine with the "
        "activations.",
        decimals=None,
    ),
    Quantity(
        "importance",
        "Importance",
        _DIRECTIONS,
        "Eq. 4 of direction `coordinate`: the product of its two factors.",
        decimals=None,
    ),
    Quantity(
        "importance_ratio",
        "Largest importance ÷ mean",
        _DIRECTIONS,
        "Largest importance (Eq. 4) divided by the mean importance of all directions of the "
        "activation space, as many as features, as in the paper. Where features outnumber "
        "classes, the rest have importance 0: equal importances give features ÷ rank.",
        decimals=1,
        variants=(
            Variant(
                "",
                "importance (Eq. 4), largest / mean of all directions",
                _AS_PAPER,
                summary=True,
                audit=_LARGEST_RATIO,
            ),
            Variant(
                "centered",
                "importance (Eq. 4), largest / mean of all directions, class-centered",
                _CENTERED,
                summary=True,
                audit=AuditSpec(log_scale=True),
            ),
        ),
    ),
    Quantity(
        "importance_ratio_to_others",
        "Largest importance ÷ mean of the others",
        _DIRECTIONS,
        "Largest importance (Eq. 4) divided by the mean importance of the other directions of "
        "non-zero singular value. Equal importances give 1, for any number of classes.",
        decimals=1,
        variants=(
            Variant(
                "",
                "importance (Eq. 4), largest / mean of the others",
                _AS_PAPER,
                summary=True,
                audit=AuditSpec(log_scale=True),
            ),
            Variant(
                "centered",
                "importance (Eq. 4), largest / mean of the others, class-centered",
                _CENTERED,
                summary=True,
                audit=AuditSpec(log_scale=True),
            ),
        ),
    ),
    Quantity(
        "decision_share",
        "Share that can change a decision",
        _DIRECTIONS,
        "Share of the contribution of direction `coordinate` to the logits that differs "
        "between classes, and so can change a decision.",
        "fraction",
        1,
        (
            Variant(
                "",
                "share of the most important direction that can change a decision",
                {"variant": "", "coordinate": TOP_DIRECTION},
                summary=True,
            ),
        ),
    ),
    Quantity(
        "flipped_predictions",
        "Predictions that change without a direction",
        _DIRECTIONS,
        "Share of the images of `dataset` whose predicted class changes if direction "
        "`coordinate` is removed.",
        "fraction",
        1,
        (
            Variant(
                "",
                "predictions that change without the most important direction",
                {"coordinate": TOP_DIRECTION},
                summary=True,
            ),
        ),
    ),
    Quantity(
        "outlier_energy",
        "Energy on outlier features",
        _DIRECTIONS,
        "Share of the squared norm of direction `coordinate` that lies on the features that "
        "stand out in the kurtosis (`outlier_count`); not recorded if none does.",
        "fraction",
        1,
        (
            Variant(
                "",
                "energy of the most important direction on outlier features",
                {"variant": "", "coordinate": TOP_DIRECTION},
                summary=True,
            ),
        ),
    ),
    Quantity(
        "spearman_sigma_importance",
        "Rank correlation of singular value and importance",
        _DIRECTIONS,
        "Spearman correlation of singular value and importance over the directions of one model.",
        variants=(
            Variant(
                "",
                "Spearman(singular value, importance)",
                _AS_PAPER,
                summary=True,
                audit=AuditSpec(claimed_sign=False),
            ),
        ),
    ),
    Quantity(
        "pruned_accuracy",
        "Accuracy with directions removed",
        _PRUNING,
        "Top-1 accuracy on `dataset` with the fraction `coordinate` of the directions "
        "removed, in the order `variant`.",
        "fraction",
        1,
        _pruned("imagenet"),
    ),
    Quantity(
        "pruned_effective_robustness",
        "Effective robustness with directions removed",
        _PRUNING,
        "Effective robustness above `baseline` with the fraction `coordinate` of the "
        "directions removed, in the order `variant`.",
        "points",
        1,
    ),
    Quantity(
        "unique_concepts",
        "Unique concepts",
        _CONCEPTS,
        "Eq. 5: concepts that some direction of `basis` encodes with an average precision "
        "of `threshold` or more. Variant: empty, rank (over the rank of the head alone) or "
        "both-orientations. Control: empty, matched (negatives are images annotated in the "
        "concept's category), null (expected under the permutation null), "
        "excess (beyond it), fdr (after false-discovery control), held-out (on held-out "
        "images too), or width (along `width` directions). `min_positives`: smallest "
        "number of positives of the counted concepts.",
        "count",
        0,
        _counts(is_unique=True),
        paper_table=3,
        curve=True,
    ),
    Quantity(
        "polysemanticity",
        "Polysemanticity",
        _POLYSEMANTICITY,
        "Mean number of concepts that a direction of `basis` encodes; variants and controls "
        "are those of unique_concepts.",
        variants=_counts(is_unique=False),
        paper_table=6,
    ),
    Quantity(
        "best_average_precision",
        "Best average precision",
        _CONCEPTS,
        "Largest average precision of concept `item` over the directions of `basis`; `cluster` "
        "names the concepts that may depend on each other. Control: empty or matched.",
    ),
    Quantity(
        "cka",
        "CKA",
        _LAYERS,
        "Linear CKA of layer `item`, number `coordinate` from 0, with the same layer of "
        "the family's zero-shot model. Variant: empty, or standardized.",
        variants=(
            Variant(
                "last_layer",
                "last layer with zero-shot",
                {"variant": "", "dataset": "imagenet"},
                reduction="last",
                audit=AuditSpec(claimed_sign=False),
            ),
            Variant(
                "last_layer_standardized",
                "last layer with zero-shot, standardized",
                {"variant": "standardized", "dataset": "imagenet"},
                reduction="last",
                audit=AuditSpec(claimed_sign=False),
            ),
        ),
    ),
    Quantity(
        "top_concept",
        "Top concepts",
        _CONCEPTS,
        "Average precision of concept `item` along the direction of largest importance of "
        "`basis`; `coordinate` is its rank among the concepts, from 1. Control: empty or matched.",
    ),
)

QUANTITIES = MappingProxyType({q.name: q for q in _BUILTIN})
"""The quantities that earmark itself measures; `all_quantities` adds those of plug-ins."""


@dataclass(frozen=True)
class Measurement:
    """Part of a scan that measures some quantities: earmark's own, or of a plug-in.

    Attributes:
        quantities: The quantities that it records.
        needs: What it requires: ``images`` alone, a ``head``, ``labels`` (with a head),
            ``shifts`` (with labels) or ``concepts``.
        measure: Function of a `study.measure.MeasureContext` that returns records.
    """

    quantities: tuple[Quantity, ...]
    needs: Literal["images", "head", "labels", "shifts", "concepts"]
    measure: Callable[[Any], "Sequence[Record]"]


@cache
def plugin_measurements() -> Mapping[str, Measurement]:
    """Return the measurements of the entry points ``earmark.signatures``, by plug-in.

    Raises:
        ValueError: If one cannot be loaded, or its quantities lack a namespace of their own.
    """
    measurements: dict[str, Measurement] = {}
    for point, plugin in iter_plugins("earmark.signatures"):
        name = plugin_name(point)
        if not isinstance(plugin, Measurement):
            raise ValueError(
                f"The plug-in {name} is a {type(plugin).__name__}: give a Measurement."
            )
        for quantity in plugin.quantities:
            if not all(quantity.name.partition(":")):
                raise ValueError(
                    f"The plug-in {name} names a quantity {quantity.name!r}: name it "
                    f"PACKAGE:{quantity.name}."
                )
        measurements[name] = plugin
    return measurements


def all_quantities() -> Mapping[str, Quantity]:
    """Return all quantities by name: earmark's own, then those of installed plug-ins."""
    plugins = plugin_measurements().values()
    return QUANTITIES | {q.name: q for plugin in plugins for q in plugin.quantities}
