"""The judge is judged: by numbers worked out by hand, by NumPy's convolution, by plain loops."""

from math import inf, nan

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from problems import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    FORWARD,
    OPERATIONS,
    TRANSPOSED,
    call,
    integer_operands,
    small_problems,
    terms,
)

from xsmmconv import _text, reference

SIGNAL = [[1.0, 2.0, 3.0, 4.0, 5.0]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [123, 234, 345]),
        ({"padding": "valid"}, [123, 234, 345]),
        ({"padding": 1}, [12, 123, 234, 345, 450]),
        ({"padding": "same"}, [12, 123, 234, 345, 450]),
        ({"padding": (2, 0)}, [1, 12, 123, 234, 345]),
        ({"padding": "causal"}, [1, 12, 123, 234, 345]),
        ({"padding": [0, 4]}, [123, 234, 345, 450, 500, 0, 0]),
        ({"padding": (4, 0)}, [0, 0, 1, 12, 123, 234, 345]),
        ({"stride": 2}, [123, 345]),
        ({"stride": 2, "padding": 1}, [12, 234, 450]),
        ({"stride": 3, "padding": (0, 1)}, [123, 450]),
        ({"dilation": 2}, [135]),
        ({"dilation": 2, "padding": 2}, [13, 24, 135, 240, 350]),
        ({"dilation": 2, "padding": "same"}, [13, 24, 135, 240, 350]),
        ({"dilation": 2, "padding": "causal"}, [1, 2, 13, 24, 135]),
        ({"dilation": 2, "stride": 2, "padding": 2}, [13, 135, 350]),
        ({"dilation": 3, "stride": 2, "padding": 3}, [14, 30, 250]),
    ],
)
def test_forward_by_hand(options, expected):
    y = reference.conv1d(SIGNAL, [[[100, 10, 1]]], **options)
    np.testing.assert_array_equal(y, [expected])


def test_even_same_filter_has_its_odd_zero_on_the_right():
    np.testing.assert_array_equal(
        reference.conv1d(SIGNAL, [[[10, 1]]], padding="same"), [[12, 23, 34, 45, 50]]
    )
    np.testing.assert_array_equal(
        reference.conv1d(SIGNAL, [[[10, 1]]], padding="same", dilation=3), [[3, 14, 25, 30, 40]]
    )


def test_channels_filters_bias_and_relu_by_hand():
    x = [[1, 2, 3], [10, 20, 30]]
    weight = [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[1, 1], [0, 0]]]
    expected = [[21, 32], [8, 17], [3, 5]]
    np.testing.assert_array_equal(reference.conv1d(x, weight), expected)
    np.testing.assert_array_equal(
        reference.conv1d(x, weight, [-30, 1, -4], activation="relu"), [[0, 2], [9, 18], [0, 1]]
    )


def test_groups_by_hand():
    x = [[[1, 2], [10, 20], [100, 200], [1000, 2000]]]
    weight = [[[1], [2]], [[3], [4]]]
    expected = [[[21, 42], [4300, 8600]]]
    np.testing.assert_array_equal(reference.conv1d(x, weight, groups=2), expected)


def test_depthwise_with_two_filters_per_channel_by_hand():
    weight = [[[1]], [[2]], [[3]], [[4]]]
    expected = [[1, 2], [2, 4], [30, 60], [40, 80]]
    np.testing.assert_array_equal(reference.conv1d([[1, 2], [10, 20]], weight, groups=2), expected)


@pytest.mark.parametrize(
    ("options", "grad", "expected"),
    [
        ({}, [1, 2, 3], [100, 210, 321, 32, 3]),
        ({"padding": 1}, [1, 2, 3, 4, 5], [210, 321, 432, 543, 54]),
        ({"padding": "causal"}, [1, 2, 3, 4, 5], [321, 432, 543, 54, 5]),
        ({"stride": 2}, [1, 2], [100, 10, 201, 20, 2]),
        ({"stride": 2, "padding": 1}, [1, 2, 3], [10, 201, 20, 302, 30]),
        ({"dilation": 2}, [7], [700, 0, 70, 0, 7]),
        ({"dilation": 2, "stride": 2, "padding": 2}, [1, 2, 3], [210, 0, 321, 0, 32]),
        ({"stride": 4, "padding": (0, 4)}, [1, 2], [100, 10, 1, 0, 200]),
    ],
)
def test_backward_data_by_hand(options, grad, expected):
    dx = reference.conv1d_backward_data([grad], [[[100, 10, 1]]], 5, **options)
    np.testing.assert_array_equal(dx, [expected])


