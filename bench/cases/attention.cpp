// Attention over sequences that lie end to end, and its gradients; q, k and v are columns of one
// packed product, as a layer of a transformer has them.
#include <cmath>
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/attention.h"
#include "kernels/attention/attention.h"

namespace retort::bench {
namespace {

struct Size {
  std::int64_t sequences, shortest, longest, heads, head_size;
};

// Lengths spread evenly over [shortest, longest], in an order without pattern.
std::vector<std::int32_t> starts_of(const Size& s) {
  std::vector<std::int32_t> at{0};
  for (std::int64_t i = 0; i < s.sequences; ++i) {
    const std::int64_t k = i * 37 % s.sequences;
    const std::int64_t spread = s.longest - s.shortest;
    at.push_back(at.back() +
                 static_cast<std::int32_t>(s.shortest +
                                           (s.sequences > 1 ? spread * k / (s.sequences - 1) : 0)));
  }
  return at;
}

struct Buffers {
  Size size;
  DType dtype;
  Device device;
  Tensor qkv, dout, out, lse, dqkv, starts;

  Buffers(const Size& s, const Case& c) : size(s), dtype(c.dtype), device(c.device) {
    const std::vector<std::int32_t> at = starts_of(s);
    const std::int64_t rows = at.back(), width = s.heads * s.head_size;
    qkv = normal({rows, 3 * width}, c.seed, dtype, device);
    dout = normal({rows, width}, c.seed + 1, dtype, device);
    out = Tensor::empty({rows, width}, dtype, device);
    dqkv = Tensor::empty({rows, 3 * width}, dtype, device);
    lse = Tensor::empty({s.heads, rows}, dtype == DType::kF64 ? DType::kF64 : DType::kF32, device);
    starts = Tensor::from<std::int32_t>(at, {s.sequences + 1}, device);
  }
  Tensor part(const Tensor& t, int i) const {
    const std::int64_t width = size.heads * size.head_size;
    return t.slice_columns(i * width, (i + 1) * width);
  }
  void forward(const Context& context) const {
    kernels::AttentionArgs a{};
    a.out = out.raw(), a.lse = lse.raw();
    a.q = part(qkv, 0).raw(), a.k = part(qkv, 1).raw(), a.v = part(qkv, 2).raw();
    fill(a);
    kernels::attention(context, a);
  }
  void backward(const Context& context) const {
    kernels::AttentionBackwardArgs a{};
    a.dq = part(dqkv, 0).raw(), a.dk = part(dqkv, 1).raw(), a.dv = part(dqkv, 2).raw();
    a.dout = dout.raw(), a.out = out.raw(), a.lse = lse.raw();
    a.q = part(qkv, 0).raw(), a.k = part(qkv, 1).raw(), a.v = part(qkv, 2).raw();
    a.dq_pitch = a.dk_pitch = a.dv_pitch = dqkv.row_pitch();
    a.dout_pitch = dout.row_pitch();
    fill(a);
    kernels::attention_backward(context, a);
  }

