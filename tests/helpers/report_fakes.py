"""Random records of the kinds that a study writes."""

import random
from collections.abc import Iterator
from dataclasses import replace

from earmark.data.registry import PAPER_SHIFTS as SHIFTS
from earmark.records import Record

TEXTURES = ("meshed", "flecked", "striped", "dotted", "chequered", "banded")
THINGS = ("red-c", "street-s", "circle", "star", "kitchen-s", "blue-c")
ACCURACY = {"zero-shot": 0.66, "finetuned": 0.88, "supervised": 0.93, "other": 0.011}
ROBUSTNESS = {"zero-shot": 0.22, "finetuned": 0.14, "supervised": -0.05, "other": 0.002}
TOP_IMPORTANCE = {"zero-shot": 0.35, "finetuned": 0.28, "supervised": 0.045, "other": 0.06}
PRECISION = {"zero-shot": 0.86, "finetuned": 0.85, "supervised": 0.7, "other": 0.78}


def fake_records(
    *, backbones: int = 1, pretrainings: int = 1, directions: int = 128, seed: int = 0
) -> list[Record]:
    """Return records of every quantity for models of four roles, and of a baseline."""
    rng = random.Random(seed)  # noqa: S311
    records = list(_baseline(rng))
    for b in range(1, backbones + 1):
        models = [("ImageNet", "supervised", "supervised"), ("none", "other", "untrained")]
        for p in range(1, pretrainings + 1):
            models.insert(0, (f"Web-{p}", "finetuned", "finetuned"))
            models.insert(0, (f"Web-{p}", "zero-shot", "zero-shot"))
        for pretraining, role, name in models:
            model = f"fake:{b}/{pretraining}/{name}"
            row = Record(model, f"Fake-{b}", pretraining, role, "", 0.0)
            records += _robustness(rng, row)
            records += _kurtosis(rng, row)
            records += _directions(rng, row, directions)
            records += _pruned(rng, row)
            records += _concepts(rng, row)
    return records


PAPER_FAMILIES = {
    "main": (("openai", "OpenAI", ("RN50", "RN101", "ViT-B-16", "ViT-B-32")),),
    "large": (
        ("laion400m_e32", "LAION-400M", ("ViT-B-16", "ViT-B-32")),
        ("laion2b_s34b_b88k", "LAION-2B", ("ViT-B-16",)),
        ("laion2b_e16", "LAION-2B", ("ViT-B-32",)),
        ("datacomp_l_s1b_b8k", "DataComp", ("ViT-B-16",)),
    ),
    "small": (("yfcc15m", "YFCC-15M", ("RN50", "RN101")), ("cc12m", "CC-12M", ("RN50",))),
}
BACKBONES = {"RN50": "ResNet50", "RN101": "ResNet101"}
ORDERS = ("singular", "importance", "singular-centered", "pca", "reduced-rank", "random")
CONTROLS = {"no-clip": "SimCLR", "captioned-id": "ID captions", "untrained": "none"}
ALPHAS = tuple(k / 10 for k in range(1, 10))


def paper_records(
    *,
    groups: tuple[str, ...] = tuple(PAPER_FAMILIES),
    directions: int = 128,
    alphas: tuple[float, ...] = ALPHAS,
    layers: int = 13,
    controls: bool = True,
) -> list[Record]:
    """Return records such as a study of the paper's models writes."""
    rng = random.Random(1)  # noqa: S311
    records = list(_baseline(rng, name="paper"))
    for group, tag, pretraining, backbone in _families(groups):
        family = Record("", BACKBONES.get(backbone, backbone), pretraining, "", "", 0.0)
        family = replace(family, group=group)
        checkpoint = f"{backbone}-quickgelu" if tag == "openai" else backbone
        zero_shot = replace(family, model=f"{checkpoint},{tag}", role="zero-shot")
        finetuned = replace(family, model=f"finetuned/{backbone}-{tag}", role="finetuned")
        for row in (zero_shot, finetuned):
            records += _model(rng, row, directions)
        records += _cka(rng, replace(finetuned, quantity="cka"), layers)
        for alpha in alphas:
            row = replace(family, model=f"{zero_shot.model}@{alpha:g}", alpha=alpha)
            records += _interpolated(rng, replace(row, role="interpolated"))
    for backbone in ("RN50", "RN101", "ViT-B-16", "ViT-B-32"):
        name = BACKBONES.get(backbone, backbone)
        row = Record(f"supervised/{backbone}", name, "ImageNet", "supervised", "", 0.0)
        records += _model(rng, row, directions)
    for group, pretraining in CONTROLS.items() if controls else ():
        row = Record(f"pool:{group}-1", "ViT-B-16", pretraining, "other", "", 0.0)
        records += _model(rng, replace(row, group=group), directions)
    return records


