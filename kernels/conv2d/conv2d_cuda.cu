#include "kernels/common/plugin.h"
#include "kernels/conv2d/conv2d.cuh"
#include "kernels/conv2d/conv2d_device.h"
#include "kernels/conv2d/conv2d_fingerprint.cuh"

namespace retort::kernels {

void conv2d_round_weights(const Context& context, const Conv2dShape& shape, bf16* to,
                          const float* weight) {
  using namespace SIMT_NS;
  const std::int64_t depth = shape.filter_height * shape.filter_width * shape.channels;
  pack_launch<bf16, float>(context, shape, /*backward=*/false, depth, weight, to);
}

void conv2d_finish(const Context& context, const Conv2dArgs& args) {
  using namespace SIMT_NS;
  dispatch_conv2d(args.dtype, [&]<class T>() { finish_launch<T>(context, args); });
}

void conv2d_fingerprint(const Context& context, const Conv2dFingerprintArgs& args) {
  using namespace SIMT_NS;
  dispatch_conv2d(args.dtype, [&]<class T>() {
    fingerprint_launch(context, static_cast<const T*>(args.data), args.n, args.to);
  });
}

}  // namespace retort::kernels

RETORT_CUDA_PLUGIN(conv2d) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(conv2d, Conv2dArgs);
  RETORT_CUDA_BIND(conv2d_backward_data, Conv2dBackwardDataArgs);
  RETORT_CUDA_BIND(conv2d_backward_weight, Conv2dBackwardWeightArgs);
  conv2d_finish_cuda = retort::guarded<Conv2dArgs, conv2d_finish>;
  conv2d_fingerprint_cuda = retort::guarded<Conv2dFingerprintArgs, conv2d_fingerprint>;
}
