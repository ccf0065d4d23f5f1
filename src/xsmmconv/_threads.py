"""How many threads a call uses: the process default, its limits, and what a fork does to it.

OpenMP's own variable is honoured, because that is where users and job schedulers set it. It is
read once, at import, as OpenMP does.
"""

import os

from xsmmconv import _problem

# More than any machine's cores; it keeps OMP_NUM_THREADS=1000000 from exhausting memory.
MAX_THREADS = 1024


def _from_environment():
    """OMP_NUM_THREADS (the outermost of a list) if it makes sense, else the CPUs allowed to us."""
    try:
        wanted = int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
    except ValueError:
        wanted = 0
    return wanted if wanted >= 1 else len(os.sched_getaffinity(0))


_limit = MAX_THREADS
_default = min(_from_environment(), _limit)


def _after_fork_in_child():
    # The parent's OpenMP worker threads do not exist here, and the runtime would wait for them.
    global _default, _limit
    _default = _limit = 1


os.register_at_fork(after_in_child=_after_fork_in_child)


def set_num_threads(n):
    """Set how many threads a call uses when it is not told by its own argument `threads`.

    The default holds for the whole process. It begins with the first number in OMP_NUM_THREADS, if
    that is a positive integer, else with the number of CPUs the process may run on. Results do not
    depend on it: they are bitwise the same for every number of threads.

    Parameters
    ----------
    n : int
        At least 1. More than 1024 count as 1024, and no call uses more than it has work for. A
        forked child process runs with one thread whatever is set, because OpenMP does not survive
        a fork.

    Raises
    ------
    TypeError
        If n is not an integer.
    ValueError
        If n is less than 1, or not less than 2**40.

    See Also
    --------
    get_num_threads

    Examples
    --------
    >>> import xsmmconv
    >>> before = xsmmconv.get_num_threads()
    >>> xsmmconv.set_num_threads(1)
    >>> xsmmconv.get_num_threads()
    1
    >>> xsmmconv.set_num_threads(before)
    """
    global _default
    _default = min(_problem.positive("n", n), _limit)


def get_num_threads():
    """Return how many threads a call may use when it is not told.

    Returns
    -------
    int
        The process default, see `set_num_threads`; 1 in a forked child process.

    Examples
    --------
    >>> import xsmmconv
    >>> xsmmconv.get_num_threads() >= 1
    True
    """
    return _default


def resolve(threads):
    """The number of threads that the argument `threads` of a call stands for."""
    if threads is None:
        return _default
    if type(threads) is int and 1 <= threads <= _limit:
        return threads
    return min(_problem.positive("threads", threads), _limit)
