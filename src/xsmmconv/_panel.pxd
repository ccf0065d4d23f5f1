"""Packing of panels, for both engines. The layout is explained in _layout.py."""
from libc.stdint cimport int64_t

from xsmmconv._pack cimport (
    load_pairs, load_pairs_together, pack_ops, pack_ops_of, pair_lanes, pair_taps, prefetch_row,
    scatter_pairs, transpose_paired,
)


cdef enum:
    _AHEAD = 2           # rows: the processor cannot guess where the next one begins


cdef struct Window:
    int64_t plane
    int64_t shift
    int64_t width
    int64_t position
    int64_t together     # windows from this one on that hold neighbours, equally far apart


cdef struct Operand:
    # A user's array (N, groups*C, width) read with a stride of `planes`; strides in bytes.
    const char* data
    int64_t stride_n
    int64_t stride_c
    int64_t stride_w
    int64_t width
    int64_t planes
    const pack_ops* ops


cdef struct Panel:
    Window* windows
    int64_t n_windows
    int64_t row          # elements
    bint pairs           # an element is a pair of BF16 channels
    int64_t tap_pairs    # where pairs of taps, of BF16, begin in a row; 0: there are none
    int64_t spacing      # of the taps of a pair


cdef struct Span:
    # Elements of a window that are in the source; bytes from the beginnings of the rows.
    int64_t place
    int64_t source
    int64_t count


cdef inline Span span_of(const Window* win, const Operand* v, int64_t m0, int64_t first,
                         int64_t end) noexcept nogil:
    """The elements first, ..., end - 1, as far as they are."""
    cdef int64_t plane_length = (v.width - win.plane + v.planes - 1) // v.planes
    cdef int64_t lo = max(first, -m0 - win.shift)
    cdef Span span
    span.place = (win.position + lo) * v.ops.computed
    span.source = (win.plane + (m0 + win.shift + lo) * v.planes) * v.stride_w
    span.count = min(end, plane_length - m0 - win.shift) - lo
    return span


cdef inline void load_span(const Span* span, const Operand* v, const char* row, bint pairs,
                           bint odd, char* panel_row) noexcept nogil:
    cdef char* place = panel_row + span.place
    if span.count <= 0:
        return
    row += span.source
    if pairs:
        load_pairs(place, row, row + v.stride_c if not odd else NULL, v.stride_w * v.planes,
                   span.count)
    else:
        v.ops.load(place, row, v.stride_w * v.planes, span.count)


cdef inline void load_window(const Window* win, const Operand* v, const char* row, bint pairs,
                             char* panel_row, int64_t m0, int64_t first, int64_t end) \
        noexcept nogil:
    cdef Span span = span_of(win, v, m0, first, end)
    load_span(&span, v, row, pairs, False, panel_row)


