"""The public functions as their users see them: signatures, shapes, layouts, `out`, plans."""

import inspect
import re

import ml_dtypes
import numpy as np
import problems
import pytest
from problems import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    FORWARD,
    OPERATIONS,
    TRANSPOSED,
    assert_bitwise_equal,
    assert_equal,
    call,
    integer_operands,
)

import xsmmconv
from xsmmconv import _text, reference

SIGNATURES = {
    "conv1d": "(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, "
    "activation=None, out=None, threads=None)",
    "conv1d_backward_data": "(grad_out, weight, input_width, *, stride=1, padding=0, dilation=1, "
    "groups=1, out=None, threads=None)",
    "conv1d_backward_weight": "(grad_out, x, filter_width, *, stride=1, padding=0, dilation=1, "
    "groups=1, dtype=None, out=None, threads=None)",
    "conv_transpose1d": "(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, "
    "dilation=1, groups=1, activation=None, out=None, threads=None)",
    "plan": "(pass_, x_shape, weight_shape, dtype='float32', *, stride=1, padding=0, dilation=1, "
    "groups=1, threads=None)",
    "set_num_threads": "(n)",
    "get_num_threads": "()",
    "show_config": "()",
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
GROUPED = _text.parse("n2c4k6s3st2d2pl3pr1g2w21")


def signature(function):
    parameters = inspect.signature(function).parameters.values()
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters]))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    assert signature(getattr(xsmmconv, name)) == SIGNATURES[name]


@every_operation
def test_reference_has_the_signature_without_the_machine(operation):
    expected = SIGNATURES[operation.function]
    for option in (", dtype=None", ", out=None", ", threads=None"):
        expected = expected.replace(option, "")
    assert signature(getattr(reference, operation.function)) == expected


@pytest.mark.parametrize("name", SIGNATURES)
def test_everything_public_is_documented(name):
    assert name in dir(xsmmconv)
    assert inspect.getdoc(getattr(xsmmconv, name))


@every_dtype
@every_operation
def test_without_batch_axis(operation, dtype):
    first, second, bias = integer_operands(GROUPED, operation, dtype)
    options = {"bias": bias} if operation.takes_bias else {}
    first = first[:1]
    second = second[:1] if operation.second == "x" else second
    expected = call(xsmmconv, operation, GROUPED, first, second, **options)
    second = second[0] if operation.second == "x" else second
    got = call(xsmmconv, operation, GROUPED, first[0], second, **options)
    if operation.result != "weight":
        expected = expected[0]
    assert_bitwise_equal(got, expected, GROUPED, operation, dtype)
    out = np.full(expected.shape, np.nan, dtype)
    assert call(xsmmconv, operation, GROUPED, first[0], second, out=out, **options) is out
    assert_bitwise_equal(out, expected, GROUPED, operation, dtype)


@every_dtype
def test_no_rows(dtype):
    none = _text.parse("n0c4k6s3p1g2w20")
    for operation in OPERATIONS:
        first, second, _ = integer_operands(none, operation, dtype)
        got = call(xsmmconv, operation, none, first, second)
        assert got.shape == problems.shape(none, operation.result)
        assert got.dtype == dtype
        assert not got.any()  # the weight gradient is a sum over nothing


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        (3, (3, 3)),
        (np.int64(3), (3, 3)),
        (np.uint8(3), (3, 3)),
        ([2, 5], (2, 5)),
        ((np.int32(0), 7), (0, 7)),
        ("valid", (0, 0)),
        ("same", (4, 5)),
        ("causal", (9, 0)),
    ],
)
@every_operation
def test_padding(operation, padding, sides):
    # Four taps at dilation 3 span 10 columns: "same" has an odd total.
    problem = _text.parse(f"n2c3k2s4d3pl{sides[0]}pr{sides[1]}w30")
    first, second, _ = integer_operands(problem, operation, np.dtype(np.float32))
    got = call(xsmmconv, operation, problem, first, second, padding=padding)
    expected = call(reference, operation, problem, first, second)
    assert_equal(got, expected.astype(np.float32), problem, operation, padding)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64])
@every_operation
def test_numpy_integers_are_integers(operation, kind):
    first, second, _ = integer_operands(GROUPED, operation, np.dtype(np.float32))
    expected = call(xsmmconv, operation, GROUPED, first, second)
    numbers = {"stride": kind(2), "dilation": kind(2), "groups": kind(2), "threads": kind(1)}
    got = call(xsmmconv, operation, GROUPED, first, second, **numbers)
    assert_bitwise_equal(got, expected, operation, kind)


