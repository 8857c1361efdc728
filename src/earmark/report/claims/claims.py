"""The paper's claims, each with its rule, and the judgements on them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..formatting import rename_images
from ..results_grid import ResultsGrid
from ..verdicts import Verdict, agree
from . import rules
from .rules import MIN_ALPHA_MODELS, MIN_FOLLOWING_CORRELATION, FamilyEvidence, Rule


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, the paper's numbers, and the rule that judges it."""

    key: str
    title: str
    paper: str
    rule: str  # in words
    needs: str  # what must have been measured
    judge: Rule


@dataclass(frozen=True)
class Finding:
    """Verdict of a study on one claim, with a text for each family, and for controls."""

    claim: Claim
    verdict: Verdict
    observations: Sequence[str]
    controls: Sequence[str]


CLAIMS = (
    Claim(
        "accuracy",
        "Finetuning raises accuracy on ImageNet",
        "It does in all twelve rows of Table 4: zero-shot models reach 32 to 70 %, finetuned "
        "models 69 to 81 %. Supervised models reach 70 to 80 %.",
        "Reproduced if the finetuned model's accuracy is above the zero-shot model's, not "
        "reproduced if below.",
        "the accuracy on ImageNet of a zero-shot and a finetuned model",
        rules.accuracy,
    ),
    Claim(
        "robustness",
        "Take-away 1: zero-shot models are the most robust, supervised models the least",
        "Effective robustness is 7 to 31 points for zero-shot models, falls to 1 to 15 "
        "when they are finetuned, and is at most 2 for supervised models.",
        "Reproduced if zero-shot is above finetuned and finetuned above supervised; not "
        "reproduced if either is the other way round.",
        "the effective robustness of a zero-shot, a finetuned and a supervised model",
        rules.robustness,
    ),
    Claim(
        "kurtosis",
        "Activation kurtosis tells zero-shot models from finetuned and supervised ones",
        "Zero-shot models have outlier features, with a kurtosis of 7.3 to 81; finetuned "
        "and supervised models have 2.9 to 4.6, near the 3 of a Gaussian.",
        "Reproduced if zero-shot is at 5 or more, and finetuned and supervised are below "
        "5; not reproduced if one of them is on the other side.",
        "the activation kurtosis of a zero-shot, a finetuned and a supervised model",
        rules.kurtosis,
    ),
    Claim(
        "directions",
        "Take-away 2: zero-shot models have privileged directions, supervised models none",
        "Every zero-shot model has at least one direction far more important than the "
        "mean; finetuning keeps it but lowers its importance (except for ResNets trained on "
        "YFCC-15M); supervised models have none.",
        "A direction is privileged at 10 times the mean importance, over as many directions "
        "as features, or more. Reproduced if "
        "zero-shot has one, the finetuned model's largest importance is lower, and "
        "supervised has none; not reproduced if one of the three is contradicted.",
        "the importance of the directions of a zero-shot, a finetuned and a supervised model",
        rules.directions,
    ),
    Claim(
        "order",
        "Directions of large singular values are the important ones",
        "Over directions, singular value and importance have a Spearman correlation of .96.",
        "Reproduced if it is .9 or more for the zero-shot model, not reproduced if less.",
        "the rank correlation of singular value and importance of a zero-shot model",
        rules.order,
    ),
    Claim(
        "pruning",
        "Take-away 3: a fifth of the directions explains a zero-shot model's robustness",
        "The 80 % of directions with the smallest singular values can be removed without "
        "a substantial effect on accuracy or effective robustness.",
        "Reproduced if neither the zero-shot model's accuracy on ImageNet nor its "
        "effective robustness falls by more than 2 points; not reproduced if one falls by "
        "more and its intervals do not overlap.",
        "a zero-shot model's accuracy and effective robustness with 80 % of directions removed",
        rules.pruning,
    ),
    Claim(
        "unique",
        "Take-away 5: zero-shot models encode more concepts",
        "Zero-shot models encode 489 to 733 of Broden's 1,197 concepts, finetuned ones 311 to 602, "
        "supervised ones 397 to 635; each zero-shot model more than its own counterparts. (The "
        "paper's second version withdrew this as an indicator of robustness.)",
        "At an average precision (AP) of .9, the paper's threshold: reproduced if "
        "zero-shot is above finetuned and supervised, not reproduced if below one of them.",
        "the unique concepts of a zero-shot, a finetuned and a supervised model, by name",
        rules.unique_concepts_rule("singular", ("finetuned", "supervised")),
    ),
    Claim(
        "overlap",
        "Most encoded concepts are common to all roles, and zero-shot models add their own",
        "The concepts that all three models encode are the largest region (237 to 516); most "
        "concepts of a finetuned model are encoded by its zero-shot model, too; the "
        "zero-shot model alone encodes 77 to 105.",
        "Reproduced if the concepts that all three encode are the largest region, the zero-shot "
        "model encodes more than half of the finetuned model's concepts, and the zero-shot model "
        "alone encodes more than the finetuned model alone; not reproduced if one of the three "
        "is contradicted.",
        "the average precisions of the concepts of a zero-shot, a finetuned and a supervised model",
        rules.overlap,
    ),
    Claim(
        "neuron",
        "Zero-shot models encode more concepts along single neurons, too",
        "Zero-shot models encode 389 to 648 concepts along single neurons, finetuned ones "
        "331 to 550.",
        "At AP .9: reproduced if zero-shot is above finetuned, not reproduced if below.",
        "the unique concepts along neurons of a zero-shot and a finetuned model, by name",
        rules.unique_concepts_rule("neuron", ("finetuned",)),
    ),
    Claim(
        "texture",
        "Take-away 4: zero-shot models' privileged directions encode textures",
        "A zero-shot model's direction of largest importance encodes generic textures, "
        "such as meshed, flecked and perforated; in finetuned models, concrete things take "
        "their place, such as a tennis court.",
        "A concept is a texture if its name is one of Broden's 47 textures. Reproduced if "
        "two or more of the zero-shot model's three best concepts are, and fewer of the "
        "finetuned model's; otherwise not reproduced.",
        "the best concepts of a zero-shot and a finetuned model's directions of largest importance",
        rules.texture,
    ),
    Claim(
        "polysemanticity",
        "Take-away 5: zero-shot models are polysemantic",
        "On average, a direction of a zero-shot model encodes 3 to 16 concepts, and more than "
        "10 in most models. (1,197 concepts are probed; a smaller set gives smaller counts.)",
        "At AP .9: reproduced if a direction of the zero-shot model encodes 2 or more on "
        "average, not reproduced if less than 1.",
        "the polysemanticity of a zero-shot model",
        rules.polysemanticity,
    ),
)

