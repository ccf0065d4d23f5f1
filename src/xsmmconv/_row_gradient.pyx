"""Engine 2 without matrices: dot products of rows, reduced over the width and the batch.

Nothing is transposed, and rows are read where they lie, by every call that uses them. As in
_weight_gradient.pyx the sum is cut into slots, which are added in a fixed order at the end.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memset
cimport cython
cimport numpy as cnp

from xsmmconv._memory cimport Scratch, copy_rows, operand
from xsmmconv._pack cimport (
    add_up, pack_ops_of, row_dots_of, row_dots_t, row_tap, row_tile, rows_ahead, store_dots,
)
from xsmmconv._panel cimport Operand, Panel, Window, pack_panel
from xsmmconv._team cimport team_of, team_run

from xsmmconv._dispatch import vector_bytes
from xsmmconv._errors import UnsupportedError
from xsmmconv._layout import window_rows

cnp.import_array()


cdef struct Call:
    row_dots_t dots
    int64_t tap          # the first,
    int64_t taps         # and how many
    int64_t first        # positions that some of the taps use,
    int64_t all_first    # that all of them use,
    int64_t all_end
    int64_t end
    int64_t sums         # where these begin, among those of a block


cdef struct Block:
    # Some rows a, and the calls of each of them.
    int64_t a
    int64_t rows
    int64_t call
    int64_t calls
    int64_t sums         # where these begin


cdef struct Table:
    # The program and its extents, flat. Rows a have positions of their own; b is read by taps.
    Call* calls
    row_tap* taps
    Block* blocks
    Panel panel          # of rows b
    int64_t n_blocks
    int64_t N
    int64_t groups
    int64_t a_rows
    int64_t b_rows
    int64_t S
    int64_t count        # positions
    int64_t b_planes
    int64_t tile
    int64_t nb           # rows of the batch in a tile
    int64_t tiles_per_n
    int64_t slots
    int64_t sums         # of a slot and group
    int64_t size         # bytes of one
    int64_t item         # bytes of an element of the operands
    int64_t row_out      # elements of the result from one row a to the next
    int64_t stretch      # positions of a call from one fetch to the next
    bint b_packed
    bint a_packed
    bint fetched         # while a tile is computed, what comes next is brought to L2


cdef struct Arrays:
    # The operands of one execution.
    Operand a
    Operand b
    char* sums           # by group and slot
    char* out
    int out_dtype
    int64_t out_item     # bytes of an element
    int64_t parts        # of the rows a; no sum depends on it


cdef inline int64_t run_call(const Table* t, const Call* call, const row_tile* tile, int64_t end,
                             char* sums) noexcept nogil:
    """One call for the tile that ends before position `end`; returns how often it multiplied one
    row of the batch and of a."""
    cdef int64_t work = 0, j, start = tile.start
    cdef int64_t first = max(call.first, start), last = min(call.end, end)
    cdef int64_t all_first = max(call.all_first, start), all_last = min(call.all_end, end)
    cdef row_tap* taps = t.taps + call.tap
    if first >= last:
        return 0
    call.dots(sums + call.sums * t.size, tile, taps, first - start, all_first - start,
              all_last - start, last - start)
    if all_first == first and all_last == last:
        return call.taps * (last - first)
    for j in range(call.taps):
        work += max(0, min(taps[j].end, last) - max(taps[j].first, first))
    return work


cdef inline const char* rows_at(const Operand* v, int64_t n, int64_t c, int64_t m, int64_t item) \
        noexcept nogil:
    return v.data + n * v.stride_n + c * v.stride_c + m * item


cdef void set_b(const Table* t, const Operand* v, int64_t g, int64_t n, int64_t width,
                char* panel, row_tile* tile) noexcept nogil:
    """Where the rows b of a tile lie, after copying them if they are to be copied."""
    cdef int64_t j, panel_row = t.panel.row // t.nb * t.item
    if not t.b_packed:
        tile.b, tile.b_next = rows_at(v, n, g * t.b_rows, tile.start, t.item), v.stride_n
        return
    for j in range(t.nb):
        pack_panel(&t.panel, v, panel + j * panel_row, n + j, g * t.b_rows, t.b_rows, tile.start,
                   t.tile - width)
    tile.b, tile.b_next = panel, panel_row


cdef void set_a(const Table* t, const Operand* v, const Block* block, int64_t g, int64_t n,
                int64_t width, char* copied, row_tile* tile) noexcept nogil:
    """The same for the rows a of a block."""
    cdef int64_t c, j, row = g * t.a_rows + block.a, bytes = t.tile * t.item
    if not t.a_packed:
        tile.a, tile.a_next = rows_at(v, n, row, tile.start, t.item), v.stride_n
        tile.a_row = v.stride_c
        return
    for c in range(block.rows):
        for j in range(t.nb):
            v.ops.load(copied + (c * t.nb + j) * bytes,
                       rows_at(v, n + j, row + c, tile.start, v.stride_w), v.stride_w, width)
    tile.a, tile.a_row, tile.a_next = copied, t.nb * bytes, bytes


cdef inline const char* tile_rows(const Table* t, const Operand* v, int64_t i, int64_t c) \
        noexcept nogil:
    """Where a row of the i-th tile of a group begins."""
    return rows_at(v, i // t.tiles_per_n * t.nb, c, i % t.tiles_per_n * t.tile, t.item)


cdef inline void set_ahead(const Table* t, const Operand* v, int64_t i, int64_t c, int64_t rows,
                           int64_t calls, int64_t width, rows_ahead* ahead) noexcept nogil:
    """Some rows of the i-th tile, of which so many calls fetch some lines now and then."""
    cdef int64_t times = calls * t.nb * (width // t.stretch + 1)
    ahead.read, ahead.read_stride = tile_rows(t, v, i, c), v.stride_c
    ahead.width, ahead.rows, ahead.done = t.tile * t.item, rows, 0
    if t.nb > 1 and rows > 0:  # whole rows, which follow each other
        ahead.read_stride, ahead.width, ahead.rows = v.stride_n, rows * v.stride_c, t.nb
    ahead.lines = (ahead.rows * (ahead.width // 64 + 1) + times - 1) // times


cdef int64_t run_item(const void* table, const void* arrays, int64_t index, char* scratch) \
        noexcept nogil:
    """Add up one slot for one part of the rows a."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t part = index % v.parts, slot = index // v.parts % t.slots
    cdef int64_t g = index // v.parts // t.slots, tiles = t.N // t.nb * t.tiles_per_n
    cdef int64_t first = part * t.n_blocks // v.parts, last = (part + 1) * t.n_blocks // v.parts
    cdef int64_t i, j, c, n, end, work, calls = 0, total = 0, rows
    cdef char* sums = v.sums + (g * t.slots + slot) * t.sums * t.size
    cdef char* copied = scratch + t.b_rows * t.panel.row * t.item
    cdef Block* block
    cdef Block* later
    cdef row_tile tile
    cdef rows_ahead ahead[2]
    memset(sums + t.blocks[first].sums * t.size, 0,
           (t.blocks[last].sums - t.blocks[first].sums) * t.size)
    for j in range(first, last):
        calls += t.blocks[j].calls
    tile.rows, tile.ahead, tile.stretch = t.nb, ahead, t.stretch
    memset(ahead, 0, sizeof(ahead))
    for i in range(slot * tiles // t.slots, (slot + 1) * tiles // t.slots):
        n, tile.start = i // t.tiles_per_n * t.nb, i % t.tiles_per_n * t.tile
        end = min(tile.start + t.tile, t.count)
        set_b(t, &v.b, g, n, end - tile.start, scratch, &tile)
        # Meanwhile come the rows a of the next block, and, for the next tile, rows b.
        if t.fetched and not t.b_packed:
            rows = 0 if i + 1 == tiles else t.b_rows
            set_ahead(t, &v.b, i + 1, g * t.b_rows, rows, calls, end - tile.start, &ahead[1])
        for j in range(first, last):
            block, later, work = &t.blocks[j], &t.blocks[j + 1 if j + 1 < last else first], 0
            if t.fetched and not t.a_packed:
                rows = 0 if j + 1 == last and i + 1 == tiles else later.rows
                set_ahead(t, &v.a, i + (j + 1 == last), g * t.a_rows + later.a, rows, block.calls,
                          end - tile.start, &ahead[0])
            set_a(t, &v.a, block, g, n, end - tile.start, copied, &tile)
            for c in range(block.calls):
                work += run_call(t, &t.calls[block.call + c], &tile, end,
                                 sums + block.sums * t.size)
            total += work * block.rows * tile.rows
    return total


cdef int64_t finish(const void* table, const void* arrays, int64_t index, char* _) \
        noexcept nogil:
    """Add the slots of one block of rows a in order and store them."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t g = index // t.n_blocks, slot, c
    cdef Block* block = &t.blocks[index % t.n_blocks]
    cdef int64_t n = block[1].sums - block.sums
    cdef int64_t at = (g * t.a_rows * t.b_rows * t.S + block.a * t.row_out) * v.out_item
    cdef char* total = v.sums + (g * t.slots * t.sums + block.sums) * t.size
    cdef const Call* call
    for slot in range(1, t.slots):
        add_up(total, total + slot * t.sums * t.size, n, t.size)
    for c in range(block.calls):
        call = &t.calls[block.call + c]
        store_dots(v.out_dtype, v.out + at, t.row_out, t.taps + call.tap,
                   total + call.sums * t.size, block.rows, call.taps)
    return 0


def dots(int dtype, int a, int b):
    """Address of the routine for so many rows and taps; see _row_dots.h."""
    cdef row_dots_t routine = row_dots_of(dtype, vector_bytes() == 64, a, b)
    if routine == NULL:
        raise UnsupportedError(f"there are no dot products of {a} rows and {b} taps")
    return <size_t> routine


@cython.final
cdef class RowGradient:
    """An immutable program of dot products, ready to be executed by any number of threads."""
    cdef Table t
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t scratch_bytes
    cdef readonly Py_ssize_t shared_bytes
    cdef int dtype

    def __dealloc__(self):
        free(self.t.calls)
        free(self.t.taps)
        free(self.t.blocks)
        free(self.t.panel.windows)

    def __init__(self, sh, bl, program, int dtype):
        """`dtype` is PACK_PAIRS where BF16 is multiplied."""
        cdef Table* t = &self.t
        self.dtype = dtype
        t.calls = <Call*> copy_rows(program.calls, sizeof(Call) // 8)
        t.taps = <row_tap*> copy_rows(program.taps, sizeof(row_tap) // 8)
        # One more says where the sums end.
        blocks = [*program.blocks, (0, 0, 0, 0, program.sums)]
        t.blocks = <Block*> copy_rows(blocks, sizeof(Block) // 8)
        t.panel.windows = <Window*> copy_rows(
            window_rows(program.panel, sh.b_planes, 3), sizeof(Window) // 8)
        t.panel.n_windows, t.panel.row = len(program.panel.windows), program.panel.row
        t.panel.pairs = t.panel.tap_pairs = False
        t.n_blocks, t.sums = len(program.blocks), program.sums
        t.N, t.groups, t.a_rows, t.b_rows, t.S = sh.N, sh.groups, sh.a_rows, sh.b_rows, sh.taps
        t.count, t.b_planes = sh.phases[0].count, sh.b_planes
        t.tile, t.nb, t.slots = bl.tile, bl.nb, bl.slots
        t.tiles_per_n = (t.count + t.tile - 1) // t.tile
        t.item, t.size, t.row_out = sh.item, sh.computed, sh.out[0]
        t.b_packed, t.a_packed, t.fetched = bl.packed, bl.copied, bl.fetched
        # A few lines at a time: many at once would keep the loads waiting.
        t.stretch = 16 * vector_bytes() // sh.item if t.fetched else bl.tile
        self.items = t.slots * t.groups
        self.scratch_bytes = t.item * (
            t.b_rows * t.panel.row * t.b_packed + max(bl.parts) * t.nb * t.tile * t.a_packed)
        self.shared_bytes = t.slots * t.groups * t.sums * t.size

    def run(self, cnp.ndarray a_array, cnp.ndarray b_array, cnp.ndarray out, int out_dtype,
            int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued.

        Returns -1, and does nothing, if the program reads rows in place and these are not plain.
        """
        cdef Table* t = &self.t
        cdef Arrays v
        cdef int64_t work, items, finished = t.groups * t.n_blocks
        cdef Scratch scratch
        if not (t.a_packed or cnp.PyArray_ISCARRAY_RO(a_array)) or not (
                t.b_packed or cnp.PyArray_ISCARRAY_RO(b_array)):
            return -1
        v.a = operand(a_array, 1, pack_ops_of(self.dtype, vector_bytes() == 64))
        v.b = operand(b_array, t.b_planes, v.a.ops)
        v.out, v.out_dtype = <char*> cnp.PyArray_DATA(out), out_dtype
        v.out_item = cnp.PyArray_ITEMSIZE(out)
        threads = team_of(min(threads, self.items * t.n_blocks))
        # Rows are divided only where items are few for the threads: each part copies again.
        v.parts = 1
        if threads > 1:
            v.parts = min(t.n_blocks, (4 * threads + self.items - 1) // self.items)
        items = self.items * v.parts
        scratch = Scratch(threads, self.scratch_bytes, self.shared_bytes)
        v.sums = scratch.shared
        with nogil:
            work = team_run(run_item, t, &v, items, threads, scratch.memory, scratch.stride)
            team_run(finish, t, &v, finished, threads, NULL, 0)
        return work
