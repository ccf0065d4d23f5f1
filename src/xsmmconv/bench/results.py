"""What the samples of a cell amount to, and the file that keeps it."""

import json
import math
import statistics
from dataclasses import asdict, dataclass

OURS, PEER = "xsmmconv", "torch"  # the names of the columns that are compared
_FORMAT = 1  # of the JSON file
# Results that differ by more, as a share of the largest element, are not of the same computation.
_TOLERANCE = {"float32": 1e-4, "float64": 1e-12, "bfloat16": 2**-6}


@dataclass(frozen=True, slots=True)
class Figures:
    """One column of a cell.

    share : GFLOP/s at the minimum time, as a share of the highest peak seen in this cell
    median_share : median over repeats of GFLOP/s as a share of the peak right before and after
    ratio : median over rounds of its time as a multiple of ours (1 for ourselves)
    """

    min_seconds: float
    median_seconds: float
    repeats: int
    calls_per_repeat: int
    gflops: float
    share: float
    median_share: float
    ratio: float
    implementation: str = ""
    difference: float = 0.0  # between its result and ours, as a share of the largest element


@dataclass(frozen=True, slots=True)
class Result:
    """A measured cell."""

    suite: str
    problem: str
    pass_: str
    dtype: str
    threads: int
    multiply_adds: int
    peak: float  # GFLOP/s
    columns: dict[str, Figures]

    @property
    def kind(self):
        return self.pass_, self.dtype, self.threads

    @property
    def ours(self):
        return self.columns[OURS]

    @property
    def peer(self):
        """The figures of PyTorch on rows as they are, if they were measured."""
        return self.columns.get(PEER)

    @property
    def differs(self):
        return any(not f.difference <= _TOLERANCE[self.dtype] for f in self.columns.values())


def result(cell, samples, notes):
    """The figures of a cell; samples is {column: Samples}, notes {column: fields of Figures}."""
    multiply_adds = cell.multiply_adds
    work = 2e-9 * multiply_adds
    peak = max(peak for taken in samples.values() for pair in taken.peaks for peak in pair)
    ours = samples[OURS].seconds
    columns = {}
    for name, taken in samples.items():
        shares = [
            work / seconds / statistics.mean(around)
            for seconds, around in zip(taken.seconds, taken.peaks, strict=True)
        ]
        gflops = work / min(taken.seconds)
        columns[name] = Figures(
            min_seconds=min(taken.seconds),
            median_seconds=statistics.median(taken.seconds),
            repeats=len(taken.seconds),
            calls_per_repeat=taken.calls,
            gflops=gflops,
            share=gflops / peak,
            median_share=statistics.median(shares),
            # One of the two may have taken part in fewer rounds.
            ratio=statistics.median(a / b for a, b in zip(taken.seconds, ours, strict=False)),
            **notes.get(name, {}),
        )
    return Result(
        cell.suite, str(cell.problem), cell.pass_, cell.dtype, cell.threads, multiply_adds, peak,
        columns,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """Many cells in a few numbers; those about a peer are None if it was not measured."""

    cells: int
    median_share: float
    lowest_share: float
    peer_share: float | None  # the median
    mean_ratio: float | None  # geometric
    lowest_ratio: float | None
    behind: int | None  # the number of cells with a ratio below 1


def summary(results, peer=PEER):
    """`Summary` of results (at least one) against the column `peer`."""
    shares = [r.ours.share for r in results]
    theirs = [r.columns[peer] for r in results if peer in r.columns]
    ratios = [figures.ratio for figures in theirs]
    return Summary(
        len(results),
        statistics.median(shares),
        min(shares),
        statistics.median(figures.share for figures in theirs) if theirs else None,
        math.exp(statistics.fmean(map(math.log, ratios))) if theirs else None,
        min(ratios) if theirs else None,
        sum(ratio < 1 for ratio in ratios) if theirs else None,
    )


def grouped(results, key):
    """{key: [Result, ...]}, the keys in the order of their first results."""
    groups = {}
    for one in results:
        groups.setdefault(key(one), []).append(one)
    return groups


def speedups(results, least_seconds=100e-6):
    """{(pass, dtype, threads): [(speed-up over one thread, problem), ...]} of longer calls."""
    found = {}
    for same in grouped(results, lambda r: (r.suite, r.problem, r.pass_, r.dtype)).values():
        alone = next((r.ours.min_seconds for r in same if r.threads == 1), 0.0)
        for one in same:
            if one.threads > 1 and alone > least_seconds:
                pair = alone / one.ours.min_seconds, one.problem
                found.setdefault(one.kind, []).append(pair)
    return found


def save(path, about, results):
    """Write a run to a JSON file: `about` it, and every figure of every cell, a line each."""
    cells = ",\n".join(json.dumps(asdict(one)) for one in results)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"format": {_FORMAT},\n"about": {json.dumps(about, indent=1)},\n')
        file.write(f'"cells": [\n{cells}\n]}}\n')


def load(path):
    """(about, results) of a file that `save` wrote; ValueError if it is none."""
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not a JSON file ({error})") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} was not written by `bench --json`, format {_FORMAT}")
    results = []
    for cell in content["cells"]:
        columns = {name: Figures(**figures) for name, figures in cell.pop("columns").items()}
        results.append(Result(**cell, columns=columns))
    return content["about"], results
