"""How the numbers of one row of the pool judge the paper's claims on concepts."""

from collections.abc import Mapping, Sequence

from ..signatures.overlaps import overlaps
from .by_role import Show
from .encoded import PAPER_THRESHOLD, SECOND_THRESHOLD
from .judging import TRIO, Case, Judge, Judged, listed
from .numbers import decimal, whole, with_interval
from .surviving import count, has_rare
from .verdicts import Verdict, at_least, below, more

TEXTURES = frozenset({
    "banded", "blotchy", "braided", "bubbly", "bumpy", "chequered", "cobwebbed",
    "cracked", "crosshatched", "crystalline", "dotted", "fibrous", "flecked",
    "freckled", "frilly", "gauzy", "grid", "grooved", "honeycombed", "interlaced",
    "knitted", "lacelike", "lined", "marbled", "matted", "meshed", "paisley",
    "perforated", "pitted", "pleated", "polka dotted", "porous", "potholed", "scaly",
    "smeared", "spiralled", "sprinkled", "stained", "stratified", "striped", "studded",
    "swirly", "veined", "waffled", "woven", "wrinkled", "zigzagged",
})  # fmt: skip
"""The 47 textures of Broden, which has them from the Describable Textures Dataset."""


def unique_concepts(basis: str, others: Sequence[str]) -> Judge:
    """Zero-shot encodes more concepts than others.

    Args:
        basis: Along the directions of which basis.
        others: The roles that it is compared with.

    Returns:
        The judge.
    """

    def judge(case: Case) -> Judged | None:
        held = case.each("unique_concepts", setting=basis, x=PAPER_THRESHOLD)
        sets = case.sets(basis)
        if not {"zero-shot", *others} <= held.keys() & sets.keys():
            return None
        second = case.each("unique_concepts", setting=basis, x=SECOND_THRESHOLD)
        also = f" At AP {SECOND_THRESHOLD:g}: {listed(second, whole)}." if second else ""
        return Judged(
            f"At AP {PAPER_THRESHOLD:g}: {listed(held, whole)}.{also}",
            dict(_outnumbers(sets, role) for role in others),
            _concept_controls(case, basis, sets),
        )

    return judge


def _outnumbers(sets: Mapping[str, frozenset[str]], role: str) -> tuple[str, Verdict]:
    """Whether zero-shot encodes more than another role, and by what only one encodes."""
    own, others = sets["zero-shot"] - sets[role], sets[role] - sets["zero-shot"]
    what = f"zero-shot above {role} ({len(own)} only its own, {len(others)} only {role}'s)"
    return what, more(len(own), len(others))


def _concept_controls(case: Case, basis: str, sets: Mapping[str, frozenset[str]]) -> str:
    """What an untrained tower encodes, and what random directions do."""
    texts: list[str] = []
    untrained = case.concepts("untrained", basis=basis)
    if untrained is not None:
        fewer = [
            role
            for role, held in sets.items()
            if more(len(untrained - held), len(held - untrained)) == "seen"
        ]
        beyond = f", more than {' and '.join(fewer)}: a count alone is no sign of learning"
        text = f"The untrained control “encodes” {len(untrained)}"
        texts.append(f"{text}{beyond if fewer else ''}.")
    random = case.each("unique_concepts", setting="random", x=PAPER_THRESHOLD)
    if random:
        texts.append(f"Along random directions: {listed(random, whole)}.")
    return " ".join([*texts, *_left(case, "unique_concepts", basis, count)])


def _left(case: Case, quantity: str, basis: str, show: Show) -> list[str]:
    """What the checks leave of a count, a sentence each."""
    said = {
        "chance": "By chance alone one expects {}.",
        "surviving": "After false-discovery control: {}.",
        "held out": "On held-out images too: {}.",
        "floor": "Of concepts with 20 positives or more: {}.",
    }
    checked = {
        item: case.each(f"{quantity}_checked", setting=basis, x=PAPER_THRESHOLD, item=item)
        for item in said
    }
    if not has_rare(case.pool):
        checked.pop("floor")
    return [said[item].format(listed(held, show)) for item, held in checked.items() if held]


def overlap(case: Case) -> Judged | None:
    """What all three encode is the largest region; zero-shot has most of finetuned's."""
    sets = case.sets()
    if len(sets) < len(TRIO):
        return None
    sizes = {names: len(held) for names, held in overlaps(sets).items()}
    total, shared = sum(sizes.values()), sizes.pop(TRIO)
    alone = {role: sizes[role,] for role in TRIO}
    kept = len(sets["zero-shot"] & sets["finetuned"])
    gone = len(sets["finetuned"]) - kept
    listed = ", ".join(f"{role} {count}" for role, count in alone.items())
    return Judged(
        f"Of {total} concepts that any of the three encodes at AP {PAPER_THRESHOLD:g}, "
        f"{shared} are common to all. Of finetuned's {kept + gone}, zero-shot encodes "
        f"{kept}. Alone: {listed}.",
        {
            "the region of all three is largest": more(shared, max(sizes.values())),
            "zero-shot has most of finetuned's": more(kept, gone),
            "more are zero-shot's alone than finetuned's": more(
                alone["zero-shot"], alone["finetuned"]
            ),
        },
    )


def texture(case: Case) -> Judged | None:
    """Zero-shot's most privileged direction encodes textures, finetuned's does not."""
    best = {
        role: case.all(role, "top_concept", setting="singular")
        for role in ("zero-shot", "finetuned")
    }
    if not all(best.values()):
        return None
    many, few = (sum(_is_texture(top.item) for top in tops) for tops in best.values())
    listed = "; ".join(
        f"{role}: " + ", ".join(f"{top.item} ({decimal(top.value)})" for top in tops)
        for role, tops in best.items()
    )
    return Judged(
        f"Best encoded, with average precision: {listed}.",
        {
            "zero-shot's are textures": "seen" if many >= 2 else "not seen",
            "fewer of finetuned's are": "seen" if few < many else "not seen",
        },
    )


def _is_texture(concept: str) -> bool:
    return concept.lower().replace("-", " ").strip() in TEXTURES


def polysemanticity(case: Case) -> Judged | None:
    """A direction of zero-shot encodes several concepts."""
    wanted = {"setting": "singular", "x": PAPER_THRESHOLD}
    held = case.each("polysemanticity", **wanted)
    if "zero-shot" not in held:
        return None
    zero_shot = held["zero-shot"]
    several, under_one = at_least(zero_shot, 2.0), below(zero_shot, 1.0)
    partly: Verdict = "not seen" if under_one == "seen" else "cannot tell"
    control = case.one("untrained", "polysemanticity", **wanted)
    random = case.one("zero-shot", "polysemanticity", **(wanted | {"setting": "random"}))
    untrained = (
        f"The untrained control has {with_interval(control, decimal)}." if control else ""
    )
    counted = ("polysemanticity", "singular", decimal)
    along = (
        f"Along random directions zero-shot has {decimal(random.value)}." if random else ""
    )
    return Judged(
        f"Concepts for each direction at AP {PAPER_THRESHOLD:g}: {listed(held, decimal)}.",
        {"zero-shot has 2 or more": "seen" if several == "seen" else partly},
        " ".join(filter(None, [untrained, along, *_left(case, *counted)])),
    )
