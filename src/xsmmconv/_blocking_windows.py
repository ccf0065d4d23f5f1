"""The taps of a single channel as lanes, in weight gradients; see _blocking_weight.py."""

from __future__ import annotations

from xsmmconv._blocking import Machine, ceil_div
from xsmmconv._geometry import Phase, Run
from xsmmconv._problem import ConvProblem


def _whole(p: ConvProblem) -> tuple[int, int]:
    """The positions [a, b) whose windows lie within the row."""
    return ceil_div(p.pl, p.s), min(p.Q, (p.W - (p.S - 1) * p.d - 1 + p.pl) // p.s + 1)


def windows_in_lanes(p: ConvProblem, item: int, m: Machine) -> bool:
    """Whether the taps of a single channel are the lanes. What a position reads of the channel lies
    side by side, so a tile is a matrix of positions and taps, and the gradients of the filters, of
    which there are more than there is of x, are read as they lie: to transpose them costs as much
    as some multiply-adds, of which each has only S. Taps that are no neighbours have to be
    collected, which is worth it for many filters."""
    if not (p.C == p.g == 1 and p.K >= (4 if p.d == 1 else 192) and p.S > 1 and p.s > 1):
        return False
    a, b = _whole(p)
    if b - a < p.Q and (2 * (b - a) < p.Q or 2 * p.S > 3 * (128 // item)):
        return False  # a position at the border is a call of its own, for lanes of a single block
    vector = m.vector_bytes // item
    empty = -p.S % vector / vector
    return empty <= (0.3 if m.vector_bytes == 64 else 0.75)


def windows_of(p: ConvProblem) -> tuple[tuple[Phase, ...], tuple[tuple[int, int, int], ...]]:
    """These positions as a matrix of the row x, x[n, 0, q s + t d - pl], with one tap; and of the
    others those with some taps that reach the row: (q, t0, t1)."""
    a, b = _whole(p)
    first = ((q, q * p.s - p.pl) for q in (*range(a), *range(b, p.Q)))
    borders = (
        (q, max(0, ceil_div(-at, p.d)), min(p.S, ceil_div(p.W - at, p.d))) for q, at in first
    )
    phase = Phase(a * p.s - p.pl, 1, b - a, (Run(range(1), 0, p.Q, a, 1),))
    return (phase,), tuple(border for border in borders if border[1] < border[2])
