"""Engine 2: for each tap a matrix product, reduced over the width and the batch.

The sum is cut into *slots* (a function of the problem alone); an item adds up one slot for one
block of the result, and the slots are added in a fixed order at the end. That makes the result
independent of the number of threads and bounds the rounding error of very long sums.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memset
cimport cython
cimport numpy as cnp

from xsmmconv._batch cimport pack_batch_lanes, pack_batch_rows
from xsmmconv._kernel cimport kernel_t
from xsmmconv._memory cimport Scratch, copy_rows, operand
from xsmmconv._pack cimport (
    add_up, fetch_lines, interleave, lane_ops_of, pack_ops, pack_ops_of, pair_lanes, rows_ahead,
    stack_lanes, transpose_paired,
)
from xsmmconv._panel cimport Operand, Window, pack_lanes, pack_panel
from xsmmconv._team cimport team_of, team_run
from xsmmconv._weight_table cimport (
    Arrays, Call, Item, Place, Positions, Segment, Table, Tile, item_of, place_of, set_ahead,
)

from xsmmconv._dispatch import vector_bytes
from xsmmconv._layout import window_rows

cnp.import_array()


cdef enum:
    LINE = 512  # elements that are rearranged on the stack


cdef char* partial_sums(const Table* t, const Arrays* v, const Item* it) noexcept nogil:
    """Where the sums of an item's first block of lanes are collected; the others follow."""
    cdef int64_t place = (it.g * t.all_r_blocks + it.r_block) * t.slots + it.slot
    return v.partials + ((place * t.all_l_blocks + it.l_block)
                         * t.lb * t.rb * t.S * t.ops.computed)


cdef int64_t run_tile(const Table* t, Tile* tile, int64_t n_lanes, int64_t n_rows,
                      const char* lanes, const char* rows, int64_t row_bytes, char* sums,
                      rows_ahead* ahead) noexcept nogil:
    """All kernel calls of one tile for one block; returns the multiply-adds issued."""
    cdef int64_t i, r, n, work = 0, sums_bytes = t.S * t.lb * t.ops.computed
    cdef bint last_l = n_lanes != t.lb, last_r
    cdef Call* call
    cdef kernel_t kernel
    for i in range(tile.calls):
        call = &t.calls[tile.first_call + i]
        last_r = not call.by_taps and n_rows != t.rb
        kernel = call.kernel[2 * last_r + last_l]
        n = call.last_n if last_r else call.n
        if call.by_taps == 2:
            t.lane_ops.dots(sums + call.c, lanes + call.a, rows + call.b, call.positions, n,
                            call.first, t.row_planes)
            work += n_lanes * n * call.positions
            continue
        for r in range(n_rows if call.by_taps else 1):
            if t.fetched:
                fetch_lines(&ahead[0])
                fetch_lines(&ahead[1])
            kernel(lanes + call.a, rows + r * row_bytes + call.b, sums + r * sums_bytes + call.c,
                   &call.count, t.offsets_a + call.first, t.offsets_b + call.first)
            work += n_lanes * n * call.positions
    return work


