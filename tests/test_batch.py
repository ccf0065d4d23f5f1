"""Weight gradients of short rows, reduced over rows of the batch."""

import guarded
import numpy as np
import problems
import pytest
from problems import BACKWARD_WEIGHT
from test_unfolded import layouts

from xsmmconv import _plan, reference
from xsmmconv._blocking_weight import WeightBlocking
from xsmmconv._lower_batch import Positions, tap_positions
from xsmmconv._text import parse

every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)

# Batches that one block divides and that none does, odd ones (half a pair of BF16), and single
# rows; lanes and rows that leave a vector or a block; positions that are skipped.
LINES = [
    "n8c40k24s3p1w9",
    "n7c33k50s5p2w6",
    "n1c17k20s3p1w5",
    "n67c20k36s3p1w4",
    "n134c18k33s2p1w3",
    "n16c24k70s4st2w20",
    "n9c64k16s3st5p2w40",  # x in the lanes, or the gradient
    "n9c16k64s3st5p2w40",
    "n6c35k35s1st4w30",
    "n10c30k34s7d3p9w11",
    "n12c21k40s5d16p32w33",
    "n4c36k40s3st2d4g2p4w21",
    "n8c19k23s9p8w1",
    "n5c20k40s2st7d3pl1pr20w16",  # positions that read nothing
]


@pytest.fixture
def over_the_batch(monkeypatch):
    """Plans that reduce over the batch, whatever other ways would be faster."""

    def make(line, dtype, **machine):
        def possible(sh, m, dots):
            return any(True for _ in tap_positions(sh.phases, sh.row_planes))

        monkeypatch.setattr(_plan, "few_positions", lambda problem: False)
        monkeypatch.setattr(_plan, "windows_in_lanes", lambda *sizes: False)
        monkeypatch.setattr(_plan, "channels_in_lanes", lambda *sizes: False)
        monkeypatch.setattr(_plan, "batch_is_better", possible)
        return problems.plan(line, BACKWARD_WEIGHT, dtype, **machine)

    return make


def run(found, grad_out, x, threads=1):
    out = np.full(found.output_shape, np.nan if found.problem.N else 0, x.dtype)
    out = guarded.guarded(out, "end")
    issued = found.run(grad_out, x, None, False, out, threads)
    return out, issued


def is_over_the_batch(found):
    return isinstance(found._blocking, WeightBlocking) and found._blocking.lists == "batch"


@pytest.mark.parametrize("line", LINES)
@every_dtype
def test_exact_in_any_layout(line, dtype, over_the_batch):
    problem, found = parse(line), over_the_batch(line, dtype)
    assert is_over_the_batch(found)
    first, second, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, first, second)
    expected = problems.rounded(exact, dtype)
    for a, b in zip(layouts(first), layouts(second), strict=True):
        for threads in 1, 3:
            got, issued = run(found, a, b, threads)
            problems.assert_equal(got, expected, line, threads)
            assert issued == found.multiply_adds


@pytest.mark.every(3)
@every_dtype
def test_the_corpus(problem, dtype, over_the_batch):
    first, second, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, first, second)
    for l2_bytes in 2**17, 2**20:  # blocks of a row of the batch or two, too
        found = over_the_batch(problem, dtype, l2_bytes=l2_bytes)
        got, issued = run(found, first, second, 2)
        problems.assert_equal(got, problems.rounded(exact, dtype), problem, l2_bytes)
        assert issued == found.multiply_adds


@pytest.mark.parametrize("line", ["n7c33k50s5p2w6", "n9c16k64s3st5p2w40", "n5c20k40s3d4w12"])
@every_dtype
def test_what_no_tap_reads_is_multiplied_by_nothing(line, dtype, over_the_batch):
    """Infinities stay in the sums of the taps that read them, also those of a row of the batch
    whose partner is missing."""
    problem, found = parse(line), over_the_batch(line, dtype)
    assert is_over_the_batch(found)
    grad_out, x, _ = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)
    tap, position = np.arange(problem.S)[:, None], np.arange(problem.Q)
    read = tap * problem.d + position * problem.s - problem.pl
    for column in 0, problem.W - 1:
        spoiled = x.copy()
        spoiled[-1, :, column] = np.inf
        got, _ = run(found, grad_out, spoiled)
        whole, _ = run(found, grad_out, x)
        touched = (read == column).any(axis=1)
        problems.assert_equal(got[..., ~touched], whole[..., ~touched], line, column)
        assert not touched.any() or not np.isfinite(got[..., touched].astype(float)).all()


def test_positions_are_those_of_the_taps():
    found = problems.plan("n8c64k64s3st4d2p1w33", BACKWARD_WEIGHT, "float32")
    lanes, rows = found._program.lane_positions, found._program.row_positions
    assert lanes == Positions(0, 1, 8)  # of the gradient
    assert rows == Positions(1, 2, 16)  # x at 1, 3, ..., 31: 4 q + 2 t - 1
    assert rows.place(31) == 15


@pytest.mark.parametrize(
    ("line", "dtype", "expected"),
    [
        ("n16c64k64s3p1w16", "float32", True),
        ("n16c64k64s3w16", "float32", False),  # rows are read in place
        ("n16c64k64s3st2w33", "float32", True),
        ("n16c64k64s1st2w33", "float32", False),
        ("n16c64k64s3p1w500", "float32", False),
        ("n1c64k64s3p1w16", "float32", False),
        ("n16c256k256s3g256p1w16", "float32", False),
        ("n16c1k64s16st8w128", "float32", False),  # windows are the lanes
        ("n16c64k64s3d64p64w512", "float32", False),
        ("n16c5k7s3p1w8", "float32", True),
        ("n16c5k7s3p1w40", "float32", False),  # dot products of rows
    ],
)
def test_which_plans(line, dtype, expected):
    assert is_over_the_batch(problems.plan(line, BACKWARD_WEIGHT, dtype)) == expected


@pytest.mark.parametrize("width", [17, 18])
def test_an_odd_position_of_bfloat16_has_no_partner(width):
    found = problems.plan(f"n16c64k64s3w{width}", BACKWARD_WEIGHT, "bfloat16")
    assert is_over_the_batch(found) == (_plan.machine("bfloat16").bf16 and width == 17)


def test_scratch_is_bounded():
    for line in "n64c512k512s9p4w40", "n64c1024k8s5st3w40", "n60c300k2000s3p1w30":
        found = problems.plan(line, BACKWARD_WEIGHT, "float32", l2_bytes=2**20)
        assert is_over_the_batch(found)
        assert found.engine.scratch_bytes <= 2**20
