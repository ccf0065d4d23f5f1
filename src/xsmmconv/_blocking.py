"""Problem + machine -> tile sizes, kind of list, packing, split of the work. Pure integers.

Everything here depends on the problem and the instruction set alone, never on the number of
threads: that is what makes results bitwise equal for every number of threads.
Sizes are in elements of the computing type unless they say bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xsmmconv._geometry import Phase, Run

# Displacements inside a kernel are 32 bits wide; stay well below.
REACH_BYTES = 2**30
# Enough work items for dynamic scheduling to even out a dozen threads.
ITEMS = 32
# A call of a kernel should do at least this many multiply-adds, or its fixed cost shows.
CALL_WORK = 2**14
# A work item this many, and a thread that is woken for it.
ITEM_WORK, THREAD_WORK = 2**18, 2**20
# Columns of a tile whose taps are split, at most.
SPLIT_COLUMNS = 4096
# Bytes of a panel that stays in L2 whatever else does, and wants few pages of the TLB.
_SMALL_PANEL = 2**17


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choices depend on: the instruction set and the caches of one core."""

    isa: str
    vector_bytes: int
    overlap: bool  # kernels with overlapping operands can be had
    bf16: bool  # pairs of BF16 numbers are multiplied natively
    halved: bool  # vectors are loaded in halves: a line's end within one costs little
    l1_bytes: int
    l2_bytes: int


def too_far(distance: int, item: int) -> bool:
    """Whether the columns of an operand of a kernel would be so far apart: it reads up to 23 of
    them at displacements from one address, and fetches some ahead."""
    return 32 * distance * item >= REACH_BYTES


def kernel_type(item: int, pairs: bool, rounded: bool = False) -> str:
    """Type of the operands of a kernel, and whether it rounds FP32 results to theirs."""
    if pairs:
        return "bfloat16 rounded" if rounded else "bfloat16"
    return "float32" if item == 4 else "float64"


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    return ceil_div(a, b) * b


def even_parts(extent: int, limit: int, multiple: int = 1) -> int:
    """Size of the parts when `extent` is cut into the fewest, nearly equal parts <= limit; their
    number is to be a multiple of `multiple`."""
    return ceil_div(extent, round_up(ceil_div(extent, limit), multiple))


@dataclass(frozen=True, slots=True)
class CorrelateShape:
    """One group of a correlation: forward, backward data or a transposed convolution."""

    N: int
    groups: int
    channels: int  # source channels per group
    pairs: bool  # the kernels multiply pairs of BF16 channels, which then are the elements
    tap_pairs: bool  # or of BF16 taps
    C: int  # steps of a kernel's k per group: channels, or pairs of them
    K: int  # output channels per group
    phases: tuple[Phase, ...]
    source_width: int
    planes: int  # the source is read with this stride
    out_width: int
    item: int  # bytes of an element of the computing type
    same_type: bool  # operands are of the computing type: contiguous rows can be used in place
    direct_source: bool  # and these are contiguous; this must not change a sum
    direct_out: bool  # rows can be written in place
    rounded_out: bool  # or are of BF16, which kernels can round their results to
    known_source: bool  # kernels may depend on the length of the source's rows,
    known_out: bool  # and of the output's; these two alone must not change a sum
    depthwise: bool = False  # each of the K filters has one channel to itself; there are no groups
    merged: tuple[Run, ...] = ()  # of phases that are filters, too: one after the other of each


@dataclass(frozen=True, slots=True)
class CorrelateBlocking:
    lists: str  # "channels": k = taps, overlapping columns; "taps": k = channels; "pairs" of taps
    lanes: str  # m, the vectorised dimension of the kernels: "columns", "filters", or "channels" of
    # filters that have one each
    nb: int  # batch rows of a work item (lanes = filters: n = columns x nb)
    packed: bool  # the source is copied to a panel per chunk
    direct: bool  # kernels write the rows of the output themselves
    rounded: bool  # or do so where one call computes a tile, and there is no bias and no ReLU
    tile: int  # columns of a kernel call
    border: int  # and near a border
    vector: int  # positions that cost as much as one
    kb: int  # filters of a kernel call
    cb: int  # channels of a list entry (lists over taps)
    chunk: int  # columns of a work item
    reasons: tuple[str, ...]
    split: int = 1  # one filter: its taps are so many filters with fewer taps
    interleaved: bool = False  # a chunk of all phases is collected, then written as whole rows
    fetched: bool = False  # what the next chunk copies to the panel is brought to L2 meanwhile,
    rows_fetched: bool = False  # and where the interleaved rows will be written
    by_block: bool = False  # weights are packed for a block of filters right before its use

    @property
    def transposed(self) -> bool:
        """Whether positions follow each other in the panel, and not the columns of a row."""
        return self.lanes != "columns"


