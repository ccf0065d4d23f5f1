"""Laws that hold for any problem: hypothesis looks for one that breaks them.

Integer-valued data make the laws exact in every dtype, wherever they are laws of the exact sums.
"""

import numpy as np
import problems
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    FORWARD,
    OPERATIONS,
    assert_bitwise_equal,
    assert_equal,
    call,
    integer_operands,
    real_operands,
    small_problems,
)

import xsmmconv
from xsmmconv._text import ProblemLine

any_dtype = st.sampled_from(problems.DTYPES)
any_operation = st.sampled_from(OPERATIONS)


@given(small_problems(), any_operation, st.sampled_from([np.float32, np.float64]))
def test_linear_in_both_operands(problem, operation, dtype):
    # An eighth of the largest exact operands leaves room for the combination.
    first, second, _ = (a // 8 for a in integer_operands(problem, operation, np.dtype(dtype)))
    other_first, other_second = np.roll(first, 1), np.roll(second, 1)

    def apply(a, b):
        return call(xsmmconv, operation, problem, a, b)

    combined = apply(2 * first - 3 * other_first, second)
    expected = 2 * apply(first, second) - 3 * apply(other_first, second)
    assert_equal(combined, expected, problem, operation, dtype, "first operand")
    combined = apply(first, 2 * second - 3 * other_second)
    expected = 2 * apply(first, second) - 3 * apply(first, other_second)
    assert_equal(combined, expected, problem, operation, dtype, "second operand")


@given(small_problems(), st.sampled_from([np.float32, np.float64]))
def test_passes_are_adjoint(problem, dtype):
    x, weight, _ = integer_operands(problem, FORWARD, np.dtype(dtype))
    dy, _, _ = integer_operands(problem, BACKWARD_DATA, np.dtype(dtype))
    x, weight, dy = (np.clip(a, -7, 7) for a in (x, weight, dy))
    y = call(xsmmconv, FORWARD, problem, x, weight)
    dx = call(xsmmconv, BACKWARD_DATA, problem, dy, weight)
    dw = call(xsmmconv, BACKWARD_WEIGHT, problem, dy, x)

    def product(a, b):
        return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))

    assert product(y, dy) == product(x, dx) == product(weight, dw), f"{problem} {dtype}"


@given(small_problems(), any_dtype)
def test_groups_are_separate_convolutions(problem, dtype):
    p = problem
    one = ProblemLine(p.N, p.C // p.g, p.K // p.g, p.S, p.W, p.s, p.d, p.pl, p.pr)
    for operation in OPERATIONS:
        first, second, _ = integer_operands(p, operation, dtype)
        firsts = np.split(first, p.g, axis=1)
        # The groups lie along the first axis of a weight and along the second of other operands.
        seconds = np.split(second, p.g, axis=0 if operation.second == "weight" else 1)
        results = [
            call(xsmmconv, operation, one, a, b) for a, b in zip(firsts, seconds, strict=True)
        ]
        expected = np.concatenate(results, axis=0 if operation is BACKWARD_WEIGHT else 1)
        assert_equal(call(xsmmconv, operation, p, first, second), expected, p, operation, dtype)


@given(small_problems(), any_dtype)
def test_dilation_is_a_filter_with_zeros(problem, dtype):
    p = problem
    dense = ProblemLine(p.N, p.C, p.K, p.d * (p.S - 1) + 1, p.W, p.s, 1, p.pl, p.pr, p.g)
    for operation in OPERATIONS:
        first, second, _ = integer_operands(p, operation, dtype)
        expected = call(xsmmconv, operation, p, first, second)
        if operation is BACKWARD_WEIGHT:
            got = call(xsmmconv, operation, dense, first, second)[..., :: p.d]
        else:
            stuffed = np.zeros(dense.weight_shape, dtype)
            stuffed[..., :: p.d] = second
            got = call(xsmmconv, operation, dense, first, stuffed)
        assert_equal(got, expected, p, operation, dtype)


@given(small_problems(), any_operation, any_dtype)
def test_threads_do_not_change_a_bit(problem, operation, dtype):
    check_threads(problem, operation, dtype)


@pytest.mark.every(6)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_threads_do_not_change_a_bit_of_the_corpus(problem, operation):
    # Some of these are large enough to be divided among the threads.
    for dtype in problems.DTYPES:
        check_threads(problem, operation, dtype)


def check_threads(problem, operation, dtype):
    first, second, _ = real_operands(problem, operation, dtype)
    expected = call(xsmmconv, operation, problem, first, second, threads=1)
    for threads in (1, 2, 3, 7):
        got = call(xsmmconv, operation, problem, first, second, threads=threads)
        assert_bitwise_equal(got, expected, problem, operation, dtype, f"threads={threads}")


def read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


def misaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def spaced(array):
    """Every axis with something between its elements: NaN, which must not be read."""
    wide = np.full([2 * extent for extent in array.shape], np.nan, array.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def part_of_wider_rows(array):
    wide = np.full((*array.shape[:-1], array.shape[-1] + 5), np.nan, array.dtype)
    wide[..., 2:-3] = array
    return wide[..., 2:-3]


def reversed_axes(array):
    backwards = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[backwards])[backwards]


def channels_last(array):
    if array.ndim == 1:
        return array
    return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)


def one_row_for_all(array):
    return np.broadcast_to(array[:1], array.shape)


def one_column_for_all(array):
    return np.broadcast_to(array[..., :1], array.shape)


LAYOUTS = [
    read_only,
    misaligned,
    spaced,
    part_of_wider_rows,
    reversed_axes,
    channels_last,
    np.asfortranarray,
    one_row_for_all,
    one_column_for_all,
]


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=30)
@given(problem=small_problems(), operation=any_operation, dtype=any_dtype)
def test_layout_of_the_operands_does_not_change_a_bit(layout, problem, operation, dtype):
    operands = real_operands(problem, operation, dtype)
    if not operation.takes_bias:
        operands.pop()
    operands = [layout(operand) for operand in operands]
    expected = [np.array(operand, order="C") for operand in operands]

    def apply(first, second, *bias):
        options = {"bias": bias[0]} if bias else {}
        return call(xsmmconv, operation, problem, first, second, **options)

    got = apply(*operands)
    assert_bitwise_equal(got, apply(*expected), problem, operation, dtype, layout.__name__)
    for operand, before in zip(operands, expected, strict=True):
        assert_bitwise_equal(np.array(operand), before, problem, operation, dtype, "input changed")


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
@pytest.mark.parametrize("layout", [spaced, channels_last])
def test_strides_do_not_change_a_bit(problem, layout, dtype):
    for operation in OPERATIONS:
        operands = real_operands(problem, operation, dtype)[:2]
        got = call(xsmmconv, operation, problem, *map(layout, operands))
        expected = call(xsmmconv, operation, problem, *operands)
        assert_bitwise_equal(got, expected, problem, operation)
