"""The choices for rows that are filtered: groups of so few channels that matrices gain nothing.

Columns are the lanes. Nothing is shared between the rows of the output but what the caches hold, so
that a load serves one multiply-add (in pairs of BF16, two), but nothing is packed, either.
"""

from __future__ import annotations

from dataclasses import dataclass

from xsmmconv._blocking import ITEMS, REACH_BYTES, Machine, ceil_div, even_parts, longest, round_up
from xsmmconv._geometry import Phase, Run

# Columns of a work item, at least and at most, in blocks that the routines compute together; and of
# the output, where its phases are interleaved.
_FEWEST, _MOST, _BLOCK = 2**10, 2**13, 2**8
_INTERLEAVED = 2**12
# Taps of a run of BF16, less than: at borders they are counted in 16 bits.
_TAPS = 2**14


@dataclass(frozen=True, slots=True)
class FilterShape:
    """One group of a correlation, and all phases of its output."""

    N: int
    groups: int
    sources: int  # rows of a group,
    outputs: int  # and of its output
    phases: tuple[Phase, ...]  # as many as their step: every column has one
    planes: int  # the source is read with this stride
    source_width: int
    stored: int  # bytes of an element of the operands,
    computed: int  # and of a sum
    pairs: bool  # BF16 is multiplied in pairs of taps
    in_place: bool  # rows can be read in place; no sum depends on it


@dataclass(frozen=True, slots=True)
class FilterBlocking:
    tile: int  # columns of a work item, of each phase,
    units: int  # and groups and rows of the batch, where these are short
    packed: bool  # the rows of a group are copied, as planes
    pairs: bool  # BF16 is multiplied in pairs of taps
    reasons: tuple[str, ...]


def can_be_filtered(phases: tuple[Phase, ...], stored: int) -> bool:
    """Whether every column has a phase, and phases can be interleaved."""
    steps = {phase.step for phase in phases}
    return steps == {len(phases)} and (stored > 2 or len(phases) == 1 or len(phases) % 2 == 0)


def filters_are_better(sh: FilterShape, m: Machine) -> bool:
    """Whether rows are better filtered than multiplied as matrices, from measurements of both."""
    if not can_be_filtered(sh.phases, sh.stored):
        return False
    width, taps, _ = longest(sh.phases)
    neighbours = all(run.spacing == 1 for phase in sh.phases for run in phase.runs)
    if sh.sources * sh.outputs == 1:
        return neighbours or taps <= (18 if m.bf16 else 40)
    if not neighbours or sh.planes * len(sh.phases) > 1 or width < 128:
        return False
    if sh.pairs:
        return sh.sources <= {1: 16, 2: 2, 3: 2}.get(sh.outputs, 0)
    # Others load a vector for each multiply-add, half of the time or always.
    shifted = m.vector_bytes == 64 and sh.stored > 2
    return sh.outputs == 1 and sh.sources <= 8 and (shifted or taps <= 12)


def filter_blocking(sh: FilterShape, m: Machine) -> FilterBlocking | None:
    """None: the routines count elements in 32 bits (taps of BF16 in 16), and what a tile copies is
    to fit half of the second-level cache."""
    runs = [run for phase in sh.phases for run in phase.runs]
    width, taps, _ = longest(sh.phases)
    if any(run.length + taps * run.spacing + abs(run.shift) >= REACH_BYTES for run in runs):
        return None
    if sh.pairs and taps >= _TAPS:
        return None
    units, step = sh.N * sh.groups, len(sh.phases)
    most = _MOST if step == 1 else max(_BLOCK, _INTERLEAVED // step)
    columns = min(max(ceil_div(width * units, ITEMS), _FEWEST), most) // _BLOCK * _BLOCK
    room = m.l2_bytes // 2 // sh.stored - sh.sources * len(runs) * (taps + 16)
    while columns > _BLOCK and _scratch(columns, sh, runs) > room:
        columns -= _BLOCK
    tile = min(round_up(even_parts(width, columns), _BLOCK), width)
    if _scratch(tile, sh, runs) > room:
        return None
    filters = f"{len(runs)} run(s) of up to {taps} taps"
    reasons = [f"{sh.sources} row(s) of a group against {filters}: filtered, no matrices"]
    if sh.pairs:
        reasons.append("k = 2 taps of BF16 (FP32 where not all of them reach the source)")
    packed = sh.planes > 1 or not sh.in_place
    if packed:
        reasons.append("panel: the source is strided")
    if step > 1:
        reasons.append(f"{step} phases: a tile of each, then whole rows")
    together = max(1, min(columns // width, ceil_div(units, ITEMS)))
    return FilterBlocking(tile, together, packed, sh.pairs, tuple(reasons))


def _scratch(columns: int, sh: FilterShape, runs: list[Run]) -> int:
    """Elements that the taps read of the rows of a group for so many columns, and the results of
    all phases. Taps that are far apart have a window each."""
    each = [columns + (len(run.taps) - 1) * min(run.spacing, columns) + 64 for run in runs]
    phases = len(sh.phases)
    return sh.sources * sum(each) + (phases * columns if phases > 1 else 0)
