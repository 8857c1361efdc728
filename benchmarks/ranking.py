"""Ranking of models on images without labels."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from earmark.estimation.accuracy import estimate_from_scores
from earmark.estimation.scored_logits import ScoredLogits

from .inputs import SEED, Sizes, activations, head, labels
from .measuring import Difference, Results, Way, Work

MODELS = 6
FEATURES = 512  # of a CLIP ViT-B
BLOCK = 1_024
PEER = "scipy.special.log_softmax of all logits, for one model, scaled"


@dataclass(frozen=True)
class StoredModel:
    """Stored activations and the head; logits are computed in each pass."""

    rows: NDArray[Any]
    weight: NDArray[Any]

    def __iter__(self) -> Iterator[Tensor]:
        weight = torch.from_numpy(self.weight)
        for rows in torch.from_numpy(self.rows).split(BLOCK):
            yield rows @ weight.T


def works(sizes: Sizes) -> Generator[Work]:
    """Beside SciPy's softmax, and beside the products alone."""
    sizes = replace(sizes, features=min(sizes.features, FEATURES))
    images, weight = activations(sizes.images, sizes.features), head(sizes)
    truth = labels(images, weight)
    model = StoredModel(images, weight)
    yield Work(
        name=f"Rank {MODELS} models on {sizes.images:,} x {sizes.classes:,} logits, in and out "
        "of distribution",
        conditions="`estimate_from_scores`, ATC by entropy: float32 activations; "
        f"seed {SEED}; compiled before; all cores.",
        ways=(
            Way(
                name="earmark",
                role="earmark",
                run=partial(_rank, model, truth),
                target=10,
                memory_target=1.5 * 2**30,
            ),
            Way(
                name=PEER,
                role="peer",
                run=partial(_scipy, model, truth),
                seconds=lambda took: MODELS * took[PEER],
                target=1.5,
            ),
            Way(name="the products alone", role="floor", run=partial(_products, model), target=2),
        ),
        compare=_differences,
    )


def _rank(model: StoredModel, truth: NDArray[Any]) -> NDArray[np.float64]:
    values = []
    for _ in range(MODELS):
        source, target = ScoredLogits(model, truth), ScoredLogits(model)
        estimate = estimate_from_scores(source, target, method="atc-entropy")
        values.append(estimate.value)
    return np.array(values)


def _scipy(model: StoredModel, truth: NDArray[Any]) -> NDArray[np.float64]:
    sides = []
    for _ in range(2):
        scores, best = [], []
        for block in model:
            logits = block.double().numpy()
            logs = log_softmax(logits, axis=1)
            scores.append((np.exp(logs) * logs).sum(axis=1))
            best.append(logits.argmax(axis=1))
        sides.append((np.concatenate(scores), np.concatenate(best)))
    (own, predicted), (theirs, _) = sides
    errors = int((predicted != truth).sum())
    value = float((theirs >= np.sort(own)[errors]).mean()) if errors < len(own) else 0.0
    return np.full(MODELS, value)


def _products(model: StoredModel) -> None:
    for _ in range(2 * MODELS):
        for _block in model:
            pass


def _differences(results: Results) -> Iterator[Difference]:
    found = float(np.abs(results["earmark"] - results[PEER]).max())
    yield Difference("the estimated accuracy", found, 1e-4)
