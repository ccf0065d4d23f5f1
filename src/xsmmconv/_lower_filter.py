"""The program of filtered rows: geometry + blocking -> runs of taps, phases of an output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from xsmmconv._blocking_filter import FilterBlocking, FilterShape
from xsmmconv._geometry import Run, interior, plane_length
from xsmmconv._layout import SourceLayout, in_place, panel


@dataclass(slots=True)
class FilterProgram:
    """What is executed for any output and tile, in elements."""

    source: SourceLayout
    runs: list[tuple]
    # (taps, distance of what they read, shift, spacing, length, row, place, first tap, next tap)
    phases: list[tuple]  # (columns, first and end of those of all taps, first run, runs, taps)


def lower_filter(sh: FilterShape, bl: FilterBlocking) -> FilterProgram:
    all_runs = [run for phase in sh.phases for run in phase.runs]
    layout = in_place(all_runs, sh.source_width)
    if bl.packed:
        layout = panel([*all_runs, *_other_planes(sh)], bl.tile, True, sh.stored)
        if any(len({b - a for a, b in pairwise(place)}) > 1 for place in layout.positions):
            layout = _apart([panel([run], bl.tile, True, sh.stored) for run in all_runs])
    program = FilterProgram(layout, [], [])
    places = iter(layout.positions)
    for phase in sh.phases:
        runs = [(run, next(places)) for run in phase.runs]
        taps = sh.sources * sum(len(run.taps) for run, _ in runs)
        program.phases.append(
            (phase.count, *interior(phase), len(program.runs), sh.sources * len(runs), taps)
        )
        for row in range(sh.sources):
            for run, place in runs:
                step = place[1] - place[0] if len(place) > 1 else 1
                geometry = len(place), step, run.shift, run.spacing, run.length
                program.runs.append((*geometry, row, place[0], run.taps.start, run.taps.step))
    return program


def _apart(layouts: list[SourceLayout]) -> SourceLayout:
    """The windows of each run by themselves: shared, those of far taps may be of unequal widths,
    and what the taps of a run read is to be equally far apart."""
    windows, places, row = [], [], 0
    for layout in layouts:
        windows += [replace(w, position=w.position + row) for w in layout.windows]
        places += [tuple(at + row for at in place) for place in layout.positions]
        row += layout.row
    return SourceLayout(row, 1, tuple(windows), tuple(places))


def _other_planes(sh: FilterShape) -> list[Run]:
    """The planes between those of fewer neighbouring taps than the stride has: all of them together
    are a matrix whose rows follow each other, which is copied much faster."""
    runs = sh.phases[0].runs
    taps = len(runs)
    if not 1 < taps < sh.planes or any(len(run.taps) > 1 for run in runs):
        return []
    first = runs[0].shift * sh.planes + runs[0].plane
    places = [run.shift * sh.planes + run.plane for run in runs]
    if places != list(range(first, first + taps)) or 2 * taps < sh.planes:
        return []
    others = (divmod(first + t, sh.planes) for t in range(taps, sh.planes))
    return [
        Run(range(1), plane, plane_length(sh.source_width, sh.planes, plane), shift, 1)
        for shift, plane in others
    ]
