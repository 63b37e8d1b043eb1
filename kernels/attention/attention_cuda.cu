#include "kernels/attention/attention.cuh"
#include "kernels/common/plugin.h"

namespace retort::kernels {
namespace {

template <class F>
void attention_dispatch(const char* name, DType dtype, std::int64_t head_size, F&& f) {
  RETORT_CHECK(attention_on_cuda(dtype, head_size), "[", name,
               "] expected f32 or bf16 and heads of 8, 16, 32, 64 or 128 on cuda, got ",
               name_of(dtype), " and ", head_size);
  const auto of = [&]<class T>() {
    switch (head_size) {
      case 8: return f.template operator()<T, 8>();
      case 16: return f.template operator()<T, 16>();
      case 32: return f.template operator()<T, 32>();
      case 64: return f.template operator()<T, 64>();
      default: return f.template operator()<T, 128>();
    }
  };
  dtype == DType::kF32 ? of.template operator()<float>() : of.template operator()<bf16>();
}

void attention_launch(const Context& context, const AttentionArgs& a) {
  attention_dispatch("attention", a.dtype, a.head_size,
                     [&]<class T, int kD>() { attention_launch_of<T, kD>(context, a); });
}

void attention_backward_launch(const Context& context, const AttentionBackwardArgs& a) {
  attention_dispatch("attention_backward", a.dtype, a.head_size,
                     [&]<class T, int kD>() { attention_backward_launch_of<T, kD>(context, a); });
}

}  // namespace
}  // namespace retort::kernels

RETORT_CUDA_PLUGIN(attention) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(attention, AttentionArgs);
  RETORT_CUDA_BIND(attention_backward, AttentionBackwardArgs);
}
