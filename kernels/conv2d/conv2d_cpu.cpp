// Convolution on the CPU. f32 runs on oneDNN where the build has it; f64, and everything in a build
// without oneDNN, is im2col and an Eigen product.
//
// Note [Slices of the batch]
// Each pass is cut into slices of whole images. Their bounds depend on the shape alone, each slice
// runs on one thread, and the weight gradient adds the slices' partial sums in slice order: so the
// bytes do not depend on the number of threads. (Left to itself oneDNN splits the sum of the weight
// gradient by threads.)
#include <Eigen/Core>
#include <algorithm>
#include <cstring>

#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_finish.h"
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(RETORT_WITH_ONEDNN)
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#endif

namespace retort::kernels {

CudaOp<Conv2dArgs> conv2d_cuda = nullptr;
CudaOp<Conv2dBackwardDataArgs> conv2d_backward_data_cuda = nullptr;
CudaOp<Conv2dBackwardWeightArgs> conv2d_backward_weight_cuda = nullptr;

namespace {

enum class Pass : int { kForward, kBackwardData, kBackwardWeight };

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

// While one lives, libraries on this thread use no other thread.
class OneThread {
 public:
#if defined(_OPENMP)
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
#else
  OneThread() {}
#endif
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
};

// One block of scratch, handed out in pieces.
class Pieces {
 public:
  Pieces(const Context& context, std::size_t bytes)
      : next_(bytes == 0 ? nullptr : static_cast<std::byte*>(context.scratch->get(bytes))) {}
  template <class T>
  T* take(std::size_t count) {
    T* const piece = reinterpret_cast<T*>(next_);
    next_ += round_up(count * sizeof(T));
    return piece;
  }

 private:
  std::byte* next_;
};

[[maybe_unused]] Conv2dShape with_batch(Conv2dShape shape, std::int64_t batch) {
  shape.batch = batch;
  return shape;
}

// ------------------------------------------------------------------------- im2col and a product

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using ConstMap = Eigen::Map<const Matrix<T>>;
template <class T>
using Map = Eigen::Map<Matrix<T>>;

// Calls f(row of columns, r * S + s, offset of the pixel or -1) for one image.
template <class F>
void for_each_tap(const Conv2dShape& s, F&& f) {
  const std::int64_t out_h = s.out_height(), out_w = s.out_width();
  for (std::int64_t p = 0; p < out_h; ++p)
    for (std::int64_t q = 0; q < out_w; ++q)
      for (std::int64_t r = 0; r < s.filter_height; ++r)
        for (std::int64_t t = 0; t < s.filter_width; ++t) {
          const std::int64_t h = p * s.stride - s.padding + r, w = q * s.stride - s.padding + t;
          const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
          f(p * out_w + q, r * s.filter_width + t,
            inside ? (h * s.width + w) * s.channels : std::int64_t{-1});
        }
}

template <class T>
void image_to_columns(const Conv2dShape& s, const T* image, T* columns) {
  const std::int64_t taps = s.filter_height * s.filter_width;
  for_each_tap(s, [&](std::int64_t row, std::int64_t tap, std::int64_t pixel) {
    T* const to = columns + (row * taps + tap) * s.channels;
    if (pixel < 0)
      std::fill_n(to, s.channels, T(0));
    else
      std::copy_n(image + pixel, s.channels, to);
  });
}

template <class T>
void columns_to_image(const Conv2dShape& s, const T* columns, T* image) {
  const std::int64_t taps = s.filter_height * s.filter_width;
  std::fill_n(image, s.height * s.width * s.channels, T(0));
  for_each_tap(s, [&](std::int64_t row, std::int64_t tap, std::int64_t pixel) {
    if (pixel < 0) return;
    const T* const from = columns + (row * taps + tap) * s.channels;
    for (std::int64_t c = 0; c < s.channels; ++c) image[pixel + c] += from[c];
  });
}

struct Columns {
  explicit Columns(const Conv2dShape& s)
      : shape(s),
        rows(s.out_height() * s.out_width()),
        depth(s.filter_height * s.filter_width * s.channels),
        image(s.height * s.width * s.channels),
        needed(s.filter_height != 1 || s.filter_width != 1 || s.stride != 1 || s.padding != 0),
        slices(std::min<std::int64_t>(s.batch, 16)),
        per_slice(slices == 0 ? 1 : ceil_div(s.batch, slices)) {
    slices = ceil_div(s.batch, per_slice);
  }
  std::size_t buffer() const { return needed ? static_cast<std::size_t>(rows * depth) : 0; }

