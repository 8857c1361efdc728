"""The paper's claims, in our words and its numbers, and the rule that each is judged by."""

from dataclasses import dataclass

from . import judging, judging_alpha, judging_concepts
from .judging import Judge


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        key: Its name within the page.
        title: What it says, in one line.
        paper: What the paper found, with its numbers.
        rule: When it counts as seen and as not seen.
        needs: What must have been measured, to be said where it was not.
        judge: Judges one row of the pool by it.
    """

    key: str
    title: str
    paper: str
    rule: str
    needs: str
    judge: Judge


CLAIMS = (
    Claim(
        "accuracy",
        "Finetuning raises accuracy on ImageNet",
        "In each of the twelve rows of Table 4 it does: from 32 to 70 % zero-shot to 69 "
        "to 81 %. Supervised models reach 70 to 80 %.",
        "Seen if the finetuned model's accuracy is above the zero-shot model's, not seen "
        "if below.",
        "the accuracy on ImageNet of a zero-shot and a finetuned model",
        judging.accuracy,
    ),
    Claim(
        "robustness",
        "Take-away 1: zero-shot models are the most robust, supervised models the least",
        "Effective robustness is 7 to 31 points for zero-shot models, falls to 1 to 15 "
        "when they are finetuned, and is at most 2 for supervised models.",
        "Seen if zero-shot is above finetuned and finetuned above supervised; not seen if "
        "either is the other way round.",
        "the effective robustness of a zero-shot, a finetuned and a supervised model",
        judging.robustness,
    ),
    Claim(
        "kurtosis",
        "Activation kurtosis tells zero-shot models from finetuned and supervised ones",
        "Zero-shot models have outlier features, with a kurtosis of 7.3 to 81; finetuned "
        "and supervised models have 2.9 to 4.6, near the 3 of a Gaussian.",
        "Seen if zero-shot is at 5 or more, and finetuned and supervised are below 5; not "
        "seen if one of them is on the other side.",
        "the activation kurtosis of a zero-shot, a finetuned and a supervised model",
        judging.kurtosis,
    ),
    Claim(
        "directions",
        "Take-away 2: zero-shot models have privileged directions, supervised models none",
        "Every zero-shot model has at least one direction far more important than the "
        "mean; finetuning keeps it but lowers its importance (but for ResNets trained on "
        "YFCC-15M); supervised models have none.",
        "A direction is privileged from 10 times the mean importance. Seen if zero-shot "
        "has one, the finetuned model's largest importance is lower, and supervised has "
        "none; not seen if one of the three is contradicted.",
        "the importance of the directions of a zero-shot, a finetuned and a supervised "
        "model",
        judging.directions,
    ),
    Claim(
        "order",
        "Directions of large singular values are the important ones",
        "Over directions, singular value and importance have a Spearman correlation of "
        ".96.",
        "Seen if it is .9 or more for the zero-shot model, not seen if less.",
        "the rank correlation of singular value and importance of a zero-shot model",
        judging.order,
    ),
    Claim(
        "pruning",
        "Take-away 3: a fifth of the directions explains a zero-shot model's robustness",
        "The 80 % of directions with the smallest singular values can be removed without "
        "a substantial effect on accuracy or effective robustness.",
        "Seen if neither the zero-shot model's accuracy on ImageNet nor its effective "
        "robustness falls by more than 2 points; not seen if one falls by more and its "
        "intervals do not overlap.",
        "a zero-shot model's accuracy and effective robustness with 80 % of directions "
        "removed",
        judging.pruning,
    ),
    Claim(
        "unique",
        "Take-away 5: zero-shot models encode more concepts",
        "Zero-shot models encode 489 to 733 of Broden's 1,197 concepts, finetuned ones "
        "311 to 602, supervised ones 397 to 635; each zero-shot model more than its own "
        "counterparts. (The paper's second version withdrew this as an indicator of "
        "robustness.)",
        "At an average precision (AP) of .9, the paper's threshold: seen if zero-shot is "
        "above finetuned and above supervised, not seen if below one of them.",
        "the unique concepts of a zero-shot, a finetuned and a supervised model, one by "
        "one",
        judging_concepts.unique_concepts("singular", ("finetuned", "supervised")),
    ),
    Claim(
        "overlap",
        "Most encoded concepts are common to all roles, and zero-shot models add their own",
        "The concepts that all three models encode are the largest region (237 to 516); "
        "finetuned models' concepts are mostly also their zero-shot model's; 77 to 105 "
        "are encoded by the zero-shot model alone.",
        "Seen if the region of all three is the largest, more than half of the finetuned "
        "model's concepts are the zero-shot model's too, and more are zero-shot's alone "
        "than finetuned's alone; not seen if one of the three is contradicted.",
        "the average precisions of the concepts of a zero-shot, a finetuned and a "
        "supervised model",
        judging_concepts.overlap,
    ),
    Claim(
        "neuron",
        "The same holds along single neurons",
        "Zero-shot models encode 389 to 648 concepts along single neurons, finetuned ones "
        "331 to 550.",
        "At AP .9: seen if zero-shot is above finetuned, not seen if below.",
        "the unique concepts along the neurons of a zero-shot and a finetuned model, one "
        "by one",
        judging_concepts.unique_concepts("neuron", ("finetuned",)),
    ),
    Claim(
        "texture",
        "Take-away 4: zero-shot models' privileged directions encode textures",
        "The most privileged direction of a zero-shot model encodes generic textures, "
        "such as meshed, flecked and perforated; finetuning puts concrete things in their "
        "place, such as a tennis court.",
        "A concept is a texture if its name is one of Broden's 47 textures. Seen if two "
        "or more of the zero-shot model's three best concepts are, and fewer of the "
        "finetuned model's; otherwise not seen.",
        "the best concepts of the most privileged direction of a zero-shot and a "
        "finetuned model",
        judging_concepts.texture,
    ),
    Claim(
        "polysemanticity",
        "Take-away 5: zero-shot models are polysemantic",
        "A direction of a zero-shot model encodes 3 to 16 concepts on average, of most "
        "models more than 10. (Of 1,197: where fewer are probed, fewer can be encoded.)",
        "At AP .9: seen if a direction of the zero-shot model encodes 2 or more on "
        "average, not seen if less than 1.",
        "the polysemanticity of a zero-shot model",
        judging_concepts.polysemanticity,
    ),
)
"""In the order in which the page treats them."""

BETWEEN = Claim(
    "interpolation",
    "Between zero-shot and finetuned, the signatures follow effective robustness",
    "Along alpha (Wise-FT), effective robustness, kurtosis and the number of concepts fall "
    "together for models of the larger pretraining sets; for those of YFCC-15M and CC-12M "
    "robustness peaks at alpha .4, and the signatures fall from there on.",
    f"From {judging_alpha.FEWEST} models along alpha on, both ends included: seen if the "
    "rank correlation of each signature with effective robustness is "
    f"{judging_alpha.FOLLOWS:g} or more, not seen if one is 0 or less.",
    f"effective robustness and a signature of {judging_alpha.FEWEST} models or more along "
    "alpha, a zero-shot and a finetuned one among them",
    judging_alpha.interpolation,
)
"""The claim about models that only a study has."""
