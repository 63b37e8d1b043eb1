// The convolution kernels on the emulator, against their definitions in double: a plain program, so
// that it can be built quickly with a fault planted in a kernel (tests/mutation/mutate.py) and by
// itself as a test. Beside the numbers it asserts that no load of a main loop meets a bank
// conflict, that nothing is written outside the outputs, and that another order of threads gives
// the same bytes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/conv2d/conv2d.cuh"
#include "kernels/conv2d/conv2d_composed.h"
#include "kernels/conv2d/conv2d_fingerprint.cuh"
#include "kernels/simt/emu.h"

namespace retort::kernels {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kGuard = 0;  // the allocations end where the arrays do
#else
constexpr std::size_t kGuard = 256;
#endif

// The first failure ends the program: a planted fault needs no second.
void expect(bool ok, const char* what, const char* where) {
  if (ok) return;
  std::printf("FAIL %s: %s\n", what, where);
  std::exit(1);
}

// Bytes filled with 0xff, NaN in every floating type; with guards in builds without ASan.
class Bytes {
 public:
  explicit Bytes(std::size_t bytes) : bytes_(bytes) {
    if (posix_memalign(reinterpret_cast<void**>(&block_), 256, bytes + 2 * kGuard) != 0)
      std::abort();
    std::memset(block_, 0xff, bytes + 2 * kGuard);
  }
  ~Bytes() { std::free(block_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  void* data() const { return block_ + kGuard; }
  bool guards_intact() const {
    for (std::size_t i = 0; i < kGuard; ++i)
      if (block_[i] != 0xff || block_[kGuard + bytes_ + i] != 0xff) return false;
    return true;
  }

 private:
  unsigned char* block_ = nullptr;
  std::size_t bytes_;
};

template <class T>
class Array {
 public:
  explicit Array(std::int64_t n) : n_(static_cast<std::size_t>(n)), bytes_(n_ * sizeof(T)) {}
  Array(std::int64_t n, unsigned seed) : Array(n) {
    for (std::size_t i = 0; i < n_; ++i) {
      seed = seed * 1664525u + 1013904223u;
      data()[i] = from_float<T>(static_cast<float>(seed >> 8) / 8388608.0f - 1.0f);
    }
  }
  T* data() const { return static_cast<T*>(bytes_.data()); }
  double operator[](std::size_t i) const { return to_float(data()[i]); }
  std::size_t size() const { return n_; }
  bool guards_intact() const { return bytes_.guards_intact(); }
  bool same(const Array& other) const {
    return std::memcmp(data(), other.data(), n_ * sizeof(T)) == 0;
  }

 private:
  std::size_t n_;
  Bytes bytes_;
};

class OneBlock final : public Scratch {
 public:
  void* get(std::size_t bytes) override {
    check();
    block_ = std::make_unique<Bytes>(bytes);
    return block_->data();
  }
  void check() const { expect(!block_ || block_->guards_intact(), "sentinel", "scratch"); }

 private:
  std::unique_ptr<Bytes> block_;
};

// The definition of every element of a tensor.
template <class F>
std::vector<ProductSum> all(std::size_t elements, F&& element) {
  std::vector<ProductSum> sums;
  for (std::size_t i = 0; i < elements; ++i) sums.push_back(element(i));
  return sums;
}

// Rounding of the storage type, and of the sums relative to the products' magnitudes. The
// comparison is written so that NaN fails.
template <class T>
void compare(const Array<T>& got, const std::vector<ProductSum>& want, const char* what) {
  const double storage = sizeof(T) == 2 ? 4e-3 : 0;
  bool ok = true;
  for (std::size_t i = 0; i < want.size(); ++i)
    ok = ok && std::abs(got[i] - want[i].value) <=
                   storage * std::abs(want[i].value) + 2e-6 * want[i].size + 1e-30;
  expect(ok, "numbers", what);
  expect(got.guards_intact(), "sentinel", what);
}

// What batch norm is handed, of y as it was stored.
template <class T>
void compare_statistics(const Array<float>& got, const Array<T>& y, std::int64_t filters,
                        const char* what) {
  const auto width = static_cast<std::size_t>(filters), rows = y.size() / width;
  bool ok = true;
  for (std::size_t begin = 0; begin < rows; begin += 128)
    for (std::size_t k = 0; k < width; ++k) {
      const std::size_t end = std::min(rows, begin + 128), at = begin / 128 * 2 * width + k;
      const auto [mean, square] = moments_composed(
          static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end),
          [&](std::int64_t r) { return y[static_cast<std::size_t>(r) * width + k]; });
      ok = ok && std::abs(got[at] - mean) <= 1e-5 * (1 + std::abs(mean)) &&
           std::abs(got[at + width] - square) <= 1e-4 * square + 1e-6;
    }
  expect(ok, "statistics", what);
  expect(got.guards_intact(), "sentinel", what);
}

// The outputs of a run of all passes; NaN until written.
template <class T>
struct Outputs {
  explicit Outputs(const Conv2dShape& s)
      : y(s.y_elements()),
        fused(s.y_elements()),
        dx(s.x_elements()),
        dweight(s.weight_elements()),
        statistics(conv2d_statistics_chunks(s, Device::kCuda).count * 2 * s.filters) {}
  bool same(const Outputs& o) const {
    return y.same(o.y) && fused.same(o.fused) && dx.same(o.dx) && dweight.same(o.dweight) &&
           statistics.same(o.statistics);
  }
  Array<T> y, fused, dx;
  Array<float> dweight, statistics;
};

template <class T>
void probe(const Conv2dShape& s, std::int64_t wide_from, const char* name,
           Conv2dAlgorithm algorithm = Conv2dAlgorithm::kMma) {
  constexpr DType dtype = dtype_of<T>;
  const Array<T> x(s.x_elements(), 1), weight(s.weight_elements(), 2), dy(s.y_elements(), 3),
      residual(s.y_elements(), 4);
  const Array<float> bias(s.filters, 5);
  const auto y_want =
                 all(dy.size(), [&](std::size_t i) { return conv2d_composed(s, x, weight, i); }),
             dx_want = all(
                 x.size(),
                 [&](std::size_t i) { return conv2d_backward_data_composed(s, dy, weight, i); }),
             dweight_want = all(weight.size(), [&](std::size_t i) {
               return conv2d_backward_weight_composed(s, x, dy, i);
             });
  const auto fused_want = all(dy.size(), [&](std::size_t i) {
    return conv2d_epilogue_composed(y_want[i], bias[i % bias.size()], residual[i], true);
  });
  OneBlock scratch;
  const Context context{Device::kCuda, nullptr, nullptr, &scratch, false};
  auto run = [&](const Outputs<T>& to) {
    SIMT_NS::ImagesCall call{false,       s,  x.data(), weight.data(), dtype,
                             to.y.data(), {}, nullptr,  algorithm,     wide_from};
    call.statistics = to.statistics.data();
    SIMT_NS::images_launch<T>(context, call);
    call.statistics = nullptr;
    call.out = to.fused.data();
    call.epilogue = {bias.data(), residual.data(), true};
    SIMT_NS::images_launch<T>(context, call);
    call = {true,         s,  dy.data(), weight.data(), dtype,
            to.dx.data(), {}, nullptr,   algorithm,     wide_from};
    if (s.filters % 64 != 0) call.algorithm = Conv2dAlgorithm::kAuto;
    SIMT_NS::images_launch<T>(context, call);
    conv2d_backward_weight_launch(context, {to.dweight.data(), x.data(), dy.data(), s, dtype,
                                            sizeof(T) == 2 ? DType::kF32 : dtype, call.algorithm});
    scratch.check();
  };
  using simt::emu::Schedule;
  const Outputs<T> first(s), second(s);
  simt::emu::config().schedule = Schedule::forward;
  run(first);
  simt::emu::config().schedule = Schedule::reverse;
  run(second);
  compare(first.y, y_want, name);
  compare(first.fused, fused_want, name);
  compare(first.dx, dx_want, name);
  compare(first.dweight, dweight_want, name);
  compare_statistics(first.statistics, first.y, s.filters, name);
  expect(first.same(second), "order of threads", name);
}

// What a library's convolution needs behind it: the epilogue and the statistics as passes over y.
template <class T>
void probe_finish(const Conv2dShape& s, const char* name) {
  constexpr DType dtype = dtype_of<T>;
  const Array<T> y(s.y_elements(), 1), residual(s.y_elements(), 2);
  const Array<float> bias(s.filters, 3),
      statistics(conv2d_statistics_chunks(s, Device::kCuda).count * 2 * s.filters);
  const auto want = all(y.size(), [&](std::size_t i) {
    return conv2d_epilogue_composed({y[i], std::abs(y[i])}, bias[i % bias.size()], residual[i],
                                    true);
  });
  OneBlock scratch;
  const Context context{Device::kCuda, nullptr, nullptr, &scratch, false};
  Conv2dArgs args{
      y.data(), nullptr, nullptr, s, dtype, dtype, {bias.data(), residual.data(), true}};
  SIMT_NS::finish_launch<T>(context, args);
  compare(y, want, name);
  args.epilogue = {};
  args.statistics = statistics.data();
  SIMT_NS::finish_launch<T>(context, args);
  compare_statistics(statistics, y, s.filters, name);
}

// Equal for equal values, another one for the same values elsewhere; the last piece is short.
template <class T>
void probe_fingerprint(const char* name) {
  const std::int64_t n = 700, pieces = conv2d_fingerprint_pieces(n);
  const Array<T> a(n, 1), b(n, 1);
  const Array<float> of_a(2 * pieces), of_b(2 * pieces);
  const Context context{Device::kCuda};
  SIMT_NS::fingerprint_launch<T>(context, a.data(), n, of_a.data());
  double sum = 0, size = 0;
  for (std::size_t i = 512; i < 700; ++i) {
    sum += static_cast<std::uint32_t>(i) * 0x9E3779B1u >> 31 ? -a[i] : a[i];
    size += std::abs(a[i]);
  }
  expect(std::abs(of_a[4] - sum) < 1e-4 && std::abs(of_a[5] - size) < 1e-4, "fingerprint", name);
  std::reverse(b.data(), b.data() + 256);
  SIMT_NS::fingerprint_launch<T>(context, b.data(), n, of_b.data());
  expect(std::abs(of_a[0] - of_b[0]) > 0.02 * of_a[1], "fingerprint of another order", name);
  expect(of_a.guards_intact() && of_b.guards_intact(), "sentinel", name);
}

}  // namespace
}  // namespace retort::kernels

