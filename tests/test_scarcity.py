"""Little memory, no executable memory, full tables, absurd numbers of threads."""

import os
import re
import subprocess
from pathlib import Path

import children
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def failing(tmp_path_factory):
    """A library that refuses memory when it is told to."""
    library = tmp_path_factory.mktemp("failing") / "failing.so"
    compiler = os.environ.get("CC", "cc").split()
    options = ["-shared", "-fPIC", "-O1", "-o", library, HERE / "failing.c", "-ldl"]
    subprocess.run([*compiler, *options], check=True)
    return str(library)


def test_every_request_for_memory_may_fail(failing):
    # 1: for a moment; 100: until long after the call has given up.
    script = "import scarce; scarce.main({})"
    for refusals in (1, 100):
        children.run(script.format(refusals), LD_PRELOAD=failing)


def test_no_memory_for_objects_of_python(failing):
    # Destructors, too, find none: not even for the traceback of their own errors.
    script = "import scarce; scarce.objects({})"
    for refusals in (1, 30, 300):
        children.run(script.format(refusals), LD_PRELOAD=failing, PYTHONMALLOC="malloc")


FIRST_CALL = """
import ctypes
import numpy as np
import xsmmconv
from xsmmconv import _call, _correlate  # an import that fails has errors of its own

libc = ctypes.CDLL(None)
for granted in range(4):
    libc.fail(granted, 10)
    try:
        xsmmconv.conv1d(np.ones((1, 2, 3), "f4"), np.ones((1, 2, 2), "f4"))
    except MemoryError as error:
        libc.fail(-1, 0)
        print(error)
    libc.fail(-1, 0)
print(xsmmconv.conv1d(np.ones((1, 2, 3), "f4"), np.ones((1, 2, 2), "f4")).tolist())
"""


def test_the_library_may_fail_to_start(failing):
    said = children.run(FIRST_CALL, LD_PRELOAD=failing).splitlines()
    assert "no memory for LIBXSMM's code registry" in said
    assert said[-1] == "[[[4.0, 4.0]]]"


LIMIT = """
import os, resource, threading
import numpy as np
import xsmmconv

x, w = np.ones((2, 16, 20000), "f4"), np.ones((16, 16, 9), "f4")
out = xsmmconv.conv1d(x, w, threads=1)
expected = out.copy()
present = []

def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def limited(room):
    resource.setrlimit(resource.RLIMIT_AS, (size() + room, -1))
    try:
        xsmmconv.conv1d(x, w, out=out, threads=8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    present.append(len(os.listdir("/proc/self/task")))
    np.testing.assert_array_equal(out, expected)

# Every Python thread has a team of its own, for which the OpenMP runtime creates threads.
for room in range(0, 100 << 20, 1 << 20):
    thread = threading.Thread(target=limited, args=(room,))
    thread.start()
    thread.join()
print(len(present), present[0], present[-1])
"""


def test_fewer_threads_where_there_is_no_memory_for_more():
    # The OpenMP runtime would end the process.
    calls, first, last = map(int, children.run(LIMIT).split())
    assert calls == 100
    assert first < last
    assert last >= 1 + 8  # the main thread, and the caller with its seven


REFUSED = """
import errno, mmap
import numpy as np
import refusing
import xsmmconv

one = np.ones((2, 2, 3), "f4")
assert xsmmconv.conv1d(one, one)[0, 0, 0] == 6
refusing.refuse(refusing.{call}, mmap.PROT_EXEC, errno.EACCES)
for _ in range(2):
    try:
        xsmmconv.conv1d(np.ones((1, 2, 300), "f4"), one)
    except xsmmconv.UnsupportedError as error:
        print(error)
assert xsmmconv.conv1d(one, one)[0, 0, 0] == 6  # its kernel is there
"""


@pytest.mark.parametrize("call", ["MMAP", "MPROTECT"])
def test_refused_executable_memory(call):
    said = children.run(REFUSED.format(call=call)).splitlines()
    # LIBXSMM does without mprotect: what it gets from mmap is executable.
    assert len(said) == (2 if call == "MMAP" else 0)
    for line in said:
        assert "refused executable memory (Permission denied)" in line


