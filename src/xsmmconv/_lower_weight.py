"""Engine 2's program: geometry + blocking -> segments of tiles and the kernel calls of each.

A tile is a range of the reduction axis. Its lane operand is transposed to [position][lane] (A,
m = lanes), the row operand is read as it lies (B, k = positions); the result is a block of
[tap][row channel][lane] or [row channel][tap][lane] partial sums. Where BF16 is multiplied in pairs
of positions, a tile stays BF16, the lanes as [position pair][lane][2], and positions that a tap
leaves over have tiles of their own, widened to FP32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from xsmmconv._blocking import kernel_type, round_up, too_far
from xsmmconv._blocking_weight import WeightBlocking, WeightShape
from xsmmconv._geometry import Phase, Rectangle, cover, interior, next_change, pieces, walk
from xsmmconv._layout import SourceLayout, dense_panel, in_place, panel
from xsmmconv._lower_batch import Positions, lower_batch, operand_positions, row_distance

_PLACE = 10  # of a call's results, in its row of the program


@dataclass(slots=True)
class WeightProgram:
    """What engine 2 executes. Offsets in bytes; `tap` in units of `lb` elements."""

    panel: SourceLayout  # for the tiles that are packed
    tap: list[int]  # where each tap's sums lie among those of a row channel
    lag: int = 0  # of the lanes that stand beside a position's own, in positions
    offsets_a: list[int] = field(default_factory=list)
    offsets_b: list[int] = field(default_factory=list)
    calls: list[tuple] = field(default_factory=list)
    tiles: list[tuple] = field(default_factory=list)
    segments: list[tuple] = field(default_factory=list)
    kernels: dict[tuple, int] = field(default_factory=dict)
    set_once: bool = False  # each sum is the result of a single call, which sets it,
    direct: bool = False  # in the result itself
    reads: tuple[int, int] = (0, 0)  # columns of a row of which position 0 reads the first and last
    # Where k is rows of the batch: what is transposed of either operand.
    lane_positions: Positions | None = None
    row_positions: Positions | None = None


class _Lowering:
    def __init__(self, sh, bl, program, run_list):
        self.sh, self.bl, self.program, self.run_list = sh, bl, program, run_list
        self.tiles: dict[tuple, int] = {}
        self.lists: dict[tuple, int] = {}
        self.calls: dict[tuple, tuple[tuple | None, ...]] = {}
        # Of the tile that is being lowered:
        self.pairs = False
        self.stack = 1
        self.some = 0  # lanes, if not all of a block
        self.width = 0
        self.row_distance = 0  # from one row of the batch to the next
        self.rows = in_place(run_list, sh.row_width)

    @property
    def item(self) -> int:
        """Bytes of an element of the operands."""
        return 2 if self.pairs else self.sh.item

    def distance(self, packed: bool) -> int:
        """From one row of the batch to the next."""
        if packed:
            return self.program.panel.row // self.bl.nb
        return self.sh.groups * self.sh.rows * self.sh.row_width

    def positions(self, step: int, count: int) -> int:
        """Start of a list 0, step, 2 step, ...; calls take as much of it as they need. Where a tile
        has several rows of the batch, these are listed for each."""
        whole, item, rows = self.bl.step, self.item, range(self.bl.nb)
        if count == 1:
            step = whole  # every list begins with 0
        key = step, item, self.stack
        if self.bl.nb > 1:
            key = *key, count, self.width, self.row_distance
        if key not in self.lists:
            program = self.program
            position = self.stack * self.bl.lb * item
            entries = range(0, self.bl.tile if step == whole else whole, step)
            if self.bl.nb > 1:
                entries = entries[:count]
            self.lists[key] = len(program.offsets_a)
            program.offsets_a += [(r * self.width + e) * position for r in rows for e in entries]
            program.offsets_b += [(r * self.row_distance + e) * item for r in rows for e in entries]
        return self.lists[key]

    def variants(
        self, taps: int, n: int, last_n: int, k: int, ldb: int, ldc: int
    ) -> tuple[tuple | None, ...]:
        """Kernels for the whole and the last block of row channels x of lanes; m = taps x lanes."""
        key = self.pairs, self.stack, taps, n, k, ldb, ldc, self.some
        if key not in self.calls:
            bl, kind = self.bl, kernel_type(self.sh.item, self.pairs)
            self.calls[key] = tuple(
                (kind, taps * m, columns, k, self.stack * bl.lb, ldb, ldc)
                if m and columns
                else None
                for columns in (n, last_n)
                for m in ((self.some, self.some) if self.some else (bl.lb, bl.last_lb))
            )
        return self.calls[key]

    def reduce(
        self,
        taps: int,
        ldb: int,
        a: int,
        b: int,
        c: int,
        length: int,
        many: bool = False,
        stacked: int = 1,
        step: int = 1,
        first: int = 0,
    ):
        """Calls that reduce over `length` positions; n = taps, which are `step` apart, or all row
        channels if taps is 0. Each lane, from the `first` on, stands for `stacked` taps. Of `many`
        lengths, powers of two serve with few kernels."""
        sh, bl, item = self.sh, self.bl, self.item
        n, last_n = (taps, 0) if taps else (min(bl.rb, sh.rows), sh.rows % bl.rb)
        ldc = (step * self.stack if taps else sh.taps) * bl.lb
        kind, position = 1 if taps else 0, self.stack * bl.lb * item
        whole = length // bl.step * bl.step
        parts = [(0, bl.step, whole // bl.step)] if whole else []
        rest = length - whole
        if many:
            parts += [(whole + start, k, count) for start, k, count in pieces(rest)]
        elif rest:
            parts.append((whole, rest, 1))
        for start, k, count in parts:
            self.program.calls.append(
                (
                    *self.variants(stacked, n, last_n, k, ldb, ldc),
                    stacked * k * count * bl.nb,
                    n,
                    last_n,
                    kind,
                    (a + start) * position,
                    (b + start) * item,
                    (c * bl.lb + first) * sh.item,
                    self.positions(k, count),
                    count * bl.nb,
                )
            )

    def uniform_tile(self, rects: list[Rectangle], packed: bool):
        """All taps reduce over the whole tile."""
        source = self.program.panel if packed else self.rows
        for rect in rects:
            run, position = self.run_list[rect.run], source.positions[rect.run]
            length = rect.b - rect.a
            if self.bl.lists == "taps":
                # Columns of BF16 pairs are an even distance apart.
                every = 2 if self.pairs and run.spacing % 2 else 1
                for j in range(rect.j0, min(rect.j0 + every, rect.j1)):
                    n = len(range(j, rect.j1, every))
                    # The distance of a single column means nothing, and may be beyond 32 bits.
                    ldb = every * run.spacing if n > 1 else self.bl.step
                    tap = self.program.tap[run.taps[j]]
                    self.reduce(n, ldb, 0, position[j], tap, length, step=every)
                continue
            for j in range(rect.j0, rect.j1):
                self.reduce(0, source.row, 0, position[j], self.program.tap[run.taps[j]], length)

    def stacked_tile(self, phase: Phase, first_run: int, length: int, packed: bool):
        """All taps reduce over the whole tile, `stack` of them at a time: beside a position's lanes
        stand those of earlier positions, for which the same input is that of a later tap."""
        source = self.program.panel if packed else self.rows
        self.stack = stack = self.bl.stack
        for r, run in enumerate(phase.runs, first_run):
            place, taps = source.positions[r], len(run.taps)
            tap = [self.program.tap[t] for t in run.taps]
            if self.bl.lists == "taps":
                n, ldb = taps // stack, stack * run.spacing
                self.reduce(n, ldb, 0, place[0], tap[0], length, stacked=stack)
                continue
            for j in range(0, taps, stack):
                together = min(stack, taps - j)
                self.reduce(0, source.row, 0, place[j], tap[j], length, stacked=together)
        self.stack = 1

    def mixed_tile(self, ranges: list[tuple]):
        """Each tap reduces over its own range of positions, n = row channels of the panel."""
        source = self.program.panel
        many = len({(hi - lo) % self.bl.step for _, _, lo, hi in ranges}) > 8
        for r, j, lo, hi in ranges:
            self.reduce(
                0,
                source.row,
                lo,
                source.positions[r][j] + lo,
                self.program.tap[self.run_list[r].taps[j]],
                hi - lo,
                many=many,
            )

    def depthwise_tile(self, rects: list[Rectangle]):
        """Channels in the lanes, each against one: dot products of vectors, without a kernel."""
        source, each = self.program.panel, self.bl.lb * self.sh.item
        for rect in rects:
            run, length = self.run_list[rect.run], rect.b - rect.a
            at = rect.a, source.positions[rect.run][rect.j0] + rect.a * source.step
            self.program.calls.append(
                (
                    *(None, None, None, None),
                    length,
                    rect.j1 - rect.j0,
                    0,
                    2,
                    at[0] * each,
                    at[1] * each,
                    self.program.tap[run.taps[rect.j0]] * each,
                    run.spacing * source.step,
                    length,
                )
            )

    def cover(self, phase: Phase, first_run: int, a: int, b: int) -> list[Rectangle]:
        return [
            rect for r, run in enumerate(phase.runs) for rect in cover(run, first_run + r, a, b)
        ]

    def uniform(self, phase: Phase, first_run: int, a: int, b: int) -> list[Rectangle] | None:
        """The taps of a tile, if they all use all of it and one kernel per run can serve them."""
        if self.bl.lists == "depthwise":
            return self.cover(phase, first_run, a, b)
        if next_change(phase, a) < b:
            return None
        rects = self.cover(phase, first_run, a, b)
        # Lists with n = taps need a kernel for each number of taps: only whole runs get one.
        whole = all(r.j1 - r.j0 == len(self.run_list[r.run].taps) for r in rects)
        return rects if whole or self.bl.lists == "channels" else None

    def ranges(self, phase: Phase, first_run: int, a: int, b: int) -> list[tuple[int, ...]]:
        """Which of the positions [a, b) each tap uses, besides those that stacked tiles serve."""
        stack, found = self.bl.stack, []
        for r, run in enumerate(phase.runs, first_run):
            for j in range(len(run.taps)):
                lo, hi = max(a, run.first_valid(j)), min(b, run.end_valid(j))
                if stack > 1:
                    first, end = (m - j % stack * self.program.lag for m in self.stacked)
                    lo, hi = (lo, min(hi, first)) if a < first else (max(lo, end), hi)
                if lo < hi:
                    found.append((r, j, lo - a, hi - a))
        return found

    def tile(self, width: int, rects: list | None, ranges: list, pairs: bool) -> int:
        """The tile in which taps use all positions (`rects`), or each a range of its own."""
        self.width, self.pairs = width, pairs
        key = width, pairs, rects is None, *(ranges if rects is None else rects)
        if key not in self.tiles:
            start = len(self.program.calls)
            # Rows of BF16 are widened where they are not multiplied in pairs.
            packed = self.bl.packed or rects is None or self.bl.pairs != pairs
            self.row_distance = self.distance(packed)
            if rects is None:
                self.mixed_tile(ranges)
            elif self.bl.lists == "depthwise":
                self.depthwise_tile(rects)
            else:
                self.uniform_tile(rects, packed)
            self.tiles[key] = len(self.program.tiles)
            self.program.tiles.append(
                (start, len(self.program.calls) - start, int(packed), int(pairs), 0, 0)
            )
        return self.tiles[key]

    def paired(self, ranges: list[tuple], width: int) -> Iterator[tuple[int, int, int]]:
        """Tiles (start, width, index) for ranges of positions that pairs need not begin or end
        with: what is left of them at either end has tiles of one position, in FP32."""
        even = [(r, j, lo + lo % 2, hi - hi % 2) for r, j, lo, hi in ranges]
        even = [found for found in even if found[2] < found[3]]
        if even:
            yield 0, width - width % 2, self.tile(width - width % 2, None, even, True)
        single: dict[int, list] = {}
        for r, j, lo, hi in ranges:
            for at in {at for at, odd in ((lo, lo % 2), (hi - 1, hi % 2)) if odd}:
                single.setdefault(at, []).append((r, j, 0, 1))
        for at in sorted(single):
            yield at, 1, self.tile(1, None, single[at], False)

    def segment(self, phase: Phase, first_run: int, a: int, width: int, count: int = 1):
        """`count` tiles in a row; positions that no tap uses need none."""
        program, pairs = self.program, self.bl.pairs and width > 1
        rects = self.uniform(phase, first_run, a, a + width) if self.bl.stack == 1 else None
        ranges = self.ranges(phase, first_run, a, a + width) if rects is None else []
        found: list[tuple] = []
        if rects is None and pairs:
            found = list(self.paired(ranges, width))
        elif rects or ranges:
            found = [(0, width, self.tile(width, rects, ranges, pairs))]
        if [narrow for _, narrow, _ in found] == [width]:
            program.segments.append((phase.first, a, width, count, found[0][2]))
            return
        for i in range(count if found else 0):
            for start, narrow, tile in found:
                program.segments.append((phase.first, a + i * width + start, narrow, 1, tile))

    def border(self, phase: Phase, q: int, t0: int, t1: int):
        """A position whose lanes are some of the taps. (phase: of the positions that have all.)"""
        sh, program, (run,) = self.sh, self.program, phase.runs
        at, start, self.some = q - run.shift, len(program.calls), t1 - t0
        source = program.panel if self.bl.packed else self.rows
        self.width, self.pairs, self.row_distance = 1, False, self.distance(self.bl.packed)
        self.reduce(0, source.row, 0, source.positions[0][0], self.program.tap[0], 1, first=t0)
        program.segments.append((phase.first + t0 * sh.lane_step, at, 1, 1, len(program.tiles)))
        program.tiles.append((start, len(program.calls) - start, self.bl.packed, 0, 0, self.some))
        self.some = 0

    def stacked_phase(self, phase: Phase, first_run: int):
        """Stacked tiles, by the position that the first of `stack` taps uses, and what they leave
        of either end: there, earlier positions have no lanes or lack the input of a tap."""
        bl, program = self.bl, self.program
        halo, (first, end) = (bl.stack - 1) * program.lag, interior(phase)
        self.stacked = first + halo, end
        for a, b in (0, first + halo), (end - halo, phase.count):
            for at in range(a, b, bl.border):
                self.segment(phase, first_run, at, min(bl.border, b - at))
        at, room = first + halo, end - first - halo
        for width, count in (bl.tile, room // bl.tile), (room % bl.tile, 1):
            if width and count:
                start = len(program.calls)
                self.stacked_tile(phase, first_run, width, bl.packed)
                calls = len(program.calls) - start
                program.segments.append((phase.first, at, width, count, len(program.tiles)))
                program.tiles.append((start, calls, int(bl.packed), 0, halo, 0))
                at += width * count

    def phase(self, phase: Phase, first_run: int):
        border = self.bl.tile if self.bl.lists == "depthwise" else self.bl.border
        for a, width, count in walk(phase, self.bl.tile, border):
            narrow = width
            if self.uniform(phase, first_run, a, a + width) is None:
                narrow = min(width, self.bl.border)
            elif self.bl.pairs and width > 1:
                narrow -= width % 2
            while width:
                part = width // narrow * narrow
                self.segment(phase, first_run, a, narrow, count * (part // narrow))
                a += part * count
                width -= part
                narrow = width


def _set_once(sh: WeightShape, bl: WeightBlocking, program: WeightProgram) -> bool:
    """Whether there is one tile, and in it one call for each tap."""
    tiles = sum(count for _, _, _, count, _ in program.segments) * (sh.N // bl.nb)
    taps = sum(n if by_taps else 1 for *_, n, _, by_taps, _, _, _, _, _ in program.calls)
    whole = bl.stack == 1 and bl.lists != "depthwise" and taps == sh.taps
    places = {call[_PLACE] for call in program.calls}
    return tiles == 1 and whole and len(places) == len(program.calls)


def _with_kernels(sh: WeightShape, program: WeightProgram, kernel) -> list[tuple]:
    """The calls, with the addresses of their kernels."""
    beta, found = int(not program.set_once), {None: 0}
    for shape in dict.fromkeys(shape for call in program.calls for shape in call[:4] if shape):
        ldc = sh.lanes if program.direct else shape[-1]
        found[shape] = program.kernels[*shape[:-1], ldc, beta] = kernel(*shape[:-1], ldc, beta)
    return [(*[found[shape] for shape in call[:4]], *call[4:]) for call in program.calls]


def _batch_program(sh: WeightShape, bl: WeightBlocking, S: int) -> WeightProgram:
    lanes, rows = operand_positions(sh)
    nb, item = (round_up(bl.nb, 2), 2) if bl.pairs else (bl.nb, sh.item)
    layout = SourceLayout(row_distance(rows.count, nb, item), 1, (), ())
    program = WeightProgram(layout, list(range(S)), lane_positions=lanes, row_positions=rows)
    lower_batch(sh, bl, program)
    program.set_once = _set_once(sh, bl, program)
    return program


def lower_weight(sh: WeightShape, bl: WeightBlocking, S: int, kernel) -> WeightProgram:
    """`kernel(type, m, n, k, lda, ldb, ldc, beta)` gives the address of a kernel."""
    if bl.lists == "batch":
        program = _batch_program(sh, bl, S)
        program.calls = _with_kernels(sh, program, kernel)
        return program
    run_list = [run for phase in sh.phases for run in phase.runs]
    order = list(range(S))
    if bl.lists != "channels" or bl.stack > 1:
        # Taps of a run are neighbours, so that they can be the columns of one result, or its rows.
        order = [t for run in run_list for t in run.taps]
        order += sorted(set(range(S)) - set(order))
    tap = [0] * S
    for place, t in enumerate(order):
        tap[t] = place
    # Where rows are read in place, only the narrow tiles of the borders are packed.
    columns = bl.tile if bl.packed else bl.border
    split = bl.lists == "channels" or (bl.lists == "taps" and not bl.packed and not bl.pairs)
    layout = panel(run_list, columns, split, sh.item)
    if sh.depthwise:
        layout = dense_panel(run_list, columns, sh.row_planes, bl.lb)
    if bl.nb > 1:  # one row of the batch after the other
        layout = replace(layout, row=bl.nb * layout.row)
    program = WeightProgram(layout, tap)
    first = [run.shift * sh.row_planes + run.plane for run in run_list]
    last = [
        at + (len(run.taps) - 1) * run.spacing * sh.row_planes
        for at, run in zip(first, run_list, strict=True)
    ]
    program.reads = min(first, default=0), max(last, default=0)
    lowering = _Lowering(sh, bl, program, run_list)
    lower = lowering.phase
    if bl.stack > 1:
        program.lag, lower = sh.phases[0].runs[0].spacing, lowering.stacked_phase
    first_run = 0
    for phase in sh.phases:
        lower(phase, first_run)
        first_run += len(phase.runs)
    for border in sh.borders:
        lowering.border(sh.phases[0], *border)
    program.set_once = _set_once(sh, bl, program)
    whole = bl.last_lb == sh.lanes % bl.lb and not too_far(sh.lanes, sh.item)
    program.direct = program.set_once and sh.direct_out and whole and bl.lists == "channels"
    program.calls = _with_kernels(sh, program, kernel)
    return program
