"""Operands of a weight gradient whose k is rows of the batch; see _lower_batch.py."""
from libc.stdint cimport int64_t

from xsmmconv._pack cimport pack_ops_of, transpose_row_pairs
from xsmmconv._panel cimport Operand
from xsmmconv._weight_table cimport Table


cdef inline void pack_batch_lanes(const Table* t, const Operand* v, char* to, int64_t n,
                                  int64_t c0, int64_t lanes) noexcept nogil:
    """[position][batch row][lane], or [position][pair of batch rows][lane][2] of BF16."""
    cdef int64_t j, step = t.lane_positions.step * v.stride_w, count = t.lane_positions.count
    cdef int64_t column = t.nb * t.lb
    cdef const char* row = (v.data + n * v.stride_n + c0 * v.stride_c
                            + t.lane_positions.first * v.stride_w)
    if t.tiles[0].pairs:
        column = (t.nb + 1) // 2 * t.lb
        for j in range(0, t.nb, 2):
            transpose_row_pairs(to + j // 2 * t.lb * 4, column, row + j * v.stride_n,
                                row + (j + 1) * v.stride_n if j + 1 < t.nb else NULL, v.stride_c,
                                step, lanes, count)
        return
    for j in range(t.nb):
        t.ops.transpose(to + j * t.lb * t.ops.computed, column, row + j * v.stride_n, v.stride_c,
                        step, lanes, count)


cdef inline void pack_batch_rows(const Table* t, const Operand* v, char* to, int64_t n, int64_t c0,
                                 int64_t rows) noexcept nogil:
    """[row channel][position][batch row], an even number of these for pairs of BF16."""
    cdef int64_t i, step = t.row_positions.step * v.stride_w, count = t.row_positions.count
    cdef int64_t size = t.ops.computed, column = t.nb
    cdef const char* row = (v.data + n * v.stride_n + c0 * v.stride_c
                            + t.row_positions.first * v.stride_w)
    transpose = t.ops.transpose
    if t.tiles[0].pairs:
        transpose, size, column = pack_ops_of(3, True).transpose_out, 2, (t.nb + 1) // 2 * 2
    for i in range(rows):
        transpose(to + i * t.panel.row * size, column, row + i * v.stride_c, v.stride_n, step,
                  t.nb, count)