def multiply_pairs(C: int, K: int, phases: tuple[Phase, ...], m: Machine) -> str:
    """Whether BF16 is multiplied in pairs, of "channels" or of "taps". FP32 has half the peak, but
    no half-empty pairs, and filters in the lanes for short rows."""
    lengths = [len(run.taps) for phase in phases for run in phase.runs]
    lanes = m.vector_bytes // 4
    if not m.bf16:
        return ""
    if longest(phases)[0] <= 2 * lanes:
        return "channels" if C >= lanes and K >= lanes else ""
    if C < 4:
        return "taps" if max(lengths, default=1) > 1 else ""
    # Half a pair is empty where there is an odd number of them. Taps need a larger panel.
    halves, of_taps = ceil_div(C, 2) / C, 1.04 * sum(ceil_div(n, 2) for n in lengths)
    return "taps" if K > 1 and of_taps < halves * sum(lengths) else "channels"


def phases_as_filters(phases: tuple[Phase, ...], C: int, K: int) -> tuple[Run, ...]:
    """The runs of the phases of a stride that are better taken as filters: all read the same input,
    and the filters are so few that a kernel would load a vector for nearly each multiply-add."""
    step = len(phases)
    seen = {(p.count, r.shift, r.spacing, len(r.taps)) for p in phases for r in p.runs}
    whole = step > 1 and all(p.step == step for p in phases) and len(seen) == 1
    if whole and C >= 8 and K < 16 and K * step <= 64 and longest(phases)[0] >= 64:
        return tuple(run for phase in phases for run in phase.runs)
    return ()


def longest(phases: tuple[Phase, ...]) -> tuple[int, int, int]:
    """The most positions of a phase, and the most taps of a run and how far they reach."""
    runs = [run for phase in phases for run in phase.runs]
    taps = max((len(run.taps) for run in runs), default=0)
    reach = max(((len(run.taps) - 1) * run.spacing for run in runs), default=0)
    return max((phase.count for phase in phases), default=1), taps, reach


def _trimmed(sh: CorrelateShape) -> bool:
    """Whether there are borders, where only some of the taps contribute."""
    return any(
        run.first_valid(0) > 0 or run.end_valid(len(run.taps) - 1) < phase.count
        for phase in sh.phases
        for run in phase.runs
    )


def _short_and_trimmed(sh: CorrelateShape, m: Machine, width: int, taps: int) -> bool:
    """Whether borders are much of the work, and k = taps would be a short one there."""
    return taps < sh.C and width <= 16 * m.vector_bytes // sh.item and _trimmed(sh)


def _in_l1(sh: CorrelateShape, m: Machine) -> bool:
    """Whether all channels' rows, which lie beside each other, stay in L1: no two of them collide
    there, and a panel gains nothing."""
    size = sh.C * sh.source_width * sh.item
    return sh.known_source and sh.planes == 1 and 4 * size <= 5 * m.l1_bytes


def collide(distance: int, way: int = 2048, near: int = 64) -> bool:
    """Whether so many bytes from row to row bring the same columns of all to few sets of a cache:
    they are near a multiple of `way` (of L1, if nothing is said)."""
    return not near <= distance % way <= way - near


def _one_tap(sh: CorrelateShape, m: Machine, taps: int) -> bool:
    """Whether rows of some channels that one tap reads need no panel: the kernels fetch those of
    the next tile while they compute, and keep up unless they come from memory."""
    if taps != 1 or sh.planes != 1 or not 16 < sh.C <= 64 or not sh.same_type:
        return False
    size = sh.N * sh.groups * (sh.C * sh.source_width + sh.K * sh.out_width) * sh.item
    return size <= 3 * m.l2_bytes


