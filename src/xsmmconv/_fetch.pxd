"""What engine 1 brings to L2 while it computes: some lines before every call of a kernel.

A panel that is copied when it is needed waits for memory, and nothing is computed meanwhile. The
processor can have a few dozen lines under way, so these are asked for a few at a time.
"""
from libc.stdint cimport int64_t

from xsmmconv._correlate_table cimport Arrays, Table
from xsmmconv._pack cimport rows_ahead


cdef struct Place:
    # What an item computes: batch rows from n on, a group, columns from m0 on, a share of filters.
    int64_t n
    int64_t g
    int64_t m0
    int64_t part


cdef inline Place place_of(const Table* t, const Arrays* v, int64_t item) noexcept nogil:
    cdef Place place
    place.m0 = item % t.chunks * t.chunk
    item //= t.chunks
    place.part = item % v.k_parts
    item //= v.k_parts
    place.g, place.n = item % t.groups, item // t.groups * t.nb
    return place


cdef inline rows_ahead rows_after(const Table* t, const Arrays* v, int64_t item) noexcept nogil:
    """What the next item copies to the panel, except what this one has read."""
    cdef rows_ahead ahead
    cdef Place here, there
    cdef int64_t lo, hi
    ahead.lines = ahead.done = 0
    if t.lines == 0 or v.source.stride_w != v.source.ops.stored:
        return ahead
    here, there = place_of(t, v, item), place_of(t, v, item + 1)
    lo = max(0, there.m0 * t.planes + t.reads_from)
    hi = min(v.source.width, there.m0 * t.planes + t.reads_to)
    if there.n >= t.N:
        return ahead
    if there.n == here.n and there.g == here.g and there.m0 > here.m0:
        lo = max(lo, here.m0 * t.planes + t.reads_to)
    ahead.read = (v.source.data + there.n * v.source.stride_n
                  + there.g * t.channels * v.source.stride_c + lo * v.source.stride_w)
    ahead.lines, ahead.width = t.lines * v.k_parts, (hi - lo) * v.source.stride_w
    ahead.rows, ahead.read_stride = t.channels, v.source.stride_c
    return ahead


cdef inline rows_ahead rows_written(const Table* t, char* out, int64_t m0, int64_t filters) \
        noexcept nogil:
    """Where a block writes its rows when all phases of the chunk are computed."""
    cdef int64_t step = max(t.n_phases, t.merged), stored = t.out_ops.stored
    cdef rows_ahead ahead
    ahead.read, ahead.read_stride = out + m0 * step * stored, t.out_width * stored
    ahead.width = min(t.chunk * step, t.out_width - m0 * step) * stored
    ahead.lines, ahead.rows, ahead.done = t.out_lines, filters, 0
    return ahead
