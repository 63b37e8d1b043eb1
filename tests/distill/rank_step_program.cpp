// What rank_step_test.cpp starts, alone and under a launcher: rank_step_program SLICES. Students
// are trained, and a line for each says the hash of all that must not depend on ranks and threads.
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "distill/step.h"
#include "engine/distributed/communicator.h"
#include "kernels/common/parallel.h"
#include "nn/models/registry.h"
#include "nn/optim/optimizer.h"
#include "tests/distill/models.h"
#include "tests/support/random.h"
#include "tests/support/ranks_log.h"

namespace {

using namespace retort;
using namespace retort::distill;
using test::say;

struct Run {
  std::string name;
  bool resnet = false, adamw = false, skip = false;
  double clip = 0;
  std::int64_t micro_batch = 0;
  // Ways to the same bytes:
  int threads = 1;
  bool share = true, resume = false;
};

class Hash {
 public:
  void add(const Tensor& t) {
    const Tensor host = t.contiguous();
    const auto* bytes = static_cast<const unsigned char*>(host.raw());
    for (std::size_t i = 0; i < host.bytes(); ++i) value_ = (value_ ^ bytes[i]) * 1099511628211ULL;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 14695981039346656037ULL;
};

std::shared_ptr<nn::Model> make(bool resnet, std::uint64_t seed) {
  if (resnet) return nn::make_model({.arch = "resnet8", .classes = 4, .seed = seed});
  return std::make_shared<test::TinyMlp>(6, std::vector<std::int64_t>{200, 200}, 4, seed);
}

// A whole batch of step t: most are full, some leave slices empty, the last is a single sample.
nn::Batch batch_of(const Run& run, std::int64_t t) {
  static constexpr std::int64_t kSizes[] = {16, 13, 16, 3, 16, 1};
  const std::int64_t samples = run.resnet && kSizes[t] == 1 ? 2 : kSizes[t];
  const auto seed = static_cast<std::uint64_t>(100 + t);
  nn::Batch batch{test::randn(run.resnet ? Shape{samples, 8, 8, 3} : Shape{samples, 6}, seed),
                  test::randint({samples}, seed, 4)};
  if (t == 2) batch.targets.slice(5, 11).fill(-100);
  if (t == 4 && run.skip)  // of one slice alone
    batch.inputs[0].values.slice(2, 3).fill(std::numeric_limits<double>::infinity());
  return batch;
}

struct Trained {
  Trained(const Run& r, std::int64_t m, std::uint64_t seed)
      : run(r), slices(m), student(make(r.resnet, seed)) {
    if (run.adamw)
      optimizer = std::make_unique<nn::AdamW>(*student, with<nn::AdamWConfig>());
    else
      optimizer = std::make_unique<nn::Sgd>(*student, with<nn::SgdConfig>());
    optimizer->zero_grad();
  }
  template <class Config>
  Config with() const {
    Config config;
    config.slices = slices;
    config.ranks = &Communicator::world();
    config.clip_norm = run.clip;
    config.skip_not_finite = run.skip;
    config.weight_decay = 5e-3;
    config.decay_norm_and_bias = false;
    if constexpr (std::is_same_v<Config, nn::SgdConfig>) config.momentum = 0.9;
    return config;
  }

  void step(const Teacher& teacher, std::int64_t t) {
    nn::Batch batch = batch_of(run, t);
    StepSettings settings;
    settings.slices = optimizer->slices();
    settings.micro_batch = run.micro_batch;
    settings.temperature = {2.0f};
    settings.lambda.clear();
    for (std::int64_t i = 0; i < batch.size(); ++i)
      settings.lambda.push_back(0.2f + 0.04f * static_cast<float>(i));
    if (run.share) {  // only the rows that are this rank's, in memory of their own
      const nn::BatchSlices& own = *optimizer->slices();
      settings.share = BatchShare::of(own, batch.targets.to_vector<std::int32_t>());
      batch = batch.slice(settings.share->first, settings.share->last);
      batch.inputs[0].values = batch.inputs[0].values.clone();
      batch.targets = batch.targets.clone();
    }
    distill_step(&teacher, *student, batch, settings, [&] {
      optimizer->step();
      optimizer->zero_grad();
    });
    if (optimizer->gradient_norm().defined()) norms.add(optimizer->gradient_norm());
  }

  // Weights, statistics and moments of a run that stopped.
  void go_on_from(const Trained& other) {
    const auto copy = [](const auto& to, const auto& from) {
      for (std::size_t i = 0; i < to.size(); ++i) to[i].second.detach().copy_from(from[i].second);
    };
    copy(student->named_parameters(), other.student->named_parameters());
    copy(student->named_buffers(), other.student->named_buffers());
    optimizer->load_state(other.optimizer->state());
    norms = other.norms;
  }

  std::uint64_t hash() const {
    Hash hash = norms;
    for (const auto& [name, t] : student->named_parameters()) hash.add(t.detach());
    for (const auto& [name, t] : student->named_buffers()) hash.add(t);
    for (const auto& [name, t] : optimizer->state()) hash.add(t);
    return hash.value();
  }

  Run run;
  std::int64_t slices;
  std::shared_ptr<nn::Model> student;
  std::unique_ptr<nn::Optimizer> optimizer;
  Hash norms;
};

std::uint64_t train(const Run& run, std::int64_t slices) {
  set_thread_count(run.threads);
  const Teacher teacher(make(run.resnet, 2));
  auto trained = std::make_unique<Trained>(run, slices, 1);
  for (std::int64_t t = 0; t < 6; ++t) {
    if (run.resume && t == 3) {
      auto later = std::make_unique<Trained>(run, slices, 77);
      later->go_on_from(*trained);
      trained = std::move(later);
    }
    trained->step(teacher, t);
  }
  return trained->hash();
}

void must_be_everybodys(std::uint64_t hash, const std::string& what) {
  Communicator& ranks = Communicator::world();
  std::vector<std::uint64_t> all(static_cast<std::size_t>(ranks.size()));
  ranks.gather(&hash, all.data(), sizeof hash);
  for (const std::uint64_t other : all)
    if (other != hash) throw std::logic_error(what + ": ranks differ");
}

void run(std::int64_t slices) {
  Communicator& ranks = Communicator::start();
  const Run kinds[] = {{.name = "mlp, sgd", .clip = 0.5},
                       {.name = "mlp, adamw, skip", .adamw = true, .skip = true},
                       {.name = "resnet8, sgd, skip", .resnet = true, .skip = true, .clip = 0.5},
                       {.name = "resnet8, adamw", .resnet = true, .adamw = true, .micro_batch = 2}};
  for (const Run& kind : kinds) {
    Run run = kind;
    const std::uint64_t hash = train(run, slices);
    must_be_everybodys(hash, run.name);
    if (ranks.rank() == 0) say(join(run.name, ", ", slices, " slices: ", hash));
    run.threads = 2, run.resume = true, run.share = false;
    if (train(run, slices) != hash)
      throw std::logic_error(run.name + " differs with 2 threads, resumed, from whole batches");
  }
  ranks.finish();
}

}  // namespace

int main(int, char** argv) { return retort::test::run_and_say(run, argv[1]); }
