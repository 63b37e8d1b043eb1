#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_cpu.h"
#include "kernels/common/parallel.h"

namespace retort::kernels {

CudaOp<AttentionArgs> attention_cuda = nullptr;
CudaOp<AttentionBackwardArgs> attention_backward_cuda = nullptr;

namespace {

template <class Args>
void check_starts(const char* op, const Args& a) {
  for (std::int64_t s = 0; s <= a.sequences; ++s) {
    RETORT_CHECK(a.starts[s] >= (s > 0 ? a.starts[s - 1] : 0) && a.starts[s] <= a.rows, "[", op,
                 "] expected ascending starts in [0, ", a.rows, "], got ", a.starts[s], " at ", s,
                 s > 0 ? join(" after ", a.starts[s - 1]) : std::string());
    RETORT_CHECK(s == 0 || a.drop.p == 0 || a.starts[s] - a.starts[s - 1] <= kAttentionDropoutKeys,
                 "[", op, "] expected at most ", kAttentionDropoutKeys,
                 " rows a sequence with dropout, got ", s > 0 ? a.starts[s] - a.starts[s - 1] : 0,
                 " in sequence ", s - 1);
  }
}

// Calls f(first row, last row) for the rows before and behind all sequences.
template <class Args, class F>
void for_rows_of_no_sequence(const Args& a, F&& f) {
  const std::int64_t first = a.sequences > 0 ? a.starts[0] : 0,
                     last = a.sequences > 0 ? a.starts[a.sequences] : 0;
  if (first > 0) f(std::int64_t{0}, first);
  if (last < a.rows) f(last, a.rows);
}

template <class T>
void zero_rows(void* to, std::int64_t pitch, std::int64_t first, std::int64_t last,
               std::int64_t columns) {
  for (std::int64_t r = first; r < last; ++r)
    std::fill_n(static_cast<T*>(to) + r * pitch, columns, T{});
}

// A head of a sequence in double: what gradient checks run.
class HeadF64 {
 public:
  template <class Args>
  HeadF64(const Args& a, std::int64_t s, std::int64_t h)
      : drop_(a.drop),
        begin_(a.starts[s]),
        rows_(a.starts[s + 1] - begin_),
        first_column_(h * a.head_size),
        size_(a.head_size),
        causal_(a.causal),
        scale_(1 / std::sqrt(static_cast<double>(a.head_size))),
        key_(attention_key(a.drop, static_cast<int>(h))),
        sample_(rows_ > 0 ? attention_sample(a.drop, s, begin_) : 0) {}

  std::int64_t rows() const { return rows_; }
  std::int64_t keys_of(std::int64_t i) const { return causal_ ? i + 1 : rows_; }
  double scale() const { return scale_; }
  template <class P>
  auto row(P* base, std::int64_t pitch, std::int64_t i) const {
    using Out = std::conditional_t<std::is_const_v<P>, const double, double>;
    return static_cast<Out*>(base) + (begin_ + i) * pitch + first_column_;
  }
  double dot(const double* a, const double* b) const {
    double sum = 0;
    for (std::int64_t c = 0; c < size_; ++c) sum += a[c] * b[c];
    return sum;
  }
  /// to += factor * from
  void add(double* to, double factor, const double* from) const {
    for (std::int64_t c = 0; c < size_; ++c) to[c] += factor * from[c];
  }
  /// m_ij of attention.h.
  double factor(std::int64_t i, std::int64_t j) const {
    if (drop_.p == 0) return 1;
    const Philox4 words = attention_words(key_, sample_, static_cast<std::uint32_t>(i),
                                          static_cast<std::uint32_t>(j / kDropoutBlock));
    return dropout_value(1.0, words.v[j % kDropoutBlock], key_.threshold, 1 / (1 - drop_.p));
  }

