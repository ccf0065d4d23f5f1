cimport numpy as cnp
from libc.stdint cimport int64_t

from xsmmconv._pack cimport pack_ops
from xsmmconv._panel cimport Operand

cdef class Scratch:
    cdef char* memory
    cdef Py_ssize_t size
    cdef Py_ssize_t stride
    cdef char* shared


cdef class Packed:
    cdef char* memory


cdef void* copy_rows(rows, Py_ssize_t fields) except? NULL
cdef Operand operand(cnp.ndarray array, int64_t planes, const pack_ops* ops)