INTERPOLATION_CLAIM = Claim(
    "interpolation",
    "Between zero-shot and finetuned, the signatures follow effective robustness",
    "Along alpha (Wise-FT), effective robustness, kurtosis and the number of concepts fall "
    "together for models of the larger pretraining sets; for those of YFCC-15M and CC-12M "
    "robustness peaks at alpha .4, and the signatures fall from there on.",
    f"With {MIN_ALPHA_MODELS} models or more along alpha, both ends included: reproduced if the "
    "rank correlation of each signature with effective robustness is "
    f"{MIN_FOLLOWING_CORRELATION:g} or more, not reproduced if one is 0 or less.",
    f"effective robustness and a signature of {MIN_ALPHA_MODELS} models or more along "
    "alpha, a zero-shot and a finetuned one among them",
    rules.interpolation,
)


def findings(grid: ResultsGrid) -> list[Finding]:
    """Return a finding for each claim, on interpolated models only where there are any."""
    has_interpolations = any(row.interpolations for row in grid.rows)
    claims = (*CLAIMS, INTERPOLATION_CLAIM) if has_interpolations else CLAIMS
    return [_judge_claim(grid, claim) for claim in claims]


def _judge_claim(grid: ResultsGrid, claim: Claim) -> Finding:
    by_label = {row.label: claim.judge(FamilyEvidence(grid, row)) for row in grid.rows}
    judgements = {label: judgement for label, judgement in by_label.items() if judgement}
    verdicts: list[Verdict] = [judgement.verdict for judgement in judgements.values()]
    texts = [judgement.text for judgement in judgements.values()]
    controls = {label: j.control for label, j in judgements.items() if j.control}
    if len(judgements) > 1:
        counts = ", ".join(f"{verdict} in {n}" for verdict, n in Counter(verdicts).items())
        texts = [
            f"Of {len(verdicts)} backbones and pretrainings: {counts}.",
            *(f"{label} ({j.verdict}). {j.text}" for label, j in judgements.items()),
        ]
        controls = {label: f"{label}. {text}" for label, text in controls.items()}
    texts = texts or [f"It cannot be judged here: that needs {claim.needs}."]
    title = grid.id_title if grid.id_dataset else ""
    observations, notes = (
        [rename_images(text, title) for text in of_claim] for of_claim in (texts, controls.values())
    )
    return Finding(claim, agree(verdicts), observations, notes)