@pytest.mark.parametrize(
    ("taps", "options"),
    [
        (1, {"dilation": 2**31}),
        (1, {"dilation": 2**40 - 1}),
        (1, {"stride": 2**31}),
        (3, {"stride": 2**40 - 1}),
        (2, {"dilation": 2**33, "padding": "causal"}),
        (2, {"dilation": 2**33, "padding": "same"}),
        (3, {"dilation": 2**38, "padding": (2**38, 2**38), "stride": 2**32}),
    ],
)
@every_operation
def test_parameters_beyond_32_bits(operation, taps, options):
    # Legal, and the arrays are small: no index of theirs may be computed in 32 bits on the way.
    rng = np.random.default_rng(taps)
    arrays = {
        "x": rng.integers(-9, 9, (2, 3, 8)).astype(np.float32),
        "weight": rng.integers(-9, 9, (2, 3, taps)).astype(np.float32),
    }
    arrays["y"] = reference.conv1d(arrays["x"], arrays["weight"], **options).astype(np.float32)
    operands = [arrays[operation.first], arrays[operation.second]]
    if operation is BACKWARD_DATA:
        operands.append(8)
    elif operation is BACKWARD_WEIGHT:
        operands.append(taps)
    got = getattr(xsmmconv, operation.function)(*operands, **options)
    expected = getattr(reference, operation.function)(*operands, **options)
    assert_equal(got, expected.astype(np.float32), operation, taps, options)


@pytest.mark.parametrize("output_padding", range(5))
@pytest.mark.parametrize(("stride", "dilation"), [(3, 2), (2, 5), (5, 1), (1, 5)])
def test_output_padding(stride, dilation, output_padding):
    # Below the stride it is what a strided convolution lost; up to the dilation it is accepted too.
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.integers(-9, 9, s).astype("f4") for s in ((2, 4, 7), (4, 3, 3), (6,)))
    options = {"stride": stride, "dilation": dilation, "groups": 2, "padding": (3, 1)}
    if output_padding >= max(stride, dilation):
        with pytest.raises(ValueError, match="output_padding"):
            xsmmconv.conv_transpose1d(x, weight, bias, output_padding=output_padding, **options)
        return
    got = xsmmconv.conv_transpose1d(x, weight, bias, output_padding=output_padding, **options)
    expected = reference.conv_transpose1d(x, weight, bias, output_padding=output_padding, **options)
    assert_equal(got, expected.astype("f4"), options, output_padding)


@every_operation
def test_subclasses_count_as_arrays(operation, tmp_path):
    class Labelled(np.ndarray):
        pass

    first, second, _ = integer_operands(GROUPED, operation, np.dtype(np.float32))
    expected = call(xsmmconv, operation, GROUPED, first, second)
    mapped = np.memmap(tmp_path / "first", np.float32, "w+", shape=first.shape)
    mapped[...] = first
    out = np.full(expected.shape, np.nan, np.float32).view(Labelled)
    got = call(xsmmconv, operation, GROUPED, mapped, second.view(Labelled))
    assert type(got) is np.ndarray
    assert_bitwise_equal(got, expected, operation)
    assert call(xsmmconv, operation, GROUPED, first, second, out=out) is out
    assert_bitwise_equal(np.asarray(out), expected, operation)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_matrix_is_a_row_without_batch_axis():
    x = np.matrix([[1, 2, 3], [4, 5, 6]], np.float32)
    got = xsmmconv.conv1d(x, np.ones((1, 2, 2), np.float32))
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, [[12, 16]])


def test_inputs_may_share_memory():
    x = np.arange(2 * 3 * 9, dtype=np.float32).reshape(2, 3, 9)
    weight = x[..., 2:6]
    expected = xsmmconv.conv1d(x.copy(), weight.copy(), x[0, 0, :2].copy())
    assert_bitwise_equal(xsmmconv.conv1d(x, weight, x[0, 0, :2]), expected)


@every_operation
def test_out_between_the_rows_of_an_input(operation):
    # The ranges of their addresses overlap, the addresses do not.
    first, second, _ = integer_operands(GROUPED, operation, np.dtype(np.float32))
    expected = call(xsmmconv, operation, GROUPED, first, second)
    rows = np.full((2, first[0].size + expected.size), np.nan, np.float32)
    apart = rows[:, : first[0].size].reshape(first.shape)
    apart[...] = first
    out = rows[0, first[0].size :].reshape(expected.shape)
    assert np.may_share_memory(apart, out)
    assert call(xsmmconv, operation, GROUPED, apart, second, out=out) is out
    assert_bitwise_equal(out, expected, operation)
    assert_bitwise_equal(np.array(apart), first, operation, "input changed")


