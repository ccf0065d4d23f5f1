"""Coverage tracks: reading or generating, thinning, peaks, windows.

A track is an array of integers, the number of reads over each position of a chromosome.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from xsmmconv.cli.tracks import coverage_track

PEAK_OVER_MEAN, PEAK_READS, PEAK_GAP, PEAK_WIDTH = 3, 2, 100, 150


class DataError(Exception):
    """The message is one sentence for the user."""


def read_bigwig(path, chromosome):
    """Reads over each position of a chromosome.

    Tracks are often scaled. The commonest value of islands (stretches between zeros) that have
    only one value is taken for that of one read. Where the value is no multiple of it, as where a
    track of enrichment was divided by a local background, the number of reads is the smallest that
    explains the value.
    """
    try:
        import pyBigWig
    except ImportError:
        raise DataError("--bigwig needs pyBigWig: pip install 'xsmmconv[bigwig]'") from None
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}")
    try:
        with pyBigWig.open(str(path)) as file:
            length = file.chroms(chromosome)
            if length is None:
                raise DataError(f"{path} has no {chromosome}, but {', '.join(file.chroms())}")
            intervals = file.intervals(chromosome)
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read as a bigWig file ({error})") from None
    if not intervals:
        raise DataError(f"{path} has no values on {chromosome}")
    starts, ends, values = (np.array(column) for column in zip(*intervals, strict=True))
    reads = np.ceil(values / _value_of_a_read(starts, ends, values) - 0.01).astype(np.int32)
    counts = np.zeros(length, np.int32)
    for start, end, count in zip(starts, ends, reads, strict=True):
        counts[start:end] = count
    return counts


def _value_of_a_read(starts, ends, values):
    empty = np.concatenate(([0], values, [0])) == 0
    apart = np.concatenate(([True], starts[1:] > ends[:-1], [True]))
    alone = (empty[:-2] | apart[:-1]) & (empty[2:] | apart[1:]) & (values > 0)
    found, times = np.unique(values[alone], return_counts=True)
    if not found.size:
        raise DataError("the track has no island of one value, which would tell a read's value")
    return found[np.argmax(times)]


def generate(width, seed):
    """A track like that of an experiment, for whoever has none."""
    piece = 100_000
    pieces = [
        coverage_track(min(piece, width - start), seed=(seed, start))
        for start in range(0, width, piece)
    ]
    return np.concatenate(pieces).astype(np.int32)


def thin(counts, keep, seed):
    """The track of a random part of the reads: each one is kept with probability `keep`.

    Where the track steps up, reads begin, and where it steps down, as many end. The first to begin
    is taken for the first to end.
    """
    steps = np.diff(counts, prepend=0, append=0)
    up, down = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
    begin, end = np.repeat(up, steps[up]), np.repeat(down, -steps[down])
    kept = np.random.default_rng(seed).random(begin.size) < keep
    steps = np.zeros_like(steps)
    np.add.at(steps, begin[kept], 1)
    np.subtract.at(steps, end[kept], 1)
    return np.cumsum(steps[:-1], dtype=counts.dtype)


def runs(mask):
    """(starts, ends) of the stretches where it is true."""
    steps = np.diff(mask.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)


def call_peaks(counts):
    """Where the track is at least 3 times its mean deep, and at least 2 reads.

    Gaps of less than 100 positions are closed, then stretches of less than 150 are dropped.
    """
    starts, ends = runs(counts >= max(PEAK_READS, PEAK_OVER_MEAN * counts.mean()))
    apart = starts[1:] - ends[:-1] >= PEAK_GAP
    first, last = np.concatenate(([True], apart)), np.concatenate((apart, [True]))
    starts, ends = starts[first[: starts.size]], ends[last[: ends.size]]
    wide = ends - starts >= PEAK_WIDTH
    peaks = np.zeros(counts.shape, bool)
    for start, end in zip(starts[wide], ends[wide], strict=True):
        peaks[start:end] = True
    return peaks


@dataclass(frozen=True)
class Windows:
    """Equal windows over a track; what counts is their middle, without `margin` on either side."""

    noisy: np.ndarray
    clean: np.ndarray
    peaks: np.ndarray
    starts: np.ndarray
    width: int
    margin: int

    def __len__(self):
        return len(self.starts)

    def some(self, number):
        """At most so many of the windows, spread evenly."""
        chosen = np.linspace(0, len(self) - 1, min(number, len(self))).round().astype(int)
        return replace(self, starts=self.starts[chosen])

    def middle(self, i):
        start = self.starts[i] + self.margin
        return slice(start, start + self.width - 2 * self.margin)

    def batch(self, indices):
        """(noisy (N, 1, width), clean and peaks of the middles), float32."""
        noisy = [self.noisy[s : s + self.width] for s in self.starts[indices]]
        middles = [self.middle(i) for i in indices]
        clean, peaks = ([v[m] for m in middles] for v in (self.clean, self.peaks))
        arrays = (np.stack(rows).astype(np.float32) for rows in (noisy, clean, peaks))
        noisy, clean, peaks = map(torch.from_numpy, arrays)
        return noisy[:, np.newaxis], clean, peaks


def split(counts, keep, seed, width, margin):
    """Windows for training, validation and test: three regions, 70, 15 and 15 % of the track.

    Middles follow each other without gap; between regions one window is left out, so that they
    share no position. Windows without any read are left out of training.
    """
    noisy, peaks = thin(counts, keep, seed), call_peaks(counts)
    covered = np.flatnonzero(counts)
    step = width - 2 * margin
    first = covered[0] if covered.size else 0
    starts = np.arange(first, counts.size - width + 1, step)
    starts = starts[: np.searchsorted(starts, covered[-1])] if covered.size else starts[:0]
    cuts = [round(len(starts) * share) for share in (0, 0.7, 0.85, 1)]
    parts = [starts[a + (a > 0) : b] for a, b in itertools.pairwise(cuts)]
    if not all(part.size for part in parts):
        raise DataError(
            f"{len(starts)} windows of {width} positions fit into the {counts.size} of the track: "
            "too few for training, validation and test"
        )
    parts[0] = np.array([s for s in parts[0] if counts[s + margin : s + width - margin].any()])
    return [Windows(noisy, counts, peaks, part, width, margin) for part in parts]
