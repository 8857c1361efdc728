"""The probe's head against scikit-learn's own predictions, on activations as they come."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earmark.tuning.linear_probe import PENALTY, STEPS, linear_probe


@pytest.mark.parametrize("classes", [2, 5])
def test_equals_scikit_learns_pipeline(classes: int):
    labels = np.arange(300) % classes
    means = 3 * torch.randn(classes, 7)
    h = (means[labels] + torch.randn(300, 7)) * torch.tensor([
        1,
        1,
        50,
        1,
        0.01,
        1,
        1,
    ]) + 100
    h[:, 6] = 4.0  # a constant feature

    head = linear_probe(h.split(128), labels, classes=classes)

    own = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=STEPS))
    own.fit(h.double().numpy(), labels)
    assert (head.predict(h).numpy() == own.predict(h.double().numpy())).all()
    logits = torch.nn.functional.softmax(head.logits(h), dim=1).numpy()
    np.testing.assert_allclose(logits, own.predict_proba(h.double().numpy()), atol=2e-3)
    assert not head.normalizes


def test_every_class_needs_an_image():
    with pytest.raises(ValueError, match="1 of 3 have none"):
        linear_probe([torch.randn(4, 2)], np.array([0, 0, 2, 2]), classes=3)
    with pytest.raises(ValueError, match="two classes or more"):
        linear_probe([torch.randn(4, 2)], np.array([0, 0, 0, 0]), classes=1)
    with pytest.raises(ValueError, match="4 activations have 3 labels"):
        linear_probe([torch.randn(4, 2)], np.array([0, 1, 1]), classes=2)
