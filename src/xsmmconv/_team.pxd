"""Declarations of the routines in _team.h, where they are described."""
from libc.stdint cimport int64_t

cdef extern from "_team.h" nogil:
    ctypedef int64_t (*team_item)(const void* table, const void* arrays, int64_t item,
                                  char* scratch) noexcept nogil
    int team_of(int wanted)
    int64_t team_run(team_item run, const void* table, const void* arrays, int64_t items,
                     int threads, char* scratch, int64_t stride)
