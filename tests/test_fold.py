"""Gradients with respect to few channels: all taps are one matrix product, with folded rows."""

import hypothesis
import numpy as np
import problems
import pytest
from hypothesis import strategies as st
from problems import BACKWARD_DATA, TRANSPOSED
from test_unfolded import layouts, run

import xsmmconv
from xsmmconv import _plan, reference
from xsmmconv._blocking_fold import FoldBlocking, FoldShape, fold_blocking
from xsmmconv._lower_fold import rectangles
from xsmmconv._text import parse

every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)

LINES = [
    "n3c1k64s5w100",
    "n2c2k65s7p3w90",  # an odd number of filters
    "n1c1k70s16st8p4w1003",  # the last columns are no whole stride
    "n2c1k64s5w20000",  # columns of several windows
    "n1c2k64s9d16p64w12000",
    "n1c3k67s6st5w17000",
    "n2c6k140s11st5d3g2p15w301",
    "n1c1k1300s3p1w40",  # k in parts
    "n2c1k64s3st7w60",  # columns that no tap reaches
    "n1c2k66s4st9pl2pr30w50",
    "n2c1k64s21d3p30w9",  # no position has all taps
    "n1c1k64s2d40p41w5",  # and some have none
    "n2c15k64s9d64p100w700",
    "n1c4k64s1st3w100",
]


@pytest.fixture
def folded(monkeypatch):
    """Plans that fold, whatever other ways would be faster."""

    def make(line, dtype, **machine):
        monkeypatch.setattr(_plan, "few_positions", lambda problem: False)
        monkeypatch.setattr(_plan, "filters_are_better", lambda *sizes: False)
        monkeypatch.setattr(_plan, "channels_in_lanes", lambda *sizes: False)
        monkeypatch.setattr(
            _plan, "fold_is_better", lambda shape, _, m: shape.Q > 0 and fold_blocking(shape, m)
        )
        return problems.plan(line, BACKWARD_DATA, dtype, **machine)

    return make


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("relu", [False, True])
@every_dtype
def test_exact_in_any_layout(line, dtype, relu, folded):
    problem, found = parse(line), folded(line, dtype)
    assert isinstance(found._blocking, FoldBlocking)
    assert found.engine.scratch_bytes <= found._machine.l2_bytes
    first, second, bias = problems.integer_operands(problem, TRANSPOSED, dtype)
    exact = problems.call(reference, TRANSPOSED, problem, first, second)
    options = {"bias": bias, "activation": "relu"} if relu else {}
    expected = problems.rounded(problems.finish(exact, **options), dtype)
    for a, b in zip(layouts(first), layouts(second), strict=True):
        for threads in 1, 3:
            got = run(found, BACKWARD_DATA, a, b, threads, options.get("bias"), relu)
            problems.assert_equal(got, expected, line, threads)


@pytest.mark.every(4)
@every_dtype
def test_the_corpus(problem, dtype, folded):
    first, second, _ = problems.integer_operands(problem, BACKWARD_DATA, dtype)
    exact = problems.call(reference, BACKWARD_DATA, problem, first, second)
    for l2_bytes in 2**16, 2**20:  # narrow chunks, too; or no way to fold
        found = folded(problem, dtype, l2_bytes=l2_bytes)
        out = np.full(found.output_shape, np.nan if problem.N else 0, dtype)
        issued = found.run(first, second, None, False, out, 2)
        problems.assert_equal(out, problems.rounded(exact, dtype), problem, l2_bytes)
        if dtype != problems.BFLOAT16:
            assert issued == found.multiply_adds


