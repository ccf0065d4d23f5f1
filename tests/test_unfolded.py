"""One to four positions: x is unfolded, and weights are read, or written, as they lie."""

import guarded
import hypothesis
import numpy as np
import problems
import pytest
from hypothesis import strategies as st
from problems import BACKWARD_DATA, BACKWARD_WEIGHT, FORWARD, PASSES, TRANSPOSED

import xsmmconv
from xsmmconv import _blocking_unfolded, _plan, reference
from xsmmconv._blocking_unfolded import UnfoldedBlocking
from xsmmconv._text import ProblemLine, parse

every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)

# Rows of weights that end within a vector, and filters within a block; all numbers of positions.
LINES = [
    f"n{n}c{channels * g}k{filters * g}s{taps}p{padding}g{g}w{width}"
    for channels, filters, g, taps, padding in (
        (64, 32, 1, 1, 0),
        (33, 17, 1, 3, 1),
        (40, 21, 2, 5, 2),
        (19, 34, 1, 7, 5),
    )
    for n, width in ((1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (1, 4), (4, 1), (2, 2))
    if n * (width + 2 * padding - taps + 1) <= 4
] + [
    "n1c16k16s16st8p4w16",
    "n2c24k18s16st8p4w16",
    "n1c20k16s4st2p1w6",
    "n1c17k16s3d5pl3pr7w4",
    "n1c17k16s3d2pl5pr0w3",
    "n1c32k16s2st14p20w5",  # positions that reach nothing,
    "n1c32k16s2st40d50p90w5",  # and none that does
    "n1c16k16s2st9pr7w30",  # columns that nothing reaches
    "n1c9k16s3w4",  # more than half of a vector is left, or a whole one of AVX2 and some
    "n2c13k17s2w2",
    "n1c500k16s300w300",
    "n1c700k100s3w4",
]


@pytest.fixture
def unfolded(monkeypatch):
    """Plans for few positions, whatever other ways would be faster."""

    def make(line, operation, dtype):
        monkeypatch.setattr(_plan, "unfolded_is_better", lambda *sizes: True)
        of_gradient = operation is TRANSPOSED
        found = problems.plan(line, BACKWARD_DATA if of_gradient else operation, dtype)
        assert isinstance(found._blocking, UnfoldedBlocking)
        return found

    return make


def layouts(array):
    """The same numbers in other places: contiguous, at the end of the memory that may be read, with
    steps of two, with other axes innermost, backwards, unaligned."""
    yield array
    yield guarded.guarded(array, "end")
    yield guarded.guarded(array, "begin")
    yield np.repeat(array, 2, axis=2)[..., ::2]
    yield np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
    yield np.ascontiguousarray(array.T).T
    yield array[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    memory = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = memory[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield unaligned


def run(found, operation, first, second, threads=1, bias=None, relu=False):
    out = guarded.guarded(np.full(found.output_shape, np.nan, first.dtype), "end")
    if bias is not None:
        bias = bias.astype(found.computed_dtype)
    issued = found.run(first, second, bias, relu, out, threads)
    assert issued == found.multiply_adds, operation
    return out


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA, BACKWARD_WEIGHT], ids=str)
@every_dtype
def test_exact_in_any_layout(line, operation, dtype, unfolded):
    problem, found = parse(line), unfolded(line, operation, dtype)
    first, second, _ = problems.integer_operands(problem, operation, dtype)
    exact = problems.call(reference, operation, problem, first, second)
    expected = problems.rounded(exact, dtype)
    for a, b in zip(layouts(first), layouts(second), strict=True):
        for threads in 1, 3:
            problems.assert_equal(run(found, operation, a, b, threads), expected, line, threads)


@st.composite
def few_positions(draw):
    """Any geometry with one to four positions."""
    N, Q = draw(st.sampled_from([(n, q) for n in (1, 2, 3, 4) for q in range(1, 4 // n + 1)]))
    C, K, S = draw(st.integers(1, 70)), draw(st.integers(16, 40)), draw(st.integers(1, 20))
    s, d, g = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 2))
    read = (Q - 1) * s + d * (S - 1) + 1
    pl = draw(st.integers(0, min(read - 1, 50)))
    pr = draw(st.integers(0, min(read - 1 - pl, 50)))
    W = read - pl - pr + draw(st.integers(0, s - 1))
    return ProblemLine(N, C * g, K * g, S, W, s, d, pl, pr, g)


@hypothesis.given(few_positions(), st.sampled_from([*PASSES]), st.sampled_from(problems.DTYPES))
def test_any_geometry_is_exact(problem, pass_, dtype):
    operation, found = PASSES[pass_], problems.plan(problem, pass_, dtype)
    first, second, _ = problems.integer_operands(problem, operation, dtype)
    exact = problems.call(reference, operation, problem, first, second)
    got = run(found, operation, guarded.guarded(first, "end"), guarded.guarded(second, "end"))
    problems.assert_equal(got, problems.rounded(exact, dtype), problem, operation, dtype)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("operation", [FORWARD, TRANSPOSED], ids=str)
@every_dtype
def test_bias_and_relu(line, operation, dtype, unfolded):
    problem, found = parse(line), unfolded(line, operation, dtype)
    first, second, bias = problems.integer_operands(problem, operation, dtype)
    for activation in None, "relu":
        options = {"bias": bias, "activation": activation}
        exact = problems.call(reference, operation, problem, first, second, **options)
        got = run(found, operation, first, second, 2, bias, activation == "relu")
        problems.assert_equal(got, problems.rounded(exact, dtype), line, activation)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA, BACKWARD_WEIGHT], ids=str)
@every_dtype
def test_within_the_bound_and_the_same_bits_in_any_layout(line, operation, dtype, unfolded):
    problem, found = parse(line), unfolded(line, operation, dtype)
    first, second, _ = problems.real_operands(problem, operation, dtype)
    got = run(found, operation, first, second)
    wide = np.longdouble if dtype == np.float64 else np.float64
    operands = first.astype(wide), second.astype(wide)
    exact = problems.call(reference, operation, problem, *operands)
    magnitude = problems.call(reference, operation, problem, *map(np.abs, operands))
    bound = reference.error_bound(exact, magnitude, problems.terms(problem, operation), dtype)
    problems.assert_within(got, exact, bound, line, operation, dtype)
    for a, b in zip(layouts(first), layouts(second), strict=True):
        for threads in 1, 2, 7:
            problems.assert_bitwise_equal(run(found, operation, a, b, threads), got, line)


@pytest.mark.parametrize("line", ["n1c33k17s3p1w2", "n1c33k17s3p1w4", "n3c16k20s5p2w1"])
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA, BACKWARD_WEIGHT], ids=str)
@every_dtype
def test_infinities_meet_no_padding(line, operation, dtype, unfolded):
    problem, found = parse(line), unfolded(line, operation, dtype)
    for operand in 0, 1:
        for tap in 0, -1:
            operands = problems.real_operands(problem, operation, dtype)[:2]
            operands[operand][..., tap] = np.inf
            got = run(found, operation, *operands).astype(np.float64)
            with np.errstate(invalid="ignore"):
                exact = problems.call(reference, operation, problem, *operands)
            assert (np.isnan(got) == np.isnan(exact)).all(), (line, operand, tap)
            assert (np.isinf(got) == np.isinf(exact)).all(), (line, operand, tap)


