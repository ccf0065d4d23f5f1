"""The program of folded rows: which products of a chunk of positions are computed, and where they
are added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from xsmmconv._blocking import kernel_type, round_up
from xsmmconv._blocking_fold import FoldBlocking, FoldShape
from xsmmconv._geometry import pieces

_BORDER, _VECTOR = 64, 16  # positions of a border's chunk, and that cost as much as one


@dataclass(slots=True)
class FoldProgram:
    """Offsets in bytes, places and widths in elements."""

    row: int  # of the panel, or of the source
    weight_row: int  # of the packed weights, in elements of the kernels
    calls: list[tuple] = field(default_factory=list)  # (kernel, work, a, b, c)
    sums: list[tuple] = field(default_factory=list)  # (tap, taps, first position, positions)
    tiles: list[tuple] = field(default_factory=list)  # (first call, calls, first sum, sums)
    segments: list[tuple] = field(default_factory=list)  # (start, width, count, tile)
    taps: list[tuple] = field(default_factory=list)  # (residue class, distance of its columns)
    kernels: dict[tuple, int] = field(default_factory=dict)


def rectangles(sh: FoldShape, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(a, b, first tap, end): positions times taps, all of which have a column, and no others."""
    parts = [(start, end, 0, sh.S)]
    while parts:
        a, b, t0, t1 = parts.pop()
        # The later a tap, the earlier its first and its last position.
        while t0 < t1 and sh.first_valid(t0) >= b:
            t0 += 1
        while t0 < t1 and sh.end_valid(t1 - 1) <= a:
            t1 -= 1
        full0, full1 = t0, t1
        while full0 < t1 and sh.first_valid(full0) > a:
            full0 += 1
        while full1 > t0 and sh.end_valid(full1 - 1) < b:
            full1 -= 1
        if full0 < full1:
            yield a, b, full0, full1
        else:
            full0 = full1 = t1
        for p0, p1 in (t0, full0), (full1, t1):
            if p0 < p1 and b - a <= _VECTOR:
                for t in range(p0, p1):
                    lo, hi = max(a, sh.first_valid(t)), min(b, sh.end_valid(t))
                    if lo < hi:
                        yield lo, hi, t, t + 1
            elif p0 < p1:
                middle = (a + b) // 2
                parts += (a, middle, p0, p1), (middle, b, p0, p1)


class _Lowering:
    def __init__(self, sh: FoldShape, bl: FoldBlocking, program: FoldProgram, kernel):
        self.sh, self.bl, self.program, self.kernel = sh, bl, program, kernel
        self.tiles: dict[tuple, int] = {}

    def call(self, columns: int, rows: int, first_row: int, column: int):
        """Rows of z from first_row on, over all filters."""
        sh, bl, program = self.sh, self.bl, self.program
        each = 1 + sh.pairs
        for start in range(0, sh.steps, bl.kb):
            k = min(bl.kb, sh.steps - start)
            useful = min(each * k, sh.filters - each * start)
            shape = kernel_type(sh.item, sh.pairs), columns, rows, each * k
            shape = *shape, program.row, program.weight_row, bl.chunk, int(start > 0), not bl.packed
            if shape not in program.kernels:
                program.kernels[shape] = self.kernel(*shape)
            a = (start * program.row + column) * sh.item
            b = first_row * program.weight_row * (2 if sh.pairs else sh.item) + start * sh.item
            c = (first_row * bl.chunk + column) * sh.item
            program.calls.append((program.kernels[shape], columns * rows * useful, a, b, c))

    def tile(self, start: int, end: int) -> int:
        sh, program = self.sh, self.program
        found = tuple((a - start, b - start, *taps) for a, b, *taps in rectangles(sh, start, end))
        if found not in self.tiles:
            calls, sums = len(program.calls), len(program.sums)
            for a, b, t0, t1 in found:
                program.sums.append((t0, t1 - t0, a, b - a))
                if t1 - t0 == sh.S:
                    self.call(b - a, sh.S * sh.channels, 0, a)
                    continue
                for channel in range(sh.channels):  # few sizes are few kernels
                    for at, size, count in pieces(t1 - t0):
                        for i in range(count):
                            self.call(b - a, size, channel * sh.S + t0 + at + i * size, a)
            self.tiles[found] = len(program.tiles)
            counts = len(program.calls) - calls, len(program.sums) - sums
            program.tiles.append((calls, counts[0], sums, counts[1]))
        return self.tiles[found]

    def lower(self):
        sh, chunk = self.sh, self.bl.chunk
        first = min(sh.Q, sh.first_valid(0))
        end = max(first, sh.end_valid(sh.S - 1))
        for start, stop, width in (0, first, _BORDER), (first, end, chunk), (end, sh.Q, _BORDER):
            at = start
            while at < stop:
                part = min(width, chunk, stop - at)
                count = (stop - at) // chunk if part == chunk and start == first else 1
                self.program.segments.append((at, part, count, self.tile(at, at + part)))
                at += part * count


def lower_fold(sh: FoldShape, bl: FoldBlocking, kernel) -> FoldProgram:
    """`kernel(type, m, n, k, lda, ldb, ldc, beta, ahead)` gives the address of a kernel."""
    line = 64 // sh.item
    row = (round_up(bl.chunk, line) // line | 1) * line  # rows are spread over the sets of L1
    row = row if bl.packed else sh.Q
    program = FoldProgram(row, round_up(sh.filters, 2) if sh.pairs else sh.filters)
    for t in range(sh.S):
        distance, residue = divmod(t * sh.d - sh.pl, sh.s)
        program.taps.append((residue, distance))
    _Lowering(sh, bl, program, kernel).lower()
    return program
