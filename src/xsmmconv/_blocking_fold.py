"""The choice of taps as filters, whose rows of sums are folded: backward data for few channels.

For each tap t and channel, z_t[q] = sum over filters of w_t * grad[q] is a row of one matrix
product, whatever the stride and the borders; the gradient at column q*s + t*d - pl is the sum of
z_t[q] over the taps. Adding costs as much as a dozen filters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xsmmconv._blocking import (
    CorrelateShape,
    Machine,
    ceil_div,
    collide,
    even_parts,
    round_up,
    too_far,
)
from xsmmconv._blocking_correlate import correlate_blocking

_LONGEST_K = 1024  # of a kernel


@dataclass(frozen=True, slots=True)
class FoldShape:
    """One group of a gradient with respect to the input."""

    N: int
    groups: int
    filters: int  # of a group: what is summed,
    channels: int  # and results
    S: int
    W: int
    Q: int
    s: int
    d: int
    pl: int
    item: int  # bytes of an element of the computing type
    pairs: bool  # BF16 is multiplied in pairs of filters
    direct: bool  # rows can be read in place; no sum depends on it

    @property
    def steps(self) -> int:
        """Of a kernel's k: filters, or pairs of them."""
        return ceil_div(self.filters, 1 + self.pairs)

    @property
    def span(self) -> int:
        """Over how many columns of a residue class of the stride one position is folded."""
        return ((self.S - 1) * self.d - self.pl) // self.s - -self.pl // self.s + 1

    def first_valid(self, tap: int) -> int:
        """The first position whose product with a tap has a column."""
        return max(0, -((tap * self.d - self.pl) // self.s))

    def end_valid(self, tap: int) -> int:
        return min(self.Q, (self.W - 1 - (tap * self.d - self.pl)) // self.s + 1)


@dataclass(frozen=True, slots=True)
class FoldBlocking:
    chunk: int  # positions of a kernel call
    kb: int  # steps of k in a call
    window: int  # columns of a residue class that are being summed
    packed: bool  # a chunk of the rows is copied
    reasons: tuple[str, ...]


def fold_blocking(sh: FoldShape, m: Machine) -> FoldBlocking | None:
    """None if that does not fit L2, as for taps far apart."""
    rows, lanes = sh.S * sh.channels, m.vector_bytes // sh.item
    columns = m.l2_bytes // 2 // (sh.item * (sh.steps + rows)) // lanes * lanes
    chunk = min(columns, 512, round_up(sh.Q, lanes))
    if chunk < min(4 * lanes, round_up(sh.Q, lanes)):
        return None
    chunk = round_up(even_parts(sh.Q, chunk), lanes)
    least = sh.span + chunk
    window = min(ceil_div(sh.W, sh.s), max(2 * least, 2**13 // (sh.channels * sh.s)))
    if (sh.channels + 1) * sh.s * window * sh.item > m.l2_bytes // 4:
        return None
    distance = sh.Q * sh.item
    apart = not collide(distance) and not collide(distance, m.l2_bytes // 8, 1024)
    apart = m.amd and (apart or distance <= 1024)  # or all of them side by side
    packed = not (sh.direct and apart) or too_far(sh.Q, sh.item)
    reason = f"{sh.S} taps of {sh.channels} channel(s) are the rows of one matrix product, folded"
    reasons = reason, "panel: a copy of a chunk" if packed else "rows in place"
    return FoldBlocking(chunk, even_parts(sh.steps, _LONGEST_K), window, packed, reasons)


def _share(sh: FoldShape, m: Machine, merged: bool) -> float:
    """Of the peak that other ways reach, as measured: a kernel for a channel or two loads a vector
    for nearly each multiply-add, unless their taps are split, and phases and borders are short."""
    reach = (sh.S - 1) * sh.d
    whole_tiles = sh.filters * (512 + reach) * sh.item <= 3 * m.l2_bytes // 4
    split = sh.channels < 3 and sh.S >= 12 and sh.Q >= 512 + 4 * reach and whole_tiles
    if sh.s == 1 and (split or (sh.channels > 3 and sh.Q >= 8 * reach)):
        return 0.9
    if merged:
        return 0.5 if sh.pairs else 0.7
    if sh.channels > 3:
        share = 0.5 if sh.pairs else 0.57
        return share if sh.Q < 64 * reach else share + 0.08
    if sh.pairs and 8 < sh.Q < 64 and sh.filters >= 256:
        return 0.04
    share = ((0.3, 0.42, 0.47), (0.13, 0.25, 0.33))[sh.pairs][sh.channels - 1]
    if sh.Q < 16 * reach:
        return 0.7 * share
    from_memory = sh.N * sh.groups * sh.filters * sh.Q * sh.item > 4 * m.l2_bytes
    return 0.64 if sh.channels == 3 and from_memory and not sh.pairs else share


def fold_is_better(sh: FoldShape, other: CorrelateShape, m: Machine) -> bool:
    """Whether channels are few enough, and filters many, for folding to be faster than the
    correlation. Sums depend on this, so it does not depend on how the operands lie."""
    few = sh.filters >= 8 and sh.channels <= (15 if sh.s == 1 else 7) and sh.Q > 0
    bl = fold_blocking(replace(sh, direct=other.same_type), m) if few else None
    if bl is None or not _is_cheaper(sh, bl, m, bool(other.merged)):
        return False
    known = replace(other, direct_source=other.same_type, known_source=other.same_type)
    # Channels in the lanes, of rows so short, are faster.
    return sh.W > 48 * sh.s or not correlate_blocking(known, m).transposed


def _is_cheaper(sh: FoldShape, bl: FoldBlocking, m: Machine, merged: bool) -> bool:
    """An estimate of the parts in positions and taps: the products of all taps, those of borders in
    narrow calls, bringing the rows, and adding."""
    first, end = sh.first_valid(0), sh.end_valid(sh.S - 1)
    inner = max(0, end - first) * sh.S
    pairs = sum(max(0, sh.end_valid(t) - sh.first_valid(t)) for t in range(sh.S))
    brought = (25 if sh.pairs else 10) if bl.packed else 4
    adding = (24 if sh.pairs else 12) * (1 if sh.channels == 1 else 4 / 3) / sh.filters
    border = (6 if sh.pairs else 4) * (pairs - inner)
    cost = 1.2 * inner + border + brought * sh.Q / sh.channels + adding * pairs
    # A single row is not divided between threads.
    gain = 0.9 if sh.N * sh.groups > 1 else 0.55
    return cost < gain * pairs / _share(sh, m, merged)