@pytest.mark.parametrize(
    ("options", "grad", "expected"),
    [
        ({}, [100, 10, 1], [123, 234, 345]),
        ({"padding": 1}, [0, 0, 0, 10, 1], [34, 45, 50]),
        ({"padding": (5, 0)}, [1, 0, 0, 0, 0, 1, 0, 0], [1, 2, 3]),
        ({"stride": 2}, [10, 1], [13, 24, 35]),
        ({"dilation": 2}, [3], [3, 9, 15]),
        ({"dilation": 2, "stride": 2, "padding": 2}, [100, 10, 1], [13, 135, 350]),
    ],
)
def test_backward_weight_by_hand(options, grad, expected):
    dw = reference.conv1d_backward_weight([grad], SIGNAL, 3, **options)
    np.testing.assert_array_equal(dw, [[expected]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [100, 210, 321, 32, 3]),
        ({"padding": 1}, [210, 321, 32]),
        ({"padding": (2, 0)}, [321, 32, 3]),
        ({"stride": 2}, [100, 10, 201, 20, 302, 30, 3]),
        ({"stride": 2, "padding": 1, "output_padding": 1}, [10, 201, 20, 302, 30, 3]),
        ({"stride": 4, "output_padding": 2}, [100, 10, 1, 0, 200, 20, 2, 0, 300, 30, 3, 0, 0]),
        ({"dilation": 2}, [100, 200, 310, 20, 31, 2, 3]),
        ({"dilation": 2, "padding": 2, "output_padding": 1}, [310, 20, 31, 2]),
        ({"bias": [1], "stride": 4, "padding": 3}, [1, 201, 21, 3, 1]),
    ],
)
def test_transposed_by_hand(options, expected):
    y = reference.conv_transpose1d([[1, 2, 3]], [[[100, 10, 1]]], **options)
    np.testing.assert_array_equal(y, [expected])


def test_hand_checked_positions_of_strided_problems():
    # For each column of x, the number of (output, tap) pairs that meet it, counted on paper.
    counts = terms(_text.parse("c1k1s3st2p1w8"), BACKWARD_DATA)
    np.testing.assert_array_equal(counts, [[[1, 2, 1, 2, 1, 2, 1, 1]]])
    counts = terms(_text.parse("c1k1s5st4d6p12w16"), BACKWARD_DATA)
    np.testing.assert_array_equal(counts, [[[2, 0, 1, 0, 1, 0, 2, 0, 1, 0, 1, 0, 2, 0, 1, 0]]])


# A second formulation: zeros are written out, into the rows by padding, into the filters by
# dilation, into the gradients by stride, and NumPy's dense one-dimensional routines do the rest.


def stuffed(row, distance):
    """The row with distance-1 zeros between its elements."""
    dense = np.zeros((len(row) - 1) * distance + 1)
    dense[::distance] = row
    return dense


def sums_of_rows(shape, row_of):
    """An array of the shape whose rows [i, j] are the sums of the rows that row_of(i, j) yields."""
    return np.array(
        [[sum(row_of(i, j), np.zeros(shape[2])) for j in range(shape[1])] for i in range(shape[0])]
    )


