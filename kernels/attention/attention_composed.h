// Attention of one head of one sequence as its contract says it, in double.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/common/composed.h"

namespace retort::kernels {

/// A head's results, (L, D) each; lse (L).
struct AttentionHead {
  std::vector<double> out, lse, dq, dk, dv;
};

/// q(i, c), k, v, dout are functions of row and column; factor(i, j) is what dropout multiplies a
/// probability with.
template <class Q, class K, class V, class Dout, class Factor>
AttentionHead attention_head_composed(std::int64_t rows, std::int64_t size, bool causal, Q&& q,
                                      K&& k, V&& v, Dout&& dout, Factor&& factor) {
  const auto n = static_cast<std::size_t>(rows), d = static_cast<std::size_t>(size);
  const auto at = [d](std::int64_t row, std::int64_t column) {
    return static_cast<std::size_t>(row) * d + static_cast<std::size_t>(column);
  };
  AttentionHead head;
  head.lse.resize(n);
  for (std::vector<double>* const t : {&head.out, &head.dq, &head.dk, &head.dv}) t->resize(n * d);
  const double scale = 1 / std::sqrt(static_cast<double>(size));
  std::vector<double> p(n);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t keys = causal ? i + 1 : rows;
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t j = 0; j < keys; ++j) {
      double z = 0;
      for (std::int64_t c = 0; c < size; ++c) z += q(i, c) * k(j, c);
      p[static_cast<std::size_t>(j)] = z * scale;
      top = std::max(top, z * scale);
    }
    for (std::int64_t j = 0; j < keys; ++j) {
      double& here = p[static_cast<std::size_t>(j)];
      sum += here = std::exp(here - top);
    }
    head.lse[static_cast<std::size_t>(i)] = top + std::log(sum);
    double delta = 0;
    for (std::int64_t c = 0; c < size; ++c) {
      for (std::int64_t j = 0; j < keys; ++j)
        head.out[at(i, c)] += factor(i, j) * p[static_cast<std::size_t>(j)] / sum * v(j, c);
      delta += head.out[at(i, c)] * dout(i, c);
    }
    for (std::int64_t j = 0; j < keys; ++j) {
      const double here = p[static_cast<std::size_t>(j)] / sum, m = factor(i, j);
      double dp = 0;
      for (std::int64_t c = 0; c < size; ++c) dp += dout(i, c) * v(j, c);
      const double dz = here * (m * dp - delta) * scale;
      for (std::int64_t c = 0; c < size; ++c) {
        head.dq[at(i, c)] += dz * k(j, c);
        head.dk[at(j, c)] += dz * q(i, c);
        head.dv[at(j, c)] += m * here * dout(i, c);
      }
    }
  }
  return head;
}

}  // namespace retort::kernels