  Conv2dShape shape;
  std::int64_t rows, depth, image;
  bool needed;  // a 1x1 filter at stride 1 reads the image itself
  std::int64_t slices, per_slice;
};

template <class T>
std::size_t columns_workspace(Pass pass, const Conv2dShape& shape) {
  const Columns c(shape);
  const auto slices = static_cast<std::size_t>(c.slices);
  std::size_t bytes = slices * round_up(c.buffer() * sizeof(T));
  if (pass == Pass::kBackwardWeight)
    bytes += slices * round_up(static_cast<std::size_t>(shape.weight_elements()) * sizeof(T));
  return bytes;
}

template <class T>
void columns_forward(Pieces& pieces, const Conv2dShape& shape, T* y, const T* x, const T* weight) {
  const Columns c(shape);
  const std::size_t stride = round_up(c.buffer() * sizeof(T)) / sizeof(T);
  T* const buffers = pieces.take<T>(stride * static_cast<std::size_t>(c.slices));
  const ConstMap<T> w(weight, shape.filters, c.depth);
  parallel_for(shape.batch, c.per_slice, [&](std::int64_t begin, std::int64_t end) {
    const OneThread one;
    T* const columns = buffers + static_cast<std::size_t>(begin / c.per_slice) * stride;
    for (std::int64_t n = begin; n < end; ++n) {
      const T* const image = x + n * c.image;
      if (c.needed) image_to_columns(shape, image, columns);
      Map<T>(y + n * c.rows * shape.filters, c.rows, shape.filters).noalias() =
          ConstMap<T>(c.needed ? columns : image, c.rows, c.depth) * w.transpose();
    }
  });
}

template <class T>
void columns_backward_data(Pieces& pieces, const Conv2dShape& shape, T* dx, const T* dy,
                           const T* weight) {
  const Columns c(shape);
  const std::size_t stride = round_up(c.buffer() * sizeof(T)) / sizeof(T);
  T* const buffers = pieces.take<T>(stride * static_cast<std::size_t>(c.slices));
  const ConstMap<T> w(weight, shape.filters, c.depth);
  parallel_for(shape.batch, c.per_slice, [&](std::int64_t begin, std::int64_t end) {
    const OneThread one;
    T* const columns = buffers + static_cast<std::size_t>(begin / c.per_slice) * stride;
    for (std::int64_t n = begin; n < end; ++n) {
      T* const image = dx + n * c.image;
      Map<T>(c.needed ? columns : image, c.rows, c.depth).noalias() =
          ConstMap<T>(dy + n * c.rows * shape.filters, c.rows, shape.filters) * w;
      if (c.needed) columns_to_image(shape, columns, image);
    }
  });
}

// sum := parts[0] + parts[1] + ... in this order.
template <class T>
void add_slices(T* sum, const T* parts, std::size_t stride, std::int64_t slices, std::int64_t n) {
  parallel_for(n, std::int64_t{1} << 14, [=](std::int64_t begin, std::int64_t end) {
    std::copy(parts + begin, parts + end, sum + begin);
    for (std::int64_t k = 1; k < slices; ++k) {
      const T* const part = parts + static_cast<std::size_t>(k) * stride;
      for (std::int64_t i = begin; i < end; ++i) sum[i] += part[i];
    }
  });
}

template <class T>
void columns_backward_weight(Pieces& pieces, const Conv2dShape& shape, T* dweight, const T* x,
                             const T* dy) {
  const Columns c(shape);
  const std::size_t stride = round_up(c.buffer() * sizeof(T)) / sizeof(T);
  T* const buffers = pieces.take<T>(stride * static_cast<std::size_t>(c.slices));
  const std::size_t weights =
      round_up(static_cast<std::size_t>(shape.weight_elements()) * sizeof(T)) / sizeof(T);
  T* const parts = pieces.take<T>(weights * static_cast<std::size_t>(c.slices));
  parallel_for(shape.batch, c.per_slice, [&](std::int64_t begin, std::int64_t end) {
    const OneThread one;
    const auto slice = static_cast<std::size_t>(begin / c.per_slice);
    T* const columns = buffers + slice * stride;
    Map<T> part(parts + slice * weights, shape.filters, c.depth);
    part.setZero();
    for (std::int64_t n = begin; n < end; ++n) {
      const T* const image = x + n * c.image;
      if (c.needed) image_to_columns(shape, image, columns);
      part.noalias() +=
          ConstMap<T>(dy + n * c.rows * shape.filters, c.rows, shape.filters).transpose() *
          ConstMap<T>(c.needed ? columns : image, c.rows, c.depth);
    }
  });
  add_slices(dweight, parts, weights, c.slices, shape.weight_elements());
}

// ---------------------------------------------------------------------------------------- oneDNN
#if defined(RETORT_WITH_ONEDNN)

using Memory = dnnl::memory;
using Tag = dnnl::memory::format_tag;

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Note [Direct or Winograd]
// Winograd's F(4x4, 3x3) needs oneDNN's blocked layout, so each slice is converted on the way in
// and out; it pays from 64 channels on, when a slice has enough pixels. Everything smaller (all
// of the narrow CIFAR networks but their last stage) is fastest directly on NHWC. The choice is
// by shape, never by timing: another algorithm would give other bits.
bool prefers_winograd(const Conv2dShape& s) {
  return s.filter_height == 3 && s.filter_width == 3 && s.stride == 1 && s.padding <= 1 &&
         s.channels >= 64 && s.filters >= 64 && s.channels % 16 == 0 && s.filters % 16 == 0;
}

// Images per slice.
std::int64_t slice_of(Pass pass, const Conv2dShape& s, bool winograd) {
  const std::int64_t pixels = s.out_height() * s.out_width();
  std::int64_t images;
  if (winograd)
    images = std::min(std::max(ceil_div(s.batch, 16), ceil_div(2048, pixels)),
                      std::max<std::int64_t>(ceil_div(s.batch, 4), 1));
  else if (pass == Pass::kBackwardWeight)
    images = std::max(ceil_div(s.batch, 16), ceil_div(256, pixels));
  else
    images = std::max(ceil_div(s.batch, 32), ceil_div(256, pixels));
  if (pass == Pass::kBackwardWeight) {  // the partial sums of all slices stay below 64 MiB
    const std::int64_t most =
        std::max<std::int64_t>((std::int64_t{16} << 20) / s.weight_elements(), 2);
    images = std::max(images, ceil_div(s.batch, most));
  }
  return std::min(images, s.batch);
}

// A primitive for one slice, made for one thread, and the conversions around it.
struct Plan {
  dnnl::primitive primitive;
  Memory::desc x, weight, y;                           // what the primitive reads and writes
  Memory::desc x_nhwc, weight_krsc, y_nhwc;            // what we hold
  dnnl::reorder x_reorder, weight_reorder, y_reorder;  // in the direction this pass needs
  bool convert_x = false, convert_weight = false, convert_y = false;
  std::size_t scratchpad_bytes = 0;

