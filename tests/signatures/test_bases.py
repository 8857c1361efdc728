"""Bases against scikit-learn and the uniform law of rotations."""

import numpy as np
import pytest
import scipy.stats
import sklearn.decomposition
import torch
from torch.testing import assert_close

from earmark import neuron_basis, pca_basis, random_basis
from earmark.signatures.bases import fit_pca


@pytest.mark.parametrize("offset", [0, 1e6])
def test_pca_matches_scikit_learn(offset: float):
    scales = torch.tensor([5.0, 3, 2, 1]).double()
    activations = torch.randn(1500, 4).double() * scales

    basis = pca_basis(iter((activations + offset).split(400)))

    expected = sklearn.decomposition.PCA().fit(activations).components_
    assert_close(basis.abs(), torch.from_numpy(np.abs(expected)), rtol=1e-5, atol=1e-6)


def test_neurons_are_unit_vectors():
    assert torch.equal(neuron_basis(3) @ torch.arange(3.0).double(), torch.arange(3.0).double())


def test_rotations_are_orthogonal_seeded_and_leave_the_generator_alone():
    before = torch.get_rng_state()

    basis = random_basis(20, seed=3)

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(basis, random_basis(20, seed=3))
    assert not torch.equal(basis, random_basis(20, seed=4))
    assert_close(basis @ basis.T, neuron_basis(20))


def test_a_basis_has_features():
    for basis in (neuron_basis, random_basis):
        with pytest.raises(ValueError, match="features must be >= 1, got 0"):
            basis(0)


def test_rotations_are_uniform():
    """The first entry of a uniform unit vector is a scaled beta variable."""
    first = [random_basis(5, seed=seed)[0, 0].item() for seed in range(400)]

    law = scipy.stats.beta(2, 2, loc=-1, scale=2)  # (d - 1) / 2 twice
    assert scipy.stats.kstest(first, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e200, 3e305])
def test_scale_changes_no_principal_direction(scale: float):
    """Squares of such activations over- or underflow; batches of other scales come first."""
    activations = torch.randn(300, 4).double() * torch.tensor([5.0, 3, 2, 1]).double() + 1
    activations[:40] *= 1e-3

    found = fit_pca((scale * activations).split(40))

    expected = sklearn.decomposition.PCA().fit(activations)
    assert_close(found.components.abs(), torch.from_numpy(np.abs(expected.components_)))
    assert_close(found.mean / scale, torch.from_numpy(expected.mean_))
    deviations = np.sqrt(expected.explained_variance_ * 299 / 300)
    assert_close(found.standard_deviations / scale, torch.from_numpy(deviations))
