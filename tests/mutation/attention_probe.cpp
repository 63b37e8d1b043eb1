// The attention kernels on the emulator, against their definition in double: a plain program, so
// that it can be built quickly with a fault planted in a kernel (tests/mutation/mutate.py) and by
// itself as a test. Beside the numbers it asserts that no load meets a bank conflict, that nothing
// is written outside the outputs, that another order of threads gives the same bytes, and that
// little shared memory (rows that stream by) does too.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/attention/attention.cuh"
#include "kernels/attention/attention_composed.h"
#include "kernels/simt/emu.h"

namespace retort::kernels {
namespace {

// The first failure ends the program: a planted fault needs no second.
void expect(bool ok, const char* what, const char* where) {
  if (ok) return;
  std::printf("FAIL %s: %s\n", what, where);
  std::exit(1);
}

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kGuard = 0;  // the allocations end where the arrays do
#else
constexpr std::size_t kGuard = 64;  // elements
#endif

// Rows of `width` elements, `pitch` apart, `offset` elements from a 16-byte boundary. NaN until
// written: what lies between the rows, and guards at both ends, must stay so.
template <class T>
class Rows {
 public:
  Rows(std::int64_t rows, std::int64_t width, std::int64_t pitch, std::int64_t offset)
      : rows_(rows), width_(width), pitch_(pitch), n_(rows * pitch + offset) {
    const std::size_t bytes = (static_cast<std::size_t>(n_) + 2 * kGuard) * sizeof(T);
    if (posix_memalign(reinterpret_cast<void**>(&block_), 64, bytes) != 0) std::abort();
    std::memset(block_, 0xff, bytes);
    first_ = static_cast<std::size_t>(offset) + kGuard;
  }
  ~Rows() { std::free(block_); }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  T* data() const { return block_ + first_; }
  std::int64_t pitch() const { return pitch_; }
  double at(std::int64_t r, std::int64_t c) const { return to_float(data()[r * pitch_ + c]); }
  void fill(unsigned seed) {
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t c = 0; c < width_; ++c) {
        seed = seed * 1664525u + 1013904223u;
        data()[r * pitch_ + c] =
            from_float<T>(2 * (static_cast<float>(seed >> 8) / 8388608.0f - 1.0f));
      }
  }
  bool guards_intact() const {
    const std::size_t all = static_cast<std::size_t>(n_) + 2 * kGuard;
    for (std::size_t i = 0; i < all; ++i) {
      const std::int64_t k = static_cast<std::int64_t>(i) - static_cast<std::int64_t>(first_);
      if (k >= 0 && k < rows_ * pitch_ && k % pitch_ < width_) continue;
      T untouched;
      std::memset(&untouched, 0xff, sizeof(T));
      if (std::memcmp(block_ + i, &untouched, sizeof(T)) != 0) return false;
    }
    return true;
  }
  bool same(const Rows& o) const {
    for (std::int64_t r = 0; r < rows_; ++r)
      if (std::memcmp(data() + r * pitch_, o.data() + r * pitch_,
                      static_cast<std::size_t>(width_) * sizeof(T)) != 0)
        return false;
    return true;
  }

