"""Engine 1: sums over taps of weight slices times shifted sources.

Forward, every residue phase of backward data, and transposed convolution are all this. The loop
packs a panel if the plan says so, points the tile's offset lists at it and calls LIBXSMM kernels.
"""
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memset
cimport cython
cimport numpy as cnp

from xsmmconv._correlate_table cimport (
    ONE_TAP_FILTERS, PACKED_CHANNELS, Arrays, Call, Phase, Segment, Table, Tile,
    pack_block, pack_channel_pairs, pack_channels, pack_one_tap, pack_weight_block, pack_weight_row,
    pairs_filters,
)
from xsmmconv._fetch cimport Place, place_of, rows_after, rows_written
from xsmmconv._kernel cimport kernel_t
from xsmmconv._memory cimport Packed, Scratch, copy_rows, operand
from xsmmconv._pack cimport (
    border_tap, fetch_lines, lane_ops, lane_ops_of, pack_ops_of, products_t, rows_ahead,
)
from xsmmconv._panel cimport Window, pack_lanes, pack_panel, pack_transposed
from xsmmconv._store cimport fill_row, store_lane_phases, store_lanes, store_phases, store_tile
from xsmmconv._team cimport team_of, team_run

from xsmmconv._dispatch import vector_bytes
from xsmmconv._layout import window_rows

cnp.import_array()


cdef int64_t run_partial(const Table* t, Tile* tile, const char* source, const char* weight,
                         char* result, char* partial, int64_t ldc, int64_t width,
                         rows_ahead* ahead) noexcept nogil:
    """The part of a tile that is not added up by a kernel; returns the multiply-adds issued."""
    cdef int64_t i, work = tile.work, size = t.source_ops.computed
    cdef float single = 1
    cdef double double_ = 1
    cdef Call* call
    for i in range(tile.partial):
        call = &t.calls[tile.first_call + i]
        fetch_lines(ahead)
        call.kernel(source + call.a, weight + call.b, partial + call.c, &call.count,
                    t.offsets_a + call.first, t.offsets_b + call.first)
        work += call.work
    if tile.partial:
        source = partial
        weight = <char*> &single if size == 4 else <char*> &double_
    for i in range(t.K if tile.partial else 1):
        t.computed_ops.border(result + i * ldc * size, source + i * t.partial_row, weight,
                              t.border_taps + tile.border, tile.taps, width)
    return work


cdef inline int64_t run_call(const Table* t, Call* call, const char* source, const char* weight,
                             char* result, bint tail, rows_ahead* ahead) noexcept nogil:
    """One kernel call; returns its multiply-adds."""
    cdef kernel_t kernel = call.tail if tail else call.kernel
    if t.depthwise:
        (<products_t> kernel)(weight + call.b, source + call.a, result + call.c, &call.count,
                              t.offsets_b + call.first, t.offsets_a + call.first, call.columns,
                              t.step, t.lane_step, ahead)
        return call.tail_work if tail else call.work
    fetch_lines(ahead)
    fetch_lines(ahead + 1)
    if t.filters_in_lanes:
        kernel(weight + call.b, source + call.a, result + call.c, &call.count,
               t.offsets_b + call.first, t.offsets_a + call.first)
    else:
        kernel(source + call.a, weight + call.b, result + call.c, &call.count,
               t.offsets_a + call.first, t.offsets_b + call.first)
    return call.tail_work if tail else call.work


cdef int64_t run_tile(const Table* t, Tile* tile, const char* source, const char* weight,
                      char* result, char* partial, int64_t ldc, int64_t width, int64_t filters,
                      rows_ahead* ahead) noexcept nogil:
    """All kernel calls of one tile for one block of filters; returns the multiply-adds issued."""
    cdef int64_t i, k, work = 0, size = t.source_ops.computed
    if tile.border >= 0:
        work = run_partial(t, tile, source, weight, result, partial, ldc, width, ahead)
    if tile.fill and t.lane_step > 1:
        for i in range(width):
            memset(result + i * t.lane_step * t.kb * size, 0, t.kb * size)
    elif tile.fill and t.filters_in_lanes:
        memset(result, 0, width * t.nb * t.kb * size)
    elif tile.fill:
        for k in range(filters):
            memset(result + k * ldc * size, 0, width * size)
    for i in range(tile.partial, tile.calls):
        work += run_call(t, &t.calls[tile.first_call + i], source, weight, result,
                         filters != t.kb, ahead)
    return work


