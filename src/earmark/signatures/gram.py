"""Gram matrices of a batch's activations, some features at a time: compiled.

A layer of a convolutional network has up to a million features and a few dozen images, so
that reading it is most of the work. Some features of all images are taken from memory
once, centred, and multiplied while they are in the processor's cache. Products are of
float32, within these features only: their sums are float64.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .compiled import compiled

_AT_ONCE = 2**17  # numbers that half of a core's second cache holds
_SHARE = 2**19  # numbers that take much longer to read than a thread to be handed them

Vectors = tuple[Tensor, ...]


def gram_matrices(
    rows: Float[Tensor, "image feature"], standard: Vectors = ()
) -> Float64[Tensor, "variant image image"]:
    """Inner products of the images, of features less some image that is about their mean.

    Args:
        rows: Float32, on the CPU, each image in one piece.
        standard: What is taken off each feature, first and then; and what it is then
            multiplied by, for a second matrix. Each float64, of shape (feature,).

    Returns:
        One matrix, or two.
    """
    images, features = rows.shape
    first, mean, inverse = [one.numpy() for one in standard] or [np.empty(0)] * 3

    def work(start: int, stop: int) -> np.ndarray:
        padded = -(-images // 4) * 4
        grams = np.zeros((2 if standard else 1, padded, padded))
        step = min(max(_AT_ONCE // images // 16 * 16, 64), 1024)
        ends = (start, stop, step)
        _add_products(rows.detach().numpy(), ends, first, mean, inverse, grams)
        return grams

    grams = torch.from_numpy(sum(_shared(work, images, features)))
    return grams[:, :images, :images]


def add_moments(rows: Float[Tensor, "image feature"], first: Tensor, *sums: Tensor) -> None:
    """Add each feature's sum over images, and that of its squares.

    Args:
        rows: Float32, on the CPU, each image in one piece.
        first: What is taken off each feature before; float64, of shape (feature,).
        sums: The two sums, float64, of shape (feature,), which are added to.
    """

    def work(start: int, stop: int) -> None:
        vectors = (one.numpy() for one in (first, *sums))
        _add_moments(rows.detach().numpy(), start, stop, *vectors)

    _shared(work, *rows.shape)


def _shared(work: Callable[[int, int], Any], images: int, features: int) -> list[Any]:
    # Threads take shares as they get to them: those of torch spin for a while after its
    # own work, so that cores are not alike.
    # All matrices together take a quarter of the activations' memory at most.
    count = max(min(images * features // _SHARE, features // (8 * images)), 1)
    ends = [features * share // count for share in range(count + 1)]
    shares, found = iter([*enumerate(pairwise(ends))]), [None] * count

    def take() -> None:
        for share, part in shares:
            found[share] = work(*part)

    helpers = min(torch.get_num_threads(), count) - 1
    waiting = [_threads(os.getpid()).submit(take) for _ in range(helpers)]
    take()
    for one in waiting:
        one.result()
    return found


@cache
def _threads(_process: int) -> ThreadPoolExecutor:
    """Threads that stay: to start one takes as long as a small layer. A fork has none."""
    return ThreadPoolExecutor(thread_name_prefix="earmark-gram")


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _add_products(rows, ends, first, mean, inverse, grams):  # noqa: ANN001, ANN202
    start, stop, step = ends
    taken = np.empty(step, np.float32)
    some = np.zeros((grams.shape[1], step + 16), np.float32)  # rows in sets of their own
    for at in range(start, stop, step):
        end = min(at + step, stop)
        _centre(rows, at, end, taken, some)
        _multiply(some, end - at, grams[0])
        if len(grams) > 1:
            for image in range(len(rows)):
                row, out = rows[image, at:end], some[image, : end - at]
                _standardise(row, first[at:end], mean[at:end], inverse[at:end], out)
            _multiply(some, end - at, grams[1])


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _centre(rows, at, end, taken, some):  # noqa: ANN001, ANN202
    # The same number is taken off each image, so that it need not be the mean exactly; of
    # a constant feature it is the constant. Four images at a time spare half of the time.
    first, taken = rows[0, at:end], taken[: end - at]
    taken[:] = 0
    fours = len(rows) // 4 * 4
    for image in range(0, fours, 4):
        a, b = rows[image, at:end], rows[image + 1, at:end]
        c, d = rows[image + 2, at:end], rows[image + 3, at:end]
        for one in range(len(taken)):
            off = first[one]
            taken[one] += ((a[one] - off) + (b[one] - off)) + (
                (c[one] - off) + (d[one] - off)
            )
    for image in range(fours, len(rows)):
        row = rows[image, at:end]
        for one in range(len(taken)):
            taken[one] += row[one] - first[one]
    for one in range(len(taken)):
        taken[one] = first[one] + taken[one] / np.float32(len(rows))
    for image in range(len(rows)):
        row, out = rows[image, at:end], some[image, : end - at]
        for one in range(len(taken)):
            out[one] = row[one] - taken[one]


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _standardise(row, first, mean, inverse, out):  # noqa: ANN001, ANN202
    for one in range(len(out)):
        out[one] = ((row[one] - first[one]) - mean[one]) * inverse[one]


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _multiply(some, features, gram):  # noqa: ANN001, ANN202
    for i in range(0, len(gram), 4):
        for j in range(i, len(gram), 4):
            _multiply_four(some[i : i + 4], some[j : j + 4], features, gram, i, j)


# Sixteen sums stay in registers, and may be added up in any order.
@compiled(fastmath={"reassoc", "contract"})
@no_type_check  # compiled: the tests' type checks cannot look inside
def _multiply_four(x, y, features, gram, i, j):  # noqa: ANN001, ANN202
    zero = np.float32(0)
    s00, s01, s02, s03 = zero, zero, zero, zero
    s10, s11, s12, s13 = zero, zero, zero, zero
    s20, s21, s22, s23 = zero, zero, zero, zero
    s30, s31, s32, s33 = zero, zero, zero, zero
    for k in range(features):
        x0, x1, x2, x3 = x[0, k], x[1, k], x[2, k], x[3, k]
        y0, y1, y2, y3 = y[0, k], y[1, k], y[2, k], y[3, k]
        s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
        s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
        s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
        s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
    sums = ((s00, s01, s02, s03), (s10, s11, s12, s13), (s20, s21, s22, s23))
    for row, four in enumerate((*sums, (s30, s31, s32, s33))):
        for column in range(4):
            gram[i + row, j + column] += four[column]
            if i != j:
                gram[j + column, i + row] += four[column]


@compiled
@no_type_check  # compiled: the tests' type checks cannot look inside
def _add_moments(rows, start, stop, first, sums, squares):  # noqa: ANN001, ANN202
    for at in range(start, stop, 1024):
        end = min(at + 1024, stop)
        taken, total, square = first[at:end], sums[at:end], squares[at:end]
        for image in range(len(rows)):
            row = rows[image, at:end]
            for one in range(len(row)):
                left = row[one] - taken[one]
                total[one] += left
                square[one] += left * left
