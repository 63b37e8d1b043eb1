// Loads the CUDA plug-in that RETORT_CUDA_LIBRARY names and says which kind of machine this is.
// 0: a GPU is there and computes; 77: the plug-in is sound, but there is no driver or no GPU;
// 1: anything else, such as a missing library or a plug-in of another build.
#include <cstdio>
#include <string>
#include <vector>

#include "engine/ops/matmul.h"
#include "engine/runtime/device.h"

int main() {
  using namespace retort;
  try {
    if (!cuda_available()) {
      const std::string reason = cuda_unavailable_reason();
      std::printf("there is %s\n", reason.c_str());
      const bool plain = reason.rfind("no NVIDIA driver", 0) == 0 || reason == "no CUDA device";
      if (!plain) return 1;
      try {
        context_of(Device::kCuda);
      } catch (const Error& e) {
        std::printf("asking for it says: %s\n", e.what());
        if (e.code() == ErrorCode::kDevice) {
          std::puts("skipped: the CUDA plug-in loads, but nothing can run on it here");
          return 77;
        }
      }
      return 1;
    }
    const DeviceInfo info = cuda_device_info();
    std::printf("%s, compute capability %d.%d, %d multiprocessors, %zu MiB, driver %d.%d, %s\n",
                info.name, info.capability / 10, info.capability % 10, info.multiprocessors,
                info.memory_bytes >> 20, info.driver_version / 1000,
                info.driver_version % 1000 / 10, info.libraries);
    const Tensor a = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}, Device::kCuda),
                 b = Tensor::from<float>({1, 0, 2, 1, 0, 3}, {3, 2}, Device::kCuda);
    const bool right = matmul(a, b).to_vector<float>() == std::vector<float>{5, 11, 14, 23};
    std::puts(right ? "it computes" : "FAIL: wrong numbers");
    return right ? 0 : 1;
  } catch (const std::exception& e) {
    std::printf("FAIL: %s\n", e.what());
    return 1;
  }
}
