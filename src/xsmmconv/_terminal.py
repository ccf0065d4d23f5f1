"""Tables and progress of the commands: drawn by rich on a terminal, else plain text.

rich is optional: without it, a terminal gets the plain text too.
"""

import contextlib
import importlib.util
import shutil
import sys
import time

_PAUSE = 15.0  # seconds between lines of progress


def table(lines, text, ruled=True):
    """Lines of cells, aligned: the columns in `text` to the left, numbers to the right.

    The first line of a ruled table is its header.
    """
    if ruled and _drawn(sys.stdout):
        return _rich_table(lines, text)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = []
    for line in lines:
        padded = [
            cell.ljust(width) if place in text else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        aligned.append("  ".join(padded).rstrip())
    if ruled:
        aligned.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(aligned)


@contextlib.contextmanager
def progress(total):
    """Gives a function that is told what begins, before each of `total` steps.

    It tells the standard error: a bar on a terminal, else a line now and then.
    """
    if _drawn(sys.stderr):
        with _rich_bar() as bar:
            task = bar.add_task("", total=total)
            started = iter(range(total))
            yield lambda text: bar.update(
                task, completed=next(started), description=text, refresh=True
            )
    else:
        yield _lines(total)


def _drawn(stream):
    if not stream.isatty():
        return False
    try:
        return importlib.util.find_spec("rich") is not None
    except ValueError:  # what find_spec makes of a module that was set to None
        return False


def _rich_table(lines, text):
    from rich import box
    from rich.console import Console
    from rich.table import Table

    header, *rows = lines
    needed = sum(max(map(len, column)) + len("  ") for column in zip(*lines, strict=True))
    if needed > shutil.get_terminal_size().columns:
        header = [title.replace(" ", "\n") for title in header]
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for place, title in enumerate(header):
        drawn.add_column(title, justify="left" if place in text else "right", vertical="bottom")
    for row in rows:
        drawn.add_row(*row)
    # A table that is wider still is left to the terminal: rich would cut numbers short.
    console = Console(width=10_000, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n")


def _rich_bar():
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(20),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    # Drawn between the steps only: a thread that refreshes it would disturb what is measured.
    return progress.Progress(
        *columns, console=Console(stderr=True), transient=True, auto_refresh=False
    )


def _lines(total):
    start, done, due = time.monotonic(), 0, 0.0

    def step(text):
        nonlocal done, due
        now = time.monotonic()
        if now >= due:
            left = f", about {(now - start) * (total / done - 1) / 60:.1f} min left" if done else ""
            print(f"{done + 1} of {total}{left}: {text}", file=sys.stderr, flush=True)
            due = now + _PAUSE
        done += 1

    return step
