"""Python code in a process of its own, for tests of what a process can do only once."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def start(script, **environment):
    """Start it with these variables; a variable that is None is taken away."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    variables.pop("OMP_NUM_THREADS", None)
    variables |= environment
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={name: value for name, value in variables.items() if value is not None},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child, given=None, seconds=300):
    """Wait for its end, and return what it printed and what it complained of."""
    with child:  # also one that was killed is waited for, and its pipes are closed
        try:
            return child.communicate(given, timeout=seconds)
        finally:
            child.kill()


def run(script, seconds=300, **environment):
    """Run it to its end, which must be a good one and come soon; return what it printed."""
    child = start(script, **environment)
    printed, complained = finish(child, seconds=seconds)
    assert child.returncode == 0, (
        f"status {child.returncode}\n{printed[-1000:]}{complained[-3000:]}"
    )
    return printed