@pytest.mark.parametrize("amd", [True, False])
@every_dtype
def test_gradients_that_come_from_memory(amd, dtype):
    """Their lines are asked for, up to beyond the end, where that is worth it."""
    line = "n1c950k900s3p1w2"
    problem, found = (
        parse(line),
        problems.plan(line, BACKWARD_WEIGHT, dtype, amd=amd, l2_bytes=2**20),
    )
    assert ("what is written is fetched before" in found.describe()) == amd
    first, second, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, first, second)
    got = run(found, BACKWARD_WEIGHT, first, second, 2)
    problems.assert_equal(got, problems.rounded(exact, dtype), line, dtype)


def test_a_gradient_of_bfloat16_in_float32():
    line, dtype = "n1c40k33s3p1w3", problems.BFLOAT16
    problem = parse(line)
    grad, x, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)
    found = problems.plan(line, "backward_weight", dtype)
    assert isinstance(found._blocking, UnfoldedBlocking)
    out = np.full(problem.weight_shape, np.nan, np.float32)
    found.run(grad, x, None, False, out, 1)
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, grad, x)
    problems.assert_equal(out, exact.astype(np.float32), line)
    assert not np.array_equal(out, exact.astype(dtype).astype(np.float32))  # it has more bits


def test_a_layer_packs_nothing_and_has_the_same_bits():
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((1, 96, 2), (80, 96, 3)))
    grad = rng.standard_normal((1, 80, 2)).astype(np.float32)
    layer = xsmmconv.Conv1d(weight, padding=1)
    expected = xsmmconv.conv1d(x, weight, padding=1)
    expected_grad = xsmmconv.conv1d_backward_data(grad, weight, 2, padding=1)
    weight[:] = np.nan
    problems.assert_bitwise_equal(layer(x), expected)
    problems.assert_bitwise_equal(layer.backward_data(grad, 2), expected_grad)
    assert layer._packs == {}


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        ("n1c64k64s3p1w1", "forward backward_data backward_weight"),
        ("n4c64k64s3p1w1", "forward backward_data backward_weight"),
        ("n1c64k64s3p1w5", ""),  # five positions
        ("n1c64k64s1w1", "forward"),  # matrices that lie as kernels want them
        ("n1c64k8s3p1w1", ""),  # few filters
        ("n1c4k64s3p1w1", ""),  # and few weights of each
        ("n1c64k64g64s3p1w1", ""),
        ("n1c70000k16s3w4", ""),  # copies of rows would not fit L2
        ("n1c64k16s2st9000pr8000w9002", ""),  # nor rows of the gradient L1
    ],
)
def test_which_plans(line, passes):
    for pass_ in PASSES:
        found = problems.plan(line, pass_, np.dtype(np.float32), vector_bytes=64)
        chosen = isinstance(found._blocking, UnfoldedBlocking)
        assert chosen == (pass_ in passes.split()), pass_
        assert ("x unfolded, weights as they lie" in found.describe()) == chosen
        assert found.engine.scratch_bytes <= found._machine.l2_bytes or not chosen


def test_bfloat16_is_unfolded_with_one_tap_too():
    for pass_ in PASSES:
        found = problems.plan("n1c64k64s1w1", pass_, problems.BFLOAT16)
        assert isinstance(found._blocking, UnfoldedBlocking)


def test_scratch_for_long_rows():
    """Of the gradient of x, few at a time."""
    for line in "n1c512k32s2st4000pr3990w4100", "n2c512k32s2st4000pr3800w4100":
        found = problems.plan(line, "backward_data", problems.BFLOAT16)
        assert isinstance(found._blocking, UnfoldedBlocking)
        assert found.engine.scratch_bytes <= found._machine.l2_bytes // 2


def test_places_by_hand():
    assert _blocking_unfolded.places(parse("c1k1s3p1w2")) == ((-1, 1, 3), (0, 0, 2))
    assert _blocking_unfolded.places(parse("c1k1s2st7p8w3")) == ((-8, 2, 2), (-1, 1, 2), (6, 0, 0))
