"""BF16 multiplied in pairs, as on a processor with AVX512_BF16.

Elsewhere LIBXSMM emulates these kernels, so plans for such a processor can be tested on every one
that has AVX-512.
"""

import os
import subprocess
import sys

import numpy as np
import problems
import pytest
from problems import BFLOAT16, PASSES

from xsmmconv import _dispatch, _plan, _row_lengths, reference
from xsmmconv._blocking_filter import FilterBlocking
from xsmmconv._blocking_fold import FoldBlocking
from xsmmconv._blocking_rows import RowBlocking
from xsmmconv._text import parse

pytestmark = pytest.mark.skipif(
    _dispatch.vector_bytes() < 64, reason="BF16 kernels need AVX-512, also where they are emulated"
)
every_pass = pytest.mark.parametrize("pass_", PASSES)


def plan(problem, pass_):
    return problems.plan(problem, pass_, BFLOAT16, bf16=True)


def run(found, first, second, bias=None, relu=False, dtype=BFLOAT16, threads=1):
    # An empty batch is answered before there is a plan.
    out = np.full(found.output_shape, np.nan if found.problem.N else 0, dtype)
    issued = found.run(first, second, bias, relu, out, threads)
    return out, issued


def in_pairs(found):
    if isinstance(found._blocking, RowBlocking | FilterBlocking):
        return found._blocking.pairs
    return any(kernel[0] == "bfloat16" for kernel in found._program.kernels)


@every_pass
def test_exact_and_nothing_superfluous(problem, pass_):
    operation, found = PASSES[pass_], plan(problem, pass_)
    first, second, bias = problems.integer_operands(problem, operation, BFLOAT16)
    exact = problems.call(reference, operation, problem, first, second)
    got, issued = run(found, first, second)
    problems.assert_equal(got, problems.rounded(exact, BFLOAT16), problem, operation)
    assert issued == found.multiply_adds
    for threads in (2, 3):
        again, _ = run(found, first, second, threads=threads)
        problems.assert_bitwise_equal(again, got, problem, operation, threads)
    if operation.takes_bias:
        bias = bias.astype(np.float32)
        got, _ = run(found, first, second, bias, relu=True)
        expected = problems.rounded(problems.finish(exact, bias, "relu"), BFLOAT16)
        problems.assert_equal(got, expected, problem, operation, "bias, relu")
    elif pass_ == "backward_weight":
        got, _ = run(found, first, second, dtype=np.dtype(np.float32))
        problems.assert_equal(got, exact.astype(np.float32), problem, operation, "float32")


@pytest.mark.every(4)
@every_pass
def test_probes(problem, pass_):
    """The missing half of a pair is no zero times a neighbour, which could be Inf or NaN."""
    operation, found = PASSES[pass_], plan(problem, pass_)
    operands = problems.integer_operands(problem, operation, BFLOAT16)[:2]
    for which in (0, 1):
        for column in sorted({0, operands[which].shape[-1] - 1}):
            probed = [operand.copy() for operand in operands]
            probed[which][..., column] = np.inf
            probed[which][:1, -1:, column] = np.nan
            with np.errstate(invalid="ignore"):
                exact = problems.call(reference, operation, problem, *probed)
            got, _ = run(found, *probed)
            expected = problems.rounded(exact, BFLOAT16)
            problems.assert_equal(got, expected, problem, operation, which, column)


@pytest.mark.every(4)
@every_pass
def test_within_the_bound(problem, pass_):
    operation, found = PASSES[pass_], plan(problem, pass_)
    first, second, _ = problems.real_operands(problem, operation, BFLOAT16)
    exact = problems.call(reference, operation, problem, first, second)
    sizes = problems.call(reference, operation, problem, abs(first), abs(second))
    terms = problems.terms(problem, operation)
    bound = reference.error_bound(exact, sizes, terms, BFLOAT16)
    got, _ = run(found, first, second)
    problems.assert_within(got, exact, bound, problem, operation)


