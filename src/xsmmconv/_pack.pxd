"""Declarations of the leaf routines in _pack.h, where they are described."""
from libc.stdint cimport int64_t

cdef extern from "_pack.h" nogil:
    ctypedef struct border_tap:
        Py_ssize_t source

    ctypedef struct pack_ops:
        Py_ssize_t stored
        Py_ssize_t computed
        void (*load)(void* dst, const char* src, Py_ssize_t stride, Py_ssize_t n) noexcept nogil
        void (*store)(char* dst, Py_ssize_t stride, const void* src, Py_ssize_t n,
                      const void* bias, int relu) noexcept nogil
        void (*transpose)(void* dst, Py_ssize_t ldo, const char* src, Py_ssize_t row_stride,
                          Py_ssize_t col_stride, Py_ssize_t rows, Py_ssize_t cols) noexcept nogil
        void (*transpose_out)(void* dst, Py_ssize_t ldo, const char* src, Py_ssize_t row_stride,
                              Py_ssize_t col_stride, Py_ssize_t rows, Py_ssize_t cols) \
            noexcept nogil
        void (*scatter)(void* dst, Py_ssize_t dst_c, const int64_t* tap, const char* src,
                        Py_ssize_t src_c, Py_ssize_t src_t, Py_ssize_t C, Py_ssize_t S) \
            noexcept nogil
        void (*gather)(char* dst, Py_ssize_t dst_l, Py_ssize_t dst_r, const void* src,
                       Py_ssize_t src_r, const int64_t* tap, Py_ssize_t lb, Py_ssize_t lanes,
                       Py_ssize_t rows, Py_ssize_t S) noexcept nogil
        void (*border)(void* dst, const char* src, const char* weights, const border_tap* taps,
                       Py_ssize_t count, Py_ssize_t width) noexcept nogil

    ctypedef struct rows_ahead:
        const char* read
        Py_ssize_t read_stride
        char* write
        Py_ssize_t write_stride
        Py_ssize_t rows
        Py_ssize_t stored
        Py_ssize_t lines
        Py_ssize_t width
        Py_ssize_t done
    void fetch_lines(rows_ahead* ahead) noexcept nogil
    ctypedef void (*products_t)(
        const void* weights, const void* source, void* dst, const unsigned long long* count,
        const unsigned long long* weight, const unsigned long long* place,
        Py_ssize_t n, Py_ssize_t step, Py_ssize_t to, const rows_ahead* ahead) noexcept nogil
    ctypedef struct lane_ops:
        products_t set
        products_t add
        products_t set_odd
        products_t add_odd
        void (*dots)(void* sums, const void* a, const void* b, Py_ssize_t n, Py_ssize_t taps,
                     Py_ssize_t spacing, Py_ssize_t step) noexcept nogil

    const pack_ops* pack_ops_of(int dtype, bint wide)
    const lane_ops* lane_ops_of(int dtype, bint wide)
    void transpose_paired(void* dst, const char* src, Py_ssize_t row_stride, Py_ssize_t rows,
                          Py_ssize_t n)
    void transpose_rounded(void* dst, Py_ssize_t ldo, char* src, Py_ssize_t n,
                           Py_ssize_t lanes)
    void pair_lanes(void* panel, Py_ssize_t distance, Py_ssize_t n)
    void add_up(void* total, const void* part, Py_ssize_t n, Py_ssize_t size) noexcept nogil
    void interleave_rounded(char* dst, const char* src, Py_ssize_t row_stride, Py_ssize_t n,
                            const pack_ops* ops) noexcept nogil
    void interleave(char* dst, const char* src, Py_ssize_t row_stride, Py_ssize_t rows,
                    Py_ssize_t n, const pack_ops* ops)
    const pack_ops* element_ops_of(int dtype, bint wide)
    void interleave_elements(char* dst, const char* src, Py_ssize_t row_stride, Py_ssize_t rows,
                             Py_ssize_t n, const pack_ops* ops, const pack_ops* single)
    void load_pairs(void* dst, const char* even, const char* odd, Py_ssize_t stride, Py_ssize_t n)
    void load_pairs_together(void* dst, Py_ssize_t ldo, const char* even, const char* odd,
                             Py_ssize_t planes, Py_ssize_t n, Py_ssize_t cols)
    void transpose_row_pairs(void* dst, Py_ssize_t ldo, const char* even, const char* odd,
                             Py_ssize_t row_stride, Py_ssize_t col_stride, Py_ssize_t rows,
                             Py_ssize_t cols)
    void pair_taps(char* dst, const char* src, Py_ssize_t spacing, Py_ssize_t n)
    void narrow(char* dst, const char* src, Py_ssize_t n)
    void scatter_pairs(void* dst, Py_ssize_t dst_k, const int64_t* tap, const char* src,
                       Py_ssize_t src_k, Py_ssize_t src_c, Py_ssize_t src_t, Py_ssize_t K,
                       Py_ssize_t C, Py_ssize_t S)
    void scatter_lanes(void* dst, Py_ssize_t dst_c, Py_ssize_t dst_t, const char* src,
                       Py_ssize_t src_k, Py_ssize_t src_c, Py_ssize_t src_t, Py_ssize_t K,
                       Py_ssize_t C, Py_ssize_t S)
    void stack_lanes(char* dst, const char* src, Py_ssize_t stack, Py_ssize_t lag, Py_ssize_t n,
                     Py_ssize_t bytes)
    void prefetch_row(const char* p, Py_ssize_t n)

cdef extern from "_row_dots.h" nogil:
    ctypedef struct row_tap:
        Py_ssize_t place
        Py_ssize_t first
        Py_ssize_t end
        Py_ssize_t out
    ctypedef struct row_tile:
        const char* a
        Py_ssize_t a_row
        Py_ssize_t a_next
        const char* b
        Py_ssize_t b_next
        Py_ssize_t rows
        Py_ssize_t start
        rows_ahead* ahead
        Py_ssize_t stretch
    ctypedef void (*row_dots_t)(
        void* sums, const row_tile* tile, const row_tap* taps, Py_ssize_t first,
        Py_ssize_t all_first, Py_ssize_t all_end, Py_ssize_t end) noexcept nogil

    row_dots_t row_dots_of(int dtype, bint wide, int a, int b)
    void store_dots(int dtype, void* out, Py_ssize_t row, const row_tap* taps, const void* sums,
                    Py_ssize_t a, Py_ssize_t b)

cdef extern from "_row_filter.h" nogil:
    ctypedef struct row_run:
        const char* src
        const char* weights
        Py_ssize_t taps
        Py_ssize_t step
        Py_ssize_t shift
        Py_ssize_t spacing
        Py_ssize_t length
    ctypedef struct row_filter:
        const row_run* runs
        Py_ssize_t n_runs
        Py_ssize_t taps
        Py_ssize_t first
        Py_ssize_t end
        const char* bias
        Py_ssize_t relu
    ctypedef Py_ssize_t (*filter_row_t)(char* dst, const row_filter* f, Py_ssize_t start,
                                        Py_ssize_t end) noexcept nogil

    filter_row_t filter_row_of(int dtype, bint wide, bint neighbours)
    void copy_weights(char* to, const char* src, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t size)
