"""Linear probe: a head fitted on activations of an encoder without one.

References:
    Alain and Bengio, Understanding intermediate layers using linear classifier probes,
    2016. https://arxiv.org/abs/1610.01644
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    ICML 2021 (the penalty: Appendix A.3). https://arxiv.org/abs/2103.00020
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..models.classifier import Head

INVERSE_REGULARIZATION = 0.316  # scikit-learn's C: CLIP's for ImageNet
MAX_ITERATIONS = 1000


def linear_probe(
    batches: Sequence[Float[Tensor, "_ feature"]],
    labels: Int64[np.ndarray, " image"],
    *,
    classes: int,
) -> Head:
    """Fit multinomial logistic regression on training activations; return a head with a bias."""
    # Features are standardized for the fit; the head takes raw activations.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    h = torch.cat([batch.double() for batch in batches]).numpy()
    if len(h) != len(labels):
        raise ValueError(f"Got {len(h)} activations and {len(labels)} labels.")
    counts = np.bincount(labels, minlength=classes)
    if classes < 2 or not counts.all():
        raise ValueError(
            "A linear probe needs two classes or more, with training images of each: "
            f"{int((counts == 0).sum())} of {classes} have none."
        )
    mean, std = h.mean(axis=0), h.std(axis=0)
    # a feature that is constant up to rounding must not be scaled up
    std[std <= 1e-5 * np.abs(mean)] = np.inf
    with warnings.catch_warnings(record=True, category=ConvergenceWarning) as not_converged:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=MAX_ITERATIONS)
        h -= mean  # in place: the activations may fill most of the memory
        h /= std
        model.fit(h, labels)
    if not_converged:
        warnings.warn(
            f"The linear probe has not converged after {MAX_ITERATIONS} steps; it is used "
            "as it is.",
            stacklevel=2,
        )
    coefficients, intercepts = model.coef_, model.intercept_
    if classes == 2:  # scikit-learn then has one row, for the second class
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([[0.0], intercepts])
    weight = coefficients / std
    bias = intercepts - weight @ mean
    return Head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
