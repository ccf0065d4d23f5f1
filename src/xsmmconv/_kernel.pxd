"""The one call signature of all batch-reduce kernels, whatever their dtype."""

ctypedef void (*kernel_t)(
    const void* a, const void* b, void* c, const unsigned long long* count,
    const unsigned long long* a_offs, const unsigned long long* b_offs) noexcept nogil
