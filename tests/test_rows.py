"""Weight gradients by dot products of rows, and by matrix products where these would be chosen."""

import dataclasses

import numpy as np
import problems
import pytest
from problems import BACKWARD_WEIGHT, BFLOAT16
from xsmmconv._row_gradient import dots

import xsmmconv
from xsmmconv import _blocking_rows, _dispatch, _plan, reference
from xsmmconv._blocking_rows import RowBlocking, rows_are_better
from xsmmconv._text import parse


def plan(problem, dtype, monkeypatch, rows=True, **machine):
    """A plan of its own with dot products of rows, whatever they are worth there, or without."""
    monkeypatch.setattr(_plan, "few_positions", lambda problem: False)
    monkeypatch.setattr(_plan, "batch_is_better", lambda *sizes: False)
    monkeypatch.setattr(_plan, "rows_are_better", lambda *sizes: rows)
    monkeypatch.setattr(_plan, "windows_in_lanes", lambda *sizes: False)
    if rows:
        monkeypatch.setattr(_plan, "channels_in_lanes", lambda *sizes: False)
    made = problems.plan(problem, "backward_weight", dtype, **machine)
    assert isinstance(made._blocking, RowBlocking) == rows
    return made


def run(found, grad_out, x, threads=1):
    out = np.full(found.output_shape, np.nan if found.problem.N else 0, grad_out.dtype)
    return out, found.run(grad_out, x, None, False, out, threads)


def chosen(line, dtype="float32"):
    p = parse(line)
    found = xsmmconv.plan("backward_weight", p.x_shape, p.weight_shape, dtype=dtype, **p.parameters)
    return isinstance(found._blocking, RowBlocking)


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_either_is_exact_and_nothing_superfluous(problem, dtype, rows, monkeypatch):
    found = plan(problem, dtype.name, monkeypatch, rows)
    operands = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)[:2]
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, *operands)
    got, issued = run(found, *operands)
    problems.assert_equal(got, problems.rounded(exact, dtype), problem, dtype, rows)
    assert issued == found.multiply_adds


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_no_bit_depends_on_threads_or_copies(problem, dtype, monkeypatch):
    found = plan(problem, dtype.name, monkeypatch)
    grad_out, x = problems.real_operands(problem, BACKWARD_WEIGHT, dtype)[:2]
    expected, _ = run(found, grad_out, x)
    for threads in 2, 3, 7:
        problems.assert_bitwise_equal(run(found, grad_out, x, threads)[0], expected, threads)
    for again in (
        (np.repeat(grad_out, 2, axis=2)[..., ::2], x),
        (grad_out, np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)),
        (grad_out[::-1, ::-1].copy()[::-1, ::-1], x[..., ::-1].copy()[..., ::-1]),
    ):
        for threads in 1, 3:
            problems.assert_bitwise_equal(run(found, *again, threads)[0], expected, problem)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_on_smaller_machines(problem, dtype, monkeypatch):
    """Caches of other sizes: tiles of a few dozen positions, and several tiles in every row."""
    for l2_bytes in 2**14, 2**17:
        found = plan(problem, dtype.name, monkeypatch, l2_bytes=l2_bytes)
        operands = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)[:2]
        exact = problems.call(reference, BACKWARD_WEIGHT, problem, *operands)
        for threads in 1, 2:
            got, issued = run(found, *operands, threads)
            problems.assert_equal(got, problems.rounded(exact, dtype), problem, l2_bytes)
            assert issued == found.multiply_adds


@pytest.mark.parametrize(
    "line",
    [
        "n2c7k9s3p1w200",  # taps of a call with borders of their own
        "n2c9k7s3p1w200",  # the rows of x have their own positions, the gradient is shifted
        "n1c6k6s7d3p9w401",
        "n1c3k5s4st3p6w161",
        "n2c7k9s5d3p9w50",  # the same tap of several channels
    ],
)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_what_no_tap_reads_is_multiplied_by_nothing(line, dtype, monkeypatch):
    """Infinities and NaNs beside a tap's range stay out of its sum, also those of the other half
    of a pair of BF16."""
    problem = parse(line)
    found = plan(problem, dtype.name, monkeypatch)
    operands = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)[:2]
    tap, position = np.arange(problem.S)[:, None], np.arange(problem.Q)
    read = tap * problem.d + position * problem.s - problem.pl  # of x, by tap and position
    for which, width in (0, problem.Q), (1, problem.W):
        for at in 0, 1, 2, width // 2, width - 3, width - 2, width - 1:
            for value in np.inf, np.nan:
                spoilt = [operand.copy() for operand in operands]
                spoilt[which][..., at] = value
                pairs = (read >= 0) & (read < problem.W)
                pairs &= (position == at) if which == 0 else (read == at)
                used = pairs.any(axis=1)
                got, _ = run(found, *spoilt)
                with np.errstate(invalid="ignore"):
                    exact = problems.call(reference, BACKWARD_WEIGHT, problem, *spoilt)
                assert not np.isfinite(got[..., used].astype(float)).any()
                np.testing.assert_array_equal(
                    got[..., ~used], problems.rounded(exact[..., ~used], dtype), f"{which} {at}"
                )


