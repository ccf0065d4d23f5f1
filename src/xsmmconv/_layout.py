"""Where the kernels find their operands: in the user's array, or in a panel packed per chunk.

A panel row holds, for one channel, *windows* of the de-interleaved source: all that the taps of a
chunk of columns can reach. Taps far apart get a window each, near ones share one.
Offsets are in elements of the computing type, relative to the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xsmmconv._blocking import round_up
from xsmmconv._geometry import Run

_TOGETHER = 64  # windows that are looked at for one matrix (load_pairs_together counts on it)


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a panel row: `width` columns of `plane`, the first at chunk start + shift."""

    plane: int
    shift: int
    width: int
    position: int


@dataclass(frozen=True, slots=True)
class SourceLayout:
    """(channel, run, tap j) starts at channel*row + positions[run][j]*column, from the tile on; the
    tile at column m begins at m*step*column."""

    row: int
    column: int
    windows: tuple[Window, ...]
    positions: tuple[tuple[int, ...], ...]
    step: int = 1  # positions from one column to the next
    pairs: int = 0  # where pairs of an element and the one a tap further on begin, if there are any


def window_rows(layout: SourceLayout, planes: int, least: int) -> list[tuple[int, ...]]:
    """The windows for the engines, each with the number of those from it on that hold neighbours in
    the source and are equally far apart in the panel: `least` of them or more are a matrix
    together, transposed."""
    windows, rows = layout.windows, []
    for i, w in enumerate(windows):
        together = 1
        for n, other in enumerate(windows[i + 1 : i + _TOGETHER], 1):
            near = (other.shift - w.shift) * planes + other.plane - w.plane == n
            step = windows[i + 1].position - w.position
            if not near or other.width != w.width or other.position - w.position != n * step:
                break
            together += 1
        together = together if together >= least else 1
        rows.append((w.plane, w.shift, w.width, w.position, together))
    return rows


def in_place(runs: Sequence[Run], width: int) -> SourceLayout:
    """The rows of the user's array, `width` elements each."""
    return SourceLayout(
        width,
        1,
        (),
        tuple(tuple(run.shift + j * run.spacing for j in range(len(run.taps))) for run in runs),
    )


def panel(runs: Sequence[Run], columns: int, split_taps: bool, item: int) -> SourceLayout:
    """A panel for `columns` positions. Without `split_taps` the taps of a run stay in one window,
    which lists over channels need."""
    return _panel(runs, columns, split_taps, 64 // item)


def transposed_panel(
    runs: Sequence[Run], columns: int, C: int, nb: int, item: int, whole: bool
) -> SourceLayout:
    """A panel [position][batch row][channel]; its `row` is 1, its windows are in positions. Where
    the columns are those of `whole` rows, these have no others than the source."""
    layout = _panel(runs, columns, True, 1)
    if whole:
        layout = _clipped(layout, {run.plane: run.length for run in runs})
    # A dozen columns are read in turns: at distances of kilobytes they would share sets of L1.
    length = C + 64 // item if C * item % 1024 == 0 else C
    return SourceLayout(1, nb * length, layout.windows, layout.positions)


def _clipped(layout: SourceLayout, lengths: dict[int, int]) -> SourceLayout:
    """Without what lies beside the source, of whole rows. Taps may begin there nevertheless."""
    windows, moved, position = [], [], 0
    for w in layout.windows:
        first, end = max(0, w.shift), min(lengths[w.plane], w.shift + w.width)
        moved.append((w.position, position - w.position - (first - w.shift)))
        if first < end:
            windows.append(Window(w.plane, first, end - first, position))
            position += end - first
    places = tuple(
        tuple(at + next(by for start, by in reversed(moved) if start <= at) for at in of_run)
        for of_run in layout.positions
    )
    return replace(layout, windows=tuple(windows), positions=places)


def dense_panel(runs: Sequence[Run], columns: int, planes: int, lanes: int) -> SourceLayout:
    """A panel [position][lane] of the source as it is, all planes together: a column is `step`
    positions further on than the one before it."""
    places = [
        [(run.shift + j * run.spacing) * planes + run.plane for j in range(len(run.taps))]
        for run in runs
    ]
    lo = min((min(place) for place in places), default=0)
    hi = max((max(place) for place in places), default=0)
    window = Window(0, lo, (columns - 1) * planes + hi - lo + 1, 0)
    positions = tuple(tuple(at - lo for at in place) for place in places)
    return SourceLayout(1, lanes, (window,), positions, step=planes)


def _panel(runs: Sequence[Run], columns: int, split_taps: bool, line: int) -> SourceLayout:
    pieces = set()
    for run in runs:
        n, step = len(run.taps), run.spacing
        if split_taps:
            pieces.update((run.plane, run.shift + j * step, run.shift + j * step) for j in range(n))
        else:
            pieces.add((run.plane, run.shift, run.shift + (n - 1) * step))
    merged: list[list[int]] = []
    for plane, lo, hi in sorted(pieces):
        if merged and merged[-1][0] == plane and lo - merged[-1][2] <= columns:
            merged[-1][2] = max(hi, merged[-1][2])
        else:
            merged.append([plane, lo, hi])
    windows, position = [], 0
    merged.sort(key=lambda m: (m[1], m[0]))  # in the order of the source
    # Neighbours that are equally wide are loaded together.
    reaches = [hi - lo for _, lo, hi in merged] or [0]
    planes = {plane for plane, _, _ in merged}
    several = len(planes) == len(merged) > 1
    first, end = min(lo for _, lo, _ in merged or [(0, 0, 0)]), max(reaches)
    apart = max((hi for _, _, hi in merged), default=0) - first - end
    every = range(min(planes, default=0), max(planes, default=0) + 1)
    if line > 1 and several and 0 < apart <= columns // 8 and 3 <= len(every) <= 2 * len(planes):
        # In any order, or with a few between them: all planes are neighbours.
        merged = [[plane, first, first + end + apart] for plane in every]
    elif several and max(reaches) - min(reaches) <= columns // 8:
        merged = [[plane, lo, lo + max(reaches)] for plane, lo, _ in merged]
    for plane, lo, hi in merged:
        windows.append(Window(plane, lo, columns + hi - lo, position))
        position += round_up(columns + hi - lo, line)
    # An odd number of cache lines, so that the rows of a panel spread over the sets of L1.
    row = max(position, line)
    row += line if row // line % 2 == 0 else 0

    def place(run: Run, j: int) -> int:
        shift = run.shift + j * run.spacing
        w = next(w for w in reversed(windows) if w.plane == run.plane and w.shift <= shift)
        return w.position + shift - w.shift

    return SourceLayout(
        row,
        1,
        tuple(windows),
        tuple(tuple(place(run, j) for j in range(len(run.taps))) for run in runs),
    )
