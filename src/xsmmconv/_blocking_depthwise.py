"""The choices for depthwise convolutions, whose filters have a channel each; see _blocking.py.

With the channels of several groups in the lanes, no vector lies on two lines of the cache, short
rows are as good as long ones, and BF16 is multiplied in pairs. But the rows and the results are
transposed, which costs as much as a dozen taps.
"""

from __future__ import annotations

from math import gcd

from xsmmconv._blocking import (
    ITEMS,
    CorrelateBlocking,
    CorrelateShape,
    Machine,
    ceil_div,
    even_parts,
    longest,
    round_up,
)
from xsmmconv._blocking_filter import can_be_filtered
from xsmmconv._blocking_weight import WeightBlocking, WeightShape
from xsmmconv._geometry import Phase, interior

# Positions of a tile: with its panel it stays in L1.
_COLUMNS = 256
# So many multiply-adds a row costs where its columns are the lanes, before the first of a tap.
_ROW = 5000
# Taps from which on channels are faster, by what is multiplied.
_TAPS = {"float32": 24, "float64": 34, "bfloat16": 9, "widened": 24}
# The same for weights. There, every tap of a row has sums to be added up, so the shorter it is, the
# more each of them counts.
_WEIGHT_ROW = 150
_WEIGHT_TAPS = {"float32": 16, "float64": 40, "bfloat16": 23, "widened": 16}


# Against rows with a filter each: channels are faster for rows of fewer columns than a + b times
# the taps, of which those of borders count more, and from so many taps on, neighbours or not; by
# the bytes of a vector and what is multiplied.
_ROWS = {
    (64, "float32"): (20, 5.5, 2**30, 50),
    (64, "float64"): (0, 0, 2**30, 50),
    (64, "bfloat16"): (58, 2.5, 2**30, 18),
    (64, "widened"): (50, 13, 40, 40),
    (32, "float32"): (20, 9, 50, 50),
    (32, "float64"): (-300, 15, 50, 50),
    (32, "widened"): (45, 15, 45, 45),
}


def channels_in_lanes(
    groups: int,
    phases: tuple[Phase, ...],
    planes: int,
    item: int,
    kind: str,
    m: Machine,
    weights: bool = False,
) -> bool:
    """Whether they are, for one channel and one filter per group. `kind` is the type that is
    multiplied; "widened" is BF16 as FP32. All numbers are from measurements of either way, of rows
    in a cache and not."""
    width, _, reach = longest(phases)
    taps = max((sum(len(run.taps) for run in phase.runs) for phase in phases), default=0)
    step = max(planes, len(phases))
    panel = (min(width, _columns(step, m)) * step + reach * planes) * m.vector_bytes
    if groups < m.vector_bytes // item or panel > m.l1_bytes:
        return False
    filled = groups * item / round_up(groups * item, m.vector_bytes)
    if not weights and can_be_filtered(phases, 2 if kind in ("bfloat16", "widened") else item):
        return filled > 0.75 and _rows_take_longer(phases, planes, kind, m)
    if weights:
        worth, enough = taps * (1 + _WEIGHT_ROW / max(1, width)), _WEIGHT_TAPS[kind]
    else:
        worth, enough = taps + _ROW / max(1, width), _TAPS[kind]
    if all(a == 0 and b == phase.count for phase in phases for a, b in [interior(phase)]):
        enough += 4  # no borders, which take longer as columns
    enough += 3 * (m.vector_bytes < 64)
    if reach >= taps:  # dilated
        enough += 20 if weights else 10
    if planes > 1 and not (weights and kind == "bfloat16"):  # a stride makes planes of columns,
        enough -= 8 if weights else 10
    elif len(phases) > 1:  # and rows of phases
        enough -= 4
    return filled**2 * worth >= enough


