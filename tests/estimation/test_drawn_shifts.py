"""On shifts that the lab draws, intervals cover as they say, and the default choice loses less."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from earmark import Classifier, load_model
from earmark.estimation.accuracy import estimate_from_scores
from earmark.estimation.scored_logits import ScoredLogits
from earmark.lab import world
from earmark.statistics.selection import SelectionTask, regret_difference
from earmark.weights.interpolation import interpolate_classifiers

N_LABELED, N_TARGETS, N_IMAGES = 20, 200, 250
METHODS = ("confidence", "doc", "atc", "atc-entropy", "doc-regressed")
pytestmark = pytest.mark.slow


def iter_models() -> Iterator[tuple[str, Classifier]]:
    ends = [load_model(name) for name in ("lab:zero-shot", "lab:finetuned")]
    yield "supervised", load_model("lab:supervised")
    for alpha in np.linspace(0, 1, 5):
        yield f"path {alpha:.2f}", interpolate_classifiers(*ends, float(alpha))


@torch.inference_mode()
def score(model: Classifier, factors: world.Factors) -> ScoredLogits:
    pixels = torch.from_numpy(world.render(factors))
    activations = model.encoder.eval()(model.transform.batch(pixels))
    return ScoredLogits(model.head.logits(activations).float(), factors.labels)


@pytest.fixture(scope="module")
def scores() -> dict[str, tuple[ScoredLogits, list[ScoredLogits]]]:
    """ID images and drawn shifts of each model; interpolated models share the shifts."""
    sets = [world.sample_drawn_shift(N_IMAGES, seed=s) for s in range(N_LABELED + N_TARGETS)]
    id_set = world.sample_id(2000, seed=0, split="val")
    return {
        name: (score(model, id_set), [score(model, factors) for factors in sets])
        for name, model in iter_models()
    }


@pytest.mark.parametrize("model", ["supervised", "path 0.00", "path 1.00"])
@pytest.mark.parametrize("method", METHODS)
def test_intervals_cover_drawn_shifts(scores: dict, model: str, method: str):
    source, sets = scores[model]
    covered = []
    # Coverage is over labeled shifts, too: each target has those of the group before its own.
    for first in range(0, len(sets), N_LABELED):
        labeled = {str(k): (source, sets[k - N_LABELED]) for k in range(first, first + N_LABELED)}
        for target in sets[first : first + N_LABELED]:
            estimate = estimate_from_scores(
                source, target, method=method, labeled_shifts=labeled, level=0.9
            )
            assert "a conformal interval over 20 labeled shifts" in estimate.note
            if not estimate.refusal:
                covered.append(estimate.low <= target.accuracy <= estimate.high)
    assert len(covered) > 0.8 * N_TARGETS
    assert np.mean(covered) >= 0.87


@pytest.mark.parametrize("pool", ["path", ""])
def test_the_default_score_chooses_no_worse_than_id_accuracy(scores: dict, pool: str):
    names = [name for name in scores if name.startswith(pool)]
    shifts = range(N_LABELED, N_LABELED + N_TARGETS)
    estimates, by_id, accuracies = (
        np.array([[value(*scores[name], shift) for name in names] for shift in shifts])
        for value in (
            lambda s, sets, k: estimate_from_scores(s, sets[k], method="atc-entropy").value,
            lambda s, _, __: s.accuracy,
            lambda _, sets, k: sets[k].accuracy,
        )
    )
    _, _, high = regret_difference([SelectionTask(estimates, by_id, accuracies)])
    assert high <= 0.005
