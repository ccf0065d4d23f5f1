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


def _batch_block(sh: CorrelateShape, width: int) -> int:
    """Rows of the batch that fill n together: equal blocks, of about 64 columns each."""
    return max(b for b in range(1, ceil_div(64, width) + 1) if sh.N % b == 0)


def _filled(sh: CorrelateShape, m: Machine, width: int) -> float:
    """How much of the vectors of a row is used. Without masks (AVX2), what is left of a row takes
    pieces of half a vector and of one number, which cost as much as a vector each."""
    lanes = m.vector_bytes // sh.item
    left, half = width % lanes, lanes // 2
    pieces = min(left, 1) if m.vector_bytes == 64 else left // half + left % half
    return width / (lanes * (width // lanes + pieces))


def short_rows(sh: CorrelateShape, m: Machine, lists: str, width: int, taps: int) -> bool:
    """Whether rows are too short for columns in the lanes and lists over channels."""
    lanes = m.vector_bytes // sh.item
    short = width <= 2 * lanes or (width < 4 * lanes and lists == "taps")
    if lists == "taps" and width < 8 * lanes:
        # Rows that leave more of their last vector empty than filters would; in FP32 some of them
        # are faster all the same (measured).
        by_filters = sh.K / round_up(sh.K, lanes)
        worth = sh.pairs or sh.C * taps >= 5 * lanes
        filled = _filled(sh, m, width)
        short = short or (worth and filled < (0.95 if sh.pairs else 0.9) * by_filters)
    if lists == "taps" and m.vector_bytes < 64:  # and borders are pieces, too
        short = short or (width <= 32 * lanes and trimmed(sh))
    return short and not sh.tap_pairs and sh.K >= lanes and 2 * sh.channels >= lanes


def _fills_vectors(sh: CorrelateShape, m: Machine, width: int, taps: int) -> bool:
    """Whether short rows fill the vectors well enough to be read in place, if they stay in L1."""
    filled, least = _filled(sh, m, width), 2 * m.vector_bytes // sh.item
    few = filled >= 0.6 if taps == 1 else filled >= 0.85 and width >= least and sh.C <= 64
    return few and not trimmed(sh)


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
    few_columns = _few_columns(sh, m, width)
    if few_columns:
        short = True
    elif short and in_l1(sh, m) and _fills_vectors(sh, m, width, taps):
        return None
    if sh.tap_pairs or sh.merged or not (short or (many and not sh.pairs)):
        return None
    short = short and not (many and width > 8 * lanes)
    if short:
        nb, tile, chunk = _batch_block(sh, width), width, width
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
    kb, border = min(sh.K, block if short else 2 * lanes), min(tile, 12)
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
    panel = sh.C * bl.nb * (bl.chunk + reach) * sh.planes
    tile = bl.kb * bl.tile * (bl.nb + 1)
    fits = (sh.C * sh.S * bl.kb + panel + tile) * sh.item <= m.l2_bytes
    if sh.N > bl.nb or width > bl.chunk or not (fits and (sh.same_type or sh.pairs)):
        return bl
    reasons = (*bl.reasons, "weights packed for a block of filters right before its use")
    return replace(bl, by_block=True, reasons=reasons)
