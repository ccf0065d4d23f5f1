"""Depthwise convolutions: channels in the lanes, or columns of rows that have a filter each."""

import numpy as np
import problems
import pytest
from problems import (
    BACKWARD_DATA,
    BFLOAT16,
    FORWARD,
    OPERATIONS,
    PASSES,
    call,
    integer_operands,
)

import xsmmconv
from xsmmconv import _plan, reference
from xsmmconv._text import parse

CONFORMER = "n2c48k48s31psameg48w600"
SHORT = "n4c48k48s31psameg48w60"  # of which borders are the most, in the lanes


def plan(line, pass_, dtype="float32"):
    p = parse(line)
    return xsmmconv.plan(pass_, p.x_shape, p.weight_shape, dtype=dtype, **p.parameters)


def in_lanes(found):
    return any("channels in the lanes" in reason for reason in found._blocking.reasons)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("n2c256k256s45st2p22g256w90", True),
        ("n64c64k64s9st2p4g64w20", True),  # fewer taps, but short rows
        ("n2c64k64s2g64w9000", False),  # few taps and long rows
        ("n2c64k64s9d100g64w9000", False),  # what a tile reads would not stay in L1
        ("n2c3k3s31st2p15g3w600", False),  # fewer channels than lanes
        ("n2c64k128s31psameg64w600", False),  # two filters for a channel
    ],
)
def test_which_are_in_the_lanes(line, expected, dtype, pass_):
    assert in_lanes(plan(line, pass_, dtype)) == expected


@pytest.mark.parametrize("stride", [2, 7, 16, 60, 1000])
@pytest.mark.parametrize("pass_", PASSES)
def test_scratch_stays_small(stride, pass_):
    line = f"n2c64k64s9st{stride}p4g64w{40 * stride + 1}"
    assert plan(line, pass_).engine.scratch_bytes <= 2**19


def test_the_choice_is_described():
    assert "channels in the lanes" in plan(SHORT, "forward").describe()
    assert "channels in the lanes" in plan(CONFORMER, "backward_weight").describe()


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_rows_from_memory(operation, dtype):
    """Large ones are fetched ahead."""
    problem = parse("n1c32k32s80d2psameg32w20000")
    if operation is FORWARD:
        assert plan("n1c32k32s80d2psameg32w20000", "forward", dtype.name)._blocking.fetched
    first, second, _ = integer_operands(problem, operation, dtype)
    expected = problems.rounded(call(reference, operation, problem, first, second), dtype)
    got = call(xsmmconv, operation, problem, first, second, threads=2)
    problems.assert_equal(got, expected, problem, operation, dtype)


@pytest.mark.parametrize("line", ["n2c48k48s5p2g48w90", "n3c40k40s12d2psameg40w60"])
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA], ids=str)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_rows_that_others_are_faster_for(line, operation, dtype, monkeypatch):
    """Channels in the lanes where they would not be chosen, with a stride of one."""
    monkeypatch.setattr(_plan, "channels_in_lanes", lambda *sizes: True)
    p = parse(line)
    found = problems.plan(p, operation, dtype)
    assert in_lanes(found)
    first, second, _ = integer_operands(p, operation, dtype)
    expected = problems.rounded(call(reference, operation, p, first, second), dtype)
    for threads in 1, 2:
        out = np.full(found.output_shape, np.nan, dtype)
        issued = found.run(first, second, None, False, out, threads)
        problems.assert_equal(out, expected, line, operation, dtype)
        assert issued == found.multiply_adds


@pytest.mark.parametrize(
    "line", [CONFORMER, SHORT, "n2c40k40s9st3p4g40w301", "n3c33k33s12d2p6g33w90"]
)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_views(line, operation, dtype):
    """Channels-last, reversed and every second column: any strides."""
    problem = parse(line)
    operands = integer_operands(problem, operation, dtype)[:2]
    expected = call(xsmmconv, operation, problem, *operands)
    for view in (
        lambda a: np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1),
        lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
    ):
        for which in (0, 1):
            views = list(operands)
            views[which] = view(operands[which])
            got = call(xsmmconv, operation, problem, *views)
            problems.assert_bitwise_equal(got, expected, problem, operation, dtype)


@pytest.mark.parametrize("line", [CONFORMER, SHORT, "n1c40k40s9st2p4g40w800"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_threads_and_bias(line, operation, dtype):
    problem = parse(line)
    first, second = problems.real_operands(problem, operation, dtype)[:2]
    options = {}
    if operation.takes_bias:
        bias = np.linspace(-1, 1, problems.bias_shape(problem, operation)[0]).astype(dtype)
        options = {"bias": bias, "activation": "relu"}
    one = call(xsmmconv, operation, problem, first, second, threads=1, **options)
    bound = problems.most_terms(problem, operation) * np.finfo("float32").eps
    exact = problems.finish(call(reference, operation, problem, first, second), **options)
    scale = np.abs(exact).max()
    tolerance = (2**-8 if dtype == BFLOAT16 else bound) * scale
    assert np.abs(one.astype(float) - exact).max() <= tolerance
    for threads in 2, 3:
        again = call(xsmmconv, operation, problem, first, second, threads=threads, **options)
        problems.assert_bitwise_equal(again, one, problem, operation, threads)


@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
@pytest.mark.parametrize("line", [CONFORMER, SHORT])
def test_a_layer_packs_them_once(line, dtype):
    problem = parse(line)
    x, weight, _ = integer_operands(problem, FORWARD, dtype)
    layer = xsmmconv.Conv1d(weight, padding="same", groups=48)
    got = layer(x)
    problems.assert_bitwise_equal(got, call(xsmmconv, FORWARD, problem, x, weight))
    back = layer.backward_data(got, x.shape[-1])
    expected = xsmmconv.conv1d_backward_data(got, weight, x.shape[-1], padding="same", groups=48)
    problems.assert_bitwise_equal(back, expected)
