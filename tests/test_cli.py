"""The command line, called as a function; and once as a process."""

import re
import subprocess
import sys
import types

import ml_dtypes
import numpy as np
import pytest
from test_text import MALFORMED

import xsmmconv
from xsmmconv import _api, _config
from xsmmconv.cli import main, tracks
from xsmmconv.cli.errors import UsageError

QUICK = ["compare", "--width", "1500", "--threads", "1"]


def test_compare_shows_every_layer_pass_and_dtype(capsys):
    assert main(QUICK) == 0
    printed = capsys.readouterr().out
    rows = [line.split("  ") for line in printed.splitlines() if " -> " in line]
    shown = {tuple(cell.strip() for cell in row if cell.strip())[:3] for row in rows}
    assert shown == {
        (layer, pass_, dtype)
        for layer in ("15 -> 15", "1 -> 15", "15 -> 1")
        for pass_ in ("forward", "backward data", "backward weight")
        for dtype in ("float32", "bfloat16")
    }
    assert "18 of 18 results within their error bounds" in printed
    assert "generated coverage track" in printed


def test_compare_takes_a_dtype(capsys):
    assert main([*QUICK, "--dtype", "float64"]) == 0
    printed = capsys.readouterr().out
    assert "9 of 9 results" in printed
    assert "float32" not in printed


@pytest.mark.parametrize("wrong", [1e9, np.nan])
def test_compare_fails_if_a_result_is_wrong(wrong, monkeypatch, capsys):
    conv1d = _api.conv1d

    def one_wrong(*arguments, out, **options):
        conv1d(*arguments, out=out, **options)
        out[0, 0, 17] = wrong

    monkeypatch.setattr(_api, "conv1d", one_wrong)
    assert main([*QUICK, "--dtype", "float32"]) == 1
    assert "6 of 9 results within their error bounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "--bigwig", "track.bw"], "--region"),
        (["compare", "--region", "chr1:0-9"], "--bigwig"),
        (["compare", "--width", "400"], "401"),
        (["compare", "--width", "0"], "--width"),
        (["compare", "--threads", "0"], "threads"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, says, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"xsmmconv {arguments[0]}: ")
    assert says in captured.err


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        *MALFORMED,
        ("n999999999999c999999999999k1s1w1", "out .* more than can be addressed"),
        ("n1000c1k1s1w1p999999999999", "out .* more than can be addressed"),
    ],
)
def test_plan_quotes_the_line_it_refuses(line, complaint, capsys):
    assert main(["plan", line]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"xsmmconv plan: {line.strip()!r}: ")
    assert re.search(complaint, captured.err)


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt, 130, "interrupted\n"),
        (MemoryError("Unable to allocate 745. GiB"), 2, "xsmmconv compare: Unable to allocate 745"),
    ],
)
def test_interrupt_and_lack_of_memory(raised, code, says, monkeypatch, capsys):
    def track(width):
        raise raised

    monkeypatch.setattr(tracks, "coverage_track", track)
    assert main(QUICK) == code
    assert capsys.readouterr().err.startswith(says)


def test_reader_may_stop_early():
    command = [sys.executable, "-m", "xsmmconv", "bench", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["plan"], ["compare", "--dtype", "int8"]])
