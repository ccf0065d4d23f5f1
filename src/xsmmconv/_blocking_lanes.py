"""The choice of filters as vector lanes, for short rows and many channels; see _blocking.py.

Their channels are innermost in a transposed panel, and no vector is read at any alignment.
"""

from __future__ import annotations

from dataclasses import replace

from xsmmconv._blocking import (
    CorrelateBlocking,
    CorrelateShape,
    Machine,
    ceil_div,
    chunk_columns,
    collide,
    even_parts,
    in_l1,
    longest,
    round_up,
    too_far,
    trimmed,
)


def _batch_block(sh: CorrelateShape, m: Machine, width: int, reach: int, sparse: bool) -> int:
    """Rows of the batch that fill n together: equal blocks, of about 64 columns each. Where each
    column is a call of its own, of up to 64 rows."""
    positions = min((width + reach) * sh.planes, sh.source_width)
    fits = 7 * m.l2_bytes // 8 // (sh.C * positions * sh.item)
    divisors = [nb for nb in range(1, min(sh.N, max(1, fits), 384) + 1) if sh.N % nb == 0]
    most = 64 if sparse else ceil_div(64, width) + 1
    best = max(nb for nb in divisors if nb <= most)
    if best * width >= 24:
        return best
    # Rather too many columns than so few, where nothing in between divides the batch.
    return min((nb for nb in divisors if best < nb <= 384 // width), default=best)


def _sparse(sh: CorrelateShape, m: Machine, width: int, reach: int) -> bool:
    """Whether most taps of most columns read padding. Then the list of each column is another one,
    of what few taps it has, and n is rows of the batch, if there are enough."""
    pairs = all_pairs = 0
    for phase in sh.phases:
        for run in phase.runs:
            all_pairs += phase.count * len(run.taps)
            for j in range(len(run.taps)):
                first, end = max(0, run.first_valid(j)), min(phase.count, run.end_valid(j))
                pairs += max(0, end - first)
    tile = min(sh.K, 128 // sh.item) * width * 9 * sh.item
    few = sh.N < 8 or 8 * min(sh.channels, sh.K) < m.vector_bytes or 3 * pairs >= 2 * all_pairs
    return not few and 2 * tile <= m.l2_bytes and _batch_block(sh, m, width, reach, True) >= 8


def _vectors(n: int, sh: CorrelateShape, m: Machine) -> int:
    """As how many vectors n numbers are computed. Without masks (AVX2), what is left of them takes
    pieces of half a vector and of one number, which cost as much as a vector each."""
    lanes = m.vector_bytes // sh.item
    left, half = n % lanes, lanes // 2
    pieces = min(left, 1) if m.vector_bytes == 64 else left // half + left % half
    return n // lanes + pieces


def _filled(sh: CorrelateShape, m: Machine, n: int) -> float:
    """How much of their vectors n numbers use."""
    return n / (m.vector_bytes // sh.item * _vectors(n, sh, m))


def short_rows(sh: CorrelateShape, m: Machine, lists: str, width: int, taps: int) -> bool:
    """Whether rows are too short for columns in the lanes and lists over channels."""
    lanes = m.vector_bytes // sh.item
    few = 2 * sh.channels < lanes
    if sh.tap_pairs or sh.C * sh.K == 1:
        return False
    if sh.K < lanes:
        return width <= _few_filters(sh, m, taps)
    if few and not sh.pairs:
        # Planes of a stride are copied in any case, so that channels can as well be transposed.
        most = 28 if sh.planes > 1 and sh.channels > 2 else _few_filters(sh, m, taps)
    else:
        most = 4 * lanes - 1 if lists == "taps" and not few else 2 * lanes
    if trimmed(sh.phases):
        if lists == "channels" or (few and sh.pairs):
            most = max(most, bordered_rows(m, sh.item, sh.pairs, sh.channels, sh.K, taps))
        elif m.vector_bytes < 64 and not few:
            most = 32 * lanes
    least = sh.K / round_up(sh.K, lanes) * _filled_enough(sh, m, lists, width, taps)
    return width <= most or _filled(sh, m, width) < least


def bordered_rows(m: Machine, item: int, pairs: bool, channels: int, K: int, taps: int) -> float:
    """Up to how many columns rows with borders are too short for columns in the lanes. There, each
    tap is a call of its own, and each piece of the border takes a vector, as many without masks
    (AVX2). With filters in the lanes, nothing is wasted (measured)."""
    lanes = m.vector_bytes // item
    used = lanes * K / round_up(K, lanes)
    if m.vector_bytes < 64:
        return used * taps * min(channels, 4) / 2
    return used * (3 + taps) / 2 if pairs else used * (1 + 3 * taps) / 8


def _filled_enough(sh: CorrelateShape, m: Machine, lists: str, width: int, taps: int) -> float:
    """How much of their vectors columns have to fill, against filters (measured)."""
    lanes = m.vector_bytes // sh.item
    if 2 * sh.channels < lanes:
        return 0.7 if sh.C * taps >= 2 * lanes and width <= 4 * lanes and not sh.pairs else 0.0
    if width >= 8 * lanes:
        return 0.0
    if lists == "channels":
        return 0.7 if sh.same_type else 0.0
    if sh.pairs:
        return 0.95
    return 0.9 if sh.C * taps >= 5 * lanes else 0.0  # some are faster in FP32 all the same


def _few_filters(sh: CorrelateShape, m: Machine, taps: int) -> float:
    """Up to which width rows are too short where filters leave lanes empty, or channels are a short
    k. A row that is copied to a panel first takes time for each of its channels (measured)."""
    lanes, vectors = m.vector_bytes // sh.item, _vectors(sh.K, sh, m)
    copied = not sh.same_type or sh.planes > 1  # whatever the layout: no bit depends on it
    most = 2 + sh.K / (2 * vectors) + (8 / vectors if copied else 0)
    if 2 * sh.channels < lanes:
        most = min(most, 8 if taps > 1 or copied else 4)
    return most


def _fills_vectors(sh: CorrelateShape, m: Machine, width: int, taps: int) -> bool:
    """Whether short rows fill the vectors well enough to be read in place, if they stay in L1."""
    filled, least = _filled(sh, m, width), 2 * m.vector_bytes // sh.item
    if any(phase.step > 1 for phase in sh.phases) and (width < 28 or sh.C >= 32):
        return False  # phases of so few columns are brought together faster while they are lanes
    few = filled >= 0.6 if taps == 1 else filled >= 0.85 and width >= least and sh.C <= 64
    return few and not trimmed(sh.phases)


def _few_columns(sh: CorrelateShape, m: Machine, width: int) -> bool:
    """Whether packing weights would cost more than it gains: one tap, whose filters are neighbours
    in memory. (Those that collide in L1 would be read from L2 for every dozen columns.)"""
    lanes, most = m.vector_bytes // sh.item, 12 if collide(sh.K * sh.item, 4096) else 128
    lie_so = sh.order == "CKS" and sh.S == 1 and sh.same_type and not too_far(sh.K, sh.item)
    lie_so = lie_so and 2 * sh.C >= lanes <= sh.K and not sh.merged
    return lie_so and sh.N * width <= min(most, sh.C * sh.K // 128)


def filters_in_lanes(
    sh: CorrelateShape, m: Machine, short: bool, width: int, taps: int, reach: int
) -> CorrelateBlocking | None:
    """Channels innermost in a transposed panel, n = columns x nb rows of the batch: for rows too
    short to fill the lanes, and for so many multiply-adds per element that transposing it is cheap
    against reading columns at any alignment for each tap."""
    lanes, block = m.vector_bytes // sh.item, 128 // sh.item
    few = min(sh.C, sh.K)
    many = taps > 1 and few >= 4 * block and few * taps >= 16 * block
    few_columns, sparse = _few_columns(sh, m, width), _sparse(sh, m, width, reach)
    if few_columns or sparse:
        short = True
    elif short and in_l1(sh, m) and _fills_vectors(sh, m, width, taps):
        return None
    if sh.tap_pairs or sh.merged or not (short or (many and not sh.pairs)):
        return None
    short = sparse or (short and not (many and width > 8 * lanes))
    if short:
        nb, tile, chunk = _batch_block(sh, m, width, reach, sparse), width, width
        reason = f"rows of {width} columns: filters in the lanes, n = columns x rows of the batch"
    else:
        # Each chunk streams all weights, so it is as wide as L2 lets it be. (12: see below.)
        room = 7 * m.l2_bytes // 8 // ((sh.C * sh.planes + block) * sh.item)
        fits = max(room - reach, room // taps)
        chunk = chunk_columns(sh, 4 * lanes, reach, m.l2_bytes)
        chunk = even_parts(width, max(1, min(chunk, fits)))
        nb, tile = 1, round_up(even_parts(chunk, 16 * lanes), 12)
        chunk = round_up(chunk, tile)
        reason = f"{sh.C} channels, {taps} taps, {sh.K} filters: filters in the lanes"
    # Few filters leave accumulators for many columns, which share what is read of the weights:
    # those stream from L2. (2 vectors x 12 columns; AVX2 x 6, or 4 x 3 for short rows.)
    kb, border = min(sh.K, block if short else 2 * lanes), 1 if sparse else min(tile, 12)
    if few_columns and sh.N * width <= 4:  # longer pieces of the weights
        kb = min(sh.K, 2 * block)
    reasons = (
        reason,
        "lists over taps: k = channels",
        "panel: transposed, channels innermost",
        "compact tile, then the rows",
    )
    cb = even_parts(sh.C, 512 if m.vector_bytes == 64 else 128)
    bl = CorrelateBlocking(
        "taps", "filters", nb, True, False, False, tile, border, 1, kb, cb, chunk, reasons
    )
    return _weights(sh, m, bl)


def _weights(sh: CorrelateShape, m: Machine, bl: CorrelateBlocking) -> CorrelateBlocking:
    """Where few columns need weights that lie as they are read, these are not packed. Where one
    item reads all weights of a group, those of a block of filters are packed right before they are
    used: so they never leave L2, if that holds them and what the item has."""
    width, _, reach = longest(sh.phases)
    if _few_columns(sh, m, width) and sh.natural:
        return replace(bl, unpacked=True, reasons=(*bl.reasons, "weights as they lie"))
    panel = sh.C * bl.nb * min((bl.chunk + reach) * sh.planes, sh.source_width)
    tile = bl.kb * bl.tile * (bl.nb + 1)
    fits = (sh.C * sh.S * bl.kb + panel + tile) * sh.item <= m.l2_bytes
    if sh.N > bl.nb or width > bl.chunk or not (fits and (sh.same_type or sh.pairs)):
        return bl
    reasons = (*bl.reasons, "weights packed for a block of filters right before its use")
    return replace(bl, by_block=True, reasons=reasons)