  // What one slice needs beside its own tensors.
  std::size_t slice_bytes() const {
    return round_up(scratchpad_bytes) + (convert_x ? round_up(x.get_size()) : 0) +
           (convert_y ? round_up(y.get_size()) : 0);
  }
};

template <class Desc>
void adopt(Plan& plan, const Desc& desc, const Memory::desc& x, const Memory::desc& weight,
           const Memory::desc& y) {
  plan.x = x;
  plan.weight = weight;
  plan.y = y;
  plan.scratchpad_bytes = desc.scratchpad_desc().get_size();
}

// Null if oneDNN has no such implementation (Winograd without AVX-512).
std::unique_ptr<Plan> try_plan(Pass pass, const Conv2dShape& s, bool winograd) {
  const OneThread one;
  const dnnl::engine& engine = cpu_engine();
  const Memory::dims x_dims{s.batch, s.channels, s.height, s.width};
  const Memory::dims weight_dims{s.filters, s.channels, s.filter_height, s.filter_width};
  const Memory::dims y_dims{s.batch, s.filters, s.out_height(), s.out_width()};
  const auto f32 = Memory::data_type::f32;
  auto plan = std::make_unique<Plan>();
  plan->x_nhwc = Memory::desc(x_dims, f32, Tag::nhwc);
  plan->y_nhwc = Memory::desc(y_dims, f32, Tag::nhwc);
  plan->weight_krsc = Memory::desc(weight_dims, f32, Tag::ohwi);
  const Memory::desc x = winograd ? Memory::desc(x_dims, f32, Tag::any) : plan->x_nhwc;
  const Memory::desc y = winograd ? Memory::desc(y_dims, f32, Tag::any) : plan->y_nhwc;
  const Memory::desc weight(weight_dims, f32, Tag::any);
  const auto algorithm =
      winograd ? dnnl::algorithm::convolution_winograd : dnnl::algorithm::convolution_direct;
  const Memory::dims strides{s.stride, s.stride}, padding{s.padding, s.padding};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  using Forward = dnnl::convolution_forward;
  using BackwardData = dnnl::convolution_backward_data;
  using BackwardWeight = dnnl::convolution_backward_weights;
  try {
#if DNNL_VERSION_MAJOR >= 3
    const Forward::primitive_desc forward(engine, dnnl::prop_kind::forward_training, algorithm, x,
                                          weight, y, strides, padding, padding, attributes);
#else
    const Forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, algorithm, x, weight, y, strides, padding, padding},
        attributes, engine);
#endif
    if (pass == Pass::kForward) {
      adopt(*plan, forward, forward.src_desc(), forward.weights_desc(), forward.dst_desc());
      plan->primitive = Forward(forward);
    } else if (pass == Pass::kBackwardData) {
#if DNNL_VERSION_MAJOR >= 3
      const BackwardData::primitive_desc desc(engine, algorithm, x, weight, y, strides, padding,
                                              padding, forward, attributes);
#else
      const BackwardData::primitive_desc desc({algorithm, x, weight, y, strides, padding, padding},
                                              attributes, engine, forward);
#endif
      adopt(*plan, desc, desc.diff_src_desc(), desc.weights_desc(), desc.diff_dst_desc());
      plan->primitive = BackwardData(desc);
    } else {
#if DNNL_VERSION_MAJOR >= 3
      const BackwardWeight::primitive_desc desc(engine, algorithm, x, weight, y, strides, padding,
                                                padding, forward, attributes);
#else
      const BackwardWeight::primitive_desc desc(
          {algorithm, x, weight, y, strides, padding, padding}, attributes, engine, forward);
#endif
      adopt(*plan, desc, desc.src_desc(), desc.diff_weights_desc(), desc.diff_dst_desc());
      plan->primitive = BackwardWeight(desc);
    }
    plan->convert_x = plan->x != plan->x_nhwc;
    plan->convert_y = plan->y != plan->y_nhwc;
    plan->convert_weight = plan->weight != plan->weight_krsc;
    auto reorder = [&](const Memory::desc& from, const Memory::desc& to) {
      return dnnl::reorder(dnnl::reorder::primitive_desc(engine, from, engine, to));
    };
    if (plan->convert_x)
      plan->x_reorder = pass == Pass::kBackwardData ? reorder(plan->x, plan->x_nhwc)
                                                    : reorder(plan->x_nhwc, plan->x);
    if (plan->convert_y)
      plan->y_reorder =
          pass == Pass::kForward ? reorder(plan->y, plan->y_nhwc) : reorder(plan->y_nhwc, plan->y);
    if (plan->convert_weight)
      plan->weight_reorder = pass == Pass::kBackwardWeight
                                 ? reorder(plan->weight, plan->weight_krsc)
                                 : reorder(plan->weight_krsc, plan->weight);
    return plan;
  } catch (const dnnl::error& e) {
    if (winograd && e.status == dnnl_unimplemented) return nullptr;
    throw;
  }
}