 private:
  std::int64_t rows_, width_, pitch_, n_;
  std::size_t first_;
  T* block_ = nullptr;
};

struct Shape {
  std::vector<std::int32_t> starts;
  std::int64_t rows, heads;
  bool causal;
  double p;
  std::int64_t offset;  // elements
  const char* name;
};

template <class T>
struct Results {
  explicit Results(const Shape& s, std::int64_t width, std::int64_t pitch)
      : out(s.rows, width, pitch, s.offset),
        dq(s.rows, width, pitch, s.offset),
        dk(s.rows, width, pitch, s.offset),
        dv(s.rows, width, pitch, s.offset),
        lse(s.heads, s.rows, s.rows, 0) {}
  bool same(const Results& o) const {
    return out.same(o.out) && dq.same(o.dq) && dk.same(o.dk) && dv.same(o.dv) && lse.same(o.lse);
  }
  Rows<T> out, dq, dk, dv;
  Rows<float> lse;
};

// Keys that forward holds of long sequences: as many as give every warp a part of the loading,
// also those that have no queries and run ahead.
constexpr std::size_t kPiece = 64;

template <class T, int kD>
void probe(const Shape& s, std::size_t little_shared) {
  constexpr std::size_t kRowBytes = sizeof(T) * SIMT_NS::HeadRows<T, kD>::kStride;
  const std::int64_t width = s.heads * kD, pitch = width + (s.offset % 2 == 1 ? 3 : 8);
  Rows<T> q(s.rows, width, pitch, s.offset), k(s.rows, width, pitch, s.offset),
      v(s.rows, width, pitch, s.offset), dout(s.rows, width, pitch, s.offset);
  q.fill(1), k.fill(2), v.fill(3), dout.fill(4);
  const auto sequences = static_cast<std::int64_t>(s.starts.size()) - 1;
  const std::int64_t step = 7;
  std::vector<std::int32_t> sample(static_cast<std::size_t>(s.rows));
  for (std::size_t i = 0; i < sample.size(); ++i) sample[i] = static_cast<std::int32_t>(100 + i);
  DropoutArgs drop{};
  drop.p = s.p, drop.seed = 11, drop.path = 12, drop.step = &step, drop.sample = sample.data();
  const Context context{Device::kCuda, nullptr, nullptr, nullptr, false};
  const auto common = [&](auto& a) {
    a.q = q.data(), a.k = k.data(), a.v = v.data();
    a.q_pitch = a.k_pitch = a.v_pitch = a.out_pitch = pitch;
    a.starts = s.starts.data();
    a.sequences = sequences, a.rows = s.rows, a.heads = s.heads, a.head_size = kD;
    a.causal = s.causal, a.dtype = dtype_of<T>, a.drop = drop;
  };
  const auto run = [&](const Results<T>& to, std::size_t shared, std::size_t shared_forward,
                       std::int64_t longest = 0) {
    AttentionArgs a{};
    common(a);
    a.longest = longest;
    a.out = to.out.data(), a.lse = to.lse.data();
    attention_launch_of<T, kD>(context, a, shared_forward);
    AttentionBackwardArgs b{};
    common(b);
    b.longest = longest;
    b.out = to.out.data(), b.lse = to.lse.data(), b.dout = dout.data();
    b.dq = to.dq.data(), b.dk = to.dk.data(), b.dv = to.dv.data();
    b.dq_pitch = b.dk_pitch = b.dv_pitch = b.dout_pitch = pitch;
    attention_backward_launch_of<T, kD>(context, b, shared);
  };
  using simt::emu::Schedule;
  const Results<T> first(s, width, pitch), second(s, width, pitch), third(s, width, pitch),
      fourth(s, width, pitch);
  simt::emu::config().schedule = Schedule::forward;
  simt::emu::config().count_loads = sizeof(T) == 4;
  simt::emu::reset_stats();
  run(first, SIMT_NS::kAttentionShared, SIMT_NS::kAttentionShared);
  expect(simt::emu::stats().ldmatrix_conflicts == 0 && simt::emu::stats().load_conflicts == 0,
         "bank conflicts", s.name);
  simt::emu::config().count_loads = false;
  simt::emu::config().schedule = Schedule::reverse;
  run(second, SIMT_NS::kAttentionShared, SIMT_NS::kAttentionShared);
  run(third, little_shared, std::min(little_shared, 8 * 16 * kRowBytes + kPiece * 2 * kRowBytes));
  // A hint far too small: one block goes through all that a long sequence has.
  run(fourth, SIMT_NS::kAttentionShared, SIMT_NS::kAttentionShared, 1);

  // A row of lse beyond that of T, and of out: what is rounded is rounded once.
  const double storage = sizeof(T) == 2 ? 1.5e-2 : 1e-5;
  bool ok = true;
  const auto compare = [&](const Rows<T>& got, const std::vector<double>& want, std::int64_t row,
                           std::int64_t column, std::int64_t i, std::int64_t c) {
    const double exact = want.empty() ? 0 : want[static_cast<std::size_t>(i * kD + c)];
    ok = ok && std::abs(got.at(row, column + c) - exact) <= storage * (1 + std::abs(exact));
  };
  for (std::int64_t h = 0; h < s.heads; ++h) {
    const std::int64_t column = h * kD;
    const auto none = [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t r = from; r < to; ++r) {
        ok = ok && first.lse.at(h, r) == 0;
        for (std::int64_t c = 0; c < kD; ++c)
          for (const Rows<T>* const t : {&first.out, &first.dq, &first.dk, &first.dv})
            ok = ok && t->at(r, column + c) == 0;
      }
    };
    none(0, s.starts.front());
    none(s.starts.back(), s.rows);
    expect(ok, "rows of no sequence", s.name);
    for (std::int64_t n = 0; n < sequences; ++n) {
      const std::int64_t begin = s.starts[static_cast<std::size_t>(n)],
                         rows = s.starts[static_cast<std::size_t>(n) + 1] - begin;
      const auto of = [&](const Rows<T>& t) {
        return [&t, begin, column](std::int64_t i, std::int64_t c) {
          return t.at(begin + i, column + c);
        };
      };
      const auto factor = [&](std::int64_t i, std::int64_t j) {
        if (s.p == 0) return 1.0;
        const Philox4 words = philox(11, static_cast<std::uint32_t>(i * 8192 + j / 4),
                                     static_cast<std::uint32_t>(100 + begin), 7,
                                     12 + static_cast<std::uint32_t>(h) * 0x9E3779B9u);
        return words.v[j % 4] >= dropout_threshold(s.p) ? 1 / (1 - s.p) : 0.0;
      };
      const AttentionHead want =
          attention_head_composed(rows, kD, s.causal, of(q), of(k), of(v), of(dout), factor);
      for (std::int64_t i = 0; i < rows; ++i) {
        ok = ok && std::abs(first.lse.at(h, begin + i) - want.lse[static_cast<std::size_t>(i)]) <=
                       1e-5 * (1 + std::abs(want.lse[static_cast<std::size_t>(i)]));
        expect(ok, "lse", s.name);
        for (std::int64_t c = 0; c < kD; ++c) {
          compare(first.out, want.out, begin + i, column, i, c);
          expect(ok, "out", s.name);
          compare(first.dq, want.dq, begin + i, column, i, c);
          expect(ok, "dq", s.name);
          compare(first.dk, want.dk, begin + i, column, i, c);
          expect(ok, "dk", s.name);
          compare(first.dv, want.dv, begin + i, column, i, c);
          expect(ok, "dv", s.name);
        }
      }
    }
  }
  for (const Results<T>* const r : {&first, &second, &third, &fourth})
    expect(r->out.guards_intact() && r->dq.guards_intact() && r->dk.guards_intact() &&
               r->dv.guards_intact() && r->lse.guards_intact(),
           "sentinel", s.name);
  expect(first.same(second), "order of threads", s.name);
  expect(first.same(third), "rows that stream by", s.name);
  expect(first.same(fourth), "one block for a sequence", s.name);
}