@hypothesis.given(
    st.integers(1, 12), st.integers(1, 200), st.integers(1, 6), st.integers(1, 9), st.data()
)
def test_rectangles_are_the_valid_pairs(S, W, s, d, data):
    pl = data.draw(st.integers(0, d * S + 3))
    pr = data.draw(st.integers(0, d * S + 3))
    hypothesis.assume(W + pl + pr > d * (S - 1))
    Q = (W + pl + pr - d * (S - 1) - 1) // s + 1
    sh = FoldShape(1, 1, 64, 1, S, W, Q, s, d, pl, 4, False, True)
    start = data.draw(st.integers(0, Q - 1))
    end = data.draw(st.integers(start + 1, Q))
    covered = np.zeros((Q, S), int)
    for a, b, t0, t1 in rectangles(sh, start, end):
        covered[a:b, t0:t1] += 1
    q, t = np.arange(Q)[:, None], np.arange(S)
    column = q * s + t * d - pl
    valid = (column >= 0) & (column < W) & (q >= start) & (q < end)
    np.testing.assert_array_equal(covered, valid)


@pytest.mark.parametrize("line", ["n2c2k65s7p3w90", "n1c1k70s16st8p4w203", "n2c1k64s21d3p30w9"])
@every_dtype
def test_infinities_stay_in_the_columns_they_reach(line, dtype, folded):
    problem, found = parse(line), folded(line, dtype)
    first, second, _ = problems.integer_operands(problem, BACKWARD_DATA, dtype)
    second[...] = 1
    for position in 0, problem.Q // 2, problem.Q - 1:
        spoiled = first.copy()
        spoiled[0, -1, position] = np.inf
        got, whole = (run(found, BACKWARD_DATA, a, second) for a in (spoiled, first))
        reached = np.zeros(problem.W, bool)
        columns = position * problem.s + np.arange(problem.S) * problem.d - problem.pl
        reached[columns[(columns >= 0) & (columns < problem.W)]] = True
        problems.assert_equal(got[0][:, ~reached], whole[0][:, ~reached], line, position)
        problems.assert_equal(got[1:], whole[1:], line, position)
        assert np.isinf(got[0][:, reached].astype(float)).all()


@every_dtype
def test_a_layer_has_them_packed(dtype):
    problem = parse("n2c1k256s7p3w1000")
    assert folds("n2c1k256s7p3w1000", dtype)
    grad_out, weight, _ = problems.integer_operands(problem, BACKWARD_DATA, dtype)
    layer = xsmmconv.Conv1d(weight, padding=3)
    expected = xsmmconv.conv1d_backward_data(grad_out, weight, problem.W, padding=3)
    for _ in range(2):
        problems.assert_equal(layer.backward_data(grad_out, problem.W), expected, problem)


def folds(line, dtype="float32", **machine):
    found = problems.plan(line, BACKWARD_DATA, dtype, **machine)
    return isinstance(found._blocking, FoldBlocking)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("n2c1k1007s101d8w1895", True),
        ("n8c1k256s7p3w1000", True),
        ("n7c2k768s21st2d2g2w583", True),
        ("n3c15k475s9d64w1818", True),
        ("n8c1k8s7p3w1000", False),  # few filters: adding would take longer
        ("n4c1k64s51w60000", False),  # taps in parts
        ("n4c1k512s16st8w16000", False),  # phases that are filters
        ("n8c64k64s3p1w1000", False),
        ("n1c1k512s3w9000", False),  # a single row, and not much to gain
    ],
)
def test_which_plans(line, expected):
    assert folds(line) == expected


def test_taps_too_far_apart_are_not_folded():
    assert not folds("n2c1k1007s101d4000w600000")


def test_describes_itself():
    found = problems.plan("n8c1k256s7p3w1000", BACKWARD_DATA, "float32")
    text = found.describe()
    assert "7 taps of 1 channel(s) are the rows of one matrix product, folded" in text
    assert "kernels" in text


@pytest.mark.parametrize(
    ("line", "folds"),
    [
        ("n16c13k256s9w50", True),
        ("n16c13k64s9w18", False),  # most taps read padding: rows of the batch are n
        ("n16c3k256s3w18", True),
        ("n16c13k256s3w6", False),  # so few columns that channels are the lanes
    ],
)
def test_the_choice_does_not_depend_on_the_lengths_seen(line, folds, monkeypatch):
    for known in (False, True):
        monkeypatch.setattr(_plan, "may_depend_on", lambda length, known=known: known)
        found = problems.plan(line, BACKWARD_DATA, "float32", vector_bytes=64)
        assert isinstance(found._blocking, FoldBlocking) == folds
