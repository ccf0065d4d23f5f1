"""The choices for weight gradients by dot products of rows; see _blocking.py.

Some rows of one operand (a) against some taps of the other (b), with positions in the lanes: every
load serves as many multiply-adds as there are rows or taps on the other side, whatever the numbers
of channels, and nothing is transposed. What it costs is that the sums of a call's vectors have to
be added up at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from xsmmconv._blocking import ITEMS, Machine, ceil_div, even_parts, longest, round_up
from xsmmconv._geometry import Phase, interior
from xsmmconv._problem import ConvProblem

# Taps of a call with 1, 2, ... rows a, by the bytes of a vector: what the registers hold.
_TAPS = {64: (8, 8, 7, 6, 5, 4), 32: (6, 6, 4)}
# Bytes of a row in a tile, at most: its positions are summed up by one call.
_ROW_BYTES = 2**14
# Against matrix products: what calls reach of their speed, and positions of a row and a tap that
# are multiplied while one is transposed for them; by the bytes of a vector.
_SPEED = {64: (0.96, 6), 32: (0.85, 4)}


@dataclass(frozen=True, slots=True)
class RowShape:
    """One group of a weight gradient: rows a, whose positions count, against the taps of rows b."""

    N: int
    groups: int
    a_rows: int
    b_rows: int
    taps: int
    phases: tuple[Phase, ...]  # one
    b_width: int
    b_planes: int
    item: int  # bytes of an element that is multiplied,
    computed: int  # and of a sum
    pairs: bool  # BF16 is multiplied in pairs of positions
    in_place: bool  # rows can be read in place; no sum depends on it
    out: tuple[int, int, int]  # elements of the result from one row a, row b and tap to the next


@dataclass(frozen=True, slots=True)
class RowBlocking:
    pairs: bool  # BF16 is multiplied in pairs of positions
    packed: bool  # rows b are copied for each tile
    copied: bool  # rows a are
    together: int  # channels b whose same tap has a call to itself; 1: calls have any taps
    tile: int  # positions
    nb: int  # rows of the batch that are reduced together
    slots: int  # partial sums, added in a fixed order
    parts: tuple[int, ...]  # rows a of a call
    taps: tuple[int, ...]  # of a call with 1, 2, ... rows a, at most
    reasons: tuple[str, ...]
    fetched: bool  # while a tile is computed, later rows are brought to L2


def parts_of(rows: int, most: int) -> tuple[int, ...]:
    """Numbers of rows of a call, as equal as can be."""
    count = ceil_div(rows, most)
    return tuple(rows // count + (i < rows % count) for i in range(count))


def loads(rows: int, taps: int, m: Machine) -> float:
    """Cycles of a multiply-add of so many rows a and taps of b, as far as loads determine them."""
    most, total = _TAPS[m.vector_bytes], 0.0
    for part in parts_of(rows, len(most)):
        together = ceil_div(taps, ceil_div(taps, most[part - 1]))
        total += max(part, 2 * (part + together) / together)
    return total / rows


def rows_are_better(p: ConvProblem, lanes_from: str, computed: int, item: int, m: Machine) -> bool:
    """Whether they are, than matrix products with lanes from "grad_out" or "x" in `computed` bytes.
    These are a little faster where vectors are full, but transpose the lanes, for so many rows and
    taps. From measurements. `item`: bytes of what dot products multiply."""
    C, K, vector = p.C // p.g, p.K // p.g, m.vector_bytes // computed
    lanes, rows = (K, C) if lanes_from == "grad_out" else (C, K)
    # What is read by taps should stay in the second-level cache, some hundred positions of it.
    read = C * p.s if p.s > 1 else min(C, K)
    if read * min(p.Q, 512) * item > m.l2_bytes:
        return False
    if p.s > 1 and rows <= ceil_div(p.S, p.s) < 8:
        return True  # the columns of a matrix product, taps of a plane, would be few
    if m.vector_bytes < 64 and rows <= (8 if lanes <= vector else 6) and p.Q >= 200:
        return True  # these leave few accumulators to a matrix product
    speed, transposed = _SPEED[m.vector_bytes]
    filled = lanes / round_up(lanes, vector)
    filled *= 1.02 if filled == 1 or m.vector_bytes == 64 else 0.93  # AVX2 has no masks
    if m.vector_bytes == 64 and not m.halved and lanes <= vector and rows <= 16:
        stacked = item == computed and rows >= 8 and p.S > 25  # lanes stand for several taps
        if p.N * p.Q >= 1000 and not stacked:
            filled *= 0.9  # with one vector, there is a load for nearly every multiply-add
    speed *= p.Q / round_up(p.Q, vector)
    sums = 3 / p.Q + 48 / (item * max(1, p.N) * p.Q)  # of a row, and of a call
    return speed + transposed / (rows * p.S) - sums >= filled


def _together(sh: RowShape, m: Machine, rows: int, taps: int) -> int:
    """Channels whose taps are listed together, of up to `taps`. It is best to read one row again
    and again, but positions that only some taps of a call use take longer: where these are far
    apart, a call has the same tap of several channels, if there are as many and L1 holds them."""
    width, longest_run, reach = longest(sh.phases)
    a, b = interior(sh.phases[0])
    lost = reach * min(taps, longest_run) // max(1, longest_run)
    enough = min(sh.b_rows, taps) + 1 >= min(sh.taps, taps)
    enough = enough and (rows + taps) * width * sh.item <= m.l1_bytes
    return taps if enough and b - a < width < 32 * lost else 1


def row_blocking(sh: RowShape, m: Machine) -> RowBlocking:
    width, taps, reach = longest(sh.phases)
    limits = _TAPS[m.vector_bytes]
    parts = parts_of(sh.a_rows, len(limits))
    packed, line = sh.b_planes > 1 or not sh.in_place, 64 // sh.item
    # No sum depends on whether rows are copied, and copies fill the second-level cache at most: all
    # rows b, which all blocks of rows a read, and a block of these.
    room = m.l2_bytes - max(parts) * _ROW_BYTES
    room = room // (sh.b_rows * sh.b_planes * sh.item) - 2 * line
    columns = max(room - reach, room // max(1, taps))
    columns = max(line, min(_ROW_BYTES // sh.item, columns) // line * line)
    tile = round_up(even_parts(max(1, width), columns), line)
    most = columns // (tile + min(reach, (taps - 1) * tile))
    together = _together(sh, m, max(parts), limits[max(parts) - 1])
    if together > 1:
        most = min(most, m.l1_bytes // ((max(parts) + together) * tile * sh.item))
    nb = max(n for n in range(1, max(1, min(sh.N, most)) + 1) if sh.N % n == 0)
    # As in weight_blocking: a slot has a thousand positions at least. And there are so many slots
    # that few sums of tiles follow one another.
    tiles, positions = sh.N // nb * ceil_div(width, tile), sh.N * width
    size = sh.groups * sh.a_rows * sh.b_rows * sh.taps * sh.computed
    slots = max(ceil_div(ITEMS, sh.groups), tiles // 2**13)
    slots = min(slots, tiles, positions // 2**10, 2**26 // size)
    slots = 1 << max(1, slots).bit_length() - 1
    # As many tiles in every slot, so that threads finish together.
    each = slots // gcd(sh.N // nb, slots)
    if width >= 2**10 * each:
        tile = round_up(even_parts(width, columns, each), line)
    reasons = [
        f"dot products of rows: {sh.a_rows} in calls of {max(parts)}, against {sh.b_rows} with "
        f"{sh.taps} taps; positions in the lanes"
    ]
    if sh.pairs:
        reasons.append("k = 2 positions of BF16")
    if packed or not sh.in_place:
        copied = "all rows" if not sh.in_place else "rows that are read with a stride"
        reasons.append(f"{copied} are copied for each tile")
    if together > 1:
        reasons.append(f"taps of {together} channels together, as they have the same borders")
    # Nothing is fetched of what L2 holds anyway.
    elements = sh.a_rows * width + sh.b_rows * sh.b_width
    fetched = sh.N * sh.groups * elements * sh.item > m.l2_bytes
    if fetched:
        reasons.append("later rows are fetched meanwhile")
    return RowBlocking(
        sh.pairs,
        packed,
        not sh.in_place,
        together,
        tile,
        nb,
        slots,
        parts,
        limits,
        tuple(reasons),
        fetched,
    )
