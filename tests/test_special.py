"""Inf, NaN and zeros go where the definition sends them; no byte beside an operand is used."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import problems
import pytest
from problems import (
    FORWARD,
    OPERATIONS,
    TRANSPOSED,
    assert_equal,
    call,
    integer_operands,
)

import xsmmconv
from xsmmconv import _text, reference

every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


@pytest.mark.every(4)
@every_dtype
@every_operation
def test_probes(problem, operation, dtype):
    """One column (or tap) of one operand at a time is Inf, with a NaN and a -Inf in it.

    Wherever a zero is multiplied that the definition does not have, Inf*0 makes a NaN.
    """
    operands = integer_operands(problem, operation, dtype)[:2]
    for which in (0, 1):
        columns = operands[which].shape[-1]
        for column in sorted({0, columns // 2, columns - 1}):
            probed = [operand.copy() for operand in operands]
            probed[which][..., column] = np.inf
            probed[which][-1:, -1:, column] = -np.inf
            probed[which][:1, :1, column] = np.nan
            with np.errstate(invalid="ignore"):
                exact = call(reference, operation, problem, *probed)
            got = call(xsmmconv, operation, problem, *probed)
            what = f"column {column} of {(operation.first, operation.second)[which]}"
            expected = problems.rounded(exact, dtype)
            assert_equal(got, expected, problem, operation, dtype, what)


@pytest.mark.every(3)
@every_dtype
@every_operation
def test_elements_that_no_product_reaches(problem, operation, dtype):
    """All operands are NaN; what is not NaN afterwards is +0, or the bias."""
    first, second, bias = integer_operands(problem, operation, dtype)
    first[...] = second[...] = np.nan
    reached = problems.terms(problem, operation) > 0
    variants = [{}]
    if operation.takes_bias:
        variants += [{"bias": bias}, {"bias": bias, "activation": "relu"}, {"activation": "relu"}]
    for options in variants:
        alone = problems.finish(np.zeros(reached.shape), **options)
        expected = problems.rounded(np.where(reached, np.nan, alone), dtype)
        out = problems.nan_filled(problem, operation, dtype)
        call(xsmmconv, operation, problem, first, second, out=out, **options)
        assert_equal(out, expected, problem, operation, dtype, list(options))
        assert not np.signbit(out[~reached & (out == 0)]).any(), f"{problem}: a zero is negative"


@every_dtype
@pytest.mark.parametrize("operation", [FORWARD, TRANSPOSED], ids=str)
def test_nan_and_inf_pass_through_bias_and_relu(operation, dtype):
    # Both vectors and remainders of them: 64 + 13 columns, one of each kind in either part.
    problem = _text.parse("c3k3s1w77")
    first, second, bias = integer_operands(problem, operation, dtype)
    first[0, :, [3, 70]] = np.nan
    first[0, 0, [5, 71]] = np.inf
    first[0, 0, [6, 72]] = -np.inf
    bias[:] = [np.nan, -np.inf, 1]
    second[np.abs(second) < 1] = 1
    exact = call(reference, operation, problem, first, second)
    for activation in (None, "relu"):
        with np.errstate(invalid="ignore"):
            expected = problems.rounded(problems.finish(exact, bias, activation), dtype)
        got = call(xsmmconv, operation, problem, first, second, bias=bias, activation=activation)
        assert np.isnan(got[0, 0]).all()
        assert_equal(got, expected, problem, operation, dtype, activation)


@pytest.mark.every(4)
@every_dtype
def test_guard_pages(selected_problems, dtype):
    """Arrays begin right behind, or end right before, memory that must not be used.

    A stray access kills the process: the problems run in one of their own, which says where it is.
    """
    child = run_guarded([f"{dtype} {problem}" for problem in selected_problems])
    last_line = (child.stdout.splitlines() or ["(nothing was run)"])[-1]
    if child.returncode < 0:
        died_of = signal.Signals(-child.returncode).name
        pytest.fail(f"{died_of} in {last_line}\n{child.stderr[-2000:]}")
    assert child.returncode == 0, f"{last_line}\n{child.stderr[-3000:]}"
    assert last_line == "all done"


@pytest.mark.parametrize("offset", [-1, +1])
def test_guard_pages_are_guarded(offset):
    child = run_guarded([f"touch {offset}"])
    assert child.returncode == -signal.SIGSEGV, child.stderr


def run_guarded(lines):
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("guarded.py"))],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=600,
    )


@every_dtype
@pytest.mark.parametrize("channels", [1, 8, 20])
def test_no_tap_reaches_a_gradient(channels, dtype):
    # Every product is one with padding or between strides; there is nothing to compute with.
    dtype = np.dtype(dtype)
    grad_out = np.ones((2, channels, 1), dtype)
    for weight in np.ones((channels, 3, 1), dtype), np.ones((1, 3, channels), dtype).T:
        out = np.full((2, 3, 1), np.nan, dtype)
        xsmmconv.conv1d_backward_data(grad_out, weight, 1, stride=6, padding=(3, 0), out=out)
        assert_equal(out, np.zeros_like(out))
