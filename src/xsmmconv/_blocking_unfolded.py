"""The choices for few positions, whose weights are not worth packing."""

from __future__ import annotations

from dataclasses import dataclass

from xsmmconv._blocking import Machine, ceil_div, even_parts, round_up

# Positions of the output, of all rows of the batch: their sums are in registers.
_MOST = 4
# Bytes of the weights of an item.
_ITEM = 2**16


@dataclass(frozen=True, slots=True)
class UnfoldedShape:
    """One group of any pass."""

    N: int
    groups: int
    C: int  # channels and filters per group
    K: int
    S: int
    d: int
    width: int  # of x
    places: tuple[tuple[int, int, int], ...]
    # of each position of a row: the column of x where tap 0 is, the first and the end of its taps
    stored: int  # bytes of an element of the arrays,
    item: int  # and of a sum


@dataclass(frozen=True, slots=True)
class UnfoldedBlocking:
    kind: int  # 0, 1, 2: sums by filter (forward), by channel (backward data), weights
    filters: int  # of an item
    channels: int  # of a call, and in backward data of an item
    masked: bool  # some taps do not reach x
    fetched: bool  # weights that are written come from memory, and are asked for before
    reasons: tuple[str, ...]


def places(p) -> tuple[tuple[int, int, int], ...]:
    """Of each position of the output, for few of them."""
    found = []
    for q in range(p.Q):
        column = q * p.s - p.pl
        first = min(p.S, max(0, ceil_div(-column, p.d)))
        found.append((column, first, min(p.S, max(first, ceil_div(p.W - column, p.d)))))
    return tuple(found)


def few_positions(p) -> bool:
    return 0 < p.N * p.Q <= _MOST


def unfolded_is_better(sh: UnfoldedShape, m: Machine, kind: int) -> bool:
    """Whether moving the weights takes the time."""
    lanes, size = m.vector_bytes // sh.item, sh.C * sh.S
    # Matrix products of weights that lie as the kernels want them are as fast, or faster.
    if sh.S == 1 and sh.stored == sh.item and kind >= (1 if m.vector_bytes == 64 else 2):
        return False
    unfolded = sh.groups * len(sh.places) * sh.N * round_up(size, lanes) * sh.item
    return (
        sh.K >= lanes
        and size >= 2 * lanes
        and sh.width * sh.item <= m.l1_bytes
        and max(unfolded, 4 * size * sh.stored) <= m.l2_bytes // 2
    )


def unfolded_blocking(sh: UnfoldedShape, m: Machine, kind: int) -> UnfoldedBlocking:
    row, lanes = sh.C * sh.S * sh.stored, m.vector_bytes // sh.item
    masked = any(end - first < sh.S for _, first, end in sh.places)
    reasons = [f"{sh.N * len(sh.places)} position(s): x unfolded, weights as they lie"]
    if masked:
        reasons.append("masks for taps that do not reach x")
    filters = even_parts(sh.K, round_up(max(1, _ITEM // row), 4))
    # Pieces of rows, for which the sums stay in L1, or what is unfolded.
    positions = sh.N * len(sh.places)
    channels = round_up(max(1, m.l1_bytes // 2 // (positions * sh.S * sh.item)), lanes)
    if kind == 1:  # of the result, whose rows are in scratch memory
        channels = min(channels, max(1, m.l2_bytes // 4 // (sh.width * sh.item)))
    sizes = round_up(filters, 4), min(sh.C, channels)
    # Those of a smaller result come from the last cache, and come in time.
    fetched = kind == 2 and m.amd and sh.groups * sh.K * row > 4 * m.l2_bytes
    if fetched:
        reasons.append("what is written is fetched before")
    return UnfoldedBlocking(kind, *sizes, masked, fetched, tuple(reasons))
