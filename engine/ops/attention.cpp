#include "engine/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/matmul.h"
#include "engine/ops/softmax.h"
#include "engine/ops/view.h"
#include "engine/runtime/device.h"
#include "kernels/attention/attention.h"

namespace retort {
namespace {

std::string described(const Tensor& t) {
  return t.defined() ? join(t.shape(), " of ", name_of(t.dtype()), " on ", name_of(t.device()))
                     : std::string("an undefined tensor");
}

void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& starts,
           std::int64_t heads, const AttentionOptions& o) {
  RETORT_CHECK(q.defined() && q.rank() == 2, "[attention] expected q (N, heads D), got ",
               described(q));
  for (const Tensor* const t : {&k, &v})
    RETORT_CHECK(t->defined() && t->shape() == q.shape() && t->dtype() == q.dtype() &&
                     t->device() == q.device(),
                 "[attention] expected k and v like q, ", described(q), ", got ", described(*t));
  RETORT_CHECK(heads >= 1 && q.dim(1) >= 1 && q.dim(1) % heads == 0,
               "[attention] expected columns in ", heads, " equal heads, got ", q.dim(1));
  RETORT_CHECK(starts.defined() && starts.rank() == 1 && starts.dim(0) >= 1 &&
                   starts.dtype() == DType::kI32 && starts.device() == q.device(),
               "[attention] expected starts (S + 1) of i32 on ", name_of(q.device()), ", got ",
               described(starts));
  RETORT_CHECK(o.longest >= 0, "[attention] expected longest >= 0, got ", o.longest);
  RETORT_CHECK(o.dropout >= 0 && o.dropout < 1, "[attention] expected dropout in [0, 1), got ",
               o.dropout);
  if (o.dropout == 0) return;
  const Noise& noise = o.noise;
  RETORT_CHECK(
      !noise.step.defined() || (noise.step.dtype() == DType::kI64 && noise.step.numel() == 1 &&
                                noise.step.device() == q.device()),
      "[attention] expected a step of one i64 on ", name_of(q.device()), ", got ",
      described(noise.step));
  RETORT_CHECK(!noise.sample.defined() ||
                   ((noise.sample.dtype() == DType::kI64 || noise.sample.dtype() == DType::kI32) &&
                    noise.sample.numel() == q.dim(0) && noise.sample.device() == q.device() &&
                    noise.sample.is_contiguous()),
               "[attention] expected ", q.dim(0), " samples of i64 or i32 on ", name_of(q.device()),
               ", got ", described(noise.sample));
}

// On the CPU a wrong hint is found out.
void check_longest(const Tensor& starts, const AttentionOptions& o) {
  if (starts.device() != Device::kCpu || o.longest == 0) return;
  const std::int32_t* const at = starts.data<std::int32_t>();
  for (std::int64_t s = 0; s + 1 < starts.dim(0); ++s)
    RETORT_CHECK(at[s + 1] - at[s] <= o.longest, "[attention] expected sequences of at most ",
                 o.longest, " rows, got ", at[s + 1] - at[s], " in sequence ", s);
}

kernels::DropoutArgs drop_of(const AttentionOptions& o) {
  kernels::DropoutArgs drop{};
  drop.p = o.dropout;
  drop.seed = o.noise.seed;
  drop.path = o.path;
  if (o.dropout == 0) return drop;
  if (o.noise.step.defined()) drop.step = o.noise.step.data<std::int64_t>();
  if (o.noise.sample.defined()) {
    drop.sample = o.noise.sample.raw();
    drop.sample_dtype = o.noise.sample.dtype();
  }
  return drop;
}

struct Forward {
  Tensor out, lse;
};

Forward run(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& starts,
            std::int64_t heads, const AttentionOptions& o, bool keep_lse) {
  const DType sums = q.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Forward f{Tensor::empty(q.shape(), q.dtype(), q.device()), {}};
  if (keep_lse) f.lse = Tensor::empty({heads, q.dim(0)}, sums, q.device());
  kernels::AttentionArgs args{};
  args.out = f.out.raw();
  args.lse = keep_lse ? f.lse.raw() : nullptr;
  args.q = q.raw(), args.k = k.raw(), args.v = v.raw();
  args.starts = starts.data<std::int32_t>();
  args.sequences = starts.dim(0) - 1, args.rows = q.dim(0);
  args.heads = heads, args.head_size = q.dim(1) / heads;
  args.out_pitch = f.out.row_pitch();
  args.q_pitch = q.row_pitch(), args.k_pitch = k.row_pitch(), args.v_pitch = v.row_pitch();
  args.longest = o.longest, args.causal = o.causal, args.dtype = q.dtype();
  args.drop = drop_of(o);
  kernels::attention(context_of(q.device()), args);
  return f;
}

// What backward reads.
struct AttentionSaved {
  Tensor q, k, v, out, lse, starts;
  std::int64_t heads;
  AttentionOptions options;
};

void run_backward(const AttentionSaved& s, const Tensor& dout, const Tensor& dq, const Tensor& dk,
                  const Tensor& dv) {
  kernels::AttentionBackwardArgs args{};
  args.dq = dq.raw(), args.dk = dk.raw(), args.dv = dv.raw();
  args.dout = dout.raw(), args.out = s.out.raw(), args.lse = s.lse.raw();
  args.q = s.q.raw(), args.k = s.k.raw(), args.v = s.v.raw();
  args.starts = s.starts.data<std::int32_t>();
  args.sequences = s.starts.dim(0) - 1, args.rows = s.q.dim(0);
  args.heads = s.heads, args.head_size = s.q.dim(1) / s.heads;
  args.dq_pitch = dq.row_pitch(), args.dk_pitch = dk.row_pitch(), args.dv_pitch = dv.row_pitch();
  args.dout_pitch = dout.row_pitch(), args.out_pitch = s.out.row_pitch();
  args.q_pitch = s.q.row_pitch(), args.k_pitch = s.k.row_pitch(), args.v_pitch = s.v.row_pitch();
  args.longest = s.options.longest, args.causal = s.options.causal, args.dtype = s.q.dtype();
  args.drop = drop_of(s.options);
  kernels::attention_backward(context_of(s.q.device()), args);
}

}  // namespace

