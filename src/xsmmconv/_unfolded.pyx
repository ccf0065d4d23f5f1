"""All passes for few positions: each weight is read, or written, once, where it lies.

With one to four positions of the output there is nothing to tile: moving the weights is the work.
What the positions read of x is unfolded instead, to rows like those of the weights. Backward data
is added up in such rows, and folded back.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
cimport cython
cimport numpy as cnp

from xsmmconv._memory cimport Scratch, operand
from xsmmconv._pack cimport element_ops_of, pack_ops, pack_ops_of
from xsmmconv._panel cimport Operand
from xsmmconv._team cimport team_item, team_of, team_run

from xsmmconv._dispatch import vector_bytes

cnp.import_array()

cdef extern from "_unfolded.h" nogil:
    ctypedef struct unfolded:
        char* weights
        Py_ssize_t weights_row
        Py_ssize_t filters
        Py_ssize_t n
        char* unfolded
        Py_ssize_t unfolded_row
        const char* masks
        Py_ssize_t ahead
    ctypedef void (*unfolded_t)(const unfolded* u, void* by_filter) noexcept nogil
    ctypedef struct unfolded_ops:
        void (*unfold)(void* to, const char* x, Py_ssize_t stride_c, Py_ssize_t stride_t,
                       Py_ssize_t C, Py_ssize_t S, Py_ssize_t first, Py_ssize_t end) noexcept nogil
        void (*fold)(char* to, Py_ssize_t width, const char* sums, Py_ssize_t sums_row,
                     Py_ssize_t C, Py_ssize_t S, Py_ssize_t d, Py_ssize_t positions,
                     const int64_t* place, const int64_t* first, const int64_t* end) noexcept nogil
        void (*load)(char* to, const char* grad, Py_ssize_t stride_n, Py_ssize_t stride_k,
                     Py_ssize_t stride_q, Py_ssize_t filters, Py_ssize_t N, Py_ssize_t Q) \
            noexcept nogil
        void (*store)(char* to, Py_ssize_t stride_n, const char* sums, Py_ssize_t filters,
                      Py_ssize_t N, Py_ssize_t Q, const char* bias, int relu) noexcept nogil
    enum: UNFOLDED_DOTS, UNFOLDED_SUMS, UNFOLDED_OUTER
    unfolded_t unfolded_of(int what, int dtype, bint wide, int positions, bint masked)
    const unfolded_ops* unfolded_ops_of(int dtype)
    void unfolded_masks(char* to, const int64_t* first, const int64_t* end, Py_ssize_t positions,
                        Py_ssize_t S, Py_ssize_t n, int size, bint wide)

cdef enum:
    _POSITIONS = 4
    _FILTERS = 4         # whose weights are copied at a time, if they have to be
    _AHEAD = 4096        # bytes


cdef struct Table:
    # The program: what the routine is chosen by, and extents, per group.
    int what
    int dtype
    bint wide
    bint masked
    bint fetched         # lines of weights are asked for before they are written
    int64_t N
    int64_t Q
    int64_t positions    # N * Q
    int64_t groups
    int64_t C
    int64_t K
    int64_t S
    int64_t d
    int64_t width        # of x
    int64_t[_POSITIONS] first    # taps that a position uses,
    int64_t[_POSITIONS] end
    int64_t[_POSITIONS] place    # and the column of x that tap 0 reads, or would read
    int64_t useful       # of a channel and filter: taps of all positions
    int64_t filters      # of an item, or of the sums: all of them
    int64_t channels     # of a call of the routine
    int64_t items        # of a group
    int64_t row          # bytes of an unfolded row,
    int64_t sums_row     # and of such a row of sums, of a call's channels
    int64_t stored       # bytes of an element in the arrays,
    int64_t size         # and of a sum
    char* masks
    const unfolded_ops* ops
    const pack_ops* rows
    const pack_ops* elements


cdef struct Arrays:
    # The operands of one execution; strides in bytes.
    unfolded_t routine
    Operand x
    Operand grad         # of the output
    char* weights
    int64_t weights_k
    int64_t weights_c
    int64_t weights_t
    bint copied          # the weights do not lie as they are to be read
    char* unfolded       # [group][position][channel][tap]
    char* given          # [group][filter][position]: the gradient
    const char* bias
    char* out
    bint relu


cdef void unfold(const Table* t, const Arrays* v) noexcept nogil:
    """What the positions read of x, with zeros for the padding, and up to a whole vector."""
    cdef int64_t g, p
    cdef char* to = v.unfolded
    cdef const char* x
    memset(to, 0, t.groups * t.positions * t.row)
    for g in range(t.groups):
        for p in range(t.positions):
            x = (v.x.data + p // t.Q * v.x.stride_n + g * t.C * v.x.stride_c
                 + t.place[p] * v.x.stride_w)
            t.ops.unfold(to, x, v.x.stride_c, t.d * v.x.stride_w, t.C, t.S, t.first[p], t.end[p])
            to += t.row


cdef void run_rows(const Table* t, const Arrays* v, unfolded* u, int64_t k, int64_t c,
                   int64_t channels, char* by_filter, char* copies) noexcept nogil:
    """The routine for u.filters filters from k on, and some channels from c on, whose weights may
    have to be copied before."""
    cdef int64_t done = 0, i, j, filters = u.filters
    cdef char* weights = v.weights + k * v.weights_k + c * v.weights_c
    cdef char* to
    u.n, u.weights, u.weights_row = channels * t.S, weights, v.weights_k
    if not v.copied:
        v.routine(u, by_filter)
        return
    u.weights, u.weights_row = copies, t.C * t.S * t.stored
    while done < filters:
        u.filters = min(_FILTERS, filters - done)
        for i in range(u.filters):
            to = copies + i * u.weights_row
            for j in range(channels):
                t.elements.load(to + j * t.S * t.stored,
                                weights + (done + i) * v.weights_k + j * v.weights_c, v.weights_t,
                                t.S)
        v.routine(u, by_filter + done * t.positions * t.size)
        done += u.filters


cdef int64_t forward_item(const void* table, const void* arrays, int64_t index, char* scratch) \
        noexcept nogil:
    """Some filters."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t g = index // t.items, k0 = index % t.items * t.filters
    cdef int64_t filters = min(t.filters, t.K - k0), k = g * t.K + k0
    cdef bint direct = t.N == 1 and t.size == t.stored and v.bias == NULL and not v.relu
    cdef char* out = v.out + k * t.Q * t.stored
    cdef char* sums = out if direct else scratch
    cdef unfolded u
    u.filters, u.masks = filters, t.masks
    u.unfolded, u.unfolded_row = v.unfolded + g * t.positions * t.row, t.row
    run_rows(t, v, &u, k, 0, t.C, sums, scratch + t.filters * t.positions * t.size)
    if not direct:
        t.ops.store(out, t.groups * t.K * t.Q * t.stored, sums, filters, t.N, t.Q,
                    v.bias + k * t.size if v.bias != NULL else NULL, v.relu)
    return filters * t.C * t.useful