@pytest.mark.parametrize(
    "line",
    [
        "n1c96k70s3w200",  # blocks of 32 channels, and six more
        "n1c70k97s3w200",  # an odd number of them
        "n2c64k1100s1w150",  # two blocks of a list's channels
        "n1c48k64s5g2w200",
        "n1c40k66s7st3w300",  # taps of three phases
        "n1c40k33s4st7p2w300",  # and some that reach nothing
        "n1c2k64s40w400",
    ],
)
@pytest.mark.parametrize("pass_", ["forward", "backward_data"])
def test_many_channels(line, pass_):
    """Weights are packed by whole lines, and what is left by pieces, wherever they lie."""
    problem, operation = problems._text.parse(line), problems.PASSES[pass_]
    found = plan(problem, pass_)
    first, weight = problems.integer_operands(problem, operation, BFLOAT16)[:2]
    exact = problems.call(reference, operation, problem, first, weight)
    for same in weight, np.repeat(weight, 2, axis=2)[..., ::2], np.asfortranarray(weight):
        for threads in 1, 2:
            got, issued = run(found, first, same, threads=threads)
            problems.assert_equal(got, problems.rounded(exact, BFLOAT16), line, pass_)
            assert issued == found.multiply_adds


def test_the_corpus_has_problems_for_them():
    for pass_ in PASSES:
        assert sum(in_pairs(plan(problem, pass_)) for problem in problems.CORPUS[::5]) > 5


@pytest.mark.parametrize(
    ("line", "pass_", "pairs_of"),
    [
        ("n2c1k15s51d8w900", "forward", "2 taps of BF16"),
        ("n2c3k4s7st2p3w900", "forward", "3 channels, in pairs"),
        ("n2c3k40s17w900", "forward", "2 taps of BF16"),
        ("n2c5k15s51d8w900", "forward", "2 taps of BF16"),
        ("n2c5k15s51d8p200w300", "forward", "5 channels, in pairs"),  # no tap has whole rows
        ("n2c15k15s51d8w900", "forward", "15 channels, in pairs"),
        ("n2c15k1s51d8w900", "backward_data", "2 taps of BF16"),
        ("n2c15k1s51d8w1500", "forward", "51 taps in 3 parts"),
        ("n2c1k16s50d3p70w1500", "backward_data", "50 taps in 2 parts"),
        ("n4c64k64s5w20", "forward", "filters in the lanes"),
        ("n2c3k32s51d8w900", "backward_weight", "n = taps"),
        ("n2c6k48s26w900", "backward_weight", "n = taps"),
        ("n2c6k48s26st2w900", "backward_weight", "n = channels"),  # few positions of a plane
        ("n2c64k64s3w900", "backward_weight", "n = channels"),
    ],
)
def test_what_is_multiplied_in_pairs(line, pass_, pairs_of):
    found = plan(line, pass_)
    reasons = " ".join(found._blocking.reasons)
    assert in_pairs(found)
    assert pairs_of in reasons


@pytest.mark.parametrize(
    ("line", "pass_", "rounding"),
    [
        ("n2c16k16s5w900", "forward", True),
        ("n2c1k16s5w900", "forward", True),
        ("n2c16k16s5w900", "backward_data", True),
        ("n2c16k16s5st2w900", "backward_data", False),  # every other column
    ],
)
def test_kernels_round_whole_rows(line, pass_, rounding, monkeypatch):
    monkeypatch.setattr(_plan, "may_depend_on", lambda length: True)
    kinds = {kernel[0] for kernel in plan(line, pass_)._program.kernels}
    assert ("bfloat16 rounded" in kinds) == rounding