cdef void store_rows(const Table* t, const Arrays* v, const Item* it, int64_t l_block, int64_t r0,
                     int64_t rows, const char* sums) noexcept nogil:
    """Store the sums of some row channels of one block of lanes as out[K][C][S]."""
    cdef int64_t l0 = l_block * t.lb, at, lane_step, row_step, size = t.ops.computed, r
    cdef int64_t lanes = min(t.lb, t.lanes - l0)
    cdef float[LINE] line
    cdef const char* first
    cdef bint plain = v.out_ops.stored == size
    r0 += it.r0
    if t.lanes_are_filters:
        at = ((it.g * t.lanes + l0) * t.rows + r0) * t.S
        lane_step, row_step = t.rows * t.S, t.S
    else:
        at = ((it.g * t.rows + r0) * t.lanes + l0) * t.S
        lane_step, row_step = t.S, t.lanes * t.S
    if t.S == 1 and not t.lanes_are_filters:  # lanes are neighbours
        for r in range(rows):
            v.out_ops.store(v.out + (at + r * row_step) * v.out_ops.stored, v.out_ops.stored,
                            sums + r * t.lb * size, lanes, NULL, False)
    elif t.tap_step and t.S < (4 if plain else 8) and not t.lanes_are_filters and (
            t.S * t.lb <= LINE):
        for r in range(rows):  # a row channel's lanes and taps are one axis
            first = sums + (r * t.S + t.tap[0]) * t.lb * size
            if plain:
                interleave(v.out + (at + r * row_step) * size, first, t.tap_step * t.lb * size, t.S,
                           lanes, t.sum_ops)
                continue
            if t.S < 4:
                interleave(<char*> line, first, t.tap_step * t.lb * size, t.S, lanes, t.sum_ops)
            else:
                t.sum_ops.transpose(line, t.S, first, t.tap_step * t.lb * size, size, t.S, lanes)
            v.out_ops.store(v.out + (at + r * row_step) * v.out_ops.stored, v.out_ops.stored, line,
                            lanes * t.S, NULL, False)
    elif t.tap_step == 0 or (t.S < 4 and not t.lanes_are_filters):
        v.out_ops.gather(v.out + at * v.out_ops.stored, lane_step * v.out_ops.stored,
                         row_step * v.out_ops.stored, sums, t.S * t.lb, t.tap, t.lb, lanes, rows,
                         t.S)
    elif t.lanes_are_filters and t.tap_step == 1:  # row channels and taps are one axis
        v.out_ops.transpose_out(v.out + at * v.out_ops.stored, lane_step, sums, t.lb * size, size,
                                rows * t.S, lanes)
    else:
        for r in range(rows):
            v.out_ops.transpose_out(v.out + (at + r * row_step) * v.out_ops.stored, lane_step,
                                    sums + (r * t.S + t.tap[0]) * t.lb * size,
                                    t.tap_step * t.lb * size, size, t.S, lanes)


cdef void store_block(const Table* t, const Arrays* v, const Item* it, int64_t l_block,
                      const char* sums) noexcept nogil:
    """The same for all row channels of the item, some at a time."""
    cdef int64_t r0 = 0
    while r0 < it.rows:
        store_rows(t, v, it, l_block, r0, min(t.finished, it.rows - r0),
                   sums + r0 * t.S * t.lb * t.ops.computed)
        r0 += t.finished


cdef int64_t run_lanes(const Table* t, const Arrays* v, const Item* it, Segment* seg,
                       const char* rows, int64_t row_bytes, int64_t n, int64_t m,
                       char* transposed, char* sums, rows_ahead* ahead) noexcept nogil:
    """One tile for the lane blocks of an item, which are transposed one after the other."""
    cdef const pack_ops* ops = t.pair_ops if t.tiles[seg.tile].pairs else t.ops
    cdef const Operand* lane = &v.lane
    cdef int64_t block = t.lb * t.rb * t.S * t.ops.computed * (not t.set_once)
    cdef int64_t i, l0, lanes, work = 0
    cdef int64_t halo = t.tiles[seg.tile].halo, bytes = t.lb * t.ops.computed, j
    cdef int64_t next_row = seg.width * t.lb * ops.computed
    cdef const char* source
    cdef char* matrix = transposed
    for i in range(it.l_blocks):
        l0 = (it.l_block + i) * t.lb
        lanes = min(t.lb, t.tiles[seg.tile].lanes or t.lanes - l0)
        if t.batch:
            pack_batch_lanes(t, lane, transposed, n, it.g * t.lanes + l0, lanes)
        source = (lane.data + n * lane.stride_n + (it.g * t.lanes + l0) * lane.stride_c
                  + (seg.plane + (m - halo) * t.lane_planes) * lane.stride_w)
        for j in range(0 if t.batch else t.nb):
            if t.lb == 1:  # nothing to transpose
                ops.load(transposed + j * next_row, source, lane.stride_w * t.lane_planes,
                         seg.width + halo)
            elif t.pairs and lane.stride_w * t.lane_planes == ops.stored:
                transpose_paired(transposed, source, lane.stride_c, lanes, seg.width)
            elif seg.width + halo == 1:
                ops.load(transposed + j * next_row, source, lane.stride_c, lanes)
            else:
                ops.transpose(transposed + j * next_row, t.lb, source, lane.stride_c,
                              lane.stride_w * t.lane_planes, lanes, seg.width + halo)
            source += lane.stride_n
        if t.pairs and lane.stride_w * t.lane_planes != ops.stored:
            pair_lanes(transposed, t.lb, seg.width * t.lb)
        if halo:
            matrix = transposed - t.stacked_bytes
            stack_lanes(matrix, transposed, t.stack, t.lag, seg.width, bytes)
        if t.direct:
            sums = v.out + ((it.g * t.rows + it.r0) * t.lanes + l0) * t.ops.computed
        work += run_tile(t, &t.tiles[seg.tile], lanes, it.rows, matrix, rows, row_bytes,
                         sums + i * block, ahead)
        if t.set_once and not t.direct:
            store_block(t, v, it, it.l_block + i, sums)
    return work


