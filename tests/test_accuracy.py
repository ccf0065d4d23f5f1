"""Real-valued data: every element within n*u*sum|x*w| of the exact result.

The exact result is the reference in extended precision, which is exact enough to judge float64.
"""

import numpy as np
import problems
import pytest
from problems import BACKWARD_WEIGHT, BFLOAT16, OPERATIONS

import xsmmconv
from xsmmconv import reference


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_within_bound(problem, operation, dtype):
    first, second, bias = problems.real_operands(problem, operation, dtype)
    options = {"bias": bias} if operation.takes_bias else {}
    got = problems.call(xsmmconv, operation, problem, first, second, **options)
    _check(got, problem, operation, first, second, **options)


@pytest.mark.every(5)
def test_unrounded_weight_gradient_of_bfloat16(problem):
    dy, x, _ = problems.real_operands(problem, BACKWARD_WEIGHT, BFLOAT16)
    got = problems.call(xsmmconv, BACKWARD_WEIGHT, problem, dy, x, dtype=np.float32)
    assert got.dtype == np.float32
    _check(got, problem, BACKWARD_WEIGHT, dy, x)


@pytest.mark.parametrize(
    ("C", "K", "S", "Q"),
    [
        (1, 1, 1, 20_000_000),  # dot products
        (2, 3, 1, 3_000_000),  # lists over positions, n = channels
        (2, 3, 7, 3_000_000),  # n = taps
        pytest.param(1, 1, 1, 100_000_000, marks=pytest.mark.slow),
    ],
)
def test_long_weight_gradients(C, K, S, Q):
    """Fewer than 2**15 additions follow one another, in a partial sum, a slot and over slots: so
    positive products are within 2**15 * u, where Q terms in a row could be Q * u away."""
    x = np.random.default_rng(0).random((1, C, Q + S - 1), np.float32)
    dy = np.random.default_rng(1).random((1, K, Q), np.float32)
    got = xsmmconv.conv1d_backward_weight(dy, x, S)
    wide = dy[0].astype(np.float64)
    for t in range(S):
        exact = wide @ x[0, :, t : t + Q].T
        assert (abs(got[:, :, t] - exact) <= 2**15 * 2.0**-24 * exact).all(), t


@pytest.mark.parametrize("dtype", problems.DTYPES[:2], ids=str)
def test_denormals_are_kept(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = (np.arange(1, 201) * tiny).astype(dtype).reshape(1, 2, 100)
    w = np.ones((1, 2, 1), dtype)
    y = xsmmconv.conv1d(x, w)
    assert (y > 0).all()
    np.testing.assert_array_equal(y[0, 0], x[0].sum(axis=0))


def _check(got, problem, operation, *operands, **bias):
    # Extended precision costs time, and is of use only where the result is as precise as float64.
    wide = np.longdouble if got.dtype == np.float64 else np.float64
    operands = [operand.astype(wide) for operand in operands]
    bias = {name: array.astype(wide) for name, array in bias.items()}
    expected = problems.call(reference, operation, problem, *operands, **bias)
    magnitude = problems.call(
        reference,
        operation,
        problem,
        *map(np.abs, operands),
        **{name: np.abs(array) for name, array in bias.items()},
    )
    terms = problems.terms(problem, operation) + len(bias)
    bound = reference.error_bound(expected, magnitude, terms, got.dtype)
    problems.assert_within(got, expected, bound, problem, operation, got.dtype)
