"""Weight gradients of one channel with a stride: its taps are the lanes, at the borders some."""

import hypothesis
import numpy as np
import problems
import pytest
from hypothesis import strategies as st
from problems import BACKWARD_WEIGHT
from test_unfolded import layouts, run

from xsmmconv import _plan, reference
from xsmmconv._blocking_windows import windows_of
from xsmmconv._problem import ConvProblem
from xsmmconv._text import parse

LINES = [
    "n2c1k9s16st8w200",
    "n3c1k20s16st8p4w800",
    "n5c1k37s16st4pl15pr0w96",
    "n2c1k4s15st2p6w133",
    "n2c1k300s16st3p7w90",  # borders of the first and the last block of filters
    "n1c1k4s16st20p5w400",  # columns that no tap reaches
    "n2c1k8s16st2pl40pr33w150",  # positions without any tap
    "n40c1k8s16st4p8w64",  # rows that are reduced together
    "n1c1k8s16st8p4w9000",  # several slots
    "n2c1k200s16st4d3p21w240",  # taps that are no neighbours
    "n1c1k192s15st2d7pl50pr13w400",
]
LONGER = ["n1c1k6s31st5pl30pr30w333", "n1c1k5s48st7p20w1500"]  # vectors of float32
CASES = [(line, d) for d in problems.DTYPES[:2] for line in LINES + LONGER * (d.itemsize == 4)]


@pytest.mark.parametrize(("line", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("vector_bytes", [32, 64])
def test_exact_in_any_layout(line, dtype, vector_bytes):
    problem = parse(line)
    if vector_bytes > _plan.machine("float32").vector_bytes:
        vector_bytes = 32
    found = problems.plan(line, BACKWARD_WEIGHT, dtype, vector_bytes=vector_bytes)
    assert f"its {problem.S} taps are the lanes" in found.describe()
    first, second, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, first, second)
    expected = problems.rounded(exact, dtype)
    for a, b in zip(layouts(first), layouts(second), strict=True):
        for threads in 1, 3:
            got = run(found, BACKWARD_WEIGHT, a, b, threads)
            problems.assert_equal(got, expected, line, threads)


def test_infinities_beyond_the_border_of_a_tap_stay_where_they_belong():
    """The gradient of a position that some taps miss does not touch the sums of these."""
    problem = parse("n2c1k8s16st4p8w64")
    first, second, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, np.dtype(np.float32))
    first[0, 3, 0] = np.inf
    found = problems.plan(problem, BACKWARD_WEIGHT, "float32")
    got = run(found, BACKWARD_WEIGHT, first, second)
    expected = problems.call(reference, BACKWARD_WEIGHT, problem, first, second)
    np.testing.assert_array_equal(got, expected.astype(np.float32))
    assert np.isfinite(got[3, 0, :8]).all()
    assert not np.isfinite(got[3, 0, 8:]).all()


@hypothesis.given(st.data())
def test_windows_are_the_valid_pairs(data):
    S, s, d = (data.draw(st.integers(1, most)) for most in (20, 9, 4))
    pl, pr, more = (data.draw(st.integers(0, most)) for most in (40, 40, 200))
    reach = (S - 1) * d
    W = reach + s + more  # some window lies within the row
    Q = (W + pl + pr - reach - 1) // s + 1
    (phase,), borders = windows_of(ConvProblem(1, 1, 192, S, W, Q, s, d, pl, pr, 1, "float32"))
    covered = np.zeros((Q, S), int)
    (window,) = phase.runs
    covered[window.shift : window.shift + phase.count] += 1
    assert phase.first == window.shift * s - pl
    for q, t0, t1 in borders:
        covered[q, t0:t1] += 1
    column = np.arange(Q)[:, None] * s + np.arange(S) * d - pl
    np.testing.assert_array_equal(covered, (column >= 0) & (column < W))
