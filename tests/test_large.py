"""Whole chromosomes, and arrays beyond 2**31 elements. Select with `-m slow`; takes 14 GB."""

import resource

import numpy as np
import problems
import pytest

import xsmmconv
from xsmmconv import reference

WIDTH = 250_000_000
PARAMETERS = {"dilation": 3, "padding": 12}
EDGE = 1000


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module")
def chromosome():
    """Small integers, with a period that no tile size divides, so that any slip would show."""
    period = np.random.default_rng(0).integers(-3, 4, (4, 1_000_003)).astype(np.float32)
    return np.tile(period, (1, WIDTH // 1_000_003 + 1))[np.newaxis, :, :WIDTH]


@pytest.mark.slow
def test_a_plan_does_not_grow_with_the_row():
    for pass_ in ("forward", "backward_data", "backward_weight"):
        plan = xsmmconv.plan(pass_, (1, 4, WIDTH), (2, 4, 9), **PARAMETERS)
        assert len(plan.describe()) < 10_000
        assert plan.multiply_adds == 2 * 4 * (9 * WIDTH - 2 * 3 * (1 + 2 + 3 + 4))


@pytest.mark.slow
def test_forward_and_backward_data_to_the_last_column(chromosome):
    x = np.ascontiguousarray(chromosome)
    weight = np.random.default_rng(1).integers(-2, 3, (1, 4, 9)).astype(np.float32)
    before = peak_bytes()
    y = xsmmconv.conv1d(x, weight, **PARAMETERS)
    # The result, and a few megabytes.
    assert peak_bytes() - before < y.nbytes + (64 << 20)
    # What lies further than the filter's reach from where a piece was cut is as in the whole row.
    ends = (
        (slice(0, EDGE), slice(0, EDGE - 12)),
        (slice(WIDTH - EDGE, WIDTH), slice(12, EDGE)),
    )
    for part, inner in ends:
        expected = reference.conv1d(x[..., part], weight, **PARAMETERS)
        np.testing.assert_array_equal(y[..., part][..., inner], expected[..., inner])
    grad = xsmmconv.conv1d_backward_data(y, weight, WIDTH, **PARAMETERS)
    for part, inner in ends:
        expected = reference.conv1d_backward_data(y[..., part], weight, EDGE, **PARAMETERS)
        np.testing.assert_array_equal(grad[..., part][..., inner], expected[..., inner])


@pytest.mark.slow
def test_backward_weight_adds_up_every_column(chromosome):
    x = np.ascontiguousarray(chromosome[:, :1])
    marks = np.zeros((1, 1, WIDTH), np.float32)
    places = np.array([0, 1, 12, 12_345_678, WIDTH // 2, WIDTH - 13, WIDTH - 1])
    marks[0, 0, places] = 1
    gradient = xsmmconv.conv1d_backward_weight(marks, x, 9, **PARAMETERS)
    expected = [sum(x[0, 0, i] for i in places + 3 * t - 12 if 0 <= i < WIDTH) for t in range(9)]
    np.testing.assert_array_equal(gradient[0, 0], np.float32(expected))


@pytest.mark.slow
def test_more_than_2_to_the_31_columns():
    """Every operand and result of every pass has a row of more than 2**31 elements (4 GB)."""
    W, options = 2**31 + 1234, {"dilation": 2, "padding": "same"}
    rng = np.random.default_rng(2)
    weight = np.array([[[2, -1, 3]]], problems.BFLOAT16)
    x = np.zeros((1, 1, W), problems.BFLOAT16)
    x[..., :EDGE], x[..., -EDGE:] = rng.integers(-3, 4, (2, EDGE))
    ends = x[..., : EDGE + 10].copy(), x[..., -EDGE - 10 :].copy()

    def check(got, function, *more):
        first, last = (function(end, weight, *more, **options) for end in ends)
        np.testing.assert_array_equal(got[..., :EDGE], first[..., :EDGE])
        np.testing.assert_array_equal(got[..., -EDGE:], last[..., -EDGE:])

    y = xsmmconv.conv1d(x, weight, **options)
    check(y, reference.conv1d)
    y = xsmmconv.conv1d_backward_data(x, weight, W, out=y, **options)
    check(y, reference.conv1d_backward_data, EDGE + 10)
    y[...] = x
    gradient = xsmmconv.conv1d_backward_weight(y, x, 3, **options)
    expected = sum(reference.conv1d_backward_weight(end, end, 3, **options) for end in ends)
    np.testing.assert_array_equal(gradient, expected.astype(problems.BFLOAT16))


@pytest.mark.slow
def test_rows_further_apart_than_a_kernel_reaches():
    """Unrolled, a kernel would read the last of these rows 2.3 GB behind the first."""
    C, K, W = 20, 8, 30_000_000
    x = np.zeros((1, C, W), np.float32)
    x[..., -EDGE:] = np.random.default_rng(4).integers(-3, 4, (C, EDGE))
    weight = np.random.default_rng(5).integers(-3, 4, (K, C, 1)).astype(np.float32)
    y = xsmmconv.conv1d(x, weight)
    np.testing.assert_array_equal(y[..., -EDGE:], reference.conv1d(x[..., -EDGE:], weight))
    assert not y[..., :-EDGE].any()
    gradient = xsmmconv.conv1d_backward_weight(y, x, 1)
    ends = y[..., -EDGE:], x[..., -EDGE:]
    np.testing.assert_array_equal(gradient, reference.conv1d_backward_weight(*ends, 1))


@pytest.mark.slow
def test_more_than_2_to_the_31_weights():
    """4.3 GB of weights, all zero but where a wrong place would show: in the corners."""
    K = C = 46_400
    rng = np.random.default_rng(3)
    corners = np.ix_([*range(10), *range(C - 10, C)], [*range(10), *range(C - 10, C)])
    weight = np.zeros((K, C, 1), problems.BFLOAT16)
    weight[*corners, 0] = rng.integers(-2, 3, (20, 20))
    x = np.zeros((1, C, 2), problems.BFLOAT16)
    x[:, :10], x[:, -10:] = rng.integers(-2, 3, (2, 1, 10, 2))
    corner, ends = weight[*corners, :], np.concatenate([x[:, :10], x[:, -10:]], axis=1)

    def check(got, expected):
        np.testing.assert_array_equal(got[:, :10], expected[:, :10])
        np.testing.assert_array_equal(got[:, -10:], expected[:, 10:])
        assert not got[:, 10:-10].any()

    check(xsmmconv.conv1d(x, weight), reference.conv1d(ends, corner))
    got = xsmmconv.conv1d_backward_data(x, weight, 2)
    check(got, reference.conv1d_backward_data(ends, corner, 2))
    weight.fill(np.nan)
    xsmmconv.conv1d_backward_weight(x, x, 1, out=weight)
    expected = reference.conv1d_backward_weight(ends, ends, 1)
    np.testing.assert_array_equal(weight[*corners, :], expected)
    assert np.count_nonzero(weight.view(np.uint16)) == np.count_nonzero(expected)
