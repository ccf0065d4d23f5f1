"""Runs problems with every array between two pages that may be neither read nor written.

Started by test_special.py in a process of its own, with one "dtype problem" per line of standard
input. Each case is announced before it runs, so that the last line of a crash names its cause.
"""

import ctypes
import mmap
import sys

import numpy as np
import problems

import xsmmconv
from xsmmconv import _text, reference

PAGE = mmap.PAGESIZE
PROT_NONE = 0  # not among the constants of mmap
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def pages(size):
    """Bytes between two guard pages, as few whole pages as hold `size`."""
    count = max(1, -(-size // PAGE))
    memory = np.frombuffer(mmap.mmap(-1, (count + 2) * PAGE), np.uint8)
    for guard in (0, count + 1):
        if _mprotect(memory.ctypes.data + guard * PAGE, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    return memory[PAGE:-PAGE]


def guarded(array, place):
    """A copy of the array that ends where the memory ends, or begins where it begins."""
    memory = pages(array.nbytes)
    memory = memory[: array.nbytes] if place == "begin" else memory[memory.size - array.nbytes :]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def check(problem, operation, dtype, place):
    first, second, bias = problems.integer_operands(problem, operation, dtype)
    exact = problems.call(reference, operation, problem, first, second)
    options = {"bias": guarded(bias, place)} if operation.takes_bias else {}
    out = guarded(problems.nan_filled(problem, operation, dtype), place)
    first, second = guarded(first, place), guarded(second, place)
    problems.call(xsmmconv, operation, problem, first, second, out=out, **options)
    expected = problems.rounded(problems.finish(exact, **options), dtype)
    problems.assert_equal(out, expected, problem, operation, dtype, place)


def touch_a_guard(offset):
    """Read one byte before (-1) or behind (+1) an array: this must kill the process."""
    array = guarded(np.zeros(PAGE, np.uint8), "begin")
    address = array.ctypes.data + (-1 if offset < 0 else array.nbytes)
    ctypes.string_at(address, 1)


def main():
    for line in sys.stdin:
        what, argument = line.split(maxsplit=1)
        if what == "touch":
            touch_a_guard(int(argument))
            continue
        problem = _text.parse(argument)
        for operation in problems.OPERATIONS:
            for place in ("begin", "end"):
                print(problem, operation, what, f"at the {place} of its pages", flush=True)
                check(problem, operation, np.dtype(what), place)
    print("all done")


if __name__ == "__main__":
    main()
