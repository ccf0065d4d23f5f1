"""One or two filters, whose taps are taken as more filters with fewer taps each."""

import numpy as np
import problems
import pytest
from problems import BACKWARD_DATA, FORWARD

import xsmmconv
from xsmmconv import reference
from xsmmconv._text import parse

every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)

# Numbers of taps that are equal parts and others, rows that end anywhere, borders, groups, another
# row of the batch; dilations whose parts lie in other vectors.
LINES = [
    f"n{n}c{channels * g}k{filters * g}s{taps}{dilation}{padding}g{g}w{width}"
    for filters in (1, 2)
    for n, channels, g, taps, dilation, padding, width in (
        (1, 17, 1, 15, "", "", 1100),
        (2, 15, 1, 17, "d3", "psame", 1407),
        (1, 33, 2, 16, "", "pl3pr14", 2049),
        (1, 8, 1, 51, "d8", "", 5003),
        (1, 5, 1, 40, "d2", "psame", 4300),
        (1, 70, 1, 13, "d7", "p20", 1300),
    )
]


# Phases of a gradient that are filters, too: one channel, or its taps, is then two columns.
MERGED = ["n2c1k14s58st2pr46w1270", "n4c1k9s42st2pr44w1756", "n1c1k24s30st2w1600"]


def mirrored(line):
    """The problem whose backward data has so few filters: channels and filters change places."""
    p = parse(line)
    padding = f"pl{p.d * (p.S - 1) - p.pl}pr{p.d * (p.S - 1) - p.pr}" if p.pl + p.pr else ""
    return f"n{p.N}c{p.K}k{p.C}s{p.S}d{p.d}{padding}g{p.g}w{p.W}"


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA], ids=str)
@every_dtype
def test_exact(line, operation, dtype):
    line = line if operation is FORWARD else mirrored(line)
    problem, found = parse(line), problems.plan(line, operation, dtype)
    parts = found._blocking.split
    two = 2 * problem.g in (problem.C, problem.K)
    whole = two and found._machine.vector_bytes < 64  # two filters are not split with AVX2
    assert (parts > 1) != whole, found.describe()
    assert whole or f"taps in {parts} parts, added up at the end" in found.describe()
    first, second, bias = problems.integer_operands(problem, operation, dtype)
    exact = problems.call(reference, operation, problem, first, second)
    for threads in 1, 3:
        out = np.full(found.output_shape, np.nan, dtype)
        issued = found.run(first, second, None, False, out, threads)
        problems.assert_equal(out, problems.rounded(exact, dtype), line, operation, threads)
        assert found.multiply_adds <= issued
        assert issued == found.multiply_adds or dtype == problems.BFLOAT16
    if operation is FORWARD:
        options = {"bias": bias, "activation": "relu"}
        got = problems.call(xsmmconv, operation, problem, first, second, **options)
        exact = problems.call(reference, operation, problem, first, second, **options)
        problems.assert_equal(got, problems.rounded(exact, dtype), line)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("n1c16k1s15w2000", 3),
        ("n1c16k1s14w2000", 2),
        ("n1c16k2s15w2000", 3),
        ("n1c16k2s12w2000", 2),
        ("n1c16k3s15w2000", 1),
        ("n1c8k2s15w2000", 1),  # too little to add up
        ("n1c16k2s15w400", 1),  # short rows
        ("n1c16k2s15st2w2000", 1),
    ],
)
def test_when_taps_are_split(line, parts):
    found = problems.plan(line, FORWARD, "float32", vector_bytes=64)
    assert found._blocking.split == parts


@pytest.mark.parametrize("line", ["n1c128k2s25d8w9000", "n1c64k1s51w60000"])
@every_dtype
def test_scratch_of_many_channels(line, dtype):
    found = problems.plan(line, FORWARD, dtype, in_place=False, vector_bytes=64, l2_bytes=2**20)
    assert found._blocking.split > 1
    assert found.engine.scratch_bytes <= 2**20


@pytest.mark.parametrize("line", MERGED)
@every_dtype
def test_phases_that_are_filters_are_not_split(line, dtype):
    problem, found = parse(line), problems.plan(line, BACKWARD_DATA, dtype)
    assert "2 phases are filters, too" in found.describe() or dtype == problems.BFLOAT16
    first, second, _ = problems.integer_operands(problem, BACKWARD_DATA, dtype)
    exact = problems.call(reference, BACKWARD_DATA, problem, first, second)
    got = problems.call(xsmmconv, BACKWARD_DATA, problem, first, second)
    problems.assert_equal(got, problems.rounded(exact, dtype), line)


@pytest.mark.parametrize("line", LINES)
def test_no_bit_depends_on_where_operands_lie(line):
    problem = parse(line)
    for dtype in problems.DTYPES:
        x, weight, _ = problems.real_operands(problem, FORWARD, dtype)
        expected = problems.call(xsmmconv, FORWARD, problem, x, weight, threads=1)
        for other in (np.repeat(x, 2, 2)[..., ::2], x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]):
            got = problems.call(xsmmconv, FORWARD, problem, other, weight, threads=2)
            problems.assert_bitwise_equal(got, expected, line, dtype)
        layer = xsmmconv.Conv1d(weight, **problem.parameters)
        problems.assert_bitwise_equal(layer(x), expected, line, dtype)
