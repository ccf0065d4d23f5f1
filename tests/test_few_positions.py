"""Many channels against few positions: weights that are packed block by block, gradients that are
set once. There, moving the weights takes as long as multiplying by them."""

import numpy as np
import problems
import pytest
from problems import BACKWARD_DATA, BACKWARD_WEIGHT, FORWARD, PASSES

import xsmmconv
from xsmmconv import _blocking_lanes, reference
from xsmmconv._text import parse

every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)

# Odd channels and last blocks of filters, taps of all sizes that packing knows, groups, strides.
LINES = [
    f"n{n}c{channels * g}k{filters * g}s{taps}p{taps // 2}g{g}w{width}"
    for n, channels, filters, g, width in (
        (1, 64, 64, 1, 20),
        (1, 67, 45, 1, 9),
        (1, 33, 96, 2, 17),
        (2, 40, 70, 1, 12),
    )
    for taps in (1, 2, 3, 4, 7, 8, 9, 16)
] + [
    "n1c32k40s64p30w40",
    "n1c40k32s65p30w40",
    "n1c32k33s257p250w30",
    "n1c48k64s16st8p4w128",
    "n1c64k48s4st2p1w40",
    "n1c34k66s3d4p4w25",
]


def views(weight):
    """The same weights in other places: contiguous, with steps of two, and backwards."""
    yield weight
    yield np.repeat(weight, 2, axis=2)[..., ::2]
    yield np.ascontiguousarray(weight.swapaxes(0, 1)).swapaxes(0, 1)
    yield weight[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    memory = np.zeros(weight.nbytes + 2, np.uint8)
    unaligned = memory[2:].view(weight.dtype).reshape(weight.shape)
    unaligned[...] = weight
    yield unaligned


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA], ids=str)
@every_dtype
def test_weights_in_any_place_packed_at_any_time(line, operation, dtype, monkeypatch):
    problem = parse(line)
    found = problems.plan(line, operation, dtype)
    monkeypatch.setattr(_blocking_lanes, "_weights", lambda sh, m, blocking: blocking)
    before = problems.plan(line, operation, dtype)
    first, weight, _ = problems.integer_operands(problem, operation, dtype)
    exact = problems.call(reference, operation, problem, first, weight)
    expected = problems.rounded(exact, dtype)
    for same in views(weight):
        once = found.engine.pack(same)
        for way, packed, threads in (
            (found, None, 1),
            (found, None, 3),
            (found, once, 1),
            (before, None, 1),
            (before, None, 2),
        ):
            out = np.full(found.output_shape, np.nan, dtype)
            issued = way.run(first, same, None, False, out, threads, packed=packed)
            problems.assert_equal(out, expected, line, operation, dtype, threads)
            assert issued == found.multiply_adds


@pytest.mark.parametrize(
    ("line", "changed", "by_block"),
    [
        ("n1c256k256s3p1w20", {}, True),
        ("n8c256k256s3p1w8", {}, True),  # all rows of the batch are one item
        ("n1c256k256s3p1g2w20", {}, True),  # an item for each group
        ("n80c256k256s3p1w20", {}, False),  # items that share the weights
        ("n1c256k256s3p1w20", {"l2_bytes": 2**16}, False),  # no room for a block of them
    ],
)
def test_when_weights_are_packed_by_blocks(line, changed, by_block):
    found = problems.plan(line, "forward", np.dtype(np.float32), **changed)
    assert found._blocking.lanes == "filters"
    assert found._blocking.by_block == by_block
    assert ("weights packed for a block of filters" in found.describe()) == by_block
    if by_block:
        assert found.engine.scratch_bytes <= found._machine.l2_bytes


