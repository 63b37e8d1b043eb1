// The emulator's primitives against the values that the CUDA documentation gives.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/conformance/probes.cuh"

namespace retort::probes {
namespace {

using namespace SIMT_NS;

struct Integers {  // small ones: exact in bf16, and so are their products and sums in float
  std::uint32_t i = 0;
  float operator()() {
    return static_cast<float>(uniform_below(philox(1, i++, 0, 0, 0).v[0], 9)) - 4;
  }
};

class SimtWarp : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    out_.assign(32 * kWarpWords, 0);
    simt::launch({"warp_probe", 1, 32}, warp_probe, out_.data());
  }
  static std::uint32_t got(unsigned lane, unsigned word) { return out_[lane * kWarpWords + word]; }
  static std::uint32_t value(unsigned lane) { return lane * 7 + 3; }
  static std::vector<std::uint32_t> out_;
};
std::vector<std::uint32_t> SimtWarp::out_;

TEST_F(SimtWarp, shuffles) {
  for (unsigned l = 0; l < 32; ++l) {
    EXPECT_EQ(got(l, 0), value(5));
    EXPECT_EQ(got(l, 1), value((l & ~7u) + ((l + 1) & 7u)));
    EXPECT_EQ(got(l, 2), value(l ^ 9u));
    EXPECT_EQ(got(l, 3), value(l ^ 12u));
    EXPECT_EQ(got(l, 4), value(l >= 3 ? l - 3 : l));
    EXPECT_EQ(got(l, 5), value(l % 8 >= 3 ? l - 3 : l));
    EXPECT_EQ(got(l, 6), value(l + 5 < 32 ? l + 5 : l));
    EXPECT_EQ(got(l, 7), value(l % 8 + 5 < 8 ? l + 5 : l));
  }
}

TEST_F(SimtWarp, votes_and_reductions) {
  std::uint32_t sum = 0, parity = 0;
  for (unsigned l = 0; l < 32; ++l) sum += value(l), parity ^= value(l) * value(l);
  for (unsigned l = 0; l < 32; ++l) {
    EXPECT_EQ(got(l, 8), 0x49249249u);
    EXPECT_EQ(got(l, 9), 3u);
    EXPECT_EQ(got(l, 10), sum);
    EXPECT_EQ(static_cast<int>(got(l, 11)), 3 - 40);
    EXPECT_EQ(got(l, 12), parity);
    std::uint32_t match = 0;
    for (unsigned k = 0; k < 32; ++k) match |= (k % 5 == l % 5 ? 1u : 0u) << k;
    EXPECT_EQ(got(l, 13), match);
  }
}

TEST_F(SimtWarp, two_half_warps_meet_apart) {
  for (unsigned l = 0; l < 32; ++l) EXPECT_EQ(got(l, 14), l < 16 ? value(l ^ 1u) : value(31));
}

TEST_F(SimtWarp, ldmatrix) {
  const auto element = [](unsigned matrix, unsigned row, unsigned chunk, unsigned column) {
    return (8 * matrix + row) * 16 + 8 * chunk + column;
  };
  for (unsigned l = 0; l < 32; ++l)
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned a = l / 4, b = 2 * (l % 4);
      EXPECT_EQ(got(l, 15 + i), element(i, a, 0, b) | element(i, a, 0, b + 1) << 16);
      EXPECT_EQ(got(l, 19 + i), element(i, b, 1, a) | element(i, b + 1, 1, a) << 16);
    }
}