 private:
  template <class Args>
  void fill(Args& a) const {
    a.starts = starts.data<std::int32_t>();
    a.sequences = size.sequences, a.rows = qkv.dim(0);
    a.heads = size.heads, a.head_size = size.head_size;
    a.q_pitch = a.k_pitch = a.v_pitch = qkv.row_pitch();
    a.out_pitch = out.row_pitch();
    a.longest = size.longest;
    a.dtype = dtype;
  }
};

enum class Pass { kForward, kBackward, kBoth };

// Of sampled elements, against the same op in double on the CPU.
double error_of(const Buffers& b, Pass pass) {
  Case exact;
  exact.dtype = DType::kF64;
  exact.device = Device::kCpu;
  Buffers want(b.size, exact);
  want.qkv = b.qkv.to(Device::kCpu).to(DType::kF64);
  want.dout = b.dout.to(Device::kCpu).to(DType::kF64);
  want.forward(context_of(Device::kCpu));
  if (pass != Pass::kForward) want.backward(context_of(Device::kCpu));
  double worst = 0;
  const auto compare = [&](const Tensor& got, const Tensor& exact_one) {
    const Host g(got), w(exact_one);
    Error64 e;
    for (const std::int64_t i : sampled(got.numel(), 20000))
      e.add(g[static_cast<std::size_t>(i)], w[static_cast<std::size_t>(i)]);
    worst = worse(worst, e.value());
  };
  if (pass != Pass::kBackward) compare(b.out, want.out), compare(b.lse, want.lse);
  if (pass != Pass::kForward) compare(b.dqkv, want.dqkv);
  return worst;
}

Work make(const Size& s, Pass pass, const Case& c) {
  const auto b = std::make_shared<const Buffers>(s, c);
  if (pass == Pass::kBackward) b->forward(context_of(c.device));
  Work w;
  w.run = [=] {
    if (pass != Pass::kBackward) b->forward(kernel_context(c.device));
    if (pass != Pass::kForward) b->backward(kernel_context(c.device));
  };
  if (pass == Pass::kForward)
    w.composed = [=] {
      const NoGrad no_grad;
      static_cast<void>(attention_composed(b->part(b->qkv, 0), b->part(b->qkv, 1),
                                           b->part(b->qkv, 2), b->starts, s.heads));
    };
  w.outputs = [=] {
    if (pass == Pass::kForward) return std::vector<Tensor>{b->out, b->lse};
    if (pass == Pass::kBackward) return std::vector<Tensor>{b->dqkv};
    return std::vector<Tensor>{b->out, b->lse, b->dqkv};
  };
  w.error = [=] { return error_of(*b, pass); };
  w.digest = [=] {
    std::vector<double> norms;
    if (pass != Pass::kBackward) norms.push_back(norm_of(b->out));
    if (pass != Pass::kForward) norms.push_back(norm_of(b->dqkv));
    return norms;
  };
  w.exports = [=] {
    return NamedTensors{{"qkv", b->qkv.to(Device::kCpu)},
                        {"dout", b->dout.to(Device::kCpu)},
                        {"starts", b->starts.to(Device::kCpu)}};
  };
  return w;
}

}  // namespace

void add_attention_cases(Plan& plan) {
  const std::vector<Size> sizes =
      plan.smoke ? std::vector<Size>{{3, 2, 20, 2, 16}}
      : plan.device == Device::kCpu
          ? std::vector<Size>{{32, 16, 128, 12, 64}, {32, 24, 24, 12, 32}}
          : std::vector<Size>{
                {256, 128, 128, 12, 64}, {64, 512, 512, 12, 64}, {455, 16, 128, 12, 64}};
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const Size& s : sizes)
      for (const Pass pass : {Pass::kForward, Pass::kBackward, Pass::kBoth}) {
        double squares = 0;
        const std::vector<std::int32_t> at = starts_of(s);
        for (std::size_t i = 0; i + 1 < at.size(); ++i) squares += std::pow(at[i + 1] - at[i], 2);
        const double elements = static_cast<double>(at.back()) *
                                static_cast<double>(s.heads * s.head_size * size_of(dtype)),
                     product = 2 * squares * static_cast<double>(s.heads * s.head_size);
        Case c;
        c.name = std::string(pass == Pass::kForward    ? "attention"
                             : pass == Pass::kBackward ? "attention_backward"
                                                       : "attention_both") +
                 "/" + shape_name(s.heads, s.head_size) + "/" + shape_name(s.sequences) + "of" +
                 std::to_string(s.shortest) + "to" + std::to_string(s.longest);
        c.dtype = dtype;
        // q, k, v and out; with dout, dq, dk, dv in backward. Products: two and five.
        c.bytes = elements * (pass == Pass::kForward ? 4 : pass == Pass::kBackward ? 8 : 12);
        c.flops = product * (pass == Pass::kForward ? 2 : pass == Pass::kBackward ? 5 : 7);
        c.working_set = 12 * elements;
        c.error_bound = dtype == DType::kF32 ? 2e-5 : 2e-2;
        c.matrix = plan.device == Device::kCpu;
        c.goal = !plan.smoke && plan.device == Device::kCuda && dtype == DType::kBF16 &&
                 pass != Pass::kBoth && s.shortest == s.longest;
        c.make = [=](const Case& me) { return make(s, pass, me); };
        plan.add(std::move(c));
      }
}

}  // namespace retort::bench
