"""LIBXSMM as a guest of the Python process: each patch, and each flag that matters, by its effect.

Every test fails if its patch is taken away. Code and state are looked at in a process of its own,
some of it after Python itself has ended: by C's exit handlers, which run in reverse order.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xsmmconv import _dispatch

DISPATCH = "from xsmmconv import _dispatch\nkernel = _dispatch.dispatch_gemm(32, 6, 8, 32, 8, 32)\n"

AT_EXIT = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
command = ctypes.c_void_p(libc.malloc(200))  # Python's own memory is gone by then
libc.__cxa_atexit(libc.system, command, None)  # first in, last out
"""


def run(code, **environment):
    """What a process prints that runs `code`, with nothing of LIBXSMM in its environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LIBXSMM_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    return done


def test_no_lock_file():
    code = "import os\nprint(*(os.readlink(f'/proc/self/fd/{n}') for n in range(3, 20) if "
    code += "os.path.exists(f'/proc/self/fd/{n}')))"
    assert ".libxsmm" not in run(f"{DISPATCH}\n{code}").stdout


@pytest.mark.parametrize("verbose", ["0", "1"])
def test_standard_input_is_open_to_the_end(verbose):
    code = "libc.strcpy(command, b'test -e /proc/$PPID/fd/0 && echo open')"
    assert run(f"{AT_EXIT}\n{code}\n{DISPATCH}", LIBXSMM_VERBOSE=verbose).stdout == "open\n"


def test_generated_code_stays_in_place_to_the_end():
    code = """
import pathlib
for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
    first, last = (int(end, 16) for end in line.split()[0].split("-"))
    if first <= kernel < last:
        area = f"{first:x}-{last:x}"
libc.strcpy(command, f"grep -c ^{area} /proc/$PPID/maps".encode())
"""
    assert run(f"{AT_EXIT}\n{DISPATCH}\n{code}").stdout == "1\n"


def test_the_summary_that_the_user_asks_for_is_printed():
    assert "LIBXSMM_TARGET" in run(DISPATCH, LIBXSMM_VERBOSE="1").stderr
    assert run(DISPATCH).stderr == ""


def test_the_environment_is_left_alone():
    code = "import ctypes\nprint(ctypes.CDLL(None).getenv(b'OMP_PROC_BIND'))"
    assert run(f"{DISPATCH}\n{code}").stdout == "0\n"


def test_refused_executable_memory_is_no_kernel_and_then_forgotten():
    code = """
import resource

def ask(k):
    try:
        return "kernel" if _dispatch.dispatch_gemm(32, 6, k, 32, k, 32) else "NULL"
    except MemoryError:
        return "refused"

ask(7)
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (1 << 20, hard))  # what is there stays, nothing comes to it
during = ask(9)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
print(during, ask(9), ask(10))
"""
    assert run(f"{DISPATCH}\n{code}").stdout == "refused kernel kernel\n"


def test_a_kernel_too_large_is_refused():
    code = """
from xsmmconv import UnsupportedError
try:
    _dispatch.dispatch_gemm(59, 5510, 46, 59, 46, 59, "bfloat16")
except UnsupportedError:
    print("refused")
"""
    assert run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET="skx").stdout == "refused\n"


@pytest.mark.parametrize("target", ["hsw", "skx", "cpx"])
def test_operands_may_overlap(target):
    dtypes = ["float32", "float64", "bfloat16"][: 2 if target == "hsw" else 3]
    code = f"""
for dtype in {dtypes}:
    for lda, ldb in (2, 8), (32, 2), (2, 2):
        _dispatch.dispatch_gemm(32, 6, 8, lda, ldb, 32, dtype)
"""
    run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET=target)  # a refusal is an exception


def test_small_kernels_have_the_vectors_of_the_instruction_set():
    code = """
import ctypes
for shape in (64, 15, 1), (4, 4, 8), (1, 6, 8):
    m, n, k = shape
    kernel = _dispatch.dispatch_gemm(m, n, k, 64, 8, 64)
    print(*shape, ctypes.string_at(kernel, 128).hex())
"""
    of_target = [run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET=t).stdout for t in ("hsw", "skx")]
    for narrow, wide in zip(*(lines.splitlines() for lines in of_target), strict=True):
        assert narrow != wide


def test_few_columns_are_fetched_along_their_rows():
    code = """
import ctypes
for k, lda in (4, 64), (16, 64), (17, 64), (64, 64), (31, 8), (51, 8):
    kernel = _dispatch.dispatch_gemm(64, 6, k, lda, 64, 64)
    print((448).to_bytes(4, "little") in ctypes.string_at(kernel, 512))
"""
    hsw, skx = (run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET=t).stdout.split() for t in ("hsw", "skx"))
    assert hsw == skx == ["True", "True", "False", "False", "True", "False"]


def lines_fetched(*dispatches, targets=("hsw", "skx")):
    """How many lines the code of each kernel names to be fetched for writing, for reading, and of
    these to L2 only."""
    code = rf"""
