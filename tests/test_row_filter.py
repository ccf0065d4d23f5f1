"""Filtered rows, for groups of few channels: forward and backward data."""

import dataclasses

import numpy as np
import problems
import pytest
from problems import BACKWARD_DATA, BFLOAT16, FORWARD, call, integer_operands

import xsmmconv
from xsmmconv import _blocking_filter, _geometry, _layout, _plan, reference
from xsmmconv._blocking_filter import FilterBlocking
from xsmmconv._text import parse

# Taps: none but one, odd and even numbers, a vector of each type, one more. Columns: none that all
# taps are for, few, one block of vectors and more. Neighbouring taps and others.
LINES = [
    f"n2c3k3s{taps}d{dilation}pl{before}pr{after}g3w{width}"
    for taps, widths in ((1, (1, 31, 300)), (2, (5, 67)), (3, (3, 64, 1001)), (4, (33, 130)))
    for width in widths
    for dilation, before, after in ((1, 0, taps - 1), (1, taps + 2, 1), (3, taps, 3 * taps))
] + [
    f"n1c5k5s{taps}d{dilation}{padding}g5w{width}"
    for taps in (8, 9, 15, 16, 17, 32, 33, 50)
    for dilation in (1, 2)
    for padding in ("psame", "p0", f"p{2 * taps}")
    for width in (110, 263, 700)
    if padding != "p0" or width > dilation * (taps - 1)
]
# Several rows of a group and of its output; strides: planes of the source, phases of the output.
LINES += [
    f"n2c{2 * channels}k{2 * filters}s{taps}st{stride}p{taps // 2}g2w{width}"
    for channels, filters in ((1, 1), (3, 1), (1, 2), (2, 3))
    for taps, stride in ((5, 1), (6, 2), (5, 3), (9, 4), (17, 7), (20, 18))
    for width in (90, 1200)
]
LINES += ["n1c2k2s3st4p1g2w900", "n1c2k2s4st3d2p5g2w700", "n2c6k6s9st2d3p4g3w500"]
both_passes = pytest.mark.parametrize("operation", [FORWARD, BACKWARD_DATA], ids=str)
every_dtype = pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)


def plan(line, operation, dtype, monkeypatch, **machine):
    """A plan of its own, whatever other ways would be worth, if every column has a phase."""
    p = parse(line)
    phases = _geometry.backward_data_phases(p.W, p.S, p.Q, p.s, p.d, p.pl)
    whole = operation is FORWARD or _blocking_filter.can_be_filtered(phases, 4)
    monkeypatch.setattr(_plan, "few_positions", lambda problem: False)
    monkeypatch.setattr(_plan, "channels_in_lanes", lambda *sizes: False)
    monkeypatch.setattr(_plan, "filters_are_better", lambda *sizes: whole)
    made = problems.plan(p, operation, dtype, **machine)
    assert isinstance(made._blocking, FilterBlocking) == whole
    return made


def run(found, first, second, bias=None, relu=False, threads=1):
    """The result, in memory that ends behind it, and the multiply-adds."""
    out = np.full(found.output_shape, np.nan if found.problem.N else 0, first.dtype)
    issued = found.run(first, second, bias, relu, out, threads)
    return out, issued


@pytest.mark.parametrize("line", LINES)
@both_passes
@every_dtype
def test_exact_and_nothing_superfluous(line, operation, dtype, monkeypatch):
    problem, found = parse(line), plan(line, operation, dtype, monkeypatch)
    first, second, bias = integer_operands(problem, operation, dtype)
    exact = call(reference, operation, problem, first, second)
    got, issued = run(found, first, second)
    problems.assert_equal(got, problems.rounded(exact, dtype), line, operation, dtype)
    assert issued == found.multiply_adds
    if operation is FORWARD:
        for options in {"bias": bias}, {"activation": "relu"}, {"bias": bias, "activation": "relu"}:
            b = options.get("bias")
            b = None if b is None else b.astype(found.computed_dtype)
            got, _ = run(found, first, second, b, "activation" in options)
            expected = problems.rounded(problems.finish(exact, **options), dtype)
            problems.assert_equal(got, expected, line, list(options))


@every_dtype
@both_passes
def test_the_corpus(problem, operation, dtype, monkeypatch):
    """Any numbers of channels, if there is room for their panels."""
    monkeypatch.setattr(_plan, "filter_blocking", roomy(_blocking_filter.filter_blocking))
    found = plan(str(problem), operation, dtype, monkeypatch)
    first, second, _ = integer_operands(problem, operation, dtype)
    exact = call(reference, operation, problem, first, second)
    for threads in 1, 2:
        got, issued = run(found, first, second, threads=threads)
        problems.assert_equal(got, problems.rounded(exact, dtype), problem, operation, dtype)
        assert issued == found.multiply_adds


