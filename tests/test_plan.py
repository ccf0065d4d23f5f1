"""Plans: what they may depend on, and what must stay bounded."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import problems
import pytest

import xsmmconv
from xsmmconv import _dispatch, _geometry, _layout, _lower_correlate, _plan, _row_lengths, reference
from xsmmconv._blocking_weight import lanes_from
from xsmmconv._problem import PASSES
from xsmmconv._text import parse
from xsmmconv.bench import suites

LINES = [
    "n1c1k15s51d8psamew3000",
    "n1c4k64s15psamew2000",
    "n1c15k15s51d8psamew1500",
    "n1c2k3s5psamew4000",
    "n1c64k64s5psamew700",
    "n2c3k2s3st2w77",
    "n3c16k16s3p1w64",
    "n3c32k32s3w66",
    "n2c32k48s3w50",
    "n4c16k16s3w34",
    "n2c64k64s1w44",
    "n2c64k64s1w300",
    "n2c16k48s1w3000",
    "n2c24k20s5psamew700",
    "n2c32k48s1psamew333",
    "n2c64k64s3st2w64",
]


def arrays(line, pass_):
    p = parse(line)
    rng = np.random.default_rng(0)
    x, weight, y = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in (p.x_shape, p.weight_shape, p.y_shape)
    )
    plan = xsmmconv.plan(pass_, p.x_shape, p.weight_shape, **p.parameters)
    return plan.problem, (x if pass_ == "forward" else y), weight


@pytest.mark.parametrize("pass_", ["forward", "backward_data"])
@pytest.mark.parametrize("line", LINES)
def test_the_rows_seen_before_change_no_bit(line, pass_, monkeypatch):
    problem, a, weight = arrays(line, pass_)
    results = []
    for lengths in (10**6, 0):  # any row may be written in place; none may
        monkeypatch.setattr(_row_lengths, "MOST", lengths)
        monkeypatch.setattr(_row_lengths, "seen", set())
        plan = _plan.Plan(pass_, problem)
        out = np.full(plan.output_shape, np.nan, np.float32)
        plan.run(a, weight, None, False, out, 1)
        results.append((plan.describe(), out))
    np.testing.assert_array_equal(results[0][1], results[1][1])
    in_place = ["rows written in place" in text for text, _ in results]
    strided = pass_ == "backward_data" and problem.s > 1
    assert in_place == [not strided and "filters in the lanes" not in results[0][0], False]


@pytest.mark.parametrize(
    "line",
    [
        "n2c16k16s9w700",
        "n4c16k16s15d8w1000",
        "n2c16k16s21d8w1500",
        "n2c32k32s31d8w1500",
        "n2c64k64s5p2w500",
        "n1c300k32s1w1500",
        "n1c64k48s3d128p128w3000",
        "n3c128k128s3g2w333",
        "n2c128k96s1w700",
        "n24c300k300s1w10",
        "n2c1k48s16st8w1500",
    ],
)
def test_the_rows_seen_before_change_no_bit_of_a_weight_gradient(line, monkeypatch):
    problem, y, _ = arrays(line, "backward_weight")
    _, x, _ = arrays(line, "forward")
    results, machine = [], dataclasses.replace(_plan.machine("float32"), halved=True)
    for lengths in (10**6, 0):
        monkeypatch.setattr(_row_lengths, "MOST", lengths)
        monkeypatch.setattr(_row_lengths, "seen", set())
        plan = _plan.Plan("backward_weight", problem, found=machine)
        out = np.full(plan.output_shape, np.nan, np.float32)
        plan.run(y, x, None, False, out, 1)
        results.append((plan.describe(), out))
    np.testing.assert_array_equal(results[0][1], results[1][1])
    # Where the columns of a call are taps, kernels do not depend on the length.
    any_length = "n = taps" in results[0][0]
    assert [", packed False" in text for text, _ in results] == [True, any_length]


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("line", LINES)
def test_without_overlapping_operands(line, pass_):
    """What a foreign copy of LIBXSMM allows."""
    problem, operation = parse(line), problems.PASSES[pass_]
    dtype = np.dtype(np.float32)
    planned = xsmmconv.plan(pass_, problem.x_shape, problem.weight_shape, **problem.parameters)
    machine = dataclasses.replace(_plan.machine("float32"), overlap=False)
    plan = _plan.Plan(pass_, planned.problem, found=machine)
    first, second, _ = problems.integer_operands(problem, operation, dtype)
    out = problems.nan_filled(problem, operation, dtype)
    assert plan.run(first, second, None, False, out, 1) == plan.multiply_adds
    expected = problems.call(reference, operation, problem, first, second)
    problems.assert_equal(out, expected.astype(dtype), line, pass_)


def test_no_rows_are_no_work():
    assert xsmmconv.plan("forward", (0, 2, 9), (3, 2, 3)).issued_multiply_adds() == 0


def test_kernels_and_plans_stay_bounded_over_many_widths():
    weight = np.ones((5, 4, 9), np.float32)

    def call_all(widths):
        for width in widths:
            x = np.ones((4, width), np.float32)
            y = xsmmconv.conv1d(x, weight, dilation=2, padding="same")
            xsmmconv.conv1d_backward_data(y, weight, width, dilation=2, padding="same")
            xsmmconv.conv1d_backward_weight(y, x, 9, dilation=2, padding="same")
        return _dispatch.registry_info()["kernels"]

    # By then the row lengths that kernels may depend on are used up.
    first = call_all(range(400, 1000))
    assert call_all(range(1000, 1600)) - first < 300
    cached, most = _plan.cache_info()
    assert cached <= most


@pytest.mark.parametrize("channels", [8, 15])
def test_kernels_stay_bounded_where_taps_are_split(channels):
    weight = np.ones((1, channels, 12), np.float32)
    before = _dispatch.registry_info()["kernels"]
    for width in range(1000, 4000, 7):
        xsmmconv.conv1d(np.ones((channels, width), np.float32), weight)
    assert _dispatch.registry_info()["kernels"] - before < 300


def test_kernels_stay_bounded_where_weight_gradients_read_rows_in_place():
    def call_all(widths):
        for width in widths:
            x, y = np.ones((16, width + 2), np.float32), np.ones((16, width), np.float32)
            xsmmconv.conv1d_backward_weight(y, x, 3)
        return _dispatch.registry_info()["kernels"]

    first = call_all(range(400, 1100))
    assert call_all(range(1100, 1600)) - first < 100


def test_rows_that_are_too_far_apart_for_a_kernel_are_copied(monkeypatch):
    """Its displacements are 32 bits wide; until then rows may be read where they lie."""
    monkeypatch.setattr(_plan, "may_depend_on", lambda length: True)
    monkeypatch.setattr(_plan, "_cache", type(_plan._cache)())
    for pass_, C, weight in (
        ("forward", 20, (8, 20, 1)),
        ("backward_weight", 64, (64, 64, 2)),
    ):
        near = xsmmconv.plan(pass_, (1, C, 4_000_001), weight)
        far = xsmmconv.plan(pass_, (1, C, 30_000_001), weight)
        assert not near._blocking.packed, pass_
        assert far._blocking.packed, pass_


@pytest.mark.parametrize(("C", "packed"), [(1000, False), (1_000_000, True)])
def test_weights_that_are_too_far_apart_for_a_kernel_are_packed(C, packed):
    sh = SimpleNamespace(tap_pairs=False, pairs=False, merged=(), C=C, K=3, item=4)
    sh.natural, sh.order = True, "KCS"
    bl = SimpleNamespace(lists="channels", transposed=False, unpacked=False, split=1, cb=C)
    runs = [_geometry.Run(range(10), 0, 100, 0, 1)]
    assert _lower_correlate.weight_layout(sh, bl, runs, 10).packed == packed


@pytest.mark.parametrize(
    ("line", "in_place"),
    [
        ("n2c40k40s3w900", True),
        ("n2c40k40s3w1024", False),  # rows collide in L1
        ("n1c40k40s3w32818", False),  # or in L2
    ],
)
def test_rows_are_read_in_place_where_many_may_be_read_at_once(line, in_place, monkeypatch):
    """Unless their distance brings them to the same sets of L1. No bit depends on it."""
    monkeypatch.setattr(_plan, "may_depend_on", lambda length: True)
    problem, x, weight = arrays(line, "forward")
    machine, results = dataclasses.replace(_plan.machine("float32"), l2_bytes=2**20), []
    for amd in (False, True):
        found = _plan.Plan("forward", problem, found=dataclasses.replace(machine, amd=amd))
        assert found._blocking.packed == (not (amd and in_place))
        results.append(np.empty(found.output_shape, np.float32))
        found.run(x, weight, None, False, results[-1], 1)
    np.testing.assert_array_equal(results[0], results[1])


def test_describe_says_what_matters(monkeypatch):
    monkeypatch.setattr(_dispatch, "halved_vectors", lambda: False)
    monkeypatch.setattr(_dispatch, "amd_vectors", lambda: False)
    monkeypatch.setattr(_plan, "_cache", type(_plan._cache)())
    monkeypatch.setattr(_row_lengths, "seen", set())
    text = xsmmconv.plan("forward", (4, 15, 1000), (15, 15, 51), dilation=8).describe()
    for word in (
        "lists over channels",
        "scratch",
        "kernels",
        "segments",
        "tile",
        _dispatch.instruction_set(),
    ):
        assert word in text
    text = xsmmconv.plan("forward", (64, 64, 8), (64, 64, 3)).describe()
    assert "filters in the lanes" in text
    text = xsmmconv.plan("forward", (4, 15, 1000), (1, 15, 51)).describe()
    assert "51 taps in 3 parts" in text
    text = xsmmconv.plan("backward_weight", (4, 90, 1000), (90, 90, 1)).describe()
    assert "dot products of rows" in text
    assert "    rows 0 to " in text
    text = xsmmconv.plan("backward_weight", (4, 128, 1000), (128, 128, 1)).describe()
    assert ", packed False" in text
    text = xsmmconv.plan("backward_weight", (4, 24, 5000), (16, 24, 51), dilation=8).describe()
    assert "each lane for" in text
    assert ", stacked" in text
    text = xsmmconv.plan("backward_data", (4, 32, 1000), (48, 32, 4), stride=2).describe()
    assert "2 phases" in text
    width = 3 * _dispatch.vector_bytes() // 4
    text = xsmmconv.plan("forward", (4, 64, width), (64, 64, 1)).describe()
    assert "stay in L1" in text
    assert ", packed False" in text
    # One tap reads rows in place, of any length, but not from memory.
    for channels, width, packed in (64, 512, False), (64, 100_000, True), (65, 300, True):
        text = xsmmconv.plan("forward", (1, channels, width), (64, channels, 1)).describe()
        assert f", packed {packed}" in text, (channels, width)
        assert ("what the next tile reads is fetched meanwhile" in text) != packed
    # Rows in place, but not for many filters (the fewer, the shorter vectors are), if they collide.
    narrow = _dispatch.vector_bytes() < 64
    for C, K, width, packed in (24, 24, 5000, False), (24, 64, 5000, True), (24, 24, 4096, narrow):
        text = xsmmconv.plan("forward", (2, C, width), (K, C, 5)).describe()
        assert f", packed {packed}" in text, (C, K, width)
    text = xsmmconv.plan("forward", (2, 20, 5000), (20, 20, 2)).describe()
    assert "2 taps of 20 channels are read in place" in text


@pytest.mark.parametrize("pass_", ["forward", "backward_data"])
@pytest.mark.parametrize("line", ["n1c64k64s31d8p120w1000", "n1c64k32s16st8p4w4000"])
def test_lists_over_taps_at_borders_are_parts_of_one(line, pass_):
    """Planning time: wide filters have a hundred tiles at their borders."""
    p = parse(line)
    plan = xsmmconv.plan(pass_, p.x_shape, p.weight_shape, **p.parameters)
    assert plan._blocking.lists == "taps"
    assert len(plan._program.offsets_a) == p.S


@pytest.mark.parametrize(("N", "width", "together"), [(64, 8, 32), (6, 31, 6), (7, 60, 1)])
def test_short_rows_of_a_batch_are_reduced_together(N, width, together):
    """The sums of a weight gradient are loaded and stored once for all of them."""
    plan = xsmmconv.plan("backward_weight", (N, 32, width + 2), (48, 32, 3))
    bl, program = plan._blocking, plan._program
    assert bl.nb == together
    assert {call[-1] for call in program.calls} == {together}  # entries
    if bl.packed:
        assert program.panel.row % together == 0


@pytest.mark.skipif(_dispatch.vector_bytes() < 64, reason="vectors of 16 columns")
@pytest.mark.parametrize(
    ("line", "lanes"),
    [
        ("n64c64k64s5p4w64", "filters"),  # 68 columns in five vectors
        ("n64c64k64s3p1w96", "columns"),
        ("n64c24k24s3p1w70", "columns"),  # 24 filters leave more of two empty
        ("n64c16k64s3p1w83", "columns"),  # little work for each result
    ],
)
def test_rows_that_leave_much_of_a_vector_empty(line, lanes):
    p = parse(line)
    plan = xsmmconv.plan("forward", p.x_shape, p.weight_shape, **p.parameters)
    assert plan._blocking.lanes == lanes


@pytest.mark.parametrize(
    ("line", "merged"),
    [
        ("n1c1k64s16st8w4000", 8),
        ("n1c4k64s8st4w4000", 4),
        ("n1c1k64s16st8w4004", 0),  # some phases have a column more
        ("n1c1k64s16st8p4w4000", 0),  # or read elsewhere
        ("n1c16k64s8st4w4000", 0),  # filters enough
        ("n1c1k64s16st8w400", 0),  # short rows
    ],
)
def test_phases_as_filters(line, merged):
    p = parse(line)
    plan = xsmmconv.plan("backward_data", p.x_shape, p.weight_shape, **p.parameters)
    assert (f"{merged} phases are filters, too" in plan.describe()) == bool(merged)


@pytest.mark.parametrize(
    ("line", "avx2", "avx512"),
    [
        ("n64c64k64s5w35", "filters", "filters"),  # 31 columns: seven pieces, or a short row
        ("n16c64k64s3w47", "filters", "columns"),  # 45: seven pieces, or three vectors
        ("n64c64k64s5w68", "columns", "columns"),  # 64 columns
        ("n16c64k64s3p1w128", "filters", "columns"),  # borders are pieces
        ("n16c64k64s3p1w300", "columns", "columns"),  # but little of long rows
        # Few channels, whose taps are k: each tap of a border is a call.
        ("n16c4k64s15p7w60", "filters", "filters"),
        ("n16c4k64s15p7w200", "filters", "columns"),
        ("n16c4k64s15p7w300", "columns", "columns"),
        ("n16c4k64s15w114", "columns", "columns"),
        ("n16c4k64s15w34", "columns", "filters"),  # 20 leave most of a vector empty, or half
        ("n16c4k64s15w46", "columns", "columns"),  # 32
        ("n16c4k5s15p7w60", "columns", "columns"),  # no vector of filters
    ],
)
def test_rows_without_masks(line, avx2, avx512, monkeypatch):
    """What a row leaves of a vector of AVX2 takes pieces, at the price of a vector each."""
    monkeypatch.setattr(_plan, "may_depend_on", lambda length: True)
    problem, _, _ = arrays(line, "forward")
    for vector_bytes, lanes in (32, avx2), (64, avx512):
        found = dataclasses.replace(_plan.machine("float32"), vector_bytes=vector_bytes)
        assert _plan.Plan("forward", problem, found=found)._blocking.lanes == lanes


def test_lanes_stand_for_several_taps_where_vectors_wait():
    """16 channels fill a vector; with vectors loaded in halves, one is as fast as three."""
    problem, _, _ = arrays("n4c16k16s31d8w5240", "backward_weight")
    machine = dataclasses.replace(_plan.machine("float32"), vector_bytes=64)
    for halved in (False, True):
        found = dataclasses.replace(machine, halved=halved)
        bl = _plan.Plan("backward_weight", problem, found=found)._blocking
        assert (bl.stack > 1) != halved


@pytest.mark.parametrize(
    ("line", "lanes"),
    [
        ("n1c1k512s16st8w4000", True),
        ("n1c1k512s16st8p4w4000", True),  # windows that reach beyond the row by themselves
        ("n8c1k512s16st8p60w128", False),  # unless they are many
        ("n1c1k64s16st8d2w4000", False),  # no neighbours,
        ("n1c1k512s16st8d2w4000", True),  # which many filters are worth
        ("n1c2k512s16st8w4000", False),
        ("n1c1k2s16st8w4000", False),  # less is transposed than copied
        ("n1c1k512s17st8w4000", False),  # one of the last vector's lanes
    ],
)
def test_the_taps_of_one_channel_are_lanes(line, lanes, monkeypatch):
    """The gradients of the filters are read as they lie."""
    monkeypatch.setattr(_plan, "_cache", type(_plan._cache)())
    monkeypatch.setattr(_row_lengths, "seen", set())
    p = parse(line)
    plan = xsmmconv.plan("backward_weight", p.x_shape, p.weight_shape, **p.parameters)
    assert (f"its {p.S} taps are the lanes" in plan.describe()) == lanes
    assert not lanes or (plan._program.tap == [0] and not plan._blocking.packed)


@pytest.mark.parametrize(
    ("line", "lanes"),
    [
        ("n32c3k320s15st2w53", "filters"),  # planes are copied anyway
        ("n32c2k320s15st2w53", "columns"),  # of two channels, faster
        ("n32c3k320s15st2w83", "columns"),  # 35 columns
    ],
)
def test_short_strided_rows_of_few_channels(line, lanes):
    assert problems.plan(line, problems.FORWARD, "float32")._blocking.lanes == lanes


@pytest.mark.parametrize(
    ("K", "C", "s", "direct", "lanes"),
    [
        (100, 64, 1, False, "x"),  # 64 fill vectors
        (100, 64, 2, False, "grad_out"),  # but planes would be transposed one by one
        (30, 16, 1, False, "grad_out"),  # as 16 do, but only one
        (64, 64, 1, False, "grad_out"),
        (64, 64, 1, True, "x"),  # neighbours in the result
        (20, 64, 3, False, "x"),
    ],
)
def test_whose_channels_are_the_lanes_of_a_weight_gradient(K, C, s, direct, lanes):
    assert lanes_from(K, C, s, direct, 4, 64) == lanes


@pytest.mark.parametrize(
    ("lanes", "blocks"), [(32, (32, 0)), (40, (24, 16)), (48, (24, 0)), (56, (32, 24))]
)
def test_lanes_without_masks_are_equal_blocks(lanes, blocks):
    """The last of five vectors would have a quarter of the accumulators."""
    line = f"n4c100k{lanes}s9w1000"
    bl = problems.plan(line, problems.BACKWARD_WEIGHT, "float32", vector_bytes=32)._blocking
    assert (bl.lb, bl.last_lb) == blocks


@pytest.mark.skipif(_dispatch.vector_bytes() < 64, reason="blocks of 32 lanes")
def test_long_rows_of_a_weight_gradient_are_packed_seldom():
    """With a stride of 8, a row of x is eight times as long as one of dy."""
    shapes = (1, 256, 800), (512, 256, 16)
    bl = xsmmconv.plan("backward_weight", *shapes, stride=8, padding=4)._blocking
    assert bl.l_blocks * bl.lb >= 4 * bl.rb
    bl = xsmmconv.plan("backward_weight", *shapes, padding=4)._blocking
    assert bl.l_blocks * bl.lb <= 2 * bl.rb


@pytest.mark.parametrize(
    ("line", "lengths"),
    [("n1c64k64s16st8p4w800", {99, 100}), ("n1c64k64s16p8w800", {1, 2, 4, 8, 64})],
)
def test_lengths_at_a_border_have_kernels_of_their_own_if_they_are_few(line, lengths):
    """Taps of a stride use as many positions as their neighbours."""
    p = parse(line)
    plan = xsmmconv.plan("backward_weight", p.x_shape, p.weight_shape, **p.parameters)
    assert {kernel[3] for kernel in plan._program.kernels} == lengths


FORKED = """
import os
import signal
import numpy as np
import xsmmconv
from xsmmconv import _dispatch, _plan

