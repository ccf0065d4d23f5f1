"""Measure all passes on suites of shapes, next to PyTorch, as shares of the machine's peak.

Every cell (a problem, pass, dtype and number of threads) is computed by xsmmconv and by PyTorch on
rows as they are and on channels-last tensors, in turns, with the peak of the cores measured in
between. Without PyTorch, xsmmconv is measured alone. Interrupted, it reports what it has.
docs/performance.md explains the method.
"""

import argparse
import datetime
import importlib.util
import os
import platform
import shlex
import sys
import time
from itertools import chain, product, zip_longest
from pathlib import Path

from xsmmconv import _config, _problem, _row_lengths, _terminal, _text, _threads
from xsmmconv.bench import peers, report, results, suites, timing
from xsmmconv.bench.cells import PASSES, Cell
from xsmmconv.bench.plot import plot
from xsmmconv.cli.errors import UsageError

_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "ATEN_", "LIBXSMM_", "MALLOC_", "THP_")
_TRANSPOSED = "transposed"  # the suite in which the pass of this name is measured too


def add_arguments(parser):
    parser.add_argument(
        "--suite", action="append", metavar="NAME",
        help=f"may be repeated (all): {', '.join(suites.SUITES)}; paper is every paper-*",
    )  # fmt: skip
    parser.add_argument(
        "--problem", action="append", metavar="LINE",
        help="a problem instead of the suites, for example n4c15k15s51d8q5000; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--pass", dest="passes", action="append", choices=PASSES,
        help="may be repeated (the three passes; in the suite transposed all four)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", action="append", choices=[dtype.name for dtype in _problem.DTYPES],
        help="may be repeated (float32 and bfloat16)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=_numbers, metavar="1,2,...",
        help="(one, and the process default; --quick: one)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true",
        help="three small problems of each suite, few repeats, less than a minute",
    )  # fmt: skip
    parser.add_argument("--ours-only", action="store_true", help="leave PyTorch out")
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw shares of the peak (needs matplotlib)"
    )
    parser.add_argument(
        "--read", metavar="FILE", help="report and plot a run that --json wrote; measure nothing"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the problems that would be measured"
    )


def run(arguments):
    _check_targets(arguments)
    if arguments.read:
        about, measured = _read(arguments.read)
    else:
        problems = _problems(arguments)
        if arguments.list:
            print("\n".join(f"{suite}  {problem}" for suite, problem in problems))
            return 0
        about, measured = _measure(arguments, _cells(arguments, problems))
    if not measured:
        raise UsageError("nothing was measured")
    print(report.report(about, measured))
    if arguments.json:
        results.save(arguments.json, about, measured)
    if arguments.plot:
        for path in plot(arguments.plot, measured):
            print(f"written: {path}")
    return 1 if any(one.differs for one in measured) else 0


def _numbers(text):
    """The argument of --threads."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be numbers from 1, like 1,2")
    return list(dict.fromkeys(numbers))


def _check_targets(arguments):
    """What would be a pity to find out after the run."""
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'xsmmconv[bench]'")
    for path in filter(None, (arguments.json, arguments.plot)):
        if not Path(path).parent.is_dir():
            raise UsageError(f"there is no directory {Path(path).parent} for {path}")


def _read(path):
    try:
        return results.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(error) from None


def _problems(arguments):
    """(suite, problem) for everything that was asked for."""
    try:
        lines = [_text.parse(line) for line in arguments.problem or ()]
        names = suites.names(arguments.suite or (() if lines else suites.SUITES))
    except ValueError as error:
        raise UsageError(error) from None
    for line in lines:
        if line.N == 0:
            raise UsageError(f"there is nothing to measure in {line}")
    chosen = [[(name, line) for line in suites.problems(name, arguments.quick)] for name in names]
    if arguments.quick:  # in turns, because it may be cut short
        chosen = [filter(None, turn) for turn in zip_longest(*chosen)]
    return [("given", line) for line in lines] + list(chain.from_iterable(chosen))


def _cells(arguments, problems):
    dtypes = arguments.dtype or ("float32", "bfloat16")
    default = {1} if arguments.quick else {1, _threads.get_num_threads()}
    threads = arguments.threads or sorted(default)
    cells = []
    for suite, problem in problems:
        passes = arguments.passes or (PASSES if suite == _TRANSPOSED else _problem.PASSES)
        cells += [Cell(suite, problem, *each) for each in product(passes, dtypes, threads)]
    return cells


def _measure(arguments, cells):
    """(about, results) of a run; of a part of it, if it is interrupted."""
    _config.core()  # says what is missing where there are no kernels
    effort = timing.QUICK if arguments.quick else timing.THOROUGH
    end = time.monotonic() + effort.total_seconds
    load = os.getloadavg()[0]
    peer = None if arguments.ours_only else _peer()
    about = _about(peer, effort)
    measured = []
    try:
        with _terminal.progress(len(cells)) as progress:
            for cell in cells:
                if time.monotonic() > end:
                    break
                progress(f"{cell.suite} {cell.problem} {cell.pass_} {cell.dtype} {cell.threads}")
                measured.append(_measure_cell(cell, peer, effort))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    about["load"] = f"{load:.1f} before, {os.getloadavg()[0]:.1f} after"
    about["cells"] = f"{len(measured)} of {len(cells)}"
    return about, measured


def _peer():
    try:
        return peers.Torch()
    except ImportError:
        print("PyTorch is not installed: measuring xsmmconv alone", file=sys.stderr)
        return None


def _measure_cell(cell, peer, effort):
    _row_lengths.forget()
    a, b = cell.operands()
    ours, out = cell.ours(a, b)
    columns = {results.OURS: timing.Column(ours, ours)}
    theirs = peer.columns(cell, a, b) if peer else {}
    samples = timing.measure(columns | theirs, timing.core_peak(cell.dtype, cell.threads), effort)
    notes = {
        name: {
            "implementation": column.warm_up.implementation,
            "difference": column.warm_up.difference(out),
        }
        for name, column in theirs.items()
    }
    return results.result(cell, samples, notes)


def _about(peer, effort):
    """What a reader needs to judge the figures, and to get them again."""
    config = _config.configuration()
    return {
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "command": shlex.join(["python", "-m", "xsmmconv", *sys.argv[1:]]),
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} CPUs",
        "platform": config["platform"],
        "instruction set": config["instruction set"],
        "bfloat16 kernels": config["bfloat16 kernels"],
        "xsmmconv": f"{config['xsmmconv']}, LIBXSMM {config['libxsmm']}",
        "python": f"{config['python']}, NumPy {config['numpy']}",
        "torch": peer.version if peer else "not measured",
        "environment": " ".join(_environment()) or "none of " + ", ".join(_VARIABLES),
        "repeats": f"at most {effort.repeats}, or {effort.seconds} s, per column of a cell",
    }


def _environment():
    """The environment variables that may matter, as they would be set on a command line."""
    for name, value in sorted(os.environ.items()):
        if name.startswith(_VARIABLES):
            yield f"{name}={shlex.quote(value)}"


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