NO_FILES = """
import errno, os
import numpy as np
import refusing

refusing.refuse(refusing.OPENAT, os.O_WRONLY | os.O_RDWR | os.O_CREAT, errno.EROFS)
for folder in ("/tmp", os.path.expanduser("~"), "."):
    try:
        open(folder + "/x", "w")
    except OSError as error:
        assert error.errno == errno.EROFS
    else:
        raise AssertionError("a file could be written")
import xsmmconv
x, w = np.ones((2, 16, 20000), "f4"), np.ones((16, 16, 9), "f4")
print(xsmmconv.conv1d(x, w, threads=2).max())
"""


def test_no_file_can_be_written():
    assert children.run(NO_FILES) == "144.0\n"


MANY_WIDTHS = """
import numpy as np
import xsmmconv
from xsmmconv import _call, _dispatch, _memory, _plan

x, dy = np.ones((1, 2, 100_010), "f4"), np.ones((1, 3, 100_010), "f4")
w = np.ones((3, 2, 5), "f4")

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def widths(first, count):
    for width in range(first, first + count):
        if width % 3 == 0:
            xsmmconv.conv1d(x[..., :width], w, padding=2)
        elif width % 3 == 1:
            xsmmconv.conv1d_backward_data(dy[..., :width], w, width, padding=2)
        else:
            xsmmconv.conv1d_backward_weight(dy[..., :width], x[..., :width], 5, padding=2)
    return _dispatch.registry_info()["kernels"], resident()

kernels, size = widths(10, {few})  # as many as fill the tables
more, larger = widths(10 + {few}, {many})
print(f"{few} widths: {{kernels}} kernels, {{size >> 20}} MB; {many} more: {{more}} kernels, "
      f"{{larger >> 20}} MB, plans {{_plan.cache_info()}}, calls {{_call.cache_info()}}, "
      f"pooled {{_memory.pooled_bytes()}}")
assert more <= 16_384, more  # an eighth of the registry
assert larger <= size + (64 << 20), (size, larger)
for held, most in (_plan.cache_info(), _call.cache_info()):
    assert held <= most
"""


@pytest.mark.parametrize(
    ("few", "many"), [(1100, 300), pytest.param(4000, 96_000, marks=pytest.mark.slow)]
)
def test_kernels_and_plans_do_not_grow_with_the_number_of_widths(few, many):
    print(children.run(MANY_WIDTHS.format(few=few, many=many), seconds=3600))


@pytest.mark.parametrize("threads", ["1000000", "99999999999999999999", "-3", "0"])
def test_absurd_numbers_of_threads_in_the_environment(threads):
    script = """
import numpy as np
import xsmmconv
assert 1 <= xsmmconv.get_num_threads() <= 1024
x, w = np.ones((2, 16, 20000), "f4"), np.ones((16, 16, 9), "f4")
print(xsmmconv.conv1d(x, w).max(), xsmmconv.conv1d(x, w, threads=2**39).max())
"""
    assert children.run(script, OMP_NUM_THREADS=threads) == "144.0 144.0\n"


FULL = """
import itertools
import numpy as np
import xsmmconv
from xsmmconv import _dispatch

x, w = np.ones((1, 1, 300), "f4"), np.ones((1, 1, 3), "f4")
before = xsmmconv.conv1d(x, w)
try:
    for ldc in itertools.count(1):
        _dispatch.dispatch_gemm(1, 1, 1, 1, 1, ldc)
except xsmmconv.UnsupportedError:
    pass
np.testing.assert_array_equal(xsmmconv.conv1d(x, w), before)  # its kernels are there
try:
    xsmmconv.conv1d(np.ones((3, 7, 1234), "f4"), np.ones((5, 7, 11), "f4"))
except xsmmconv.UnsupportedError as error:
    print(error)
print(_dispatch.registry_info())
"""


@pytest.mark.slow
def test_a_full_registry_is_named_and_what_is_in_it_works():
    error, info = children.run(FULL, seconds=3600).splitlines()
    assert re.search(r"\((1310\d\d) of 131072 kernels registered\)", error), error
    assert "131072" in info