bool attention_is_fused(Device device, DType dtype, std::int64_t head_size) {
  return device == Device::kCpu || kernels::attention_on_cuda(dtype, head_size);
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& starts,
                 std::int64_t heads, const AttentionOptions& options) {
  check(q, k, v, starts, heads, options);
  check_longest(starts, options);
  if (!attention_is_fused(q.device(), q.dtype(), q.dim(1) / heads))
    return attention_composed(q, k, v, starts, heads, options);
  const bool keep = needs_grad(q) || needs_grad(k) || needs_grad(v);
  const Tensor indices = starts.detach().contiguous();
  const Forward f = run(q, k, v, indices, heads, options, keep);
  if (!keep) return f.out;
  const AttentionSaved saved{q.detach(), k.detach(), v.detach(), f.out.detach(),
                             f.lse,      indices,    heads,      options};
  return record("attention", f.out, {q, k, v}, [saved](const Tensor& dout) {
    const auto like = [&] { return Tensor::empty(saved.q.shape(), dout.dtype(), dout.device()); };
    const Tensor dq = like(), dk = like(), dv = like();
    run_backward(saved, dout, dq, dk, dv);
    return std::vector<Tensor>{dq, dk, dv};
  });
}

Tensor attention(const Tensor& qkv, const Tensor& starts, std::int64_t heads,
                 const AttentionOptions& options) {
  RETORT_CHECK(qkv.defined() && qkv.rank() == 2 && qkv.dim(1) % 3 == 0,
               "[attention] expected q, k and v side by side, (N, 3 heads D), got ",
               described(qkv));
  const std::int64_t width = qkv.dim(1) / 3;
  const auto part = [width](const Tensor& t, int i) {
    return t.slice_columns(i * width, (i + 1) * width);
  };
  const Tensor all = qkv.detach();
  check(part(all, 0), part(all, 1), part(all, 2), starts, heads, options);
  if (!attention_is_fused(qkv.device(), qkv.dtype(), width / heads))
    return attention_composed(slice_columns(qkv, 0, width), slice_columns(qkv, width, 2 * width),
                              slice_columns(qkv, 2 * width, 3 * width), starts, heads, options);
  check_longest(starts, options);
  const bool keep = needs_grad(qkv);
  const Tensor indices = starts.detach().contiguous();
  const Forward f = run(part(all, 0), part(all, 1), part(all, 2), indices, heads, options, keep);
  if (!keep) return f.out;
  const AttentionSaved saved{part(all, 0), part(all, 1), part(all, 2), f.out.detach(),
                             f.lse,        indices,      heads,        options};
  return record("attention", f.out, {qkv}, [saved, part, shape = qkv.shape()](const Tensor& dout) {
    const Tensor dqkv = gradient_memory(0, shape, dout.dtype(), dout.device());
    run_backward(saved, dout, part(dqkv, 0), part(dqkv, 1), part(dqkv, 2));
    return std::vector<Tensor>{dqkv};
  });
}

// ---- the definition -----------------------------------------------------------------------------

