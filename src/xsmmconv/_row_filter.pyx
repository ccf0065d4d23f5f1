"""Engine 1 without matrices: each row of the source against the taps of one filter.

Depthwise convolutions, and those of a single channel and filter: forward, backward data and
transposed, with a stride of one. Rows are read and written where they lie.
"""
from libc.stdint cimport int64_t
from libc.string cimport memset
cimport cython
cimport numpy as cnp

from xsmmconv._memory cimport Packed, Scratch, operand
from xsmmconv._pack cimport copy_elements, filter_row_of, filter_row_t, pack_ops_of, row_filter
from xsmmconv._panel cimport Operand
from xsmmconv._team cimport team_of, team_run

from xsmmconv._dispatch import vector_bytes

cnp.import_array()


cdef struct Table:
    # The program: one routine and its extents.
    filter_row_t routine
    row_filter taps      # of any row
    int64_t rows         # of the output,
    int64_t together     # so many of an item
    int64_t groups
    int64_t count        # columns of a row,
    int64_t tile         # and of an item
    int64_t tiles
    int64_t first_tap    # of the weights: the last one in backward data,
    int64_t tap_step     # and 1 or -1
    int64_t item         # bytes of an element in the arrays,
    int64_t computed     # and of a sum
    int64_t weights      # bytes of a filter in the scratch memory


cdef struct Arrays:
    # The operands of one execution; strides in bytes.
    Operand source
    const char* weight   # the first that a row needs, and steps from one to the next
    int64_t weight_row
    int64_t weight_tap
    bint as_they_lie     # the weights of a row are neighbours, in the type of the sums
    const char* bias
    char* out
    bint relu
    bint in_place


cdef const char* copied(const Table* t, row_filter* taps, const char* row, int64_t stride,
                        int64_t start, int64_t end, char* to) noexcept nogil:
    """Copy what the columns of a tile read of a row with a stride to neighbours; returns where tap
    0 would find that of column 0. Taps that are far apart have a window each."""
    cdef int64_t j, lo, hi, at, width = t.tile, windows = taps.taps
    if taps.spacing < width:
        width, windows = width + (taps.taps - 1) * taps.spacing, 1
    else:
        taps.step = width * t.item
    for j in range(windows):
        at = start + taps.shift + j * taps.spacing  # the element where the window begins
        lo, hi = max(0, -at), min(width, taps.length - at)
        if windows > 1:
            hi = min(hi, end - start)
        if lo < hi:
            copy_elements(to + (j * width + lo) * t.item, row + (at + lo) * stride, stride, hi - lo,
                          t.item)
    return to - start * t.item


cdef int64_t run_item(const void* table, const void* arrays, int64_t index, char* scratch) \
        noexcept nogil:
    """A tile of some rows."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef row_filter taps = t.taps
    cdef int64_t first = index // t.tiles * t.together, r, work = 0
    cdef int64_t n = first // t.groups, c = first % t.groups
    cdef int64_t start = index % t.tiles * t.tile, end = min(start + t.tile, t.count)
    cdef char* weights = scratch + t.item  # behind a zero, and two zeros behind them
    cdef const char* row
    taps.weights, taps.bias, taps.relu = weights, NULL, v.relu
    memset(scratch, 0, t.weights)
    for r in range(first, min(first + t.together, t.rows)):
        if v.as_they_lie:
            taps.weights = v.weight + c * v.weight_row
        else:
            copy_elements(weights, v.weight + c * v.weight_row, v.weight_tap, taps.taps, t.item)
        if v.bias != NULL:
            taps.bias = v.bias + c * t.computed
        row = v.source.data + n * v.source.stride_n + c * v.source.stride_c
        if v.in_place:
            row += taps.shift * t.item
        else:
            row = copied(t, &taps, row, v.source.stride_w, start, end, scratch + t.weights)
        work += t.routine(v.out + r * t.count * t.item, row, &taps, start, end)
        c += 1
        if c == t.groups:
            n, c = n + 1, 0
    return work


@cython.final
cdef class RowFilter:
    """An immutable program of filtered rows, ready to be executed by any number of threads."""
    cdef Table t
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t scratch_bytes
    cdef readonly Py_ssize_t shared_bytes
    cdef int dtype

    def __init__(self, sh, bl, int dtype):
        """`dtype` is PACK_PAIRS where the processor multiplies BF16."""
        cdef Table* t = &self.t
        run = sh.phase.runs[0]
        self.dtype = dtype
        t.routine = filter_row_of(dtype, vector_bytes() == 64, run.spacing == 1)
        t.item, t.computed = sh.stored, sh.computed
        t.taps.taps, t.taps.step = len(run.taps), run.spacing * t.item
        t.taps.shift, t.taps.spacing, t.taps.length = run.shift, run.spacing, run.length
        t.taps.first, t.taps.end = bl.first, bl.end
        t.rows, t.groups, t.count = sh.N * sh.groups, sh.groups, sh.phase.count
        t.first_tap, t.tap_step = run.taps.start, run.taps.step
        t.tile, t.together = bl.tile, bl.rows
        t.tiles = (t.count + t.tile - 1) // t.tile
        t.weights = ((t.taps.taps + 3) * t.item + 63) // 64 * 64
        self.items = (t.rows + t.together - 1) // t.together * t.tiles
        self.scratch_bytes = t.weights + bl.copied * t.item
        self.shared_bytes = 0

    def pack(self, cnp.ndarray weight):
        """Nothing: the weights of a row are few."""
        return Packed(0)

    def run(self, cnp.ndarray source, cnp.ndarray weight, Packed packed, cnp.ndarray bias,
            bint relu, cnp.ndarray out, int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued."""
        cdef Table* t = &self.t
        cdef Arrays v
        cdef int64_t work
        cdef Scratch scratch
        v.source = operand(source, 1, pack_ops_of(self.dtype, vector_bytes() == 64))
        v.in_place = v.source.stride_w == t.item
        v.weight_row = cnp.PyArray_STRIDE(weight, 0)
        v.weight_tap = cnp.PyArray_STRIDE(weight, 2) * t.tap_step
        v.weight = <const char*> cnp.PyArray_DATA(weight) + t.first_tap * cnp.PyArray_STRIDE(weight, 2)
        v.as_they_lie = v.weight_tap == t.item == t.computed
        v.bias = NULL
        if bias is not None:
            v.bias = <const char*> cnp.PyArray_DATA(bias)
        v.out = <char*> cnp.PyArray_DATA(out)
        v.relu = relu
        threads = team_of(min(threads, self.items))
        scratch = Scratch(threads, self.scratch_bytes, 0)
        with nogil:
            work = team_run(run_item, t, &v, self.items, threads, scratch.memory, scratch.stride)
        return work
