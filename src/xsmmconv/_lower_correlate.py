"""Engine 1's program: geometry + blocking -> segments of tiles and the kernel calls of each.

A *call* is one batch-reduce kernel with its list of byte offsets; a *tile* is the sequence of calls
for a range of columns; a *segment* is a number of equal tiles in a row. Only offsets relative to
the tile are stored, so the program of the interior serves a row of any length.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby

from xsmmconv._blocking import (
    SPLIT_COLUMNS,
    CorrelateBlocking,
    CorrelateShape,
    ceil_div,
    kernel_type,
    too_far,
)
from xsmmconv._geometry import Phase, Rectangle, cover, split_taps, walk, with_gaps
from xsmmconv._layout import SourceLayout, dense_panel, in_place, panel, transposed_panel


@dataclass(frozen=True, slots=True)
class WeightLayout:
    """Where weight (filter, channel, tap) lies, in elements:
    tap[t] + filter*k + (channel//cb)*block + (channel%cb)*c, groups `group` apart.
    Where filters fill the lanes, `k` holds for whole blocks; the filters of one are neighbours."""

    tap: tuple[int, ...]
    k: int
    c: int
    cb: int
    block: int
    group: int
    packed: bool


@dataclass(slots=True)
class Program:
    """What engine 1 executes. Offsets and strides in bytes."""

    source: SourceLayout
    weight: WeightLayout
    offsets_a: list[int] = field(default_factory=list)
    offsets_b: list[int] = field(default_factory=list)
    calls: list[tuple] = field(default_factory=list)
    tiles: list[tuple] = field(default_factory=list)
    border_taps: list[tuple] = field(default_factory=list)
    segments: list[tuple] = field(default_factory=list)
    phases: list[tuple] = field(default_factory=list)
    kernels: dict[tuple, int] = field(default_factory=dict)
    partial: int = 0  # elements of the partial sums of a tile
    pair_lanes: tuple[int, int] = (0, 0)  # positions from tap to tap, and elements of the weights


def weight_layout(sh: CorrelateShape, bl: CorrelateBlocking, run_list, S: int) -> WeightLayout:
    """Of the user's array, if the kernels can read it there, or of the packed weights."""
    natural = sh.natural and sh.order == "KCS"
    if sh.tap_pairs and not sh.depthwise:
        # [filter]([channel][tap] in BF16, and the same in FP32 for single taps)
        order = {t: j for j, t in enumerate(t for run in run_list for t in run.taps)}
        size = sh.C * len(order)
        tap = tuple(ceil_div(size, 2) + order[t] if t in order else -1 for t in range(S))
        step = ceil_div(size, 2) + size
        return WeightLayout(tap, step, len(order), sh.C, 0, sh.K * step, True)
    if bl.unpacked:
        return WeightLayout((0,), 1, sh.K, bl.cb, bl.cb * sh.K, sh.C * sh.K, False)
    if bl.transposed:  # [block of filters][channel][tap][filter]
        tap = tuple(t * bl.kb for t in range(S))
        step = S * bl.kb
        group = ceil_div(sh.K, bl.kb) * sh.C * step
        return WeightLayout(tap, sh.C * S, step, bl.cb, bl.cb * step, group, True)
    if sh.merged:  # a phase's taps at the same place as another's, one filter further on
        n, tap = len(sh.merged[0].taps), [-1] * S
        k, step = (n, 1) if bl.lists == "channels" else (bl.cb, sh.K * bl.cb)
        for p, run in enumerate(sh.merged):
            for j, t in enumerate(run.taps):
                tap[t] = p * k + j * step
        if bl.lists == "channels":
            return WeightLayout(tuple(tap), n, sh.K * n, sh.C, 0, sh.C * sh.K * n, True)
        block = n * sh.K * bl.cb
        return WeightLayout(tuple(tap), k, 1, bl.cb, block, block * ceil_div(sh.C, bl.cb), True)
    ascending = all(run.taps.step == 1 for run in run_list) and not too_far(sh.C * S, sh.item)
    if bl.lists == "channels" and natural and ascending:
        return WeightLayout(tuple(range(S)), sh.C * S, S, sh.C, 0, sh.K * sh.C * S, False)
    tap = [-1] * S  # in backward data with a stride some taps reach no row at all
    if bl.lists == "channels":
        n = max((len(run.taps) for run in run_list), default=1)
        # Parts of filters are the columns of one matrix, for each channel; other runs come first.
        run_step, rows = (sh.K * n, bl.split) if bl.split > 1 else (sh.C * sh.K * n, 1)
        for r, run in enumerate(run_list):
            for j, t in enumerate(run.taps):
                tap[t] = r * run_step + j
        size = len(run_list) * sh.C * sh.K * n
        return WeightLayout(tuple(tap), n, rows * sh.K * n, sh.C, 0, size, True)
    if natural and S == 1:
        return WeightLayout((0,), sh.C, 1, bl.cb, bl.cb, sh.K * sh.C, False)
    for t in range(S):
        tap[t] = t * sh.K * bl.cb
    if bl.split > 1:  # the parts' taps, in the order in which they read the source
        for r, run in enumerate(run_list):
            for j, t in enumerate(run.taps):
                tap[t] = (j * bl.split + r) * sh.K * bl.cb
    block = S * sh.K * bl.cb
    return WeightLayout(tuple(tap), bl.cb, 1, bl.cb, block, block * ceil_div(sh.C, bl.cb), True)


class _Lowering:
    def __init__(self, sh, bl, program, run_list, kernel):
        self.sh, self.bl, self.program, self.run_list = sh, bl, program, run_list
        self.kernel = kernel
        self.lists: dict[tuple, int] = {}
        self.tiles: dict[tuple, int] = {}
        self.variants: dict[tuple, tuple] = {}
        self.place: dict[int, list[int]] = {}  # of each run's taps in the list of all taps,
        self.all_taps = 0  # which begins here
        self.column = bl.nb * bl.kb if bl.transposed else 1  # of a result, in elements
        if sh.depthwise and bl.interleaved:
            self.column *= len(sh.phases)
        self.emit = {
            "taps": self.calls_by_taps,
            "channels": self.calls_by_channels,
            "pairs": self.calls_by_pairs,
        }[bl.lists]
        if sh.depthwise and sh.tap_pairs:
            self.emit = self.calls_by_lane_pairs

    def offset_list(self, key, entries) -> int:
        """Start of a list of (a, b) element offsets; equal lists are stored once."""
        if key not in self.lists:
            self.lists[key] = len(self.program.offsets_a)
            for a, b in entries:
                self.program.offsets_a.append(a * self.sh.item)
                self.program.offsets_b.append(b * self.sh.item)
        return self.lists[key]

    def call(
        self,
        m: int,
        k: int,
        beta: int,
        a: int,
        b: int,
        c: int,
        start: int,
        count: int,
        useful: int,
        rounded: bool = False,
    ):
        """`useful` multiply-adds per element: in a pair, one may be left over."""
        item, key = self.sh.item, (m, k, beta, rounded)
        if key not in self.variants:
            self.variants[key] = self.kernels(*key)
        kernel, work, tail, tail_work = self.variants[key]
        self.program.calls.append(
            (
                kernel,
                tail,
                work * useful,
                tail_work * useful,
                a * item,
                b * item,
                c * self.column * item,
                m,
                start,
                count,
            )
        )

    def kernels(self, m: int, k: int, beta: int, rounded: bool) -> tuple[int, int, int, int]:
        """Kernels for the whole and the last block of filters, each with its elements."""
        sh, bl, found = self.sh, self.bl, []
        for filters in (min(bl.kb, sh.K), sh.K % bl.kb):
            shape = self.kernel_shape(m, filters, k, beta, rounded)
            if filters and shape not in self.program.kernels:
                self.program.kernels[shape] = self.kernel(*shape)
            found += [self.program.kernels.get(shape, 0), m * bl.nb * filters]
        return tuple(found)

    def kernel_shape(self, columns: int, filters: int, k: int, beta: int, rounded: bool) -> tuple:
        sh, bl, source, weight = self.sh, self.bl, self.program.source, self.program.weight
        kind = kernel_type(sh.item, sh.pairs or sh.tap_pairs, rounded)
        if sh.depthwise:
            return f"{kind} depthwise", filters, columns, k, *(bl.kb,) * 3, beta, False
        if bl.transposed:
            each, ldb = 1 + sh.pairs, source.column // bl.nb
            shape = filters, columns * bl.nb, each * k, weight.c, each * ldb, bl.kb
            return kind, *shape, beta, False
        # The distance of a single column means nothing, and may be beyond 32 bits.
        lda = source.row if bl.lists == "taps" else self.spacing if k > 1 else 1
        direct = bl.direct or rounded
        ldc = sh.out_width if direct else bl.chunk if bl.interleaved else bl.tile
        # Rows that are read in place are fetched tile by tile.
        ahead = bl.lists == "taps" and not bl.packed
        if sh.tap_pairs:  # a single column of A
            return kind, columns, filters, 2, columns, 2 * weight.k, ldc, beta, False
        if sh.pairs:
            return kind, columns, filters, 2 * k, lda, 2 * weight.k, ldc, beta, ahead
        return kind, columns, filters, k, lda, weight.k, ldc, beta, ahead

    def entries(self, taps) -> list[tuple[int, int]]:
        """What lists over taps hold."""
        source, weight = self.program.source, self.program.weight
        return [
            (source.positions[r][j] * source.column, weight.tap[self.run_list[r].taps[j]])
            for r, j in taps
        ]

    def list_all_taps(self, phase: Phase, first_run: int):
        """One list of all taps of a phase, in their order: those of most rectangles are a part."""
        taps = [
            (run.shift + j * run.spacing, run.plane, r, j)
            for r, run in enumerate(phase.runs, first_run)
            for j in range(len(run.taps))
        ]
        taps = [(r, j) for *_, r, j in sorted(taps)]
        self.place = {r: [0] * len(run.taps) for r, run in enumerate(phase.runs, first_run)}
        for i, (r, j) in enumerate(taps):
            self.place[r][j] = i
        self.all_taps = self.offset_list(tuple(taps), self.entries(taps))

    def calls_by_taps(self, rects: list[Rectangle], beta: int, rounded: bool = False):
        """k = channels: the list holds the taps, and there is a call per block of channels."""
        source, weight, m0 = self.program.source, self.program.weight, rects[0].a
        count = sum(r.j1 - r.j0 for r in rects)
        first = min(self.place[r.run][r.j0] for r in rects)
        if max(self.place[r.run][r.j1 - 1] for r in rects) - first == count - 1:
            start = self.all_taps + first
        else:
            taps = tuple((r.run, j) for r in rects for j in range(r.j0, r.j1))
            start = self.offset_list(taps, self.entries(taps))
        for c0 in range(0, self.sh.C, self.bl.cb):
            k = min(self.bl.cb, self.sh.C - c0)
            self.call(
                rects[0].b - m0,
                k,
                beta,
                c0 * source.row + m0 * source.step * source.column,
                c0 // self.bl.cb * weight.block,
                m0,
                start,
                count,
                count * (min(2 * k, self.sh.channels - 2 * c0) if self.sh.pairs else k),
                rounded,
            )
            beta = 1

    def calls_by_channels(self, rects: list[Rectangle], beta: int):
        """k = taps: the list holds the channels (times the runs with equally many taps)."""
        source, weight = self.program.source, self.program.weight
        m0, b = rects[0].a, rects[0].b
        lengths: dict[int, list] = {}
        for run, _, _, j0, j1 in rects:
            place = source.positions[run][j0], weight.tap[self.run_list[run].taps[j0]]
            lengths.setdefault(j1 - j0, []).append(place)
        for k in sorted(lengths, reverse=True):
            # The first run's start goes into the call, so that lists are shared between borders.
            (a0, b0), *others = lengths[k]
            key = (0, 0), *[(pa - a0, pb - b0) for pa, pb in others]
            start = self.offset_list(
                key,
                (
                    (c * source.row + pa, c * weight.c + pb)
                    for pa, pb in key
                    for c in range(self.sh.C)
                ),
            )
            count = self.sh.C * len(key)
            self.call(b - m0, k, beta, a0 + m0, b0, m0, start, count, k * count)
            beta = 1

    def calls_by_pairs(self, rects: list[Rectangle], beta: int, rounded: bool = False):
        """k = two taps: the list holds the pairs of all rectangles and channels."""
        key = tuple((r.run, r.j0, r.j1) for r in rects)
        if key not in self.lists:
            self.lists[key] = len(self.program.offsets_a)
            for run, j0, j1 in key:
                self.list_pairs(run, j0, j1)
        count = self.sh.C * sum((j1 - j0 + 1) // 2 for _, j0, j1 in key)
        useful = self.sh.C * sum(j1 - j0 for _, j0, j1 in key)
        m0, b = rects[0].a, rects[0].b
        self.call(b - m0, 2, beta, m0, 0, m0, self.lists[key], count, useful, rounded)

    def calls_by_lane_pairs(self, rects: list[Rectangle], beta: int):
        """Channels are the lanes: the list holds the pairs of all rectangles, and another one what
        is left over."""
        pairs = [(r.run, j) for r in rects for j in range(r.j0, r.j1 - 1, 2)]
        single = [(r.run, r.j1 - 1) for r in rects if (r.j1 - r.j0) % 2]
        m0, b, source = rects[0].a, rects[0].b, self.program.source
        # The last of a list may be single.
        for taps, odd in (pairs + single[:1], bool(single)), *(([tap], True) for tap in single[1:]):
            start = self.offset_list((odd, *taps), self.entries(taps))
            count = len(taps)
            useful, place = 2 * count - odd, m0 * source.step * source.column
            self.call(b - m0, 2 - odd, beta, place, 0, m0, start, count, useful)
            beta = 1

    def list_pairs(self, run: int, j0: int, j1: int):
        """Entries for the taps [j0, j1) of a run, which are equally far apart. The last of an odd
        number is single: FP32 is a pair of BF16 with a zero, and so is its weight."""
        program, item, C = self.program, self.sh.item, self.sh.C
        source, weight, taps = program.source, program.weight, self.run_list[run].taps
        row, filter_row = source.row * item, weight.c * item
        half = ceil_div(C * weight.c, 2)  # where FP32 begins in the weights of a filter
        a, last_a = (source.positions[run][j] * item for j in (j0, j1 - 1))
        b, last_b = ((weight.tap[taps[j]] - half) * item for j in (j0, j1 - 1))
        pairs, step = (j1 - j0) // 2, 2 * self.spacing * item
        a += source.pairs * item
        for c in range(C):
            program.offsets_a += range(a + c * row, a + c * row + pairs * step, step)
            first = (b + c * filter_row) // 2
            program.offsets_b += range(first, first + pairs * item, item)
            if (j1 - j0) % 2:
                program.offsets_a.append(last_a + c * row)
                program.offsets_b.append(last_b + c * filter_row + half * item)

    def border_tile(self, phase: Phase, first_run: int, a: int, b: int) -> tuple[int, ...]:
        """One channel and one filter, where each tap serves some columns: no kernel is called."""
        source, weight, taps = self.program.source, self.program.weight, self.program.border_taps
        start, item, work = len(taps), self.sh.item, 0
        for r, run in enumerate(phase.runs, first_run):
            for j, t in enumerate(run.taps):
                lo, hi = max(a, run.first_valid(j)) - a, min(b, run.end_valid(j)) - a
                if lo < hi:
                    taps.append((source.positions[r][j] * item, weight.tap[t] * item, lo, hi))
                    work += hi - lo
        return 0, 0, 0, start, len(taps) - start, work, 0, -1

    def split_tile(self, rects: list[Rectangle], width: int) -> tuple[int, ...]:
        """Few filters, the taps of each being as many filters with fewer taps: row r of a matrix
        product has the taps r, r + R, ..., and is added to the result r tap distances to the left.
        Where columns at either end lack some of the rows, kernels add what these would have
        held."""
        program, rows, item, K = self.program, self.bl.split, self.sh.item, self.sh.K
        step = self.run_list[rects[0].run].spacing // rows
        halo, start = (rows - 1) * step, len(program.calls)
        ldc, least = SPLIT_COLUMNS + 64 // item, rects[-1].j1
        emit = self.partial_by_taps if self.sh.pairs else self.partial_by_channels
        for j, k, n in (0, least, rows), (least, 1, sum(r.j1 > least for r in rects)):
            if n:
                emit(rects[0].run, j, k, n, halo, width - halo, ldc)
        partial, taps = len(program.calls) - start, len(program.border_taps)
        program.partial = max(program.partial, rows * K * ldc)
        for r, rect in enumerate(rects):
            left, right = halo - r * step, width - r * step
            program.border_taps.append(((r * K * ldc - left) * item, 0, left, right))
            for a, b in (0, left), (right, width):
                if a < b:
                    self.emit([Rectangle(rect.run, a, b, 0, rect.j1)], 1)
        return start, len(program.calls) - start, 0, taps, rows, 0, partial, -1

    def partial_by_channels(
        self, first: int, j: int, k: int, n: int, halo: int, columns: int, ldc: int
    ):
        """n rows of partial sums for each filter, over k taps of a run each, from its tap j on."""
        source, weight, item, C = self.program.source, self.program.weight, self.sh.item, self.sh.C
        run, kind, n = self.run_list[first], kernel_type(item, False), n * self.sh.K
        offsets = self.offset_list("split", ((c * source.row, c * weight.c) for c in range(C)))
        for c in range(0, C, self.bl.cb):
            shape = kind, columns, n, k, run.spacing, weight.k, ldc, int(j + c > 0)
            a = source.positions[first][j] + halo + c * source.row
            b, count = weight.tap[run.taps[j]] + c * weight.c, min(self.bl.cb, C - c)
            self.partial_call(shape, columns * n * k * count, a, b, offsets, count)

    def partial_by_taps(
        self, first: int, j: int, k: int, n: int, halo: int, columns: int, ldc: int
    ):
        """The same for pairs of channels, in lists over the taps."""
        source, weight, sh, cb = self.program.source, self.program.weight, self.sh, self.bl.cb
        places, taps = source.positions[first], self.run_list[first].taps
        entries = ((places[i], weight.tap[taps[i]]) for i in range(j, j + k))
        offsets, n = self.offset_list(("split", j), entries), n * sh.K
        for c in range(0, sh.C, cb):
            depth, kind = min(cb, sh.C - c), kernel_type(sh.item, True)
            shape = kind, columns, n, 2 * depth, source.row, 2 * cb, ldc, int(j + c > 0)
            useful = columns * n * k * min(2 * depth, sh.channels - 2 * c)
            a, b = halo + c * source.row, c // cb * weight.block
            self.partial_call(shape, useful, a, b, offsets, k)

    def partial_call(self, shape: tuple, work: int, a: int, b: int, offsets: int, count: int):
        item = self.sh.item
        self.program.kernels[shape] = kernel = self.kernel(*shape)
        place = a * item, b * item, 0
        self.program.calls.append((kernel, 0, work, 0, *place, shape[1], offsets, count))

    def tile(self, phase: Phase, first_run: int, a: int, b: int) -> int:
        """Index of the program of tile [a, b); equal programs are stored once."""
        rects = [
            rect
            for r, run in enumerate(phase.runs, first_run)
            for rect in cover(run, r, a, b, self.bl.vector)
        ]
        # Rectangles over the whole tile first: the first call of all overwrites the tile.
        rects.sort(key=lambda r: (r.a - r.b, r.a, r))
        width = b - a
        key = (first_run, width, *rects)
        if key not in self.tiles:
            program, run_list = self.program, self.run_list
            whole = all(r[1:] == (0, width, 0, len(run_list[r.run].taps)) for r in rects)
            fill = not rects or rects[0].b - rects[0].a < width
            start, beta = len(program.calls), 1 if fill else 0
            self.tiles[key] = len(program.tiles)
            if not whole and self.sh.C == self.sh.K == 1:
                program.tiles.append(self.border_tile(phase, first_run, a, b))
                return self.tiles[key]
            halo = self.spacing * (self.bl.split - 1) // self.bl.split
            if whole and 1 < self.bl.split == len(rects) and width >= 8 * halo:
                program.tiles.append(self.split_tile(sorted(rects), width))
                return self.tiles[key]
            for _, group in groupby(rects, lambda r: r[1:3]):
                self.emit(list(group), beta)
                beta = 1
            calls, rounded = len(program.calls) - start, -1
            if self.bl.rounded and calls == 1 and not fill:
                rounded = start + 1  # the same, if there is no bias to add before rounding
                self.emit(rects, 0, rounded=True)
            program.tiles.append((start, calls, int(fill), -1, 0, 0, 0, rounded))
        return self.tiles[key]

    def phase(self, phase: Phase, first_run: int):
        start = len(self.program.segments)
        self.spacing = phase.runs[0].spacing if phase.runs else 1
        if self.bl.lists == "taps":
            self.list_all_taps(phase, first_run)
        for a, width, count in walk(phase, self.bl.tile, self.bl.border):
            # The kernels of a split tile are as wide as it is: few widths are few kernels.
            whole = width // 64 * 64 if self.bl.split > 1 and width > 64 else width
            for at, part in (a, whole), (a + whole, width - whole):
                if part:
                    tile = self.tile(phase, first_run, at, at + part)
                    self.program.segments.append((at, part, count, tile))
        self.program.phases.append(
            (phase.first, phase.step, phase.count, start, len(self.program.segments) - start)
        )


def lower_correlate(sh: CorrelateShape, bl: CorrelateBlocking, S: int, kernel) -> Program:
    """`kernel(type, m, n, k, lda, ldb, ldc, beta, ahead)` gives the address of a kernel."""
    whole_rows = bl.interleaved and not (sh.merged or sh.depthwise)
    phases = with_gaps(sh.phases, sh.out_width) if whole_rows else sh.phases
    phases = [split_taps(phase, bl.split) for phase in phases]
    run_list = [run for phase in phases for run in phase.runs]
    if sh.depthwise:
        source = dense_panel(run_list, bl.chunk, sh.planes, bl.kb)
    elif bl.transposed:
        whole = all(phase.count <= bl.chunk for phase in phases)
        source = transposed_panel(run_list, bl.chunk, sh.C, bl.nb, sh.item, whole)
    elif bl.packed:
        source = panel(run_list, bl.chunk, bl.lists == "taps", sh.item)
        if sh.tap_pairs:
            source = replace(source, row=2 * source.row, pairs=source.row)
    else:
        source = in_place(run_list, sh.source_width)
    program = Program(source, weight_layout(sh, bl, run_list, S))
    if sh.depthwise and sh.tap_pairs and run_list:
        distance = run_list[0].spacing * sh.planes
        program.pair_lanes = distance, run_list[0].taps.step * bl.kb
    lowering = _Lowering(sh, bl, program, run_list, kernel)
    first_run = 0
    for phase in phases:
        lowering.phase(phase, first_run)
        first_run += len(phase.runs)
    return program