// The slices of one pass: equal ones, and perhaps a shorter last one with a plan of its own.
struct SlicedPlan {
  std::int64_t images = 0, slices = 0;  // images per slice
  std::unique_ptr<Plan> main, last;     // last: null if all slices are equal
  const Plan& of(std::int64_t slice) const { return last && slice + 1 == slices ? *last : *main; }
  std::size_t slice_bytes() const {
    return std::max(main->slice_bytes(), last ? last->slice_bytes() : 0);
  }
};

std::unique_ptr<SlicedPlan> try_slices(Pass pass, const Conv2dShape& shape, bool winograd) {
  auto plan = std::make_unique<SlicedPlan>();
  plan->images = slice_of(pass, shape, winograd);
  plan->slices = ceil_div(shape.batch, plan->images);
  plan->main = try_plan(pass, with_batch(shape, plan->images), winograd);
  if (!plan->main) return nullptr;
  if (const std::int64_t rest = shape.batch % plan->images) {
    plan->last = try_plan(pass, with_batch(shape, rest), winograd);
    // One layout of weights serves all slices.
    if (!plan->last || plan->last->weight != plan->main->weight) return nullptr;
  }
  return plan;
}

// Null if the shorter last slice wants its weights laid out otherwise: the caller falls back.
const SlicedPlan* find_plan(Pass pass, const Conv2dShape& s) {
  using Key = std::tuple<int, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  static std::mutex mutex;
  static auto* const plans = new std::map<Key, std::unique_ptr<SlicedPlan>>();  // never destroyed
  const Key key{static_cast<int>(pass), s.batch,        s.height, s.width,  s.channels, s.filters,
                s.filter_height,        s.filter_width, s.stride, s.padding};
  const std::lock_guard lock(mutex);
  if (const auto found = plans->find(key); found != plans->end()) return found->second.get();
  std::unique_ptr<SlicedPlan> plan;
  if (prefers_winograd(s)) plan = try_slices(pass, s, true);
  if (!plan) plan = try_slices(pass, s, false);
  return plans->emplace(key, std::move(plan)).first->second.get();
}

