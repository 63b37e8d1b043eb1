// gemm by cuBLASLt: one plan per shape, chosen by its heuristic once and kept. What it refuses goes
// to the hand-written kernel (kernels/gemm/gemm.cuh).
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "kernels/bias/bias.h"
#include "kernels/common/plugin.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/plugin/libraries.h"

namespace retort::kernels {
namespace {

// What NVIDIA recommends for Hopper. Part of the plan, so the same on every GPU.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

CudaOp<GemmArgs> hand_written = nullptr;

// Everything that the choice of an algorithm may depend on.
using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                       std::int64_t, int, unsigned, unsigned, unsigned, unsigned>;

// Largest power of two up to 256 that divides the address.
unsigned alignment_of(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p) | 256u;
  return static_cast<unsigned>(address & (~address + 1));
}

Key key_of(const GemmArgs& g, bool tf32) {
  const int flags = static_cast<int>(g.dtype) * 16 + g.transpose_a * 8 + g.transpose_b * 4 +
                    (g.bias != nullptr) * 2 + tf32;
  return {g.m,
          g.n,
          g.k,
          g.lda,
          g.ldb,
          g.ldc,
          flags,
          alignment_of(g.a),
          alignment_of(g.b),
          alignment_of(g.c),
          g.bias ? alignment_of(g.bias) : 0u};
}

template <class T>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_cublaslt(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value),
                 "cublasLtMatmulDescSetAttribute");
}