 private:
  DropoutArgs drop_;
  std::int64_t begin_, rows_, first_column_, size_;
  bool causal_;
  double scale_;
  DropoutKey key_;
  std::uint32_t sample_;
};

void forward_f64(const AttentionArgs& a, std::int64_t s, std::int64_t h) {
  const HeadF64 head(a, s, h);
  std::vector<double> z(static_cast<std::size_t>(head.rows()));
  for (std::int64_t i = 0; i < head.rows(); ++i) {
    double top = std::numeric_limits<double>::lowest(), sum = 0;
    for (std::int64_t j = 0; j < head.keys_of(i); ++j) {
      double& here = z[static_cast<std::size_t>(j)];
      here = head.scale() * head.dot(head.row(a.q, a.q_pitch, i), head.row(a.k, a.k_pitch, j));
      top = std::max(top, here);
    }
    double* const out = head.row(a.out, a.out_pitch, i);
    std::fill_n(out, a.head_size, 0.0);
    for (std::int64_t j = 0; j < head.keys_of(i); ++j) {
      double& p = z[static_cast<std::size_t>(j)];
      sum += p = std::exp(p - top);
    }
    for (std::int64_t j = 0; j < head.keys_of(i); ++j)
      head.add(out, head.factor(i, j) * (sum == 0 ? 0 : z[static_cast<std::size_t>(j)] / sum),
               head.row(a.v, a.v_pitch, j));
    if (a.lse)
      static_cast<double*>(a.lse)[h * a.rows + a.starts[s] + i] =
          sum == 0 ? -std::numeric_limits<double>::infinity() : top + std::log(sum);
  }
}

void backward_f64(const AttentionBackwardArgs& a, std::int64_t s, std::int64_t h) {
  const HeadF64 head(a, s, h);
  for (std::int64_t j = 0; j < head.rows(); ++j) {
    std::fill_n(head.row(a.dq, a.dq_pitch, j), a.head_size, 0.0);
    std::fill_n(head.row(a.dk, a.dk_pitch, j), a.head_size, 0.0);
    std::fill_n(head.row(a.dv, a.dv_pitch, j), a.head_size, 0.0);
  }
  for (std::int64_t i = 0; i < head.rows(); ++i) {
    const double *const q = head.row(a.q, a.q_pitch, i), *const dout =
                                                             head.row(a.dout, a.dout_pitch, i);
    const double lse = static_cast<const double*>(a.lse)[h * a.rows + a.starts[s] + i],
                 base = std::isinf(lse) && lse < 0 ? 0 : lse,
                 delta = head.dot(dout, head.row(a.out, a.out_pitch, i));
    for (std::int64_t j = 0; j < head.keys_of(i); ++j) {
      const double* const k = head.row(a.k, a.k_pitch, j);
      const double p = std::exp(head.scale() * head.dot(q, k) - base), m = head.factor(i, j),
                   dz = p * (m * head.dot(dout, head.row(a.v, a.v_pitch, j)) - delta);
      head.add(head.row(a.dq, a.dq_pitch, i), head.scale() * dz, k);
      head.add(head.row(a.dk, a.dk_pitch, j), head.scale() * dz, q);
      head.add(head.row(a.dv, a.dv_pitch, j), m * p, dout);
    }
  }
}

// Calls f(s, h) for every head of every sequence, on several threads.
template <class Args, class F>
void for_each_head(const Args& a, F&& f) {
  parallel_for(a.sequences * a.heads, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) f(i / a.heads, i % a.heads);
  });
}

}  // namespace

void attention_cpu(const Context&, const AttentionArgs& a) {
  check_starts("attention", a);
  dispatch_float(a.dtype, "attention", [&]<class T>() {
    for_rows_of_no_sequence(a, [&](std::int64_t first, std::int64_t last) {
      zero_rows<T>(a.out, a.out_pitch, first, last, a.heads * a.head_size);
      if (a.lse)
        for (std::int64_t h = 0; h < a.heads; ++h)
          zero_rows<accumulator_t<T>>(a.lse, 1, h * a.rows + first, h * a.rows + last, 1);
    });
    if constexpr (std::is_same_v<T, double>)
      for_each_head(a, [&](std::int64_t s, std::int64_t h) { forward_f64(a, s, h); });
    else
      for_each_head(a, [&](std::int64_t s, std::int64_t h) { attention_head(a, s, h); });
  });
}

void attention_backward_cpu(const Context&, const AttentionBackwardArgs& a) {
  check_starts("attention_backward", a);
  dispatch_float(a.dtype, "attention_backward", [&]<class T>() {
    for_rows_of_no_sequence(a, [&](std::int64_t first, std::int64_t last) {
      zero_rows<T>(a.dq, a.dq_pitch, first, last, a.heads * a.head_size);
      zero_rows<T>(a.dk, a.dk_pitch, first, last, a.heads * a.head_size);
      zero_rows<T>(a.dv, a.dv_pitch, first, last, a.heads * a.head_size);
    });
    if constexpr (std::is_same_v<T, double>)
      for_each_head(a, [&](std::int64_t s, std::int64_t h) { backward_f64(a, s, h); });
    else
      for_each_head(a, [&](std::int64_t s, std::int64_t h) { attention_backward_head(a, s, h); });
  });
}

}  // namespace retort::kernels
