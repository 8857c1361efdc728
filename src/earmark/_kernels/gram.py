"""Gram matrices of a batch's activations, of up to a million features."""
# ruff: noqa: ANN001, ANN202 (numba infers the kernels' types)

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

from ._jit import jit

_NUMBERS_PER_BLOCK = 2**17  # half of a core's second-level cache
_MIN_NUMBERS_PER_TASK = 2**19  # take much longer to read than to hand to a thread


# Reading the activations is most of the work: some features of all images are read once,
# centered, and multiplied in the processor's cache. Products are float32 within these
# features only; their sums are float64. `scaler` holds the shift, the mean and the inverse
# standard deviation of each feature, float64.
def gram_matrices(
    rows: Float[Tensor, "image feature"], scaler: tuple[Tensor, ...] = ()
) -> Float64[Tensor, "variant image image"]:
    """Return the Gram matrix of roughly centered features, and that of scaled ones."""
    images, features = rows.shape
    vectors = [vector.numpy() for vector in scaler] or [np.empty(0)] * 3

    def work(start: int, stop: int) -> np.ndarray:
        padded = -(-images // 4) * 4
        grams = np.zeros((2 if scaler else 1, padded, padded))
        step = min(max(_NUMBERS_PER_BLOCK // images // 16 * 16, 64), 1024)
        _add_products(rows.detach().numpy(), (start, stop, step), *vectors, grams)
        return grams

    grams = torch.from_numpy(sum(_split_work(work, images, features)))
    return grams[:, :images, :images]


def add_moments(rows: Float[Tensor, "image feature"], shift: Tensor, *sums: Tensor) -> None:
    """Add each feature's sums of ``rows - shift`` and of its square to float64 vectors."""
    vectors = [vector.numpy() for vector in (shift, *sums)]

    def work(start: int, stop: int) -> None:
        _add_moments(rows.detach().numpy(), start, stop, *vectors)

    _split_work(work, *rows.shape)


def _split_work(work: Callable[[int, int], Any], images: int, features: int) -> list[Any]:
    # Threads take shares as they become free: torch's own threads spin for a while after
    # its work, so that cores are not equally fast. All matrices together take at most a
    # quarter of the activations' memory.
    count = min(images * features // _MIN_NUMBERS_PER_TASK, features // (8 * images))
    count = max(count, 1)
    ends = [features * share // count for share in range(count + 1)]
    results: list[Any] = [None] * count
    shares = iter([*enumerate(pairwise(ends))])

    def run_shares() -> None:
        for share, bounds in shares:
            results[share] = work(*bounds)

    helpers = min(torch.get_num_threads(), count) - 1
    futures = [_thread_pool(os.getpid()).submit(run_shares) for _ in range(helpers)]
    run_shares()
    for future in futures:
        future.result()
    return results


@cache
def _thread_pool(_process: int) -> ThreadPoolExecutor:
    """Return this process's threads, which stay: starting one takes as long as a layer."""
    return ThreadPoolExecutor(thread_name_prefix="earmark-gram")


@jit
@no_type_check
def _add_products(rows, bounds, shift, mean, inverse_std, grams):
    start, stop, step = bounds
    offsets = np.empty(step, np.float32)
    block = np.zeros((grams.shape[1], step + 16), np.float32)  # 16: other cache sets
    for at in range(start, stop, step):
        end = min(at + step, stop)
        _center(rows, at, end, offsets, block)
        _multiply_block(block, end - at, grams[0])
        if len(grams) > 1:
            for image in range(len(rows)):
                row, out = rows[image, at:end], block[image, : end - at]
                _standardize(row, shift[at:end], mean[at:end], inverse_std[at:end], out)
            _multiply_block(block, end - at, grams[1])


@jit
@no_type_check
def _center(rows, start, end, offsets, block):
    # Every image loses the same offset, which so need not be the mean exactly; of a
    # constant feature it is the constant. Four images at a time take half of the time.
    first, offsets = rows[0, start:end], offsets[: end - start]
    offsets[:] = 0
    fours = len(rows) // 4 * 4
    for image in range(0, fours, 4):
        a, b = rows[image, start:end], rows[image + 1, start:end]
        c, d = rows[image + 2, start:end], rows[image + 3, start:end]
        for k in range(len(offsets)):
            zero = first[k]
            offsets[k] += ((a[k] - zero) + (b[k] - zero)) + ((c[k] - zero) + (d[k] - zero))
    for image in range(fours, len(rows)):
        row = rows[image, start:end]
        for k in range(len(offsets)):
            offsets[k] += row[k] - first[k]
    for k in range(len(offsets)):
        offsets[k] = first[k] + offsets[k] / np.float32(len(rows))
    for image in range(len(rows)):
        row, out = rows[image, start:end], block[image, : end - start]
        for k in range(len(offsets)):
            out[k] = row[k] - offsets[k]


@jit
@no_type_check
def _standardize(row, shift, mean, inverse_std, out):
    for k in range(len(out)):
        out[k] = ((row[k] - shift[k]) - mean[k]) * inverse_std[k]


@jit
@no_type_check
def _multiply_block(block, features, gram):
    for i in range(0, len(gram), 4):
        for j in range(i, len(gram), 4):
            _multiply_four(block[i : i + 4], block[j : j + 4], features, gram, i, j)


# Sixteen sums stay in registers, and may be added up in any order.
@jit(fastmath={"reassoc", "contract"})
@no_type_check
def _multiply_four(x, y, features, gram, i, j):
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


@jit
@no_type_check
def _add_moments(rows, start, stop, shift, sums, squares):
    for at in range(start, stop, 1024):
        end = min(at + 1024, stop)
        offset, total, square = shift[at:end], sums[at:end], squares[at:end]
        for image in range(len(rows)):
            row = rows[image, at:end]
            for k in range(len(row)):
                value = row[k] - offset[k]
                total[k] += value
                square[k] += value * value
