"""Compare the layers of a genomics network with the NumPy reference, and time them.

The layers of arXiv:2104.08002: 51 taps, dilation 8, one row, and 15 -> 15, 1 -> 15 and
15 -> 1 channels; all three passes. Their input is a coverage track: a generated one, or a region of
a bigWig file. Each result is held against the float64 reference and the rounding error
that the arithmetic may have; the speed against the core's peak, measured in between.
"""

import statistics
import time
from dataclasses import dataclass

import numpy as np

from xsmmconv import _api, _config, _problem, _terminal, _text, _threads, reference
from xsmmconv.cli import tracks
from xsmmconv.cli.errors import UsageError

_CHANNELS = ((15, 15), (1, 15), (15, 1))
_LAYER = "s51d8"
_REPEATS = 9


@dataclass(frozen=True, slots=True)
class Row:
    """One layer, pass and dtype: how wrong and how fast."""

    layer: str
    pass_: str
    dtype: str
    error: float  # the largest
    bound: float  # of the same output
    share: float  # error/bound where it is the largest
    seconds: tuple[float, ...]
    multiply_adds: int

    @property
    def within_bound(self):
        return self.share <= 1  # False for NaN

    @property
    def gflops(self):
        return 2e-9 * self.multiply_adds / min(self.seconds)


def add_arguments(parser):
    parser.add_argument("--bigwig", metavar="FILE", help="coverage track to read (needs pyBigWig)")
    parser.add_argument(
        "--region", metavar="CHROM:START-END",
        help="of the bigWig file, zero-based, end excluded: chr22:20000000-20060400",
    )  # fmt: skip
    parser.add_argument(
        "--width", type=int, default=60400, help="columns of the generated track (%(default)s)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float64"), action="append",
        help="may be repeated (float32 and bfloat16)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="(the process default)")


def run(arguments):
    track, source = _signal(arguments)
    try:
        threads = _threads.resolve(arguments.threads)
        layers = [_text.parse(f"c{C}k{K}{_LAYER}w{track.size}") for C, K in _CHANNELS]
    except ValueError as error:
        raise UsageError(error) from None
    dtypes = [_problem.dtype(name) for name in arguments.dtype or ("float32", "bfloat16")]
    print(_heading(source, threads), flush=True)

    rows, peaks = [], {}
    todo = [(layer, dtype) for layer in layers for dtype in dtypes]
    with _terminal.progress(len(todo)) as progress:
        for layer, dtype in todo:
            progress(f"{layer.C} -> {layer.K} {dtype}")
            for row, peak in _measure(layer, dtype, track, threads):
                rows.append(row)
                peaks[dtype.name] = max(peak, peaks.get(dtype.name, 0.0))
    print(_table(rows, peaks))
    outside = sum(not row.within_bound for row in rows)
    print(f"{len(rows) - outside} of {len(rows)} results within their error bounds")
    return 1 if outside else 0


def _signal(arguments):
    if (arguments.bigwig is None) != (arguments.region is None):
        raise UsageError("--bigwig FILE and --region CHROM:START-END belong together")
    if arguments.bigwig is None:
        if arguments.width < 1:
            raise UsageError(f"--width should be at least 1, not {arguments.width}")
        return tracks.coverage_track(arguments.width), "generated coverage track"
    track = tracks.read_bigwig(arguments.bigwig, arguments.region)
    return track, f"{arguments.bigwig} {arguments.region}"


def _measure(layer, dtype, track, threads):
    """Yield a `Row` and the peak seen meanwhile, for each of the three passes."""
    from xsmmconv._peak import peak_gflops

    x, weight, grad_out = (v.astype(dtype) for v in _operands(layer, track))
    options = {"stride": layer.s, "dilation": layer.d}
    for pass_, function, a, b, width, terms in (
        ("forward", "conv1d", x, weight, (), layer.C * layer.S),
        ("backward_data", "conv1d_backward_data", grad_out, weight, (layer.W,), layer.K * layer.S),
        ("backward_weight", "conv1d_backward_weight", grad_out, x, (layer.S,), layer.N * layer.Q),
    ):
        plan = _api.plan(pass_, layer.x_shape, layer.weight_shape, dtype, **options)
        ours, theirs = getattr(_api, function), getattr(reference, function)
        out = np.full(plan.output_shape, np.nan, dtype)
        ours(a, b, *width, **options, out=out, threads=threads)

        magnitude = theirs(*(np.abs(v.astype(np.float64)) for v in (a, b)), *width, **options)
        expected = theirs(a, b, *width, **options)
        bound = reference.error_bound(expected, magnitude, terms, dtype)
        accuracy = _accuracy(out, expected, bound)

        seconds, peak = [], 0.0
        for _ in range(_REPEATS):
            start = time.perf_counter()
            ours(a, b, *width, **options, out=out, threads=threads)
            seconds.append(time.perf_counter() - start)
            peak = max(peak, peak_gflops(dtype.name, threads))
        name = f"{layer.C} -> {layer.K}"
        yield (
            Row(name, pass_, dtype.name, *accuracy, tuple(seconds), plan.multiply_adds),
            peak,
        )


def _operands(layer, track):
    """x, weight and grad_out. x is the track, or C channels that a first layer makes of it."""
    rng = np.random.default_rng(layer.C + layer.K)
    x = track[np.newaxis, np.newaxis].astype(np.float64)
    if layer.C > 1:
        first = rng.normal(size=(layer.C, 1, layer.S)) / np.sqrt(layer.S)
        x = reference.conv1d(x, first, padding="same", dilation=layer.d, activation="relu")
    weight = rng.normal(size=layer.weight_shape) / np.sqrt(layer.C * layer.S)
    return x, weight, rng.normal(size=layer.y_shape)


def _accuracy(result, expected, bound):
    """The largest error, the bound of the same output, and the largest share of a bound used."""
    error = np.abs(result.astype(np.float64) - expected)
    share = np.divide(error, bound, out=np.where(error == 0, 0.0, np.inf), where=bound > 0)
    largest = np.unravel_index(np.argmax(error), error.shape)  # a NaN counts as the largest
    return float(error[largest]), float(bound[largest]), float(np.max(share))


def _heading(source, threads):
    _config.core()  # says what is missing where there are no kernels
    from xsmmconv import _dispatch

    plural = "" if threads == 1 else "s"
    return (
        f"xsmmconv {_config.VERSION}, LIBXSMM {_dispatch.libxsmm_version()}, "
        f"{_dispatch.instruction_set()}, {threads} thread{plural}\n"
        f"{source}; one row, 51 taps, dilation 8\n"
    )


def _table(rows, peaks):
    lines = [
        ("layer", "pass", "dtype", "max error", "its bound", "worst share", "min ms", "median ms",
         "GFLOP/s", "of peak"),
    ]  # fmt: skip
    for row in rows:
        milliseconds = [1e3 * s for s in row.seconds]
        lines.append((
            row.layer,
            row.pass_.replace("_", " "),
            row.dtype,
            f"{row.error:.2e}",
            f"{row.bound:.2e}",
            f"{row.share:.2%}",
            f"{min(milliseconds):.3f}",
            f"{statistics.median(milliseconds):.3f}",
            f"{row.gflops:.1f}",
            f"{row.gflops / peaks[row.dtype]:.1%}",
        ))  # fmt: skip
    shown = ", ".join(f"{dtype} {peak:.1f} GFLOP/s" for dtype, peak in peaks.items())
    notes = (
        "\nworst share: the largest error/bound of all outputs; GFLOP/s: from the minimum time\n"
        f"peak measured in between: {shown}"
    )
    return _terminal.table(lines, {0, 1, 2}) + notes
