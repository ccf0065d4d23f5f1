"""Which taps touch which positions, per spatial axis. Pure integers, no arrays.

    y[q] = sum_t w[t] * x[q*s + t*d - pl],   t in [0, S), q in [0, Q)

Every pass is described in the same terms. A *phase* is a set of equally spaced output positions
that see the same taps; a *run* is a set of taps whose inputs are equally spaced in one *plane*
(the input positions of one residue class modulo the stride):

    out[first + m*step] = sum over runs, j of  w[taps[j]] * plane[m + shift + j*spacing]

so that behind it there is only a dense, dilated correlation with stride 1. No product with a zero
that padding or stride put there is ever listed (arXiv 2306.15951): `cover` cuts the (position, tap)
pairs of a tile into rectangles that hold the valid pairs and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Run:
    """Taps whose inputs lie `spacing` apart in one plane of `length` elements, ascending."""

    taps: range
    plane: int
    length: int
    shift: int
    spacing: int

    def first_valid(self, j: int) -> int:
        """The first position m for which tap j reads inside the plane (may be negative)."""
        return -self.shift - j * self.spacing

    def end_valid(self, j: int) -> int:
        """One past the last position m for which tap j reads inside the plane."""
        return self.length - self.shift - j * self.spacing


@dataclass(frozen=True, slots=True)
class Phase:
    """Output positions first, first + step, ... (`count` of them) and the runs they see."""

    first: int
    step: int
    count: int
    runs: tuple[Run, ...]


class Rectangle(NamedTuple):
    """Positions [a, b) of a tile times taps [j0, j1) of run `run`; every pair in it is valid."""

    run: int
    a: int
    b: int
    j0: int
    j1: int


def output_width(W: int, S: int, s: int, d: int, pl: int, pr: int) -> int:
    """Q, the number of positions of a filter in the padded input; <= 0 if it does not fit."""
    return (W + pl + pr - d * (S - 1) - 1) // s + 1


def plane_length(W: int, s: int, plane: int) -> int:
    """Number of positions of residue class `plane` modulo s in [0, W)."""
    return max(0, -((plane - W) // s))


def forward_phases(W: int, S: int, Q: int, s: int, d: int, pl: int) -> tuple[Phase, ...]:
    """One phase; taps with the same (t*d - pl) mod s read the same plane of x."""
    every = s // gcd(s, d)
    runs = []
    for t0 in range(min(every, S)):
        shift, plane = divmod(t0 * d - pl, s)
        runs.append(
            Run(range(t0, S, every), plane, plane_length(W, s, plane), shift, d // gcd(s, d))
        )
    return (Phase(0, 1, Q, tuple(runs)),)


def backward_data_phases(W: int, S: int, Q: int, s: int, d: int, pl: int) -> tuple[Phase, ...]:
    """The residue classes of (i + pl) mod s that taps reach; each reads dy, one plane.

    In a class the taps are t0, t0 + s', t0 + 2s', ... with s' = s/gcd(s, d), so the first s' taps
    name the classes. The rows of all other classes are exact zeros.
    """
    g = gcd(s, d)
    every, spacing = s // g, d // g
    phases = []
    for t0 in range(min(every, S)):
        first = (t0 * d - pl) % s
        if first < W:
            taps = range(t0, S, every)
            b = (first + pl - t0 * d) // s
            # dx reads dy backwards: list the taps in descending order, so that inputs ascend.
            run = Run(taps[::-1], 0, Q, b - (len(taps) - 1) * spacing, spacing)
            phases.append(Phase(first, s, plane_length(W, s, first), (run,)))
    return tuple(sorted(phases, key=lambda phase: phase.first))


def with_gaps(phases: tuple[Phase, ...], W: int) -> tuple[Phase, ...]:
    """The same phases of a stride, and others without taps for the columns that no tap reaches."""
    found = {phase.first: phase for phase in phases}
    step = phases[0].step
    return tuple(
        found.get(first) or Phase(first, step, plane_length(W, step, first), ())
        for first in range(min(step, W))
    )


def split_taps(phase: Phase, parts: int) -> Phase:
    """The same phase with every run cut into `parts`: part r has the taps r, r + parts, ..."""
    runs = []
    for run in phase.runs:
        for r in range(parts):
            shift, spacing = run.shift + r * run.spacing, run.spacing * parts
            runs.append(Run(run.taps[r::parts], run.plane, run.length, shift, spacing))
    return Phase(phase.first, phase.step, phase.count, tuple(runs))


def valid_pairs(W: int, S: int, Q: int, s: int, d: int, pl: int) -> int:
    """E = #{(q, t): 0 <= q*s + t*d - pl < W}, the same for all passes."""
    total = 0
    for t in range(S):
        offset = t * d - pl
        lo = max(0, -(offset // s))
        hi = min(Q, (W - 1 - offset) // s + 1)
        total += max(0, hi - lo)
    return total


def cover(run: Run, index: int, start: int, end: int, vector: int = 1) -> list[Rectangle]:
    """Cut the valid pairs of the tile [start, end) and all taps into full rectangles.

    The taps that are valid for all positions come first; what remains at either end is halved at a
    breakpoint, so that a border is a few rectangles of doubling size and not one per column. Within
    `vector` positions a tap costs the same for few of them, and is a rectangle by itself.
    """
    spacing, length = run.spacing, run.length
    # From here on positions count from the start of the tile.
    found, shift, parts = [], run.shift + start, [(0, end - start, 0, len(run.taps))]
    while parts:
        a, b, j0, j1 = parts.pop()
        # A tap is valid for position m iff -shift - j*spacing <= m < length - shift - j*spacing.
        j0 = max(j0, (-shift - b) // spacing + 1)
        j1 = min(j1, -((shift + a - length) // spacing))
        full0 = max(j0, -((shift + a) // spacing))
        full1 = min(j1, (length - shift - b) // spacing + 1)
        if full0 < full1:
            found.append(Rectangle(index, a, b, full0, full1))
        else:
            full0 = full1 = j1
        for p0, p1 in (j0, full0), (full1, j1):
            if p0 >= p1:
                continue
            if b - a <= vector:
                for j in range(p0, p1):
                    first = -shift - j * spacing
                    lo, hi = max(a, first), min(b, first + length)
                    if lo < hi:
                        found.append(Rectangle(index, lo, hi, j, j + 1))
                continue
            first = -shift - (p0 + p1) // 2 * spacing
            cut = next(c for c in (first, first + length, (a + b) // 2) if a < c < b)
            parts += (a, cut, p0, p1), (cut, b, p0, p1)
    return found


def next_change(phase: Phase, m: int) -> int:
    """The first position after m where a tap starts or stops being valid (or the end)."""
    best = phase.count
    for run in phase.runs:
        n = len(run.taps)
        # Smallest first_valid(j) > m and smallest end_valid(j) > m: both descend with j.
        for origin in (-run.shift, run.length - run.shift):
            j = min(n - 1, (origin - m - 1) // run.spacing)
            if j >= 0:
                best = min(best, origin - j * run.spacing)
    return best


def interior(phase: Phase) -> tuple[int, int]:
    """The positions [a, b) where all taps are valid; a >= b if there are none."""
    a = max((run.first_valid(0) for run in phase.runs), default=0)
    b = min((run.end_valid(len(run.taps) - 1) for run in phase.runs), default=0)
    return max(0, a), min(phase.count, b)


def walk(phase: Phase, tile: int, border: int) -> Iterator[tuple[int, int, int]]:
    """Cut the positions of a phase into (start, width, count): `count` equal tiles in a row.

    Tiles that see one set of taps are `tile` wide. Where the set changes within `border` columns,
    tiles are that narrow: little of them is valid for only some of their columns. No tile crosses
    a multiple of `tile`, so a chunk of whole tiles can be worked on alone.
    """
    a = 0
    while a < phase.count:
        room = next_change(phase, a) - a
        left = phase.count - a
        if a % tile == 0 and room >= tile:
            width = tile
        elif room == left or room < border <= min(run.spacing for run in phase.runs):
            width = room
        else:
            width = max(border, room // border * border)
        width = min(width, left, tile - a % tile)
        count = max(1, room // width) if width == tile else 1
        yield a, width, count
        a += width * count


@lru_cache
def pieces(length: int, piece: int = 8) -> tuple[tuple[int, int, int], ...]:
    """A length as (start, size, count): whole pieces, then powers of two.

    Lengths along a border are many, and a kernel is generated for each size; these are few.
    """
    start = length // piece * piece
    found = [(0, piece, start // piece)] if start else []
    size = piece // 2
    while start < length:
        if size <= length - start:
            found.append((start, size, 1))
            start += size
        size //= 2
    return tuple(found)


def weight_phases(W: int, S: int, Q: int, s: int, d: int, pl: int, lanes: str) -> tuple[Phase, ...]:
    """The pairs (q, t) of backward weight, by position of the operand that is transposed.

    lanes = "grad_out": m is q, the runs read x: the phase of forward. lanes = "x": one phase per
    run of forward, m is the position in that plane of x (`first` is the plane), and its only run
    reads grad_out, with the taps in descending order.
    """
    (forward,) = forward_phases(W, S, Q, s, d, pl)
    if lanes == "grad_out":
        return (forward,)
    phases = []
    for run in forward.runs:
        if run.length == 0:
            continue
        n = len(run.taps)
        mirrored = Run(run.taps[::-1], 0, Q, -run.shift - (n - 1) * run.spacing, run.spacing)
        phases.append(Phase(run.plane, s, run.length, (mirrored,)))
    return tuple(phases)
