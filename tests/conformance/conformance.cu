// Asks one backend the questions of probes.cuh and writes the answers down; or compares two such
// files. Built twice from this text: by nvcc (conformance_cuda) and against the emulator
// (conformance_emulated).
//
// usage: conformance_X --dump FILE             77: no device
//        conformance_X --compare FILE FILE     1: they differ
//
// A line of the file: probe, rule, values in hex. Rule "exact" compares bit for bit, "close R A"
// compares as floats within R * |want| + A.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/conformance/cluster_probes.cuh"
#include "tests/conformance/probes.cuh"

namespace retort::probes {
namespace {

using namespace SIMT_NS;
using Words = std::vector<std::uint32_t>;

// Device memory of this backend, filled from and read back to the host.
#if SIMT_CUDA
void check(cudaError_t e) {
  if (e != cudaSuccess) fail(ErrorCode::kDevice, cudaGetErrorName(e), ": ", cudaGetErrorString(e));
}
struct Buffer {
  explicit Buffer(const Words& from) : words(from.size()) {
    check(cudaMalloc(&pointer, words * 4));
    check(cudaMemcpy(pointer, from.data(), words * 4, cudaMemcpyHostToDevice));
  }
  ~Buffer() { (void)cudaFree(pointer); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Words read() const {
    Words to(words);
    check(cudaMemcpy(to.data(), pointer, words * 4, cudaMemcpyDeviceToHost));
    return to;
  }
  std::size_t words;
  void* pointer = nullptr;
};
// Compute capability as 90 for 9.0; 0: no device.
int capability() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return 0;
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  std::printf("device: %s, sm_%d%d\n", properties.name, properties.major, properties.minor);
  return 10 * properties.major + properties.minor;
}
#else
struct Buffer {
  explicit Buffer(const Words& from) : words(from) { pointer = words.data(); }
  Words read() const { return words; }
  Words words;
  void* pointer = nullptr;
};
int capability() {
  std::puts("device: emulated");
  return 90;
}
#endif
std::uint32_t* u32(const Buffer& b) { return static_cast<std::uint32_t*>(b.pointer); }
float* f32(const Buffer& b) { return static_cast<float*>(b.pointer); }

Words random_words(std::size_t n, std::uint32_t stream) {
  Words w(n);
  for (std::size_t i = 0; i < n; ++i)
    w[i] = philox(1, static_cast<std::uint32_t>(i), stream, 0, path_hash("conformance")).v[0];
  return w;
}
// Uniform in [-1, 1).
Words random_floats(std::size_t n, std::uint32_t stream, float scale) {
  Words w = random_words(n, stream);
  for (std::uint32_t& x : w) x = bits_from_float((2 * uniform01(x) - 1) * scale);
  return w;
}
// Pairs of bf16, small integers or random.
Words random_bf16(std::size_t n, std::uint32_t stream, bool integers) {
  Words w = random_words(n, stream);
  for (std::uint32_t& x : w) {
    const float lo = integers ? static_cast<float>(x % 9) - 4 : 2 * uniform01(x) - 1,
                hi = integers ? static_cast<float>(x / 9 % 9) - 4 : 2 * uniform01(x * 77) - 1;
    x = pack_bf16(lo, hi);
  }
  return w;
}

// Every power, every rounding case: patterns around each exponent, then random ones.
Words conversion_inputs() {
  Words w;
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent)
    for (const std::uint32_t mantissa :
         {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0x17fffu, 0x18000u, 0x18001u, 0xfffu, 0x1000u, 0x1001u,
          0x2fffu, 0x3000u, 0x3001u, 0x7fffffu, 0x7f8000u, 0x400000u})
      for (const std::uint32_t sign : {0u, 0x80000000u})
        w.push_back(sign | exponent << 23 | mantissa);
  const Words more = random_words(4096, 9);
  w.insert(w.end(), more.begin(), more.end());
  return w;
}

class Dump {
 public:
  explicit Dump(const std::string& path) : out_(path) {
    if (!out_) fail(ErrorCode::kIo, "cannot write ", path);
  }
  void exact(const char* probe, const Words& words) { line(probe, "exact", words); }
  void close(const char* probe, double rtol, double atol, const Words& words) {
    line(probe, join("close ", rtol, " ", atol), words);
  }