struct Layout {
  cublasLtMatrixLayout_t handle = nullptr;
  Layout(cudaDataType_t type, bool flip, std::int64_t rows, std::int64_t columns,
         std::int64_t pitch) {
    // cuBLASLt counts columns first: a row-major (r, c) matrix is its (c, r) one.
    if (flip) std::swap(rows, columns);
    check_cublaslt(cublasLtMatrixLayoutCreate(&handle, type, static_cast<std::uint64_t>(columns),
                                              static_cast<std::uint64_t>(rows), pitch),
                   "cublasLtMatrixLayoutCreate");
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(handle); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
};

struct Preference {
  cublasLtMatmulPreference_t handle = nullptr;
  Preference() {
    check_cublaslt(cublasLtMatmulPreferenceCreate(&handle), "cublasLtMatmulPreferenceCreate");
  }
  ~Preference() { cublasLtMatmulPreferenceDestroy(handle); }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;
  template <class T>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    check_cublaslt(cublasLtMatmulPreferenceSetAttribute(handle, attribute, &value, sizeof value),
                   "cublasLtMatmulPreferenceSetAttribute");
  }
};

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::kF64 ? CUDA_R_64F : dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}
cublasComputeType_t compute_of(DType dtype, bool tf32) {
  if (dtype == DType::kF64) return CUBLAS_COMPUTE_64F;
  return dtype == DType::kF32 && tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

// C^T = op(B)^T op(A)^T: our row-major matrices are cuBLASLt's column-major transposes, so it gets
// B as its first operand and A as its second.
struct Plan {
  cublasLtMatmulDesc_t desc = nullptr;
  Layout a, b, c;
  cublasLtMatmulAlgo_t algo{};
  bool usable = false;

  Plan(cublasLtHandle_t handle, const GemmArgs& g, bool tf32)
      : a(type_of(g.dtype), g.transpose_a, g.m, g.k, g.lda),
        b(type_of(g.dtype), g.transpose_b, g.k, g.n, g.ldb),
        c(type_of(g.dtype), false, g.m, g.n, g.ldc) {
    check_cublaslt(cublasLtMatmulDescCreate(&desc, compute_of(g.dtype, tf32),
                                            g.dtype == DType::kF64 ? CUDA_R_64F : CUDA_R_32F),
                   "cublasLtMatmulDescCreate");
    set(desc, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(desc, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (g.bias) {  // one value per row of C^T
      set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    }
    Preference preference;
    preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    // Parts of a split K are summed in the compute type, never in bf16.
    preference.set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                   static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(g.b));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(g.a));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(g.c));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(g.c));
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, desc, b.handle, a.handle, c.handle, c.handle, preference.handle, 1, &best, &found);
    usable = status == CUBLAS_STATUS_SUCCESS && found > 0 && best.state == CUBLAS_STATUS_SUCCESS;
    algo = best.algo;
  }
  ~Plan() { cublasLtMatmulDescDestroy(desc); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

struct GemmPlans final : PlanCache {
  std::map<Key, Plan> plans;
};

template <class Scale>
void run(const CudaLibraries& libraries, const Context& context, const Plan& plan,
         const GemmArgs& g) {
  const Scale alpha = static_cast<Scale>(g.alpha), beta = static_cast<Scale>(g.beta);
  check_cublaslt(
      cublasLtMatmul(libraries.cublaslt, plan.desc, &alpha, g.b, plan.b.handle, g.a, plan.a.handle,
                     &beta, g.c, plan.c.handle, g.c, plan.c.handle, &plan.algo,
                     context.scratch->get(kWorkspaceBytes), kWorkspaceBytes, libraries.stream),
      "cublasLtMatmul");
}

// True if done.
bool multiply(const Context& context, const GemmArgs& g) {
  if (g.k == 0 || (g.dtype != DType::kF64 && g.dtype != DType::kF32 && g.dtype != DType::kBF16))
    return false;
  CudaLibraries& libraries = libraries_of(context);
  if (!libraries.gemm_plans) libraries.gemm_plans = std::make_unique<GemmPlans>();
  const bool tf32 = context.allow_tf32 && g.dtype == DType::kF32;
  auto& plans = static_cast<GemmPlans&>(*libraries.gemm_plans).plans;
  const Plan& plan = plans.try_emplace(key_of(g, tf32), libraries.cublaslt, g, tf32).first->second;
  if (!plan.usable) return false;
  if (g.bias) set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
  if (g.dtype == DType::kF64)
    run<double>(libraries, context, plan, g);
  else
    run<float>(libraries, context, plan, g);
  return true;
}

Unary unary_of(Activation f) {
  switch (f) {
    case Activation::kRelu: return Unary::kRelu;
    case Activation::kGelu: return Unary::kGelu;
    case Activation::kGeluTanh: return Unary::kGeluTanh;
    case Activation::kTanh: return Unary::kTanh;
    default: return Unary::kAffine;  // with the factors 1 and 0
  }
}

// cuBLASLt's relu makes 0 of NaN, its GELU is the tanh form alone, and keeping Z for it asks for
// pitches of its own: none of its epilogues is ours. Ours follows as a pass over C where C is
// dense; with relu alone, that pass adds the bias too, else cuBLASLt has added it.
bool multiply_activated(const Context& context, const GemmArgs& g) {
  if (g.ldc != g.n) return false;
  const bool fused_relu =
      g.activation == Activation::kRelu && g.pre_activation == nullptr && g.bias;
  GemmArgs product = g;
  if (g.pre_activation != nullptr) product.c = g.pre_activation;
  if (fused_relu) product.bias = nullptr;
  product.activation = Activation::kNone;
  product.pre_activation = nullptr;
  if (!multiply(context, product)) return false;
  const Status status =
      fused_relu
          ? bias_cuda(context, {g.c, g.c, g.bias, g.m, g.n, g.activation, g.dtype})
          : unary_cuda(context, {unary_of(g.activation), g.c, product.c, g.m * g.n, 1, 0, g.dtype});
  if (status.code != ErrorCode::kOk) throw Error(status.code, status.message);
  return true;
}

void gemm_cublaslt_launch(const Context& context, const GemmArgs& args) {
  const bool plain = args.activation == Activation::kNone && args.pre_activation == nullptr;
  if (plain ? multiply(context, args) : multiply_activated(context, args)) return;
  if (const Status status = hand_written(context, args); status.code != ErrorCode::kOk)
    throw Error(status.code, status.message);
}

}  // namespace

RETORT_CUDA_PROVIDER(gemm_cublaslt) {
  hand_written = gemm_cuda;
  gemm_cuda = guarded<GemmArgs, gemm_cublaslt_launch>;
}

}  // namespace retort::kernels
