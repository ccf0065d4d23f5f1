"""Scratch memory of one execution: a block per thread and one shared, from a small pool.

Large blocks fresh from the system cost a page fault per 4 KB at every call; the pool keeps a few
of them. It is bounded in number and in bytes, and used under the GIL only.
"""
from libc.stdlib cimport free, malloc
from libc.stdint cimport uintptr_t
from libc.stdint cimport int64_t
from posix.stdlib cimport posix_memalign
cimport numpy as cnp

cnp.import_array()

cdef Py_ssize_t POOLED = 8
cdef Py_ssize_t POOLED_BYTES = 16 << 20
cdef Py_ssize_t ALIGN = 4096

cdef list _pool = []  # (address, bytes), most recently used last


cdef Py_ssize_t rounded(Py_ssize_t size):
    # An extra cache line per block: blocks of equal size must not fall into the same cache sets.
    return (size + 127) // 64 * 64


cdef class Scratch:
    def __cinit__(self, int threads, Py_ssize_t per_thread, Py_ssize_t shared):
        cdef void* memory = NULL
        cdef Py_ssize_t need, i
        self.stride = rounded(per_thread)
        need = self.stride * threads + rounded(shared)
        for i in range(len(_pool) - 1, -1, -1):
            if _pool[i][1] >= need:
                address, self.size = _pool.pop(i)
                self.memory = <char*> <uintptr_t> address
                break
        else:
            self.size = (need + ALIGN - 1) // ALIGN * ALIGN
            if posix_memalign(&memory, 64, self.size) != 0:
                raise MemoryError(f"no memory for {self.size} bytes of scratch "
                                  f"({threads} threads, {per_thread} bytes each, {shared} shared)")
            self.memory = <char*> memory
        self.shared = self.memory + self.stride * threads

    cdef char* own(self, int thread) noexcept nogil:
        return self.memory + thread * self.stride

    cdef void release(self):
        """Give the memory back to the pool, or to the system if it is too much to keep."""
        if self.memory == NULL:
            return
        if self.size > POOLED_BYTES:
            free(self.memory)
        else:
            _pool.append((<uintptr_t> self.memory, self.size))
            if len(_pool) > POOLED:
                free(<void*> <uintptr_t> _pool.pop(0)[0])
        self.memory = NULL

    def __dealloc__(self):
        free(self.memory)


cdef void* copy_rows(rows, Py_ssize_t fields) except? NULL:
    """A C table of int64 from a list of tuples (or of integers, fields = 1)."""
    cdef int64_t* table = <int64_t*> malloc(max(1, len(rows)) * fields * sizeof(int64_t))
    cdef Py_ssize_t i = 0
    if table == NULL:
        raise MemoryError(f"no memory for a plan's table of {len(rows)} rows")
    for row in rows:
        for value in (row if fields > 1 else (row,)):
            # Addresses of kernels and negative offsets both go through 64 bits unchanged.
            table[i] = <int64_t> (<unsigned long long> (value & 0xffffffffffffffff))
            i += 1
    return table


cdef Operand operand(cnp.ndarray array, int64_t C, int64_t planes, const pack_ops* ops):
    """Describe an array (N, channels, width) to the engines."""
    cdef Operand v
    v.data = <const char*> cnp.PyArray_DATA(array)
    v.stride_n = cnp.PyArray_STRIDE(array, 0)
    v.stride_c = cnp.PyArray_STRIDE(array, 1)
    v.stride_w = cnp.PyArray_STRIDE(array, 2)
    v.C, v.width, v.planes, v.ops = C, cnp.PyArray_DIM(array, 2), planes, ops
    return v