def channel_pairs(p):
    """(filter, channel, channel within the group) of every pair in one group."""
    for k in range(p.K):
        for c in range(p.C // p.g):
            yield k, k // (p.K // p.g) * (p.C // p.g) + c, c


@given(small_problems())
def test_forward_is_correlation_with_the_stuffed_filter(p):
    x, weight, _ = integer_operands(p, FORWARD, np.dtype(float))
    x = np.pad(x, [(0, 0), (0, 0), (p.pl, p.pr)])
    expected = sums_of_rows(
        p.y_shape,
        lambda n, k: (
            np.correlate(x[n, c], stuffed(weight[k, within], p.d))[:: p.s]
            for other, c, within in channel_pairs(p)
            if other == k
        ),
    )
    np.testing.assert_array_equal(
        call(reference, FORWARD, p, x[..., p.pl : p.pl + p.W], weight), expected
    )


@given(small_problems())
def test_backward_data_is_convolution_of_the_stuffed_gradient(p):
    dy, weight, _ = integer_operands(p, BACKWARD_DATA, np.dtype(float))

    def contributions(n, channel):
        for k, c, within in channel_pairs(p):
            if c == channel:
                padded = np.convolve(stuffed(dy[n, k], p.s), stuffed(weight[k, within], p.d))
                padded = np.pad(padded, (0, p.pl + p.W))  # columns of x behind the last output
                yield padded[p.pl : p.pl + p.W]

    expected = sums_of_rows(p.x_shape, contributions)
    np.testing.assert_array_equal(call(reference, BACKWARD_DATA, p, dy, weight), expected)


@given(small_problems())
def test_backward_weight_is_correlation_with_the_stuffed_gradient(p):
    dy, x, _ = integer_operands(p, BACKWARD_WEIGHT, np.dtype(float))
    x = np.pad(x, [(0, 0), (0, 0), (p.pl, p.pr)])

    def contributions(filter_, channel_in_group):
        for k, c, within in channel_pairs(p):
            if (k, within) == (filter_, channel_in_group):
                for n in range(p.N):
                    row = np.correlate(x[n, c], stuffed(dy[n, k], p.s))
                    yield row[:: p.d][: p.S]

    expected = sums_of_rows(p.weight_shape, contributions)
    got = call(reference, BACKWARD_WEIGHT, p, dy, x[..., p.pl : p.pl + p.W])
    np.testing.assert_array_equal(got, expected)


@given(small_problems())
def test_transposed_is_scattering(p):
    # The transposed convolution takes y to x: its input has K channels, its output C.
    x, weight, bias = integer_operands(p, TRANSPOSED, np.dtype(float))
    expected = np.zeros(p.x_shape) + bias[:, np.newaxis]
    for n in range(p.N):
        for k, c, within in channel_pairs(p):
            for q in range(p.Q):
                for t in range(p.S):
                    i = q * p.s + t * p.d - p.pl
                    if 0 <= i < p.W:
                        expected[n, c, i] += x[n, k, q] * weight[k, within, t]
    np.testing.assert_array_equal(call(reference, TRANSPOSED, p, x, weight, bias=bias), expected)


@given(small_problems())
def test_gradients_are_adjoint(p):
    x, weight, _ = integer_operands(p, FORWARD, np.dtype(np.float32))
    dy = integer_operands(p, BACKWARD_DATA, np.dtype(np.float32))[0].astype(float)
    product = np.vdot(call(reference, FORWARD, p, x, weight), dy)
    assert product == np.vdot(x, call(reference, BACKWARD_DATA, p, dy, weight))
    assert product == np.vdot(weight, call(reference, BACKWARD_WEIGHT, p, dy, x))


# Special values: a product that is not in the sum must not be formed.


@settings(max_examples=20)
@given(small_problems(max_groups=1))
def test_forward_with_special_values_is_the_plain_sum(p):
    rng = np.random.default_rng(p.W)
    x = rng.choice([1.0, 0.0, inf, -inf, nan, 2.0], p.x_shape)
    weight = rng.choice([1.0, 0.0, inf, -inf, nan, 2.0], p.weight_shape)
    expected = np.zeros(p.y_shape)
    with np.errstate(invalid="ignore"):
        for n, k, q in np.ndindex(*p.y_shape):
            for c, t in np.ndindex(p.C, p.S):
                i = q * p.s + t * p.d - p.pl
                if 0 <= i < p.W:
                    expected[n, k, q] += x[n, c, i] * weight[k, c, t]
        np.testing.assert_array_equal(call(reference, FORWARD, p, x, weight), expected)


def test_padding_is_not_multiplied():
    y = reference.conv1d([[1, 2, 3]], [[[inf, 1, 1]]], padding=1)
    np.testing.assert_array_equal(y, [[3, inf, inf]])
    dx = reference.conv1d_backward_data([[1, 2]], [[[1, inf]]], 5, stride=3)
    np.testing.assert_array_equal(dx, [[1, inf, 0, 2, inf]])
    dw = reference.conv1d_backward_weight([[inf, 1, 1]], [[1, 2, 3]], 3, padding=1)
    np.testing.assert_array_equal(dw, [[[3, inf, inf]]])


# Interface.


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_rows_without_batch_axis(operation):
    p = _text.parse("c4k6s3st2p1g2w12")
    first, second, _ = integer_operands(p, operation, np.dtype(float))
    expected = call(reference, operation, p, first, second)
    if operation is BACKWARD_WEIGHT:
        got = call(reference, operation, p, first[0], second[0])
        np.testing.assert_array_equal(got, expected)
    else:
        got = call(reference, operation, p, first[0], second)
        np.testing.assert_array_equal(got, expected[0])


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "int8", "float32", "float64", ml_dtypes.bfloat16])
def test_computes_in_float64(operation, dtype):
    p = _text.parse("c4k6s3w12")
    ones = [
        np.full(shape, 100).astype(dtype)
        for shape in (getattr(p, f"{name}_shape") for name in (operation.first, operation.second))
    ]
    got = call(reference, operation, p, *ones)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, 10_000 * terms(p, operation))


# The error bound.


def test_error_bound_of_the_summation():
    assert reference.error_bound(0.0, 10.0, 4, np.float64) == 40 * 2.0**-53
    assert reference.error_bound(0.0, 10.0, 4, np.float32) == 40 * 2.0**-24


@pytest.mark.parametrize("exponent", [-20, -1, 0, 1, 20])
def test_error_bound_of_bfloat16_is_reached_by_a_tie(exponent):
    # 1 + 2^-8 lies halfway between two neighbours.
    tie = (1 + 2.0**-8) * 2.0**exponent
    error = abs(float(np.float32(tie).astype(ml_dtypes.bfloat16)) - tie)
    assert error == reference.error_bound(tie, 0.0, 0, ml_dtypes.bfloat16)
