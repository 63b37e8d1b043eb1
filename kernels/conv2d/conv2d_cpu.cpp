// Convolution on the CPU: which provider runs a pass, and on what.
#include <algorithm>
#include <cstring>

#include "kernels/common/bf16_convert.h"
#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d_providers.h"

namespace retort::kernels {

CudaOp<Conv2dArgs> conv2d_cuda = nullptr;
CudaOp<Conv2dBackwardDataArgs> conv2d_backward_data_cuda = nullptr;
CudaOp<Conv2dBackwardWeightArgs> conv2d_backward_weight_cuda = nullptr;

namespace {
using namespace conv;

enum class Provider { kWinograd, kOneDnn, kColumns };

struct Choice {
  Provider provider;
  DType dtype;  // that the images are given in: bf16, or f32 copies of them
  std::size_t workspace;
};

Choice choose(Pass pass, const Conv2dShape& s, DType dtype) {
  if (winograd_fits(s)) return {Provider::kWinograd, dtype, winograd_workspace(pass, s)};
  for (const DType given : {dtype, DType::kF32})
    if (onednn_fits(pass, s, given))
      return {Provider::kOneDnn, given, onednn_workspace(pass, s, given)};
  return {Provider::kColumns, DType::kF32, columns_workspace<float>(pass, s)};
}

std::size_t f32_bytes(std::int64_t elements) {
  return round_up(static_cast<std::size_t>(elements) * sizeof(float));
}

// `values` as f32: themselves, or a copy in `space`. rounded: an f32 value is rounded to bf16.
const float* as_f32(const void* values, DType dtype, bool rounded, std::int64_t n, Pieces& pieces) {
  if (dtype == DType::kF32 && !rounded) return static_cast<const float*>(values);
  float* const wide = pieces.take<float>(static_cast<std::size_t>(n));
  parallel_for(n, std::int64_t{1} << 16, [=](std::int64_t begin, std::int64_t end) {
    if (dtype == DType::kF32) {
      const auto* const from = static_cast<const float*>(values);
      for (std::int64_t i = begin; i < end; ++i) wide[i] = to_float(to_bf16(from[i]));
    } else {
      widen(wide + begin, static_cast<const bf16*>(values) + begin, end - begin);
    }
  });
  return wide;
}

// y from x or dx from dy. `done` takes what the provider leaves for each slice; with a bf16 `out`
// it is the one that writes it.
void run_images(const Context& context, Pass pass, const Conv2dShape& s, void* out, const void* in,
                DType dtype, const void* weight, DType weight_dtype,
                const ImagesDone<float>& done) {
  const Choice choice = choose(pass, s, dtype);
  const bool rounded = dtype == DType::kBF16, copied = choice.dtype != dtype;
  const std::int64_t outs = pass == Pass::kForward ? s.y_elements() : s.x_elements(),
                     ins = pass == Pass::kForward ? s.x_elements() : s.y_elements();
  const std::size_t bytes = choice.workspace + (rounded ? f32_bytes(s.weight_elements()) : 0) +
                            (copied ? f32_bytes(ins) + f32_bytes(outs) : 0);
  Pieces pieces(bytes == 0 ? nullptr : static_cast<std::byte*>(context.scratch->get(bytes)));
  const float* const w = as_f32(weight, weight_dtype, rounded, s.weight_elements(), pieces);
  const void* const from = copied ? as_f32(in, dtype, false, ins, pieces) : in;
  void* const to = copied ? pieces.take<float>(static_cast<std::size_t>(outs)) : out;
  std::byte* const scratch = pieces.take<std::byte>(0);
  switch (choice.provider) {
    case Provider::kWinograd:
      return winograd_images(pass, s, to, from, choice.dtype, w, scratch, done);
    case Provider::kOneDnn: return onednn_images(pass, s, to, from, choice.dtype, w, scratch, done);
    case Provider::kColumns:
      return columns_images<float>(pass, s, static_cast<float*>(to),
                                   static_cast<const float*>(from), w, scratch, done);
  }
}

}  // namespace

void conv2d_cpu(const Context& context, const Conv2dArgs& args) {
  const Conv2dShape& s = args.shape;
  if (args.dtype == DType::kF64) {
    const std::size_t bytes = columns_workspace<double>(Pass::kForward, s);
    return columns_images<double>(
        Pass::kForward, s, static_cast<double*>(args.y), static_cast<const double*>(args.x),
        static_cast<const double*>(args.weight),
        bytes == 0 ? nullptr : static_cast<std::byte*>(context.scratch->get(bytes)),
        [&](std::int64_t begin, std::int64_t end, double* sums) {
          finish_images(args, begin, end, sums);
        });
  }
  ImagesDone<float> done;
  if (args.dtype == DType::kBF16 || args.epilogue.any() || args.statistics)
    done = [&](std::int64_t begin, std::int64_t end, float* sums) {
      finish_images(args, begin, end, sums);
    };
  run_images(context, Pass::kForward, s, args.y, args.x, args.dtype, args.weight, args.weight_dtype,
             done);
}

void conv2d_backward_data_cpu(const Context& context, const Conv2dBackwardDataArgs& args) {
  const Conv2dShape& s = args.shape;
  if (args.dtype == DType::kF64) {
    const std::size_t bytes = columns_workspace<double>(Pass::kBackwardData, s);
    return columns_images<double>(
        Pass::kBackwardData, s, static_cast<double*>(args.dx), static_cast<const double*>(args.dy),
        static_cast<const double*>(args.weight),
        bytes == 0 ? nullptr : static_cast<std::byte*>(context.scratch->get(bytes)), {});
  }
  ImagesDone<float> done;
  const std::int64_t image = s.height * s.width * s.channels;
  if (args.dtype == DType::kBF16)
    done = [&args, image](std::int64_t begin, std::int64_t end, float* sums) {
      narrow(static_cast<bf16*>(args.dx) + begin * image, sums, (end - begin) * image);
    };
  run_images(context, Pass::kBackwardData, s, args.dx, args.dy, args.dtype, args.weight,
             args.weight_dtype, done);
}

void conv2d_backward_weight_cpu(const Context& context, const Conv2dBackwardWeightArgs& args) {
  const Conv2dShape& s = args.shape;
  constexpr Pass pass = Pass::kBackwardWeight;
  if (s.batch == 0) {
    std::memset(args.dweight, 0,
                static_cast<std::size_t>(s.weight_elements()) * size_of(args.weight_dtype));
    return;
  }
  if (args.dtype == DType::kF64)
    return columns_weight(
        s, static_cast<double*>(args.dweight), static_cast<const double*>(args.x),
        static_cast<const double*>(args.dy),
        static_cast<std::byte*>(context.scratch->get(columns_workspace<double>(pass, s))));

  const Choice choice = choose(pass, s, args.dtype);
  const bool copied = choice.dtype != args.dtype, round = args.weight_dtype == DType::kBF16;
  const std::size_t bytes = choice.workspace +
                            (copied ? f32_bytes(s.x_elements()) + f32_bytes(s.y_elements()) : 0) +
                            (round ? f32_bytes(s.weight_elements()) : 0);
  Pieces pieces(static_cast<std::byte*>(context.scratch->get(bytes)));
  float* const sums = round ? pieces.take<float>(static_cast<std::size_t>(s.weight_elements()))
                            : static_cast<float*>(args.dweight);
  const void* const x = copied ? as_f32(args.x, args.dtype, false, s.x_elements(), pieces) : args.x;
  const void* const dy =
      copied ? as_f32(args.dy, args.dtype, false, s.y_elements(), pieces) : args.dy;
  std::byte* const scratch = pieces.take<std::byte>(0);
  switch (choice.provider) {
    case Provider::kWinograd: winograd_weight(s, sums, x, dy, choice.dtype, scratch); break;
    case Provider::kOneDnn: onednn_weight(s, sums, x, dy, choice.dtype, scratch); break;
    case Provider::kColumns:
      columns_weight<float>(s, sums, static_cast<const float*>(x), static_cast<const float*>(dy),
                            scratch);
  }
  if (round) narrow(static_cast<bf16*>(args.dweight), sums, s.weight_elements());
}

}  // namespace retort::kernels