 private:
  void line(const char* probe, const std::string& rule, const Words& words) {
    out_ << probe << ' ' << rule << std::hex;
    for (const std::uint32_t w : words) out_ << ' ' << w;
    out_ << std::dec << '\n';
  }
  std::ofstream out_;
};

int dump(const std::string& path) {
  const int sm = capability();
  if (sm == 0) {
    std::puts("skipped: no CUDA device");
    return 77;
  }
  Dump file(path);
  {
    const Buffer out(Words(32 * kWarpWords));
    simt::launch({"warp", 1, 32}, warp_probe, u32(out));
    file.exact("warp", out.read());
  }
  {
    const Buffer out(Words(260));
    simt::launch({"block", 1, 256}, block_probe, u32(out));
    file.exact("block", out.read());
  }
  {
    const Buffer out(Words(512)), in(random_words(512, 1));
    simt::launch({"async_copy", 1, 128}, async_copy_probe, u32(out), u32(in));
    file.exact("async_copy", out.read());
  }
  {
    const Words inputs = conversion_inputs();
    const Buffer in(inputs), out(Words(8 * inputs.size()));
    const auto blocks = static_cast<unsigned>((inputs.size() + 255) / 256);
    simt::launch({"convert", blocks, 256}, convert_probe, u32(out), u32(in),
                 static_cast<int>(inputs.size()));
    file.exact("convert", out.read());
  }
  {
    const Buffer out(Words(6 * 1000));
    simt::launch({"philox", 4, 256}, philox_probe, u32(out), 1000);
    file.exact("philox", out.read());
  }
  {
    const Words inputs = random_words(4096, 10);
    const Buffer in(inputs), out(Words(inputs.size()));
    simt::launch({"max_bf16", 16, 256}, max_bf16_probe, u32(out), u32(in), 4096);
    file.exact("max_bf16", out.read());
  }
  for (const bool integers : {true, false}) {
    const Buffer a(random_bf16(128, 2, integers)), b(random_bf16(64, 3, integers)),
        c(integers ? Words(128, bits_from_float(3)) : random_floats(128, 4, 1)), d(Words(128));
    simt::launch({"mma", 1, 32}, mma_probe, f32(d), u32(a), u32(b), f32(c));
    if (integers)
      file.exact("mma_integers", d.read());
    else  // the hardware truncates when it aligns the summands
      file.close("mma_random", 1e-5, 1e-5, d.read());
  }
  {
    const Buffer in(random_floats(256, 5, 8)), out(Words(5 * 256));
    simt::launch({"approximate", 1, 256}, approximate_probe, f32(out), f32(in));
    file.close("approximate", 4e-6, 1e-5, out.read());
  }
  if (sm >= 90) {
    for (const unsigned size : {1u, 2u, 4u, 8u}) {
      const Buffer out(Words(2 * size * 64 * kClusterWords));
      run_cluster_probe(u32(out), size);
      file.exact(join("cluster_", size).c_str(), out.read());
    }
    const Buffer in(random_words(512, 8)), out(Words(512));
    simt::launch({"tile", 1, 256}, tile_probe, u32(out), u32(in));
    file.exact("tile", out.read());
  }
  if (sm == 90) {
    constexpr int kM = 130, kN = 70, kK = 192;
    const Buffer a(random_bf16(192 * kK / 2, 6, true)), b(random_bf16(256 * kK / 2, 7, true)),
        c(Words(kM * kN));
    const WarpgroupGemm gemm{
        f32(c), static_cast<const bf16*>(a.pointer), static_cast<const bf16*>(b.pointer), kM, kN,
        kK};
    run_warpgroup_gemm<64>(gemm);
    file.exact("wgmma_integers_64", c.read());
    run_warpgroup_gemm<128>(gemm);
    file.exact("wgmma_integers_128", c.read());
    run_warpgroup_gemm<256>(gemm);
    file.exact("wgmma_integers_256", c.read());
    const WarpgroupGemm by_depth{f32(c), gemm.a, gemm.b, 64, 128, 50};
    run_warpgroup_by_depth<128>(by_depth);
    file.exact("wgmma_by_depth_128", c.read());
  }
  return 0;
}

struct Answer {
  std::string rule;
  double rtol = 0, atol = 0;
  Words words;
};
std::map<std::string, Answer> read(const std::string& path) {
  std::ifstream in(path);
  if (!in) fail(ErrorCode::kIo, "cannot read ", path);
  std::map<std::string, Answer> answers;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string probe;
    Answer a;
    words >> probe >> a.rule;
    if (a.rule == "close") words >> a.rtol >> a.atol;
    words >> std::hex;
    for (std::uint32_t w; words >> w;) a.words.push_back(w);
    answers[probe] = a;
  }
  return answers;
}

// Probes that one side could not run (wgmma on other chips) are left out.
int compare(const std::string& want_path, const std::string& got_path) {
  const auto want = read(want_path), got = read(got_path);
  int failures = 0;
  for (const auto& [probe, w] : want) {
    const auto it = got.find(probe);
    if (it == got.end()) {
      std::printf("  --   %s: not run\n", probe.c_str());
      continue;
    }
    const Answer& g = it->second;
    std::size_t bad = 0, first = 0;
    for (std::size_t i = 0; i < w.words.size(); ++i) {
      bool same = i < g.words.size() && g.words[i] == w.words[i];
      if (!same && i < g.words.size() && w.rule == "close") {
        const double x = double{float_from_bits(w.words[i])},
                     y = double{float_from_bits(g.words[i])};
        same = std::abs(x - y) <= w.rtol * std::abs(x) + w.atol;
      }
      if (!same && bad++ == 0) first = i;
    }
    if (bad == 0) {
      std::printf("  ok   %s: %zu words, %s\n", probe.c_str(), w.words.size(), w.rule.c_str());
    } else {
      ++failures;
      std::printf("  FAIL %s: %zu of %zu words differ; first at %zu: want %08x, got %08x\n",
                  probe.c_str(), bad, w.words.size(), first, w.words[first],
                  first < g.words.size() ? g.words[first] : 0);
    }
  }
  std::printf("%zu probes, %d differ\n", want.size(), failures);
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace retort::probes

int main(int argc, char** argv) {
  try {
    if (argc == 3 && std::strcmp(argv[1], "--dump") == 0) return retort::probes::dump(argv[2]);
    if (argc == 4 && std::strcmp(argv[1], "--compare") == 0)
      return retort::probes::compare(argv[2], argv[3]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  std::fprintf(stderr, "usage: %s --dump FILE | --compare WANT GOT\n", argv[0]);
  return 2;
}
