"""Engine 2's program: geometry + blocking -> segments of tiles and the kernel calls of each.

A tile is a range of the reduction axis. Its lane operand is transposed to [position][lane] (A,
m = lanes), the row operand is read as it lies (B, k = positions); the result is a block of
[tap][row channel][lane] or [row channel][tap][lane] partial sums. Where BF16 is multiplied in pairs
of positions, a tile that all taps use wholly stays BF16, the lanes as [position pair][lane][2]; a
tile of one position, or at a border, where ranges begin anywhere, is widened to FP32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xsmmconv._blocking import WeightBlocking, WeightShape, kernel_type
from xsmmconv._geometry import Phase, Rectangle, cover, next_change, pieces, walk
from xsmmconv._layout import SourceLayout, in_place, panel, unfolded_panel


@dataclass(slots=True)
class WeightProgram:
    """What engine 2 executes. Offsets in bytes; `tap` and the steps in units of `lb` elements."""

    panel: SourceLayout  # for the tiles that are packed
    tap: list[int]  # where each tap's sums lie in a block
    row_step: int  # distance of row channels there
    tap_step: int  # and of taps
    offsets_a: list[int] = field(default_factory=list)
    offsets_b: list[int] = field(default_factory=list)
    calls: list[tuple] = field(default_factory=list)
    tiles: list[tuple] = field(default_factory=list)
    segments: list[tuple] = field(default_factory=list)
    kernels: dict[tuple, int] = field(default_factory=dict)


class _Lowering:
    def __init__(self, sh, bl, program, run_list, kernel):
        self.sh, self.bl, self.program, self.run_list = sh, bl, program, run_list
        self.kernel = kernel
        self.tiles: dict[tuple, int] = {}
        self.lists: dict[tuple, int] = {}
        self.calls: dict[tuple, tuple[int, ...]] = {}
        self.pairs = False  # of the tile that is being lowered
        self.rows = in_place(run_list, sh.row_width)

    @property
    def item(self) -> int:
        """Bytes of an element of the operands."""
        return 2 if self.pairs else self.sh.item

    def positions(self, step: int, count: int) -> int:
        """Start of a list 0, step, 2 step, ...; calls take as much of it as they need."""
        whole = self.bl.step
        if count == 1:
            step = whole  # every list begins with 0
        key = step, self.item
        if key not in self.lists:
            program, item = self.program, self.item
            entries = range(0, self.bl.tile if step == whole else whole, step)
            self.lists[key] = len(program.offsets_a)
            program.offsets_a += [e * self.bl.lb * item for e in entries]
            program.offsets_b += [e * item for e in entries]
        return self.lists[key]

    def variants(self, n: int, last_n: int, k: int, ldb: int, ldc: int) -> tuple[int, ...]:
        """Kernels for the whole and the last block of row channels x of lanes."""
        key = self.pairs, n, k, ldb, ldc
        if key not in self.calls:
            bl, kind = self.bl, kernel_type(self.sh.item, self.pairs)
            kernels = []
            for columns in (n, last_n):
                for m in (bl.lb, bl.last_lb):
                    shape = (kind, m, columns, k, bl.lb, ldb, ldc, 1)
                    if m and columns and shape not in self.program.kernels:
                        self.program.kernels[shape] = self.kernel(*shape)
                    kernels.append(self.program.kernels.get(shape, 0))
            self.calls[key] = tuple(kernels)
        return self.calls[key]

    def reduce(
        self, taps: int, ldb: int, a: int, b: int, c: int, length: int, border: bool = False
    ):
        """Calls that reduce over `length` positions; n = taps, or all row channels if taps is 0."""
        sh, bl = self.sh, self.bl
        n, last_n = (taps, 0) if taps else (min(bl.rb, sh.rows), sh.rows % bl.rb)
        ldc = (self.program.tap_step if taps else self.program.row_step) * bl.lb
        kind = 1 if taps else 0
        whole = length // bl.step * bl.step
        parts = [(0, bl.step, whole // bl.step)] if whole else []
        rest = length - whole
        # Along a border lengths are many: powers of two serve them with few kernels.
        parts += [
            (whole + start, k, count)
            for start, k, count in (pieces(rest) if border else [(0, rest, 1)] if rest else [])
        ]
        for start, k, count in parts:
            self.program.calls.append(
                (
                    *self.variants(n, last_n, k, ldb, ldc),
                    k * count,
                    n,
                    last_n,
                    kind,
                    (a + start) * bl.lb * self.item,
                    (b + start) * self.item,
                    c * bl.lb * sh.item,
                    self.positions(k, count),
                    count,
                )
            )

    def uniform_tile(self, rects: list[Rectangle], packed: bool):
        """All taps reduce over the whole tile."""
        source = self.program.panel if packed else self.rows
        if self.bl.lists == "unfolded":
            step = source.row // len(source.windows)
            first = self.program.tap[self.run_list[0].taps[0]]
            self.reduce(len(source.windows), step, 0, 0, first, rects[0].b - rects[0].a)
            return
        for rect in rects:
            run, position = self.run_list[rect.run], source.positions[rect.run]
            length, taps = rect.b - rect.a, rect.j1 - rect.j0
            if self.bl.lists == "taps":
                # The distance of a single column means nothing, and may be beyond 32 bits.
                ldb = run.spacing if taps > 1 else self.bl.step
                self.reduce(
                    taps, ldb, 0, position[rect.j0], self.program.tap[run.taps[rect.j0]], length
                )
                continue
            for j in range(rect.j0, rect.j1):
                self.reduce(0, source.row, 0, position[j], self.program.tap[run.taps[j]], length)

    def mixed_tile(self, ranges: list[tuple]):
        """Each tap reduces over its own range of positions, n = row channels of the panel."""
        source = self.program.panel
        for r, j, lo, hi in ranges:
            self.reduce(
                0,
                source.row,
                lo,
                source.positions[r][j] + lo,
                self.program.tap[self.run_list[r].taps[j]],
                hi - lo,
                border=True,
            )

    def dot_tile(self, rects: list[Rectangle], a: int):
        """One channel against one: each tap is a dot product of two rows, and has no kernel."""
        source = self.program.panel if self.bl.packed else self.rows
        for rect in rects:
            run, length = self.run_list[rect.run], rect.b - rect.a
            at = rect.a - a, source.positions[rect.run][rect.j0] + rect.a - a
            self.program.calls.append(
                (
                    *(0, 0, 0, 0),
                    length,
                    rect.j1 - rect.j0,
                    0,
                    2,
                    at[0] * self.item,
                    at[1] * self.item,
                    self.program.tap[run.taps[rect.j0]] * self.item,
                    run.spacing,
                    length,
                )
            )

    def cover(self, phase: Phase, first_run: int, a: int, b: int) -> list[Rectangle]:
        return [
            rect for r, run in enumerate(phase.runs) for rect in cover(run, first_run + r, a, b)
        ]

    def uniform(self, phase: Phase, first_run: int, a: int, b: int) -> list[Rectangle] | None:
        """The taps of a tile, if they all use all of it and one kernel per run can serve them."""
        if self.bl.lists == "dots":
            return self.cover(phase, first_run, a, b)
        if next_change(phase, a) < b:
            return None
        rects = self.cover(phase, first_run, a, b)
        # Lists with n = taps need a kernel for each number of taps: only whole runs get one.
        whole = all(r.j1 - r.j0 == len(self.run_list[r.run].taps) for r in rects)
        if self.bl.lists == "unfolded":
            whole = whole and len(rects) == len(self.run_list)
        return rects if whole or self.bl.lists == "channels" else None

    def tile(self, phase: Phase, first_run: int, a: int, b: int) -> int:
        rects = self.uniform(phase, first_run, a, b)
        ranges = []
        if rects is None:
            for r, run in enumerate(phase.runs, first_run):
                for j in range(len(run.taps)):
                    lo, hi = max(a, run.first_valid(j)), min(b, run.end_valid(j))
                    if lo < hi:
                        ranges.append((r, j, lo - a, hi - a))
        self.pairs = self.bl.pairs and rects is not None and (b - a) % 2 == 0
        uniform = ((r.run, r.j0, r.j1, r.a - a, r.b - a) for r in rects or ())
        key = (b - a, rects is None, *(ranges or uniform))
        if key not in self.tiles:
            start = len(self.program.calls)
            packed = self.bl.packed or rects is None
            if rects is None:
                self.mixed_tile(ranges)
            elif self.bl.lists == "dots":
                self.dot_tile(rects, a)
            else:
                self.uniform_tile(rects, packed)
            self.tiles[key] = len(self.program.tiles)
            self.program.tiles.append(
                (start, len(self.program.calls) - start, int(packed), int(self.pairs))
            )
        return self.tiles[key]

    def phase(self, phase: Phase, first_run: int):
        border = self.bl.tile if self.bl.lists == "dots" else self.bl.border
        for a, width, count in walk(phase, self.bl.tile, border):
            narrow = width
            if self.uniform(phase, first_run, a, a + width) is None:
                narrow = min(width, self.bl.border)
            elif self.bl.pairs and width > 1:
                narrow -= width % 2
            while width:
                part = width // narrow * narrow
                tile = self.tile(phase, first_run, a, a + narrow)
                if self.program.tiles[tile][1]:  # positions that no tap uses need no tile
                    self.program.segments.append(
                        (phase.first, a, narrow, count * (part // narrow), tile)
                    )
                a += part * count
                width -= part
                narrow = width


def lower_weight(sh: WeightShape, bl: WeightBlocking, S: int, kernel) -> WeightProgram:
    """`kernel(type, m, n, k, lda, ldb, ldc, beta)` gives the address of a kernel."""
    run_list = [run for phase in sh.phases for run in phase.runs]
    # Taps of a run are neighbours, so that a rectangle's taps are the columns of one result.
    order = [t for run in run_list for t in run.taps]
    order += sorted(set(range(S)) - set(order))
    row_step, tap_step = (1, bl.rb) if bl.lists == "channels" else (S, 1)
    tap = [0] * S
    for place, t in enumerate(order):
        tap[t] = place * tap_step
    # Where rows are read in place, only the narrow tiles of the borders are packed.
    columns = bl.tile if bl.packed else bl.border
    split = bl.lists == "channels" or (bl.lists == "taps" and not bl.packed)
    layout = panel(run_list, columns, split, sh.item)
    if bl.lists == "unfolded":
        layout = unfolded_panel(run_list, columns, sh.item)
    program = WeightProgram(layout, tap, row_step, tap_step)
    lowering = _Lowering(sh, bl, program, run_list, kernel)
    first_run = 0
    for phase in sh.phases:
        lowering.phase(phase, first_run)
        first_run += len(phase.runs)
    return program
