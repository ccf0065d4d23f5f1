"""Backward data for few channels: all taps in one matrix product, whose rows are folded.

An item is a row of the batch and a group. Chunk by chunk, what its positions are multiplied to is
added to the columns that the taps reach, which are kept by residue class of the stride; columns
that no later position reaches are stored.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memmove, memset
cimport cython
cimport numpy as cnp

from xsmmconv._kernel cimport kernel_t
from xsmmconv._memory cimport Packed, Scratch, copy_rows, operand
from xsmmconv._pack cimport add_up, interleave, pack_ops, pack_ops_of
from xsmmconv._panel cimport Operand, Panel, Window, pack_panel
from xsmmconv._team cimport team_of, team_run

from xsmmconv._dispatch import vector_bytes

cnp.import_array()


cdef struct Call:
    kernel_t kernel
    int64_t work
    int64_t a
    int64_t b
    int64_t c


cdef struct Sum:
    int64_t tap
    int64_t taps
    int64_t at
    int64_t width


cdef struct Tile:
    int64_t first_call
    int64_t calls
    int64_t first_sum
    int64_t sums


cdef struct Segment:
    int64_t start
    int64_t width
    int64_t count
    int64_t tile


cdef struct Tap:
    int64_t residue
    int64_t distance     # from a position to the column of the class that it is added to


cdef struct Table:
    Call* calls
    Sum* sums
    Tile* tiles
    Segment* segments
    Tap* taps
    Panel panel
    int64_t n_segments
    int64_t groups
    int64_t filters      # of a group
    int64_t channels
    int64_t S
    int64_t W
    int64_t s
    bint packed          # a chunk is copied
    int64_t chunk
    int64_t window       # columns of a class
    int64_t least        # distance of the first tap's columns
    int64_t most
    int64_t weight_row   # elements as the kernels read them,
    int64_t weight_item  # and their bytes
    int64_t panel_bytes
    int64_t product_bytes
    int64_t window_bytes
    const pack_ops* ops  # of the user's arrays
    const pack_ops* computed_ops


cdef struct Arrays:
    Operand source
    const char* weight   # packed
    const char* bias
    char* out
    int relu


cdef void store_columns(const Table* t, const Arrays* v, char* out, int64_t row, char* window,
                        char* line, int64_t base, int64_t end) noexcept nogil:
    """Columns [base, end) of all classes, of which the first ones may have one more; those after
    them move to the front of the window."""
    cdef int64_t k, p, size = t.computed_ops.computed, stored = t.ops.stored
    cdef int64_t whole = min(end, t.W // t.s) - base, class_bytes = t.window * size
    cdef int64_t left = max(0, t.window - (end - base))
    cdef const char* bias
    cdef char* to
    cdef char* sums
    for k in range(t.channels):
        bias = v.bias + (row % (t.groups * t.channels) + k) * size if v.bias != NULL else NULL
        to = out + ((row + k) * t.W + base * t.s) * stored
        sums = window + k * t.s * class_bytes
        if whole > 0 and t.s == 1:
            t.ops.store(to, stored, sums, whole, bias, v.relu)
        elif whole > 0:
            interleave(line, sums, class_bytes, t.s, whole, t.computed_ops)
            t.ops.store(to, stored, line, whole * t.s, bias, v.relu)
        for p in range(t.W % t.s if end > t.W // t.s else 0):
            t.ops.store(to + (whole * t.s + p) * stored, stored,
                        sums + p * class_bytes + whole * size, 1, bias, v.relu)
        for p in range(t.s):
            memmove(sums + p * class_bytes, sums + p * class_bytes + (end - base) * size,
                    left * size)
            memset(sums + p * class_bytes + left * size, 0, class_bytes - left * size)


cdef void add_rows(const Table* t, const Tile* tile, const char* products, char* window,
                   int64_t shift) noexcept nogil:
    """Add what a chunk has been multiplied to; `shift` is its position less the window's first."""
    cdef int64_t i, k, j, size = t.computed_ops.computed
    cdef const Sum* part
    cdef const Tap* tap
    for i in range(tile.sums):
        part = &t.sums[tile.first_sum + i]
        for k in range(t.channels):
            for j in range(part.tap, part.tap + part.taps):
                tap = &t.taps[j]
                add_up(window + ((k * t.s + tap.residue) * t.window + shift + part.at
                                 + tap.distance) * size,
                       products + ((k * t.S + j) * t.chunk + part.at) * size, part.width, size)


