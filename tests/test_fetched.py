"""What a chunk fetches for the next one: when it does, and that nothing else depends on it."""

import dataclasses

import numpy as np
import problems
import pytest
from problems import BACKWARD_DATA, BACKWARD_WEIGHT, FORWARD

from xsmmconv import _blocking_correlate, reference


def plan(line, pass_="forward", amd=True):
    return problems.plan(line, pass_, "float32", amd=amd, l2_bytes=2**20)


@pytest.mark.parametrize(
    ("line", "fetched"),
    [
        ("n1c64k64s5p2w16384", True),  # rows that collide, and have a panel
        ("n1c64k64s5p2w256", False),  # in L2 anyway
        ("n1c64k64s3d3000w16384", False),  # a window for each tap
        ("n512c64k64s3w20", False),  # filters in the lanes, rows of the batch together
        ("n1c4096k32s3w16384", False),  # no room beside the panel
        ("n4c15k15s51d8w60400", False),  # read in place
    ],
)
def test_what_the_next_chunk_copies(line, fetched):
    found = plan(line)
    assert found._blocking.fetched == fetched
    assert ("what the next chunk copies is fetched" in found.describe()) == fetched


@pytest.mark.parametrize(
    ("line", "fetched"),
    [
        ("n1c32k64s4st2p1w25600", True),
        ("n1c32k64s4st2p1w256", False),  # in L2 anyway
        ("n1c32k64s4w25600", False),  # a single phase
    ],
)
def test_rows_of_all_phases(line, fetched):
    assert plan(line, "backward_data")._blocking.rows_fetched == fetched


def test_only_where_it_gains():
    for line, pass_ in (
        ("n1c64k64s5p2w16384", "forward"),
        ("n1c32k64s4st2p1w25600", "backward_data"),
    ):
        blocking = plan(line, pass_, amd=False)._blocking
        assert not blocking.fetched
        assert not blocking.rows_fetched


@pytest.mark.parametrize(
    ("line", "fetched"),
    [
        ("n4c64k64s5w5004", True),
        ("n4c64k64s5st2w5004", True),
        ("n1c64k64s5w504", False),  # in L2 anyway
        ("n4c15k15s5w5004", True),  # dot products of rows
        ("n1c15k15s5w5004", False),
    ],
)
def test_what_the_next_tile_of_a_weight_gradient_reads(line, fetched):
    found = plan(line, "backward_weight")
    assert found._blocking.fetched == fetched
    assert ("fetched meanwhile" in found.describe()) == fetched


@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA], ids=str)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_no_bit_depends_on_whether_rows_are_copied(problem, operation, dtype):
    """Also where caches are small, and what is copied is fetched: a kernel for fewer columns may
    add in another order."""
    first, second = problems.real_operands(problem, operation, dtype)[:2]
    for l2_bytes in 2**14, 2**17:
        machine, results = {"amd": True, "l2_bytes": l2_bytes}, []
        for in_place in True, False:
            found = problems.plan(problem, operation, dtype, in_place=in_place, **machine)
            results.append(np.full(found.output_shape, np.nan if problem.N else 0, dtype))
            found.run(first, second, None, False, results[-1], 1)
        problems.assert_bitwise_equal(*results, problem, operation, l2_bytes)


@pytest.mark.every(2)
@pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA], ids=str)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_nothing_depends_on_it(problem, operation, dtype, monkeypatch):
    """Wherever there is a panel, or phases; beyond the last row and column, and where no tap
    reaches."""

    def fetched(sh, m, blocking):
        rows = blocking.interleaved
        return dataclasses.replace(blocking, fetched=blocking.packed, rows_fetched=rows)

    monkeypatch.setattr(_blocking_correlate, "_fetched", fetched)
    found = problems.plan(problem, operation, dtype)
    first, second = problems.integer_operands(problem, operation, dtype)[:2]
    exact = problems.call(reference, operation, problem, first, second)
    for threads in 1, 3:
        out = np.full(found.output_shape, np.nan if problem.N else 0, dtype)
        issued = found.run(first, second, None, False, out, threads)
        problems.assert_equal(out, problems.rounded(exact, dtype), problem, operation, threads)
        assert issued == found.multiply_adds


@pytest.mark.every(2)
@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
def test_weight_gradients_on_smaller_machines(problem, dtype):
    """Tiles of a few positions, of which each fetches what the next one reads."""
    operands = problems.integer_operands(problem, BACKWARD_WEIGHT, dtype)[:2]
    exact = problems.call(reference, BACKWARD_WEIGHT, problem, *operands)
    for l2_bytes in 2**14, 2**17:
        machine = {"amd": True, "l2_bytes": l2_bytes}
        for in_place in True, False:
            found = problems.plan(problem, BACKWARD_WEIGHT, dtype, in_place=in_place, **machine)
            got = np.full(found.output_shape, np.nan, dtype)
            issued = found.run(*operands, None, False, got, 1)
            if problem.N:  # else nobody computes
                problems.assert_equal(got, problems.rounded(exact, dtype), problem, l2_bytes)
                assert issued == found.multiply_adds
