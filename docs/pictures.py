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
    axes.set_aspect("equal")
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
    """One call of a kernel: what each entry of its list lets it read, over channels or taps."""
    problems = [((1, 3, 40), (4, 3, 5)), ((1, 64, 40), (64, 64, 3))]
    figure, plots = plt.subplots(2, 1, figsize=(9, 5), layout="constrained")
    for axes, (x_shape, weight_shape) in zip(plots, problems, strict=True):
        plan = xsmmconv.plan("forward", x_shape, weight_shape, dilation=3)
        program, lists = plan._program, plan._blocking.lists
        _, width, _, tile = program.segments[0]
        call, *_ = program.tiles[tile]
        start, count = program.calls[call][-2:]
        row = program.source.row * 4
        starts = [divmod(a, row) for a in program.offsets_a[start : start + count]]
        spacing = 3 if lists == "channels" else 0
        taps = weight_shape[2] if lists == "channels" else 1
        channels = min(3, x_shape[1])
        shown = min(width, 16)
        grid(axes, 36, channels, "column of x", "channel")
        for channel in range(channels):
            for column in range(36):
                cell(axes, column, channel, FAINT)
        for entry, (channel, offset) in enumerate(starts):
            for t in range(taps):
                for row_ in [channel] if lists == "channels" else range(channels):
                    column, color = offset // 4 + t * spacing, f"C{t if taps > 1 else entry}"
                    frame(axes, column, row_, shown, 1, color)
                    cell(axes, column, row_, color, alpha=0.6)
        each = f"k = {taps} taps, {spacing} columns apart" if taps > 1 else "k = all channels"
        axes.set_title(
            f"{x_shape[1]} channels, {weight_shape[2]} taps, dilation 3: a list over {lists} with "
            f"{count} entries, {each}",
            fontsize="medium",
        )
    return figure


def segments():
    """Positions and taps of a padded convolution, cut into tiles and rectangles."""
    Q, S, d, p = 64, 9, 4, 16
    (phase,) = _geometry.forward_phases(Q, S, Q, 1, d, p)
    figure, axes = plt.subplots(figsize=(10, 2.8), layout="constrained")
    grid(axes, Q, S, "output position q", "tap t")
    for q in range(Q):
        for t in range(S):
            if 0 <= q + t * d - p < Q:
                cell(axes, q, t, FAINT)
    color = 0
    for start, width, count in _geometry.walk(phase, 16, 4):
        for a in range(start, start + width * count, width):
            for run in phase.runs:
                for part in _geometry.cover(run, 0, a, a + width, 0, S):
                    frame(axes, part.a, part.j0, part.b - part.a, part.j1 - part.j0, f"C{color}")
            color = (color + 1) % 10
    axes.set_title(
        f"{_geometry.valid_pairs(Q, S, Q, 1, d, p)} of {Q * S} pairs touch the input; the frames "
        "cover them and nothing else",
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