def _families(groups: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    for group in groups:
        for tag, pretraining, backbones in PAPER_FAMILIES[group]:
            for backbone in backbones:
                yield group, tag, pretraining, backbone


def _model(rng: random.Random, row: Record, directions: int) -> Iterator[Record]:
    yield from _robustness(rng, row, "paper")
    yield from _kurtosis(rng, row, mean=30.0 if row.role == "zero-shot" else 3.0)
    yield from _shifted_kurtosis(rng, row, 20.0 if row.role == "zero-shot" else 3.0)
    yield from _directions(rng, row, directions)
    yield from _pruned(rng, row)
    yield from _concepts(rng, row)


def _interpolated(rng: random.Random, row: Record) -> Iterator[Record]:
    """Yield what is measured of a model between two others."""
    alpha = row.alpha or 0.0
    yield from _robustness(rng, row, "paper", robustness=0.22 - 0.08 * alpha)
    kurtosis = 30.0 ** (1 - alpha) * 3.0**alpha
    yield from _kurtosis(rng, row, mean=kurtosis)
    yield from _shifted_kurtosis(rng, row, 0.8 * kurtosis)
    count = replace(row, quantity="unique_concepts", basis="singular", n=144)
    for threshold, value in ((0.9, 60.0), (0.85, 90.0)):
        unique = float(round(value * (1 - 0.4 * alpha)))
        yield replace(count, threshold=threshold, value=unique)


def _shifted_kurtosis(rng: random.Random, row: Record, mean: float) -> Iterator[Record]:
    values = [mean * rng.uniform(0.8, 1.1) for _ in SHIFTS]
    row = replace(row, quantity="activation_kurtosis", n=2000)
    for shift, value in zip(SHIFTS, values, strict=True):
        yield replace(row, dataset=shift, **_around(rng, value, 0.1))
    yield replace(row, dataset="shifts", value=sum(values) / len(values))


def _cka(rng: random.Random, row: Record, layers: int) -> Iterator[Record]:
    for layer in range(layers):
        for variant, loss in (("", 0.6), ("standardized", 0.8)):
            level = 1 - loss * (layer / layers) ** 4
            of_layer = replace(
                row,
                item=f"visual.transformer.resblocks.{layer}",
                coordinate=float(layer),
                variant=variant,
                note="minibatches of 256",
            )
            for dataset in ("imagenet", *SHIFTS):
                value = level * rng.uniform(0.85, 0.999)
                yield replace(of_layer, dataset=dataset, **_around(rng, value, 0.002))


def _baseline(rng: random.Random, name: str = "fake line") -> Iterator[Record]:
    blank = Record("", "", "", "other", "", 0.0, n=10)
    for number in range(10):
        model = f"fake:baseline-{number}"
        value = 0.13 + 0.065 * number
        point = replace(blank, model=model, quantity="accuracy", variant="baseline", n=4000)
        yield replace(point, dataset="imagenet", value=value)
        yield replace(point, dataset="shifts", value=value * 0.55 * rng.uniform(0.9, 1.1))
    blank = replace(blank, baseline=name)
    yield replace(blank, quantity="baseline_slope", value=0.8)
    yield replace(blank, quantity="baseline_intercept", value=-0.75)
    yield replace(blank, quantity="baseline_r", value=0.98)
    yield replace(blank, quantity="baseline_id_low", value=0.13)
    yield replace(blank, quantity="baseline_id_high", value=0.715)


def _around(rng: random.Random, value: float, width: float) -> dict[str, float]:
    low, high = (width * rng.uniform(0.8, 1.2) for _ in range(2))
    return {"value": value, "low": value - low, "high": value + high}


def _robustness(
    rng: random.Random, row: Record, baseline: str = "fake line", robustness: float | None = None
) -> Iterator[Record]:
    accuracy = replace(row, quantity="accuracy", n=4000)
    level = ACCURACY.get(row.role, 0.75) * rng.uniform(0.9, 1.04)
    width = 0.015 if level > 0.05 else 0.003
    yield replace(accuracy, dataset="imagenet", **_around(rng, level, width))
    values = [level * rng.uniform(0.4, 0.8) for _ in SHIFTS]
    for shift, value in zip(SHIFTS, values, strict=True):
        yield replace(accuracy, dataset=shift, n=2000, **_around(rng, value, width))
    mean = sum(values) / len(values)
    yield replace(accuracy, dataset="shifts", n=10000, **_around(rng, mean, width / 2))
    note = "" if 0.13 < level < 0.715 else "outside the range of the baseline"
    row = replace(row, quantity="effective_robustness", baseline=baseline, note=note)
    value = ROBUSTNESS[row.role] if robustness is None else robustness
    yield replace(row, n=14000, **_around(rng, value, 0.012))


def _kurtosis(rng: random.Random, row: Record, mean: float = 2.9) -> Iterator[Record]:
    row = replace(row, quantity="activation_kurtosis", dataset="imagenet", n=4000)
    yield replace(row, **_around(rng, mean + rng.uniform(-0.1, 0.1), 0.01))
    yield replace(row, variant="centered", **_around(rng, rng.uniform(2.9, 3.4), 0.02))


def _directions(rng: random.Random, row: Record, count: int) -> Iterator[Record]:
    for variant, top in (("", TOP_IMPORTANCE[row.role]), ("class-centered", 0.03)):
        sigmas = [1.0 / (place + 4) ** 0.7 for place in range(count)]
        if variant:
            sigmas[-1] = 0.0
        for place, sigma in enumerate(sigmas):
            head = sigma / sum(sigmas)
            encoder = 0.4 * (top / head if place == 0 else rng.lognormvariate(-2.6, 0.3))
            values = {
                "singular_value": sigma,
                "head_importance": head,
                "encoder_importance": encoder,
                "importance": head * encoder,
                "decision_share": 0.02 if place == 0 and not variant else 0.99,
            }
            for quantity, value in values.items():
                direction = replace(row, variant=variant, coordinate=float(place))
                yield replace(direction, quantity=quantity, value=value)
        whole = replace(row, variant=variant)
        spearman = replace(whole, quantity="spearman_sigma_importance", n=count)
        yield replace(spearman, **_around(rng, rng.uniform(0.85, 0.98), 0.01))
        ratio = replace(whole, quantity="importance_ratio", n=4000)
        yield replace(ratio, **_around(rng, 40.0 * top, 0.5))
        energy = replace(whole, quantity="outlier_energy", coordinate=0.0)
        yield replace(energy, value=rng.uniform(0, 0.5), note="1 of 128 features; .8 %")
    flips = replace(row, quantity="flipped_predictions", dataset="imagenet", n=4000)
    yield replace(flips, coordinate=0.0, **_around(rng, 0.03, 0.005))
    share = replace(row, quantity="outlier_share", item="7", coordinate=0.0)
    yield replace(share, value=rng.uniform(0, 0.5))


def _pruned(rng: random.Random, row: Record) -> Iterator[Record]:
    accuracy, robustness = ACCURACY[row.role], ROBUSTNESS[row.role]
    losses = dict(zip(ORDERS, (0.02, 0.02, 0.02, 0.1, 0.01, 0.6), strict=True))
    for order, loss in losses.items():
        for fraction in (step / 20 for step in range(20)):
            kept = 1 - max(0.0, fraction - 0.8) * 4 * (1 - fraction) - loss * fraction
            pruned = replace(row, variant=order, coordinate=fraction)
            for dataset, share in (("imagenet", 1.0), ("shifts", 0.6)):
                value = _around(rng, share * accuracy * kept, 0.01)
                pruned_accuracy = replace(pruned, quantity="pruned_accuracy")
                yield replace(pruned_accuracy, dataset=dataset, **value)
            pruned_robustness = replace(
                pruned, quantity="pruned_effective_robustness", dataset="shifts"
            )
            yield replace(pruned_robustness, **_around(rng, robustness * kept, 0.01))


CONTROL_SHARES = {"matched": 0.6, "null": 0.05, "excess": 0.95, "fdr": 0.8, "held-out": 0.7}


def _concept_controls(rng: random.Random, row: Record, count: float) -> Iterator[Record]:
    common = replace(row, min_positives=20)
    for control, share in CONTROL_SHARES.items():
        value = round(count * share, 1)
        yield replace(row, control=control, **_around(rng, value, 0.1 * value))
        if control == "matched":
            continue
        half = round(0.5 * value, 1)
        yield replace(common, control=control, **_around(rng, half, 0.1 * half))
    common = replace(common, n=row.n and row.n - 10)  # ten concepts are rare
    yield replace(common, **_around(rng, 0.5 * count, 0.05 * count))
    for width in (32, 64, 128) if row.quantity == "unique_concepts" else ():
        value = count * (width / 128) ** 0.5
        rarefied = replace(row, control="width", width=width)
        yield replace(rarefied, **_around(rng, value, 0.1 * value))


def _concepts(rng: random.Random, row: Record) -> Iterator[Record]:
    concepts = [
        f"{texture} {thing} {k}" for texture in TEXTURES for thing in THINGS for k in "abcd"
    ]
    for basis, seed in (("singular", None), ("neuron", None), ("random", 0)):
        of_basis = replace(row, basis=basis, seed=seed)
        best = [min(1.0, max(0.5, rng.gauss(PRECISION[row.role], 0.06))) for _ in concepts]
        precision = replace(of_basis, quantity="best_average_precision", n=400)
        for concept, value in zip(concepts, best, strict=True):
            yield replace(precision, item=concept, value=value)
        for threshold in (0.9, 0.85):
            unique = float(sum(value >= threshold for value in best))
            note = "probed with 20 positives or more"
            of_basis = replace(of_basis, threshold=threshold, note=note)
            for quantity, value, n in (
                ("unique_concepts", unique, len(concepts)),
                ("polysemanticity", unique / 40, 128),
            ):
                count = replace(of_basis, quantity=quantity, n=n)
                yield replace(count, **_around(rng, value, 0.1 * value))
                yield from _concept_controls(rng, count, value)
    best = TEXTURES if row.role == "zero-shot" else THINGS
    for rank, concept in enumerate(rng.sample(best, 3), 1):
        top = replace(row, quantity="top_concept", basis="singular", coordinate=float(rank))
        yield replace(top, item=concept, value=0.99 - 0.03 * rank, note="direction 0")
