"""The page's sections: which tables and figures stand together, and with which claims."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from .pool import CONTROLS, LARGE, MAIN, Pool


@dataclass(frozen=True)
class Part:
    """Tables and figures that belong together, and the claims that they bear on.

    Attributes:
        exhibits: Their names, and what was not measured where one is left out.
        claims: The keys of the claims.
    """

    exhibits: Mapping[str, str]
    claims: Sequence[str]


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        title: Its heading.
        lead: What it is about, in one sentence.
        parts: What it shows.
    """

    title: str
    lead: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """What a link to it names."""
        return self.title.lower().replace(",", "").replace(" ", "-")


SECTIONS = (
    Section(
        "Accuracy and effective robustness",
        "How much accuracy a model keeps when the images change, against what its accuracy "
        "on ImageNet lets one expect.",
        (
            Part({"table-4": "accuracy"}, ["accuracy"]),
            Part(
                {
                    "table-1": "effective robustness",
                    "table-1b": "effective robustness, from a known line,",
                    "fig-01": "a model's accuracy on ImageNet and on the shifts, neither 0 "
                    "nor 1,",
                },
                ["robustness"],
            ),
        ),
    ),
    Section(
        "Outlier features",
        "Whether some features of an image are far larger than its others.",
        (Part({"table-2": "activation kurtosis"}, ["kurtosis"]),),
    ),
    Section(
        "Privileged directions",
        "Whether some directions of the representation matter far more than the others to "
        "the head that reads it.",
        (
            Part(
                {
                    "fig-02": "the importance of directions",
                    "table-2b": "the importance of directions",
                    "table-2c": "which features stand out",
                },
                ["directions", "order"],
            ),
            Part({"fig-07": "the importance of directions"}, []),
        ),
    ),
    Section(
        "Pruning",
        "What is lost when the least important directions are removed from the head.",
        (
            Part({"fig-03": "what pruning costs"}, ["pruning"]),
            Part({"fig-08": "what pruning costs", "fig-09": "what pruning costs"}, []),
        ),
    ),
    Section(
        "Concepts",
        "Which concepts a model encodes: those whose images the projections on some "
        "direction tell from other images, with a high average precision (AP).",
        (
            Part(
                {
                    "table-3": "the number of unique concepts along singular directions",
                    "table-3b": "what chance makes of that number",
                    "fig-04c": "what chance makes of that number",
                    "fig-04b": "the average precision of each concept",
                },
                ["unique"],
            ),
            Part(
                {"fig-04": "the average precision of each concept, for two roles or more,"},
                ["overlap"],
            ),
            Part({"table-7": "the number of unique concepts in other bases"}, ["neuron"]),
            Part({"table-5": "what the most privileged direction encodes"}, ["texture"]),
        ),
    ),
    Section(
        "Polysemanticity",
        "How many concepts share a direction.",
        (
            Part(
                {
                    "table-6": "polysemanticity",
                    "table-6b": "what chance makes of polysemanticity",
                },
                ["polysemanticity"],
            ),
        ),
    ),
    Section(
        "Layer by layer",
        "Where in the network a finetuned model differs from the zero-shot model that it "
        "began as.",
        (Part({"fig-05": "CKA", "fig-06": "CKA"}, []),),
    ),
    Section(
        "Without captions, and without diversity",
        "Whether the signatures come with language, or with diverse images: by one "
        "that never saw a caption, and one that saw captions of ImageNet's images alone.",
        (
            Part(
                {
                    "table-8": "what Table 8 shows",
                    "fig-10": "the importance of these models' directions",
                },
                [],
            ),
        ),
    ),
    Section(
        "Between zero-shot and finetuned",
        "What becomes of robustness and of its signatures when the weights of both models "
        "are averaged (Wise-FT), alpha being the finetuned model's share.",
        (
            Part(
                {
                    f"fig-{number + part}": f"{what} along alpha"
                    for number, what in (
                        (11, "accuracy"),
                        (13, "effective robustness"),
                        (15, "activation kurtosis"),
                        (17, "the number of unique concepts"),
                    )
                    for part in (0, 1)
                },
                ["interpolation"],
            ),
        ),
    ),
)

_FIRST, _SMALL = frozenset({"main", "large"}), frozenset({"small"})
_EXPECTED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("fig-02", "fig-03", "fig-04", "fig-04b", "fig-04c"), frozenset(MAIN)),
    **dict.fromkeys(("fig-05", "fig-11", "fig-13", "fig-15", "fig-17"), _FIRST),
    **dict.fromkeys(("fig-06", "fig-09", "fig-12", "fig-14", "fig-16", "fig-18"), _SMALL),
    "fig-07": _FIRST | _SMALL,
    "fig-08": frozenset(LARGE),
    **dict.fromkeys(("table-8", "fig-10"), frozenset(CONTROLS)),
}
"""Of which groups of a pool an exhibit tells, where it is not of all models."""


def sections(pool: Pool, made: Container[str], found: Container[str]) -> list[Section]:
    """The sections of a pool's page.

    Args:
        pool: The records, arranged.
        made: The names of the tables and figures that there are.
        found: The keys of the claims that were judged.

    Returns:
        The sections, each with the exhibits that there are or, its groups being in the
        pool, should be.
    """

    def kept(part: Part) -> Part:
        names = [n for n in part.exhibits if n in made or expected(pool, n)]
        exhibits = {name: part.exhibits[name] for name in names}
        return Part(exhibits, [claim for claim in part.claims if claim in found])

    held = [replace(one, parts=[*map(kept, one.parts)]) for one in SECTIONS]
    return [one for one in held if any(p.exhibits or p.claims for p in one.parts)]


def expected(pool: Pool, exhibit: str) -> bool:
    """Whether a pool has the models that a table or figure tells of.

    Args:
        pool: The records, arranged.
        exhibit: The table's or the figure's name.

    Returns:
        False where its groups are absent, so that nobody misses it.
    """
    groups = _EXPECTED.get(exhibit)
    return groups is None or bool(groups & pool.groups)