def _rows_take_longer(phases: tuple[Phase, ...], planes: int, kind: str, m: Machine) -> bool:
    """Columns that are not for all taps take several times as long. With a stride, the planes of a
    row are copied, or its phases interleaved."""
    phase = phases[0]
    first, end = interior(phase)
    border, taps = phase.count - max(0, end - first), sum(len(run.taps) for run in phase.runs)
    least, each, near, far = _ROWS[m.vector_bytes, kind]
    neighbours = all(run.spacing == 1 for run in phase.runs)
    if planes > 1:
        least = 200 if kind == "bfloat16" else 300
    elif len(phases) > 1:
        least = 400 if kind == "bfloat16" else 300
    of_borders = taps * (1 + border / 64 if border else 1 / 3)
    return phase.count < least + each * of_borders or taps >= (near if neighbours else far)


def _block(m: Machine) -> int:
    """Columns that the routines compute together."""
    return 24 if m.vector_bytes == 64 else 12


def _columns(step: int, m: Machine) -> int:
    """Columns of a tile, of which each is `step` positions."""
    return max(_block(m), _COLUMNS // max(1, step))


def depthwise_blocking(sh: CorrelateShape, m: Machine) -> CorrelateBlocking:
    width, taps, _ = longest(sh.phases)
    block = _block(m)
    # Where each column of a row has a phase, a tile has all of them.
    step = sh.phases[0].step if sh.phases else 1
    whole = len(sh.phases) == step > 1
    columns = _columns(max(step if whole else 1, sh.planes), m)
    tile = round_up(even_parts(width, columns), block if width > columns else 8)
    reasons = [
        f"{sh.K} filters of one channel each, {taps} taps: channels in the lanes",
        "panel: transposed, for one block of channels at a time",
        "compact tile, then the rows",
    ]
    # From memory, rows come much faster that way, and a little slower from the last cache.
    size = sh.N * sh.K * (sh.source_width + sh.out_width) * (sh.item if sh.same_type else 2)
    fetched = sh.planes == 1 and not whole and size > m.l2_bytes
    if fetched:
        reasons.append("what the next tile reads, and this one writes, is fetched meanwhile")
    if sh.tap_pairs:
        reasons.insert(1, "k = 2 taps of BF16 (FP32 for an odd one)")
    return CorrelateBlocking(
        "taps",
        "channels",
        nb=1,
        packed=True,
        direct=False,
        rounded=False,
        tile=tile,
        border=min(block, tile),
        vector=1,
        kb=m.vector_bytes // sh.item,
        cb=1,
        chunk=tile,
        reasons=tuple(reasons),
        interleaved=whole,
        fetched=fetched,
    )


def depthwise_weight_blocking(sh: WeightShape, m: Machine) -> WeightBlocking:
    width, taps, _ = longest(sh.phases)
    lb = m.vector_bytes // sh.item
    columns = min(_COLUMNS, m.l2_bytes // 4 // (sh.row_planes * m.vector_bytes))
    tiles = max(1, sh.N * ceil_div(width, columns))
    # As in weight_blocking: a slot has a thousand positions at least, and as many tiles as others.
    most = max(1, sh.N * width // 2**10)
    slots = min(ceil_div(ITEMS, ceil_div(sh.lanes, lb)), tiles, most)
    slots = 1 << max(1, slots).bit_length() - 1
    tile = max(1, even_parts(max(1, width), columns, slots // gcd(sh.N, slots)))
    reasons = [f"channels in the lanes, each with one of x: dot products of rows, {taps} taps"]
    if sh.lane_pairs:
        reasons.append("k = 2 positions of BF16 (FP32 for an odd one)")
    return WeightBlocking(
        "depthwise",
        pairs=False,
        packed=True,
        tile=tile,
        border=tile,
        step=tile,
        stack=1,
        nb=1,
        lb=lb,
        last_lb=sh.lanes % lb,
        l_blocks=1,
        rb=1,
        slots=slots,
        flush=max(1, 2**14 // tile),
        reasons=tuple(reasons),
    )
