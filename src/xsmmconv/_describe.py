"""`Plan.describe()`: what will happen, and why, in words."""

from __future__ import annotations

from dataclasses import fields

from xsmmconv._blocking import CorrelateBlocking
from xsmmconv._blocking_filter import FilterBlocking
from xsmmconv._blocking_fold import FoldBlocking
from xsmmconv._blocking_rows import RowBlocking
from xsmmconv._blocking_unfolded import UnfoldedBlocking

_SHOWN_SEGMENTS = 12


def describe(plan) -> str:
    p, bl, program, engine = plan.problem, plan._blocking, plan._program, plan.engine
    m = plan._machine
    rows = isinstance(bl, RowBlocking | FilterBlocking | UnfoldedBlocking)
    families = "" if rows else ", ".join(sorted({kernel[0] for kernel in program.kernels}))
    lines = [
        f"{plan.pass_}: N={p.N} C={p.C} K={p.K} S={p.S} W={p.W} Q={p.Q} s={p.s} d={p.d} "
        f"pl={p.pl} pr={p.pr} groups={p.g} {p.dtype}",
        f"  instruction set   {m.isa}, {m.vector_bytes}-byte vectors, {families or 'no'} kernels"
        + (" (tiles converted to FP32)" if families and p.dtype not in families else ""),
        f"  multiply-adds     {plan.multiply_adds:,} = N * K * C/groups * E",
    ]
    lines += [f"  choice            {reason}" for reason in bl.reasons]
    correlate = isinstance(bl, CorrelateBlocking)
    numbers = ", ".join(
        f"{f.name} {getattr(bl, f.name)}"
        for f in fields(bl)
        if isinstance(getattr(bl, f.name), int)
    )
    lines += [
        f"  blocking          {numbers}",
        f"  work items        {engine.items}, more where threads outnumber them",
        f"  scratch           {engine.scratch_bytes:,} bytes per thread, "
        f"{engine.shared_bytes:,} shared",
    ]
    if isinstance(bl, UnfoldedBlocking):
        return "\n".join(lines)
    if isinstance(bl, FilterBlocking):
        return "\n".join(lines + _filtered_columns(program))
    if rows:
        return "\n".join(lines + _row_blocks(bl, program))
    lines.append(
        f"  kernels           {len(program.kernels)}: (type, m, n, k, lda, ldb, ldc, beta, ahead)"
    )
    lines += [f"    {kernel}" for kernel in sorted(program.kernels, reverse=True)[:_SHOWN_SEGMENTS]]
    lines += _more(len(program.kernels))
    if isinstance(bl, FoldBlocking):
        return "\n".join(lines)
    lines.append(f"  segments          {len(program.segments)}")
    segments = _correlate_rows(program) if correlate else _weight_rows(program)
    lines += [f"    {segment}" for segment in segments[:_SHOWN_SEGMENTS]]
    return "\n".join(lines + _more(len(segments)))


def _more(count: int) -> list[str]:
    return [f"    ... and {count - _SHOWN_SEGMENTS} more"] if count > _SHOWN_SEGMENTS else []


def _filtered_columns(program) -> list[str]:
    lines = [f"  phases            {len(program.phases)}"]
    lines += [
        f"    {count} columns, all taps for {first} to {max(first, end)}, in {runs} run(s)"
        for count, first, end, _, runs, _ in program.phases[:_SHOWN_SEGMENTS]
    ]
    return lines + _more(len(program.phases))


def _row_blocks(bl, program) -> list[str]:
    lines = [f"  routines          {len(program.routines)}: (rows, taps)"]
    lines += [f"    {routine}" for routine in sorted(program.routines, reverse=True)]
    lines.append(f"  blocks of rows    {len(program.blocks)}")
    blocks = [
        f"rows {a} to {a + rows}: {calls} call(s) for each tile of {bl.tile} columns"
        for a, rows, _, calls, _ in program.blocks
    ]
    lines += [f"    {block}" for block in blocks[:_SHOWN_SEGMENTS]]
    return lines + _more(len(blocks))


def _tiles(start, width, count, calls, lists) -> str:
    return (
        f"columns {start} to {start + width * count}: {count} tile(s) of {width}, "
        f"{calls} call(s), {lists} list entries"
    )


def _correlate_rows(program) -> list[str]:
    rows = []
    for first, step, _, start, segments in program.phases:
        where = f"every {step} from {first}: " if step > 1 else ""
        for column, width, tiles, index in program.segments[start : start + segments]:
            call, calls, fill, border, taps, _, partial, _ = program.tiles[index]
            lists = sum(c[-1] for c in program.calls[call : call + calls])
            if border >= 0 and not partial:
                lists = taps
            rows.append(
                where
                + _tiles(column, width, tiles, calls, lists)
                + (", zeroed first" if fill and calls else "")
                + (", no tap reaches them" if not lists else "")
            )
    return rows


def _weight_rows(program) -> list[str]:
    rows = []
    for plane, column, width, tiles, index in program.segments:
        call, calls, packed, _, halo, some = program.tiles[index]
        lists = sum(c[-1] for c in program.calls[call : call + calls])
        rows.append(
            f"plane {plane}, "
            + _tiles(column, width, tiles, calls, lists)
            + (", packed" if packed else ", in place")
            + (", stacked" if halo else "")
            + (f", {some} lanes" if some else "")
        )
    return rows
