"""The tables and pictures of "Performance", from the runs that `bench --json` wrote to docs/runs.

``python docs/measured.py`` writes the tables into performance.md; a test holds them against the
runs. The pictures are drawn by a build of the documentation.
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from xsmmconv.bench import results

HERE = Path(__file__).parent
PAGE = HERE / "performance.md"
PASSES = ("forward", "backward_data", "backward_weight")
COLUMNS = (("xsmmconv", "C0", "o"), ("torch", "C3", "x"), ("channels-last", "C1", "+"))
_BETWEEN = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)


def load():
    """{name of a machine: [(about, [Result, ...]) of every run there]}"""
    folders = sorted((HERE / "runs").iterdir(), reverse=True)
    return {
        folder.name: [results.load(path) for path in sorted(folder.glob("*.json"))]
        for folder in folders
    }


def page(text):
    """The text of the page with the tables of today's runs in it."""
    parts = [part for name, runs in load().items() for part in machine(name, runs)]
    return _BETWEEN.sub(lambda m: m[1] + "\n" + "\n\n".join(parts) + "\n\n" + m[2], text)


def machine(name, runs):
    """Everything measured on a machine: pictures, tables, and how the runs were made."""
    dtypes = given(single(plain(runs)))
    title = name.replace("-", " ").capitalize()
    parts = [f"### {title}"]
    parts += [f"![Shares of the {d} peak, {title}](_pictures/{picture(name, d)})" for d in dtypes]
    for kernels, same in sorted(results.grouped(runs, kernels_of).items()):
        cells = single(same)
        parts += [problems(dtype + kernels, found) for dtype, found in given(cells).items()]
        if suites := [c for c in cells if c.suite != "given"]:
            parts += [summaries(suites, kernels)]
        rows = [c for c in cells if c.suite == "paper-rows"]
        parts += [widths(d, kernels) for d in results.grouped(rows, lambda c: c.dtype).values()]
    return [*parts, scaling(threaded(runs)), commands(runs)]


def picture(name, dtype):
    return f"measured_{name}_{dtype}.svg"


def plain(runs):
    """The runs with the kernels of the machine."""
    return [run for run in runs if not kernels_of(run)]


def kernels_of(run):
    """What the tables add to a dtype where LIBXSMM_TARGET lowered the instruction set."""
    return ", AVX2 only" if run[0]["instruction set"] == "hsw" else ""


def single(runs):
    """The cells of the runs that had one thread only; of those measured again, the last."""
    found = {}
    for _, cells in sorted(runs, key=lambda run: run[0]["date"]):
        if all(c.threads == 1 for c in cells):
            found |= {(c.suite, c.problem, c.pass_, c.dtype): c for c in cells}
    return list(found.values())


def threaded(runs):
    """The cells of the others, which have several numbers of threads for each problem."""
    return [c for _, cells in runs if any(c.threads > 1 for c in cells) for c in cells]


def given(cells):
    """{dtype: [Result, ...]} of the problems named one by one, next to torch."""
    named = [c for c in cells if c.suite == "given" and "torch" in c.columns]
    return results.grouped(named, lambda c: c.dtype)


def commands(runs):
    """Where, when and how the runs were made."""
    lines = []
    for about, _ in runs:
        # What `bench` sets for the peer by itself is no part of the command.
        given = [v for v in about["environment"].split() if not v.startswith("THP_")]
        lines.append(
            f"- {about['date']}, {about['machine']}, `{about['instruction set']}`, "
            f"xsmmconv {about['xsmmconv']}, torch {about['torch']}:\n"
            f"  `{' '.join([*given, about['command']])}`"
        )
    return "\n".join(lines)


def problems(kind, cells):
    """A row per problem; per pass our share of the peak and the two ratios."""
    rows = []
    for problem, same in results.grouped(cells, lambda c: c.problem).items():
        of_pass = {c.pass_: c for c in same}
        rows.append([f"`{problem}`", *(figures(of_pass[pass_]) for pass_ in PASSES)])
    names = [pass_.replace("_", " ") for pass_ in PASSES]
    return table([f"{kind}: of peak, ratio to torch, to channels-last", *names], rows)


