"""Problem + machine -> tile sizes, kind of list, packing, split of the work. Pure integers.

Everything here depends on the problem and the instruction set alone, never on the number of
threads: that is what makes results bitwise equal for every number of threads.
Sizes are in elements of the computing type unless they say bytes.

This module has what the choices share, the others, _blocking_*.py, the choices themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from xsmmconv._geometry import Phase, Run

# Displacements inside a kernel are 32 bits wide; stay well below.
REACH_BYTES = 2**30
# Enough work items for dynamic scheduling to even out a dozen threads.
ITEMS = 32
# A work item has at least this many multiply-adds, and a thread that is woken for it.
ITEM_WORK, THREAD_WORK = 2**18, 2**20
# Columns of a tile whose taps are split, at most.
SPLIT_COLUMNS = 4096
# Bytes of a panel that stays in L2 whatever else does, and wants few pages of the TLB.
_SMALL_PANEL = 2**17


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choices depend on: the instruction set and the caches of one core."""

    isa: str
    vector_bytes: int
    overlap: bool  # kernels with overlapping operands can be had
    bf16: bool  # pairs of BF16 numbers are multiplied natively
    halved: bool  # vectors are loaded in halves: a line's end within one costs little
    amd: bool  # what is asked for ahead comes in time, and many rows may be read at once
    l1_bytes: int
    l2_bytes: int


def too_far(distance: int, item: int) -> bool:
    """Whether the columns of an operand of a kernel would be so far apart: it reads up to 23 of
    them at displacements from one address, and fetches some ahead."""
    return 32 * distance * item >= REACH_BYTES


def kernel_type(item: int, pairs: bool, rounded: bool = False) -> str:
    """Type of the operands of a kernel, and whether it rounds FP32 results to theirs."""
    if pairs:
        return "bfloat16 rounded" if rounded else "bfloat16"
    return "float32" if item == 4 else "float64"


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    return ceil_div(a, b) * b


def even_parts(extent: int, limit: int, multiple: int = 1) -> int:
    """Size of the parts when `extent` is cut into the fewest, nearly equal parts <= limit; their
    number is to be a multiple of `multiple`."""
    return ceil_div(extent, round_up(ceil_div(extent, limit), multiple))


@dataclass(frozen=True, slots=True)
class CorrelateShape:
    """One group of a correlation: forward, backward data or a transposed convolution."""

    N: int
    groups: int
    S: int  # taps of the weights; with a stride, some may not reach any row
    channels: int  # source channels per group
    pairs: bool  # the kernels multiply pairs of BF16 channels, which then are the elements
    tap_pairs: bool  # or of BF16 taps
    C: int  # steps of a kernel's k per group: channels, or pairs of them
    K: int  # output channels per group
    phases: tuple[Phase, ...]
    source_width: int
    planes: int  # the source is read with this stride
    out_width: int
    item: int  # bytes of an element of the computing type
    same_type: bool  # operands are of the computing type: contiguous rows can be used in place
    direct_source: bool  # and these are contiguous; this must not change a sum
    direct_out: bool  # rows can be written in place
    rounded_out: bool  # or are of BF16, which kernels can round their results to
    known_source: bool  # kernels may depend on the length of the source's rows,
    known_out: bool  # and of the output's; these two alone must not change a sum
    depthwise: bool = False  # each of the K filters has one channel to itself; there are no groups
    merged: tuple[Run, ...] = ()  # of phases that are filters, too: one after the other of each
    order: str = "KCS"  # of the weights in memory: "CKS" in backward data
    natural: bool = False  # and the kernels can read them there


@dataclass(frozen=True, slots=True)
class CorrelateBlocking:
    lists: str  # "channels": k = taps, overlapping columns; "taps": k = channels; "pairs" of taps
    lanes: str  # m, the vectorised dimension of the kernels: "columns", "filters", or "channels" of
    # filters that have one each
    nb: int  # batch rows of a work item (lanes = filters: n = columns x nb)
    packed: bool  # the source is copied to a panel per chunk
    direct: bool  # kernels write the rows of the output themselves
    rounded: bool  # or do so where one call computes a tile, and there is no bias and no ReLU
    tile: int  # columns of a kernel call
    border: int  # and near a border
    vector: int  # positions that cost as much as one
    kb: int  # filters of a kernel call
    cb: int  # channels of a list entry (lists over taps)
    chunk: int  # columns of a work item
    reasons: tuple[str, ...]
    split: int = 1  # few filters: the taps of each are so many filters with fewer taps
    interleaved: bool = False  # a chunk of all phases is collected, then written as whole rows
    fetched: bool = False  # what the next chunk copies to the panel is brought to L2 meanwhile,
    rows_fetched: bool = False  # and where the interleaved rows will be written
    by_block: bool = False  # weights are packed for a block of filters right before its use
    unpacked: bool = False  # filters are in the lanes, and neighbours in the user's array, too

    @property
    def transposed(self) -> bool:
        """Whether positions follow each other in the panel, and not the columns of a row."""
        return self.lanes != "columns"


def longest(phases: tuple[Phase, ...]) -> tuple[int, int, int]:
    """The most positions of a phase, and the most taps of a run and how far they reach."""
    runs = [run for phase in phases for run in phase.runs]
    taps = max((len(run.taps) for run in runs), default=0)
    reach = max(((len(run.taps) - 1) * run.spacing for run in runs), default=0)
    return max((phase.count for phase in phases), default=1), taps, reach


def trimmed(phases: tuple[Phase, ...]) -> bool:
    """Whether there are borders, where only some of the taps contribute."""
    return any(
        run.first_valid(0) > 0 or run.end_valid(len(run.taps) - 1) < phase.count
        for phase in phases
        for run in phase.runs
    )


def in_l1(sh: CorrelateShape, m: Machine) -> bool:
    """Whether all channels' rows, which lie beside each other, stay in L1: no two of them collide
    there, and a panel gains nothing."""
    size = sh.C * sh.source_width * sh.item
    return sh.known_source and sh.planes == 1 and 4 * size <= 5 * m.l1_bytes


def collide(distance: int, way: int = 2048, near: int = 64) -> bool:
    """Whether so many bytes from row to row bring the same columns of all to few sets of a cache:
    they are near a multiple of `way` (of L1, if nothing is said)."""
    return not near <= distance % way <= way - near


def chunk_columns(sh: CorrelateShape, tile: int, reach: int, panel_bytes: int) -> int:
    """Columns of an item. If it has a panel, that is small, as far as the halo and a few tiles let
    it be, and with the halo at most `panel_bytes`."""
    width, taps, _ = longest(sh.phases)
    total, work = width * sh.N * sh.groups, sh.C * sh.K * max(1, taps)
    # Columns an item may have, so that there are enough items, and has at least.
    share = max(ceil_div(total, ITEMS), ceil_div(ITEM_WORK, work))
    if panel_bytes:
        column = sh.C * sh.item * sh.planes * (1 + sh.tap_pairs)
        small = max(512, _SMALL_PANEL // column, 2 * reach)
        # Rows come faster from memory in pieces of 512 columns than in shorter ones.
        enough = max(ceil_div(total, ITEMS // 4), ceil_div(THREAD_WORK, work))
        share = max(share, min(512, enough))
        room = panel_bytes // column  # taps that are far apart have a window each
        share = min(max(share, 4 * tile, reach), small, max(room - reach, room // max(1, taps)))
    return round_up(min(max(share, tile), width, 8192), tile)