cdef int64_t run_segment(const Table* t, const Arrays* v, Phase* phase, Segment* seg, int64_t m0,
                         const char* base, int64_t n, int64_t g, int64_t k0, char* compact,
                         char* phase_rows, rows_ahead* ahead) noexcept nogil:
    """The tiles of a segment that start in the chunk at m0, for the filters k0, k0 + 1, ..."""
    cdef int64_t size = t.source_ops.computed, stored = t.out_ops.stored
    cdef int64_t filters = min(t.kb, t.K - k0), first = g * t.K + k0, work = 0, i, m, at
    cdef int64_t row_bytes = t.out_width * stored, ldc = t.tile
    cdef const char* weight = v.weight + (g * t.weight_group + k0 * t.weight_k) * size
    cdef char* out
    cdef char* result
    cdef Tile* tile = &t.tiles[seg.tile]
    cdef bint rounded = tile.rounded >= 0 and v.bias == NULL and not v.relu
    cdef int64_t end = min(seg.count, (m0 + t.chunk - seg.start + seg.width - 1) // seg.width)
    if t.direct or t.interleaved:
        ldc = t.out_width if t.direct else t.chunk
    if t.depthwise:
        ahead.rows, ahead.stored = filters if t.fetched else 0, stored
        ahead.read_stride, ahead.write_stride = v.source.stride_c, row_bytes
        ahead.read = v.source.data + n * v.source.stride_n + k0 * v.source.stride_c
        if m0 + t.chunk < phase.count:
            ahead.read += (m0 + t.panel.windows[0].width + t.panel.windows[0].shift) * stored
        else:  # the next block of channels
            ahead.read += t.kb * v.source.stride_c
    for i in range(max(0, (m0 - seg.start + seg.width - 1) // seg.width), end):
        m = seg.start + i * seg.width
        out = (v.out + (n * t.groups * t.K + first) * row_bytes
               + (phase.first + m * phase.step) * stored)
        if rounded:
            work += run_call(t, &t.calls[tile.rounded], base + m * size, weight, out,
                             filters != t.kb, ahead)
            continue
        ahead.write = out
        at = m % t.tile if t.filters_in_lanes else 0
        result = out if t.direct else compact + at * t.nb * t.kb * size
        if t.lane_step > 1:
            result = compact + ((m - m0) * t.lane_step + phase.first) * t.kb * size
        elif t.interleaved and not t.filters_in_lanes:
            result = phase_rows + (m - m0) * size
        work += run_tile(t, tile, base + m * t.column * size, weight, result,
                         compact + t.compact_bytes + t.rows_bytes, ldc, seg.width, filters,
                         ahead)
        if t.filters_in_lanes:
            # All of a tile together: at a border its segments are narrow.
            if not t.interleaved and (at + seg.width == t.tile or m + seg.width == phase.count):
                out -= at * phase.step * stored
                store_lanes(t, v, phase.step, out, compact, at + seg.width, first, filters)
        elif not t.interleaved and (v.bias != NULL or v.relu or not t.direct):
            store_tile(t, v, phase.step, out, result, ldc, seg.width, first, filters)
    return work


cdef int64_t run_block(const Table* t, const Arrays* v, int64_t m0, const char* base, int64_t n,
                       int64_t g, int64_t k0, char* compact, rows_ahead* ahead) noexcept nogil:
    """A chunk of all phases for the filters k0, k0 + 1, ..."""
    cdef int64_t p, s, work = 0, first = (g * t.K + k0) // t.merged
    cdef int64_t filters = min(t.kb, t.K - k0) // t.merged
    cdef char* rows = compact + t.compact_bytes
    cdef char* phase_rows = rows
    cdef char* tile = compact  # of a phase, with filters in the lanes
    cdef char* out = v.out + (n * t.groups * t.filters + first) * t.out_width * t.out_ops.stored
    cdef Phase* phase
    if t.out_lines:
        ahead[1] = rows_written(t, out, m0, filters)
    for p in range(t.n_phases):
        phase = &t.phases[p]
        for s in range(phase.segments):
            work += run_segment(t, v, phase, &t.segments[phase.first_segment + s], m0, base, n, g,
                                k0, tile, phase_rows, ahead)
        phase_rows += t.kb * t.chunk * t.source_ops.computed
        if t.interleaved and not t.depthwise:
            tile += t.tile * t.nb * t.kb * t.source_ops.computed
    if t.interleaved and t.filters_in_lanes and not t.depthwise:
        store_lane_phases(t, v, out, compact, first, filters)
    elif t.lane_step > 1:
        m0 *= t.lane_step
        store_lanes(t, v, 1, out + m0 * t.out_ops.stored, compact,
                    min(t.chunk * t.lane_step, t.out_width - m0), first, filters)
    elif t.interleaved:
        store_phases(t, v, out, rows, m0, first, filters)
    return work


cdef int64_t run_item(const void* table, const void* arrays, int64_t item, char* scratch) \
        noexcept nogil:
    """One work item: nb batch rows, a group, a chunk of columns and a share of the filters."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef Place here = place_of(t, v, item)
    cdef int64_t n = here.n, g = here.g, m0 = here.m0, part = here.part
    cdef int64_t size = t.source_ops.computed, work = 0, block
    cdef rows_ahead ahead[2]
    cdef int64_t blocks = (t.K + t.kb - 1) // t.kb
    cdef char* packed = scratch + t.compact_bytes + t.rows_bytes + t.partial_bytes
    cdef char* panel = packed + t.block_bytes
    cdef const char* base
    cdef Arrays own
    own = v[0]
    ahead[0] = rows_after(t, v, item)
    ahead[1].lines = 0
    if t.filters_in_lanes:
        base = panel - m0 * t.column * size
        if not t.depthwise:
            pack_transposed(&t.panel, &v.source, panel, n, t.nb, t.column, g * t.channels,
                            t.channels, m0)
    elif t.packed:
        pack_panel(&t.panel, &v.source, panel, n, g * t.channels, t.channels, m0, 0)
        base = panel - m0 * size
    else:
        base = v.source.data + n * v.source.stride_n + g * t.channels * v.source.stride_c
    for block in range(part * blocks // v.k_parts, (part + 1) * blocks // v.k_parts):
        if t.depthwise:
            if t.K - block * t.kb < t.kb:  # nobody uses these sums, but denormals would cost time
                memset(panel, 0, t.kb * t.positions * size)
            pack_lanes(&t.panel, &v.source, panel, n, t.kb, block * t.kb,
                       min(t.kb, t.K - block * t.kb), m0 * t.step, t.positions, t.pair_lanes)
        elif v.given != NULL:
            pack_block(t, v.given, v.strides, packed, g, block * t.kb)
            own.weight = packed - (g * t.weight_group + block * t.kb * t.weight_k) * size
        work += run_block(t, &own, m0, base, n, g, block * t.kb, scratch, ahead)
    return work


def products(int dtype, int k, bint add):
    """Address of the routine in a kernel's place where channels are the lanes. If k = 1, the
    last of pairs is single."""
    cdef const lane_ops* ops = lane_ops_of(dtype, vector_bytes() == 64)
    if k == 1 and ops.add_odd != NULL:
        return <size_t> (ops.add_odd if add else ops.set_odd)
    return <size_t> (ops.add if add else ops.set)


@cython.final
cdef class Correlate:
    """An immutable program of engine 1, ready to be executed by any number of threads."""
    cdef Table t
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t scratch_bytes
    cdef readonly Py_ssize_t shared_bytes
    cdef bint swapped, packs_weights

    def __dealloc__(self):
        free(self.t.calls)
        free(self.t.tiles)
        free(self.t.segments)
        free(self.t.phases)
        free(self.t.border_taps)
        free(self.t.panel.windows)
        free(self.t.offsets_a)
        free(self.t.offsets_b)
        free(self.t.tap)

    def __init__(self, sh, bl, program, S, bint swapped, int source_dtype, int out_dtype):
        cdef Table* t = &self.t
        cdef bint wide = vector_bytes() == 64
        source, weight = program.source, program.weight
        t.calls = <Call*> copy_rows(program.calls, sizeof(Call) // 8)
        t.tiles = <Tile*> copy_rows(program.tiles, sizeof(Tile) // 8)
        t.segments = <Segment*> copy_rows(program.segments, sizeof(Segment) // 8)
        t.phases = <Phase*> copy_rows(program.phases, sizeof(Phase) // 8)
        t.border_taps = <border_tap*> copy_rows(program.border_taps, sizeof(border_tap) // 8)
        # Matrices of two columns: vectors of 32 bits have a routine of their own.
        least = 2 if wide and sh.item == 4 else 3
        t.panel.windows = <Window*> copy_rows(
            window_rows(source, sh.planes, least), sizeof(Window) // 8)
        t.panel.n_windows, t.panel.row = len(source.windows), source.row
        t.offsets_a = <unsigned long long*> copy_rows(program.offsets_a, 1)
        t.offsets_b = <unsigned long long*> copy_rows(program.offsets_b, 1)
        t.tap = <int64_t*> copy_rows(weight.tap, 1)
        if weight.c == 1 and S > 2 and weight.tap == tuple([i * weight.tap[1] for i in range(S)]):
            t.tap_step = weight.tap[1]
        t.n_phases = len(program.phases)
        t.N, t.groups, t.K, t.S = sh.N, sh.groups, sh.K, S
        t.merged = max(1, len(sh.merged))
        t.filters = t.K // t.merged
        t.channels, t.C, t.panel.pairs = sh.channels, sh.C, sh.pairs
        t.panel.tap_pairs = source.pairs
        t.panel.spacing = max([run.spacing for phase in sh.phases for run in phase.runs], default=1)
        t.planes, t.out_width = sh.planes, sh.out_width
        t.tile, t.kb, t.cb, t.chunk = bl.tile, bl.kb, weight.cb, bl.chunk
        counts = [count for _, _, count, _, _ in program.phases]
        t.chunks = (max(counts, default=0) + bl.chunk - 1) // bl.chunk
        t.unreached = t.merged * sum(counts) < sh.out_width
        t.packed, t.direct = bl.packed, bl.direct
        t.weight_k, t.weight_c = weight.k * t.merged, weight.c
        t.weight_block, t.weight_group = weight.block, weight.group
        t.source_ops = pack_ops_of(source_dtype, wide)
        t.out_ops = pack_ops_of(out_dtype, wide)
        t.computed_ops = pack_ops_of(1 if sh.item == 8 else 0, wide)
        t.filters_in_lanes = bl.transposed
        t.nb, t.column, t.step = bl.nb, source.column * source.step, source.step
        self.items = t.N // t.nb * t.groups * t.chunks
        # The compact tile (and its transpose), rows of all phases, partial sums, then the panel.
        t.interleaved = bl.interleaved
        t.lane_step = t.n_phases if t.interleaved and sh.depthwise else 1
        columns = t.tile * t.lane_step * (t.nb + 1 if t.filters_in_lanes else 1)
        if t.interleaved and t.filters_in_lanes and not sh.depthwise:
            columns = t.tile * t.nb * t.n_phases + 2 * t.out_width
        t.compact_bytes = 0 if t.direct else t.kb * columns * sh.item
        if t.interleaved and not t.filters_in_lanes:
            t.rows_bytes = t.chunk * sh.item * (t.kb * t.n_phases + max(t.n_phases, t.merged))
        t.partial_bytes = program.partial * sh.item
        t.partial_row = t.partial_bytes // (bl.split * sh.K)
        panel = t.C * t.panel.row if t.packed else 0
        if t.filters_in_lanes:
            t.positions = sum([w.width for w in source.windows])
            panel = source.column * t.positions
        t.depthwise = sh.depthwise
        t.fetched = bl.fetched
        if not sh.depthwise:
            self.set_lines(sh, bl, program)
        if sh.depthwise and sh.tap_pairs:
            t.pair_lanes, t.pair_taps = program.pair_lanes
        if bl.by_block:
            t.block_bytes = (t.kb * t.C * S * sh.item + 63) // 64 * 64
        self.scratch_bytes = (
            t.compact_bytes + t.rows_bytes + t.partial_bytes + t.block_bytes + panel * sh.item)
        self.shared_bytes = weight.group * sh.groups * t.source_ops.computed if weight.packed else 0
        self.swapped, self.packs_weights = swapped, weight.packed

    cdef set_lines(self, sh, bl, program):
        """How many lines are fetched with each call of a kernel: of the rows that the item writes,
        and of what the next one reads, which is set, too, relative to its columns."""
        cdef Table* t = &self.t
        windows = program.source.windows
        calls = sum([count * program.tiles[tile][1] for _, _, count, tile in program.segments])
        calls = max(1, calls // max(1, t.chunks))  # of a block of filters
        if bl.rows_fetched:
            step = max(t.n_phases, t.merged)
            lines = t.kb // t.merged * (t.chunk * step * t.out_ops.stored // 64 + 1)
            t.out_lines = lines // calls + 1
        if not bl.fetched or not windows:
            return
        t.reads_from = min([w.plane + w.shift * sh.planes for w in windows])
        t.reads_to = max([w.plane + (w.shift + w.width - 1) * sh.planes for w in windows]) + 1
        lines = t.channels * ((t.reads_to - t.reads_from) * t.source_ops.stored // 64 + 1)
        t.lines = lines // (calls * ((t.K + t.kb - 1) // t.kb)) + 1

    def pack(self, cnp.ndarray weight):
        """The weights in the layout of this program, for `run` to use again and again; None if it
        uses them as they lie."""
        cdef Packed packed
        if not self.packs_weights:
            return None
        packed = Packed(self.shared_bytes)
        self.pack_into(weight, packed.memory, 1)
        return packed

    cdef void set_strides(self, cnp.ndarray weight, Py_ssize_t* strides):
        """By (group, filter, channel, tap): backward data swaps the roles of the first axes."""
        strides[1], strides[2] = cnp.PyArray_STRIDE(weight, 0), cnp.PyArray_STRIDE(weight, 1)
        strides[0], strides[3] = self.t.filters * strides[1], cnp.PyArray_STRIDE(weight, 2)
        if self.swapped:
            strides[0] = self.t.channels * strides[1]
            strides[1], strides[2] = strides[2], strides[1]

    cdef void pack_into(self, cnp.ndarray weight, char* memory, int threads):
        cdef Table* t = &self.t
        cdef const char* data = <const char*> cnp.PyArray_DATA(weight)
        cdef Py_ssize_t strides[4]
        cdef int64_t i, rows = t.groups * t.filters
        cdef void (*pack_one)(const Table*, const char*, const Py_ssize_t*, char*, int64_t) \
            noexcept nogil
        pack_one = pack_weight_row
        self.set_strides(weight, strides)
        if t.filters_in_lanes:
            pack_one, rows = pack_weight_block, t.groups * ((t.filters + t.kb - 1) // t.kb)
            if not t.panel.pairs and strides[2] != t.S * strides[3] and not t.depthwise:
                pack_one = pack_channels
                rows = t.groups * ((t.C + PACKED_CHANNELS - 1) // PACKED_CHANNELS)
        elif t.panel.pairs:
            if strides[1] < strides[2]:  # as in backward data
                pack_one, i = pack_channel_pairs, pairs_filters(t)
                rows = t.groups * ((t.filters + i - 1) // i)
        elif t.S == t.weight_c == 1 and (
                strides[1] == t.source_ops.stored != strides[2]):
            pack_one = pack_one_tap
            rows = t.groups * ((t.filters + ONE_TAP_FILTERS - 1) // ONE_TAP_FILTERS)
        with nogil:
            if threads == 1:
                for i in range(rows):
                    pack_one(t, data, strides, memory, i)
            else:
                for i in prange(rows, num_threads=threads, schedule="static"):
                    pack_one(t, data, strides, memory, i)

    def run(self, cnp.ndarray source, cnp.ndarray weight, Packed packed, cnp.ndarray bias,
            bint relu, cnp.ndarray out, int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued.

        Returns -1, and does nothing, if the program reads arrays in place and these are not plain.
        """
        cdef Table* t = &self.t
        cdef Arrays v
        cdef int64_t work, i, items = self.items, blocks = (t.K + t.kb - 1) // t.kb
        cdef bint by_block = packed is None and t.block_bytes > 0
        cdef Scratch scratch
        if not t.packed and not cnp.PyArray_ISCARRAY_RO(source):
            return -1
        if not self.packs_weights and not cnp.PyArray_ISCARRAY_RO(weight):
            return -1
        v.source = operand(source, 1 if t.depthwise else t.planes, t.source_ops)
        v.bias = NULL
        if bias is not None:
            v.bias = <const char*> cnp.PyArray_DATA(bias)
        v.out = <char*> cnp.PyArray_DATA(out)
        v.relu = relu
        v.weight, v.given = <const char*> cnp.PyArray_DATA(weight), NULL
        threads = team_of(min(threads, items * blocks))
        # Filters are divided only where there are few chunks for the threads, because each part
        # packs the panel again. No sum depends on it.
        v.k_parts = 1 if threads == 1 else min(blocks, (4 * threads + items - 1) // max(1, items))
        if t.depthwise:  # nothing is shared: one block after the other reads its rows as they lie
            v.k_parts = blocks
        items *= v.k_parts
        shared = 0 if packed is not None or by_block else self.shared_bytes
        scratch = Scratch(threads, self.scratch_bytes, shared)
        if packed is not None:
            v.weight = packed.memory
        elif by_block:
            v.given = v.weight
            self.set_strides(weight, v.strides)
        elif self.packs_weights:
            self.pack_into(weight, scratch.shared, threads)
            v.weight = scratch.shared
        with nogil:
            if t.unreached:
                for i in prange(t.N * t.groups * t.K, num_threads=threads, schedule="static"):
                    fill_row(t, &v, i)
            work = team_run(run_item, t, &v, items, threads, scratch.memory, scratch.stride)
        return work