@pytest.mark.parametrize(
    ("line", "unpacked"),
    [
        ("n5c64k64s1w1", True),
        ("n2c100k50s1w11", True),
        ("n3c96k128s1g2w5", True),
        ("n1c66k70s1st3w61", True),  # phases without a tap
        ("n1c256k256s1w128", True),
        ("n1c256k256s1w129", False),  # many columns
        ("n1c256k256s3p1w8", False),  # several taps: filters are no neighbours
        ("n1c1024k32s1w8", True),
        ("n1c1024k32s1w13", False),  # rows of weights that collide
        ("n1c16k16s1w8", False),  # few weights
    ],
)
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64)], ids=str)
def test_weights_that_lie_as_backward_data_reads_them(line, unpacked, dtype):
    """No bit depends on it."""
    problem, found = parse(line), problems.plan(line, "backward_data", dtype)
    assert found._blocking.unpacked == unpacked
    assert found._blocking.lanes == "filters" or not unpacked
    assert (found.engine.pack(np.ones(problem.weight_shape, dtype)) is None) == unpacked
    assert ("weights as they lie" in found.describe()) == unpacked
    whole = problems.integer_operands(problem, BACKWARD_DATA, dtype)[:2]
    exact = problems.call(reference, BACKWARD_DATA, problem, *whole)
    real = problems.real_operands(problem, BACKWARD_DATA, dtype)[:2]
    expected = [problems.rounded(exact, dtype), np.full(found.output_shape, np.nan, dtype)]
    found.run(*real, None, False, expected[1], 1)
    for (first, weight), result in zip((whole, real), expected, strict=True):
        for same in views(weight):
            for threads in 1, 3:
                out = np.full(found.output_shape, np.nan, dtype)
                issued = found.run(first, same, None, False, out, threads)
                problems.assert_equal(out, result, line)
                assert issued == found.multiply_adds


def test_taps_that_reach_nothing_count():
    """With a long stride, most of the weights are never used."""
    found = problems.plan("n1c64k64s4000st4000pr3990w64", "backward_data", np.dtype(np.float32))
    assert found.engine.scratch_bytes <= found._machine.l2_bytes


def test_a_layer_packs_them_once():
    """And has the same bits as the call."""
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((1, 96, 30), (80, 96, 3)))
    assert xsmmconv.plan("forward", x.shape, weight.shape)._blocking.by_block
    layer, expected = xsmmconv.Conv1d(weight), xsmmconv.conv1d(x, weight)
    weight[:] = np.nan
    problems.assert_bitwise_equal(layer(x), expected)


SET_ONCE = [
    f"n{n}c{channels * g}k{filters * g}s{taps}{padding}g{g}w{width}"
    for n, width in ((1, 1), (1, 7), (1, 40), (4, 6), (32, 1), (320, 1))
    for channels, filters, g in ((64, 64, 1), (33, 47, 1), (17, 130, 2), (64, 40, 1))
    for taps, padding in ((1, "p0"), (3, "p1"), (5, "p2"))
]


@pytest.mark.parametrize("line", SET_ONCE)
@every_dtype
def test_gradients_that_are_set_once(line, dtype):
    """No sum is left out, none is added to what was there before."""
    problem, found = parse(line), problems.plan(line, "backward_weight", dtype)
    first, second, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, first, second)
    expected = problems.rounded(exact, dtype)
    for grad, x in (
        (first, second),
        (np.repeat(first, 2, 2)[..., ::2], np.repeat(second, 2, 2)[..., ::2]),
    ):
        for threads in 1, 3:
            out = np.full(found.output_shape, np.nan, dtype)
            issued = found.run(grad, x, None, False, out, threads)
            problems.assert_equal(out, expected, line, dtype, threads)
            assert issued == found.multiply_adds


@pytest.mark.parametrize(
    ("line", "set_once", "direct"),
    [
        ("n1c64k64s1w40", True, True),
        ("n1c64k64s3p1w40", True, False),  # a filter's taps lie beside each other
        ("n1c256k256s1w4000", False, False),  # many tiles,
        ("n1c256k256s1w4096", False, False),  # one like the other
        ("n5c64k64s3p1w1", False, False),  # taps without any position
    ],
)
def test_when_gradients_are_set_once(line, set_once, direct):
    found = problems.plan(line, "backward_weight", np.dtype(np.float32))
    assert found._program.set_once == set_once
    assert found._program.direct == direct
    assert {kernel[-1] for kernel in found._program.kernels} == {int(not set_once)}  # beta


def test_what_few_positions_do_with_infinities():
    """They are multiplied by what they meet, and by nothing else: not by padding."""
    for pass_, operation in PASSES.items():
        for dtype in problems.DTYPES:
            for line in "n1c64k64s3p1w6", "n1c65k63s3p1w6":
                problem = parse(line)
                first, second, _ = problems.real_operands(problem, operation, dtype)
                second[-1, -1, 0] = np.inf
                found = problems.plan(line, pass_, dtype)
                out = np.full(found.output_shape, 7, dtype)
                found.run(first, second, None, False, out, 1)
                with np.errstate(invalid="ignore"):
                    exact = problems.call(reference, operation, problem, first, second)
                assert (np.isnan(out.astype(float)) == np.isnan(exact)).all(), (pass_, dtype)
                assert (np.isinf(out.astype(float)) == np.isinf(exact)).all(), (pass_, dtype)
                assert 0 < np.isfinite(exact).sum() < exact.size