def roomy(blocking):
    """The same choices for a machine with a large cache."""
    return lambda shape, m: blocking(shape, dataclasses.replace(m, l2_bytes=2**26))


@pytest.mark.parametrize("line", [*LINES[::7], "n1c1k1s9psamew70001", "n3c40k40s4p1g40w50"])
@both_passes
@every_dtype
def test_no_bit_depends_on_threads_or_copies(line, operation, dtype, monkeypatch):
    problem, found = parse(line), plan(line, operation, dtype, monkeypatch)
    first, second = problems.real_operands(problem, operation, dtype)[:2]
    expected, _ = run(found, first, second)
    terms = problems.most_terms(problem, operation)
    exact = call(reference, operation, problem, first, second)
    size = call(reference, operation, problem, np.abs(first), np.abs(second))
    rounding = 2**-8 if dtype == BFLOAT16 else np.finfo(dtype).eps
    bound = (terms + 1) * np.finfo(found.computed_dtype).eps * size + rounding * np.abs(exact)
    assert (np.abs(expected.astype(float) - exact) <= bound).all()
    for threads in 2, 3, 7:
        problems.assert_bitwise_equal(run(found, first, second, threads=threads)[0], expected, line)
    for again in (
        (np.repeat(first, 2, axis=2)[..., ::2], second),
        (
            np.ascontiguousarray(first.swapaxes(1, 2)).swapaxes(1, 2),
            second[..., ::-1].copy()[..., ::-1],
        ),
        (first[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1], np.repeat(second, 3, axis=2)[..., ::3]),
    ):
        for threads in 1, 2:
            got, _ = run(found, *again, threads=threads)
            problems.assert_bitwise_equal(got, expected, line, operation, dtype)


@pytest.mark.parametrize(
    "line",
    [
        "n1c2k2s5d400p300g2w9000",  # taps as far apart as the tiles are long, or further
        "n1c2k2s40d30g2w9000",
        "n1c2k2s3psameg2w30001",
    ],
)
@both_passes
@every_dtype
def test_tiles_and_copies_of_any_size(line, operation, dtype, monkeypatch):
    """Caches of other sizes: tiles of a few hundred columns, with a window for each tap."""
    problem, found = parse(line), plan(line, operation, dtype, monkeypatch, l2_bytes=2**15)
    assert found._blocking.tile < problem.Q // 5
    assert found.engine.scratch_bytes <= 2**15
    first, second, _ = integer_operands(problem, operation, dtype)
    expected = problems.rounded(call(reference, operation, problem, first, second), dtype)
    for view in first, np.repeat(first, 2, axis=2)[..., ::2]:
        for threads in 1, 3:
            got, issued = run(found, view, second, threads=threads)
            problems.assert_equal(got, expected, line, operation, dtype)
            assert issued == found.multiply_adds


@pytest.mark.parametrize(
    "line",
    [
        "n1c1k1s31p15w70001",  # further than 16 bits count
        "n1c1k1s31p15w65556",
        "n1c2k2s5p4g2w33000",
        "n1c1k1s9000p8999w40",  # most of a filter is beside the row
        "n1c1k1s9000p6000w9100",
        "n1c1k1s16383p100w16400",
    ],
)
@both_passes
@every_dtype
def test_borders_of_long_rows_and_filters(line, operation, dtype, monkeypatch):
    problem, found = parse(line), plan(line, operation, dtype, monkeypatch)
    first, second, _ = integer_operands(problem, operation, dtype)
    got, issued = run(found, first, second)
    expected = problems.rounded(call(reference, operation, problem, first, second), dtype)
    problems.assert_equal(got, expected, line, operation, dtype)
    assert issued == found.multiply_adds


@every_dtype
def test_a_sum_does_not_depend_on_its_vector(dtype, monkeypatch):
    """Columns have the same bits wherever a row ends, or begins at one of an even number. Two taps
    are large and cancel each other, so that any other order of a sum shows, in BF16, too."""
    line = "n1c1k1s9p4w{}".format
    rng = np.random.default_rng(0)
    x = np.tile(rng.standard_normal(5), 140).reshape(1, 1, 700).astype(dtype)
    weight = rng.standard_normal((1, 1, 9)).astype(dtype)
    large = 2.0**45 if dtype == np.float64 else 2.0**18
    weight[..., 1], weight[..., 6] = large, -large
    whole, _ = run(plan(line(700), FORWARD, dtype, monkeypatch), x, weight)
    for width in (5, 20, 33, 64, 65, 96, 131, 200, 361):
        part, _ = run(plan(line(width), FORWARD, dtype, monkeypatch), x[:, :, :width], weight)
        problems.assert_bitwise_equal(part[..., : width - 4], whole[..., : width - 4], width)
        if width > 21 and width % 2:
            short = plan(line(21), FORWARD, dtype, monkeypatch)
            end, _ = run(short, x[:, :, width - 21 : width], weight)
            problems.assert_bitwise_equal(part[..., -17:], end[..., 4:], width)


