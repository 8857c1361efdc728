"""Prediction, confidence and entropy of rows of logits, in one pass."""
# ruff: noqa: ANN001, ANN202 (numba infers the kernel's types)

from math import exp, isfinite, log
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float64

from ._jit import jit
from .threads import Threads


def score_rows(
    rows: Float[np.ndarray, "image class"], inverse_temperature: float, threads: Threads
) -> Float64[np.ndarray, "image 4"]:
    """Return prediction, confidence, negative entropy and maximum logit of each image.

    The prediction is -1 where a logit is not finite, else the first class of the highest logit.
    """
    scores = np.empty((len(rows), 4))
    threads.map_rows(_score, [rows, scores], inverse_temperature)
    return scores


@jit
@no_type_check
def _score(rows, scores, inverse_temperature):
    for image in range(len(rows)):
        row = rows[image]
        best = 0
        sum_of_all = 0.0
        for label in range(len(row)):
            sum_of_all += row[label]
            if row[label] > row[best]:
                best = label
        highest = float(row[best])
        if not isfinite(sum_of_all):  # a sum of finite values may overflow, too
            for label in range(len(row)):
                if not isfinite(row[label]):
                    best = -1
        total = 0.0
        product = 0.0
        for label in range(len(row)):
            shifted = (row[label] - highest) * inverse_temperature
            weight = exp(shifted)
            total += weight
            product += weight * shifted
        scores[image, 0] = best
        scores[image, 1] = 1 / total
        scores[image, 2] = min(product / total - log(total), 0.0)
        scores[image, 3] = highest
    return 0
