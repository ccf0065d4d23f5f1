"""Engine 2's program where k is rows of the batch: short rows, whose taps have few positions each.

For some rows of the batch both operands are transposed: [position][batch row][lane] and
[row channel][position][batch row]. A tap is one call, whose list has the positions where it reads
the input: whatever stride, dilation and padding are, no position is special.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from xsmmconv._blocking import kernel_type, round_up
from xsmmconv._blocking_weight import WeightBlocking, WeightShape
from xsmmconv._geometry import Phase


@dataclass(frozen=True, slots=True)
class Positions:
    """Every step-th position of an operand, `count` of them, from the first on."""

    first: int
    step: int
    count: int

    def place(self, position: int) -> int:
        return (position - self.first) // self.step


@dataclass(frozen=True, slots=True)
class TapPositions:
    """Where a tap reads: `count` pairs of positions of the lanes and of the rows."""

    tap: int
    lane: int
    row: int
    count: int


def tap_positions(phases: tuple[Phase, ...], row_planes: int) -> Iterator[TapPositions]:
    for phase in phases:
        for run in phase.runs:
            for j, tap in enumerate(run.taps):
                first, end = max(0, run.first_valid(j)), min(phase.count, run.end_valid(j))
                if first < end:
                    lane = phase.first + first * phase.step
                    row = run.plane + (first + run.shift + j * run.spacing) * row_planes
                    yield TapPositions(tap, lane, row, end - first)


def _positions(starts: list[tuple[int, int]], step: int) -> Positions:
    """Of sequences (first, count) with that step."""
    first = min(at for at, _ in starts)
    last = max(at + (count - 1) * step for at, count in starts)
    each = gcd(*(at - first for at, _ in starts), *(step for _, count in starts if count > 1)) or 1
    return Positions(first, each, (last - first) // each + 1)


def operand_positions(sh: WeightShape) -> tuple[Positions, Positions]:
    """What is transposed of the lanes and of the rows."""
    taps = list(tap_positions(sh.phases, sh.row_planes))
    step = sh.phases[0].step
    return (
        _positions([(tap.lane, tap.count) for tap in taps], step),
        _positions([(tap.row, tap.count) for tap in taps], sh.row_planes),
    )


def row_distance(positions: int, nb: int, item: int) -> int:
    """From a row channel to the next, in elements: an odd number of lines, so that those of a call
    are spread over the sets of L1."""
    line = 64 // item
    return (round_up(positions * nb, line) // line | 1) * line


def lower_batch(sh: WeightShape, bl: WeightBlocking, program) -> None:
    """The calls of the one tile, with the shapes of their kernels."""
    lanes, rows = program.lane_positions, program.row_positions
    item, k = (2, round_up(bl.nb, 2)) if bl.pairs else (sh.item, bl.nb)
    step = sh.phases[0].step // lanes.step, sh.row_planes // rows.step
    kind, longest = kernel_type(sh.item, bl.pairs), 0
    sizes = min(bl.rb, sh.rows), sh.rows % bl.rb
    kernels = tuple(
        (kind, m, n, k, bl.lb, program.panel.row, sh.taps * bl.lb) if m and n else None
        for n in sizes
        for m in (bl.lb, bl.last_lb)
    )
    for tap in tap_positions(sh.phases, sh.row_planes):
        a = lanes.place(tap.lane) * k * bl.lb * item
        b = rows.place(tap.row) * k * item
        c = program.tap[tap.tap] * bl.lb * sh.item
        program.calls.append((*kernels, tap.count * bl.nb, *sizes, 0, a, b, c, 0, tap.count))
        longest = max(longest, tap.count)
    program.offsets_a += [i * step[0] * k * bl.lb * item for i in range(longest)]
    program.offsets_b += [i * step[1] * k * item for i in range(longest)]
    program.tiles.append((0, len(program.calls), 1, int(bl.pairs), 0, 0))
    program.segments.append((0, 0, lanes.count, 1, 0))
