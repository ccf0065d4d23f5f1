"""The exact tests again, on the instruction sets that this machine has beside its own.

LIBXSMM_TARGET lowers the instruction set that kernels are made for, once per process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from problems import TARGETS

HERE = Path(__file__).parent
SLICE = ["test_exact.py", "test_multiply_adds.py", "test_special.py::test_probes"]


def run(target, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "LIBXSMM_TARGET"}
    environment |= {"LIBXSMM_TARGET": target} if target else {}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target or "native")
def test_slice_of_the_suite(target):
    slice_ = [str(HERE / name) for name in SLICE]
    child = run(target, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--every=10", *slice_)
    assert child.returncode == 0, child.stdout[-4000:] + child.stderr[-1000:]


@pytest.mark.parametrize("target", [target for target in TARGETS if target])
def test_target_is_taken(target):
    # Otherwise the test above would say nothing about it.
    child = run(target, "-c", "import xsmmconv; xsmmconv.show_config()")
    assert target in child.stdout.split(), child.stdout + child.stderr
