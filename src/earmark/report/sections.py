"""The page's sections: which tables and figures stand together, and with which claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


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
        return self.title.lower().replace(" ", "-")


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
                },
                ["directions", "order"],
            ),
        ),
    ),
    Section(
        "Pruning",
        "What is lost when the least important directions are removed from the head.",
        (Part({"fig-03": "what pruning costs"}, ["pruning"]),),
    ),
    Section(
        "Concepts",
        "Which concepts a model encodes: those whose images the projections on some "
        "direction tell from other images, with a high average precision (AP).",
        (
            Part(
                {
                    "table-3": "the number of unique concepts along singular directions",
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
        (Part({"table-6": "polysemanticity"}, ["polysemanticity"]),),
    ),
)
