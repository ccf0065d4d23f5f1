"""The shapes that are measured: lines of the problem grammar (`_text`), by suite.

Rows are given by their output width (q) where they are not padded, else by their input width (w).
"""

import math
import random
from itertools import product

from xsmmconv import _text

_FILTER_WIDTHS = (1, 5, 9, 15, 21, 25, 31, 51)
_ROW_WIDTHS = (500, 1000, 2000, 5000, 10000, 20000, 60000)
_CHANNELS = (1, 2, 4, 8, 15, 16, 24, 32, 48, 64, 96, 128)
_DILATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_QUICK_WORK = 30_000_000  # multiply-adds: a fraction of a second for the slowest way to do them


def _paper_rows():
    for (C, d), S, Q in product(((15, 8), (64, 1), (32, 4)), _FILTER_WIDTHS, _ROW_WIDTHS):
        yield f'n4c{C}k{C}s{S}d{d}q{Q}"C=K={C} d={d}"'


def _paper_channels():
    yield from (f"n4c{C}k{K}s15d8q5000" for C, K in product(_CHANNELS, _CHANNELS))
    yield "n4c16k16s51d8q60000"


def _paper_dilations():
    return (f"n4c15k15s51d{d}q5000" for d in _DILATIONS)


def _genomics():
    for N in (1, 4):
        yield f'n{N}c1k15s51d8q60000"coverage track, first layer"'
        yield f'n{N}c15k1s51d8q60000"coverage track, last layer"'
    for K, S in product((64, 320), (15, 26)):
        yield f'n1c4k{K}s{S}w131072"sequence motifs"'
    yield 'n1c4k64s15q131072"sequence motifs, power-of-two output"'


def _audio():
    yield 'n1c1k512s16st8w32000"filter bank"'
    for C, exponent in product((32, 64, 128, 256, 512), range(10)):
        yield f'n1c{C}k{C}s2d{2**exponent}pcausalw16000"causal"'
        yield f'n1c{C}k{C}s3d{2**exponent}psamew16000"dilated stack"'
    yield 'n1c80k512s3p1w3000"speech encoder, first"'
    yield 'n1c80k512s3st2p1w3000"speech encoder, first, stride 2"'
    yield 'n1c512k512s3st2p1w3000"speech encoder, second"'


def _many_channels():
    yield from (f"n1c{C}k{C}s{S}q1000" for C, S in product((128, 256, 512, 1024), (1, 3, 5)))
    yield "n4c128k128s3q4096"


def _depthwise():
    for C, S in product((256, 384, 512), (3, 7, 31)):
        yield f"n4c{C}k{C}s{S}g{C}q1000"
    for S in (3, 7):
        yield f'n4c256k256s{S}st2p{S // 2}g256w2000"stride 2"'
    yield 'n4c256k256s5d16psameg256w1000"dilated"'
    yield 'n4c256k512s3p1g256w1000"two filters for a channel"'


def _grouped():
    for S, g in product((3, 9), (2, 8, 32)):
        yield f"n4c256k256s{S}g{g}q2000"
    yield 'n4c64k128s5g4q2000"more filters than channels"'
    yield 'n4c128k128s3st2p1g8w4000"stride 2"'
    yield 'n4c768k768s128p64g16w499"speech positions"'


def _short_rows():
    for N, Q in product((1, 8, 64), (1, 2, 4, 8, 16, 31, 64, 128, 256)):
        yield f"n{N}c16k16s3q{Q}"
        yield f"n{N}c64k64s5q{Q}"
    for W in (32, 128, 256):
        yield f'n8c15k15s51d8psamew{W}"mostly padding"'


def _few_positions():
    for C, S, W in product((256, 512, 1024), (1, 3), (1, 8, 32, 100)):
        yield f"n1c{C}k{C}s{S}psamew{W}"
    yield 'n1c768k3072s1w50"feed-forward"'
    for N in (1, 4):
        yield f'n{N}c512k512s3d16w33"a step of a stream"'


def _power_of_two_rows():
    for W in (4096, 8192, 16384):
        yield f"n4c15k15s51d8psamew{W}"
        yield f"n4c64k64s5psamew{W}"
        yield f"n1c256k256s3psamew{W}"


def _transposed():
    # The lines are those of the convolution whose transpose is meant: c is its number of filters.
    yield 'n1c256k512s16st8p4w800"vocoder, first"'
    yield 'n1c128k256s16st8p4w6400"vocoder, second"'
    yield 'n1c64k128s4st2p1w12800"vocoder, third"'
    yield 'n1c32k64s4st2p1w25600"vocoder, fourth"'
    yield 'n1c1k512s16st8w32000"filter bank, decoder"'


def _random():
    """Drawn once and for all: what nobody had in mind."""
    rng = random.Random(2306_15951)

    def size(most):
        return round(math.exp(rng.uniform(0, math.log(most))))

    found = 0
    while found < 100:
        C, K, S = size(1024), size(1024), rng.choice((1, 2, 3, 3, 4, 5, 7, 9, 15, 16, 25, 31, 51))
        K = C if rng.random() < 0.4 else K
        d, s = rng.choice((1, 1, 1, 2, 3, 4, 8, 16, 64)), rng.choice((1, 1, 1, 2, 2, 3, 4, 5, 8))
        g = rng.choice([g for g in (1, 1, 1, 2, 4, 8, C) if C % g == K % g == 0])
        N, W, reach = size(64), size(60000), d * (S - 1)
        pad = rng.choice(("", "", f"p{reach // 2}", f"pl{reach}"))
        if pad != f"pl{reach}" and W <= reach - 2 * (reach // 2) * bool(pad):
            continue
        p = _text.parse(f"n{N}c{C}k{K}s{S}d{d}st{s}g{g}w{W}{pad}")
        elements = max(N * C * W, N * K * p.Q, K * C // g * S)
        if elements < 8e6 and 1e5 < _work(p) < 4e8:
            found += 1
            yield str(p)


SUITES = {
    "paper-rows": _paper_rows,
    "paper-channels": _paper_channels,
    "paper-dilations": _paper_dilations,
    "genomics": _genomics,
    "audio": _audio,
    "many-channels": _many_channels,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "short-rows": _short_rows,
    "few-positions": _few_positions,
    "power-of-two-rows": _power_of_two_rows,
    "transposed": _transposed,
    "random": _random,
}


def names(wanted):
    """The suites that are meant: "paper" means every suite whose name begins with "paper-"."""
    found = []
    for name in wanted:
        meant = [suite for suite in SUITES if suite == name or suite.startswith(f"{name}-")]
        if not meant:
            raise ValueError(f"there is no suite {name!r}, but paper, {', '.join(SUITES)}")
        found += meant
    return list(dict.fromkeys(found))


def problems(name, quick=False):
    """The problems of a suite, or three that are computed fast: first, middle, last of these."""
    suite = [_text.parse(line) for line in SUITES[name]()]
    if not quick:
        return suite
    small = [p for p in suite if _work(p) <= _QUICK_WORK] or [min(suite, key=_work)]
    return list(dict.fromkeys((small[0], small[len(small) // 2], small[-1])))


def _work(p):
    return p.N * p.K * p.C // p.g * p.S * p.Q
