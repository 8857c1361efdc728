"""Made-up records, clearly random, of the kinds that a study writes."""

import random
from collections.abc import Iterator
from dataclasses import replace

from earmark.results import Record

SHIFTS = ("v2", "r", "sketch", "objectnet", "a")
TEXTURES = ("meshed", "flecked", "striped", "dotted", "chequered", "banded")
THINGS = ("red-c", "street-s", "circle", "star", "kitchen-s", "blue-c")
LEVEL = {"zero-shot": 0.66, "finetuned": 0.88, "supervised": 0.93, "other": 0.011}
LIFT = {"zero-shot": 0.22, "finetuned": 0.14, "supervised": -0.05, "other": 0.002}
TOP = {"zero-shot": 0.35, "finetuned": 0.28, "supervised": 0.045, "other": 0.06}
RICH = {"zero-shot": 0.86, "finetuned": 0.85, "supervised": 0.7, "other": 0.78}


def fake_records(
    *, backbones: int = 1, pretrainings: int = 1, directions: int = 128, seed: int = 0
) -> list[Record]:
    """Records of every quantity for a pool of four roles, and a line of ten baselines."""
    draw = random.Random(seed)  # noqa: S311
    records = list(_line(draw))
    for b in range(1, backbones + 1):
        models = [("ImageNet", "supervised", "supervised"), ("none", "other", "untrained")]
        for p in range(1, pretrainings + 1):
            models.insert(0, (f"Web-{p}", "finetuned", "finetuned"))
            models.insert(0, (f"Web-{p}", "zero-shot", "zero-shot"))
        for pretraining, role, name in models:
            model = f"fake:{b}/{pretraining}/{name}"
            blank = Record(model, f"Fake-{b}", pretraining, role, "", 0.0)
            records += _robustness(draw, blank)
            records += _kurtosis(draw, blank)
            records += _directions(draw, blank, directions)
            records += _pruned(draw, blank)
            records += _concepts(draw, blank)
    return records


PAPERS = {
    "main": (("openai", "OpenAI", ("RN50", "RN101", "ViT-B-16", "ViT-B-32")),),
    "large": (
        ("laion400m_e32", "LAION-400M", ("ViT-B-16", "ViT-B-32")),
        ("laion2b_s34b_b88k", "LAION-2B", ("ViT-B-16",)),
        ("laion2b_e16", "LAION-2B", ("ViT-B-32",)),
        ("datacomp_l_s1b_b8k", "DataComp", ("ViT-B-16",)),
    ),
    "small": (
        ("yfcc15m", "YFCC-15M", ("RN50", "RN101")),
        ("cc12m", "CC-12M", ("RN50",)),
    ),
}
NAMES = {"RN50": "ResNet50", "RN101": "ResNet101"}
ORDERS = (
    "singular",
    "importance",
    "singular, gauge-fixed",
    "pca",
    "reduced-rank",
    "random",
)
CONTROLS = {"no-clip": "SimCLR", "captioned-id": "ID captions", "untrained": "none"}
ALPHAS = tuple(k / 10 for k in range(1, 10))


def paper_records(
    *,
    groups: tuple[str, ...] = tuple(PAPERS),
    directions: int = 128,
    alphas: tuple[float, ...] = ALPHAS,
    layers: int = 13,
    controls: bool = True,
) -> list[Record]:
    """Records such as a study of the paper's models writes, with random numbers."""
    draw = random.Random(1)  # noqa: S311
    records = list(_line(draw, name="paper"))
    for group, tag, pretraining, backbone in _families(groups):
        family = Record("", NAMES.get(backbone, backbone), pretraining, "", "", 0.0)
        family = replace(family, group=group)
        ran = f"{backbone}-quickgelu" if tag == "openai" else backbone
        first = replace(family, model=f"{ran},{tag}", role="zero-shot")
        last = replace(family, model=f"finetuned/{backbone}-{tag}", role="finetuned")
        for blank in (first, last):
            records += _model(draw, blank, directions)
        records += _cka(draw, replace(last, quantity="cka"), layers)
        for alpha in alphas:
            blank = replace(family, model=f"{first.model}@{alpha:g}", alpha=alpha)
            records += _step(draw, replace(blank, role="interpolated"))
    for backbone in ("RN50", "RN101", "ViT-B-16", "ViT-B-32"):
        name = NAMES.get(backbone, backbone)
        blank = Record(f"supervised/{backbone}", name, "ImageNet", "supervised", "", 0.0)
        records += _model(draw, blank, directions)
    for group, learned in CONTROLS.items() if controls else ():
        blank = Record(f"pool:{group}-1", "ViT-B-16", learned, "other", "", 0.0)
        records += _model(draw, replace(blank, group=group), directions)
    return records


