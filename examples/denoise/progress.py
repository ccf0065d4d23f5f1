"""A line that shows how far something is."""

import sys
import time


class Progress:
    """Overwrites one line on a terminal; writes a line every half minute elsewhere."""

    def __init__(self, title, total, unit, quiet=False):
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self.terminal = sys.stderr.isatty()
        self.start = self.shown = time.perf_counter()

    def show(self, done, note=""):
        """`done` of `total` since this object was made."""
        now = time.perf_counter()
        last = done >= self.total
        if self.quiet or (now - self.shown < (0.2 if self.terminal else 30) and not last):
            return
        self.shown, seconds = now, now - self.start
        rate = done / seconds
        left = (self.total - done) / rate if rate else 0
        filled = 20 * done // self.total
        line = (
            f"{self.title} [{'#' * filled}{'.' * (20 - filled)}] {done:,}/{self.total:,}, "
            f"{rate:,.3g} {self.unit}/s, {left:.0f} s left{note}"
        )
        if self.terminal:
            print(f"\r\033[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
