"""The one module that links LIBXSMM: initialisation, checked dispatch, instruction set.

LIBXSMM keeps its state (code registry, exit hooks) per linked copy, so no other extension module
may link it; the engines receive the addresses of kernels as integers and call them.
This module is compiled for baseline x86-64, so that it can be imported, and can say what is
missing, on a machine that cannot run the engines.
"""
from libc.errno cimport ENOMEM, errno
from xsmmconv cimport _libxsmm as lx

import os
import platform
import threading

from xsmmconv._errors import UnsupportedError

cdef extern from *:
    """
    #ifndef XSMMCONV_LIBXSMM_VERSION
    #error "the build names the version of LIBXSMM"
    #endif
    #include <unistd.h>
    #if defined(__x86_64__)
    #include <cpuid.h>
    #endif
    /* The family of a processor made by AMD, else 0. */
    static int amd_family(void) {
      unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    #if defined(__x86_64__)
      __builtin_cpu_init();
      if (__builtin_cpu_is("amd") && __get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return (int)((eax >> 8 & 0xf) + (eax >> 20 & 0xff));
    #endif
      return 0;
    }
    static long cache_size(int level) {
      long size = -1;
    #if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
      size = sysconf(level == 1 ? _SC_LEVEL1_DCACHE_SIZE : _SC_LEVEL2_CACHE_SIZE);
    #endif
      return size;
    }
    """
    const char* XSMMCONV_LIBXSMM_VERSION
    int amd_family()
    long cache_size(int level)

cdef extern from "<sys/mman.h>" nogil:
    enum: MAP_ANONYMOUS
    enum: MAP_PRIVATE
    enum: PROT_EXEC
    enum: PROT_READ
    enum: PROT_WRITE
    void* MAP_FAILED
    void* mmap(void* address, size_t length, int protection, int flags, int file, long offset)
    int munmap(void* address, size_t length)

# dtypes of the operands; C is FP32 for BF16 unless the kernel rounds it.
_FAMILIES = ("float32", "float64", "bfloat16", "bfloat16 rounded")

cdef extern from "Python.h":
    ctypedef struct PyInterpreterState
    PyInterpreterState* PyInterpreterState_Get()
    PyInterpreterState* PyInterpreterState_Main()

if PyInterpreterState_Get() != PyInterpreterState_Main():
    raise ImportError("xsmmconv computes in the main interpreter only, not in a subinterpreter")

cdef bint _initialised = False
cdef size_t _capacity = 0
# Addresses of all kernels. LIBXSMM could count them, too, but does it by changing the protection of
# a page of each, and a process may have only so many differently protected areas.
cdef set _kernels = set()
_lock = threading.Lock()
_overlap = {}


def _renew_lock():
    # Another thread may have held it at the fork; in the child nobody would ever release it.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


cdef int _init() except -1:
    # libxsmm_init is idempotent and thread-safe; the flag only saves the calls.
    global _initialised, _capacity
    cdef lx.libxsmm_registry_info info
    if not _initialised:
        lx.libxsmm_init()
        if lx.libxsmm_get_registry_info(&info) != 0:  # a dispatch would be a segmentation fault
            raise MemoryError("no memory for LIBXSMM's code registry")
        _capacity = info.capacity
        _initialised = True
    return 0


def libxsmm_version():
    """Version of the LIBXSMM that is linked in."""
    return XSMMCONV_LIBXSMM_VERSION.decode("ascii")


def instruction_set():
    """Name of the instruction set that kernels are generated for (LIBXSMM_TARGET lowers it)."""
    _init()
    return lx.libxsmm_get_target_arch().decode("ascii")


def bf16_kernels():
    """Whether the instruction set multiplies BF16 natively (AVX512_BF16)."""
    _init()
    return lx.libxsmm_get_target_archid() >= lx.LIBXSMM_X86_AVX512_CPX


def vector_bytes():
    """Width of a vector register of the instruction set in bytes."""
    _init()
    return 64 if lx.libxsmm_get_target_archid() >= lx.LIBXSMM_X86_AVX512_CORE else 32


def halved_vectors():
    """Whether AVX-512 vectors are loaded in halves, as by AMD's Zen 4."""
    return vector_bytes() == 64 and amd_family() == 0x19


def amd_vectors():
    """Whether this is AVX-512 of a processor made by AMD."""
    return vector_bytes() == 64 and amd_family() != 0