@pytest.mark.parametrize(
    ("line", "kind", "lanes"),
    [
        ("n16c7k64s9p4w30", "bfloat16", "filters"),
        ("n16c7k64s15p7w60", "bfloat16", "filters"),  # borders; half of the last pair is empty
        ("n16c7k64s15w114", "bfloat16", "columns"),  # pairs of taps
        ("n16c100k1s3w30", "bfloat16", "columns"),
        ("n16c100k1s3w4", "float32", "filters"),  # two columns
    ],
)
def test_short_rows_are_multiplied_in_pairs(line, kind, lanes):
    found = plan(line, "forward")
    kinds = {kernel[0].removesuffix(" rounded") for kernel in found._program.kernels}
    assert (kinds, found._blocking.lanes) == ({kind}, lanes)


@pytest.mark.parametrize(("line", "folds"), [("n16c2k256s3w18", True), ("n16c2k256s3w8", False)])
def test_columns_are_folded_unless_they_are_so_few_that_channels_are_lanes(line, folds):
    assert isinstance(plan(line, "backward_data")._blocking, FoldBlocking) == folds


@pytest.mark.parametrize(
    ("line", "wide"),
    [
        ("n1c1k15s51d8w3400", True),  # a vector of a single filter is one accumulator
        ("n1c32k32s51d8w3400", True),  # few calls for some of the taps
        ("n1c32k32s51d2w3400", False),
    ],
)
def test_borders_are_wide(line, wide):
    found = plan(line, "backward_data")
    widths = [width for _, width, count, _ in found._program.segments if count == 1]
    assert (max(widths[:5]) >= 64) == wide


def test_tiles_of_weight_gradients_with_far_taps_are_several_steps():
    found = plan("n1c256k256s3d512p512w16000", "backward_weight")
    assert found._blocking.tile >= 2 * found._blocking.step


@pytest.mark.parametrize(
    ("line", "single"),
    [
        ("n4c128k128s3p1w300", 2),  # the second position of the first tap, the last but one's
        ("n1c256k512s16st8p4w800", 8),  # four taps lack the first position, four the last
        ("n4c64k64s51d8p200w1000", 0),  # all begin and end with even ones
    ],
)
def test_borders_of_weight_gradients_are_multiplied_in_pairs(line, single):
    """What a tap leaves over at either end is a position in FP32."""
    program = plan(line, "backward_weight")._program
    widths = {width for _, _, width, _, tile in program.segments if not program.tiles[tile][3]}
    assert widths <= {1}
    assert sum(calls for _, calls, _, pairs, *_ in program.tiles if not pairs) == single


def test_rows_that_some_taps_use_wholly_are_few_segments():
    """However long they are."""
    found = plan("n1c64k64s9d100001p400004w1000001", "backward_weight")
    assert len(found._program.segments) < 100


@pytest.mark.parametrize(
    ("line", "in_place"),
    [
        ("n2c64k64s3p1w700", True),
        ("n2c48k64s5d2w502", True),
        ("n1c256k256s3d130p130w3000", True),
        ("n9c48k32s3w30", True),
        ("n2c64k64s3p1w701", False),  # pairs from row to row
        ("n2c128k128s3w4098", False),  # rows collide
        ("n2c64k64s3st2w700", False),
        ("n2c7k16s51d3p75w701", "taps"),  # one row at a time, of any length
    ],
)
def test_weight_gradients_read_rows_in_place(line, in_place, monkeypatch):
    """What is odd, and borders, are widened in a panel. No bit depends on it."""
    problem, results = problems._text.parse(line), []
    first, second, _ = problems.real_operands(problem, problems.BACKWARD_WEIGHT, BFLOAT16)
    for lengths in (10**6, 0):
        monkeypatch.setattr(_row_lengths, "MOST", lengths)
        monkeypatch.setattr(_row_lengths, "seen", set())
        found = plan(problem, "backward_weight")
        assert found._blocking.packed == (not in_place or (in_place is True and not lengths))
        results += [run(found, first, second)[0], run(found, first, second, threads=3)[0]]
    spread = np.repeat(second, 2, axis=2)[..., ::2]  # and rows that cannot be read in place
    results.append(run(found, first, spread)[0])
    for other in results[1:]:
        problems.assert_bitwise_equal(other, results[0], problem)


