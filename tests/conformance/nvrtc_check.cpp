// The device headers compile under NVRTC, so that kernels written at run time may use them: Philox,
// the 16-bit types, and everything of simt.h but launch. Needs the toolkit, not a GPU.
#include <nvrtc.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

const char* const kHeaders[] = {"kernels/common/hd.h",      "kernels/common/bf16.h",
                                "kernels/common/philox.h",  "kernels/simt/simt.h",
                                "kernels/simt/warpgroup.h", "kernels/simt/cluster.h",
                                "kernels/simt/tile.h",      "kernels/simt/tensor_core.h"};

// NVRTC has no standard library; this is all that the headers above need of it.
const char* const kStdint = R"(
#pragma once
namespace std {
typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t;
typedef unsigned short uint16_t; typedef int int32_t; typedef unsigned int uint32_t;
typedef long int64_t; typedef unsigned long uint64_t; typedef unsigned long size_t;
}
)";

const char* const kKernel = R"(
#include "kernels/common/philox.h"
#include "kernels/simt/cluster.h"
#include "kernels/simt/tensor_core.h"
#include "kernels/simt/tile.h"
#include "kernels/simt/warpgroup.h"
namespace user {
using namespace retort;
using namespace retort::simt;
extern "C" __global__ void dropout(bf16* y, const bf16* x, float keep, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const Philox4 r = philox(1, static_cast<unsigned>(i), 2, 3, path_hash("user.dropout"));
  y[i] = from_float<bf16>(uniform01(r.v[0]) < keep ? to_float(x[i]) / keep : 0.f);
}
extern "C" __global__ void tile(float* out, const bf16* in) {
  SIMT_SHARED(bf16x8, buffer, [64]);
  cp_async16(&buffer[threadIdx.x], in + 8 * threadIdx.x);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  std::uint32_t a[4];
  ldmatrix_x4(a, &buffer[threadIdx.x]);
  float d[4] = {0, 0, 0, 0};
  mma_bf16_16x8x16(d, a, a[0], a[1]);
  out[threadIdx.x] = warp_sum(d[0]) + exp_approx(d[1]) + exp2_approx(d[2]) + log_approx(d[3]);
}
extern "C" __global__ void wide(float* out) {
  SIMT_DYNAMIC_SHARED(bf16, tiles);
  WarpgroupAcc<> acc;
  async_proxy_fence();
  warpgroup_fence(acc);
  warpgroup_mma(acc, tiles, tiles + 4096, 0, true);
  warpgroup_commit(acc);
  warpgroup_wait<0>(acc);
  out[threadIdx.x] = acc.d[0];
}
extern "C" __global__ void clustered(float* out, const float* in) {
  SIMT_SHARED(float4, piece, [32]);
  SIMT_SHARED(TileBarrier, full, [1]);
  if (threadIdx.x == 0) {
    tile_barrier_init(full, 1);
    tile_barriers_ready();
    tile_expect(full, 512);
    tile_load(piece, in, 512, full);
  }
  __syncthreads();
  tile_wait(full, 0);
  cluster_sync();
  out[threadIdx.x] = map_shared_rank(piece, cluster_size() - 1 - cluster_rank())->x;
  cluster_sync();
}
}  // namespace user
)";

std::string read(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

int main() {
  std::vector<std::string> texts;
  std::vector<const char*> sources{kStdint}, names{"cstdint"};
  for (const char* header : kHeaders)
    texts.push_back(read(std::string(RETORT_SOURCE_DIR "/") + header));
  for (std::size_t i = 0; i < texts.size(); ++i) {
    sources.push_back(texts[i].c_str());
    names.push_back(kHeaders[i]);
  }
  int failures = 0;
  for (const char* architecture : {"--gpu-architecture=compute_80", "--gpu-architecture=sm_90a"}) {
    nvrtcProgram program = nullptr;
    nvrtcResult result = nvrtcCreateProgram(
        &program, kKernel, "user.cu", static_cast<int>(names.size()), sources.data(), names.data());
    const char* options[] = {architecture, "--std=c++20"};
    if (result == NVRTC_SUCCESS) result = nvrtcCompileProgram(program, 2, options);
    std::size_t bytes = 0;
    std::string log;
    if (nvrtcGetProgramLogSize(program, &bytes) == NVRTC_SUCCESS) {
      log.resize(bytes);
      (void)nvrtcGetProgramLog(program, log.data());
    }
    std::printf("%s: %s\n%s\n", architecture, nvrtcGetErrorString(result), log.c_str());
    failures += result != NVRTC_SUCCESS;
    (void)nvrtcDestroyProgram(&program);
  }
  return failures != 0;
}
