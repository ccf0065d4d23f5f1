"""Recycled memory: bounded, returned, and never handed out twice."""

import gc
import subprocess
import sys

import numpy as np

import xsmmconv
from xsmmconv import _memory

WEIGHT = np.ones((4, 4, 1), np.float32)


def large(value):
    return np.full((4, 4, 100_000), value, np.float32)


def test_results_that_are_alive_do_not_share_memory():
    x = large(1)
    kept = [xsmmconv.conv1d(x, WEIGHT * i) for i in range(6)]
    for i, result in enumerate(kept):
        assert result.flags.writeable
        assert result.flags.c_contiguous
        assert result.flags.aligned
        assert (result == 4 * i).all()
    for i, a in enumerate(kept):
        assert not any(np.shares_memory(a, b) for b in kept[:i])


def test_a_view_keeps_the_memory():
    x = large(1)
    view = xsmmconv.conv1d(x, WEIGHT)[1:2, 2:3, 5:50]
    memory = memoryview(xsmmconv.conv1d(x, WEIGHT * 2)[0, 0])
    for _ in range(5):
        xsmmconv.conv1d(x, WEIGHT * 7)
    assert (view == 4).all()
    assert set(memory.tolist()) == {8.0}


def test_memory_is_used_again():
    x = large(1)
    first = xsmmconv.conv1d(x, WEIGHT)
    address = first.ctypes.data
    del first
    gc.collect()
    assert xsmmconv.conv1d(x, WEIGHT).ctypes.data == address


def test_what_is_held_is_bounded():
    for width in range(1_000_000, 40_000_000, 3_000_000):
        _memory.empty((width,), np.dtype(np.float32))
        scratch, results = _memory.pooled_bytes()
        assert scratch <= 64 << 20
        assert results <= 512 << 20


IDLE = """
import time
import numpy as np

import xsmmconv
from xsmmconv import _memory

one = np.ones((1, 1, 1), np.float32)
x = np.ones((1, 1, 3_000_000), np.float32)
xsmmconv.conv1d(x, one)
assert _memory.pooled_bytes()[1] >= x.nbytes
time.sleep(5.5)
_memory.empty((1_000_000,), np.dtype(np.float32))
assert _memory.pooled_bytes()[1] < x.nbytes, _memory.pooled_bytes()
"""


def test_memory_goes_back_to_the_system():
    subprocess.run([sys.executable, "-c", IDLE], check=True, timeout=60)
