"""Strides: elements of a row that are collected, phases of short rows, columns no tap reaches."""

import guarded
import numpy as np
import problems
import pytest
from problems import BACKWARD_DATA, BACKWARD_WEIGHT, FORWARD, TRANSPOSED

import xsmmconv
from xsmmconv import reference
from xsmmconv._blocking import CorrelateBlocking
from xsmmconv._text import parse

every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)


def check(line, operation, dtype, **options):
    problem = parse(line)
    first, second, bias = problems.integer_operands(problem, operation, dtype)
    exact = problems.call(reference, operation, problem, first, second)
    if operation.takes_bias:
        options["bias"] = bias
    expected = problems.rounded(problems.finish(exact, **options), dtype)
    for place in "begin", "end":  # of the memory that may be read
        a, b = guarded.guarded(first, place), guarded.guarded(second, place)
        out = guarded.guarded(np.full(expected.shape, np.nan, dtype), place)
        problems.call(xsmmconv, operation, problem, a, b, out=out, **options)
        problems.assert_equal(out, expected, line, operation, place)


@pytest.mark.parametrize("step", [*range(2, 10), 12, 13, 40])
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_WEIGHT], ids=str)
@every_dtype
def test_every_step_th_element(step, operation, dtype):
    """Up to the last one, behind which nothing may be read; of rows that fill vectors or do not."""
    for count in 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65, 130, 300:
        check(f"n2c3k2s1st{step}w{(count - 1) * step + 1}", operation, dtype)
    for count in 5, 33, 64:  # transposed
        check(f"n3c33k36s1st{step}w{(count - 1) * step + 1}", operation, dtype)
        check(f"n1c80k64s3st{step}p1w{count * step}", operation, dtype)


@pytest.mark.parametrize("step", [2, 3, 4, 5, 7, 8, 16])
@pytest.mark.parametrize("operation", [BACKWARD_DATA, TRANSPOSED], ids=str)
@every_dtype
def test_columns_that_no_tap_reaches(step, operation, dtype):
    """They are exact zeros, or the bias; those of short rows with filters in the lanes, too."""
    for width in 1, 3, step + 1, 5 * step + 2, 40 * step, 700:
        for taps in 1, 2, min(3, step):
            for padding in 0, 1:
                shape = f"s{taps}st{step}pl{padding}pr{step}w{width}"
                check("n2c5k7" + shape, operation, dtype)
                check("n6c36k20" + shape, operation, dtype)


@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA, TRANSPOSED], ids=str)
@pytest.mark.parametrize(
    "line",
    [
        "n37c20k33s5p2w3",  # a batch that only 37 divides
        "n12c33k20s9p8w4",  # most taps read padding
        "n11c36k34s25p12w12",
        "n16c24k18s31st3p20w17",
        "n9c40k36s7d4p12w13",
        "n8c17k1s3st4w11",  # few filters
        "n13c40k3s5st2p2w9",
        "n10c3k40s4w6",  # few channels
        "n8c2k90s7p3w5",
        "n9c12k10s3g2st3w8",
    ],
)
@every_dtype
def test_short_rows(line, operation, dtype):
    check(line, operation, dtype)
    if operation.takes_bias:
        check(line, operation, dtype, activation="relu")


def reasons(line, operation, dtype="float32"):
    found = problems.plan(line, operation, dtype)
    assert isinstance(found._blocking, CorrelateBlocking)
    return " ".join(found._blocking.reasons)


@pytest.mark.parametrize(
    ("line", "operation", "expected"),
    [
        ("n16c64k64s3st2p1w32", BACKWARD_DATA, "2 phases: all of them, then whole rows"),
        ("n16c64k64s2st5w43", BACKWARD_DATA, "5 phases: all of them, then whole rows"),
        ("n2c32k32s2st4w9000", BACKWARD_DATA, "4 phases: a chunk of them, then whole rows"),
        ("n32c320k14s2st2w4", FORWARD, "rows of 2 columns: filters in the lanes"),
        ("n32c64k1s3st4w12", FORWARD, "rows of 3 columns: filters in the lanes"),
        ("n32c64k4s3w40", FORWARD, "3 taps of 64 channels are read in place"),
        ("n4c64k3s3w400", FORWARD, "lists over taps"),  # three filters wait for memory
    ],
)
def test_which_plans(line, operation, expected):
    assert expected in reasons(line, operation)


def test_taps_that_read_padding_are_left_to_the_batch():
    found = problems.plan("n30c512k48s51w59", BACKWARD_DATA, "float32")
    assert found._blocking.nb == 30
    assert found._blocking.border == 1
    calls = [call for call in found._program.calls if call[2]]
    assert len(calls) == 59  # one for each column, with the taps that reach it
    assert {call[-1] for call in calls} == set(range(1, 10))
    assert found.issued_multiply_adds() == found.multiply_adds


@every_dtype
def test_windows_of_far_taps_that_runs_share(dtype):
    """Rows that are filtered from a panel: what the taps of a run read is equally far apart there,
    though another run's taps lie beside some of them."""
    problem = parse("n1c2k2s37st3d7pl155pr181g2w6")
    first, second, _ = problems.integer_operands(problem, BACKWARD_DATA, dtype)
    exact = problems.call(reference, BACKWARD_DATA, problem, first, second)
    apart = np.asfortranarray(first)
    got = problems.call(xsmmconv, BACKWARD_DATA, problem, apart, second)
    problems.assert_equal(got, problems.rounded(exact, dtype), problem)


def test_planes_in_any_order_are_copied_together():
    """Eight taps, three columns apart, read all planes of a stride of eight: a matrix of these."""
    found = problems.plan("n2c8k8s8st8d3w9000", FORWARD, "float32")
    windows = found._program.source.windows
    assert [w.plane for w in windows] == list(range(8))
    assert len({(w.shift, w.width) for w in windows}) == 1
    found = problems.plan("n2c8k8s2st8d4w9000", FORWARD, "float32")  # few of them are not
    assert [w.plane for w in found._program.source.windows] == [0, 4]


@pytest.mark.parametrize(
    "line", ["n2c8k8s8st8d3w3000", "n2c6k8s5st8d3p7w2500", "n1c5k7s4st5d7w4001"]
)
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_WEIGHT], ids=str)
@every_dtype
def test_planes_in_any_order(line, operation, dtype):
    check(line, operation, dtype)
