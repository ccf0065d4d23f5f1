"""A slice of the soak, and that it would notice."""

import ctypes

import children
import pytest
import soak
from problems import TARGETS

import xsmmconv

PROBLEMS = 700


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target or "native")
def test_slice(target):
    first = TARGETS.index(target) * PROBLEMS
    script = f"import soak, sys; sys.exit(soak.soak(0, {first}, {PROBLEMS}))"
    children.run(script, LIBXSMM_TARGET=target)


def test_a_problem_does_not_depend_on_the_others():
    assert str(soak.Case(3, 14)) == str(soak.Case(3, 14)) != str(soak.Case(3, 15))


@pytest.fixture
def number():
    """Of a problem that has no layer and no bias in it, and something to be computed."""
    cases = ((number, soak.Case(0, number)) for number in range(100))
    return next(n for n, c in cases if str(c.operation) == "conv1d" and not c.layer and not c.bias)


def test_a_wrong_element_is_noticed(number, monkeypatch):
    conv1d = xsmmconv.conv1d

    def wrong(*operands, out=None, **options):
        result = conv1d(*operands, out=out, **options)
        result.flat[-1] = -1 - result.flat[-1]
        return result

    monkeypatch.setattr(xsmmconv, "conv1d", wrong)
    with pytest.raises(AssertionError, match=r"1 of .* elements differ"):
        soak.Case(0, number).run()


def test_a_byte_beside_the_result_is_noticed(number, monkeypatch):
    conv1d = xsmmconv.conv1d
    case = soak.Case(0, number)

    def wrong(*operands, out=None, **options):
        offset = out.nbytes if case.ends[3] == "begin" else -1
        ctypes.memset(out.ctypes.data + offset, 0, 1)
        return conv1d(*operands, out=out, **options)

    monkeypatch.setattr(xsmmconv, "conv1d", wrong)
    with pytest.raises(AssertionError, match="1 bytes beside the result"):
        case.run()


def test_a_crash_is_reported_with_its_command(monkeypatch, capsys):
    # The second problem of each process kills it.
    crash = "import guarded\nfor n in {first}, {first} + 1: print(n, flush=True)\n"
    monkeypatch.setattr(soak, "CHILD", f"{crash}guarded.touch_a_guard(-1) # {{seed}} {{count}}")
    monkeypatch.setenv("LIBXSMM_TARGET", "hsw")
    assert soak.soak(5, 10, 4) == 2
    printed = capsys.readouterr().out
    repeat = "LIBXSMM_TARGET=hsw python tests/soak.py --seed 5 --first {} --count 1\n"
    assert repeat.format(11) in printed
    assert repeat.format(13) in printed
    assert "status -11" in printed
    assert str(soak.Case(5, 11)) in printed
    assert "resume with --seed 5 --first 12 --count 2\n" in printed
