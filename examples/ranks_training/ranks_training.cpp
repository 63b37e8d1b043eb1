// An MLP that several processes train together, to the same weights on 1, 2, 4 or 8 of them.
//
//   mpirun -np 2 ranks_training      (without mpirun: one rank, and no MPI is loaded)
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "distill/distill.h"
#include "engine/distributed/communicator.h"
#include "engine/distributed/handshake.h"
#include "nn/models/registry.h"
using namespace retort;

// Point i of a spiral of three arms, and its arm. Every rank can make any of them.
static int point(std::int64_t i, std::vector<float>* x) {
  const auto arm = static_cast<int>(i % 3);
  const float t = 0.5f + 3.5f * static_cast<float>(i % 500) / 500, angle = t + 2.0944f * float(arm);
  if (x != nullptr) x->insert(x->end(), {t * std::cos(angle), t * std::sin(angle)});
  return arm;
}

static std::uint64_t hash_of(const Tensor& values) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const float value : values.to_vector<float>()) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) * 1099511628211ULL;
  }
  return hash;
}

static double accuracy_of(nn::Model& model) {
  std::vector<float> x;
  for (std::int64_t i = 0; i < 1500; ++i) point(i, &x);
  const auto logits =
      model.forward(Tensor::from(x, {1500, 2})).logits.to_vector<float>();  // (N, 3)
  int right = 0;
  for (std::int64_t i = 0; i < 1500; ++i) {
    const float* const row = &logits[static_cast<std::size_t>(3 * i)];
    right += std::max_element(row, row + 3) - row == point(i, nullptr);
  }
  return right / 1500.0;
}

static int run() {
  constexpr std::int64_t kBatch = 60;
  Communicator& ranks = Communicator::start();
  const auto model = nn::make_model({.arch = "mlp",
                                     .classes = 3,
                                     .seed = 1,
                                     .options = {{"hidden", nn::Ints{64, 64}}},
                                     .input = {2}});
  nn::AdamWConfig config;
  config.slices = 8;  // decides the bytes of the result, whoever runs a slice
  config.ranks = &ranks;
  config.clip_norm = 1;
  nn::AdamW optimizer(*model, config);
  const Tensor& weights = optimizer.arena().values();
  handshake_of_build().add("initial weights", std::to_string(hash_of(weights))).compare(ranks);

  distill::StepSettings settings;
  settings.lambda = {0};  // no teacher
  settings.slices = optimizer.slices();
  for (std::int64_t step = 0; step < 400; ++step) {
    // Every rank knows the labels of the whole batch, and makes the rows of its own slices.
    std::vector<int> labels, own;
    for (std::int64_t i = 0; i < kBatch; ++i) labels.push_back(point(step * kBatch + i, nullptr));
    settings.share = distill::BatchShare::of(*optimizer.slices(), labels);
    std::vector<float> x;
    for (std::int64_t i = settings.share->first; i < settings.share->last; ++i)
      own.push_back(point(step * kBatch + i, &x));
    const auto n = static_cast<std::int64_t>(own.size());
    distill::distill_step(nullptr, *model, {Tensor::from(x, {n, 2}), Tensor::from(own, {n})},
                          settings, [&] { optimizer.step(), optimizer.zero_grad(); });
  }
  if (ranks.rank() == 0)
    std::printf("accuracy %.2f, weights %016llx of %d ranks\n", accuracy_of(*model),
                static_cast<unsigned long long>(hash_of(weights)), ranks.size());
  ranks.finish();
  return 0;
}

int main() {
  try {
    return run();
  } catch (const Error& error) {  // no finish(): the launcher ends the other ranks
    std::fprintf(stderr, "ranks_training: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
