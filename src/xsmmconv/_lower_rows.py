"""The program of dot products of rows: geometry + blocking -> taps, calls, and rows a of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate

from xsmmconv._blocking import round_up
from xsmmconv._blocking_rows import RowBlocking, RowShape, parts_of
from xsmmconv._layout import SourceLayout, in_place, panel

_LINE = 16  # sums of a call are whole vectors


@dataclass(slots=True)
class RowProgram:
    """What is executed, for any tile: a call takes what its taps use of it."""

    panel: SourceLayout  # of rows b, for the tiles that are packed
    taps: list[tuple]  # (place, first position, end, element of the result)
    calls: list[tuple] = field(default_factory=list)
    # (routine, first tap, taps, first position, first and end of those of all taps, end, sums)
    blocks: list[tuple] = field(default_factory=list)
    # (first row a, rows, first call, calls, sums)
    sums: int = 0  # of all blocks
    routines: dict[tuple[int, int], int] = field(default_factory=dict)  # by rows and taps

    def add_calls(
        self, rows: int, most: int, parts: list[int], routine: Callable
    ) -> tuple[int, int, int]:
        """Calls for so many rows of taps, which come in `parts`, at most so many in each call and
        as equal as can be: the first call, how many, and their sums."""
        first_call, start, sums = len(self.calls), 0, 0
        for part in parts:
            for count in parts_of(part, most):
                ranges = [(first, end) for _, first, end, _ in self.taps[start : start + count]]
                used = [(first, end) for first, end in ranges if first < end] or [(0, 0)]
                if (rows, count) not in self.routines:
                    self.routines[rows, count] = routine(rows, count)
                self.calls.append(
                    (
                        self.routines[rows, count],
                        start,
                        count,
                        min(first for first, _ in used),
                        max(first for first, _ in ranges),
                        min(end for _, end in ranges),
                        max(end for _, end in used),
                        sums,
                    )
                )
                start += count
                sums += round_up(rows * count, _LINE)
        return first_call, len(self.calls) - first_call, sums


def _taps(sh: RowShape, layout: SourceLayout, together: int) -> tuple[list[tuple], list[int]]:
    """The taps of all channels, in parts: all of them, those that no position uses last, or the
    same one of some channels `together`."""
    (phase,) = sh.phases
    _, next_row, next_tap = sh.out
    taps = [
        (
            layout.positions[r][j],
            max(0, run.first_valid(j)),
            min(phase.count, run.end_valid(j)),
            t * next_tap,
        )
        for r, run in enumerate(phase.runs)
        for j, t in enumerate(run.taps)
    ]
    groups = parts_of(sh.b_rows, together)
    row, item = layout.row, sh.item
    ordered = [
        ((c * row + position) * item, first, end, c * next_row + out)
        for c0, group in zip(accumulate(groups, initial=0), groups, strict=False)
        for position, first, end, out in taps
        for c in range(c0, c0 + group)
    ]
    if together == 1:
        return sorted(ordered, key=lambda tap: tap[1] >= tap[2]), [len(ordered)]
    return ordered, [group for group in groups for _ in taps]


def lower_rows(sh: RowShape, bl: RowBlocking, routine: Callable) -> RowProgram:
    """`routine(rows, taps)` gives the address of one."""
    runs = sh.phases[0].runs
    layout = in_place(runs, sh.b_width)
    if bl.packed:
        layout = panel(runs, bl.tile, True, sh.item)
        layout = replace(layout, row=bl.nb * layout.row)
    taps, parts = _taps(sh, layout, bl.together)
    program = RowProgram(layout, taps)
    lists: dict[int, tuple[int, int, int]] = {}
    a = 0
    for rows in bl.parts:
        if rows not in lists:
            lists[rows] = program.add_calls(rows, bl.taps[rows - 1], parts, routine)
        start, count, sums = lists[rows]
        program.blocks.append((a, rows, start, count, program.sums))
        a, program.sums = a + rows, program.sums + sums
    return program
