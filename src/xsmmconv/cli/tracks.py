"""Signals to convolve: a generated coverage track, or a stretch of a bigWig file."""

import re
from pathlib import Path

import numpy as np

from xsmmconv.cli.errors import UsageError

_FRAGMENT = 200  # columns covered by one sequenced fragment


def coverage_track(width, seed=8002):
    """Read depth along `width` positions of a genome, float32: noise, and peaks of open chromatin.

    Fragments begin at random: rarely anywhere, often around centres whose heights differ by orders
    of magnitude. The depth is the number of fragments over a position. The same seed gives the same
    track.
    """
    rng = np.random.default_rng(seed)
    rate = np.full(width + _FRAGMENT, 0.005)
    for _ in range(1 + width // 4000):
        centre, spread = rng.uniform(0, width), rng.uniform(80, 400)
        reach = int(6 * spread)  # nothing is left of a peak further away
        near = np.arange(max(0, int(centre) - reach), min(rate.size, int(centre) + reach))
        rate[near] += rng.lognormal(-2.5, 1.2) * np.exp(-0.5 * ((near - centre) / spread) ** 2)
    begun = np.cumsum(rng.poisson(rate))
    return (begun[_FRAGMENT:] - begun[:-_FRAGMENT]).astype(np.float32)


def read_bigwig(path, region):
    """The values of a region ("chr22:20000000-20060400": zero-based, end excluded), float32.

    Positions without a value count as 0.
    """
    try:
        import pyBigWig
    except ImportError:
        raise UsageError(
            "reading a bigWig file needs pyBigWig: pip install 'xsmmconv[bigwig]'"
        ) from None
    match = re.fullmatch(r"([^:]+):([0-9]+)-([0-9]+)", region)
    if match is None:
        raise UsageError(f"region {region!r} should look like chr22:20000000-20060400")
    chromosome, start, end = match[1], int(match[2]), int(match[3])
    if not Path(path).is_file():
        raise UsageError(f"there is no file {path}")
    try:
        with pyBigWig.open(str(path)) as track:
            length = track.chroms(chromosome)
            if length is None:
                raise UsageError(f"{path} has no {chromosome}, but {', '.join(track.chroms())}")
            if not 0 <= start < end <= length:
                raise UsageError(f"region {region} does not lie within {chromosome}:0-{length}")
            values = track.values(chromosome, start, end)
    except RuntimeError as error:
        raise UsageError(f"{path} cannot be read as a bigWig file ({error})") from None
    return np.nan_to_num(np.array(values, np.float32), nan=0.0)