cdef int64_t run_rows(const Table* t, const Arrays* v, const Item* it, const Place* here,
                      char* panel, char* transposed, char* sums, rows_ahead* ahead) noexcept nogil:
    """One tile for an item, after packing its rows if they are to be packed."""
    cdef const Operand* row = &v.row
    cdef Operand raw = v.row
    cdef Segment* seg = &t.segments[here.s]
    cdef int64_t n = here.n * t.nb, c = it.g * t.rows + it.r0, lane = it.l_block * t.lb, j
    if t.depthwise:
        pack_lanes(&t.panel, row, panel, n, t.lb, lane, min(t.lb, t.lanes - lane),
                   here.m * t.row_planes, t.panel.row // t.lb, t.row_planes if t.pairs else 0)
        return run_lanes(t, v, it, seg, panel, 0, n, here.m, transposed, sums, ahead)
    if t.batch:
        pack_batch_rows(t, row, panel, n, c, it.rows)
        raw.ops = t.pair_ops if t.tiles[0].pairs else t.ops
        return run_lanes(t, v, it, seg, panel, t.panel.row * raw.ops.computed, n, 0, transposed,
                         sums, ahead)
    if t.tiles[seg.tile].packed:
        raw.ops = t.pair_ops if t.tiles[seg.tile].pairs else t.ops
        for j in range(t.nb):
            pack_panel(&t.panel, &raw, panel + t.panel.row // t.nb * j * raw.ops.computed, n + j, c,
                       it.rows, here.m, t.columns - seg.width)
        return run_lanes(t, v, it, seg, panel, t.panel.row * raw.ops.computed, n, here.m,
                         transposed, sums, ahead)
    return run_lanes(t, v, it, seg,
                     row.data + n * row.stride_n + c * row.stride_c + here.m * t.ops.stored,
                     row.stride_c, n, here.m, transposed, sums, ahead)


cdef int64_t run_item(const void* table, const void* arrays, int64_t index, char* scratch) \
        noexcept nogil:
    """Add up one slot for one part of the result; if it is the only one, store it."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef Item it = item_of(t, index, v.l_blocks)
    cdef int64_t size = t.ops.computed, tiles = t.N // t.nb * t.tiles_per_n, work = 0
    cdef int64_t lane_block = t.lb * t.rb * t.S, block = it.l_blocks * lane_block
    cdef int64_t first = it.slot * tiles // t.slots
    cdef int64_t end = (it.slot + 1) * tiles // t.slots
    cdef int64_t i, pending = 0
    cdef Place here, there
    cdef rows_ahead ahead[2]
    cdef char* transposed = scratch + t.stacked_bytes
    cdef char* panel = transposed + t.lanes_bytes
    cdef char* own = panel + t.rb * t.panel.row * size
    cdef char* total = own if t.at_once else partial_sums(t, v, &it)
    # A slot that is short enough needs no second level of summation.
    cdef bint direct = end - first <= t.flush
    cdef char* sums = total if direct else own
    if not t.set_once:
        memset(total, 0, block * size)
    if t.batch and t.nb % 2 and t.tiles[0].pairs:  # the last row's partner
        memset(panel, 0, t.rb * t.panel.row * 2)
    if t.filled_up:  # nobody uses the sums of these lanes, but denormals there would cost time
        memset(transposed, 0, t.lanes_bytes)
        if t.depthwise:
            memset(panel, 0, t.panel.row * size)
    if not direct:
        memset(sums, 0, block * size)
    memset(ahead, 0, sizeof(ahead))
    there.n = -1
    if first < end:
        there = place_of(t, first, there)
    for i in range(first, end):
        here, ahead[0].rows, ahead[1].rows = there, 0, 0
        if i + 1 < tiles:
            there = place_of(t, i + 1, there)
            if t.fetched:
                set_ahead(t, v, &it, &here, &there, ahead)
        work += run_rows(t, v, &it, &here, panel, transposed, sums, ahead)
        pending += 1
        if not direct and (pending == t.flush or i == end - 1):
            add_up(total, sums, block, size)
            memset(sums, 0, block * size)
            pending = 0
    if t.at_once and not t.set_once:
        for i in range(it.l_blocks):
            store_block(t, v, &it, it.l_block + i, total + i * lane_block * size)
    return work


cdef int64_t finish(const void* table, const void* arrays, int64_t index, char* _) \
        noexcept nogil:
    """Add the slots of some row channels of one block in order and store them."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t groups = (t.rb + t.finished - 1) // t.finished
    cdef int64_t part = index // (t.all_l_blocks * groups)
    cdef Item it = item_of(t, part * t.slots, t.all_l_blocks)
    cdef int64_t r0 = index % groups * t.finished, size = t.ops.computed, row = t.S * t.lb
    cdef int64_t next_slot = t.all_l_blocks * t.lb * t.rb * t.S * size
    cdef int64_t rows = min(t.finished, it.rows - r0), slot
    cdef char* first
    if rows <= 0:
        return 0
    it.l_block = index // groups % t.all_l_blocks
    first = partial_sums(t, v, &it) + r0 * row * size
    for slot in range(1, t.slots):
        add_up(first, first + slot * next_slot, rows * row, size)
    store_rows(t, v, &it, it.l_block, r0, rows, first)
    return 0


cdef void set_positions(Positions* to, found):
    to.first, to.step, to.count = found.first, found.step, found.count


@cython.final
cdef class WeightGradient:
    """An immutable program of engine 2, ready to be executed by any number of threads."""
    cdef Table t
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t scratch_bytes
    cdef readonly Py_ssize_t shared_bytes
    cdef bint in_place
    cdef bint wide

    def __dealloc__(self):
        free(self.t.calls)
        free(self.t.tiles)
        free(self.t.segments)
        free(self.t.panel.windows)
        free(self.t.offsets_a)
        free(self.t.offsets_b)
        free(self.t.tap)

    def __init__(self, sh, bl, program, bint lanes_are_filters, lane_planes, int dtype):
        cdef Table* t = &self.t
        self.wide = vector_bytes() == 64
        t.ops, t.pair_ops = pack_ops_of(dtype, self.wide), pack_ops_of(3, self.wide)
        t.sum_ops = pack_ops_of(1 if sh.item == 8 else 0, self.wide)
        t.calls = <Call*> copy_rows(program.calls, sizeof(Call) // 8)
        t.tiles = <Tile*> copy_rows(program.tiles, sizeof(Tile) // 8)
        t.segments = <Segment*> copy_rows(program.segments, sizeof(Segment) // 8)
        # Matrices of two columns: vectors of 32 bits have a routine of their own.
        least = 2 if self.wide and sh.item == 4 else 3
        t.panel.windows = <Window*> copy_rows(
            window_rows(program.panel, sh.row_planes, least), sizeof(Window) // 8)
        t.panel.n_windows, t.panel.row = len(program.panel.windows), program.panel.row
        t.depthwise, t.pairs = sh.depthwise, sh.lane_pairs
        if t.depthwise:
            t.panel.row = bl.lb * sum([w.width for w in program.panel.windows])
        t.lane_ops = lane_ops_of(3 if t.pairs else dtype, self.wide)
        t.panel.pairs = t.panel.tap_pairs = False
        t.offsets_a = <unsigned long long*> copy_rows(program.offsets_a, 1)
        t.offsets_b = <unsigned long long*> copy_rows(program.offsets_b, 1)
        t.tap = <int64_t*> copy_rows(program.tap, 1)
        t.N, t.groups, t.lanes, t.rows, t.S = sh.N, sh.groups, sh.lanes, sh.rows, sh.taps
        t.lane_planes, t.row_planes = lane_planes, sh.row_planes
        t.tile, t.lb, t.rb, t.slots, t.flush = bl.tile, bl.lb, bl.rb, bl.slots, bl.flush
        t.columns = bl.tile if bl.packed else bl.border
        t.stack, t.lag, t.nb = bl.stack, program.lag, bl.nb
        t.lanes_bytes = t.nb * t.ops.computed * t.lb * (t.tile + (t.stack - 1) * t.lag)
        t.stacked_bytes = t.ops.computed * t.lb * t.tile * t.stack if t.stack > 1 else 0
        t.l_blocks = bl.l_blocks
        t.filled_up = sh.lanes % bl.lb != (0 if sh.depthwise else bl.last_lb)
        t.all_l_blocks = (t.lanes + t.lb - 1) // t.lb
        t.all_r_blocks = (t.rows + t.rb - 1) // t.rb
        t.tiles_per_n = sum([seg[3] for seg in program.segments])
        t.tap_step = 1 if t.S == 1 else t.tap[1] - t.tap[0]
        if program.tap != [program.tap[0] + i * t.tap_step for i in range(t.S)] or (
                abs(t.tap_step) != 1):
            t.tap_step = 0
        t.finished = min(t.rb, max(1, 192 // t.S))  # the sums and their lines stay in L1
        t.lanes_are_filters, t.lane_step = lanes_are_filters, sh.lane_step
        t.batch, t.fetched = bl.lists == "batch", bl.fetched
        if t.batch:
            set_positions(&t.lane_positions, program.lane_positions)
            set_positions(&t.row_positions, program.row_positions)
        t.reads_from, t.reads_to = program.reads
        self.in_place = not bl.packed
        self.items = (t.slots * t.groups * t.all_r_blocks
                      * ((t.all_l_blocks + t.l_blocks - 1) // t.l_blocks))
        t.at_once = t.slots == 1 and t.N // t.nb * t.tiles_per_n <= t.flush
        t.set_once, t.direct = program.set_once, program.direct
        blocks = 0 if t.direct else 1 if t.set_once else t.l_blocks
        self.scratch_bytes = t.stacked_bytes + t.lanes_bytes + t.ops.computed * (
            t.rb * t.panel.row + blocks * t.lb * t.rb * t.S)
        self.shared_bytes = 0 if t.at_once else t.ops.computed * t.lb * t.rb * t.S * (
            t.slots * t.groups * t.all_r_blocks * t.all_l_blocks)

    def run(self, cnp.ndarray lane_array, cnp.ndarray row_array, cnp.ndarray out, int out_dtype,
            int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued.

        Returns -1, and does nothing, if the program reads rows in place and these are not plain.
        """
        cdef Table* t = &self.t
        cdef Arrays v
        cdef int64_t l_items, work, blocks = t.slots * t.groups * t.all_r_blocks
        cdef int64_t items, finished
        cdef Scratch scratch
        if self.in_place and not cnp.PyArray_ISCARRAY_RO(row_array):
            return -1
        v.lane = operand(lane_array, t.lane_planes, t.ops)
        v.row = operand(row_array, 1 if t.depthwise else t.row_planes, t.ops)
        if t.lane_step:
            v.lane.stride_c = t.lane_step * v.lane.stride_w
        v.out_ops = pack_ops_of(out_dtype, self.wide)
        v.out = <char*> cnp.PyArray_DATA(out)
        threads = team_of(min(threads, blocks * t.all_l_blocks))
        # Items are divided only where they are few for the threads, because each part packs the
        # panel again.
        l_items = (t.all_l_blocks + t.l_blocks - 1) // t.l_blocks
        if threads > 1:
            l_items = max(l_items, min(t.all_l_blocks, (4 * threads + blocks - 1) // blocks))
        v.l_blocks = (t.all_l_blocks + l_items - 1) // l_items
        items = blocks * ((t.all_l_blocks + v.l_blocks - 1) // v.l_blocks)
        finished = t.groups * t.all_r_blocks * t.all_l_blocks
        finished = 0 if t.at_once else finished * ((t.rb + t.finished - 1) // t.finished)
        scratch = Scratch(threads, self.scratch_bytes, self.shared_bytes)
        v.partials = scratch.shared
        with nogil:
            work = team_run(run_item, t, &v, items, threads, scratch.memory, scratch.stride)
            team_run(finish, t, &v, finished, threads, NULL, 0)
        return work
