"""A run of the benchmark as pictures: shares of the peak, and efficiency as the paper draws it."""

from pathlib import Path

from xsmmconv import _text
from xsmmconv.bench.results import OURS, PEER, grouped

_COLOURS = {OURS: "tab:blue", PEER: "tab:red", "channels-last": "tab:orange"}
_PAPER = "paper-rows"
_WIDTH, _ROW = 16, 3  # inches


def plot(path, results):
    """Write one picture per dtype and number of threads; return the paths.

    Several pictures get the dtype and the number of threads appended to the file's name.
    """
    kinds = grouped(results, lambda r: (r.dtype, r.threads))
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".png")
    written = []
    for (dtype, threads), group in kinds.items():
        target = path
        if len(kinds) > 1:
            target = path.with_name(f"{path.stem}-{dtype}-{threads}{path.suffix}")
        picture(f"{dtype}, {threads} thread{'s' * (threads > 1)}", group).savefig(target, dpi=90)
        written.append(target)
    return written


def picture(title, results):
    """A matplotlib Figure: above every shape, a row per pass; below the paper's configurations."""
    from matplotlib.figure import Figure

    passes = grouped(results, lambda r: r.pass_)
    paper = grouped([r for r in results if r.suite == _PAPER], lambda r: _line(r).name)
    heights = [len(passes)] + [2 * len(paper)] * bool(paper)
    figure = Figure((_WIDTH, _ROW * sum(heights)), layout="constrained")
    figure.suptitle(f"Share of the multiply-add peak: {title} (curves: torch dotted)")
    above, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]

    rows = above.subplots(len(passes), 1, squeeze=False)[:, 0]
    for axes, (pass_, group) in zip(rows, passes.items(), strict=True):
        _shapes(_prepared(axes, pass_), group)
    if paper:
        drawn = grouped([r for group in paper.values() for r in group], lambda r: r.pass_)
        rows = below[0].subplots(2 * len(paper), len(drawn), squeeze=False)
        for place, name in enumerate(paper):
            for column, (pass_, group) in enumerate(drawn.items()):
                group = [one for one in group if _line(one).name == name]
                for axes, widths in zip(rows[2 * place :, column], ("SQ", "QS"), strict=False):
                    if group:
                        _curves(_prepared(axes, f"{pass_}, {name}"), group, *widths)
                    else:  # of a run that was cut short
                        axes.remove()
    return figure


def _line(result):
    return _text.parse(result.problem)


def _prepared(axes, title):
    axes.set_title(title.replace("_", " "), fontsize="medium")
    axes.set_ylabel("share of peak, %")
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.3)
    return axes


def _shapes(axes, results):
    """A point per cell and column, in the order of the run; every suite is one unit wide."""
    suites = grouped(results, lambda r: r.suite)
    for name, colour in _COLOURS.items():
        points = [
            (unit + (place + 0.5) / len(group), 100 * one.columns[name].share)
            for unit, group in enumerate(suites.values())
            for place, one in enumerate(group) if name in one.columns
        ]  # fmt: skip
        if points:
            axes.plot(*zip(*points, strict=True), ".", markersize=4, color=colour, label=name)
    for unit in range(1, len(suites)):
        axes.axvline(unit, color="grey", linewidth=0.5)
    axes.set_xticks([unit + 0.5 for unit in range(len(suites))], suites, fontsize="small")
    axes.set_xlim(0, len(suites))
    axes.legend(loc="lower left", fontsize="small", ncols=3)


def _curves(axes, results, across, along):
    """Efficiency across one width, a curve for each of the other: ours full, torch dotted."""
    curves = grouped(results, lambda r: getattr(_line(r), along))
    for place, (value, group) in enumerate(sorted(curves.items())):
        for name, style, label in ((OURS, "o-", f"{along}={value}"), (PEER, ".:", None)):
            points = sorted(
                (getattr(_line(one), across), 100 * one.columns[name].share)
                for one in group if name in one.columns
            )  # fmt: skip
            if points:
                axes.plot(
                    *zip(*points, strict=True), style, color=f"C{place}", markersize=4, label=label
                )
    axes.set_xlabel("filter width S" if across == "S" else "row length Q")
    axes.set_xscale("linear" if across == "S" else "log")
    ticks = sorted({getattr(_line(one), across) for one in results})
    axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize="small")
    axes.minorticks_off()
    axes.legend(fontsize="x-small", ncols=2, loc="lower right")