@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
@pytest.mark.parametrize("a", range(1, 14))
def test_all_numbers_of_rows_and_taps(a, dtype, monkeypatch):
    """Every routine: so many rows against one to nine taps, of one channel and of several."""
    for taps in range(1, 10):
        for line in (
            f"n2c1k{a}s{taps}p2w50",
            f"n3c{taps}k{a}s1w77",
            f"n2c{a}k1s{taps}d9p9w90",  # rows of x against taps of one filter, far apart
        ):
            problem = parse(line)
            found = plan(problem, dtype.name, monkeypatch)
            operands = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)[:2]
            exact = problems.call(reference, BACKWARD_WEIGHT, problem, *operands)
            got, issued = run(found, *operands)
            problems.assert_equal(got, problems.rounded(exact, dtype), problem, dtype)
            assert issued == found.multiply_adds


def test_every_call_has_a_routine():
    codes = 0, 1, 3  # FP32, FP64 and pairs of BF16
    limits = _blocking_rows._TAPS[_dispatch.vector_bytes()]
    for dtype in codes:
        for rows, taps in enumerate(limits, 1):
            assert all(dots(dtype, rows, n) for n in range(1, taps + 1))
        for rows, taps in (len(limits) + 1, 1), (1, limits[0] + 1), (0, 1), (1, 0):
            with pytest.raises(xsmmconv.UnsupportedError, match=f"{rows} rows and {taps} taps"):
                dots(dtype, rows, taps)


@pytest.mark.parametrize(
    "line",
    ["n2c200k300s3w9000", "n1c40k50s51d16p400w20000", "n2c30k20s9st8p4w9000", "n1c9k9s2d5000w9000"],
)
def test_scratch_fits_the_second_level_cache(line, monkeypatch):
    for dtype in "float32", "float64", "bfloat16":
        found = plan(parse(line), dtype, monkeypatch)
        size = found._machine.l2_bytes
        assert found.engine.scratch_bytes <= size
        assert found.for_strided().engine.scratch_bytes <= size


@pytest.mark.parametrize("line", ["n1c5k5s3w20000000000", "n1c64k64s3g64w9000000000"])
def test_few_sums_follow_one_another(line, monkeypatch):
    found = plan(parse(line), "float32", monkeypatch)
    bl = found._blocking
    assert parse(line).Q / (bl.tile * bl.slots) <= 2**14
    assert found.engine.shared_bytes <= 2**27


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("n4c15k15s5d8w20032", True),
        ("n4c160k160s3g32w2002", True),  # groups of five channels
        ("n4c256k512s3g256w2002", True),  # one channel and two filters
        ("n4c256k256s3g256w2002", True),
        ("n1c4k64s15st4w9000", True),
        ("n64c12k20s3p1w50", True),
        ("n4c8k8s7w5000", True),  # full vectors of AVX2, but few rows
        ("n4c64k64s9w5008", False),  # full vectors
        ("n4c128k128s3w1000", False),
        ("n1c3000k5s3st2w3000", False),  # too many rows for a cache
        ("n1c3000k5s3w3000", True),  # not the gradient's
        ("n64c12k12s51w52", False),  # rows of two positions
        ("n1c16k16s3w66", False),  # few positions for a sum
        ("n1c1k512s16st8w32000", False),  # the taps are lanes
        ("n16c64k64s31psameg64w30", False),  # the channels are
    ],
)
def test_which_are_chosen(line, rows):
    assert chosen(line) == rows
    assert not rows or chosen(line, "bfloat16")


def test_channels_have_their_taps_together_where_borders_are_long(monkeypatch):
    def together(line):
        return plan(parse(line), "float32", monkeypatch)._blocking.together

    assert together("n4c13k17s3p1w500") == 1  # near
    assert together("n4c2k17s9d64p256w500") == 1  # fewer channels than a call can have taps
    assert together("n4c13k17s3d512p512w5000") == 1  # more than L1 holds
    far = plan(parse("n4c13k17s3d64p64w500"), "float32", monkeypatch)
    assert far._blocking.together > 1
    # One range for all taps of a call.
    assert all(call[3] == call[4] and call[5] == call[6] for call in far._program.calls)


def test_what_is_listed_together_stays_in_l1(monkeypatch):
    """The rows of the batch that a call reduces over are so many that all it reads is there."""
    found = plan(parse("n9c8k160s16d4w479pl30pr30"), "float32", monkeypatch)
    bl = found._blocking
    assert bl.together > 1
    assert (max(bl.parts) + bl.together) * bl.tile * bl.nb * 4 <= found._machine.l1_bytes


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("n4c8k8s7w5000", True),
        ("n4c64k6s7w5000", True),
        ("n4c64k8s7w5000", False),  # accumulators enough
        ("n4c8k8s7w150", False),  # few positions for a sum
    ],
)
def test_few_rows_without_masks(line, rows):
    """Kernels for AVX2 have twelve accumulators at most, and few rows give them fewer."""
    found = dataclasses.replace(_plan.machine("float32"), vector_bytes=32, halved=False)
    p = parse(line)
    lanes = "grad_out" if p.K > p.C else "x"
    assert rows_are_better(p, lanes, 4, 4, found) == rows


def test_describe():
    text = xsmmconv.plan("backward_weight", (4, 20, 2001), (30, 20, 3), stride=2).describe()
    for words in (
        "dot products of rows: 30 in calls of",
        "rows that are read with a stride are copied",
        "routines",
        "    rows 0 to ",
    ):
        assert words in text
    if _plan.machine("bfloat16").bf16:
        shapes = (4, 20, 2001), (30, 20, 3)
        text = xsmmconv.plan("backward_weight", *shapes, dtype=BFLOAT16).describe()
        assert "k = 2 positions of BF16" in text
