#include "nn/init.h"

#include <algorithm>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/common/philox.h"

namespace retort::nn {

std::uint32_t init_hash(const std::string& path) { return path_hash(("init." + path).c_str()); }

void initialize(const Tensor& parameter, const Init& init, std::uint64_t seed,
                const std::string& path) {
  if (init.kind == Init::Kind::kConstant) {
    parameter.fill(init.value);
    return;
  }
  const std::int64_t n = parameter.numel();
  const std::uint32_t hash = init_hash(path);
  std::vector<double> values(static_cast<std::size_t>(n));
  parallel_for((n + 3) / 4, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const Philox4 r = philox(seed, static_cast<std::uint32_t>(block), 0, 0, hash);
      double four[4];
      if (init.kind == Init::Kind::kUniform) {
        for (int k = 0; k < 4; ++k)
          four[k] = init.value * (2 * static_cast<double>(uniform01(r.v[k])) - 1);
      } else {
        // Box and Muller 1958: two uniforms make two normals. u in (0, 1], so the log is finite.
        for (int k = 0; k < 4; k += 2) {
          const double u = (r.v[k] + 1.0) / 4294967296.0, v = r.v[k + 1] / 4294967296.0;
          const double radius = init.value * std::sqrt(-2 * std::log(u));
          four[k] = radius * std::cos(6.283185307179586 * v);
          four[k + 1] = radius * std::sin(6.283185307179586 * v);
        }
      }
      for (std::int64_t i = 4 * block; i < std::min(n, 4 * block + 4); ++i)
        values[static_cast<std::size_t>(i)] = four[i - 4 * block];
    }
  });
  parameter.copy_from(Tensor::from(values, parameter.shape()).to(parameter.dtype()));
}

}  // namespace retort::nn