TEST(SimtMma, fragments_follow_the_published_layout) {
  // Fragments made with the index formulas of CuTe's traits (SM80_16x8x16_F32BF16BF16F32_TN), not
  // with the emulator's own.
  Integers next;
  float a_matrix[16][16], b_matrix[16][8], c_matrix[16][8], want[16][8];
  for (auto& row : a_matrix)
    for (float& e : row) e = next();
  for (auto& row : b_matrix)
    for (float& e : row) e = next();
  for (auto& row : c_matrix)
    for (float& e : row) e = next();
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      want[m][n] = c_matrix[m][n];
      for (int k = 0; k < 16; ++k) want[m][n] += a_matrix[m][k] * b_matrix[k][n];
    }
  std::vector<std::uint32_t> a(128), b(64);
  std::vector<float> c(128), d(128);
  const auto c_index = [](int lane, int e) {
    return 32 * (lane % 4) + lane / 4 + 16 * (e & 1) + 8 * (e >> 1);
  };
  for (int l = 0; l < 32; ++l) {
    const auto at = [](int i) { return static_cast<std::size_t>(i); };
    for (int e = 0; e < 8; ++e) {
      const int i = 32 * (l % 4) + l / 4 + 16 * (e & 1) + 8 * (e >> 1 & 1) + 128 * (e >> 2);
      a[at(l * 4 + e / 2)] |= std::uint32_t{to_bf16(a_matrix[i % 16][i / 16]).bits} << 16 * (e & 1);
    }
    for (int e = 0; e < 4; ++e) {
      const int i = 16 * (l % 4) + l / 4 + 8 * (e & 1) + 64 * (e >> 1);
      b[at(l * 2 + e / 2)] |= std::uint32_t{to_bf16(b_matrix[i / 8][i % 8]).bits} << 16 * (e & 1);
      c[at(l * 4 + e)] = c_matrix[c_index(l, e) % 16][c_index(l, e) / 16];
    }
  }
  simt::launch({"mma_probe", 1, 32}, mma_probe, d.data(), a.data(), b.data(), c.data());
  for (int l = 0; l < 32; ++l)
    for (int e = 0; e < 4; ++e)
      EXPECT_EQ(d[static_cast<std::size_t>(l * 4 + e)],
                want[c_index(l, e) % 16][c_index(l, e) / 16]);
}

TEST(SimtMma, warpgroup_product_decodes_the_descriptor) {
  constexpr int kM = 130, kN = 300, kK = 192;
  Integers next;
  // Rows past m and n exist for their addresses only.
  std::vector<bf16> a(std::size_t{192} * kK), b(std::size_t{512} * kK);
  for (bf16& e : a) e = to_bf16(next());
  for (bf16& e : b) e = to_bf16(next());
  const auto check = [&]<int kColumns>() {
    std::vector<float> c(std::size_t{kM} * kN, NAN);
    run_warpgroup_gemm<kColumns>({c.data(), a.data(), b.data(), kM, kN, kK});
    for (std::size_t m = 0; m < kM; ++m)
      for (std::size_t n = 0; n < kN; ++n) {
        float sum = 0;
        for (std::size_t k = 0; k < kK; ++k)
          sum += to_float(a[m * kK + k]) * to_float(b[n * kK + k]);
        ASSERT_EQ(c[m * kN + n], sum) << m << ", " << n << " by " << kColumns << " columns";
      }
  };
  check.operator()<64>();
  check.operator()<128>();
  check.operator()<256>();
}

TEST(SimtMma, warpgroup_product_by_depth_decodes_the_descriptor) {
  const auto check = [&]<int kColumns>() {
    constexpr int kM = 64, kN = kColumns, kK = 50;
    Integers next;
    std::vector<bf16> a(std::size_t{64} * kM), b(std::size_t{64} * kN);
    for (bf16& e : a) e = to_bf16(next());
    for (bf16& e : b) e = to_bf16(next());
    std::vector<float> c(std::size_t{kM} * kN, NAN);
    run_warpgroup_by_depth<kColumns>({c.data(), a.data(), b.data(), kM, kN, kK});
    for (std::size_t m = 0; m < kM; ++m)
      for (std::size_t n = 0; n < kN; ++n) {
        float sum = 0;
        for (std::size_t k = 0; k < kK; ++k)
          sum += to_float(a[k * kM + m]) * to_float(b[k * kN + n]);
        ASSERT_EQ(c[m * kN + n], sum) << m << ", " << n << " by " << kColumns << " columns";
      }
  };
  check.operator()<64>();
  check.operator()<128>();
}

