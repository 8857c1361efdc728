"""The probe's head against scikit-learn's own predictions, on activations as they come."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earmark.training.linear_probe import INVERSE_REGULARIZATION, MAX_ITERATIONS, linear_probe


@pytest.mark.parametrize("classes", [2, 5])
def test_equals_scikit_learns_pipeline(classes: int):
    labels = np.arange(300) % classes
    means = 3 * torch.randn(classes, 7)
    h = (means[labels] + torch.randn(300, 7)) * torch.tensor([1, 1, 50, 1, 0.01, 1, 1]) + 100
    h[:, 6] = 4.0  # a constant feature, and one that is, but for rounding
    h[:, 5] = 10 + 2e-6 * torch.randn(300)

    head = linear_probe(h.split(128), labels, classes=classes)

    own = make_pipeline(
        StandardScaler(), LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=MAX_ITERATIONS)
    )
    telling = h[:, :5].double().numpy()
    own.fit(telling, labels)
    assert (head.predict(h).numpy() == own.predict(telling)).all()
    shares = torch.nn.functional.softmax(head.logits(h), dim=1).numpy()
    np.testing.assert_allclose(shares, own.predict_proba(telling), atol=2e-3)
    assert not head.weight[:, 5:].any()
    assert not head.normalizes


def test_a_fit_that_was_cut_short_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("earmark.training.linear_probe.MAX_ITERATIONS", 1)
    with pytest.warns(UserWarning, match="has not converged after 1 steps"):
        linear_probe([torch.randn(40, 9)], np.arange(40) % 4, classes=4)


def test_every_class_needs_an_image():
    with pytest.raises(ValueError, match="1 of 3 have none"):
        linear_probe([torch.randn(4, 2)], np.array([0, 0, 2, 2]), classes=3)
    with pytest.raises(ValueError, match="two classes or more"):
        linear_probe([torch.randn(4, 2)], np.array([0, 0, 0, 0]), classes=1)
    with pytest.raises(ValueError, match="4 activations and 3 labels"):
        linear_probe([torch.randn(4, 2)], np.array([0, 1, 1]), classes=2)
