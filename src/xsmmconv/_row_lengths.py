"""For which lengths of rows there are kernels: a length that is part of their code.

Rows are written in place, and short ones read in place by lists over taps, for a bounded number of
lengths, as kernels are never freed. Those of further lengths go through a panel and a compact tile.
"""

from __future__ import annotations

import os
import threading

MOST = 64
seen: set[int] = set()
_lock = threading.Lock()


def _renew_lock():
    # Another thread may have held it at the fork; in the child nobody would ever release it.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def may_depend_on(length: int) -> bool:
    with _lock:
        if length in seen or len(seen) < MOST:
            seen.add(length)
            return True
    return False


def forget() -> None:
    """Let kernels depend on the lengths of the next rows, as in a new process. For the benchmark:
    it has more problems than most processes."""
    with _lock:
        seen.clear()
