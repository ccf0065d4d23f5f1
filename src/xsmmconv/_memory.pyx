"""Memory for scratch and for results, from bounded pools; and tables for the engines.

A large block fresh from the system costs a page fault per 4 KB, at every call anew; that is more
time than many a convolution takes. So blocks are kept for a while: a few, of bounded size, and
those that nobody asked for within seconds go back to the system with the next call.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.long cimport PyLong_AsUnsignedLongLongMask
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memmove
from posix.stdlib cimport posix_memalign
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
cimport cython
cimport numpy as cnp

import numpy as np

cnp.import_array()

cdef extern from "<sys/mman.h>" nogil:
    enum: MADV_HUGEPAGE
    int madvise(void* address, size_t length, int advice)

cdef Py_ssize_t HUGE_PAGE = 2 << 20
# Below this size malloc recycles memory by itself.
cdef Py_ssize_t SMALL_RESULT = 1 << 17


cdef double seconds() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + 1e-9 * now.tv_nsec


cdef struct Kept:
    char* memory
    Py_ssize_t size
    double since


@cython.final
cdef class Pool:
    """Blocks that were given back. Every method holds the GIL from beginning to end.

    No Python object is made here: blocks are given back by destructors, also where memory has run
    out and there is none for another integer.
    """
    cdef Kept[256] blocks    # the latest last
    cdef int count
    cdef Py_ssize_t held     # bytes in `blocks`
    cdef Py_ssize_t most     # bytes to hold at most
    cdef double keep         # seconds to hold a block that nobody asks for
    cdef Py_ssize_t huge     # bytes from which on a block has huge pages, if there are such

    def __cinit__(self, Py_ssize_t most, double keep, Py_ssize_t huge):
        self.count, self.held, self.most, self.keep, self.huge = 0, 0, most, keep, huge

    cdef char* take(self, Py_ssize_t need, Py_ssize_t* size) except NULL:
        """A block of at least `need` bytes; its true size goes to `size`."""
        cdef void* memory = NULL
        cdef int i
        for i in range(self.count - 1, -1, -1):
            # Not much larger either: a small request must not occupy a huge block.
            if need <= self.blocks[i].size <= 2 * need + HUGE_PAGE:
                size[0] = self.blocks[i].size
                return self.remove(i)
        self.trim(self.most)
        align = HUGE_PAGE if need >= self.huge else 4096
        size[0] = (max(need, 1) + align - 1) // align * align
        if posix_memalign(&memory, align, size[0]) != 0:
            self.trim(0)
            if posix_memalign(&memory, align, size[0]) != 0:
                raise MemoryError(f"no memory for a block of {size[0]} bytes")
        if align == HUGE_PAGE:
            madvise(memory, size[0], MADV_HUGEPAGE)  # only a hint
        return <char*> memory

    cdef void give(self, char* memory, Py_ssize_t size) noexcept:
        if self.count == 256:
            free(self.remove(0))
        self.blocks[self.count] = Kept(memory, size, seconds())
        self.count += 1
        self.held += size
        self.trim(self.most)

    cdef char* remove(self, int i) noexcept:
        cdef char* memory = self.blocks[i].memory
        self.held -= self.blocks[i].size
        self.count -= 1
        memmove(&self.blocks[i], &self.blocks[i + 1], (self.count - i) * sizeof(Kept))
        return memory

    cdef void trim(self, Py_ssize_t most) noexcept:
        """Free the oldest blocks until at most `most` bytes are held, and all that are too old."""
        cdef double oldest = seconds() - self.keep
        while self.count and (self.held > most or self.blocks[0].since < oldest):
            free(self.remove(0))


# A panel in a huge page is spread evenly over the sets of the second-level cache. In pages of 4 KB
# it lies as chance has it, and where some sets get too much, a call takes up to twice as long.
cdef Pool scratch_pool = Pool(64 << 20, 60, 1 << 16)
cdef Pool result_pool = Pool(512 << 20, 5, 2 * HUGE_PAGE)


def pooled_bytes():
    """Bytes held for scratch and for results."""
    return scratch_pool.held, result_pool.held


@cython.final
cdef class Scratch:
    """A block per thread and one shared, for one execution."""

    def __cinit__(self, int threads, Py_ssize_t per_thread, Py_ssize_t shared):
        if per_thread + shared == 0:
            return
        # An extra cache line per block: equal sizes must not fall into the same cache sets.
        self.stride = (per_thread + 127) // 64 * 64
        self.memory = scratch_pool.take(self.stride * threads + shared, &self.size)
        self.shared = self.memory + self.stride * threads

    def __dealloc__(self):
        if self.memory != NULL:
            scratch_pool.give(self.memory, self.size)


@cython.final
cdef class Packed:
    """Weights in the layout of a program, kept for many executions."""

    def __cinit__(self, Py_ssize_t size):
        self.memory = NULL
        align = HUGE_PAGE if size >= HUGE_PAGE // 2 else 64
        whole = (max(size, 1) + align - 1) // align * align
        if posix_memalign(<void**> &self.memory, align, whole) != 0:
            raise MemoryError(f"no memory for {size} bytes of packed weights")
        if align == HUGE_PAGE:
            madvise(self.memory, whole, MADV_HUGEPAGE)

    def __dealloc__(self):
        free(self.memory)


@cython.final
cdef class Block:
    """Memory of a result. It goes back to the pool when the last array that uses it has gone."""
    cdef char* memory
    cdef Py_ssize_t size
    cdef Py_ssize_t used

    def __cinit__(self, Py_ssize_t used):
        self.used = used
        self.memory = result_pool.take(used, &self.size)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.memory, self.used, False, flags)

    def __dealloc__(self):
        if self.memory != NULL:
            result_pool.give(self.memory, self.size)


def empty(shape, dtype):
    """Like numpy.empty, with recycled memory for large arrays."""
    cdef Py_ssize_t size = dtype.itemsize
    for extent in shape:
        size *= extent
    if size < SMALL_RESULT:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, Block(size))


cdef void* copy_rows(rows, Py_ssize_t fields) except? NULL:
    """A C table of int64 from a list of tuples (or of integers, fields = 1)."""
    cdef int64_t* table = <int64_t*> malloc(max(1, len(rows)) * fields * sizeof(int64_t))
    cdef Py_ssize_t i = 0
    cdef bint complete = False
    if table == NULL:
        raise MemoryError(f"no memory for a plan's table of {len(rows)} rows")
    try:
        # Addresses of kernels and negative offsets both go through 64 bits unchanged.
        if fields == 1:
            for value in rows:
                table[i] = <int64_t> PyLong_AsUnsignedLongLongMask(value)
                i += 1
        else:
            for row in rows:
                for value in row:
                    table[i] = <int64_t> PyLong_AsUnsignedLongLongMask(value)
                    i += 1
        complete = True
    finally:
        if not complete:
            free(table)
    return table


cdef Operand operand(cnp.ndarray array, int64_t planes, const pack_ops* ops):
    """Describe an array (N, channels, width) to the engines."""
    cdef Operand v
    v.data = <const char*> cnp.PyArray_DATA(array)
    v.stride_n = cnp.PyArray_STRIDE(array, 0)
    v.stride_c = cnp.PyArray_STRIDE(array, 1)
    v.stride_w = cnp.PyArray_STRIDE(array, 2)
    v.width, v.planes, v.ops = cnp.PyArray_DIM(array, 2), planes, ops
    return v
