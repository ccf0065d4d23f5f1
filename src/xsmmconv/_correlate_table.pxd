"""The program of engine 1 as structs, and the packing of weights into its layout."""
from libc.stdint cimport int64_t

from xsmmconv._kernel cimport kernel_t
from xsmmconv._pack cimport (
    border_tap, narrow, pack_ops, pack_ops_of, pair_lanes, prefetch_row, scatter_lanes,
    scatter_pairs,
)
from xsmmconv._panel cimport Operand, Panel


cdef enum:
    ONE_TAP_FILTERS = 64  # packed together
    PACKED_CHANNELS = 16  # of all filters: their lines stay in L1
    PACKED_PAIRS = 128    # of channels, and of filters with their taps,
    PAIR_COLUMNS = 512    # so many
    CHANNELS_AHEAD = 16   # whose lines are fetched, where a block takes a few of each


cdef struct Call:
    kernel_t kernel      # for kb filters
    kernel_t tail        # for the last, smaller block of filters
    int64_t work         # multiply-adds of one call
    int64_t tail_work
    int64_t a            # bytes: source, weights and result relative to the tile
    int64_t b
    int64_t c
    int64_t columns
    int64_t first        # in the lists of offsets
    unsigned long long count


cdef struct Tile:
    int64_t first_call
    int64_t calls
    int64_t fill         # no call covers the whole tile: zero it first
    int64_t border       # the first of the border taps, or -1: one channel and one filter
    int64_t taps
    int64_t work         # multiply-adds of these
    int64_t partial      # calls for partial sums, which then are what the border taps add up
    int64_t rounded      # the call whose kernels write BF16 rows themselves, or -1


cdef struct Segment:
    int64_t start
    int64_t width
    int64_t count
    int64_t tile


cdef struct Phase:
    int64_t first
    int64_t step
    int64_t count
    int64_t first_segment
    int64_t segments


cdef struct Table:
    # The program and its extents, flat.
    Call* calls
    Tile* tiles
    Segment* segments
    Phase* phases
    border_tap* border_taps
    Panel panel
    unsigned long long* offsets_a
    unsigned long long* offsets_b
    int64_t* tap         # where each tap's weights go when they are packed; -1: nowhere
    int64_t tap_step     # their distance, if channels are neighbours and taps equally far apart
    int64_t n_phases
    int64_t N
    int64_t groups
    int64_t channels     # of the source, per group
    int64_t C            # steps of k: channels, or pairs of them
    int64_t K
    int64_t filters      # of the weights: K, unless phases of a stride are filters, too,
    int64_t merged       # so many of them; otherwise 1
    int64_t S
    int64_t planes
    int64_t out_width
    int64_t tile
    int64_t kb
    int64_t cb
    int64_t chunk
    int64_t chunks
    int64_t nb           # batch rows of an item
    int64_t column       # distance of columns in the source, elements
    int64_t step         # and in positions of the panel, where it is transposed
    int64_t lane_step    # of the columns of a phase in a transposed tile: that has all of them
    int64_t positions    # of the panel, where it is transposed
    int64_t weight_k     # strides of the weight layout, elements
    int64_t weight_c
    int64_t weight_block
    int64_t weight_group
    bint packed
    bint filters_in_lanes
    bint depthwise       # each filter has a channel of its own, and they are the lanes together
    int64_t pair_lanes   # there, BF16 is multiplied in pairs: positions from tap to tap,
    int64_t pair_taps    # and elements of the weights
    bint fetched         # what comes next is fetched meanwhile: where channels are the lanes, a
    # tile, otherwise with each call so many lines of what the next chunk copies to the panel,
    int64_t lines
    int64_t out_lines    # and of the rows it writes when all phases of a chunk are computed
    int64_t reads_from   # the columns of the source that a chunk at 0 reads
    int64_t reads_to
    bint direct
    bint interleaved     # rows are written for a chunk of all phases together
    bint unreached       # there are columns that no phase covers: exact zeros, or the bias
    int64_t compact_bytes
    int64_t rows_bytes   # of a chunk of all phases, and of a row of them interleaved
    int64_t partial_bytes
    int64_t partial_row  # of the partial sums of a filter
    int64_t block_bytes  # of a block of filters packed right before its use, or 0
    const pack_ops* source_ops
    const pack_ops* computed_ops
    const pack_ops* out_ops