// Four kinds of misuse of the asynchronous product, and the sound kernel.
enum class Misuse { none, written_early, read_early, started_early, never_committed };
__global__ void warpgroup_misuse_probe(const bf16* ones, float* out, Misuse misuse) {
  SIMT_DYNAMIC_SHARED(bf16, tiles);  // A and B, 64 x 64 ones
  for (int i = static_cast<int>(threadIdx.x); i < 2 * 64 * 8; i += 128)
    cp_async16(tiles + 8 * i, ones);
  cp_async_commit();
  if (misuse != Misuse::started_early) {
    cp_async_wait<0>();
    async_proxy_fence();
    __syncthreads();
  }
  WarpgroupAcc<64> acc;
  for (float& d : acc.d) d = 0;
  warpgroup_fence(acc);
  for (int k = 0; k < 4; ++k) warpgroup_mma(acc, tiles, tiles + 4096, k, k == 0);
  if (misuse != Misuse::never_committed) warpgroup_commit(acc);
  if (misuse == Misuse::started_early) {
    cp_async_wait<0>();
    async_proxy_fence();
    __syncthreads();
  }
  if (misuse == Misuse::written_early) tiles[64 * threadIdx.x] = bf16{0};
  float early = acc.d[0];
  warpgroup_wait<0>(acc);
  out[threadIdx.x] = misuse == Misuse::read_early ? early : acc.d[0];
}

TEST(SimtMma, warpgroup_products_are_done_when_waited_for) {
  const std::vector<bf16> ones(8, to_bf16(1));
  const auto run = [&](Misuse misuse) {
    std::vector<float> out(128, -1);
    simt::launch({"warpgroup_misuse_probe", 1, 128, 16384}, warpgroup_misuse_probe, ones.data(),
                 out.data(), misuse);
    return out[0];
  };
  EXPECT_EQ(run(Misuse::none), 64);
  EXPECT_NE(run(Misuse::read_early), 64);
  std::vector<Misuse> refused = {Misuse::never_committed};
#if !defined(__SANITIZE_THREAD__)  // which would rightly report the other two as races
  refused.insert(refused.end(), {Misuse::written_early, Misuse::started_early});
#endif
  for (const Misuse misuse : refused) try {
      run(misuse);
      ADD_FAILURE() << "not noticed: " << static_cast<int>(misuse);
    } catch (const emu::Error& e) {
      // a thread that has yet to start its product may meet the early write first
      EXPECT_TRUE(e.fault == emu::Fault::async_outstanding || e.fault == emu::Fault::proxy_fence)
          << e.what();
    }
}

TEST(SimtBlock, votes_and_atomics) {
  std::vector<std::uint32_t> out(260, 0);
  simt::launch({"block_probe", 1, 256}, block_probe, out.data());
  for (unsigned t = 0; t < 256; ++t) EXPECT_EQ(out[t], 86u | 1u << 16 | 1u << 17);
  std::uint32_t most = 0;
  for (unsigned t = 0; t < 256; ++t) most = std::max(most, t * 31 % 257);
  EXPECT_EQ(out[256], 255u * 128u);
  EXPECT_EQ(out[257], most);
  EXPECT_EQ(out[258], 256u % 100u);
  EXPECT_EQ(out[259], 0u - 256u);
}

TEST(SimtBlock, async_copies_fill_up_with_zeros) {
  alignas(16) static std::uint8_t in[128 * 16];
  for (std::size_t i = 0; i < sizeof in; ++i) in[i] = static_cast<std::uint8_t>(i % 251 + 1);
  std::vector<std::uint32_t> out(512);
  simt::launch({"async_copy_probe", 1, 128}, async_copy_probe, out.data(),
               reinterpret_cast<const std::uint32_t*>(in));
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(out.data());
  for (std::size_t t = 0; t < 128; ++t)
    for (std::size_t i = 0; i < 16; ++i)
      EXPECT_EQ(bytes[16 * t + i], i < (127 - t) % 17 ? in[16 * (127 - t) + i] : 0);
}

}  // namespace
}  // namespace retort::probes