cdef inline int64_t load_together(const Window* win, const Operand* v, const char* row, bint pairs,
                                  char* panel_row, int64_t m0, int64_t width) noexcept nogil:
    """All windows that hold neighbours, where they all are in the source: a matrix, transposed."""
    cdef const char* first
    cdef char* place
    cdef int64_t planes = v.planes, n = win.together, w
    cdef int64_t at = (m0 + win.shift) * planes + win.plane, room = v.width - at - n
    cdef int64_t lo = 0 if at >= 0 else (planes - 1 - at) // planes
    cdef int64_t hi = min(width, room // planes + 1 if room >= 0 else 0)
    transpose = v.ops.transpose if v.ops.computed > 2 else v.ops.transpose_out
    if lo < hi:
        place = panel_row + (win.position + lo) * v.ops.computed
        first = row + (at + lo * planes) * v.stride_w
        if pairs:
            load_pairs_together(place, win[1].position - win.position, first, first + v.stride_c,
                                planes, hi - lo, n)
        else:
            transpose(place, win[1].position - win.position, first, planes * v.stride_w,
                      v.stride_w, hi - lo, n)
    else:
        lo = hi = width
    for w in range(n):
        load_window(win + w, v, row, pairs, panel_row, m0, 0, lo)
        load_window(win + w, v, row, pairs, panel_row, m0, hi, width)
    return n


cdef inline bint pack_neighbours(const Panel* p, const Operand* v, char* panel, int64_t n,
                                 int64_t c0, int64_t channels, int64_t m0, int64_t fewer) \
        noexcept nogil:
    """pack_panel for channels that lie beside each other, as in a view of (N, width, C) arrays: a
    matrix of positions and channels, transposed. Returns whether they do."""
    cdef int64_t w, size = v.ops.computed, each = 1 + p.pairs
    cdef const char* source
    cdef Span span
    if v.stride_c != v.ops.stored or v.stride_w == v.stride_c or channels % each or p.tap_pairs:
        return False
    # A pair of channels is a number of 32 bits.
    transpose = v.ops.transpose if size > 2 else v.ops.transpose_out
    if p.pairs:
        transpose, size = pack_ops_of(0, True).transpose, 4
    for w in range(p.n_windows):
        span = span_of(p.windows + w, v, m0, 0, p.windows[w].width - fewer)
        if span.count > 0:
            source = v.data + n * v.stride_n + c0 * v.stride_c + span.source
            transpose(panel + span.place, p.row, source, v.stride_w * v.planes, each * v.stride_c,
                      span.count, channels // each)
    return True


cdef inline void pack_panel(const Panel* p, const Operand* v, char* panel, int64_t n, int64_t c0,
                            int64_t channels, int64_t m0, int64_t fewer) noexcept nogil:
    """Copy what the positions from m0 on read of channels c0, c0 + 1, ... to the panel: all that it
    is for, or so many `fewer`.

    Columns outside the source are left as they are: no list ever points at them.
    """
    cdef int64_t w, i, c, r, each = 1 + p.pairs, ahead, step = v.planes * v.stride_w
    cdef const char* row
    cdef char* panel_row
    cdef bint plain = v.stride_w == v.ops.stored
    cdef Span span
    if pack_neighbours(p, v, panel, n, c0, channels, m0, fewer):
        return
    if p.n_windows == 1:
        span = span_of(p.windows, v, m0, 0, p.windows[0].width - fewer)
    for i in range((channels + p.pairs) // each):
        c = i * each
        row = v.data + n * v.stride_n + (c0 + c) * v.stride_c
        panel_row = panel + i * p.row * v.ops.computed
        ahead = _AHEAD * each
        if plain and p.n_windows == 1:
            for r in range(ahead, min(ahead + each, channels - c)):
                prefetch_row(row + r * v.stride_c + (m0 + p.windows[0].shift) * step,
                             (p.windows[0].width - fewer) * step)
        w = 0
        while w < p.n_windows:  # all windows of a row while it is in L1
            if plain and p.windows[w].together > 1 and c + p.pairs < channels:
                w += load_together(p.windows + w, v, row, p.pairs, panel_row, m0,
                                   p.windows[w].width - fewer)
                continue
            if p.n_windows > 1:
                span = span_of(p.windows + w, v, m0, 0, p.windows[w].width - fewer)
            load_span(&span, v, row, p.pairs, c + 1 == channels, panel_row)
            w += 1
        if p.tap_pairs:
            pair_taps(panel_row + p.tap_pairs * v.ops.computed, panel_row, p.spacing,
                      p.tap_pairs - p.spacing)


cdef inline bint whole_windows(const Window* win, const Operand* v, int64_t m0, int64_t lo,
                               int64_t hi) noexcept nogil:
    """Whether all of the windows together are in the source where the first one is."""
    cdef int64_t last = (win.plane + (hi - 1) * v.planes) + win.together - 1
    return lo == m0 + win.shift and hi - lo == win.width and last < v.width


cdef inline void pack_transposed(const Panel* p, const Operand* v, char* panel, int64_t n0,
                                 int64_t nb, int64_t column, int64_t c0, int64_t channels,
                                 int64_t m0) noexcept nogil:
    """The same to [position][batch row][channel], for nb rows of the batch; `column` elements from
    position to position."""
    cdef int64_t w, n, m, lo, hi, plane_length, size = v.ops.computed, start = 0, following = 0
    cdef const char* first
    cdef char* place
    cdef Window* win
    for w in range(p.n_windows):
        if w < following:
            continue
        win = &p.windows[w]
        plane_length = (v.width - win.plane + v.planes - 1) // v.planes
        lo = max(0, m0 + win.shift)
        hi = min(plane_length, m0 + win.shift + win.width)
        if lo >= hi:
            continue
        if win.together > hi - lo and not p.pairs and whole_windows(win, v, m0, lo, hi):
            # What a position reads of all of these are neighbours in the source.
            following = w + win.together
            for n in range(nb):
                for m in range(lo, hi):
                    first = (v.data + (n0 + n) * v.stride_n + c0 * v.stride_c
                             + (win.plane + m * v.planes) * v.stride_w)
                    place = (panel + ((win.position + m - m0 - win.shift) * column
                                      + n * (column // nb)) * size)
                    v.ops.transpose(place, (win[1].position - win.position) * column, first,
                                    v.stride_c, v.stride_w, channels, win.together)
            continue
        for n in range(nb):
            first = (v.data + (n0 + n) * v.stride_n + c0 * v.stride_c
                     + (win.plane + lo * v.planes) * v.stride_w)
            place = (panel + ((win.position + lo - m0 - win.shift) * column
                              + n * (column // nb)) * size)
            if p.pairs:  # neighbours as they are: positions take the part of filters
                scatter_pairs(place, column, &start, first, v.stride_w * v.planes, v.stride_c,
                              v.stride_w * v.planes, hi - lo, channels, 1)
            else:
                v.ops.transpose(place, column, first, v.stride_c, v.stride_w * v.planes, channels,
                                hi - lo)


cdef inline void pack_lanes(const Panel* p, const Operand* v, char* panel, int64_t n,
                            int64_t lanes, int64_t c0, int64_t channels, int64_t m0,
                            int64_t positions, int64_t distance) noexcept nogil:
    """The same for channels that are the lanes, one vector a position. With a `distance`, these are
    pairs of BF16 with the one so many positions further on."""
    cdef Span span
    if distance == 1 == p.n_windows and v.planes == 1 and v.stride_w == v.ops.stored:
        span = span_of(p.windows, v, m0, 0, positions)
        if span.count > 0:
            transpose_paired(panel + span.place * lanes,
                             v.data + n * v.stride_n + c0 * v.stride_c + span.source, v.stride_c,
                             channels, span.count)
        return
    pack_transposed(p, v, panel, n, 1, lanes, c0, channels, m0)
    if distance:
        pair_lanes(panel, distance * lanes, positions * lanes)