cdef int64_t data_item(const void* table, const void* arrays, int64_t index, char* scratch) \
        noexcept nogil:
    """Some channels of the gradient of x."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t g = index // t.items, c0 = index % t.items * t.channels, c, n, p
    cdef int64_t channels = min(t.channels, t.C - c0), at = g * t.C + c0
    cdef bint direct = t.size == t.stored and v.bias == NULL and not v.relu
    cdef char* rows = scratch + t.positions * t.sums_row
    cdef char* out
    cdef unfolded u
    u.filters, u.masks = t.K, t.masks
    u.unfolded, u.unfolded_row = scratch, t.sums_row
    memset(scratch, 0, t.positions * t.sums_row)
    run_rows(t, v, &u, g * t.K, c0, channels, v.given + g * t.K * t.positions * t.size,
             rows + t.channels * t.width * t.size)
    for n in range(t.N):
        p, out = n * t.Q, v.out + (n * t.groups * t.C + at) * t.width * t.stored
        t.ops.fold(out if direct else rows, t.width, scratch + p * t.sums_row, t.sums_row,
                   channels, t.S, t.d, t.Q, t.place + p, t.first + p, t.end + p)
        for c in range(0 if direct else channels):
            t.rows.store(out + c * t.width * t.stored, t.stored, rows + c * t.width * t.size,
                         t.width, v.bias + (at + c) * t.size if v.bias != NULL else NULL, v.relu)
    return t.K * channels * t.useful


cdef int64_t weight_item(const void* table, const void* arrays, int64_t index, char* scratch) \
        noexcept nogil:
    """Some filters of the gradient of the weights, for some channels at a time."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t g = index // t.items, k0 = index % t.items * t.filters, c = 0
    cdef int64_t filters = min(t.filters, t.K - k0), k = g * t.K + k0
    cdef unfolded u
    u.filters, u.masks, u.unfolded_row = filters, t.masks, t.row
    u.ahead = _AHEAD if t.fetched else 0
    while c < t.C:
        u.unfolded = v.unfolded + g * t.positions * t.row + c * t.S * t.size
        run_rows(t, v, &u, k, c, min(t.channels, t.C - c), v.given + k * t.positions * t.size,
                 NULL)
        c += t.channels
    return filters * t.C * t.useful