def figures(cell):
    last = cell.columns["channels-last"]
    return f"{100 * cell.ours.share:.0f} %, {cell.peer.ratio:.1f}, {last.ratio:.1f}"


def summaries(cells, kernels):
    """A row per suite: the median share of the peak; the ratio to torch, its geometric mean and its
    lowest."""
    rows = []
    for (suite, dtype), same in results.grouped(cells, lambda c: (c.suite, c.dtype)).items():
        of_pass = results.grouped(same, lambda c: c.pass_)
        found = [results.summary(of_pass[pass_]) for pass_ in PASSES]
        means = [
            f"{100 * one.median_share:.0f} %, {one.mean_ratio:.1f} "
            f"({one.lowest_ratio:.2f}; {one.behind} of {one.cells})"
            for one in found
        ]
        rows.append([suite, dtype + kernels, *means])
    names = [pass_.replace("_", " ") for pass_ in PASSES]
    header = "suite: of peak, median; ratio to torch, mean (lowest; cells behind it)"
    return table([header, "dtype", *names], rows)


def widths(cells, kernels):
    """A row per problem measured for many widths: the lowest and the highest share of the peak over
    them, and the lowest ratio to torch."""
    rows = []
    for problem, same in results.grouped(cells, lambda c: c.problem.rpartition("w")[0]).items():
        of_pass = results.grouped(same, lambda c: c.pass_)
        row = [f"`{problem}`"]
        for pass_ in PASSES:
            shares = [100 * c.ours.share for c in of_pass[pass_]]
            ratio = min(c.peer.ratio for c in of_pass[pass_])
            row.append(f"{min(shares):.0f} to {max(shares):.0f} %, {ratio:.1f}")
        if len(same) > len(PASSES):
            rows.append(row)
    names = [pass_.replace("_", " ") for pass_ in PASSES]
    header = f"{cells[0].dtype}{kernels}, 500 to 60000 columns: of peak, lowest ratio to torch"
    return table([header, *names], rows)


def scaling(cells):
    """A row per problem and pass: two threads against one, and the peaks of the two."""
    rows = []
    for problem, same in results.grouped(cells, lambda c: c.problem).items():
        row = [f"`{problem}`"]
        for pass_ in PASSES:
            one, two = sorted((c for c in same if c.pass_ == pass_), key=lambda c: c.threads)
            speedup = one.ours.min_seconds / two.ours.min_seconds
            row.append(f"{speedup:.2f} ({two.peak / one.peak:.2f})")
        rows.append(row)
    names = [pass_.replace("_", " ") for pass_ in PASSES]
    return table(["float32: two threads against one (the peaks)", *names], rows)


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_all(folder):
    """Shares of the peak of the problems in the tables, one picture per machine and dtype."""
    for name, runs in load().items():
        for dtype, measured in given(single(plain(runs))).items():
            figure = draw(measured)
            figure.savefig(Path(folder) / picture(name, dtype), metadata={"Date": None})
            plt.close(figure)


def draw(measured):
    names = list(results.grouped(measured, lambda c: c.problem))
    figure, plots = plt.subplots(1, 3, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, pass_ in zip(plots, PASSES, strict=True):
        same = [c for c in measured if c.pass_ == pass_]
        for column, color, marker in COLUMNS:
            shares = [100 * c.columns[column].share for c in same]
            places = [names.index(c.problem) for c in same]
            axes.plot(shares, places, marker, color=color, label=column)
        axes.set(xlim=(0, 100), xlabel="share of the peak, %", title=pass_.replace("_", " "))
        axes.set_yticks(range(len(names)), names, fontsize="small")
        axes.grid(alpha=0.3)
    plots[0].invert_yaxis()
    figure.legend(*plots[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