def _from_memory(sh: CorrelateShape, m: Machine, rows: int, width: int) -> bool:
    """Whether so many rows of all groups are more than L2 holds, and better fetched ahead. (AMD's
    Zen 4 gains by that, Intel's Skylake was slower.)"""
    stored = sh.item if sh.same_type else 2
    return m.halved and sh.N * sh.groups * rows * width * stored > m.l2_bytes


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
        while tile * sh.K * sh.C * taps < CALL_WORK and tile < 64 * lanes:
            tile *= 2
    if not sh.direct_out:  # the compact tile must fit L1 too
        rows = min(sh.K, 64) * sh.item
        tile = max(min(tile, m.l1_bytes // 2 // rows // lanes * lanes), 4 * lanes)
    return round_up(even_parts(width, tile), lanes)


def _chunk(sh: CorrelateShape, tile: int, reach: int, panel_bytes: int) -> int:
    """Columns of an item. If it has a panel, that is small, as far as the halo and a few tiles let
    it be, and with the halo at most `panel_bytes`."""
    width, taps, _ = longest(sh.phases)
    total, work = width * sh.N * sh.groups, sh.C * sh.K * max(1, taps)
    # Columns an item may have, so that there are enough items, and has at least.
    share = max(ceil_div(total, ITEMS), ceil_div(ITEM_WORK, work))
    if panel_bytes:
        column = sh.C * sh.item * sh.planes * (1 + sh.tap_pairs)
        small = max(512, _SMALL_PANEL // column, 2 * reach)
        # Rows come faster from memory in pieces of 512 columns than in shorter ones.
        enough = max(ceil_div(total, ITEMS // 4), ceil_div(THREAD_WORK, work))
        share = max(share, min(512, enough))
        room = panel_bytes // column  # taps that are far apart have a window each
        share = min(max(share, 4 * tile, reach), small, max(room - reach, room // max(1, taps)))
    return round_up(min(max(share, tile), width, 8192), tile)


def _lists(sh: CorrelateShape, m: Machine, width: int, taps: int, reach: int) -> tuple[str, str]:
    """Kind of the lists, and why. The longer k wins, or no panel for few channels."""
    channels = min(sh.C, 64)
    if sh.tap_pairs:
        return "pairs", f"k = 2 taps of BF16, {taps} taps of {sh.C} channels"
    if sh.pairs:
        return "taps", f"k = {sh.channels} channels, in pairs of BF16"
    if _split(sh, m, width, taps, reach) > 1:
        return "channels", f"one filter, k = {taps} taps in parts"
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
    if in_place and (taps > 1 or 8 * taps >= sh.C) and few:
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


def _channel_block(sh: CorrelateShape, taps: int) -> int:
    """k of lists over taps: each call loads and stores its result, so k * taps should be long.
    Several taps read the same columns, which should then stay in L1. In pairs, the call that
    computes a tile alone also rounds it."""
    if taps == 1:
        return even_parts(sh.C, 1024)
    return even_parts(sh.C, 512 if sh.pairs else max(64, 256 // max(1, taps)))


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


def _short(sh: CorrelateShape, m: Machine, lists: str, width: int, taps: int) -> bool:
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
        short = short or (width <= 32 * lanes and _trimmed(sh))
    return short and not sh.tap_pairs and sh.K >= lanes and 2 * sh.channels >= lanes


def _fills_vectors(sh: CorrelateShape, m: Machine, width: int, taps: int) -> bool:
    """Whether short rows fill the vectors well enough to be read in place, if they stay in L1."""
    filled, least = _filled(sh, m, width), 2 * m.vector_bytes // sh.item
    few = filled >= 0.6 if taps == 1 else filled >= 0.85 and width >= least and sh.C <= 64
    return few and not _trimmed(sh)


def _filters_in_lanes(
    sh: CorrelateShape, m: Machine, short: bool, width: int, taps: int, reach: int
) -> CorrelateBlocking | None:
    """Channels innermost in a transposed panel, n = columns x nb rows of the batch: for rows too
    short to fill the lanes, and for so many multiply-adds per element that transposing it is cheap
    against reading columns at any alignment for each tap."""
    lanes, block = m.vector_bytes // sh.item, 128 // sh.item
    few = min(sh.C, sh.K)
    many = taps > 1 and few >= 4 * block and few * taps >= 16 * block
    if short and _in_l1(sh, m) and _fills_vectors(sh, m, width, taps):
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
        chunk = _chunk(sh, 4 * lanes, reach, m.l2_bytes)
        chunk = even_parts(width, max(1, min(chunk, fits)))
        nb, tile = 1, round_up(even_parts(chunk, 16 * lanes), 12)
        chunk = round_up(chunk, tile)
        reason = f"{sh.C} channels, {taps} taps, {sh.K} filters: filters in the lanes"
    # Few filters leave accumulators for many columns, which share what is read of the weights:
    # those stream from L2. (2 vectors x 12 columns; AVX2 x 6, or 4 x 3 for short rows.)
    kb, border = min(sh.K, block if short else 2 * lanes), min(tile, 12)
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
    return _by_block(sh, m, bl)


def _by_block(sh: CorrelateShape, m: Machine, bl: CorrelateBlocking) -> CorrelateBlocking:
    """Where one item reads all weights of a group, those of a block of filters are packed right
    before they are used: so they never leave L2, if that holds them and what the item has."""
    width, _, reach = longest(sh.phases)
    taps = sum(len(run.taps) for phase in sh.phases for run in phase.runs)
    panel = sh.C * bl.nb * (bl.chunk + reach) * sh.planes
    tile = bl.kb * bl.tile * (bl.nb + 1)
    fits = (sh.C * taps * bl.kb + panel + tile) * sh.item <= m.l2_bytes
    if sh.N > bl.nb or width > bl.chunk or not (fits and (sh.same_type or sh.pairs)):
        return bl
    reasons = (*bl.reasons, "weights packed for a block of filters right before its use")
    return replace(bl, by_block=True, reasons=reasons)


def _split(sh: CorrelateShape, m: Machine, width: int, taps: int, reach: int) -> int:
    """In how many parts the taps of a single filter are taken. A kernel with one column in B loads
    a vector for every multiply-add; with three, one for three. Parts of equal length are best."""
    single = len(sh.phases) == 1 and len(sh.phases[0].runs) == 1 and sh.K == 1
    single = single and not sh.tap_pairs
    # The ends of tiles and the borders, where nothing is gained, should be a small part.
    worth = sh.channels * taps >= 112 if sh.pairs else sh.C >= (4 if taps < 48 else 2)
    worth = worth and taps >= 12 and width >= 512 + (4 * reach if _trimmed(sh) else 0)
    if not (single and worth and m.overlap) or _split_tile(sh, m, width, reach) < 512:
        return 1
    return 2 if taps % 3 and taps % 2 == 0 else 3


def _split_tile(sh: CorrelateShape, m: Machine, width: int, reach: int) -> int:
    """Columns of a tile whose taps are split, wide because its ends are single columns of B again.
    A panel of it would fit L2."""
    share = max(1024, min(SPLIT_COLUMNS, ceil_div(width * sh.N * sh.groups, ITEMS)))
    fits = 3 * m.l2_bytes // 4 // (sh.C * sh.item) - reach
    return min(round_up(even_parts(width, share), 64), fits // 64 * 64)


def _interleaved(sh: CorrelateShape, m: Machine, bl: CorrelateBlocking) -> CorrelateBlocking:
    """With a stride each phase has every s-th column of a row: written one phase after the other,
    a row comes and goes s times. Where every column has a phase, whole rows can be written."""
    step = sh.phases[0].step if sh.phases else 1
    if not sh.merged and (bl.direct or bl.transposed or step == 1 or len(sh.phases) != step):
        return bl
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
    little = little or _in_l1(sh, m) or _one_tap(sh, m, taps)
    distance, way = sh.source_width * sh.item, m.l2_bytes // 8
    apart = m.halved and not collide(distance) and not collide(distance, way, 1024)
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
    short = _short(sh, m, lists, width, taps)
    filters = _filters_in_lanes(sh, m, short, width, taps, reach)
    if filters is not None:
        return filters
    if short:  # the same sums, whether or not this length has been seen before
        lists, why = "taps", f"rows of {width} columns that stay in L1"
    reasons = [f"lists over {lists}: {why}"]
    packed, apart, why_packed = _panel(sh, m, lists, width, taps)
    reasons += why_packed
    tile = _tile(sh, m, width, taps, reach)
    # All blocks of filters read a chunk, which then stays in L2.
    chunk = _chunk(sh, tile, reach, m.l2_bytes // 2 if packed or apart else 0)
    split, cb = _split(sh, m, width, taps, reach), _channel_block(sh, taps)
    if split > 1:
        tile = chunk = _split_tile(sh, m, width, reach)
        # What so many channels read of a block of columns stays in L1.
        cb = even_parts(sh.C, max(1, m.l1_bytes // 3 // ((4 * lanes + reach) * sh.item)))
        reasons.append(f"one filter: {taps} taps in {split} parts, added up at the end")
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
    # Calls for some of the taps are short in k where that means taps, and a vector of few filters
    # has few accumulators: then tiles are wider.
    border = min(tile, lanes if lists == "taps" and sh.K > 4 else 4 * lanes)
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
