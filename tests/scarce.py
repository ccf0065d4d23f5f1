"""Calls that run out of memory at every place where they ask for some.

For a process of its own whose allocation can be told to fail (failing.c). A call is made with its
first request for memory refused, the next with its second, and so on until a call asks for no
more; the geometry is another each time, so that every call plans, and has kernels generated.
"""

import ctypes
import gc

import numpy as np

import xsmmconv
from xsmmconv import _plan

libc = ctypes.CDLL(None)
libc.fail.argtypes, libc.fail.restype = [ctypes.c_long] * 2, ctypes.c_long
libc.blocks.restype = ctypes.c_long


def grant_all():
    """End the refusals; returns how many were left. (To do so takes memory, too.)"""
    while True:
        try:
            return libc.fail(-1, 0)
        except Exception:
            pass


def operands(width):
    """By pass: the function, its arguments, and what it should return."""
    x, w = np.ones((3, 5, width), "f4"), np.ones((7, 5, 9), "f4")
    y = xsmmconv.reference.conv1d(x, w, stride=2).astype("f4")
    arguments = {
        "forward": ("conv1d", x, w),
        "backward_data": ("conv1d_backward_data", y, w, width),
        "backward_weight": ("conv1d_backward_weight", y, x, 9),
    }
    for pass_, (name, *of) in arguments.items():
        yield pass_, name, of, getattr(xsmmconv.reference, name)(*of, stride=2)


def sweep(attempts, refusals):
    """Refuse each request in turn to an attempt of `attempts` ({function: what it should return});
    returns how many failed."""
    failed = granted = left = 0
    while left < refusals:
        attempt, expected = next(attempts)
        error = None
        libc.fail(granted, refusals)
        try:
            attempt()
        except Exception as raised:
            error = raised
        left = grant_all()
        assert error is None or isinstance(error, MemoryError), f"{granted}: {error!r}"
        failed += error is not None
        np.testing.assert_array_equal(attempt(), expected)
        granted += 1
    return failed


def new_calls(pass_):
    for width in range(4000, 5000):
        ((name, of, expected),) = (rest for wanted, *rest in operands(width) if wanted == pass_)
        function = getattr(xsmmconv, name)
        yield lambda: function(*of, stride=2, threads=1), expected  # noqa: B023


def new_plans(pass_):
    """The same problem again and again, and nothing remembered."""
    problem = xsmmconv.plan(pass_, (3, 5, 4000), (7, 5, 9), stride=2).problem
    ((_, (a, b, *_), expected),) = (rest for wanted, *rest in operands(4000) if wanted == pass_)
    out = expected.astype("f4")

    def attempt():
        _plan.Plan(pass_, problem).run(a, b, None, False, out, 1)
        return out

    while True:
        yield attempt, expected


def repeated_call():
    """One call that is known: little more than the objects of the interpreter are asked for."""
    x, w = np.ones((3, 5, 4000), "f4"), np.ones((7, 5, 9), "f4")
    expected = xsmmconv.conv1d(x, w, stride=2, threads=1).copy()
    while True:
        yield lambda: xsmmconv.conv1d(x, w, stride=2, threads=1), expected


def objects(refusals):
    """With PYTHONMALLOC=malloc, where each object of Python is a request."""
    assert sweep(repeated_call(), refusals) >= 5


def main(refusals):
    for pass_ in _plan.PASSES:
        calls = new_calls(pass_)
        next(calls)[0]()  # what is imported and made once
        failed = sweep(calls, refusals)
        assert failed >= 5, f"{pass_}: only {failed} calls failed"
        sweep(new_plans(pass_), refusals)
        gc.collect()
        before = libc.blocks()
        failed = sweep(new_plans(pass_), refusals)
        gc.collect()
        more = libc.blocks() - before
        assert more < failed, f"{pass_}: {more} blocks more after {failed} failures"
        print(pass_, failed, more)
