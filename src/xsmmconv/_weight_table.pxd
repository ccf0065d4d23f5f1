"""The table that engine 2 executes (_weight_gradient.pyx), what an item of it is, where tiles are,
and what comes to L2 while one of them is computed."""
from libc.stdint cimport int64_t

from xsmmconv._kernel cimport kernel_t
from xsmmconv._pack cimport lane_ops, pack_ops, rows_ahead
from xsmmconv._panel cimport Operand, Panel


cdef struct Call:
    # Whole and last block of row channels x whole and last block of lanes.
    kernel_t kernel[4]
    int64_t positions
    int64_t n
    int64_t last_n
    int64_t by_taps      # 1: n = taps, one call per row channel; 2: depthwise, no matrix
    int64_t a
    int64_t b
    int64_t c
    int64_t first        # in the lists of offsets; of depthwise taps: the distance of their inputs
    unsigned long long count


cdef struct Tile:
    int64_t first_call
    int64_t calls
    int64_t packed
    int64_t pairs        # multiplied as pairs of BF16 positions
    int64_t halo         # earlier positions whose lanes stand beside a position's own; 0: none do
    int64_t lanes        # if not 0: so many are read, of the only block


cdef struct Segment:
    int64_t plane        # of the lane operand
    int64_t start
    int64_t width
    int64_t count
    int64_t tile


cdef struct Positions:
    int64_t first
    int64_t step
    int64_t count


cdef struct Table:
    # The program and its extents, flat.
    Call* calls
    Tile* tiles
    Segment* segments
    Panel panel
    unsigned long long* offsets_a
    unsigned long long* offsets_b
    int64_t* tap
    int64_t N
    int64_t groups
    int64_t lanes
    int64_t rows
    int64_t S
    int64_t lane_planes
    int64_t row_planes
    int64_t tile
    int64_t columns      # that a panel is for
    int64_t lb
    int64_t stack        # taps for which each lane stands, in tiles with a halo
    int64_t lag          # from one to the next, in positions
    int64_t nb           # rows of the batch in a tile
    int64_t l_blocks     # of an item, at most
    int64_t all_l_blocks
    int64_t rb
    int64_t all_r_blocks
    int64_t slots
    int64_t flush
    int64_t tiles_per_n
    int64_t tap_step     # 1 or -1 if the sums of a row channel's taps lie in that order, else 0
    int64_t lanes_bytes  # of a tile that is transposed,
    int64_t stacked_bytes  # and stacked
    int64_t finished     # row channels that are stored together
    int64_t reads_from   # columns of a row of which position 0 reads the first,
    int64_t reads_to     # and the last
    bint batch           # k is rows of the batch, at these positions of either operand:
    Positions lane_positions
    Positions row_positions
    bint fetched         # while a tile is computed, what the next one reads comes to L2
    bint lanes_are_filters
    bint depthwise       # each lane has a row channel of its own
    bint pairs           # and positions are pairs with the next ones, of BF16
    int64_t lane_step    # if not 0, lanes are taps of one channel, so many columns apart
    bint at_once         # one slot, and a short one: an item stores its sums itself,
    bint set_once        # if there is one tile, block after block of lanes,
    bint direct          # or kernels do
    bint filled_up       # the last block of lanes has more in its kernels than are used
    const pack_ops* ops
    const pack_ops* pair_ops
    const pack_ops* sum_ops  # of the computing type
    const lane_ops* lane_ops


cdef struct Arrays:
    # The operands of one execution.
    Operand lane
    Operand row
    char* partials       # sums by group, block of rows, slot and block of lanes
    char* out
    const pack_ops* out_ops
    int64_t l_blocks     # of an item; no sum depends on it


cdef struct Place:
    # Of a tile: its row of the batch, or block of rows, its segment, how many tiles of the row come
    # before this one, and the first position.
    int64_t n
    int64_t s
    int64_t before
    int64_t m


cdef struct Item:
    # Slot, group and part of the result of one work item.
    int64_t slot
    int64_t g
    int64_t l_block      # the first
    int64_t l_blocks
    int64_t r_block
    int64_t r0
    int64_t rows


cdef inline Item item_of(const Table* t, int64_t index, int64_t l_blocks) noexcept nogil:
    cdef Item it
    cdef int64_t l_items = (t.all_l_blocks + l_blocks - 1) // l_blocks
    it.slot = index % t.slots
    index //= t.slots
    it.l_block = index % l_items * l_blocks
    it.l_blocks = min(l_blocks, t.all_l_blocks - it.l_block)
    index //= l_items
    it.r_block = index % t.all_r_blocks
    it.g = index // t.all_r_blocks
    it.r0 = it.r_block * t.rb
    it.rows = min(t.rb, t.rows - it.r0)
    return it


cdef inline Place place_of(const Table* t, int64_t i, Place last) noexcept nogil:
    """Where the i-th tile of a group is, after `last`, an earlier one."""
    cdef int64_t n = i // t.tiles_per_n, in_n = i % t.tiles_per_n
    if n != last.n:
        last.n, last.s, last.before = n, 0, 0
    while in_n >= last.before + t.segments[last.s].count:
        last.before += t.segments[last.s].count
        last.s += 1
    last.m = t.segments[last.s].start + (in_n - last.before) * t.segments[last.s].width
    return last


cdef inline void rows_of(const Table* t, const Operand* v, const Place* there, int64_t c,
                         int64_t rows, int64_t lo, int64_t hi, int64_t calls, rows_ahead* ahead) \
        noexcept nogil:
    """Columns lo to hi - 1 of some rows, of which each call fetches some lines."""
    ahead.read = v.data + there.n * t.nb * v.stride_n + c * v.stride_c + lo * v.stride_w
    ahead.read_stride, ahead.width, ahead.rows = v.stride_c, (hi - lo) * v.stride_w, rows
    if t.nb > 1:  # whole rows, which follow each other
        ahead.read_stride, ahead.width, ahead.rows = v.stride_n, rows * v.stride_c, t.nb
    if v.stride_w != v.ops.stored or hi <= lo or calls == 0:
        ahead.rows = 0
    ahead.done, ahead.lines = 0, 0
    if ahead.rows > 0:
        ahead.lines = (ahead.rows * (ahead.width // 64 + 1) + calls - 1) // calls


cdef inline void set_ahead(const Table* t, const Arrays* v, const Item* it, const Place* here,
                           const Place* there, rows_ahead* ahead) noexcept nogil:
    """What the tile `there` reads of either operand and the one before it, `here`, has not."""
    cdef const Segment* seg = &t.segments[there.s]
    cdef const Tile* tile = &t.tiles[t.segments[here.s].tile]
    cdef int64_t calls = 0, i, lo, hi, l0 = it.l_block * t.lb
    for i in range(tile.calls):
        calls += it.rows if t.calls[tile.first_call + i].by_taps else 1
    calls *= it.l_blocks
    lo = seg.plane + there.m * t.lane_planes
    rows_of(t, &v.lane, there, it.g * t.lanes + l0, min(it.l_blocks * t.lb, t.lanes - l0), lo,
            lo + seg.width * t.lane_planes, calls, &ahead[0])
    lo = t.reads_to if there.n == here.n and there.m > here.m else t.reads_from
    lo = max(0, there.m * t.row_planes + lo)
    hi = min(v.row.width, (there.m + seg.width - 1) * t.row_planes + t.reads_to + 1)
    rows_of(t, &v.row, there, it.g * t.rows + it.r0, it.rows, lo, hi, calls, &ahead[1])