// Runs f(plan, stream, slice, first image, scratch of the slice) for every slice.
template <class F>
void for_each_slice(const SlicedPlan& plan, std::int64_t batch, std::byte* scratch, F&& f) {
  const std::size_t stride = plan.slice_bytes();
  parallel_for(batch, plan.images, [&](std::int64_t begin, std::int64_t) {
    const OneThread one;
    const std::int64_t slice = begin / plan.images;
    dnnl::stream stream(cpu_engine());
    f(plan.of(slice), stream, slice, begin, scratch + static_cast<std::size_t>(slice) * stride);
  });
}

Memory memory_of(const Memory::desc& desc, const void* data) {
  return Memory(desc, cpu_engine(), const_cast<void*>(data));
}

std::size_t onednn_workspace(const SlicedPlan& plan, Pass pass) {
  const auto slices = static_cast<std::size_t>(plan.slices);
  const std::size_t weight = round_up(plan.main->weight.get_size());
  return slices * plan.slice_bytes() +
         weight * (pass == Pass::kBackwardWeight ? slices + 1 : plan.main->convert_weight);
}

// y from x (forward) or dx from dy (backward data): `out` is written, `in` is read.
void onednn_images(const SlicedPlan& plan, Pass pass, Pieces& pieces, const Conv2dShape& s,
                   float* out, const float* in, const float* weight) {
  const bool forward = pass == Pass::kForward;
  std::byte* const scratch =
      pieces.take<std::byte>(static_cast<std::size_t>(plan.slices) * plan.slice_bytes());
  Memory w = memory_of(plan.main->weight_krsc, weight);
  if (plan.main->convert_weight) {
    const OneThread one;
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
      [&](const Plan& p, dnnl::stream& stream, std::int64_t, std::int64_t first, std::byte* own) {
        const Memory scratchpad =
            memory_of(Memory::desc({static_cast<std::int64_t>(p.scratchpad_bytes)},
                                   Memory::data_type::u8, Tag::a),
                      own);
        own += round_up(p.scratchpad_bytes);
        Memory from = memory_of(forward ? p.x_nhwc : p.y_nhwc, in + first * in_image);
        if (forward ? p.convert_x : p.convert_y) {
          const Memory::desc& desc = forward ? p.x : p.y;
          Memory converted = memory_of(desc, own);
          own += round_up(desc.get_size());
          (forward ? p.x_reorder : p.y_reorder).execute(stream, from, converted);
          from = converted;
        }
        Memory to = memory_of(forward ? p.y_nhwc : p.x_nhwc, out + first * out_image);
        const bool convert = forward ? p.convert_y : p.convert_x;
        Memory result = convert ? memory_of(forward ? p.y : p.x, own) : to;
        p.primitive.execute(stream, {{forward ? DNNL_ARG_SRC : DNNL_ARG_DIFF_DST, from},
                                     {DNNL_ARG_WEIGHTS, w},
                                     {forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_SRC, result},
                                     {DNNL_ARG_SCRATCHPAD, scratchpad}});
        if (convert) (forward ? p.y_reorder : p.x_reorder).execute(stream, result, to);
      });
}

