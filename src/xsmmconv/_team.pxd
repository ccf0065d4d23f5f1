"""Declarations of the routines in _team.h, where they are described."""
from libc.stdint cimport int64_t

cdef extern from "_team.h" nogil:
    ctypedef struct team_share:
        pass
    enum:
        TEAM_SHARES
    int team_of(int wanted)
    void team_divide(team_share* shares, int64_t items, int threads)
    int64_t team_next(team_share* shares, int me)