@every_dtype
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA, TRANSPOSED], ids=str)
def test_empty_out(operation, dtype):
    none = _text.parse("n0c4k6s3p1g2w20")
    first, second, _ = integer_operands(none, operation, dtype)
    out = np.empty(problems.shape(none, operation.result), dtype)
    assert call(xsmmconv, operation, none, first, second, out=out) is out


@pytest.mark.parametrize("bias_dtype", ["float32", "own"])
@every_dtype
def test_bias_dtypes(dtype, bias_dtype):
    problem = _text.parse("c3k5s3p1w40")
    x, weight, bias = integer_operands(problem, FORWARD, dtype)
    bias = bias if bias_dtype == "own" else bias.astype(np.float32)
    got = xsmmconv.conv1d(x, weight, bias, padding=1)
    exact = reference.conv1d(x, weight, bias, padding=1)
    assert_equal(got, problems.rounded(exact, dtype), problem, dtype, bias_dtype)


@pytest.mark.parametrize("dtype", [None, "float32", np.float32, np.dtype("f4"), "<f4"])
def test_weight_gradient_dtypes(dtype):
    dy, x, _ = integer_operands(GROUPED, BACKWARD_WEIGHT, problems.BFLOAT16)
    got = call(xsmmconv, BACKWARD_WEIGHT, GROUPED, dy, x, dtype=dtype)
    assert got.dtype == (np.dtype("f4") if dtype else problems.BFLOAT16)
    for same in (np.float32, np.float64):
        a, b = dy.astype(same), x.astype(same)
        got = call(xsmmconv, BACKWARD_WEIGHT, GROUPED, a, b, dtype=same)
        assert got.dtype == same


def test_keywords_and_positions():
    x, weight, bias = np.ones((1, 2, 9), "f4"), np.ones((2, 2, 3), "f4"), np.ones(2, "f4")
    by_name = xsmmconv.conv1d(x=x, weight=weight, bias=bias)
    assert_bitwise_equal(xsmmconv.conv1d(x, weight, bias), by_name)
    with pytest.raises(TypeError):
        xsmmconv.conv1d(x, weight, bias, 1)
    with pytest.raises(TypeError):
        xsmmconv.conv1d(x, weight, strides=1)
    with pytest.raises(TypeError):
        xsmmconv.conv1d(x)


@pytest.mark.parametrize("pass_", problems.PASSES)
@pytest.mark.parametrize("batched", [True, False])
def test_output_shape_of_a_plan(pass_, batched):
    p = GROUPED
    skip = 0 if batched else 1
    plan = xsmmconv.plan(pass_, p.x_shape[skip:], p.weight_shape, **p.parameters)
    expected = {
        "forward": p.y_shape[skip:],
        "backward_data": p.x_shape[skip:],
        "backward_weight": p.weight_shape,
    }[pass_]
    assert tuple(plan.output_shape) == expected


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "bfloat16", np.float32, np.dtype("f8"), ml_dtypes.bfloat16, "<f4"],
)
def test_dtypes_of_a_plan(dtype):
    plan = xsmmconv.plan("forward", [3, 20], [5, 3, 4], dtype)
    assert tuple(plan.output_shape) == (5, 17)
    assert plan.multiply_adds == 5 * 3 * 4 * 17
    assert np.dtype(dtype).name in plan.describe()


@pytest.mark.every(3)
@pytest.mark.parametrize("pass_", problems.PASSES)
def test_description_of_a_plan(problem, pass_):
    # Whatever the problem, the plan can print itself, with its number of multiply-adds.
    for dtype in ("float32", "bfloat16"):
        shapes = problem.x_shape, problem.weight_shape
        plan = xsmmconv.plan(pass_, *shapes, dtype, **problem.parameters)
        description = plan.describe()
        assert str(plan.multiply_adds) in re.sub("[,_ ]", "", description), (
            f"{problem} {pass_}: {description}"
        )


def test_a_plan_never_changes():
    plan = xsmmconv.plan("forward", (1, 2, 9), (2, 2, 3))
    with pytest.raises(AttributeError):
        plan.multiply_adds = 0


def test_show_config(capsys):
    assert xsmmconv.show_config() is None
    shown = capsys.readouterr().out
    for part in ("xsmmconv", "LIBXSMM", "numpy", "threads"):
        assert part.lower() in shown.lower()