namespace {

// The parts side by side.
Tensor side_by_side(const std::vector<Tensor>& parts) {
  std::vector<std::int64_t> ends{0};
  for (const Tensor& part : parts) ends.push_back(ends.back() + part.dim(1));
  const Tensor y =
      Tensor::empty({parts[0].dim(0), ends.back()}, parts[0].dtype(), parts[0].device());
  for (std::size_t i = 0; i < parts.size(); ++i)
    y.slice_columns(ends[i], ends[i + 1]).copy_from(parts[i]);
  return record("side_by_side", y, parts, [ends](const Tensor& dy) {
    std::vector<Tensor> gradients;
    for (std::size_t i = 0; i + 1 < ends.size(); ++i)
      gradients.push_back(dy.slice_columns(ends[i], ends[i + 1]).contiguous());
    return gradients;
  });
}

// value(i, j) of an (n, n) array, on `like`'s device in its dtype.
template <class F>
Tensor square_of(std::int64_t n, const Tensor& like, F&& value) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) values.push_back(value(i, j));
  return Tensor::from<double>(values, {n, n}).to(like.dtype()).to(like.device());
}

Tensor causal_bias(std::int64_t n, const Tensor& like) {
  return square_of(n, like, [](std::int64_t i, std::int64_t j) {
    return j <= i ? 0.0 : -std::numeric_limits<double>::infinity();
  });
}

Tensor dropped(const Tensor& p, const AttentionOptions& o, std::int64_t sample, std::int64_t step,
               std::int64_t head) {
  kernels::DropoutKey key{o.noise.seed, static_cast<std::uint32_t>(step),
                          kernels::attention_path(o.path, static_cast<int>(head)),
                          kernels::dropout_threshold(o.dropout)};
  return multiply(p, square_of(p.dim(0), p, [&](std::int64_t i, std::int64_t j) {
                    const Philox4 words = kernels::attention_words(
                        key, static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(i),
                        static_cast<std::uint32_t>(j / kernels::kDropoutBlock));
                    return kernels::dropout_value(1.0, words.v[j % kernels::kDropoutBlock],
                                                  key.threshold, 1 / (1 - o.dropout));
                  }));
}

}  // namespace

Tensor attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& starts,
                          std::int64_t heads, const AttentionOptions& o) {
  check(q, k, v, starts, heads, o);
  const std::int64_t rows = q.dim(0), size = q.dim(1) / heads;
  std::vector<std::int64_t> at = starts.to_vector<std::int64_t>();
  for (std::int64_t& start : at) start = std::clamp<std::int64_t>(start, 0, rows);
  const std::int64_t step =
      o.dropout > 0 && o.noise.step.defined() ? o.noise.step.to_vector<std::int64_t>()[0] : 0;
  std::vector<std::int64_t> samples;
  if (o.dropout > 0 && o.noise.sample.defined()) samples = o.noise.sample.to_vector<std::int64_t>();
  std::vector<Tensor> parts;
  const auto of_no_sequence = [&](std::int64_t n) {  // 0, on the tape all the same
    if (n == 0) return;
    const auto none = [like = q.detach()](std::int64_t rows_of) {
      return Tensor::zeros({rows_of, like.dim(1)}, like.dtype(), like.device());
    };
    parts.push_back(record("no_sequence", none(n), {q, k, v}, [none, rows](const Tensor&) {
      return std::vector<Tensor>{none(rows), none(rows), none(rows)};
    }));
  };
  of_no_sequence(at.size() > 1 ? at[0] : 0);
  for (std::size_t s = 0; s + 1 < at.size(); ++s) {
    if (at[s + 1] <= at[s]) continue;
    const std::int64_t n = at[s + 1] - at[s];
    const auto part = [&](const Tensor& t, std::int64_t h) {
      return slice_columns(slice_rows(t, at[s], at[s + 1]), h * size, (h + 1) * size);
    };
    std::vector<Tensor> of_heads;
    for (std::int64_t h = 0; h < heads; ++h) {
      Tensor z = scale(matmul(part(q, h), part(k, h), false, true),
                       1 / std::sqrt(static_cast<double>(size)));  // (L, L)
      if (o.causal) z = add(z, causal_bias(n, z));
      Tensor p = softmax(z);
      if (o.dropout > 0)
        p = dropped(p, o,
                    samples.empty() ? static_cast<std::int64_t>(s)
                                    : samples[static_cast<std::size_t>(at[s])],
                    step, h);
      of_heads.push_back(matmul(p, part(v, h)));  // (L, D)
    }
    parts.push_back(side_by_side(of_heads));
  }
  of_no_sequence(rows - (at.size() > 1 ? at.back() : 0));
  if (parts.empty()) return Tensor::empty(q.shape(), q.dtype(), q.device());
  return concatenate(parts);
}

}  // namespace retort
