"""The choices of engine 2, for weight gradients; see _blocking.py."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, isqrt

from xsmmconv._blocking import (
    ITEMS,
    REACH_BYTES,
    Machine,
    ceil_div,
    collide,
    even_parts,
    longest,
    round_up,
    too_far,
)
from xsmmconv._geometry import Phase, interior

# Positions that one tap reduces at a time, and short rows together: so often their sums are loaded
# and stored.
_ONE_TAP_TILE = 512
_ROWS_TILE = 256
_FETCHED = "what the next tile reads is fetched meanwhile"


@dataclass(frozen=True, slots=True)
class WeightShape:
    """One group of a weight gradient: `lanes` channels of one operand against `rows` of the other.

    The lane operand is transposed per tile, so that its channels are neighbours; the row operand is
    read along the width, the reduction axis.
    """

    N: int
    groups: int
    lanes: int
    rows: int
    taps: int
    phases: tuple[Phase, ...]  # one per plane of the lane operand
    row_width: int
    row_planes: int
    item: int
    same_type: bool  # the operands are of the computing type
    direct_rows: bool  # the rows can be read in place if so; this must not change a sum
    known_rows: bool  # kernels may depend on their length; nor must this
    depthwise: bool = False  # each of the lanes has one channel of the rows to itself; no groups
    lane_pairs: bool = False  # and both are pairs of BF16 with the next position
    direct_out: bool = False  # a row channel's sums lie in the result as those of a tile do
    borders: tuple[tuple[int, int, int], ...] = ()  # positions that have some of the lanes: which
    lane_step: int = 0  # lanes are taps of one channel, so many columns apart


@dataclass(frozen=True, slots=True)
class WeightBlocking:
    lists: str  # "taps": n = taps of one run and row channel; "channels": n = row channels of one
    # tap; "batch": so, and k = rows of the batch; "depthwise": one channel of each, and no matrix
    pairs: bool  # tiles that all taps use are multiplied as pairs of BF16 positions
    packed: bool
    tile: int  # positions reduced by one program
    border: int  # and near a border, where rows are always packed
    step: int  # positions per list entry
    stack: int  # taps that each lane stands for in a kernel call
    nb: int  # rows of the batch that a tile reduces over together
    lb: int  # lanes of a kernel call
    last_lb: int  # and of the last one, if that has fewer
    l_blocks: int  # lane blocks of a work item, which share its panel
    rb: int  # row channels of a work item
    slots: int  # partial sums, added in a fixed order
    flush: int  # tiles summed before the partial sum moves on to the total
    reasons: tuple[str, ...]
    fetched: bool = False  # what the next tile reads is brought to L2 while one is computed


def lanes_from(K: int, C: int, s: int, direct: bool, item: int, vector_bytes: int) -> str:
    """Which operand's channels fill the vector lanes better: "grad_out" (K) or "x" (C). If both do,
    those of x may be neighbours in the result, which the kernels then can write."""
    lanes = vector_bytes // item

    def filled(channels: int) -> float:
        # A single vector is loaded for each of its multiply-adds.
        return channels / round_up(channels, lanes) * (0.9 if channels <= lanes else 1)

    # The planes of a strided x are transposed one by one, for some of the taps each (measured).
    least = 1.2 if s > 1 else 1 if direct else 1.03
    better = filled(C) >= least * filled(K) if direct else filled(C) > least * filled(K)
    return "x" if better else "grad_out"


def kernel_lanes(lanes: int, item: int, m: Machine) -> int:
    """m for so many lanes. Kernels are slower with masks, and without (AVX2) they would take a
    remainder in pieces of 4, 2 and 1: a vector is filled up with lanes whose sums are not used."""
    vector = m.vector_bytes // item
    if 2 * lanes >= vector:
        return round_up(lanes, vector)
    return lanes if m.vector_bytes == 64 else 1 << (lanes - 1).bit_length()


# Cycles of a multiply-add of so many vectors of lanes, against the best number of them: with AVX2,
# with AVX-512, and where its vectors are loaded in halves, which masks do not slow down either.
_AVX2, _AVX512, _HALVED = (0, 1.2, 1.03, 1.02, 1), (0, 1.2, 1.12, 1), (0, 1, 1, 1)


def _lane_block(sh: WeightShape, m: Machine, taps: int, reach: int) -> tuple[int, int]:
    """Lanes of a kernel call, and for how many taps each of them stands there.

    Few lanes are few accumulators, and a load for nearly every multiply-add. With those of earlier
    positions beside them, a position's lanes are a matrix of several taps; but all of them have to
    use it, and it has to be written.
    """
    vector, block = m.vector_bytes // sh.item, 128 // sh.item
    width = longest(sh.phases)[0]
    if sh.direct_out and sh.N * width <= 16 and sh.lanes % vector == 0:
        # Long pieces of the rows that the kernels write.
        return round_up(even_parts(sh.lanes, 2**14 // (width * sh.item)), vector), 1
    lb = sh.lanes if 2 * sh.lanes <= 3 * block else block
    if m.vector_bytes == 32 and lb > block and not sh.borders:
        lb = ceil_div(lb, 2)  # the last of five vectors would have few accumulators
    lb = kernel_lanes(lb, sh.item, m)
    cost = _AVX2 if m.vector_bytes == 32 else _HALVED if m.halved else _AVX512
    most = len(cost) - 1
    far = 4 * reach * sh.rows * sh.item > m.l2_bytes  # their panels leave little of L2
    if m.bf16 or far or sh.rows < 8 or not vector <= 2 * sh.lanes <= most * vector:
        return lb, 1
    lag = max((run.spacing for phase in sh.phases for run in phase.runs), default=1)
    room = min((b - a for a, b in map(interior, sh.phases)), default=0)

    def cycles(lanes: int, stack: int) -> float:
        """Estimate for a position, from measurements of the kernels and of stacking."""
        multiply = 0.0
        for count, together in (taps // stack, stack), (1, taps % stack):
            vectors = ceil_div(lanes * together, vector)
            masked = 1.1 if lanes * together % vector and not m.halved else 1
            multiply += count * vectors * cost[vectors] * masked * sh.rows / 2
        write = (14 if lanes * sh.item >= 64 else 7) * ceil_div(lanes * stack * sh.item, 64)
        return multiply + (write if stack > 1 else 0)

    best = lb, 1
    for lanes in (lb, sh.lanes) if m.vector_bytes == 64 else (lb,):  # AVX2 has no masks
        for stack in range(2, min(taps, most * vector // lanes) + 1):
            if room >= 16 * (stack - 1) * lag + 640:
                best = min(best, (lanes, stack), key=lambda c: cycles(*c))
    return best


def _weight_lists(sh: WeightShape, m: Machine, lb: int, stack: int) -> tuple[str, bool, str]:
    """Kind of the lists, whether BF16 is multiplied in pairs, and why."""
    width, taps, reach = longest(sh.phases)
    # Each vector of lanes has n accumulators, and so many do not wait for each other.
    vectors = ceil_div(lb, m.vector_bytes // sh.item)
    enough = 8 if vectors > 1 else 12
    by_taps = m.overlap and reach * sh.item < REACH_BYTES and taps >= min(sh.rows, enough)
    pairs = m.bf16
    if pairs:  # each row is a call; few positions of a stride are mostly borders
        busy = vectors > 1 and not m.halved and (sh.row_planes == 1 or width >= 1000)
        by_taps = by_taps and taps > 2 * sh.rows and (busy or vectors * sh.rows < 8)
    lists = "taps" if by_taps else "channels"
    reason = f"lists over positions, n = {lists}: {taps} taps against {sh.rows} channels"
    if pairs:
        reason += ", k in pairs of BF16 (FP32 for an odd position)"
    if stack > 1:
        whole = all(len(run.taps) % stack == 0 for phase in sh.phases for run in phase.runs)
        lists = "taps" if by_taps and whole and taps >= 8 * stack else "channels"
        reason = f"lists over positions, each lane for {stack} taps, n = {lists}"
    return lists, pairs, reason


def _good_rows(sh: WeightShape, lists: str, pairs: bool) -> bool:
    """Whether n row channels can be read as they lie: copied, they are not read much faster, unless
    their distance brings the same columns of all to the same few sets of the caches. Kernels for
    pairs count in pairs from row to row, and wait longer for what has left L1."""
    item = 2 if pairs else sh.item
    good = sh.row_planes == 1 and lists == "channels" and not too_far(sh.row_width, item)
    if pairs:
        near = max(sh.lanes, sh.rows) > 64 and collide(sh.row_width * item, 4096)
        good = good and sh.row_width % 2 == 0 and not near
    else:
        good = good and sh.same_type
    return good and gcd(sh.row_width * item, 2**16) <= _ONE_TAP_TILE * item


def _row_block(sh: WeightShape, m: Machine, lb: int, one_tap: bool) -> tuple[int, int]:
    """Lane blocks and rows of an item, whose sums fill half of L2 at most. Rows that are copied are
    about as many as lanes, if there are: each lane is transposed once per block of rows, each row
    copied once per block of lanes (and more often if threads outnumber the items). Where a row is
    longer than a lane, by the stride, they are fewer."""
    sums = m.l2_bytes // 2 // (sh.taps * sh.item)
    blocks = ceil_div(sh.lanes, lb)
    l_blocks = max(0 if one_tap else isqrt(sums * sh.row_planes), sums // sh.rows) // lb
    l_blocks = even_parts(blocks, max(1, min(l_blocks, blocks)))
    return l_blocks, max(1, sums // (l_blocks * lb))


def _batch_rows(sh: WeightShape, width: int, columns: int) -> int:
    """Rows of the batch that are reduced together, if these are so short that loading and storing
    the sums is much of the work of each. `columns` of them fit in the caches."""
    most = min(sh.N, _ROWS_TILE // max(1, width), columns)
    return max((n for n in range(1, most + 1) if sh.N % n == 0), default=1)


def _tile(sh: WeightShape, m: Machine, lb: int, rb: int, columns: int, in_l1: bool) -> int:
    """Positions of a tile. Long tiles amortise loading and storing the sums, and the beginnings of
    rows that come from memory; A streams from L2, fast enough. But what few lanes and rows have had
    better stay in L1 from tap to tap, unless vectors are loaded in halves anyway."""
    tile = min(m.l2_bytes // 8 // (lb * sh.item), columns)
    if in_l1 and not m.halved and lb * sh.item <= m.vector_bytes and 2 * rb <= 3 * lb:
        tile = min(tile, m.l1_bytes // 4 * 3 // ((lb + rb) * sh.item))
    return tile


def _from_memory(sh: WeightShape, m: Machine, width: int) -> bool:
    """Whether the operands are more than L2 holds, and better fetched ahead."""
    stored = sh.item if sh.same_type else 2
    elements = sh.lanes * width * len(sh.phases) + sh.rows * sh.row_width
    return m.amd and sh.N * sh.groups * elements * stored > m.l2_bytes


def weight_blocking(sh: WeightShape, m: Machine) -> WeightBlocking:
    width, taps, reach = longest(sh.phases)
    lb, stack = _lane_block(sh, m, taps, reach)
    lists, pairs, reason = _weight_lists(sh, m, lb, stack)
    good = _good_rows(sh, lists, pairs)
    one_tap = good and sh.taps == 1
    in_place = lists == "taps" and (pairs or sh.same_type)
    in_place = sh.direct_rows and (sh.known_rows if good else in_place)
    packed = not in_place or sh.row_planes > 1
    l_blocks, rb = _row_block(sh, m, lb, one_tap)
    # A slot costs three passes over its sums, so it gets a thousand positions at least. Where that
    # leaves few, the rows are divided, if the parts keep some hundred microseconds of work.
    most_slots = max(1, sh.N * width // 2**10)
    size = sh.groups * sh.lanes * sh.rows
    parts = max(1, min(4 // most_slots, size * taps * sh.N * width // 2**23))
    l_parts = sh.groups * ceil_div(sh.lanes, lb)
    rb = min(rb, ceil_div(sh.rows * l_parts, parts))
    step = round_up(width, 1 + pairs) if width <= 128 else 64  # short rows in one step
    panel = m.l2_bytes // 4 // (sh.item * sh.row_planes)  # columns of all row channels together
    halo = min(reach, taps * step)  # taps far apart have windows of their own
    if one_tap:
        tile, blocks = _ONE_TAP_TILE, l_parts * ceil_div(sh.rows, rb)
        copied = even_parts(sh.rows, min(rb, panel // tile))
        rb = copied if packed else even_parts(sh.rows, rb)
    else:
        rb = copied = even_parts(sh.rows, max(1, min(rb, panel // (step + halo))))
        columns = panel // rb - halo
        if pairs and columns < 2 * step:  # far taps; the elements are of half the size
            columns = max(columns, 3 * panel // (2 * rb * taps))
        in_l1 = lists == "channels" and stack == 1 and taps > 4
        tile = _tile(sh, m, lb, rb, columns, in_l1)
        tile, blocks = min(16 * step, tile // step * step), l_parts * ceil_div(sh.rows, rb)
    tile = min(max(step, tile), round_up(width, step))
    # No sum may depend on whether rows are copied.
    room = min(m.l2_bytes // 8 // (lb * sh.item), panel // copied) // (step + halo)
    nb = _batch_rows(sh, width, room) if width <= step and stack == 1 else 1
    tiles = max(1, sh.N // nb * sum(ceil_div(phase.count, tile) for phase in sh.phases))
    slots = min(ceil_div(ITEMS, blocks), tiles, 2**26 // (size * sh.taps * sh.item), most_slots)
    slots = 1 << max(1, slots).bit_length() - 1
    # As many tiles in every slot, so that threads finish together.
    tile = round_up(even_parts(width, tile, slots // gcd(sh.N // nb, slots)), step)
    border = max(step, min(4 * step, tile, (panel // rb - halo) // step * step))
    flush = max(1, 2**14 // (nb * tile))
    fetched = _from_memory(sh, m, width)
    return WeightBlocking(
        lists,
        pairs,
        packed,
        tile,
        border,
        step,
        stack,
        nb,
        lb,
        kernel_lanes(sh.lanes % lb, sh.item, m) if sh.lanes % lb else 0,
        l_blocks,
        rb,
        slots,
        flush,
        (reason, _FETCHED) if fetched else (reason,),
        fetched,
    )