@pytest.mark.parametrize(
    "line", ["n2c1k15s51d7w900", "n3c2k5s6d3p4w300", "n2c9k7s5p1w83", "n8c33k40s5p2w21"]
)
def test_a_bias_is_added_before_rounding(line):
    """Kernels round and store results themselves only if nothing comes after that."""
    problem = problems._text.parse(line)
    found = plan(problem, "forward")
    first, second, _ = problems.real_operands(problem, problems.FORWARD, BFLOAT16)
    bias = np.linspace(-3, 5, problem.K, dtype=np.float32)
    with_zero, _ = run(found, first, second, np.zeros(problem.K, np.float32))
    without, _ = run(found, first, second)
    problems.assert_bitwise_equal(with_zero, without, problem, "rounded by a kernel or afterwards")
    exact = problems.call(reference, problems.FORWARD, problem, first, second)
    got, _ = run(found, first, second, bias)
    sizes = problems.call(reference, problems.FORWARD, problem, abs(first), abs(second))
    terms = problems.terms(problem, problems.FORWARD)
    bound = reference.error_bound(
        exact + bias[:, None], sizes + abs(bias[:, None]), terms + 1, BFLOAT16
    )
    problems.assert_within(got, exact + bias[:, None], bound, problem)


@pytest.mark.parametrize(("k", "ldb"), [(7, 8), (8, 7)])
def test_an_odd_extent_is_refused(k, ldb):
    with pytest.raises(ValueError, match=f"k={k} and ldb={ldb} should be even"):
        _dispatch.dispatch_gemm(16, 2, k, 16, ldb, 16, "bfloat16")


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="not 'int8'"):
        _dispatch.dispatch_gemm(16, 2, 8, 16, 8, 16, "int8")


def test_a_strided_operand_is_packed_too():
    problem = problems._text.parse("n2c9k7s5d2p4w83")
    for pass_, operation in PASSES.items():
        found = plan(problem, pass_)
        first, second, _ = problems.integer_operands(problem, operation, BFLOAT16)
        wide = np.repeat(first, 3, axis=2)[:, ::-1, ::3], np.repeat(second, 2, axis=2)[..., ::2]
        exact = problems.call(reference, operation, problem, *wide)
        got, _ = run(found, *wide)
        problems.assert_equal(got, problems.rounded(exact, BFLOAT16), operation)


def test_native_kernels_can_be_generated():
    """For a processor that has them; here they are only made, not run."""
    program = """
from xsmmconv import _dispatch, _plan, _problem
_dispatch.require_supported = lambda: None  # this processor need not have BF16
problem = _problem.ConvProblem(2, 32, 64, 5, 300, 292, 1, 2, 0, 0, 1, "bfloat16")
for pass_ in _problem.PASSES:
    print(sorted({kernel[0] for kernel in _plan.Plan(pass_, problem)._program.kernels}))
"""
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"LIBXSMM_TARGET": "cpx", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.stdout.count("'bfloat16'") == 3, child.stdout + child.stderr


@pytest.mark.parametrize(("C", "S", "packed"), [(64, 1, False), (63, 1, True), (64, 3, True)])
def test_weights_of_one_tap_are_pairs_as_they_lie(C, S, packed):
    problem = parse(f"n1c{C}k64s{S}w900")
    found = plan(problem, "forward")
    assert found._program.weight.packed == packed
    assert (found.engine.shared_bytes > 0) == packed
    x, weight = problems.integer_operands(problem, problems.FORWARD, BFLOAT16)[:2]
    exact = problems.call(reference, problems.FORWARD, problem, x, weight)
    problems.assert_equal(run(found, x, weight)[0], problems.rounded(exact, BFLOAT16), problem)
