"""HSIC and CKA by their definition, with whole Gram matrices."""

import numpy as np
from torch import Tensor


def dense_hsic(k: np.ndarray, j: np.ndarray, *, unbiased: bool) -> float:
    """HSIC of two Gram matrices: Song et al., Eq. 5, or tr(KHLH), term by term."""
    n = len(k)
    if not unbiased:
        centring = np.eye(n) - 1 / n
        return float(np.trace(k @ centring @ j @ centring))
    k, j = k - np.diag(np.diag(k)), j - np.diag(np.diag(j))
    ones = np.ones(n)
    total = (ones @ k @ ones) * (ones @ j @ ones) / ((n - 1) * (n - 2))
    return float(np.trace(k @ j) + total - 2 / (n - 2) * (ones @ k @ j @ ones)) / (n * (n - 3))


def dense_cka(x: Tensor, y: Tensor, *, unbiased: bool) -> float:
    k, j = (np.asarray(rows.double()) @ np.asarray(rows.double()).T for rows in (x, y))
    ratio = dense_hsic(k, j, unbiased=unbiased)
    return ratio / np.sqrt(
        dense_hsic(k, k, unbiased=unbiased) * dense_hsic(j, j, unbiased=unbiased)
    )