// Shared memory for eight warps' results, their own rows and 40 more: long sequences stream.
constexpr std::size_t little(std::size_t row_bytes) {
  return 8 * 16 * row_bytes + (128 + 40) * (2 * row_bytes + 8);
}

void probe_all() {
  const Shape shapes[] = {
      {{1, 2, 19, 19, 52}, 55, 2, false, 0, 0, "plain"},
      {{0, 33, 40}, 40, 1, true, 0, 3, "causal, not aligned"},
      {{0, 21, 40}, 44, 2, true, 0.3, 0, "causal, dropout"},
      {{0, 20}, 20, 1, false, 0, 2, "rows of whole vectors that begin anywhere"},
  };
  for (const Shape& s : shapes) {
    probe<bf16, 16>(s, SIMT_NS::kAttentionShared);
    probe<float, 16>(s, SIMT_NS::kAttentionShared);
  }
  probe<bf16, 8>(shapes[0], SIMT_NS::kAttentionShared);
  probe<bf16, 64>(shapes[0], SIMT_NS::kAttentionShared);  // several steps along a head's columns
  const Shape longer{{0, 200}, 200, 1, false, 0, 0, "long"},
      longer_causal{{3, 203}, 203, 1, true, 0.2, 0, "long, causal, dropout"};
  for (const Shape& s : {longer, longer_causal}) {
    probe<bf16, 16>(s, little(sizeof(bf16) * SIMT_NS::HeadRows<bf16, 16>::kStride));
    probe<float, 16>(s, little(sizeof(float) * SIMT_NS::HeadRows<float, 16>::kStride));
  }
}

}  // namespace
}  // namespace retort::kernels

int main() {
  retort::kernels::probe_all();
  std::puts("ok");
}