import ctypes, re
for arguments in {dispatches}:
    code = ctypes.string_at(_dispatch.dispatch_gemm(*arguments), 16384)
    code = code[: code.index(bytes.fromhex("415f415e415d415c5bc3"))]  # registers back, return
    hints = [modrm[0] >> 3 & 7 for modrm in re.findall(rb"\x0f\x18(.)", code, re.DOTALL)]
    print(code.count(bytes.fromhex("0f0d")), len(hints), hints.count(2))
"""
    of_target = (run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET=target).stdout for target in targets)
    return [[[*map(int, line.split())] for line in lines.splitlines()] for lines in of_target]


def test_results_are_fetched_while_they_are_computed():
    (*many, one), (*wide, wide_one) = lines_fetched(
        (64, 6, 64, 64, 64, 64),  # k in a loop, each time around one of the columns of C,
        (64, 6, 20, 64, 64, 64),  # unrolled, among its steps all six columns,
        (64, 6, 5, 8, 5, 64),  # few taps of many channels: before them
        (64, 6, 64, 64, 64, 64, "float32", 1),  # and C is read anyway
    )
    assert [written for written, *_ in many] == [2, 3 * 2, 3 * 2]
    assert [written for written, *_ in wide] == [4, 6 * 4, 6 * 4]
    assert one[0] == wide_one[0] == 0


def test_rounded_results_are_fetched_too():
    ((loop, unrolled),) = lines_fetched(  # two lines of 64 columns, here with steps of two
        (64, 6, 128, 64, 128, 64, "bfloat16 rounded"),
        (64, 6, 40, 64, 40, 64, "bfloat16 rounded"),
        targets=["cpx"],
    )
    assert loop[0] == 2
    assert unrolled[0] == 6 * 2


def test_the_next_rows_are_fetched_if_they_are_asked_for():
    shape = (32, 6, 64, 64, 64, 64, "float32", 0)
    of_target = lines_fetched(shape, (*shape, True))
    for (_, without, _), (_, ahead, to_l2) in of_target:
        assert ahead - without == 2 * (64 // 6)  # lines of 32 elements, of all columns in six goes
        assert to_l2 == ahead - without


def test_rows_that_are_read_once_are_fetched_to_l2():
    of_target = lines_fetched((64, 6, 16, 64, 16, 64), (64, 6, 16, 8, 16, 64))  # columns overlap
    for (_, apart, apart_l2), (_, overlapping, overlapping_l2) in of_target:
        assert apart == apart_l2 == overlapping > 0
        assert overlapping_l2 == 0


def test_columns_are_fetched_a_few_steps_before_they_are_used():
    code = """
import ctypes
for lda, ahead in (64, 8), (64, 16), (96, 8):
    kernel = _dispatch.dispatch_gemm(64, 6, 64, lda, 64, 64)
    print((lda * 4 * ahead + 60).to_bytes(4, "little") in ctypes.string_at(kernel, 512))
"""
    done = run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET="skx")
    assert done.stdout.split() == ["True", "False", "True"]


def test_few_rows_have_as_many_accumulators_as_many():
    code = """
import ctypes, re
fma = re.compile(rb"\\xc4[\\x02-\\xe2](.)\\xb8", re.DOTALL)  # VFMADD231 of YMM registers, packed
for dtype, vector in ("float32", 8), ("float64", 4):
    for m in (vector * vectors for vectors in range(1, 6)):
        code = ctypes.string_at(_dispatch.dispatch_gemm(m, 12, 1, m, 1, m, dtype), 4096)
        code = code[: code.index(bytes.fromhex("415f415e415d415c5bc3"))]
        print(sum(found[1][0] & 7 == 5 for found in fma.finditer(code)))
"""
    counted = run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET="hsw").stdout.split()
    assert counted == ["12", "12", "12", "12", "15"] * 2  # the fifth vector comes after four


def test_one_vector_of_rows_has_twenty_columns_at_most():
    code = """
import ctypes, re
fma = re.compile(rb"\\x62..[\\x58\\x59]\\xb8", re.DOTALL)  # VFMADD231PS with a broadcast operand
for n in 15, 20, 28, 30, 60:
    code = ctypes.string_at(_dispatch.dispatch_gemm(16, n, 1, 16, 1, 16), 4096)
    print(len(fma.findall(code[: code.index(bytes.fromhex("415f415e415d415c5bc3"))])))
"""
    counted = run(f"{DISPATCH}\n{code}", LIBXSMM_TARGET="skx").stdout.split()
    assert counted == ["15", "20", "14", "15", "20"]


def test_importing_does_not_initialise():
    done = run("from xsmmconv import _dispatch", LIBXSMM_VERBOSE="1")
    assert done.stderr == ""


def test_no_memory_is_locked():
    code = "print(*(line.split()[1] for line in open('/proc/self/status') if 'VmLck' in line))"
    assert run(f"{DISPATCH}\n{code}").stdout == "0\n"


def test_one_module_has_the_library_and_shows_nothing_of_it():
    modules = Path(_dispatch.__file__).parent.glob("*.so")
    assert [path for path in modules if b"LIBXSMM ERROR" in path.read_bytes()] == [
        Path(_dispatch.__file__)
    ]
    assert not hasattr(ctypes.CDLL(_dispatch.__file__), "libxsmm_init")