x, weight = np.ones((1, 2, 9), np.float32), np.ones((2, 2, 3), np.float32)
xsmmconv.conv1d(x, weight)
for lock in (_dispatch._lock, _plan._lock):
    lock.acquire()  # as another thread might at the moment of the fork
child = os.fork()
if child == 0:
    signal.alarm(20)
    xsmmconv.conv1d(x, weight, padding=2)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_child_does_not_wait_for_locks_of_its_parent():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


@pytest.mark.parametrize("suite", [name for name in suites.SUITES if not name.startswith("paper")])
def test_scratch_of_a_thread_fits_the_second_level_cache(suite):
    for problem in suites.problems(suite)[::3]:
        shapes = problem.x_shape, problem.weight_shape
        for pass_ in PASSES:
            plan = xsmmconv.plan(pass_, *shapes, "float32", **problem.parameters)
            assert plan.engine.scratch_bytes <= plan._machine.l2_bytes, (str(problem), pass_)


@pytest.mark.parametrize("dilation", [1, 8, 64, 80, 500, 8000])
def test_scratch_fits_however_far_apart_the_taps(dilation):
    for channels in (8, 16, 24):
        shapes = (1, channels, 10**6), (channels, channels, 51)
        plan = xsmmconv.plan("backward_weight", *shapes, dilation=dilation)
        assert plan.engine.scratch_bytes <= plan._machine.l2_bytes


