"""The multiply-add peak of the machine, measured."""
from cython.parallel cimport prange

from xsmmconv import _dispatch

cdef extern from "_peak.h" nogil:
    enum:
        PEAK_AVX2_F32
        PEAK_AVX2_F64
        PEAK_AVX512_F32
        PEAK_AVX512_F64
        PEAK_AVX512_BF16
    double _gflops "peak_gflops"(int kind, long rounds) noexcept


def peak_gflops(dtype="float32", int threads=1, long rounds=100_000):
    """Multiply-add peak in GFLOP/s of `threads` cores, by a register-only loop.

    It runs for about half a millisecond; measure it between repeats and take the maximum. For
    bfloat16 it is the rate of BF16 dot products where the instruction set has them, and else the
    FP32 rate, in which the tiles are then computed.
    """
    _dispatch.require_supported()
    wide = _dispatch.vector_bytes() == 64
    if dtype == "bfloat16" and not _dispatch.bf16_kernels():
        dtype = "float32"
    cdef int kind = {
        ("float32", False): PEAK_AVX2_F32, ("float32", True): PEAK_AVX512_F32,
        ("float64", False): PEAK_AVX2_F64, ("float64", True): PEAK_AVX512_F64,
        ("bfloat16", True): PEAK_AVX512_BF16,
    }[dtype, wide]
    cdef double total = 0
    cdef int _i
    for _i in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        total += _gflops(kind, rounds)
    return total
