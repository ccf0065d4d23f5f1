"""Interleaved repeats of several ways to compute the same, with the peak measured in between."""

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_REPEAT_SECONDS = 300e-6  # what a repeat should last: shorter than most disturbances, many ticks
_SLOW_SECONDS = 1.0  # a call that takes this long is measured once
_LEAST_REPEATS = 3
_PEAK_ROUNDS = 40_000


@dataclass(frozen=True, slots=True)
class Effort:
    """At most how many repeats of each column of a cell, for how long, and for how long in all."""

    repeats: int
    seconds: float
    total_seconds: float = math.inf


THOROUGH = Effort(100, 0.5)
QUICK = Effort(10, 0.02, 35.0)


@dataclass(frozen=True, slots=True)
class Column:
    """One way to compute the result of a cell."""

    call: Callable
    warm_up: Callable  # the first call, which may do more than the others


@dataclass(slots=True)
class Samples:
    """Seconds per call of every repeat of a column, and the peaks in GFLOP/s around it."""

    calls: int = 1  # in each repeat
    seconds: list[float] = field(default_factory=list)
    peaks: list[tuple[float, float]] = field(default_factory=list)  # before, after
    slow: bool = False  # the first call is the only sample

    def wants_more(self, effort):
        if self.slow or len(self.seconds) < _LEAST_REPEATS:
            return not self.slow
        spent = sum(self.seconds) * self.calls
        return len(self.seconds) < effort.repeats and spent < effort.seconds


def measure(columns, peak, effort):
    """Measure the columns {name: Column} in turns; `peak` returns GFLOP/s. Returns {name: Samples}.

    Round i consists of the i-th repeat of every column, one right after the other, so the ratio of
    two columns is best taken within rounds. A column that has used up its time leaves the rounds.
    """
    samples = {name: _prepare(column, peak) for name, column in columns.items()}
    collects = gc.isenabled()
    gc.disable()
    try:
        before = peak()
        while any(taken.wants_more(effort) for taken in samples.values()):
            for name, taken in samples.items():
                if taken.wants_more(effort):
                    taken.seconds.append(_time(columns[name].call, taken.calls))
                    after = peak()
                    taken.peaks.append((before, after))
                    before = after
    finally:
        if collects:
            gc.enable()
    return samples


def core_peak(dtype, threads):
    """A function that measures the multiply-add peak of some cores, in about 0.1 ms."""
    from xsmmconv._peak import peak_gflops

    return lambda: peak_gflops(dtype, threads, _PEAK_ROUNDS)


def _prepare(column, peak):
    """Warm up, and find out how many calls make a repeat."""
    before = peak()
    first = _time(column.warm_up, 1)
    if first >= _SLOW_SECONDS:
        return Samples(1, [first], [(before, peak())], slow=True)
    again = min(_time(column.call, 1), _time(column.call, 1))
    return Samples(max(1, round(_REPEAT_SECONDS / again)))


def _time(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
