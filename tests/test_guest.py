"""A guest in the process: threads, forks, signals and the end of it."""

import signal
import time

import children
import pytest

LARGE = """
import os, signal, sys, threading, time
import numpy as np
import xsmmconv

x = np.ones((4, 64, 20_000), "f4")
w = np.ones((64, 64, 51), "f4")
small = np.ones((1, 1, 3), "f4")

def compute():  # some tenths of a second
    return xsmmconv.conv1d(x, w, threads=2)

def works():
    assert xsmmconv.conv1d(small, small, threads=2)[0, 0, 0] == 3
    assert compute()[0, 0, 0] == 64 * 51
"""

FORK_DURING_A_CALL = (
    LARGE
    + """
compute()
going = threading.Event()
stop = False

def caller():
    while not stop:
        going.set()
        compute()

thread = threading.Thread(target=caller)
thread.start()
statuses = set()
for _ in range(5):
    going.clear()
    going.wait()
    child = os.fork()
    if child == 0:
        works()
        os._exit(0)
    statuses.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop = True
thread.join()
works()
print(statuses)
"""
)

INTERRUPT = (
    LARGE
    + """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
compute()
print("ready", flush=True)
try:
    while True:
        compute()
except KeyboardInterrupt:
    works()
    print("interrupted")
"""
)

EXIT_DURING_A_CALL = (
    LARGE
    + """
going = threading.Event()

def caller():
    while True:
        going.set()
        compute()

compute()
threading.Thread(target=caller, daemon=True).start()
going.wait()
time.sleep(0.05)
print("exit", flush=True)
"""
)

SETTINGS = (
    LARGE
    + """
import faulthandler, locale
handler = lambda number, frame: None
faulthandler.enable()
signal.signal(signal.SIGUSR1, handler)

def settings():
    status = open("/proc/self/status").read().splitlines()
    libc = __import__("ctypes").CDLL(None)
    return {
        # Which signals are caught, ignored and blocked, but for the two that the C library keeps
        # for itself; the file mode mask.
        **{l.split(":")[0]: int(l.split()[1], 16) & ~(3 << 31)
           for l in status if l.startswith(("SigB", "SigP", "SigI", "SigC", "ShdPnd", "Umask"))},
        "handlers": [signal.getsignal(n) for n in signal.valid_signals() if n not in (32, 33)],
        "faulthandler": faulthandler.is_enabled(),
        "environment": dict(os.environ),
        "files": sorted(os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)),
        "rounding": libc.fegetround() if hasattr(libc, "fegetround") else None,
        "affinity": os.sched_getaffinity(0),
        "locale": locale.setlocale(locale.LC_ALL),
    }

before = settings()
works()
assert settings() == before
print(sys.stdin.read())
"""
)

LEFTOVERS = """
import glob, subprocess, sys
before = set(glob.glob("/tmp/.*xsmm*") + glob.glob("/dev/shm/*xsmm*"))
subprocess.run([sys.executable, "-c", "import numpy as np, xsmmconv; "
    "xsmmconv.conv1d(np.ones((1, 1, 3), 'f4'), np.ones((1, 1, 3), 'f4'))"], check=True)
print(set(glob.glob("/tmp/.*xsmm*") + glob.glob("/dev/shm/*xsmm*")) - before)
"""

SUBINTERPRETER = """
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
{first}
interpreters.run_string(interpreters.create(), '''
try:
    import numpy as np
    import xsmmconv
    one = np.ones((1, 1, 1), "f4")
    xsmmconv.conv1d(one, one)
except ImportError as error:
    print(error)
''')
"""


def test_fork_while_another_thread_computes():
    assert children.run(FORK_DURING_A_CALL) == "{0}\n"


def test_interrupted_by_the_user():
    child = children.start(INTERRUPT)
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    printed, complained = children.finish(child)
    assert (child.returncode, printed) == (0, "interrupted\n"), complained


def test_exit_while_a_thread_computes():
    assert children.run(EXIT_DURING_A_CALL) == "exit\n"


def test_signals_files_and_settings_are_untouched():
    child = children.start(SETTINGS)
    printed, complained = children.finish(child, "standard input is open")
    assert (child.returncode, printed) == (0, "standard input is open\n"), complained


def test_no_file_is_left():
    assert children.run(LEFTOVERS) == "set()\n"


@pytest.mark.parametrize(
    ("first", "reason"),
    [("", "main interpreter only"), ("import xsmmconv", "more than once per process")],
    ids=["alone", "beside the main one"],
)
def test_a_subinterpreter_is_refused(first, reason):
    # The second refusal is NumPy's.
    assert reason in children.run(SUBINTERPRETER.format(first=first))