@pytest.mark.parametrize(
    ("pass_", "x_shape", "weight_shape", "named"),
    [
        ("forward", (2**37, 4), (1, 2**37, 1), "137438953472 channels"),
        ("forward", (2**29, 50), (1, 2**29, 40), "536870912 channels"),
        ("backward_data", (1, 2), (2**37, 1, 1), "137438953472 filters"),
        ("forward", (1, 2**37), (1, 1, 2**37), "S=137438953472 taps"),
        ("backward_data", (1, 2**23), (1, 1, 2**17), "S=131072 taps and W=8388608"),
        ("backward_weight", (1, 2**37), (1, 1, 2**23), "S=8388608 taps and W=137438953472"),
    ],
)
def test_a_plan_that_would_not_end_is_refused(pass_, x_shape, weight_shape, named):
    with pytest.raises(xsmmconv.UnsupportedError, match=rf"{pass_} .*{named}.*268435456 is"):
        xsmmconv.plan(pass_, x_shape, weight_shape)


@pytest.mark.parametrize(
    ("S", "s", "together"),
    [(8, 4, 4), (9, 4, 4), (7, 5, 5), (16, 8, 8), (3, 2, 2)],  # also with a tap more in some planes
)
def test_planes_are_loaded_together(S, s, together):
    (phase,) = _geometry.forward_phases(4000, S, 900, s, 1, 0)
    layout = _layout.panel(phase.runs, 256, True, 4)
    assert _layout.window_rows(layout, s, 2)[0][-1] == together
    assert _layout.window_rows(layout, s, together + 1)[0][-1] == 1


@pytest.mark.parametrize("line", ["n1c512k512s2d512p512w16000", "n1c64k64s3d3000w16384"])
def test_taps_that_are_far_apart_leave_room_for_columns(line):
    """Each has a window of the panel, and there is nothing between them."""
    problem, _, _ = arrays(line, "forward")
    machine = dataclasses.replace(_plan.machine("float32"), l2_bytes=2**20)
    found = _plan.Plan("forward", problem, found=machine)
    assert found._blocking.chunk >= 128
    assert found.engine.scratch_bytes <= machine.l2_bytes