cdef int64_t run_item(const void* table, const void* arrays, int64_t item, char* scratch) \
        noexcept nogil:
    """A row of the batch and a group."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t n = item // t.groups, g = item % t.groups, row = item * t.channels
    cdef int64_t i, j, a, s, end, base = 0, work = 0, all = (t.W + t.s - 1) // t.s
    cdef char* products = scratch + t.panel_bytes
    cdef char* window = products + t.product_bytes
    cdef char* line = window + t.window_bytes
    cdef const char* rows = scratch
    cdef const char* weight = v.weight + g * t.channels * t.S * t.weight_row * t.weight_item
    cdef unsigned long long count = 1, offset = 0
    cdef Segment* seg
    cdef Tile* tile
    cdef Call* call
    memset(window, 0, t.window_bytes)
    for s in range(t.n_segments):
        seg = &t.segments[s]
        tile = &t.tiles[seg.tile]
        for i in range(seg.count):
            a = seg.start + i * seg.width
            if min(all, a + seg.width + t.most) > base + t.window:
                end = min(all, max(base, a + t.least))
                store_columns(t, v, v.out, row, window, line, base, end)
                base = end
            if t.packed:
                pack_panel(&t.panel, &v.source, scratch, n, g * t.filters, t.filters, a,
                           t.chunk - seg.width)
            else:
                rows = (v.source.data + n * v.source.stride_n + g * t.filters * v.source.stride_c
                        + a * t.ops.stored)
            for j in range(tile.calls):
                call = &t.calls[tile.first_call + j]
                call.kernel(rows + call.a, weight + call.b, products + call.c, &count, &offset,
                            &offset)
                work += call.work
            add_rows(t, tile, products, window, a - base)
    while base < all:
        end = min(all, base + t.window)
        store_columns(t, v, v.out, row, window, line, base, end)
        base = end
    return work


@cython.final
cdef class Fold:
    """An immutable program of folded rows, ready to be executed by any number of threads."""
    cdef Table t
    cdef Window one
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t scratch_bytes
    cdef readonly Py_ssize_t shared_bytes

    def __dealloc__(self):
        free(self.t.calls)
        free(self.t.sums)
        free(self.t.tiles)
        free(self.t.segments)
        free(self.t.taps)

    def __init__(self, sh, bl, program, int dtype):
        cdef Table* t = &self.t
        cdef bint wide = vector_bytes() == 64
        t.calls = <Call*> copy_rows(program.calls, sizeof(Call) // 8)
        t.sums = <Sum*> copy_rows(program.sums, sizeof(Sum) // 8)
        t.tiles = <Tile*> copy_rows(program.tiles, sizeof(Tile) // 8)
        t.segments = <Segment*> copy_rows(program.segments, sizeof(Segment) // 8)
        t.taps = <Tap*> copy_rows(program.taps, sizeof(Tap) // 8)
        t.n_segments = len(program.segments)
        t.groups, t.filters, t.channels = sh.groups, sh.filters, sh.channels
        t.S, t.W, t.s, t.chunk, t.window = sh.S, sh.W, sh.s, bl.chunk, bl.window
        t.least = program.taps[0][1]
        t.most = program.taps[sh.S - 1][1]
        t.weight_row, t.weight_item = program.weight_row, 2 if sh.pairs else sh.item
        self.one.plane = self.one.shift = self.one.position = 0
        self.one.width, self.one.together = bl.chunk, 1
        t.panel.windows, t.panel.n_windows, t.panel.row = &self.one, 1, program.row
        t.panel.pairs, t.panel.tap_pairs = sh.pairs, 0
        t.ops, t.computed_ops = pack_ops_of(dtype, wide), pack_ops_of(sh.item == 8, wide)
        t.packed = bl.packed
        t.panel_bytes = sh.steps * program.row * sh.item if bl.packed else 0
        t.product_bytes = sh.S * sh.channels * bl.chunk * sh.item
        t.window_bytes = sh.channels * sh.s * bl.window * sh.item
        self.items = sh.N * sh.groups
        self.scratch_bytes = (
            t.panel_bytes + t.product_bytes + t.window_bytes + sh.s * bl.window * sh.item)
        self.shared_bytes = t.groups * t.channels * t.S * t.weight_row * t.weight_item

    def pack(self, cnp.ndarray weight):
        """The weights as the kernels read them, for `run` to use again and again."""
        cdef Packed packed = Packed(self.shared_bytes)
        self.pack_into(weight, packed.memory)
        return packed

    cdef void pack_into(self, cnp.ndarray weight, char* memory):
        """[group][channel][tap][filter]; beside the last of an odd number, a zero."""
        cdef Table* t = &self.t
        cdef int64_t g, k, i, row = t.weight_row * t.weight_item
        cdef Py_ssize_t by_filter = cnp.PyArray_STRIDE(weight, 0)
        cdef Py_ssize_t by_channel = cnp.PyArray_STRIDE(weight, 1)
        cdef const char* data = <const char*> cnp.PyArray_DATA(weight)
        transpose = pack_ops_of(3, True).transpose_out if t.panel.pairs else t.ops.transpose
        for g in range(t.groups):
            for k in range(t.channels):
                transpose(memory, t.weight_row, data + g * t.filters * by_filter + k * by_channel,
                          by_filter, cnp.PyArray_STRIDE(weight, 2), t.filters, t.S)
                for i in range(t.S if t.weight_row > t.filters else 0):
                    memset(memory + i * row + t.filters * t.weight_item, 0, t.weight_item)
                memory += t.S * row

    def run(self, cnp.ndarray source, cnp.ndarray weight, Packed packed, cnp.ndarray bias,
            bint relu, cnp.ndarray out, int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued.

        Returns -1, and does nothing, if the program reads rows in place and these are not plain.
        """
        cdef Table* t = &self.t
        cdef Arrays v
        cdef int64_t work, items = self.items
        cdef Scratch scratch
        if not t.packed and not cnp.PyArray_ISCARRAY_RO(source):
            return -1
        v.source = operand(source, 1, t.ops)
        v.bias = NULL
        if bias is not None:
            v.bias = <const char*> cnp.PyArray_DATA(bias)
        v.out, v.relu = <char*> cnp.PyArray_DATA(out), relu
        threads = team_of(min(threads, items))
        shared = 0 if packed is not None else self.shared_bytes
        scratch = Scratch(threads, self.scratch_bytes, shared)
        if packed is not None:
            v.weight = packed.memory
        else:
            self.pack_into(weight, scratch.shared)
            v.weight = scratch.shared
        with nogil:
            work = team_run(run_item, t, &v, items, threads, scratch.memory, scratch.stride)
        return work