cdef class Unfolded:
    """An immutable program for few positions, ready to be executed by any number of threads."""
    cdef Table t
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t scratch_bytes
    cdef readonly Py_ssize_t shared_bytes

    def __dealloc__(self):
        free(self.t.masks)

    def __init__(self, sh, bl, int dtype):
        cdef Table* t = &self.t
        cdef int64_t vector = vector_bytes(), row = sh.C * sh.S
        cdef int p
        t.what = (UNFOLDED_DOTS, UNFOLDED_SUMS, UNFOLDED_OUTER)[bl.kind]
        t.dtype, t.wide, t.masked, t.fetched = dtype, vector == 64, bl.masked, bl.fetched
        t.N, t.groups, t.C, t.K, t.S, t.d = sh.N, sh.groups, sh.C, sh.K, sh.S, sh.d
        t.Q, t.width, t.stored, t.size = len(sh.places), sh.width, sh.stored, sh.item
        t.positions = t.N * t.Q
        for p in range(t.positions):
            t.place[p], t.first[p], t.end[p] = sh.places[p % t.Q]
            t.useful += t.end[p] - t.first[p]
        t.filters, t.channels = bl.filters, bl.channels
        t.ops, t.rows = unfolded_ops_of(dtype), pack_ops_of(dtype, t.wide)
        t.elements = element_ops_of(dtype, t.wide)
        t.row = (row * t.size + vector - 1) // vector * vector
        t.sums_row = (t.channels * t.S * t.size + vector - 1) // vector * vector + 64
        mask_bytes = vector // t.size // 8 if t.wide else vector
        t.masks = <char*> malloc((t.row // vector + 1) * t.positions * mask_bytes)
        if t.masks == NULL:
            raise MemoryError(f"no memory for the masks of {row} weights")
        unfolded_masks(t.masks, t.first, t.end, t.positions, t.S, row, t.size, t.wide)
        given = t.groups * t.K * t.positions * t.size
        unfolded = t.groups * t.positions * t.row
        copies = _FILTERS * row * t.stored
        if t.what == UNFOLDED_SUMS:
            t.items = (t.C + t.channels - 1) // t.channels
            self.scratch_bytes = (
                t.positions * t.sums_row + t.channels * t.width * t.size + copies)
            self.shared_bytes = given
        else:
            t.items = (t.K + t.filters - 1) // t.filters
            self.scratch_bytes = 0
            self.shared_bytes = unfolded + given
            if t.what == UNFOLDED_DOTS:
                self.scratch_bytes = t.filters * t.positions * t.size + copies
                self.shared_bytes = unfolded
        self.items = t.groups * t.items

    cdef int64_t execute(self, Arrays* v, cnp.ndarray grad, int dtype, int threads):
        """`grad` is the gradient of the output, or None, `dtype` that of the weights."""
        cdef const Table* t = &self.t
        cdef team_item item = (
            forward_item if t.what == UNFOLDED_DOTS
            else data_item if t.what == UNFOLDED_SUMS else weight_item)
        cdef bint in_place = (
            t.N == 1 and t.size == t.stored and grad is not None
            and cnp.PyArray_ISCARRAY_RO(grad))
        cdef Scratch scratch
        cdef int64_t work
        threads = team_of(min(threads, self.items))
        scratch = Scratch(threads, self.scratch_bytes, self.shared_bytes)
        v.routine = unfolded_of(t.what, dtype, t.wide, t.positions, t.masked)
        v.unfolded = v.given = scratch.shared
        if t.what == UNFOLDED_OUTER:
            v.given += t.groups * t.positions * t.row
        if grad is not None:
            v.grad = operand(grad, 1, t.rows)
        if in_place:
            v.given = <char*> v.grad.data
        with nogil:
            if t.what != UNFOLDED_SUMS:
                unfold(t, v)
            if t.what != UNFOLDED_DOTS and not in_place:
                t.ops.load(v.given, v.grad.data, v.grad.stride_n, v.grad.stride_c,
                           v.grad.stride_w, t.groups * t.K, t.N, t.Q)
            work = team_run(item, t, v, self.items, threads, scratch.memory, scratch.stride)
        return work

    cdef void set_weights(self, Arrays* v, cnp.ndarray weight):
        cdef const Table* t = &self.t
        v.weights = <char*> cnp.PyArray_DATA(weight)
        v.weights_k, v.weights_c = cnp.PyArray_STRIDE(weight, 0), cnp.PyArray_STRIDE(weight, 1)
        v.weights_t = cnp.PyArray_STRIDE(weight, 2)
        v.copied = t.what != UNFOLDED_OUTER and (
            v.weights_t != t.stored or v.weights_c != t.S * t.stored)


@cython.final
cdef class UnfoldedCorrelate(Unfolded):
    """Forward and backward data."""

    def run(self, cnp.ndarray source, cnp.ndarray weight, packed, cnp.ndarray bias, bint relu,
            cnp.ndarray out, int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued. Nothing is
        ever `packed`."""
        cdef Arrays v
        self.set_weights(&v, weight)
        v.bias = NULL
        if bias is not None:
            v.bias = <const char*> cnp.PyArray_DATA(bias)
        v.out, v.relu = <char*> cnp.PyArray_DATA(out), relu
        if self.t.what == UNFOLDED_SUMS:
            return self.execute(&v, source, self.t.dtype, threads)
        v.x = operand(source, 1, self.t.rows)
        return self.execute(&v, None, self.t.dtype, threads)


@cython.final
cdef class UnfoldedGradient(Unfolded):
    """Backward weight."""

    def run(self, cnp.ndarray grad_out, cnp.ndarray x, cnp.ndarray out, int out_dtype,
            int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued."""
        cdef Arrays v
        self.set_weights(&v, out)
        v.x = operand(x, 1, self.t.rows)
        return self.execute(&v, grad_out, out_dtype, threads)
