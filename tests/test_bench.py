"""The benchmark: its shapes, its arithmetic, its files; and the command, run on few of them."""

import ctypes
import json
import subprocess
import sys
from itertools import count

import numpy as np
import problems as shared
import pytest

from xsmmconv import _row_lengths, _text, reference
from xsmmconv.bench import cells, peers, plot, report, results, suites, timing
from xsmmconv.cli import bench, main

SMALL = _text.parse("n2c6k4s3st2d2p1g2w40")  # 1 column of x lies behind the last filter
TINY = ["bench", "--ours-only", "--quick", "--problem", str(SMALL), "--threads", "1"]


# --- shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", suites.SUITES)
def test_suite_has_distinct_problems_and_a_quick_part(name):
    whole = suites.problems(name)
    assert len(set(whole)) == len(whole)
    quick = suites.problems(name, quick=True)
    assert set(quick) <= set(whole)
    work = {p: p.N * p.K * p.C // p.g * p.S * p.Q for p in whole}
    if len(quick) == 1:
        assert work[quick[0]] == min(work.values())
    else:
        assert len(quick) <= 3
        assert max(work[p] for p in quick) <= 3e7


def test_paper_suites_are_the_paper_configurations():
    rows = {(p.N, p.C, p.K, p.d, p.S, p.Q) for p in suites.problems("paper-rows")}
    assert len(rows) == 3 * 8 * 7
    assert {row[:4] for row in rows} == {(4, 15, 15, 8), (4, 64, 64, 1), (4, 32, 32, 4)}
    assert {row[4] for row in rows} == {1, 5, 9, 15, 21, 25, 31, 51}
    assert {row[5] for row in rows} == {500, 1000, 2000, 5000, 10000, 20000, 60000}
    assert {(p.C, p.K) for p in suites.problems("paper-channels")} >= {(1, 128), (128, 1), (15, 15)}


def test_suites_are_chosen_by_name_or_first_word():
    paper = ["paper-rows", "paper-channels", "paper-dilations"]
    assert suites.names(["paper"]) == paper
    assert suites.names(["audio", "paper", "paper-rows"]) == ["audio", *paper]
    with pytest.raises(ValueError, match=r"'pape'.*genomics"):
        suites.names(["pape"])


# --- cells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pass_", cells.PASSES)
def test_our_side_of_a_cell_computes_the_pass(pass_):
    cell = cells.Cell("given", SMALL, pass_, "float32", 2)
    a, b = cell.operands()
    call, out = cell.ours(a, b)
    out.fill(np.nan)
    assert call() is out
    operation = shared.PASSES.get(pass_, shared.TRANSPOSED)
    assert cell.output_padding == shared.output_padding(SMALL) == 1
    expected = shared.call(reference, operation, SMALL, a, b)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    assert cell.multiply_adds == shared.terms(SMALL, operation).sum()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_arrays_of_a_cell_lie_as_large_arrays_do(dtype):
    cell = cells.Cell("given", SMALL, "forward", dtype, 1)
    a, b = cell.operands()
    for array in (a, b, cell.ours(a, b)[1]):
        assert array.dtype.name == dtype
        assert array.ctypes.data % 64 == 16
        assert array.flags.carray
    assert a.std() > 0.5


# --- timing ----------------------------------------------------------------------------------


class Clock:
    """Time that passes only in the calls that are measured."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.log = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def column(self, name, seconds, first=None):
        def call():
            self.log.append(name)
            self.now += seconds

        def warm_up():
            self.now += seconds if first is None else first

        return timing.Column(call, warm_up)


def test_columns_take_turns_and_the_peak_is_measured_in_between(monkeypatch):
    clock, peaks = Clock(monkeypatch), count(1)
    columns = {"a": clock.column("a", 1e-3, first=0.5), "b": clock.column("b", 1e-4)}
    samples = timing.measure(columns, lambda: next(peaks), timing.Effort(2 + 3, 1.0))
    a, b = samples["a"], samples["b"]
    assert (a.calls, b.calls) == (1, 3)
    assert a.seconds == pytest.approx([1e-3] * 5)
    assert b.seconds == pytest.approx([1e-4] * 5)
    assert "".join(clock.log) == "aa" + "bb" + "abbb" * 5
    first = a.peaks[0][0]
    assert a.peaks == [(first + i, first + i + 1) for i in range(0, 10, 2)]
    assert b.peaks == [(first + i, first + i + 1) for i in range(1, 10, 2)]


def test_a_column_leaves_when_its_time_is_used_up(monkeypatch):
    clock = Clock(monkeypatch)
    columns = {
        "fast": clock.column("fast", 0.01),
        "long": clock.column("long", 0.4),
        "slow": clock.column("slow", 5.0),
    }
    samples = timing.measure(columns, lambda: 100.0, timing.Effort(20, 0.5))
    assert len(samples["fast"].seconds) == 20
    assert len(samples["long"].seconds) == 3  # the least, although two have used up the time
    assert samples["slow"].seconds == [5.0]
    assert samples["slow"].peaks == [(100.0, 100.0)]
    assert clock.log.count("slow") == 0


# --- figures ---------------------------------------------------------------------------------


def figures(seconds, ratio=1.0, **more):
    share = 0.1 / seconds
    return results.Figures(seconds, seconds, 3, 1, 100 * share, share, share, ratio, **more)


def measured(problem, threads=1, seconds=0.2, ratio=2.0, suite="given", pass_="forward", **more):
    columns = {"xsmmconv": figures(seconds), "torch": figures(seconds * ratio, ratio, **more)}
    return results.Result(suite, problem, pass_, "float32", threads, 10**9, 100.0, columns)


def test_figures_of_a_cell():
    cell = cells.Cell("given", SMALL, "forward", "float32", 1)
    work = 2e-9 * cell.multiply_adds
    ours = timing.Samples(4, [2.0, 1.0, 4.0], [(1.0, 1.0), (2.0, 4.0), (1.0, 1.0)])
    theirs = timing.Samples(1, [6.0, 5.0], [(1.0, 1.0), (1.0, 1.0)])
    notes = {"torch": {"implementation": "jit", "difference": 1e-7}}
    one = results.result(cell, {"xsmmconv": ours, "torch": theirs}, notes)
    assert (one.problem, one.kind) == (str(SMALL), ("forward", "float32", 1))
    assert one.peak == 4.0
    assert (one.ours.min_seconds, one.ours.median_seconds, one.ours.repeats) == (1.0, 2.0, 3)
    assert one.ours.gflops == pytest.approx(work)
    assert one.ours.share == pytest.approx(work / 4)
    assert one.ours.median_share == pytest.approx(work / 3)  # of work/2, work/3 and work/4
    assert one.ours.ratio == 1
    assert one.peer.ratio == 4.0  # of 6/2 and 5/1
    assert one.peer.implementation == "jit"
    assert not one.differs


@pytest.mark.parametrize("difference", [0.01, np.nan])
def test_a_wrong_result_is_noticed(difference):
    wrong = measured("c1k1s1w9", difference=difference)
    assert wrong.differs
    assert f"torch {difference:.1e}" in report.report({"date": "today"}, [wrong])


def test_summary():
    run = [
        measured("c1k1s1w9", seconds=0.2, ratio=0.5),
        measured("c1k1s1w8", seconds=0.4, ratio=8.0),
        measured("c1k1s1w7", seconds=0.5, ratio=2.0),
    ]
    found = results.summary(run)
    assert (found.cells, found.behind, found.lowest_ratio) == (3, 1, 0.5)
    assert found.median_share == pytest.approx(0.25)
    assert found.lowest_share == pytest.approx(0.2)
    assert found.peer_share == pytest.approx(0.1)
    assert found.mean_ratio == pytest.approx(2.0)
    alone = results.summary(run, "channels-last")
    assert alone.cells == 3
    assert alone.mean_ratio is alone.behind is alone.peer_share is None


def test_speedups_are_those_of_longer_calls():
    run = [
        measured("c1k1s1w9", 1, 0.4), measured("c1k1s1w9", 2, 0.25),
        measured("c1k1s1w8", 1, 9e-5), measured("c1k1s1w8", 2, 9e-5),
        measured("c1k1s1w7", 2, 0.1),
    ]  # fmt: skip
    assert results.speedups(run) == {("forward", "float32", 2): [(1.6, "c1k1s1w9")]}


def test_a_run_is_read_back_as_it_was(tmp_path):
    run = [measured("c1k1s1w9"), measured("c1k1s1w9", 2, implementation="jit:avx2")]
    path = tmp_path / "run.json"
    results.save(path, {"date": "today"}, run)
    assert results.load(path) == ({"date": "today"}, run)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0}'])
def test_other_files_are_no_runs(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json"):
        results.load(path)


# --- PyTorch ---------------------------------------------------------------------------------

EXECUTED = "onednn_verbose,v1,primitive,exec,cpu,{},{},undef,src:f32::a dst:f32::b,,,4x15,0.2\n"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", "ATen"),
        (EXECUTED.format("convolution", "jit:avx2"), "jit:avx2"),
        (
            "onednn_verbose,v1,info,cpu,runtime:OpenMP\n"
            + EXECUTED.format("reorder", "jit:uni") * 2
            + "onednn_verbose,v1,primitive,create_nested:cache_miss,cpu,convolution,ref:any,x\n"
            + EXECUTED.format("deconvolution", "conv:any+jit:avx2")
            + EXECUTED.format("reorder", "jit:uni"),
            "conv:any+jit:avx2 + 3 reorders",
        ),
        (
            EXECUTED.format("reorder", "jit:blk") + EXECUTED.format("convolution", "brg:avx512"),
            "brg:avx512 + 1 reorder",
        ),
        ("MKL_VERBOSE oneMKL 2024.0\n" + "MKL_VERBOSE SGEMM(N,N,9) 1us\n" * 2, "MKL SGEMM"),
    ],
)
def test_what_the_libraries_say_is_understood(said, meant):
    assert peers.implementation(said) == meant


def test_output_of_c_code_is_caught(tmp_path, capfd):
    path = tmp_path / "said"
    with path.open("wb") as file, peers._c_output_to(file):
        ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).puts(b"later")
    ctypes.CDLL(None).fflush(None)
    assert path.read_text() == "from C\n"
    assert capfd.readouterr().out == "later\n"


# --- report and pictures ---------------------------------------------------------------------


def test_report_shows_every_cell_the_worst_and_those_behind():
    run = [
        measured(f"c1k1s1w{w}", threads, seconds=w / threads, suite=suite, implementation="jit:x")
        for suite in ("audio", "grouped") for w in range(1, 8) for threads in (1, 2)
    ]  # fmt: skip
    run.append(measured("c1k1s1w99", suite="audio", ratio=0.75, implementation="jit:y"))
    shown = report.report({"machine": "a fast one"}, run)
    assert "machine  a fast one" in shown
    for suite in ("audio", "grouped"):
        assert f"\n{suite}\nproblem" in shown
    assert sum("jit:x" in line for line in shown.splitlines()) == 28
    blocks = shown.split("\n\n")
    (worst,) = [b for b in blocks if b.startswith("furthest from the peak: forward, float32, 2 th")]
    assert [line.split()[1] for line in worst.splitlines()[1:]] == [
        f"c1k1s1w{w}" for w in (7, 7, 6, 6, 5)
    ]
    (behind,) = [b for b in blocks if b.startswith("behind torch")]
    found = " ".join(behind.splitlines()[1].split())
    assert found == "audio c1k1s1w99 forward, float32, 1 thread 0.75 jit:y"
    (speed,) = [b for b in blocks if b.startswith("speed-up over one thread")]
    assert "14 cells  median 2.00  lowest 2.00" in speed
    (summary,) = [b for b in blocks if b.startswith("summary")]
    totals = [line.split() for line in summary.splitlines() if line.startswith("all ")]
    assert [line[3:5] for line in totals] == [["1", "15"], ["2", "14"]]


def paper_run():
    lines = ['n4c15k15s5d8w1000"C=K=15 d=8"', 'n4c15k15s9d8w1032"C=K=15 d=8"']
    return [
        measured(line, suite="paper-rows", pass_=pass_)
        for pass_ in ("forward", "backward_data") for line in lines
    ] + [measured("c1k1s1w9", suite="audio", pass_="forward")]  # fmt: skip


def test_picture_draws_every_shape_and_the_curves_of_the_paper():
    drawn = plot.picture("float32, 1 thread", paper_run()).axes
    assert len(drawn) == 2 + 4  # passes; passes x (filter width, row length)
    ours, theirs = drawn[0].lines[:2]
    assert ours.get_label() == "xsmmconv"
    np.testing.assert_allclose(ours.get_ydata(), [50.0] * 3)
    np.testing.assert_allclose(theirs.get_ydata(), [25.0] * 3)
    (over_taps,) = [a for a in drawn if a.get_xlabel() == "filter width S"][:1]
    np.testing.assert_array_equal(over_taps.lines[0].get_xdata(), [5, 9])
    (over_rows,) = [a for a in drawn if a.get_xlabel() == "row length Q"][:1]
    assert [list(line.get_xdata()) for line in over_rows.lines[::2]] == [[968], [968]]


def test_picture_of_a_run_that_was_cut_short():
    drawn = plot.picture("float32, 1 thread", [
        measured('n4c15k15s5d8w1000"C=K=15 d=8"', suite="paper-rows"),
        measured('n4c15k15s5d8w1000"C=K=15 d=8"', suite="paper-rows", pass_="backward_data"),
        measured('n4c32k32s5d4w1000"C=K=32 d=4"', suite="paper-rows"),
    ]).axes  # fmt: skip
    assert len(drawn) == 2 + 4 + 2


def test_pictures_are_written(tmp_path):
    run = paper_run()
    assert plot.plot(tmp_path / "one.png", run) == [tmp_path / "one.png"]
    two = plot.plot(tmp_path / "two", [*run, measured("c1k1s1w9", threads=2)])
    assert two == [tmp_path / "two-float32-1.png", tmp_path / "two-float32-2.png"]
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


# --- the command -----------------------------------------------------------------------------


def test_bench_runs_as_a_process(tmp_path):
    path = tmp_path / "run.json"
    command = [sys.executable, "-m", "xsmmconv", "bench", "--quick", "--suite", "short-rows"]
    command += ["--ours-only", "--json", str(path), "--plot", str(tmp_path / "run.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "1 of 18: short-rows n1c16k16s3w3 forward float32 1" in done.stderr
    about, run = results.load(path)
    assert about["command"].endswith(" ".join(command[3:]))
    assert about["cells"] == "18 of 18"
    assert "after" in about["load"]
    quick = [str(p) for p in suites.problems("short-rows", quick=True)]
    assert sorted({one.problem for one in run}) == sorted(quick)
    for one in run:
        assert one.threads == 1
        assert one.problem in done.stdout
        assert 0 < one.ours.min_seconds <= one.ours.median_seconds
        assert one.ours.share > 0
        assert one.ours.repeats >= 3
    assert (tmp_path / "run-bfloat16-1.png").is_file()


def test_json_file_has_these_fields(tmp_path, capsys):
    path = tmp_path / "run.json"
    assert main([*TINY, "--pass", "transposed", "--dtype", "float64", "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    assert {"date", "machine", "command", "xsmmconv", "torch"} <= set(content["about"])
    (cell,) = content["cells"]
    ours = cell.pop("columns").pop("xsmmconv")
    assert cell.pop("peak") > 0
    assert cell == {
        "suite": "given", "problem": str(SMALL), "pass_": "transposed", "dtype": "float64",
        "threads": 1, "multiply_adds": cells.Cell(*cell_key(SMALL)).multiply_adds,
    }  # fmt: skip
    assert set(ours) == {
        "min_seconds", "median_seconds", "repeats", "calls_per_repeat", "gflops", "share",
        "median_share", "ratio", "implementation", "difference",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert main(["bench", "--read", str(path)]) == 0
    assert capsys.readouterr().out == printed


def cell_key(problem):
    return "given", problem, "transposed", "float64", 1


class Peer:
    """In place of PyTorch: the reference, and another result for one of the columns."""

    version = "of this test"

    def __init__(self, wrong=0.0):
        self._wrong = wrong

    def columns(self, cell, a, b):
        operation = shared.PASSES[cell.pass_]

        def call():
            return shared.call(reference, operation, cell.problem, a, b)

        class FirstCall:
            implementation = "loops"
            __call__ = staticmethod(call)

            def difference(_, ours):
                return float(np.max(np.abs(call() + self._wrong - ours)))

        return {name: timing.Column(call, FirstCall()) for name in peers.COLUMNS}


@pytest.mark.parametrize(("wrong", "code"), [(0.0, 0), (1.0, 1)])
def test_bench_next_to_a_peer(wrong, code, monkeypatch, capsys):
    monkeypatch.setattr(peers, "Torch", lambda: Peer(wrong))
    command = [part for part in TINY if part != "--ours-only"]
    assert main([*command, "--dtype", "float32"]) == code
    printed = capsys.readouterr().out
    assert "of this test" in printed
    assert printed.count("  loops") == 3
    assert ("results differ" in printed) == bool(wrong)


def test_lengths_of_earlier_rows_do_not_count(monkeypatch, capsys):
    """As in a process that has not seen many."""
    seen = set(range(-_row_lengths.MOST, 0))
    monkeypatch.setattr(_row_lengths, "seen", seen)
    assert main(TINY) == 0
    assert seen <= {SMALL.W, SMALL.Q}


def test_without_torch_ours_is_measured_alone(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    command = [part for part in TINY if part != "--ours-only"]
    assert main([*command, "--pass", "forward"]) == 0
    captured = capsys.readouterr()
    assert "PyTorch is not installed" in captured.err
    assert "not measured" in captured.out


def test_what_was_measured_before_an_interrupt_is_reported(monkeypatch, capsys):
    run = iter([measured("c1k1s1w9"), measured("c1k1s1w8")])

    def measure_cell(*arguments):
        try:
            return next(run)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(bench, "_measure_cell", measure_cell)
    assert main([*TINY, "--suite", "grouped"]) == 0
    captured = capsys.readouterr()
    assert "c1k1s1w8" in captured.out
    assert "cells             2 of 12" in captured.out
    assert "interrupted" in captured.err


def test_bench_lists_its_problems(capsys):
    assert main(["bench", "--list", "--suite", "genomics", "--problem", "c1k2s3w9"]) == 0
    listed = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert listed[0] == ["given", "n1c1k2s3w9"]
    assert [_text.parse(line) for suite, line in listed[1:]] == suites.problems("genomics")
    assert {suite for suite, line in listed[1:]} == {"genomics"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "nonsense"], "nonsense"),
        (["--problem", "c1k1w9"], "s missing"),
        (["--problem", "n0c1k1s1w9"], "nothing to measure"),
        (["--json", "/no/such/place/run.json"], "/no/such/place"),
        (["--read", "/no/such/file.json"], "/no/such/file.json"),
    ],
    ids=" ".join,
)
def test_what_bench_cannot_do_is_said_in_one_line(arguments, says, capsys):
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err


def test_plot_without_matplotlib_is_refused_at_once(monkeypatch, capsys):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "--plot", "run.png"]) == 2
    assert "xsmmconv[bench]" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["0", "1,x", "", "1,-2"])
def test_numbers_of_threads_are_left_to_the_parser(threads, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "--threads", threads])
    assert exit_.value.code == 2
    assert "like 1,2" in capsys.readouterr().err