def test_unknown_arguments_are_left_to_the_parser(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: xsmmconv" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "compare", "info", "plan"])
def test_help_of_every_command(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: xsmmconv {command}" in capsys.readouterr().out


def test_without_pybigwig_compare_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyBigWig", None)
    assert main(["compare", "--bigwig", "track.bw", "--region", "chr1:0-1000"]) == 2
    assert "pip install 'xsmmconv[bigwig]'" in capsys.readouterr().err


class FakeTrack:
    """What pyBigWig.open returns, for a genome of one chromosome with a gap in its values."""

    values_of_chr1 = np.r_[np.arange(600.0), np.full(400, np.nan), np.arange(1000.0)]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def chroms(self, name=None):
        lengths = {"chr1": 2000}
        return lengths.get(name) if name else lengths

    def values(self, chromosome, start, end):
        return self.values_of_chr1[start:end].tolist()


@pytest.fixture
def fake_bigwig(monkeypatch, tmp_path):
    """The name of a file that is a bigWig file to a stand-in for pyBigWig."""

    def open_track(path):
        if path != str(tmp_path / "track.bw"):
            raise RuntimeError("Received an error during file opening!")
        return FakeTrack()

    monkeypatch.setitem(sys.modules, "pyBigWig", types.SimpleNamespace(open=open_track))
    (tmp_path / "track.bw").write_bytes(b"")
    (tmp_path / "other.bw").write_bytes(b"")
    return tmp_path / "track.bw"


def test_compare_reads_a_region_of_a_bigwig_file(fake_bigwig, capsys):
    region = ["--bigwig", str(fake_bigwig), "--region", "chr1:100-1900"]
    assert main(["compare", "--dtype", "float32", *region]) == 0
    printed = capsys.readouterr().out
    assert f"{fake_bigwig} chr1:100-1900" in printed
    assert "9 of 9 results" in printed


def test_positions_without_a_value_count_as_zero(fake_bigwig):
    track = tracks.read_bigwig(fake_bigwig, "chr1:598-1002")
    assert track.dtype == np.float32
    np.testing.assert_array_equal(track, [598, 599, *[0] * 400, 0, 1])


@pytest.mark.parametrize(
    ("name", "region", "says"),
    [
        ("track.bw", "chr2:0-1000", "chr2"),
        ("track.bw", "chr1:0-2001", "chr1:0-2000"),
        ("track.bw", "chr1:500-500", "chr1:500-500"),
        ("track.bw", "chr1", "chr22:20000000-20060400"),
        ("track.bw", "chr1:5e2-1e3", "chr22:20000000-20060400"),
        ("other.bw", "chr1:0-1000", "other.bw"),
        ("missing.bw", "chr1:0-1000", "missing.bw"),
    ],
)
def test_what_is_wrong_with_a_bigwig_file_or_region(name, region, says, fake_bigwig):
    with pytest.raises(UsageError, match=says):
        tracks.read_bigwig(fake_bigwig.with_name(name), region)


def test_generated_track_looks_like_coverage():
    track = tracks.coverage_track(30000)
    assert track.shape == (30000,)
    assert track.dtype == np.float32
    np.testing.assert_array_equal(track, tracks.coverage_track(30000))
    np.testing.assert_array_equal(track, np.rint(track))
    assert track.min() >= 0
    assert track.max() > 20 * np.median(track)  # peaks stand out
    step = np.abs(np.diff(track))
    assert step.mean() < 0.1 * track.mean()  # neighbours have most fragments in common


def test_info_prints_the_configuration(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    xsmmconv.show_config()
    assert printed == capsys.readouterr().out


def test_plan_prints_the_description(capsys):
    options = ["--pass", "backward_data", "--dtype", "bfloat16"]
    assert main(["plan", "n2c4k6s3st2p1g2w50", *options]) == 0
    described = xsmmconv.plan(
        "backward_data", (2, 4, 50), (6, 2, 3), ml_dtypes.bfloat16, stride=2, padding=1, groups=2
    ).describe()
    assert capsys.readouterr().out == described + "\n"


@pytest.mark.parametrize("arguments", [["plan", "c3k5s3w20"], QUICK])
def test_unsupported_machine_has_an_exit_code(arguments, monkeypatch, capsys):
    def core():
        raise xsmmconv.UnsupportedError("no AVX2 here")

    monkeypatch.setattr(_config, "core", core)
    assert main(arguments) == 3
    assert capsys.readouterr().err == f"xsmmconv {arguments[0]}: no AVX2 here\n"


def test_runs_as_a_module():
    command = [sys.executable, "-m", "xsmmconv", "--version"]
    shown = subprocess.check_output(command, text=True)
    assert shown == f"xsmmconv {xsmmconv.__version__}\n"
    failed = subprocess.run([*command[:-1], "plan", "c1"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.startswith("xsmmconv plan: ")
