"""A run of the benchmark as text: every cell, then what they add up to."""

from xsmmconv._terminal import table
from xsmmconv.bench.results import grouped, speedups, summary

_WORST = 5
_CELL_HEADER = (
    "problem", "pass", "dtype", "threads", "min us", "median us", "GFLOP/s", "of peak",
    "in pairs", "torch of peak", "torch ratio", "channels-last ratio", "torch used",
)  # fmt: skip
_SUMMARY_HEADER = (
    "suite", "pass", "dtype", "threads", "cells", "of peak", "lowest", "torch of peak",
    "torch ratio", "lowest", "behind", "channels-last ratio", "behind",
)  # fmt: skip
_LEGEND = """\
of peak: GFLOP/s at the minimum time as a share of the highest peak in the same cell
in pairs: median over repeats, each as a share of the peak right before and after it
ratio: its time as a multiple of ours, median over rounds
summary: medians of shares, geometric means of ratios, the lowest of both; behind: ratios below 1"""


def report(about, results):
    """Everything as one text."""
    parts = [_heading(about), peaks(results), cells(results), summaries(results)]
    parts += [worst(group, kind) for kind, group in grouped(results, lambda r: r.kind).items()]
    parts += [behind(results), scaling(results), differing(results), _LEGEND]
    return "\n\n".join(part for part in parts if part)


def peaks(results):
    """The range of the peaks that the shares are shares of."""
    lines = []
    for (dtype, threads), group in grouped(results, lambda r: (r.dtype, r.threads)).items():
        found = [one.peak for one in group]
        lines.append((f"  {dtype}", _threads(threads), f"{min(found):.1f}", "to",
                      f"{max(found):.1f} GFLOP/s"))  # fmt: skip
    return f"peak\n{table(lines, {0, 1, 3}, ruled=False)}"


def cells(results):
    """A table for every suite, one line per cell."""
    parts = []
    for suite, group in grouped(results, lambda r: r.suite).items():
        lines = [_cell_line(one) for one in group]
        parts.append(f"{suite}\n{table([_CELL_HEADER, *lines], {0, 1, 2, 12})}")
    return "\n\n".join(parts)


def summaries(results):
    """One line per suite, pass, dtype and number of threads, then one for all suites together."""
    lines = [_SUMMARY_HEADER]
    for (suite, *kind), group in grouped(results, lambda r: (r.suite, *r.kind)).items():
        lines.append(_summary_line(suite, kind, group))
    if len({one.suite for one in results}) > 1:
        for kind, group in grouped(results, lambda r: r.kind).items():
            lines.append(_summary_line("all", kind, group))
    return f"summary\n{table(lines, {0, 1, 2})}"


def worst(results, kind):
    """The cells furthest from the peak, among results of one kind."""
    chosen = sorted(results, key=lambda r: r.ours.share)[:_WORST]
    lines = [(f"  {one.suite}", one.problem, _percent(one.ours.share)) for one in chosen]
    return f"furthest from the peak: {_kind(kind)}\n{table(lines, {0, 1}, ruled=False)}"


def behind(results):
    """Every cell in which PyTorch, on rows as they are, takes less time than ours."""
    if all(one.peer is None for one in results):
        return ""
    slower = sorted((r for r in results if r.peer and r.peer.ratio < 1), key=lambda r: r.peer.ratio)
    lines = [
        (f"  {one.suite}", one.problem, _kind(one.kind), f"{one.peer.ratio:.2f}",
         one.peer.implementation)
        for one in slower
    ]  # fmt: skip
    text = table(lines, {0, 1, 2, 4}, ruled=False) if lines else "  none"
    return f"behind torch\n{text}"


def scaling(results):
    """Speed-up over one thread, of calls that take more than 0.1 ms on one."""
    lines = []
    for kind, pairs in speedups(results).items():
        pairs.sort()
        least, where = pairs[0]
        median = pairs[len(pairs) // 2][0]
        lines.append((f"  {_kind(kind)}", f"{len(pairs)} cells", f"median {median:.2f}",
                      f"lowest {least:.2f}", where))  # fmt: skip
    if not lines:
        return ""
    return f"speed-up over one thread\n{table(lines, {0, 4}, ruled=False)}"


def differing(results):
    """Cells whose results are not the same up to rounding."""
    lines = [
        f"  {one.suite} {one.problem} {_kind(one.kind)}: {name} {figures.difference:.1e}"
        for one in results if one.differs
        for name, figures in one.columns.items() if figures.difference
    ]  # fmt: skip
    return "\n".join(["results differ from ours", *lines]) if lines else ""


def _heading(about):
    width = max(map(len, about))
    return "\n".join(f"{name:{width}}  {value}" for name, value in about.items())


def _cell_line(one):
    ours, peer, last = one.ours, one.peer, one.columns.get("channels-last")
    return (
        one.problem,
        one.pass_.replace("_", " "),
        one.dtype,
        str(one.threads),
        f"{1e6 * ours.min_seconds:.1f}",
        f"{1e6 * ours.median_seconds:.1f}",
        f"{ours.gflops:.1f}",
        _percent(ours.share),
        _percent(ours.median_share),
        _percent(peer and peer.share),
        _ratio(peer and peer.ratio),
        _ratio(last and last.ratio),
        peer.implementation if peer else "-",
    )


def _summary_line(suite, kind, results):
    pass_, dtype, threads = kind
    torch, last = summary(results), summary(results, "channels-last")
    return (
        suite,
        pass_.replace("_", " "),
        dtype,
        str(threads),
        str(torch.cells),
        _percent(torch.median_share),
        _percent(torch.lowest_share),
        _percent(torch.peer_share),
        _ratio(torch.mean_ratio),
        _ratio(torch.lowest_ratio),
        "-" if torch.behind is None else str(torch.behind),
        _ratio(last.mean_ratio),
        "-" if last.behind is None else str(last.behind),
    )


def _kind(kind):
    pass_, dtype, threads = kind
    return f"{pass_.replace('_', ' ')}, {dtype}, {_threads(threads)}"


def _threads(number):
    return f"{number} thread{'s' * (number > 1)}"


def _percent(share):
    return "-" if share is None else f"{100 * share:.1f} %"


def _ratio(ratio):
    return "-" if ratio is None else f"{ratio:.2f}"
