"""Packing of panels, for both engines. The layout is explained in _layout.py."""
from libc.stdint cimport int64_t

from xsmmconv._pack cimport load_pairs, pack_ops


cdef struct Window:
    int64_t plane
    int64_t shift
    int64_t width
    int64_t position


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


cdef inline void pack_panel(const Panel* p, const Operand* v, char* panel, int64_t n, int64_t c0,
                            int64_t channels, int64_t m0) noexcept nogil:
    """Copy what the positions from m0 on read of channels c0, c0 + 1, ... to the panel.

    Columns outside the source are left as they are: no list ever points at them.
    """
    cdef int64_t w, i, c, lo, hi, plane_length, size = v.ops.computed
    cdef const char* row
    cdef char* place
    cdef Window* win
    for w in range(p.n_windows):
        win = &p.windows[w]
        plane_length = (v.width - win.plane + v.planes - 1) // v.planes
        lo = max(0, m0 + win.shift)
        hi = min(plane_length, m0 + win.shift + win.width)
        if lo >= hi:
            continue
        for i in range((channels + p.pairs) // (1 + p.pairs)):
            c = i * (1 + p.pairs)
            row = (v.data + n * v.stride_n + (c0 + c) * v.stride_c
                   + (win.plane + lo * v.planes) * v.stride_w)
            place = panel + (i * p.row + win.position + lo - m0 - win.shift) * size
            if p.pairs:
                load_pairs(place, row, row + v.stride_c if c + 1 < channels else NULL,
                           v.stride_w * v.planes, hi - lo)
            else:
                v.ops.load(place, row, v.stride_w * v.planes, hi - lo)


cdef inline void pack_transposed(const Panel* p, const Operand* v, char* panel, int64_t n0,
                                 int64_t nb, int64_t column, int64_t c0, int64_t channels,
                                 int64_t m0) noexcept nogil:
    """The same to [position][batch row][channel], for nb rows of the batch; `column` elements from
    position to position."""
    cdef int64_t w, n, lo, hi, plane_length, size = v.ops.computed
    cdef const char* first
    cdef Window* win
    for w in range(p.n_windows):
        win = &p.windows[w]
        plane_length = (v.width - win.plane + v.planes - 1) // v.planes
        lo = max(0, m0 + win.shift)
        hi = min(plane_length, m0 + win.shift + win.width)
        if lo >= hi:
            continue
        for n in range(nb):
            first = (v.data + (n0 + n) * v.stride_n + c0 * v.stride_c
                     + (win.plane + lo * v.planes) * v.stride_w)
            v.ops.transpose(
                panel + ((win.position + lo - m0 - win.shift) * column + n * (column // nb)) * size,
                column, first, v.stride_c, v.stride_w * v.planes, channels, hi - lo)
