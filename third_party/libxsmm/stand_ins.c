/* What libxsmm_main.c calls of the files that are not compiled: deep-learning primitives and the
 * call-stack tracer at start and end, and the generators of packed and of sparse kernels, for which
 * we never ask. Zero is success. */
#define DOES_NOTHING(name) \
  int name();              \
  int name() { return 0; }

DOES_NOTHING(libxsmm_dnn_init)
DOES_NOTHING(libxsmm_dnn_finalize)
DOES_NOTHING(libxsmm_trace_init)
DOES_NOTHING(libxsmm_trace_finalize)
DOES_NOTHING(libxsmm_generator_getrf_kernel)
DOES_NOTHING(libxsmm_generator_packed_gemm_ac_rm)
DOES_NOTHING(libxsmm_generator_packed_gemm_bc_rm)
DOES_NOTHING(libxsmm_generator_pgemm_kernel)
DOES_NOTHING(libxsmm_generator_spgemm_csc_soa_kernel)
DOES_NOTHING(libxsmm_generator_spgemm_csr_reg_kernel)
DOES_NOTHING(libxsmm_generator_spgemm_csr_soa_kernel)
DOES_NOTHING(libxsmm_generator_trmm_kernel)
DOES_NOTHING(libxsmm_generator_trsm_kernel)