int main() {
  using namespace retort;
  using kernels::probe;
  simt::emu::config().os_threads = 2;
  simt::emu::config().count_loads = true;
  simt::emu::reset_stats();
  // More tiles of depth than stages, three blocks of rows, two slices of pixels; 9 phases of dx.
  probe<bf16>({5, 8, 9, 8, 40, 5, 5, 1, 2}, 132, "bf16 5x5");
  probe<bf16>({2, 7, 6, 16, 24, 3, 3, 2, 1}, 132, "bf16 stride 2");
  probe<bf16>({1, 4, 4, 24, 136, 3, 3, 1, 1}, 0, "bf16 wide tiles");
  probe<bf16>({1, 6, 5, 64, 16, 1, 1, 3, 0}, 132, "bf16 1x1 stride 3");
  probe<bf16>({2, 7, 7, 3, 33, 3, 3, 2, 1}, 132, "bf16 odd channels");
  constexpr auto kWgmma = kernels::Conv2dAlgorithm::kWgmma;
  // Tiles of 64, 128 and 256 columns; more tiles of depth than stages; part of a tile of rows.
  probe<bf16>({3, 7, 8, 128, 72, 3, 3, 1, 1}, 132, "wgmma 3x3", kWgmma);
  probe<bf16>({2, 6, 7, 64, 128, 3, 3, 2, 1}, 0, "wgmma stride 2", kWgmma);
  probe<bf16>({1, 5, 5, 64, 256, 1, 1, 1, 0}, 0, "wgmma 1x1", kWgmma);
  probe<bf16>({1, 6, 5, 256, 64, 1, 1, 3, 0}, 0, "wgmma 1x1 stride 3", kWgmma);
  // The weight gradient: 5 tiles of pixels, in one and in two slices; tiles of 64 filters.
  probe<bf16>({1, 16, 18, 64, 128, 3, 3, 1, 1}, 132, "wgmma 288 pixels", kWgmma);
  probe<bf16>({4, 13, 12, 64, 64, 1, 1, 1, 0}, 132, "wgmma two slices", kWgmma);
  probe<float>({5, 8, 8, 8, 36, 3, 3, 1, 1}, 132, "f32 3x3");
  probe<float>({1, 3, 4, 8, 72, 3, 3, 1, 1}, 132, "f32 large tiles");
  probe<float>({1, 7, 6, 3, 10, 7, 7, 2, 3}, 132, "f32 odd channels");
  kernels::probe_finish<bf16>({3, 7, 9, 8, 24, 1, 1, 1, 0}, "bf16 finish");
  kernels::probe_finish<float>({2, 9, 9, 8, 7, 1, 1, 1, 0}, "f32 finish");
  kernels::probe_fingerprint<bf16>("bf16");
  kernels::probe_fingerprint<float>("f32");
  const simt::emu::Stats stats = simt::emu::stats();
  kernels::expect(stats.ldmatrix > 0 && stats.ldmatrix_conflicts == 0, "bank conflicts",
                  "ldmatrix");
  kernels::expect(stats.loads > 0 && stats.load_conflicts == 0, "bank conflicts", "f32 loads");
  std::printf("%llu mma, %llu ldmatrix, %llu f32 loads, %llu bank conflicts\n",
              static_cast<unsigned long long>(stats.mma),
              static_cast<unsigned long long>(stats.ldmatrix),
              static_cast<unsigned long long>(stats.loads),
              static_cast<unsigned long long>(stats.ldmatrix_conflicts + stats.load_conflicts));
  return 0;
}
