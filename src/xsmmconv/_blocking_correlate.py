"""The choices of engine 1, for correlations with matrices; see _blocking.py."""

from __future__ import annotations

from dataclasses import replace

from xsmmconv._blocking import (
    ITEMS,
    REACH_BYTES,
    SPLIT_COLUMNS,
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
from xsmmconv._blocking_lanes import bordered_rows, filters_in_lanes, short_rows
from xsmmconv._geometry import Phase, Run, interior

# A call of a kernel should do at least this many multiply-adds, or its fixed cost shows.
_CALL_WORK = 2**14


def multiply_pairs(C: int, K: int, phases: tuple[Phase, ...], m: Machine) -> str:
    """Whether BF16 is multiplied in pairs, of "channels" or of "taps". FP32 has half the peak, but
    no half-empty pairs. Pairs of taps have no filters in the lanes, for short rows."""
    lengths = [len(run.taps) for phase in phases for run in phase.runs]
    width, taps, _ = longest(phases)
    lanes = m.vector_bytes // 4
    if not m.bf16:
        return ""
    if width <= 2 * lanes:
        return "channels" if C > 1 and C * K > 2 and (K >= lanes or width > 2) else ""
    if C == 1 or C * K <= 2:
        return "taps" if taps > 1 else ""
    if K >= lanes and trimmed(phases) and width <= bordered_rows(m, 4, True, C, K, taps):
        return "channels"  # so that filters can be in the lanes
    # Half a pair is empty where there is an odd number of them. Taps need a larger panel, which
    # takes as long as some pairs for one filter, and more calls where only some contribute.
    whole = sum(max(0, b - a) for a, b in map(interior, phases))
    borders = 1 - whole / max(1, sum(phase.count for phase in phases))
    halves, of_taps = ceil_div(C, 2) / C, sum(ceil_div(n, 2) for n in lengths) + 14 / K
    fewer = of_taps * (1.02 + borders / 3) < halves * sum(lengths)
    return "taps" if K > 2 and fewer else "channels"


def phases_as_filters(phases: tuple[Phase, ...], C: int, K: int) -> tuple[Run, ...]:
    """The runs of the phases of a stride that are better taken as filters: all read the same input,
    and the filters are so few that a kernel would load a vector for nearly each multiply-add."""
    step = len(phases)
    seen = {(p.count, r.shift, r.spacing, len(r.taps)) for p in phases for r in p.runs}
    whole = step > 1 and all(p.step == step for p in phases) and len(seen) == 1
    if whole and C >= 8 and K < 16 and K * step <= 64 and longest(phases)[0] >= 64:
        return tuple(run for phase in phases for run in phase.runs)
    return ()


def _short_and_trimmed(sh: CorrelateShape, m: Machine, width: int, taps: int) -> bool:
    """Whether borders are much of the work, and k = taps would be a short one there."""
    return taps < sh.C and width <= 16 * m.vector_bytes // sh.item and trimmed(sh.phases)


def _one_tap(sh: CorrelateShape, m: Machine, taps: int) -> bool:
    """Whether rows of some channels that one tap reads need no panel: the kernels fetch those of
    the next tile while they compute, and keep up unless they come from memory."""
    if taps != 1 or sh.planes != 1 or not 16 < sh.C <= 64 or not sh.same_type:
        return False
    size = sh.N * sh.groups * (sh.C * sh.source_width + sh.K * sh.out_width) * sh.item
    return size <= 3 * m.l2_bytes


def _from_memory(sh: CorrelateShape, m: Machine, rows: int, width: int) -> bool:
    """Whether so many rows of all groups are more than L2 holds, and better fetched ahead. (AMD's
    Zen 4 and 5 gain by that, Intel's Skylake was slower.)"""
    stored = sh.item if sh.same_type else 2
    return m.amd and sh.N * sh.groups * rows * width * stored > m.l2_bytes


def _tile(sh: CorrelateShape, m: Machine, width: int, taps: int, reach: int) -> int:
    lanes = m.vector_bytes // sh.item
    tile = 4 * lanes  # the kernels' own blocks: 4 vectors x 6 filters, with AVX2 4 x 3
    if width <= tile:
        return round_up(width, lanes)
    if m.vector_bytes == 64 and taps == 1 and (sh.C >= 64 or _one_tap(sh, m, taps)):
        return 3 * lanes  # 3 x 8: what is fetched for the next tile, or comes from L2, is less
    # Few channels: what a wide tile reads still fits L1, and long row segments are written faster.
    # Where rows are always copied, and fetched before, a few for each call, calls should be many.
    panel = sh.planes > 1 or not sh.same_type
    fetched = panel and _from_memory(sh, m, sh.channels, sh.source_width)
    wide = tile if fetched else 16 * lanes
    room = m.l1_bytes - (m.l1_bytes // 8 if sh.direct_out else 0)
    if sh.C * (wide + reach) * sh.item <= room:
        tile = wide
        while tile * sh.K * sh.C * taps < _CALL_WORK and tile < 64 * lanes:
            tile *= 2
    if not sh.direct_out:  # the compact tile must fit L1 too
        rows = min(sh.K, 64) * sh.item
        tile = max(min(tile, m.l1_bytes // 2 // rows // lanes * lanes), 4 * lanes)
    return round_up(even_parts(width, tile), lanes)


def _lists(sh: CorrelateShape, m: Machine, width: int, taps: int, reach: int) -> tuple[str, str]:
    """Kind of the lists, and why. The longer k wins, or no panel for few channels."""
    channels = min(sh.C, 64)
    if sh.tap_pairs:
        return "pairs", f"k = 2 taps of BF16, {taps} taps of {sh.C} channels"
    if sh.pairs:
        return "taps", f"k = {sh.channels} channels, in pairs of BF16"
    if _split(sh, m, width, taps, reach) > 1:
        return "channels", f"{_filters(sh)}, k = {taps} taps in parts"
    if not m.overlap:
        return "taps", "no kernels with overlapping operands in this copy of LIBXSMM"
    if reach * sh.item >= REACH_BYTES:
        return "taps", f"taps reach over {reach} columns, too far for one kernel call"
    in_place = sh.same_type and sh.planes == 1
    if in_place and _short_and_trimmed(sh, m, width, taps):
        return "taps", f"short rows with borders, k = {channels} channels"
    # Each block of filters reads them again, and rows that collide in L1 are read from L2.
    spread = not collide(sh.source_width * sh.item)
    few = sh.C <= 16 or (sh.C <= 24 and sh.K <= 2 * sh.C and spread)
    # One block reads them once, from whatever cache, and computes long enough for memory to come.
    few = few or (sh.K <= 16 and taps >= 5 and sh.K * taps >= 20)
    # What few filters compute takes less time than copying rows. (One or two wait for memory.)
    lanes = m.vector_bytes // sh.item
    few = few or (sh.K <= lanes and (sh.C <= 40 or sh.K > 3))
    few = few or (sh.K <= 2 * lanes and sh.C <= 40 and taps <= 5)
    if in_place and few and (taps > 1 or 8 * taps >= sh.C):
        return "channels", f"{taps} taps of {sh.C} channels are read in place"
    if taps >= channels or (not in_place and 2 * taps >= channels):
        return "channels", f"k = {taps} taps against {channels} channels"
    return "taps", f"k = {channels} channels against {taps} taps"


def _filter_block(sh: CorrelateShape, m: Machine, taps: int) -> int:
    """Filters of a call. Their weights stay in L2 beside the panel, for all tiles of a chunk."""
    if sh.merged:
        return sh.K
    if _one_tap(sh, m, taps):
        return even_parts(sh.K, 64)
    out_bytes = sh.N * sh.groups * sh.K * sh.out_width * sh.item
    little = sh.C * taps <= (1024 if sh.C <= 64 else 256)  # of the weights per filter
    if sh.direct_out and little and out_bytes > (1 if taps == 1 else 3) * m.l2_bytes:
        # Writing to memory takes the time, and the processor prefetches so many rows at once.
        return even_parts(sh.K, 16)
    fits = m.l2_bytes // 2 // max(1, sh.C * taps * sh.item)
    return even_parts(sh.K, 64 if fits >= 64 else 32)


def _channel_block(sh: CorrelateShape, m: Machine, taps: int) -> int:
    """k of lists over taps: each call loads and stores its result, so k * taps should be long.
    Several taps read the same columns, which should then stay in L1. In pairs, the call that
    computes a tile alone also rounds it."""
    if sh.planes > 1 and m.vector_bytes < 64:  # every few filters read them again
        return even_parts(sh.C, 32)
    if taps == 1:
        return even_parts(sh.C, 1024)
    return even_parts(sh.C, 512 if sh.pairs else max(64, 256 // max(1, taps)))


def _filters(sh: CorrelateShape) -> str:
    return "one filter" if sh.K == 1 else f"{sh.K} filters"


def _split(sh: CorrelateShape, m: Machine, width: int, taps: int, reach: int) -> int:
    """In how many parts the taps of one or two filters are taken. A kernel with one column in B
    loads a vector for every multiply-add; with three, one for three. Parts of equal length are
    best. (With AVX2, kernels for two columns are as fast as those for more.)"""
    few = sh.K <= (2 if m.vector_bytes == 64 else 1)
    single = few and len(sh.phases) == 1 and len(sh.phases[0].runs) == 1
    single = single and not (sh.tap_pairs or sh.merged)
    # The ends of tiles and the borders, where nothing is gained, should be a small part.
    worth = sh.channels * taps >= 112 if sh.pairs else sh.C >= (4 if taps < 48 else 2)
    if sh.K == 2:
        worth = sh.channels * taps >= 160 and sh.channels >= 4
    worth = worth and taps >= 12 and width >= 512 + (4 * reach if trimmed(sh.phases) else 0)
    if not (single and worth and m.overlap) or _split_tile(sh, m, width, reach) < 512:
        return 1
    return 2 if (taps % 3 or sh.K == 2) and taps % 2 == 0 else 3


def _split_tile(sh: CorrelateShape, m: Machine, width: int, reach: int) -> int:
    """Columns of a tile whose taps are split, wide because its ends are single columns of B again.
    A panel of it would fit L2."""
    share = max(1024, min(SPLIT_COLUMNS, ceil_div(width * sh.N * sh.groups, ITEMS)))
    fits = 3 * m.l2_bytes // 4 // (sh.C * sh.item) - reach
    return min(round_up(even_parts(width, share), 64), fits // 64 * 64)


def _interleaved(sh: CorrelateShape, m: Machine, bl: CorrelateBlocking) -> CorrelateBlocking:
    """With a stride each phase has every s-th column of a row: written one phase after the other,
    a row comes and goes s times. So a chunk of all phases is collected, with zeros for columns that
    no tap reaches, and whole rows are written."""
    step = sh.phases[0].step if sh.phases else 1
    if not sh.merged and (bl.direct or step == 1 or not sh.out_width):
        return bl
    step = min(step, sh.out_width)
    if bl.transposed:  # one tile is all of a row, and of columns that no tap reaches
        tile = ceil_div(sh.out_width, step)
        size = bl.kb * (step * tile * bl.nb + 2 * sh.out_width) * sh.item
        if bl.tile < longest(sh.phases)[0] or size > m.l2_bytes // 2:
            return bl
        reasons = (*bl.reasons, f"{step} phases: all of them, then whole rows")
        return replace(bl, interleaved=True, tile=tile, chunk=tile, reasons=reasons)
    fits = m.l2_bytes // 4 // (step * bl.kb * sh.item) // bl.tile * bl.tile
    if not fits and not sh.merged:
        return bl
    reasons = (*bl.reasons, f"{step} phases: a chunk of them, then whole rows")
    if sh.merged:
        fits = max(fits, bl.tile)
        reasons = (*bl.reasons, f"{len(sh.merged)} phases are filters, too; then whole rows")
    chunk, fetched = min(bl.chunk, fits), _from_memory(sh, m, sh.K, sh.out_width)
    return replace(bl, interleaved=True, chunk=chunk, rows_fetched=fetched, reasons=reasons)


def _panel(
    sh: CorrelateShape, m: Machine, lists: str, width: int, taps: int
) -> tuple[bool, bool, list[str]]:
    """Whether the source is copied to a panel, whether otherwise its rows lie apart in the caches,
    and why."""
    packed, apart = not sh.direct_source or sh.planes > 1, False
    if lists != "taps":
        return packed, apart, ["panel: the source is strided or of another type"] * packed
    # Rows of any length, and of powers of two, are better off in a panel.
    little = taps == 1 and (sh.K <= 16 or sh.C <= 16)
    little = little or _short_and_trimmed(sh, m, width, taps)
    little = little or in_l1(sh, m) or _one_tap(sh, m, taps)
    distance, way = sh.source_width * sh.item, m.l2_bytes // 8
    apart = not (collide(distance) or collide(distance, way, 1024))
    apart = m.amd and (apart or distance <= 1024)  # or all of them side by side
    packed = packed or not (sh.known_source and (little or apart))
    packed = packed or too_far(sh.source_width, sh.item)
    if packed:
        return packed, apart, ["panel: fixed leading dimension, no L1 conflicts"]
    ahead = apart or _one_tap(sh, m, taps)
    return packed, apart, ["rows in place: what the next tile reads is fetched meanwhile"] * ahead


def _fetched(sh: CorrelateShape, m: Machine, bl: CorrelateBlocking) -> CorrelateBlocking:
    """While a chunk is computed, lines of memory can come that the next one copies to its panel: if
    L2 has room for them beside this panel, and the rows are not there anyway."""
    _, _, reach = longest(sh.phases)
    spacing = max((run.spacing for phase in sh.phases for run in phase.runs), default=1)
    panel = sh.C * (bl.chunk + reach) * sh.planes * sh.item * (1 + sh.tap_pairs)
    near = bl.packed and bl.nb == 1 and spacing <= bl.chunk and 3 * panel <= m.l2_bytes
    if not near or not _from_memory(sh, m, sh.channels, sh.source_width):
        return bl
    reasons = (*bl.reasons, "what the next chunk copies is fetched meanwhile")
    return replace(bl, fetched=True, reasons=reasons)


def correlate_blocking(sh: CorrelateShape, m: Machine) -> CorrelateBlocking:
    return _fetched(sh, m, _interleaved(sh, m, _correlate_blocking(sh, m)))


def _correlate_blocking(sh: CorrelateShape, m: Machine) -> CorrelateBlocking:
    width, taps, reach = longest(sh.phases)
    lists, why = _lists(sh, m, width, taps, reach)
    lanes = m.vector_bytes // sh.item
    short = short_rows(sh, m, lists, width, taps)
    filters = filters_in_lanes(sh, m, short, width, taps, reach)
    if filters is not None:
        return filters
    if short:  # the same sums, whether or not this length has been seen before
        lists, why = "taps", f"rows of {width} columns that stay in L1"
    reasons = [f"lists over {lists}: {why}"]
    packed, apart, why_packed = _panel(sh, m, lists, width, taps)
    reasons += why_packed
    tile = _tile(sh, m, width, taps, reach)
    # All blocks of filters read a chunk, which then stays in L2.
    chunk = chunk_columns(sh, tile, reach, m.l2_bytes // 2 if packed or apart else 0)
    split, cb = _split(sh, m, width, taps, reach), _channel_block(sh, m, taps)
    if split > 1:
        tile = chunk = _split_tile(sh, m, width, reach)
        # What so many channels read of a block of columns stays in L1.
        cb = even_parts(sh.C, max(1, m.l1_bytes // 3 // ((4 * lanes + reach) * sh.item)))
        reasons.append(f"{_filters(sh)}: {taps} taps in {split} parts, added up at the end")
    kb = _filter_block(sh, m, taps)
    direct = sh.known_out and sh.out_width * kb * sh.item < REACH_BYTES
    rounded = direct and sh.rounded_out
    direct = direct and sh.direct_out
    reasons.append(
        "rows written in place"
        if direct
        else "rows rounded and written in place where one call computes them, unless bias or ReLU"
        if rounded
        else "compact tile, then the rows"
    )
    # Tiles are wider where calls for some of the taps are short in k, which means taps; or are few,
    # as taps are far apart; or where a vector of few filters has few accumulators.
    spacing = min((run.spacing for phase in sh.phases for run in phase.runs), default=1)
    narrow = lists == "taps" and sh.K > 4 and 2 * spacing < lanes
    border = min(tile, lanes if narrow else 4 * lanes)
    if sh.C * sh.K == 1:
        border = min(tile, 2 * lanes)
    return CorrelateBlocking(
        lists,
        "columns",
        1,
        packed,
        direct,
        rounded,
        tile,
        border,
        lanes,
        kb,
        cb,
        chunk,
        tuple(reasons),
        split,
    )
