// Convolution by oneDNN, directly on NHWC: primitives made once per shape, for one thread and one
// slice of the batch (Note [Slices of the batch]).
#include "kernels/conv2d/conv2d_providers.h"

#if defined(RETORT_WITH_ONEDNN)
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "kernels/common/parallel.h"
#include "kernels/common/room.h"

namespace retort::kernels::conv {
namespace {

using Memory = dnnl::memory;
using Tag = dnnl::memory::format_tag;

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

Conv2dShape with_batch(Conv2dShape shape, std::int64_t batch) {
  shape.batch = batch;
  return shape;
}

// Images per slice.
std::int64_t slice_of(Pass pass, const Conv2dShape& s) {
  const std::int64_t pixels = s.out_height() * s.out_width();
  std::int64_t images;
  if (pass == Pass::kBackwardWeight) {
    images = std::max(ceil_div(s.batch, 16), ceil_div(256, pixels));
    // The partial sums of all slices stay below 64 MiB.
    const std::int64_t most =
        std::max<std::int64_t>((std::int64_t{16} << 20) / s.weight_elements(), 2);
    images = std::max(images, ceil_div(s.batch, most));
  } else {
    const std::int64_t together = images_together(s);
    images = std::max(ceil_div(s.batch, 32), ceil_div(256, pixels));
    images = ceil_div(images, together) * together;
  }
  return std::min(images, s.batch);
}

// A primitive for one slice, and the conversion of the weights it may want.
struct Plan {
  dnnl::primitive primitive;
  Memory::desc x, weight, y, weight_krsc;  // the weights as the primitive wants and as we hold them
  dnnl::reorder weight_reorder;            // in the direction this pass needs
  bool convert_weight = false;
  std::size_t scratchpad_bytes = 0;
};

template <class Desc>
void adopt(Plan& plan, const Desc& desc, const Memory::desc& weight) {
  plan.weight = weight;
  plan.scratchpad_bytes = desc.scratchpad_desc().get_size();
}

std::unique_ptr<Plan> make_plan(Pass pass, const Conv2dShape& s, DType dtype) {
  const OneOpenMpThread one;
  const dnnl::engine& engine = cpu_engine();
  const Memory::dims x_dims{s.batch, s.channels, s.height, s.width};
  const Memory::dims weight_dims{s.filters, s.channels, s.filter_height, s.filter_width};
  const Memory::dims y_dims{s.batch, s.filters, s.out_height(), s.out_width()};
  // What is read is given as it is; results are always sums in f32.
  const auto f32 = Memory::data_type::f32,
             read = dtype == DType::kBF16 ? Memory::data_type::bf16 : f32;
  auto plan = std::make_unique<Plan>();
  const Memory::desc x(x_dims, pass == Pass::kBackwardData ? f32 : read, Tag::nhwc),
      y(y_dims, pass == Pass::kForward ? f32 : read, Tag::nhwc),
      weight(weight_dims, pass == Pass::kBackwardWeight ? f32 : read, Tag::any);
  plan->x = x;
  plan->y = y;
  plan->weight_krsc = Memory::desc(weight_dims, f32, Tag::ohwi);
  // A hint for the gradients: the forward pass whose operands they share.
  const Memory::desc hint_x(x_dims, read, Tag::nhwc),
      hint_y(y_dims, pass == Pass::kForward ? f32 : read, Tag::nhwc),
      hint_weight(weight_dims, read, Tag::any);
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const Memory::dims strides{s.stride, s.stride}, padding{s.padding, s.padding};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  using Forward = dnnl::convolution_forward;
  using BackwardData = dnnl::convolution_backward_data;
  using BackwardWeight = dnnl::convolution_backward_weights;
#if DNNL_VERSION_MAJOR >= 3
  const Forward::primitive_desc forward(engine, dnnl::prop_kind::forward_training, algorithm,
                                        hint_x, hint_weight, hint_y, strides, padding, padding,
                                        attributes);
#else
  const Forward::primitive_desc forward({dnnl::prop_kind::forward_training, algorithm, hint_x,
                                         hint_weight, hint_y, strides, padding, padding},
                                        attributes, engine);
#endif
  if (pass == Pass::kForward) {
    adopt(*plan, forward, forward.weights_desc());
    plan->primitive = Forward(forward);
  } else if (pass == Pass::kBackwardData) {
#if DNNL_VERSION_MAJOR >= 3
    const BackwardData::primitive_desc desc(engine, algorithm, x, weight, y, strides, padding,
                                            padding, forward, attributes);
#else
    const BackwardData::primitive_desc desc({algorithm, x, weight, y, strides, padding, padding},
                                            attributes, engine, forward);
#endif
    adopt(*plan, desc, desc.weights_desc());
    plan->primitive = BackwardData(desc);
  } else {
#if DNNL_VERSION_MAJOR >= 3
    const BackwardWeight::primitive_desc desc(engine, algorithm, x, weight, y, strides, padding,
                                              padding, forward, attributes);
#else
    const BackwardWeight::primitive_desc desc({algorithm, x, weight, y, strides, padding, padding},
                                              attributes, engine, forward);
#endif
    adopt(*plan, desc, desc.diff_weights_desc());
    plan->primitive = BackwardWeight(desc);
  }
  plan->convert_weight = plan->weight != plan->weight_krsc;
  if (plan->convert_weight) {
    const bool out = pass == Pass::kBackwardWeight;
    plan->weight_reorder = dnnl::reorder(
        dnnl::reorder::primitive_desc(engine, out ? plan->weight : plan->weight_krsc, engine,
                                      out ? plan->weight_krsc : plan->weight));
  }
  return plan;
}

// The slices of one pass: equal ones, and perhaps a shorter last one with a plan of its own.
struct SlicedPlan {
  std::int64_t images = 0, slices = 0;  // images per slice
  std::unique_ptr<Plan> main, last;     // last: null if all slices are equal
  const Plan& of(std::int64_t slice) const { return last && slice + 1 == slices ? *last : *main; }
  std::size_t slice_bytes() const {
    return round_up(std::max(main->scratchpad_bytes, last ? last->scratchpad_bytes : 0));
  }
};

std::unique_ptr<SlicedPlan> make_slices(Pass pass, const Conv2dShape& shape, DType dtype) {
  auto plan = std::make_unique<SlicedPlan>();
  plan->images = slice_of(pass, shape);
  plan->slices = ceil_div(shape.batch, plan->images);
  plan->main = make_plan(pass, with_batch(shape, plan->images), dtype);
  if (const std::int64_t rest = shape.batch % plan->images) {
    plan->last = make_plan(pass, with_batch(shape, rest), dtype);
    // One layout of weights serves all slices; else the caller falls back.
    if (plan->last->weight != plan->main->weight) return nullptr;
  }
  return plan;
}

// Without them oneDNN computes bf16 convolutions at a third of the rate of f32 ones.
bool has_bf16_products() {
  const auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  static const bool has = (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
  return has;
}

// Null if this shape cannot run so.
const SlicedPlan* find_plan(Pass pass, const Conv2dShape& s, DType dtype) {
  using Key = std::tuple<int, int, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  static std::mutex mutex;
  static auto* const plans = new std::map<Key, std::unique_ptr<SlicedPlan>>();  // never destroyed
  const Key key{static_cast<int>(pass),
                static_cast<int>(dtype),
                s.batch,
                s.height,
                s.width,
                s.channels,
                s.filters,
                s.filter_height,
                s.filter_width,
                s.stride,
                s.padding};
  const std::lock_guard lock(mutex);
  if (const auto found = plans->find(key); found != plans->end()) return found->second.get();
  std::unique_ptr<SlicedPlan> plan;
  require_room(std::size_t{32} << 20, "conv2d");  // else the library crashes
  try {
    if (dtype == DType::kF32 || has_bf16_products()) plan = make_slices(pass, s, dtype);
  } catch (const dnnl::error& e) {
    if (e.status != dnnl_unimplemented) throw;  // else another provider, or f32, runs it
  }
  return plans->emplace(key, std::move(plan)).first->second.get();
}

// Runs f(plan, stream, slice, first image, end, scratchpad) for every slice.
template <class F>
void for_each_slice(const SlicedPlan& plan, std::int64_t batch, std::byte* scratch, F&& f) {
  const std::size_t stride = plan.slice_bytes();
  parallel_for(batch, plan.images, [&](std::int64_t begin, std::int64_t end) {
    const OneOpenMpThread one;
    const std::int64_t slice = begin / plan.images;
    const Plan& p = plan.of(slice);
    dnnl::stream stream(cpu_engine());
    const Memory scratchpad(Memory::desc({static_cast<std::int64_t>(p.scratchpad_bytes)},
                                         Memory::data_type::u8, Tag::a),
                            cpu_engine(), scratch + static_cast<std::size_t>(slice) * stride);
    f(p, stream, slice, begin, end, scratchpad);
  });
}

Memory memory_of(const Memory::desc& desc, const void* data) {
  return Memory(desc, cpu_engine(), const_cast<void*>(data));
}

// oneDNN's errors as ours.
template <class F>
decltype(auto) with_onednn(F&& f) {
  try {
    return f();
  } catch (const dnnl::error& e) {
    fail(e.status == dnnl_out_of_memory ? ErrorCode::kMemory : ErrorCode::kDevice,
         "[conv2d] oneDNN refused: ", e.what());
  }
}

std::size_t workspace_of(const SlicedPlan& plan, Pass pass) {
  const auto slices = static_cast<std::size_t>(plan.slices);
  const std::size_t weight = round_up(plan.main->weight.get_size());
  return slices * plan.slice_bytes() +
         weight * (pass == Pass::kBackwardWeight ? slices + 1 : plan.main->convert_weight);
}

void run_images(const SlicedPlan& plan, Pass pass, const Conv2dShape& s, void* out, const void* in,
                DType dtype, const float* weight, std::byte* block, const ImagesDone<float>& done) {
  const bool narrow = dtype == DType::kBF16;
  const bool forward = pass == Pass::kForward;
  Pieces pieces(block);
  std::byte* const scratch =
      pieces.take<std::byte>(static_cast<std::size_t>(plan.slices) * plan.slice_bytes());
  Memory w = memory_of(plan.main->weight_krsc, weight);
  if (plan.main->convert_weight) {
    const OneOpenMpThread one;
    dnnl::stream stream(cpu_engine());
    Memory converted =
        memory_of(plan.main->weight, pieces.take<std::byte>(plan.main->weight.get_size()));
    plan.main->weight_reorder.execute(stream, w, converted);
    w = converted;
  }
  const std::int64_t x_image = s.height * s.width * s.channels,
                     y_image = s.out_height() * s.out_width() * s.filters;
  const std::int64_t in_image = forward ? x_image : y_image,
                     out_image = forward ? y_image : x_image;
  for_each_slice(
      plan, s.batch, scratch,
      [&](const Plan& p, dnnl::stream& stream, std::int64_t, std::int64_t begin, std::int64_t end,
          const Memory& scratchpad) {
        float* const to = narrow ? thread_space(static_cast<std::size_t>(plan.images * out_image))
                                 : static_cast<float*>(out) + begin * out_image;
        const auto* const from = static_cast<const std::byte*>(in) +
                                 static_cast<std::size_t>(begin * in_image) * size_of(dtype);
        p.primitive.execute(
            stream,
            {{forward ? DNNL_ARG_SRC : DNNL_ARG_DIFF_DST, memory_of(forward ? p.x : p.y, from)},
             {DNNL_ARG_WEIGHTS, w},
             {forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_SRC, memory_of(forward ? p.y : p.x, to)},
             {DNNL_ARG_SCRATCHPAD, scratchpad}});
        if (done) done(begin, end, to);
      });
}

void run_weight(const SlicedPlan& plan, const Conv2dShape& s, float* dweight, const void* x,
                const void* dy, DType dtype, std::byte* block) {
  Pieces pieces(block);
  const auto slices = static_cast<std::size_t>(plan.slices);
  std::byte* const scratch = pieces.take<std::byte>(slices * plan.slice_bytes());
  const std::size_t weight_bytes = plan.main->weight.get_size();
  const std::size_t stride = round_up(weight_bytes) / sizeof(float);
  float* const parts = pieces.take<float>(slices * stride);
  float* const sum = pieces.take<float>(stride);
  const std::int64_t x_image = s.height * s.width * s.channels,
                     y_image = s.out_height() * s.out_width() * s.filters;
  const auto at = [dtype](const void* images, std::int64_t element) {
    return static_cast<const std::byte*>(images) +
           static_cast<std::size_t>(element) * size_of(dtype);
  };
  for_each_slice(plan, s.batch, scratch,
                 [&](const Plan& p, dnnl::stream& stream, std::int64_t slice, std::int64_t begin,
                     std::int64_t, const Memory& scratchpad) {
                   p.primitive.execute(
                       stream,
                       {{DNNL_ARG_SRC, memory_of(p.x, at(x, begin * x_image))},
                        {DNNL_ARG_DIFF_DST, memory_of(p.y, at(dy, begin * y_image))},
                        {DNNL_ARG_DIFF_WEIGHTS,
                         memory_of(p.weight, parts + static_cast<std::size_t>(slice) * stride)},
                        {DNNL_ARG_SCRATCHPAD, scratchpad}});
                 });
  // The sum is taken in the primitive's own layout, padding included, and converted once.
  const bool convert = plan.main->convert_weight;
  add_slices(convert ? sum : dweight, parts, stride, plan.slices,
             static_cast<std::int64_t>(weight_bytes / sizeof(float)));
  if (!convert) return;
  const OneOpenMpThread one;
  dnnl::stream stream(cpu_engine());
  Memory from = memory_of(plan.main->weight, sum), to = memory_of(plan.main->weight_krsc, dweight);
  plan.main->weight_reorder.execute(stream, from, to);
}

}  // namespace

bool onednn_fits(Pass pass, const Conv2dShape& shape, DType dtype) {
  return with_onednn([&] { return find_plan(pass, shape, dtype) != nullptr; });
}
std::size_t onednn_workspace(Pass pass, const Conv2dShape& shape, DType dtype) {
  return with_onednn([&] { return workspace_of(*find_plan(pass, shape, dtype), pass); });
}
void onednn_images(Pass pass, const Conv2dShape& shape, void* out, const void* in, DType dtype,
                   const float* weight, std::byte* scratch, const ImagesDone<float>& done) {
  with_onednn([&] {
    run_images(*find_plan(pass, shape, dtype), pass, shape, out, in, dtype, weight, scratch, done);
  });
}
void onednn_weight(const Conv2dShape& shape, float* dweight, const void* x, const void* dy,
                   DType dtype, std::byte* scratch) {
  with_onednn([&] {
    run_weight(*find_plan(Pass::kBackwardWeight, shape, dtype), shape, dweight, x, dy, dtype,
               scratch);
  });
}

}  // namespace retort::kernels::conv

#else

namespace retort::kernels::conv {

bool onednn_fits(Pass, const Conv2dShape&, DType) { return false; }
std::size_t onednn_workspace(Pass, const Conv2dShape&, DType) { return 0; }
void onednn_images(Pass, const Conv2dShape&, void*, const void*, DType, const float*, std::byte*,
                   const ImagesDone<float>&) {}
void onednn_weight(const Conv2dShape&, float*, const void*, const void*, DType, std::byte*) {}

}  // namespace retort::kernels::conv
#endif
