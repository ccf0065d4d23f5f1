"""What the package says about itself, and what it does where its kernels cannot run."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xsmmconv
from xsmmconv import _config, _dispatch, _plan, _threads


def test_version_is_that_of_the_distribution():
    assert xsmmconv.__version__ == importlib.metadata.version("xsmmconv")


def test_everything_exported_exists():
    assert sorted(xsmmconv.__all__) == xsmmconv.__all__
    assert all(hasattr(xsmmconv, name) for name in xsmmconv.__all__)


def test_configuration_is_that_of_the_machine():
    config = _config.configuration()
    assert config["numpy"] == np.__version__
    assert config["libxsmm"] == "1.17"
    assert config["instruction set"] == _dispatch.instruction_set()
    assert config["threads"] == xsmmconv.get_num_threads()
    assert {f"{dtype} kernels" for dtype in ("float32", "float64", "bfloat16")} < config.keys()


@pytest.mark.parametrize(
    ("level", "name", "variable", "usual"),
    [
        (1, "L1 data cache", "LEVEL1_DCACHE_SIZE", 2**15),
        (2, "L2 cache", "LEVEL2_CACHE_SIZE", 2**20),
    ],
)
def test_caches_are_those_of_the_machine(level, name, variable, usual):
    found = _dispatch.cache_bytes(level)
    assert _config.configuration()[name] == found
    said = subprocess.run(["getconf", variable], capture_output=True, text=True).stdout.strip()
    size = int(said) if said.isdecimal() and int(said) else usual
    assert found == min(max(size, usual // 4), 4 * usual)


@pytest.mark.parametrize(("found", "counted"), [(2**18, 2**20), (2**20, 2**20), (2**21, 2**21)])
def test_blocking_is_for_a_megabyte_of_cache_at_least(found, counted, monkeypatch):
    monkeypatch.setattr(_dispatch, "cache_bytes", lambda level: found)
    machine = _plan.machine("float32")
    assert (machine.l1_bytes, machine.l2_bytes) == (2**15, counted)


def test_configuration_counts_plans_and_kernels():
    before, limit = _plan.cache_info()
    xsmmconv.conv1d(np.ones((1, 3, 4321), "f4"), np.ones((5, 3, 7), "f4"))
    after, _ = _plan.cache_info()
    assert before < after <= limit or before == after == limit
    assert _config.configuration()["plans cached"] == f"{after} of at most {limit}"
    assert _dispatch.registry_info()["kernels"] >= 1


def test_show_config_prints_the_configuration(capsys):
    xsmmconv.show_config()
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["xsmmconv"] == xsmmconv.__version__
    assert printed["libxsmm"] == "1.17"


def test_import_brings_no_compiled_code():
    script = (
        "import sys, xsmmconv\n"
        "compiled = [name for name, module in sys.modules.items() if name.startswith('xsmmconv')\n"
        "            and getattr(module, '__file__', '').endswith('.so')]\n"
        "print(compiled)"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_another_processor_is_unsupported_with_the_first_call(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    x, weight = np.ones((1, 2, 1234), "f4"), np.ones((3, 2, 5), "f4")
    with pytest.raises(xsmmconv.UnsupportedError, match=r"x86-64.*AVX2.*aarch64"):
        xsmmconv.conv1d(x, weight)
    with pytest.raises(xsmmconv.UnsupportedError, match="aarch64"):
        xsmmconv.plan("forward", x.shape, weight.shape)
    assert "aarch64" in _config.configuration()["unsupported"]
    monkeypatch.undo()
    assert xsmmconv.conv1d(x, weight)[0, 0, 0] == 10  # the refusal was not remembered


def test_instruction_set_without_avx2_is_unsupported():
    script = (
        "import numpy as np, xsmmconv\n"
        "xsmmconv.show_config()\n"
        "try:\n"
        "    xsmmconv.conv1d(np.ones((1, 2, 9), 'f4'), np.ones((3, 2, 5), 'f4'))\n"
        "except xsmmconv.UnsupportedError as error:\n"
        "    print('raised', error)\n"
    )
    lines = subprocess.check_output(
        [sys.executable, "-c", script], text=True, env={**os.environ, "LIBXSMM_TARGET": "snb"}
    ).splitlines()
    assert lines[-1].startswith("raised")
    assert "AVX2" in lines[-1]
    assert lines[-1].removeprefix("raised ") in lines[-2]


def test_an_instruction_set_beyond_the_processor_is_unsupported():
    script = "import xsmmconv; xsmmconv.show_config()"
    shown = subprocess.check_output(
        [sys.executable, "-c", script], text=True, env={**os.environ, "LIBXSMM_TARGET": "cpx"}
    )
    lacks = "avx512_bf16" not in Path("/proc/cpuinfo").read_text().split()
    assert ("'cpx', which this processor cannot run" in shown) == lacks


def test_absurd_numbers_of_threads_are_capped():
    before = xsmmconv.get_num_threads()
    try:
        xsmmconv.set_num_threads(2**39)
        assert xsmmconv.get_num_threads() == _threads.MAX_THREADS
    finally:
        xsmmconv.set_num_threads(before)


@pytest.mark.parametrize("variable", ["1000000", "9" * 30])
def test_absurd_numbers_in_the_environment_are_capped(variable):
    script = "import xsmmconv; print(xsmmconv.get_num_threads())"
    shown = subprocess.check_output(
        [sys.executable, "-c", script], text=True, env={**os.environ, "OMP_NUM_THREADS": variable}
    )
    assert int(shown) == _threads.MAX_THREADS