void onednn_backward_weight(const SlicedPlan& plan, Pieces& pieces, const Conv2dShape& s,
                            float* dweight, const float* x, const float* dy) {
  const auto slices = static_cast<std::size_t>(plan.slices);
  std::byte* const scratch = pieces.take<std::byte>(slices * plan.slice_bytes());
  const std::size_t weight_bytes = plan.main->weight.get_size();
  const std::size_t stride = round_up(weight_bytes) / sizeof(float);
  float* const parts = pieces.take<float>(slices * stride);
  float* const sum = pieces.take<float>(stride);
  const std::int64_t x_image = s.height * s.width * s.channels,
                     y_image = s.out_height() * s.out_width() * s.filters;
  for_each_slice(plan, s.batch, scratch,
                 [&](const Plan& p, dnnl::stream& stream, std::int64_t slice, std::int64_t first,
                     std::byte* own) {
                   const Memory scratchpad =
                       memory_of(Memory::desc({static_cast<std::int64_t>(p.scratchpad_bytes)},
                                              Memory::data_type::u8, Tag::a),
                                 own);
                   own += round_up(p.scratchpad_bytes);
                   Memory a = memory_of(p.x_nhwc, x + first * x_image);
                   if (p.convert_x) {
                     Memory converted = memory_of(p.x, own);
                     own += round_up(p.x.get_size());
                     p.x_reorder.execute(stream, a, converted);
                     a = converted;
                   }
                   Memory b = memory_of(p.y_nhwc, dy + first * y_image);
                   if (p.convert_y) {
                     Memory converted = memory_of(p.y, own);
                     p.y_reorder.execute(stream, b, converted);
                     b = converted;
                   }
                   p.primitive.execute(
                       stream,
                       {{DNNL_ARG_SRC, a},
                        {DNNL_ARG_DIFF_DST, b},
                        {DNNL_ARG_DIFF_WEIGHTS,
                         memory_of(p.weight, parts + static_cast<std::size_t>(slice) * stride)},
                        {DNNL_ARG_SCRATCHPAD, scratchpad}});
                 });
  // The sum is taken in the primitive's own layout, padding included, and converted once.
  const bool convert = plan.main->convert_weight;
  add_slices(convert ? sum : dweight, parts, stride, plan.slices,
             static_cast<std::int64_t>(weight_bytes / sizeof(float)));
  if (convert) {
    const OneThread one;
    dnnl::stream stream(cpu_engine());
    Memory from = memory_of(plan.main->weight, sum),
           to = memory_of(plan.main->weight_krsc, dweight);
    plan.main->weight_reorder.execute(stream, from, to);
  }
}

