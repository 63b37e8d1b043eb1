// What the tests of terms that are trained with the student share.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "distill/step.h"
#include "tests/distill/models.h"
#include "tests/support/random.h"

namespace retort::test {

/// A student and a teacher of other widths and depths, and a batch.
struct Hints {
  std::shared_ptr<const distill::Teacher> teacher;
  TinyMlp student{6, {8, 7}, 4, 1};
  nn::Batch batch;

  explicit Hints(Device device = Device::kCpu,
                 std::vector<std::int64_t> teacher_widths = {10, 9, 5})
      : batch(randn({10, 6}, 3).to(device), randint({10}, 4, 4).to(device)) {
    const auto model = std::make_shared<TinyMlp>(6, std::move(teacher_widths), 4, 2);
    model->to(device);
    teacher = std::make_shared<distill::Teacher>(model);
    student.to(device);
  }
  void begin(distill::Term& term, bool resuming = false) {
    const std::size_t reading = 1;
    term.begin({student, std::span(&teacher, 1), std::span(&reading, 1), batch}, resuming);
  }
  /// A step that changes nothing; gradients by name, those of `more` too.
  distill::StepReport step(const distill::Terms& terms, std::int64_t micro,
                           std::map<std::string, Tensor>* gradients, nn::Module* more = nullptr) {
    const distill::RunTeacher one{teacher};
    distill::StepSettings settings{.lambda = {0.5f}, .micro_batch = micro};
    return distill::eager_step(std::span(&one, 1), terms, student, batch, settings, [&] {
      gradients->clear();
      for (nn::Module* module : {static_cast<nn::Module*>(&student), more})
        if (module != nullptr)
          for (const auto& [name, p] : module->named_parameters()) {
            if (p.grad().defined()) gradients->emplace(name, p.grad().clone());
            p.zero_grad();
          }
    });
  }
};

inline std::map<std::string, Tensor> by_name(const nn::Module& module) {
  std::map<std::string, Tensor> all;
  for (const auto& [name, p] : module.named_parameters()) all.emplace(name, p);
  return all;
}

}  // namespace retort::test
