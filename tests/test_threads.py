"""Concurrent calls, forks, and how many threads a call uses."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import children
import numpy as np
import problems
import pytest
from problems import BACKWARD_DATA, FORWARD, OPERATIONS, assert_bitwise_equal, call, real_operands

import xsmmconv
from xsmmconv import _text

MIXED = problems.CORPUS[::13]


def functions(problem, operation, dtype):
    """What computes one result: the public function and, where there can be one, a layer."""
    first, second = real_operands(problem, operation, dtype)[:2]
    yield partial(call, xsmmconv, operation, problem, first, second)
    if operation in (FORWARD, BACKWARD_DATA):
        layer = xsmmconv.Conv1d(second, **problem.parameters)
        more = () if operation is FORWARD else (problem.W,)
        yield partial(layer if operation is FORWARD else layer.backward_data, first, *more)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_sixteen_callers_get_what_one_gets(threads):
    # All callers go through the same cases, each beginning at another, so that they meet
    # on one plan or layer now and then and disturb each other's scratch memory if they can.
    cases = [
        ((problem, operation, dtype), function)
        for number, problem in enumerate(MIXED)
        for operation in OPERATIONS
        for dtype in [problems.DTYPES[number % 3]]
        for function in functions(problem, operation, dtype)
    ]
    expected = [function(threads=1) for _, function in cases]
    start = threading.Barrier(16)

    def caller(first):
        start.wait()
        for number in range(len(cases)):
            number = (number + first * len(cases) // 16) % len(cases)
            case, function = cases[number]
            assert_bitwise_equal(function(threads=threads), expected[number], *case)

    with ThreadPoolExecutor(16) as pool:
        for finished in [pool.submit(caller, first) for first in range(16)]:
            finished.result()


def test_callers_of_one_problem_at_the_same_time():
    # A problem nobody has planned before: its kernels are made while others ask for them.
    problem = _text.parse("n2c13k11s7st3d2pl5pr9w1013")
    operands = {o: real_operands(problem, o, np.dtype(np.float32))[:2] for o in OPERATIONS}
    start = threading.Barrier(16)

    def caller(_):
        start.wait()
        return [call(xsmmconv, o, problem, *operands[o]) for o in OPERATIONS]

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(caller, range(16)))
    for result in results[1:]:
        for operation, got, expected in zip(OPERATIONS, result, results[0], strict=True):
            assert_bitwise_equal(got, expected, problem, operation)


def test_other_threads_run_during_a_call():
    # Python is told never to take the lock away from a thread: only the call can give it up.
    # Ten steps in one call: the checks of arguments may give it up for a moment, too.
    x, weight = np.ones((1, 16, 60000), "f4"), np.ones((16, 16, 51), "f4")
    out = np.empty((1, 16, 59950), "f4")
    steps = 0
    done = threading.Event()

    def step():
        nonlocal steps
        while not done.wait(1e-4):
            steps += 1

    interval = sys.getswitchinterval()
    other = threading.Thread(target=step)
    sys.setswitchinterval(1000)
    try:
        other.start()
        for _ in range(200):
            before = steps
            xsmmconv.conv1d(x, weight, out=out, threads=1)
            if steps >= before + 10:
                break
        else:
            pytest.fail("no other Python thread could run during any of 200 calls")
    finally:
        sys.setswitchinterval(interval)
        done.set()
        other.join()


def last_line(script, **environment):
    return children.run(script, **environment).splitlines()[-1]


FORK = """
import os, threading
import numpy as np
import xsmmconv

rng = np.random.default_rng(1)
x, weight = rng.standard_normal((4, 15, 5000), "f4"), rng.standard_normal((15, 15, 51), "f4")

def everything(threads):
    y = xsmmconv.conv1d(x, weight, dilation=8, threads=threads)
    dx = xsmmconv.conv1d_backward_data(y, weight, 5000, dilation=8, threads=threads)
    dw = xsmmconv.conv1d_backward_weight(y, x, 51, dilation=8, threads=threads)
    return b"".join(result.tobytes() for result in (y, dx, dw))

expected = everything(2)  # the threads of the parent exist before the fork
"""

FORK_ONCE = (
    FORK
    + """
child = os.fork()
if child == 0:
    os._exit(0 if everything(2) == everything(1) == everything(None) == expected else 1)
_, status = os.waitpid(child, 0)
assert everything(2) == expected
print("child", os.waitstatus_to_exitcode(status))
"""
)

FORK_POOL = (
    FORK
    + """
import multiprocessing

with multiprocessing.get_context("fork").Pool(3) as pool:
    results = pool.map(everything, [1, 2, None, 2, 1, 7])
print("pool", all(result == expected for result in results), len(results))
"""
)

FORK_IN_FORK = (
    FORK
    + """
child = os.fork()
if child == 0:
    everything(2)
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if everything(2) == expected else 1)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
print("grandchild", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
)


@pytest.mark.parametrize(
    ("script", "says"),
    [(FORK_ONCE, "child 0"), (FORK_POOL, "pool True 6"), (FORK_IN_FORK, "grandchild 0")],
    ids=["fork", "pool", "fork in fork"],
)
def test_a_forked_child_computes_the_same(script, says):
    assert last_line(script) == says


ASK = "import xsmmconv; print(xsmmconv.get_num_threads())"


@pytest.mark.parametrize(
    ("variable", "expected"), [("1", 1), ("3", 3), ("5,2", 5), (" 4 ", 4), ("64", 64)]
)
def test_default_is_the_first_number_of_the_variable(variable, expected):
    assert last_line(ASK, OMP_NUM_THREADS=variable) == str(expected)


@pytest.mark.parametrize("variable", ["", "0", "-2", "many", "2.5"])
def test_nonsense_in_the_variable_is_ignored(variable):
    assert last_line(ASK, OMP_NUM_THREADS=variable) == str(len(os.sched_getaffinity(0)))


def test_default_is_the_cpus_of_the_process():
    assert last_line(ASK) == str(len(os.sched_getaffinity(0)))
    one = min(os.sched_getaffinity(0))
    assert last_line(f"import os; os.sched_setaffinity(0, [{one}]); {ASK}") == "1"


@pytest.mark.parametrize("kind", [int, np.int64])
def test_set_num_threads_holds_for_all_python_threads(kind):
    before = xsmmconv.get_num_threads()
    try:
        for n in (1, 2, 5):
            assert xsmmconv.set_num_threads(kind(n)) is None
            assert xsmmconv.get_num_threads() == n
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(xsmmconv.get_num_threads).result() == n
        pool = ThreadPoolExecutor(1)
        pool.submit(xsmmconv.set_num_threads, kind(3)).result()
        pool.shutdown()
        assert xsmmconv.get_num_threads() == 3
    finally:
        xsmmconv.set_num_threads(before)


def test_threads_of_a_call_leave_the_default_alone():
    before = xsmmconv.get_num_threads()
    x, weight = np.ones((2, 3, 40), "f4"), np.ones((4, 3, 3), "f4")
    for threads in (1, 2, 100, 10**6, np.int32(2)):
        y = xsmmconv.conv1d(x, weight, threads=threads)
        np.testing.assert_array_equal(y, np.full((2, 4, 38), 9))
        assert xsmmconv.get_num_threads() == before