def test_filters_too_long_for_pairs():
    for taps, filtered in ((2**14 - 1, True), (2**14, False)):
        found = xsmmconv.plan("forward", (1, 1, 20000), (1, 1, taps), dtype="bfloat16")
        native = found._native_bf16
        assert isinstance(found._blocking, FilterBlocking) == (filtered or not native)


@pytest.mark.parametrize("line", ["n1c2k2s5p4g2w200", "n1c2k2s4p3g2w131", "n1c2k2s6d3p15g2w150"])
@both_passes
@every_dtype
def test_what_no_tap_reads_is_multiplied_by_nothing(line, operation, dtype, monkeypatch):
    """Infinities and NaNs stay out of the columns that do not use them, also those of the other
    half of a pair of BF16, and of a tap that is not for these columns."""
    problem, found = parse(line), plan(line, operation, dtype, monkeypatch)
    operands = integer_operands(problem, operation, dtype)[:2]
    ones = [np.ones_like(operand) for operand in operands]
    for which in 0, 1:
        width = operands[which].shape[2]
        for at in {0, 1, 2, 3, width // 2, width // 2 + 1, width - 2, width - 1}:
            mark = [np.zeros_like(one) if i == which else one for i, one in enumerate(ones)]
            mark[which][..., at] = 1
            used = call(reference, operation, problem, *mark) != 0
            for value in np.inf, np.nan:
                spoilt = [operand.copy() for operand in operands]
                spoilt[which][..., at] = value
                got, _ = run(found, *spoilt)
                spoilt[which][..., at] = 0
                exact = call(reference, operation, problem, *spoilt)
                assert not np.isfinite(got[used].astype(float)).any()
                np.testing.assert_array_equal(got[~used], problems.rounded(exact, dtype)[~used])


@every_dtype
def test_signs_of_zero_and_special_results(dtype, monkeypatch):
    """A NaN passes ReLU, what no tap reaches is a zero or the bias."""
    found = plan("n1c2k2s3p70g2w3", FORWARD, dtype, monkeypatch)
    x, weight = np.ones((1, 2, 3), dtype), np.ones((2, 1, 3), dtype)
    x[0, 1, 1] = np.nan
    bias = np.array([-1, 2], found.computed_dtype)
    plain, _ = run(found, x, weight)
    assert not np.signbit(plain[0, 0]).any()
    assert plain[0, 0].astype(float).tolist() == [0] * 68 + [1, 2, 3, 2, 1] + [0] * 68
    got, _ = run(found, x, weight, bias, relu=True)
    assert got[0, 0].astype(float).tolist() == [0] * 69 + [1, 2, 1] + [0] * 69
    assert np.isnan(got[0, 1, 69:72].astype(float)).all()
    assert got[0, 1, [68, 72]].astype(float).tolist() == [3, 3]
    assert (got[0, 1, :68].astype(float) == 2).all()


@every_dtype
def test_sums_round_as_others_do(dtype, monkeypatch):
    """One tap of one: what is stored is what was read."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1, 5000)).astype(dtype)
    found = plan("n1c1k1s1w5000", FORWARD, dtype, monkeypatch)
    got, _ = run(found, x, np.ones((1, 1, 1), dtype))
    problems.assert_bitwise_equal(got, x)


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("n4c256k256s3g256w1002", True),
        ("n4c256k256s31psameg256w1000", True),
        ("n1c1k1s500w90000", True),
        ("n4c256k256s63d4psameg256w1000", False),  # taps that are no neighbours
        ("n64c64k64s31psameg64w60", False),  # mostly borders
        ("n64c4k4s31psameg4w60", True),  # fewer channels than lanes
        ("n4c256k256s4st2g256w2002", True),  # a stride
        ("n4c256k256s4st2g256w202", False),  # short rows with one
        ("n4c256k256s3st4g256w4002", None),  # columns of a gradient that no tap reaches
        ("n1c7k7s9w1002", False),  # too many filters
        ("n1c7k7s9d2w1002", False),
        ("n1c1k1s2d3000000000w3000000100", False),  # more elements than are counted
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_which_are_chosen(line, rows, dtype):
    p = parse(line)
    for pass_ in "forward", "backward_data":
        found = xsmmconv.plan(pass_, p.x_shape, p.weight_shape, dtype=dtype, **p.parameters)
        expected = pass_ == "forward" if rows is None else rows
        assert isinstance(found._blocking, FilterBlocking) == expected


@pytest.mark.parametrize("channels", range(1, 20))
def test_few_channels(channels):
    """A single filter of neighbouring taps; BF16 also with two or three."""
    shape, weight = (1, channels, 5000), (1, channels, 7)
    pairs = _plan.machine("bfloat16").bf16
    for dtype, most in ("float32", 8), ("float64", 8), ("bfloat16", 16 if pairs else 8):
        found = xsmmconv.plan("forward", shape, weight, dtype=dtype)
        assert isinstance(found._blocking, FilterBlocking) == (channels <= most)
        far = xsmmconv.plan("forward", shape, weight, dtype=dtype, dilation=2)
        assert isinstance(far._blocking, FilterBlocking) == (channels == 1)
    found = xsmmconv.plan("forward", shape, (2, channels, 7), dtype="bfloat16")
    assert isinstance(found._blocking, FilterBlocking) == (pairs and channels <= 2)
    back = xsmmconv.plan("backward_data", (1, 1, 5006), (channels, 1, 7), dtype="float32")
    assert isinstance(back._blocking, FilterBlocking) == (channels <= 8)


@every_dtype
def test_more_taps_than_a_cache_has_room_for(dtype):
    problem = parse("n1c1k1s1000psamew3000")
    for l2_bytes, filtered in (2**20, True), (2**13, False):
        found = problems.plan(problem, FORWARD, dtype, l2_bytes=l2_bytes)
        assert isinstance(found._blocking, FilterBlocking) == filtered
        x, weight, _ = integer_operands(problem, FORWARD, dtype)
        exact = call(reference, FORWARD, problem, x, weight)
        problems.assert_equal(run(found, x, weight)[0], problems.rounded(exact, dtype), l2_bytes)


def test_what_a_run_reads_is_equally_far_apart():
    """Also in panels with a window for each tap, or for some that are hardly near enough."""
    rng = np.random.default_rng(0)
    for _ in range(5000):
        s, S = rng.integers(1, 8), rng.integers(1, 13)
        d = rng.choice([rng.integers(1, 3000), 256 * s + rng.integers(-4, 5)])
        W, pl, pr = rng.integers(1, 40000), *rng.integers(0, d * S, 2)
        s, S, d, W, pl, pr = map(int, (s, S, max(1, d), W, pl, pr))
        Q = _geometry.output_width(W, S, s, d, pl, pr)
        if Q < 1:
            continue
        for phases in (
            _geometry.forward_phases(W, S, Q, s, d, pl),
            _geometry.backward_data_phases(W, S, Q, s, d, pl),
        ):
            runs = [run for phase in phases for run in phase.runs]
            for places in _layout.panel(runs, 256, True, 4).positions:
                assert len(set(np.diff(places))) <= 1


def test_a_stride_longer_than_the_filter_copies_all_planes():
    shapes = (1, 2, 900), (2, 1, 3)
    found = xsmmconv.plan("forward", *shapes, stride=4, padding=1, groups=2)
    assert sorted(w.plane for w in found._program.source.windows) == [0, 1, 2, 3]


def test_describe():
    text = xsmmconv.plan("forward", (4, 40, 900), (40, 1, 5), padding=1, groups=40).describe()
    for words in ("1 row(s) of a group against 1 run(s) of up to 5 taps", "all taps for 1 to 897"):
        assert words in text
    text = xsmmconv.plan("forward", (4, 40, 900), (40, 1, 5), stride=2, groups=40).describe()
    assert "the source is strided" in text
    text = xsmmconv.plan("backward_data", (4, 40, 898), (40, 1, 5), stride=2, groups=40).describe()
    assert "2 phases" in text
    if _plan.machine("bfloat16").bf16:
        shapes = (4, 40, 900), (40, 1, 5)
        text = xsmmconv.plan("forward", *shapes, groups=40, dtype=BFLOAT16).describe()
        assert "k = 2 taps of BF16" in text


def test_weights_of_any_strides_and_layers():
    """Also with a layer, which has nothing to pack."""
    rng = np.random.default_rng(3)
    x = rng.integers(-9, 9, (2, 6, 500)).astype("f4")
    weight = rng.integers(-9, 9, (6, 1, 7)).astype("f4")
    expected = reference.conv1d(x, weight, groups=6)
    layer = xsmmconv.Conv1d(weight[..., ::-1].copy()[..., ::-1], groups=6)
    for _ in range(2):
        assert np.array_equal(layer(x), expected)
    assert np.array_equal(
        layer.backward_data(expected.astype("f4"), 500),
        reference.conv1d_backward_data(expected, weight, 500, groups=6),
    )