def _families(groups: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    for group in groups:
        for tag, pretraining, backbones in PAPERS[group]:
            for backbone in backbones:
                yield group, tag, pretraining, backbone


def _model(draw: random.Random, blank: Record, directions: int) -> Iterator[Record]:
    line = "paper"
    yield from _robustness(draw, blank, line)
    yield from _kurtosis(draw, blank, top=30.0 if blank.role == "zero-shot" else 3.0)
    yield from _shifted_kurtosis(draw, blank, 20.0 if blank.role == "zero-shot" else 3.0)
    yield from _directions(draw, blank, directions)
    yield from _pruned(draw, blank)
    yield from _concepts(draw, blank)


def _step(draw: random.Random, blank: Record) -> Iterator[Record]:
    """What is measured of a model between two others."""
    alpha = blank.alpha or 0.0
    yield from _robustness(draw, blank, "paper", lift=0.22 - 0.08 * alpha)
    top = 30.0 ** (1 - alpha) * 3.0**alpha
    yield from _kurtosis(draw, blank, top=top)
    yield from _shifted_kurtosis(draw, blank, 0.8 * top)
    at = replace(blank, quantity="unique_concepts", setting="singular", n=144)
    for x, many in ((0.9, 60.0), (0.85, 90.0)):
        yield replace(at, x=x, value=float(round(many * (1 - 0.4 * alpha))))


def _shifted_kurtosis(draw: random.Random, blank: Record, top: float) -> Iterator[Record]:
    values = [top * draw.uniform(0.8, 1.1) for _ in SHIFTS]
    at = replace(blank, quantity="activation_kurtosis", n=2000)
    for shift, value in zip(SHIFTS, values, strict=True):
        yield replace(at, dataset=shift, **_around(draw, value, 0.1))
    yield replace(at, dataset="shifts", value=sum(values) / len(values))


def _cka(draw: random.Random, blank: Record, layers: int) -> Iterator[Record]:
    for x in range(layers):
        for setting, loss in (("", 0.6), ("standardised", 0.8)):
            level = 1 - loss * (x / layers) ** 4
            at = replace(
                blank,
                item=f"visual.transformer.resblocks.{x}",
                x=float(x),
                setting=setting,
                note="minibatches of 256",
            )
            for dataset in ("imagenet", *SHIFTS):
                value = level * draw.uniform(0.85, 0.999)
                yield replace(at, dataset=dataset, **_around(draw, value, 0.002))


def _line(draw: random.Random, name: str = "fake line") -> Iterator[Record]:
    blank = Record("", "", "", "other", "", 0.0, item=name, n=10)
    for number in range(10):
        model = f"fake:baseline-{number}"
        value = 0.13 + 0.065 * number
        point = replace(blank, model=model, quantity="accuracy", setting="baseline", n=4000)
        yield replace(point, dataset="imagenet", value=value)
        yield replace(point, dataset="shifts", value=value * 0.55 * draw.uniform(0.9, 1.1))
    yield replace(blank, quantity="baseline_slope", value=0.8)
    yield replace(blank, quantity="baseline_intercept", value=-0.75)
    yield replace(blank, quantity="baseline_r", value=0.98)
    yield replace(blank, quantity="baseline_id_low", value=0.13)
    yield replace(blank, quantity="baseline_id_high", value=0.715)


def _around(draw: random.Random, value: float, width: float) -> dict[str, float]:
    low, high = (width * draw.uniform(0.8, 1.2) for _ in range(2))
    return {"value": value, "low": value - low, "high": value + high}


def _robustness(
    draw: random.Random, blank: Record, line: str = "fake line", lift: float | None = None
) -> Iterator[Record]:
    accuracy = replace(blank, quantity="accuracy", n=4000)
    level = LEVEL.get(blank.role, 0.75) * draw.uniform(0.9, 1.04)
    width = 0.015 if level > 0.05 else 0.003
    yield replace(accuracy, dataset="imagenet", **_around(draw, level, width))
    values = [level * draw.uniform(0.4, 0.8) for _ in SHIFTS]
    for shift, value in zip(SHIFTS, values, strict=True):
        yield replace(accuracy, dataset=shift, n=2000, **_around(draw, value, width))
    mean = sum(values) / len(values)
    yield replace(accuracy, dataset="shifts", n=10000, **_around(draw, mean, width / 2))
    note = "" if 0.13 < level < 0.715 else "outside the line's range"
    robust = replace(blank, quantity="effective_robustness", setting=line, note=note)
    yield replace(
        robust, n=14000, **_around(draw, LIFT[blank.role] if lift is None else lift, 0.012)
    )


def _kurtosis(draw: random.Random, blank: Record, top: float = 2.9) -> Iterator[Record]:
    tailed = replace(blank, quantity="activation_kurtosis", dataset="imagenet", n=4000)
    yield replace(tailed, **_around(draw, top + draw.uniform(-0.1, 0.1), 0.01))
    yield replace(tailed, setting="centred", **_around(draw, draw.uniform(2.9, 3.4), 0.02))


def _directions(draw: random.Random, blank: Record, count: int) -> Iterator[Record]:
    for setting, top in (("", TOP[blank.role]), ("gauge-fixed", 0.03)):
        sigmas = [1.0 / (x + 4) ** 0.7 for x in range(count)]
        if setting:
            sigmas[-1] = 0.0
        for x, sigma in enumerate(sigmas):
            head = sigma / sum(sigmas)
            encoder = 0.4 * (top / head if x == 0 else draw.lognormvariate(-2.6, 0.3))
            values = {
                "singular_value": sigma,
                "head_importance": head,
                "encoder_importance": encoder,
                "importance": head * encoder,
                "decision_share": 0.02 if x == 0 and not setting else 0.99,
            }
            for quantity, value in values.items():
                at = replace(blank, quantity=quantity, setting=setting, x=float(x))
                yield replace(at, value=value)
        rank = replace(
            blank, quantity="spearman_sigma_importance", setting=setting, n=count
        )
        yield replace(rank, **_around(draw, draw.uniform(0.85, 0.98), 0.01))
        ratio = replace(blank, quantity="importance_ratio", setting=setting, n=4000)
        yield replace(ratio, **_around(draw, 40.0 * top, 0.5))
        energy = replace(blank, quantity="outlier_energy", setting=setting, x=0.0)
        yield replace(energy, value=draw.uniform(0, 0.5), note="1 of 128 features; .8 %")
    flips = replace(blank, quantity="flipped_predictions", dataset="imagenet", n=4000)
    yield replace(flips, x=0.0, **_around(draw, 0.03, 0.005))
    share = replace(blank, quantity="outlier_share", item="7", x=0.0)
    yield replace(share, value=draw.uniform(0, 0.5))


def _pruned(draw: random.Random, blank: Record) -> Iterator[Record]:
    level, lift = LEVEL[blank.role], LIFT[blank.role]
    lost = dict(zip(ORDERS, (0.02, 0.02, 0.02, 0.1, 0.01, 0.6), strict=True))
    for setting in ORDERS:
        for x in (step / 20 for step in range(20)):
            kept = 1 - max(0.0, x - 0.8) * 4 * (1 - x) - lost[setting] * x
            at = replace(blank, setting=setting, x=x)
            accuracy = replace(at, quantity="pruned_accuracy")
            for dataset, share in (("imagenet", 1.0), ("shifts", 0.6)):
                value = _around(draw, share * level * kept, 0.01)
                yield replace(accuracy, dataset=dataset, **value)
            robust = replace(at, quantity="pruned_effective_robustness", dataset="shifts")
            yield replace(robust, **_around(draw, lift * kept, 0.01))


CHECKED = {"chance": 0.05, "beyond chance": 0.95, "surviving": 0.8, "held out": 0.7}


def _checked(draw: random.Random, at: Record, count: float) -> Iterator[Record]:
    for item, share in CHECKED.items():
        value = round(count * share, 1)
        yield replace(at, item=item, **_around(draw, value, 0.1 * value))
        floored = round(0.5 * value, 1)
        yield replace(at, item=f"floor, {item}", **_around(draw, floored, 0.1 * floored))
    floor = replace(at, item="floor", n=at.n and at.n - 10)  # ten concepts are rare
    yield replace(floor, **_around(draw, 0.5 * count, 0.05 * count))
    for width in (32, 64, 128) if at.quantity.startswith("unique") else ():
        value = count * (width / 128) ** 0.5
        yield replace(at, item=f"width {width}", **_around(draw, value, 0.1 * value))


def _concepts(draw: random.Random, blank: Record) -> Iterator[Record]:
    names = [
        f"{texture} {thing} {k}" for texture in TEXTURES for thing in THINGS for k in "abcd"
    ]
    for setting in ("singular", "neuron", "random"):
        best = [min(1.0, max(0.5, draw.gauss(RICH[blank.role], 0.06))) for _ in names]
        precision = replace(
            blank, quantity="best_average_precision", setting=setting, n=400
        )
        for name, value in zip(names, best, strict=True):
            yield replace(precision, item=name, value=value)
        for x in (0.9, 0.85):
            unique = float(sum(value >= x for value in best))
            at = replace(
                blank, setting=setting, x=x, note="probed with 20 positives or more"
            )
            for quantity, value, n in (
                ("unique_concepts", unique, len(names)),
                ("polysemanticity", unique / 40, 128),
            ):
                wide = 0.1 * value
                yield replace(at, quantity=quantity, n=n, **_around(draw, value, wide))
                yield from _checked(
                    draw, replace(at, quantity=f"{quantity}_checked", n=n), value
                )
    best = TEXTURES if blank.role == "zero-shot" else THINGS
    for rank, item in enumerate(draw.sample(best, 3), 1):
        top = replace(blank, quantity="top_concept", setting="singular", x=float(rank))
        yield replace(top, item=item, value=0.99 - 0.03 * rank, note="direction 0")
