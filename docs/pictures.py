"""The pictures of "How it works", drawn from the plans that the library would execute.

``python docs/pictures.py FOLDER`` draws them by hand; a build of the documentation does it too.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

import xsmmconv
from xsmmconv import _geometry

FAINT, LINE = "0.92", "0.35"


def grid(axes, columns, rows, xlabel, ylabel):
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xlabel=xlabel, ylabel=ylabel)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize="small")


def cell(axes, column, row, color, **options):
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=color, linewidth=0, **options))


def frame(axes, column, row, columns, rows, color=LINE, **options):
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(
        Rectangle(corner, columns, rows, fill=False, edgecolor=color, linewidth=1.5, **options)
    )


def address_list():
    """The first tile of two plans, and what each entry of its list lets the kernel read."""
    W, dilation = 120, 8
    figure, plots = plt.subplots(2, 1, figsize=(9, 5), height_ratios=(11, 4), layout="constrained")
    for axes, (C, S) in zip(plots, ((2, 5), (64, 3)), strict=True):
        plan = xsmmconv.plan("forward", (1, C, W), (C, C, S), dilation=dilation)
        first, width, *_ = plan._program.segments[0]
        bars = [(f"y: a tile of {width} columns", first, LINE), *bars_of_entries(plan)]
        names, starts, colors = zip(*bars, strict=True)
        axes.barh(range(len(bars)), width, left=starts, color=colors, height=0.7)
        axes.set_yticks(range(len(bars)), names, fontsize="small")
        axes.set(xlim=(0, W), ylim=(len(bars) - 0.5, -0.5))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_title(
            f"{C} channels, {S} taps, dilation {dilation}: a list over {plan._blocking.lists}",
            fontsize="medium",
        )
    plots[-1].set_xlabel("column")
    return figure


def bars_of_entries(plan):
    """(name, first column, colour) of what the list of the first tile's first call reads of x."""
    p, program = plan.problem, plan._program
    call, *_ = program.tiles[program.segments[0][-1]]
    start, count = program.calls[call][-2:]
    over_channels = plan._blocking.lists == "channels"
    for entry, offset in enumerate(program.offsets_a[start : start + count]):
        channel, column = divmod(offset // 4, program.source.row)
        if not over_channels:
            yield f"entry {entry}: all {p.C} channels", column, f"C{entry}"
            continue
        for tap in range(p.S):  # the columns of the entry's matrix
            name = "" if tap else f"entry {entry}: channel {channel}"
            yield name, column + tap * p.d, f"C{tap}"


def segments():
    """The segments of a padded convolution: tiles, and the rectangles that their calls cover."""
    W, S, d = 256, 9, 16
    plan = xsmmconv.plan("forward", (1, 2, W), (2, 2, S), dilation=d, padding="same")
    p = plan.problem
    (phase,) = _geometry.forward_phases(W, S, p.Q, 1, d, p.pl)
    figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
    grid(axes, p.Q, S, "output position q", "tap t")
    for number, (start, width, count, _) in enumerate(plan._program.segments):
        for a in range(start, start + width * count, width):
            for run in phase.runs:
                for part in _geometry.cover(run, 0, a, a + width):
                    corner = (a + part.a - 0.5, part.j0 - 0.5)
                    size = (part.b - part.a, part.j1 - part.j0)
                    color = f"C{number % 10}"
                    axes.add_patch(Rectangle(corner, *size, facecolor=color, edgecolor="white"))
    pairs = _geometry.valid_pairs(W, S, p.Q, 1, d, p.pl)
    axes.set_title(
        f"{len(plan._program.segments)} segments; {pairs} of {p.Q * S} pairs touch the input, and "
        "only these are covered",
        fontsize="medium",
    )
    return figure


def residue_phases():
    """Backward data with stride: which taps reach which positions of dx."""
    W, S, s, d, p = 16, 5, 4, 6, 12
    Q = _geometry.output_width(W, S, s, d, p, p)
    figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
    grid(axes, W, S, "position i of dx", "tap t")
    reached = {}
    for number, phase in enumerate(_geometry.backward_data_phases(W, S, Q, s, d, p)):
        for m in range(phase.count):
            for run in phase.runs:
                for j, t in enumerate(run.taps):
                    color = f"C{number}"
                    inside = run.first_valid(j) <= m < run.end_valid(j)
                    i = phase.first + m * phase.step
                    frame(axes, i, t, 1, 1, color, alpha=0.4)
                    if inside:
                        cell(axes, i, t, color, alpha=0.7)
                    reached[i] = reached.get(i, False) or inside
    for i in range(W):
        if i not in reached:
            for t in range(S):
                cell(axes, i, t, FAINT)
    axes.set_title(
        f"stride {s}, dilation {d}: {W - len(reached)} of {W} positions are reached by no tap "
        "(grey): exact zeros, nothing is multiplied",
        fontsize="medium",
    )
    return figure


PICTURES = (address_list, segments, residue_phases)


def draw_all(folder):
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for draw in PICTURES:
        figure = draw()
        figure.savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    draw_all(sys.argv[1])