def cache_bytes(int level):
    """Size of a core's first-level data cache or of its second-level cache, as the system says it.
    In a virtual machine that can be anything: it is a quarter to four times the usual size."""
    cdef long usual = 2**15 if level == 1 else 2**20, found = cache_size(level)
    return min(max(found, usual // 4), 4 * usual) if found > 0 else usual


def registry_info():
    """How many kernels have been generated, and for how many LIBXSMM's code registry has room."""
    _init()
    return {"kernels": len(_kernels), "capacity": _capacity}


def require_supported():
    """Raise UnsupportedError, naming what is missing, unless kernels can be generated and run."""
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        raise UnsupportedError(f"xsmmconv needs an x86-64 processor with AVX2; this is {machine}")
    _init()
    if lx.libxsmm_cpuid() < lx.LIBXSMM_X86_AVX2:
        raise UnsupportedError("xsmmconv needs a processor with AVX2 and FMA; this one lacks them")
    if lx.libxsmm_get_target_archid() < lx.LIBXSMM_X86_AVX2:
        raise UnsupportedError(
            f"xsmmconv needs AVX2 kernels, but LIBXSMM_TARGET limits the instruction set to "
            f"{instruction_set()!r}; use hsw or later")
    if lx.libxsmm_get_target_archid() > lx.libxsmm_cpuid():
        raise UnsupportedError(
            f"LIBXSMM_TARGET asks for {instruction_set()!r}, which this processor cannot run")


def require_executable_memory():
    """Raise MemoryError or UnsupportedError if the system has none for another kernel."""
    cdef size_t size = 1 << 17  # more than LIBXSMM takes for any kernel
    cdef void* block = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if block != MAP_FAILED:
        munmap(block, size)
        return
    if errno == ENOMEM:
        raise MemoryError("no memory for another kernel")
    raise UnsupportedError(
        f"xsmmconv generates its kernels at run time, but this process is refused executable "
        f"memory ({os.strerror(errno)}), as by SELinux or MemoryDenyWriteExecute")


def dispatch_gemm(int m, int n, int k, int lda, int ldb, int ldc, str dtype="float32",
                  int beta=0, bint ahead=False):
    """Address of the batch-reduce kernel C(m x n) = beta C + sum_i A_i(m x k) B_i(k x n).

    dtype is that of A and B; C has it too, but is float32 for "bfloat16". There, and for "bfloat16
    rounded", A is in VNNI-2 layout [k/2][lda][2], and k and ldb are even. With `ahead` the kernel
    fetches the m rows of A that follow. Raises UnsupportedError if LIBXSMM has no such kernel.
    """
    cdef void* kernel
    _init()
    for _ in range(2):
        # The generator and the registry are thread-safe, but two threads that ask for the same new
        # kernel would both generate it.
        with _lock:
            kernel = _kernel(m, n, k, lda, ldb, ldc, dtype, beta, ahead)
        if kernel != NULL:
            _kernels.add(<size_t> kernel)
            return <size_t> kernel
        require_executable_memory()  # there is some: perhaps it was missing for a moment only
    info = registry_info()
    raise UnsupportedError(
        f"LIBXSMM has no {dtype} kernel for m={m} n={n} k={k} lda={lda} ldb={ldb} ldc={ldc} "
        f"beta={beta} on {instruction_set()!r} ({info['kernels']} of {info['capacity']} "
        f"kernels registered)")


cdef void* _kernel(int m, int n, int k, int lda, int ldb, int ldc, str dtype,
                   int beta, bint ahead) except? NULL:
    cdef int flags = lx.LIBXSMM_GEMM_FLAG_NONE
    cdef int rows_ahead = lx.LIBXSMM_GEMM_PREFETCH_AL2_AHEAD
    cdef int* prefetch = &rows_ahead if ahead else NULL
    cdef float one_f = 1, beta_f = beta
    cdef double one_d = 1, beta_d = beta
    if dtype == "float32":
        return <void*> lx.libxsmm_smmdispatch_reducebatch_offs(
            m, n, k, &lda, &ldb, &ldc, &one_f, &beta_f, &flags, prefetch)
    if dtype == "float64":
        return <void*> lx.libxsmm_dmmdispatch_reducebatch_offs(
            m, n, k, &lda, &ldb, &ldc, &one_d, &beta_d, &flags, prefetch)
    if dtype not in _FAMILIES:
        raise ValueError(f"dtype must be one of {_FAMILIES}, not {dtype!r}")
    if k % 2 or ldb % 2:  # the generator would halve them
        raise ValueError(f"k={k} and ldb={ldb} should be even for bfloat16")
    flags = lx.LIBXSMM_GEMM_FLAG_VNNI_A
    if dtype == "bfloat16":
        return <void*> lx.libxsmm_bsmmdispatch_reducebatch_offs(
            m, n, k, &lda, &ldb, &ldc, &one_f, &beta_f, &flags, prefetch)
    return <void*> lx.libxsmm_bmmdispatch_reducebatch_offs(
        m, n, k, &lda, &ldb, &ldc, &one_f, &beta_f, &flags, prefetch)


def overlapping_operands(str dtype):
    """Whether kernels with lda < m and ldb < k can be had (our patch of LIBXSMM 1.17).

    A foreign copy of the library refuses them; then only lists over taps are used.
    """
    if dtype not in _overlap:
        try:
            dispatch_gemm(32, 2, 8, 1, 1, 32, dtype)
            _overlap[dtype] = True
        except UnsupportedError:
            dispatch_gemm(32, 2, 8, 32, 8, 32, dtype)  # the plain kernel tells refusal from lack
            _overlap[dtype] = False
    return _overlap[dtype]
