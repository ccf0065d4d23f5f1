"""The choice of k = rows of the batch in weight gradients; see _blocking.py and _lower_batch.py."""

from __future__ import annotations

from xsmmconv._blocking import ITEMS, Machine, ceil_div, even_parts
from xsmmconv._blocking_weight import WeightBlocking, WeightShape, kernel_lanes
from xsmmconv._lower_batch import operand_positions, tap_positions


def _rows_together(sh: WeightShape, m: Machine, lb: int) -> int:
    """Rows of the batch of a tile: equal blocks, of which either operand has a quarter of L2, with
    as many lanes or channels as a kernel is fast with; or fewer, where N has no such divisor."""
    lanes, rows = operand_positions(sh)
    elements = m.l2_bytes // 4 // sh.item
    together = 1
    for channels in 64, 16:
        most = min(64, elements // (lb * lanes.count))
        most = min(most, sh.N, elements // (min(sh.rows, channels) * rows.count))
        together = max((nb for nb in range(1, most + 1) if sh.N % nb == 0), default=1)
        if together > 1:
            break
    return together


def _lanes(sh: WeightShape, m: Machine) -> int:
    block = 128 // sh.item
    return kernel_lanes(sh.lanes if 2 * sh.lanes <= 3 * block else block, sh.item, m)


def batch_is_better(sh: WeightShape, m: Machine, dots: bool) -> bool:
    """Whether rows are short, and not simply read in place: taps at borders have other positions
    each, planes of a stride have to be copied, an odd position of BF16 has no partner. (Measured;
    also against `dots` of rows, which few channels are better off with.)"""
    taps = list(tap_positions(sh.phases, sh.row_planes))
    if not taps or sh.depthwise or sh.N < 2:
        return False
    width = max(tap.count for tap in taps)
    strided = sh.row_planes > 1 or sh.phases[0].step > 1
    odd = m.bf16 and width % 2 == 1
    trimmed = not strided and len({(tap.lane, tap.count) for tap in taps}) > 1
    most = 80 if m.bf16 and (odd or trimmed) else 40
    if dots:
        most = 20 if strided else 12
    if sh.N < 4:
        most = 3 * most // 8
    if width > most or not (odd or trimmed or (strided and (m.bf16 or sh.taps > 1))):
        return False
    _, rows = operand_positions(sh)
    used = rows.count <= 4 * sum(tap.count for tap in taps)  # most of what is transposed
    return used and _rows_together(sh, m, _lanes(sh, m)) >= 2


def batch_blocking(sh: WeightShape, m: Machine) -> WeightBlocking:
    lanes, rows = operand_positions(sh)
    lb = _lanes(sh, m)
    nb, blocks = _rows_together(sh, m, lb), ceil_div(sh.lanes, lb)
    # The panel has a quarter of L2, and the sums half of it.
    rb = m.l2_bytes // 4 // (rows.count * nb * sh.item)
    rb = even_parts(sh.rows, max(1, min(rb, m.l2_bytes // 2 // (sh.taps * lb * sh.item))))
    l_blocks = max(1, min(blocks, m.l2_bytes // 2 // (sh.taps * sh.item * rb * lb)))
    l_blocks = even_parts(blocks, l_blocks)
    tiles = sh.N // nb
    most_slots = max(1, sh.N * lanes.count // 2**10)
    items = sh.groups * ceil_div(blocks, l_blocks) * ceil_div(sh.rows, rb)
    size = sh.groups * sh.lanes * sh.rows * sh.taps
    slots = min(ceil_div(ITEMS, items), tiles, 2**26 // size, most_slots)
    slots = 1 << max(1, slots).bit_length() - 1
    reason = f"short rows: k = {nb} rows of the batch, lists over the positions of a tap"
    if m.bf16:
        reason += ", in pairs of BF16"
    return WeightBlocking(
        "batch",
        m.bf16,
        True,
        lanes.count,
        lanes.count,
        lanes.count,
        1,
        nb,
        lb,
        kernel_lanes(sh.lanes % lb, sh.item, m) if sh.lanes % lb else 0,
        l_blocks,
        rb,
        slots,
        max(1, 2**14 // (nb * lanes.count)),
        (reason,),
    )