// oneDNN's errors as ours.
template <class F>
void with_onednn(const char* op, F&& f) {
  try {
    f();
  } catch (const dnnl::error& e) {
    fail(e.status == dnnl_out_of_memory ? ErrorCode::kMemory : ErrorCode::kDevice, "[", op,
         "] oneDNN refused: ", e.what());
  }
}

#else
struct SlicedPlan {};
const SlicedPlan* find_plan(Pass, const Conv2dShape&) { return nullptr; }
std::size_t onednn_workspace(const SlicedPlan&, Pass) { return 0; }
void onednn_images(const SlicedPlan&, Pass, Pieces&, const Conv2dShape&, float*, const float*,
                   const float*) {}
void onednn_backward_weight(const SlicedPlan&, Pieces&, const Conv2dShape&, float*, const float*,
                            const float*) {}
template <class F>
void with_onednn(const char*, F&& f) {
  f();
}
#endif

// --------------------------------------------------------------------------------- f32, and bf16

// To f32, rounded to bf16 where the source is wider.
template <class T>
void widen(float* to, const void* from, std::int64_t n) {
  const T* const values = static_cast<const T*>(from);
  parallel_for(n, std::int64_t{1} << 16, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) to[i] = to_float(to_bf16(to_float(values[i])));
  });
}
void narrow(void* to, const float* from, std::int64_t n) {
  bf16* const values = static_cast<bf16*>(to);
  parallel_for(n, std::int64_t{1} << 16, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) values[i] = to_bf16(from[i]);
  });
}

// The three tensors of a pass: a bf16 one is computed on as f32 in scratch, and so are f32 weights
// that are to be rounded to bf16.
struct Operand {
  const void* data;
  std::int64_t n;
  DType dtype;
  bool round = false;
  std::size_t bytes() const {
    return dtype == DType::kBF16 || round ? round_up(static_cast<std::size_t>(n) * sizeof(float))
                                          : 0;
  }
  const float* read(Pieces& pieces) const {
    if (dtype != DType::kBF16 && !round) return static_cast<const float*>(data);
    float* const wide = pieces.take<float>(static_cast<std::size_t>(n));
    if (dtype == DType::kBF16)
      widen<bf16>(wide, data, n);
    else
      widen<float>(wide, data, n);
    return wide;
  }
  float* space(Pieces& pieces) const {
    if (dtype != DType::kBF16) return const_cast<float*>(static_cast<const float*>(data));
    return pieces.take<float>(static_cast<std::size_t>(n));
  }
  void write(const float* from) const {
    if (dtype == DType::kBF16) narrow(const_cast<void*>(data), from, n);
  }
};

}  // namespace

