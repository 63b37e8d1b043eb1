// The convolution kernels on the emulator, against a double loop: a plain program, so that it can
// be built quickly with a fault planted in a kernel (tests/mutation/mutate.py) and by itself as a
// test. Beside the numbers it asserts that no ldmatrix of a main loop meets a bank conflict, that
// nothing is written outside the outputs, and that another order of threads gives the same bytes.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/conv2d/conv2d.cuh"
#include "kernels/simt/emu.h"

namespace retort::kernels {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kGuard = 0;  // the allocations end where the arrays do
#else
constexpr std::size_t kGuard = 256;
#endif

int failures = 0;
void expect(bool ok, const char* what, const char* where) {
  if (ok) return;
  ++failures;
  std::printf("FAIL %s: %s\n", what, where);
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

template <class F>
void for_each_product(const Conv2dShape& s, F&& f) {
  std::size_t out = 0;
  for (std::int64_t n = 0; n < s.batch; ++n)
    for (std::int64_t p = 0; p < s.out_height(); ++p)
      for (std::int64_t q = 0; q < s.out_width(); ++q)
        for (std::int64_t k = 0; k < s.filters; ++k, ++out)
          for (std::int64_t r = 0; r < s.filter_height; ++r)
            for (std::int64_t t = 0; t < s.filter_width; ++t) {
              const std::int64_t h = p * s.stride - s.padding + r, w = q * s.stride - s.padding + t;
              if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
              for (std::int64_t c = 0; c < s.channels; ++c)
                f(static_cast<std::size_t>(((n * s.height + h) * s.width + w) * s.channels + c),
                  static_cast<std::size_t>(
                      ((k * s.filter_height + r) * s.filter_width + t) * s.channels + c),
                  out);
            }
}

struct Sum {
  double value = 0, size = 0;
  void add(double product) { value += product, size += std::abs(product); }
};

// Rounding of the storage type, and of the sums relative to the products' magnitudes. The
// comparison is written so that NaN fails.
template <class T>
void compare(const Array<T>& got, const std::vector<Sum>& want, const char* what) {
  const double storage = sizeof(T) == 2 ? 4e-3 : 0;
  bool ok = true;
  for (std::size_t i = 0; i < want.size(); ++i)
    ok = ok && std::abs(got[i] - want[i].value) <=
                   storage * std::abs(want[i].value) + 2e-6 * want[i].size + 1e-30;
  expect(ok, "numbers", what);
  expect(got.guards_intact(), "sentinel", what);
}

template <class T>
void probe(const Conv2dShape& s, std::int64_t wide_from, const char* name) {
  constexpr DType dtype = dtype_of<T>;
  const Array<T> x(s.x_elements(), 1), weight(s.weight_elements(), 2), dy(s.y_elements(), 3);
  std::vector<Sum> y_want(dy.size()), dx_want(x.size()), dweight_want(weight.size());
  for_each_product(s, [&](std::size_t i, std::size_t j, std::size_t o) {
    y_want[o].add(x[i] * weight[j]);
    dx_want[i].add(dy[o] * weight[j]);
    dweight_want[j].add(dy[o] * x[i]);
  });
  const Array<T> y(s.y_elements()), dx(s.x_elements()), y2(s.y_elements()), dx2(s.x_elements());
  const Array<float> dweight(s.weight_elements()), dweight2(s.weight_elements());
  OneBlock scratch;
  const Context context{Device::kCuda, nullptr, nullptr, &scratch, false};
  auto run = [&](const Array<T>& out, const Array<T>& dsource, const Array<float>& dfilter) {
    SIMT_NS::images_launch<T>(context, false, s, x.data(), weight.data(), dtype, out.data(), {},
                              nullptr, wide_from);
    SIMT_NS::images_launch<T>(context, true, s, dy.data(), weight.data(), dtype, dsource.data(), {},
                              nullptr, wide_from);
    conv2d_backward_weight_launch(context, {dfilter.data(), x.data(), dy.data(), s, dtype,
                                            sizeof(T) == 2 ? DType::kF32 : dtype});
    scratch.check();
  };
  using simt::emu::Schedule;
  simt::emu::config().schedule = Schedule::forward;
  run(y, dx, dweight);
  simt::emu::config().schedule = Schedule::reverse;
  run(y2, dx2, dweight2);
  compare(y, y_want, name);
  compare(dx, dx_want, name);
  compare(dweight, dweight_want, name);
  expect(y.same(y2) && dx.same(dx2) && dweight.same(dweight2), "order of threads", name);
}

}  // namespace
}  // namespace retort::kernels

int main() {
  using namespace retort;
  using kernels::probe;
  simt::emu::config().os_threads = 2;
  simt::emu::reset_stats();
  // More tiles of depth than stages, three blocks of rows, two slices of pixels; 9 phases of dx.
  probe<bf16>({5, 8, 9, 8, 40, 5, 5, 1, 2}, 132, "bf16 5x5");
  probe<bf16>({2, 7, 6, 16, 24, 3, 3, 2, 1}, 132, "bf16 stride 2");
  probe<bf16>({1, 4, 4, 24, 136, 3, 3, 1, 1}, 0, "bf16 wide tiles");
  probe<bf16>({1, 6, 5, 64, 16, 1, 1, 3, 0}, 132, "bf16 1x1 stride 3");
  probe<bf16>({2, 7, 7, 3, 33, 3, 3, 2, 1}, 132, "bf16 odd channels");
  probe<float>({5, 8, 8, 8, 36, 3, 3, 1, 1}, 132, "f32 3x3");
  probe<float>({1, 3, 4, 8, 72, 3, 3, 1, 1}, 132, "f32 large tiles");
  probe<float>({1, 7, 6, 3, 10, 7, 7, 2, 3}, 132, "f32 odd channels");
  const simt::emu::Stats stats = simt::emu::stats();
  kernels::expect(stats.ldmatrix > 0 && stats.ldmatrix_conflicts == 0, "bank conflicts",
                  "ldmatrix");
  std::printf("%llu mma, %llu ldmatrix, %llu bank conflicts\n",
              static_cast<unsigned long long>(stats.mma),
              static_cast<unsigned long long>(stats.ldmatrix),
              static_cast<unsigned long long>(stats.ldmatrix_conflicts));
  return kernels::failures == 0 ? 0 : 1;
}
