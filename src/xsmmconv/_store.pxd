"""The results of engine 1: from its tiles of sums to the rows of the user's array."""
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from xsmmconv._correlate_table cimport Arrays, Table
from xsmmconv._pack cimport interleave, interleave_rounded, transpose_rounded


cdef inline void store_tile(const Table* t, const Arrays* v, int64_t step, char* out,
                            const char* result, int64_t ldc, int64_t width, int64_t first_filter,
                            int64_t filters) noexcept nogil:
    """Finish the rows of a tile: bias, ReLU, rounding, and the step of its phase."""
    cdef int64_t k, size = t.source_ops.computed, stored = t.out_ops.stored
    cdef const char* bias
    for k in range(filters):
        bias = v.bias + (first_filter + k) * size if v.bias != NULL else NULL
        t.out_ops.store(out + k * t.out_width * stored, step * stored,
                        result + k * ldc * size, width, bias, v.relu)


cdef inline void store_phases(const Table* t, const Arrays* v, char* out, char* rows,
                              int64_t m0, int64_t first_filter, int64_t filters) noexcept nogil:
    """The same for a chunk of all phases."""
    cdef int64_t k, p, size = t.source_ops.computed, stored = t.out_ops.stored
    cdef int64_t step = max(t.n_phases, t.merged), filter_bytes = t.chunk * t.merged * size
    cdef int64_t whole = min(t.chunk, t.phases[t.n_phases - 1].count - m0), rest
    cdef int64_t phase_bytes = (t.kb if t.merged == 1 else 1) * t.chunk * size
    cdef const char* bias
    cdef const char* row
    cdef char* to
    cdef char* line = rows + t.kb * t.chunk * t.n_phases * size
    cdef bint bare = v.bias == NULL and not v.relu
    cdef bint plain = bare and t.out_ops == t.computed_ops
    cdef bint pairs = bare and step == 2 and t.out_ops.stored == 2
    for k in range(filters):
        bias = v.bias + (first_filter + k) * size if v.bias != NULL else NULL
        row = rows + k * filter_bytes
        to = out + (k * t.out_width + m0 * step) * stored
        if pairs:
            interleave_rounded(to, row, phase_bytes, whole, t.computed_ops)
        else:
            interleave(to if plain else line, row, phase_bytes, step, whole, t.computed_ops)
        if not plain and not pairs:
            t.out_ops.store(to, stored, line, whole * step, bias, v.relu)
        for p in range(step if t.merged == 1 else 0):  # the first phases may have a column more
            rest = min(t.chunk, t.phases[p].count - m0) - whole
            if rest > 0:
                t.out_ops.store(to + (whole * step + p) * stored, step * stored,
                                row + p * phase_bytes + whole * size, rest, bias, v.relu)


cdef inline void store_columns(const Table* t, const Arrays* v, int64_t step, char* out,
                               const char* matrix, int64_t column, char* rows, int64_t ldc,
                               int64_t width, int64_t first_filter, int64_t filters) noexcept nogil:
    """The same for a row of the batch whose sums are a matrix of columns x filters, `column` bytes
    from column to column, to be transposed. `rows` has room for that, `ldc` elements a row."""
    cdef int64_t size = t.source_ops.computed
    if v.bias == NULL and not v.relu and step == 1:
        t.out_ops.transpose_out(out, t.out_width, matrix, column, size, width, filters)
    else:
        t.computed_ops.transpose(rows, ldc, matrix, column, size, width, filters)
        store_tile(t, v, step, out, rows, ldc, width, first_filter, filters)


cdef inline void store_lanes(const Table* t, const Arrays* v, int64_t step, char* out,
                             char* compact, int64_t width, int64_t first_filter,
                             int64_t filters) noexcept nogil:
    """The same for a tile with filters in the lanes, and all rows of the batch."""
    cdef int64_t j, size = t.source_ops.computed, column = t.nb * t.kb * size
    cdef int64_t batch = t.groups * t.K * t.out_width * t.out_ops.stored
    cdef int64_t ldc = t.tile * t.lane_step
    cdef char* rows = compact + ldc * column
    for j in range(t.nb):
        if t.pair_lanes and v.bias == NULL and not v.relu and step == 1 and (
                t.out_width % 2 == width % 2 == 0):
            transpose_rounded(out, t.out_width, compact, width, filters)
        else:
            store_columns(t, v, step, out + j * batch, compact + j * t.kb * size, column, rows, ldc,
                          width, first_filter, filters)


cdef inline void store_lane_phases(const Table* t, const Arrays* v, char* out, char* compact,
                                   int64_t first_filter, int64_t filters) noexcept nogil:
    """The same for all phases of whole rows: their columns are brought into the order of the row,
    and then transposed."""
    cdef int64_t j, p, m, size = t.source_ops.computed, column = t.kb * size
    cdef int64_t batch = t.groups * t.K * t.out_width * t.out_ops.stored
    cdef const char* tile
    cdef char* matrix = compact + t.n_phases * t.tile * t.nb * column
    for j in range(t.nb):
        tile = compact + j * column
        for p in range(t.n_phases):
            for m in range(t.phases[p].count):
                memcpy(matrix + (p + m * t.n_phases) * column, tile + m * t.nb * column, column)
            tile += t.tile * t.nb * column
        store_columns(t, v, 1, out + j * batch, matrix, column, matrix + t.out_width * column,
                      t.out_width, t.out_width, first_filter, filters)


cdef inline void fill_row(const Table* t, const Arrays* v, int64_t row) noexcept nogil:
    """Store what a row of the output holds where no tap reaches it."""
    cdef char[2048] zeros
    cdef int64_t done = 0, part, stored = t.out_ops.stored
    cdef const char* bias = NULL
    if v.bias != NULL:
        bias = v.bias + row % (t.groups * t.K) * t.out_ops.computed
    memset(zeros, 0, sizeof(zeros))
    while done < t.out_width:
        part = min(256, t.out_width - done)
        t.out_ops.store(v.out + (row * t.out_width + done) * stored, stored, zeros, part, bias,
                        v.relu)
        done += part