void conv2d_cpu(const Context& context, const Conv2dArgs& args) {
  const Conv2dShape& s = args.shape;
  if (args.dtype == DType::kF64) {
    Pieces pieces(context, columns_workspace<double>(Pass::kForward, s));
    columns_forward(pieces, s, static_cast<double*>(args.y), static_cast<const double*>(args.x),
                    static_cast<const double*>(args.weight));
    conv2d_apply_epilogue<double>(args, static_cast<double*>(args.y));
    return conv2d_statistics_of<double>(args);
  }
  with_onednn("conv2d", [&] {
    const Operand y{args.y, s.y_elements(), args.dtype}, x{args.x, s.x_elements(), args.dtype},
        weight{args.weight, s.weight_elements(), args.weight_dtype, args.dtype == DType::kBF16};
    const SlicedPlan* const plan = find_plan(Pass::kForward, s);
    Pieces pieces(context, y.bytes() + x.bytes() + weight.bytes() +
                               (plan ? onednn_workspace(*plan, Pass::kForward)
                                     : columns_workspace<float>(Pass::kForward, s)));
    const float *const from = x.read(pieces), *const w = weight.read(pieces);
    float* const to = y.space(pieces);
    if (plan)
      onednn_images(*plan, Pass::kForward, pieces, s, to, from, w);
    else
      columns_forward(pieces, s, to, from, w);
    if (args.dtype == DType::kBF16) {
      conv2d_apply_epilogue<bf16>(args, to);
      y.write(to);
      conv2d_statistics_of<bf16>(args);
    } else {
      conv2d_apply_epilogue<float>(args, to);
      conv2d_statistics_of<float>(args);
    }
  });
}

void conv2d_backward_data_cpu(const Context& context, const Conv2dBackwardDataArgs& args) {
  const Conv2dShape& s = args.shape;
  if (args.dtype == DType::kF64) {
    Pieces pieces(context, columns_workspace<double>(Pass::kBackwardData, s));
    return columns_backward_data(pieces, s, static_cast<double*>(args.dx),
                                 static_cast<const double*>(args.dy),
                                 static_cast<const double*>(args.weight));
  }
  with_onednn("conv2d_backward_data", [&] {
    const Operand dx{args.dx, s.x_elements(), args.dtype}, dy{args.dy, s.y_elements(), args.dtype},
        weight{args.weight, s.weight_elements(), args.weight_dtype, args.dtype == DType::kBF16};
    const SlicedPlan* const plan = find_plan(Pass::kBackwardData, s);
    Pieces pieces(context, dx.bytes() + dy.bytes() + weight.bytes() +
                               (plan ? onednn_workspace(*plan, Pass::kBackwardData)
                                     : columns_workspace<float>(Pass::kBackwardData, s)));
    const float *const from = dy.read(pieces), *const w = weight.read(pieces);
    float* const to = dx.space(pieces);
    if (plan)
      onednn_images(*plan, Pass::kBackwardData, pieces, s, to, from, w);
    else
      columns_backward_data(pieces, s, to, from, w);
    dx.write(to);
  });
}

void conv2d_backward_weight_cpu(const Context& context, const Conv2dBackwardWeightArgs& args) {
  const Conv2dShape& s = args.shape;
  if (s.batch == 0) {
    std::memset(args.dweight, 0,
                static_cast<std::size_t>(s.weight_elements()) * size_of(args.weight_dtype));
    return;
  }
  if (args.dtype == DType::kF64) {
    Pieces pieces(context, columns_workspace<double>(Pass::kBackwardWeight, s));
    return columns_backward_weight(pieces, s, static_cast<double*>(args.dweight),
                                   static_cast<const double*>(args.x),
                                   static_cast<const double*>(args.dy));
  }
  with_onednn("conv2d_backward_weight", [&] {
    const Operand dweight{args.dweight, s.weight_elements(), args.weight_dtype},
        x{args.x, s.x_elements(), args.dtype}, dy{args.dy, s.y_elements(), args.dtype};
    const SlicedPlan* const plan = find_plan(Pass::kBackwardWeight, s);
    Pieces pieces(context, dweight.bytes() + x.bytes() + dy.bytes() +
                               (plan ? onednn_workspace(*plan, Pass::kBackwardWeight)
                                     : columns_workspace<float>(Pass::kBackwardWeight, s)));
    const float *const a = x.read(pieces), *const b = dy.read(pieces);
    float* const to = dweight.space(pieces);
    if (plan)
      onednn_backward_weight(*plan, pieces, s, to, a, b);
    else
      columns_backward_weight(pieces, s, to, a, b);
    dweight.write(to);
  });
}

}  // namespace retort::kernels
