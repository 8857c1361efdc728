"""A head for an encoder that has none: a linear probe.

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

PENALTY = 0.316  # scikit-learn's C: CLIP's for ImageNet
STEPS = 1000


def linear_probe(
    batches: Sequence[Float[Tensor, "_ feature"]],
    labels: Int64[np.ndarray, " image"],
    *,
    classes: int,
) -> Head:
    """Fit multinomial logistic regression on training activations.

    Features are standardised for the fit, and the head takes activations as they come. The
    fit has no random part.

    Args:
        batches: Activations of the training images.
        labels: Their classes.
        classes: How many there are.

    Returns:
        A head with a bias, which does not normalise.

    Raises:
        ValueError: If a class has no training image, there are fewer than two classes, or
            labels and activations differ in number.

    Example:
        >>> h = torch.tensor([[0.0, 1], [0, 2], [3, 0], [4, 0]])
        >>> linear_probe([h], np.array([0, 0, 1, 1]), classes=2).predict(h)
        tensor([0, 0, 1, 1])
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    h = torch.cat([batch.double() for batch in batches]).numpy()
    if len(h) != len(labels):
        raise ValueError(f"{len(h)} activations have {len(labels)} labels: give one each.")
    counts = np.bincount(labels, minlength=classes)
    if classes < 2 or not counts.all():
        raise ValueError(
            f"A linear probe needs training images of two classes or more, and of each: "
            f"{int((counts == 0).sum())} of {classes} have none."
        )
    mean, spread = h.mean(axis=0), h.std(axis=0)
    # A feature that is constant, but for rounding, says nothing, and must not be blown up.
    spread[spread <= 1e-5 * np.abs(mean)] = np.inf
    with warnings.catch_warnings(record=True, category=ConvergenceWarning) as cut_short:
        warnings.simplefilter("always", ConvergenceWarning)
        found = LogisticRegression(C=PENALTY, max_iter=STEPS)
        h -= mean  # in place: training images are many
        h /= spread
        found.fit(h, labels)
    if cut_short:
        warnings.warn(
            f"The linear probe had not converged after {STEPS} steps: it is used as it is.",
            stacklevel=2,
        )
    coefficients, intercepts = found.coef_, found.intercept_
    if classes == 2:  # scikit-learn then has one row, for the second class
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([[0.0], intercepts])
    weight = coefficients / spread
    bias = intercepts - weight @ mean
    return Head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