cdef struct Arrays:
    # The operands of one execution; strides in bytes.
    Operand source
    const char* weight   # in the layout of the plan, computing type,
    const char* given    # or as they are, if each block is packed by itself
    Py_ssize_t[4] strides  # of these, by (group, filter, channel, tap)
    const char* bias     # computing type, or NULL
    char* out
    int relu
    int64_t k_parts      # work items that share a chunk, each with its own filters


cdef inline void pack_weight_row(const Table* t, const char* src, const Py_ssize_t* strides,
                                 char* dst, int64_t row) noexcept nogil:
    """Bring the weights of one filter of one group into the layout of the plan."""
    cdef int64_t g = row // t.filters, k = row % t.filters, c = 0, size = t.source_ops.computed
    cdef int64_t place = g * t.weight_group + k * t.weight_k
    src += g * strides[0] + k * strides[1]
    if t.panel.pairs:
        while c < t.channels:
            # Taps of even numbers of channels, if they are neighbours: a matrix of 16-bit elements.
            if t.tap_step and t.channels % 2 == 0 and strides[3] == t.source_ops.stored:
                pack_ops_of(3, True).transpose_out(
                    dst + place * size, 2 * t.tap_step, src + c * strides[2], strides[2],
                    strides[3], min(2 * t.cb, t.channels - c), t.S)
            else:
                scatter_pairs(dst + place * size, 0, t.tap, src + c * strides[2], 0, strides[2],
                              strides[3], 1, min(2 * t.cb, t.channels - c), t.S)
            c += 2 * t.cb
            place += t.weight_block
        return
    while c < t.C:
        if t.tap_step:  # a matrix of channels x taps
            t.source_ops.transpose(dst + place * size, t.tap_step, src + c * strides[2],
                                   strides[2], strides[3], min(t.cb, t.C - c), t.S)
        else:
            t.source_ops.scatter(dst + place * size, t.weight_c, t.tap, src + c * strides[2],
                                 strides[2], strides[3], min(t.cb, t.C - c), t.S)
        c += t.cb
        place += t.weight_block
    if t.panel.tap_pairs:  # BF16 before the FP32
        c = t.C * t.weight_c
        dst += (g * t.weight_group + k * t.weight_k) * size
        narrow(dst, dst + (c + 1) // 2 * size, c)


cdef inline void pack_weight_block(const Table* t, const char* src, const Py_ssize_t* strides,
                                   char* dst, int64_t row) noexcept nogil:
    """The same for a block of filters of one group where they fill the lanes, and channels and taps
    are one axis: a matrix to be transposed."""
    cdef int64_t blocks = (t.filters + t.kb - 1) // t.kb, g = row // blocks, k = row % blocks * t.kb
    cdef int64_t columns = t.C * t.S, filters = min(t.kb, t.filters - k)
    dst += (g * t.weight_group + k * t.weight_k) * t.source_ops.computed
    src += g * strides[0] + k * strides[1]
    if t.panel.pairs:
        scatter_lanes(dst, t.weight_c, t.kb, src, strides[1], strides[2], strides[3], filters,
                      t.channels, t.S)
        return
    t.source_ops.transpose(dst, t.kb, src, strides[1], strides[3], filters, columns)
    if t.pair_taps:
        pair_lanes(dst, t.pair_taps, columns * t.kb)


cdef inline void pack_channel(const Table* t, const char* one, const Py_ssize_t* strides, char* to,
                              int64_t filters) noexcept nogil:
    """One channel of a block of filters, which are not far apart, as in backward data."""
    cdef int64_t i, size = t.source_ops.computed
    if t.S > 1 and size == t.source_ops.stored:
        t.source_ops.transpose(to, t.kb, one, strides[1], strides[3], filters, t.S)
        return
    for i in range(t.S):  # BF16, of which few at a time cannot be loaded as vectors
        t.source_ops.load(to + t.tap[i] * size, one + i * strides[3], strides[1], filters)


cdef inline void pack_channels(const Table* t, const char* src, const Py_ssize_t* strides,
                               char* dst, int64_t row) noexcept nogil:
    """The same for some channels of all filters of a group: so they lie in memory."""
    cdef int64_t parts = (t.C + PACKED_CHANNELS - 1) // PACKED_CHANNELS, g = row // parts
    cdef int64_t first = row % parts * PACKED_CHANNELS, size = t.source_ops.computed, c, k = 0
    src += g * strides[0]
    while k < t.filters:
        for c in range(first, min(t.C, first + PACKED_CHANNELS)):
            pack_channel(t, src + k * strides[1] + c * strides[2], strides,
                         dst + (g * t.weight_group + k * t.weight_k + c * t.weight_c) * size,
                         min(t.kb, t.filters - k))
        k += t.kb


cdef inline void pack_block(const Table* t, const char* src, const Py_ssize_t* strides, char* dst,
                            int64_t g, int64_t k) noexcept nogil:
    """The block of filters from k on, right before it is used, if filters are the lanes."""
    cdef int64_t size = t.source_ops.computed, c, filters = min(t.kb, t.filters - k)
    cdef int64_t blocks = (t.filters + t.kb - 1) // t.kb, few = filters * t.S * t.source_ops.stored
    cdef const char* one = src + g * strides[0] + k * strides[1]
    if t.panel.pairs or strides[2] == t.S * strides[3]:
        dst -= (g * t.weight_group + k * t.weight_k) * size
        pack_weight_block(t, src, strides, dst, g * blocks + k // t.kb)
        return
    for c in range(t.C):
        if strides[1] == t.S * strides[3]:
            prefetch_row(one + CHANNELS_AHEAD * strides[2], few)
        pack_channel(t, one, strides, dst + c * t.weight_c * size, filters)
        one += strides[2]


cdef inline int64_t pairs_filters(const Table* t) noexcept nogil:
    """Filters that pack_channel_pairs takes together."""
    return max(1, PAIR_COLUMNS // t.S)


cdef inline void pack_channel_pairs(const Table* t, const char* src, const Py_ssize_t* strides,
                                    char* dst, int64_t row) noexcept nogil:
    """The same for some filters whose taps are neighbours, of pairs of channels: what is written
    of these stays in L2 until its lines are full."""
    cdef int64_t filters = pairs_filters(t), parts = (t.filters + filters - 1) // filters
    cdef int64_t g = row // parts, k = row % parts * filters, size = t.source_ops.computed
    cdef int64_t c = 0, some
    dst += (g * t.weight_group + k * t.weight_k) * size
    src += g * strides[0] + k * strides[1]
    while c < t.C:
        some = min(min(t.C - c, PACKED_PAIRS), t.cb - c % t.cb)
        scatter_pairs(dst + (c // t.cb * t.weight_block + c % t.cb) * size, t.weight_k, t.tap,
                      src + 2 * c * strides[2], strides[1], strides[2], strides[3],
                      min(filters, t.filters - k), min(2 * some, t.channels - 2 * c), t.S)
        c += some


cdef inline void pack_one_tap(const Table* t, const char* src, const Py_ssize_t* strides, char* dst,
                              int64_t row) noexcept nogil:
    """The same for some filters of one tap that are neighbours, as in backward data: a matrix to
    be transposed."""
    cdef int64_t blocks = (t.filters + ONE_TAP_FILTERS - 1) // ONE_TAP_FILTERS, c = 0
    cdef int64_t g = row // blocks, k = row % blocks * ONE_TAP_FILTERS, size = t.source_ops.computed
    dst += (g * t.weight_group + k * t.weight_k) * size
    src += g * strides[0] + k * strides[1]
    while c < t.C:
        t.source_ops.transpose(dst, t.weight_k, src + c * strides[2], strides[2], strides[1],
                               min(t.cb, t.C - c), min(ONE_TAP_FILTERS, t.filters - k))
        c += t.cb
        dst += t.weight_block * size
