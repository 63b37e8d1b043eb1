// Random tensors: a pure function of a key, the same bits on CPU and CUDA.
#pragma once
#include "engine/tensor/tensor.h"
#include "kernels/common/philox.h"

namespace retort {

/// What a random number is for. The path is path_hash("layer1.dropout") or the like.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint32_t sample = 0;
  std::uint32_t epoch = 0;
  std::uint32_t path = 0;
};

/// What a random number of one row of a batch is for, where rows belong to samples (RandomKey has
/// one sample for a whole tensor). All of it but the seed lies in device memory, so that a captured
/// graph reads the step and the samples of its time. A number depends on the sample and not on its
/// place in a batch: the same on any device, for any split and order.
struct Noise {
  std::uint64_t seed = 0;
  Tensor step;      // i64 scalar; undefined: 0
  Tensor sample;    // (rows), i64 or i32: the row's sample; undefined: the row's number
  Tensor position;  // (rows), i32: which row of its sample it is; undefined: 0, one row a sample
};

/// Overwrites a contiguous tensor (f64, f32, bf16) in place. `epoch`, if defined, is an i64 scalar
/// on the tensor's device that is read in place of key.epoch: new numbers at every replay of a
/// captured graph.
void fill_uniform(const Tensor& t, const RandomKey& key, double low = 0, double high = 1,
                  const Tensor& epoch = {});
void fill_normal(const Tensor& t, const RandomKey& key, double mean = 0, double deviation = 1,
                 const Tensor& epoch = {});
void fill_bernoulli(const Tensor& t, const RandomKey& key, double probability,
                    const Tensor& epoch = {});                                     // 1 or 0
void fill_signs(const Tensor& t, const RandomKey& key, const Tensor& epoch = {});  // -1 or +1

}  // namespace retort
