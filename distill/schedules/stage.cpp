#include "distill/schedules/stage.h"

namespace retort::distill {

std::vector<Stage> one_shot_stages(std::size_t teacher) {
  return {Stage{.name = "distill", .teacher = teacher}};
}

std::vector<Stage> progressive_stages(std::span<const ProgressivePart> parts,
                                      std::size_t final_teacher, bool fresh_optimizer) {
  std::vector<Stage> stages;
  for (const ProgressivePart& part : parts) {
    RETORT_CHECK(part.steps >= 1, "[stages] expected at least 1 step with each checkpoint, got ",
                 part.steps);
    stages.push_back({.name = join("checkpoint ", stages.size() + 1),
                      .teacher = part.teacher,
                      .until = {.steps = part.steps},
                      .fresh_optimizer = fresh_optimizer});
  }
  stages.push_back(
      {.name = "distill", .teacher = final_teacher, .fresh_optimizer = fresh_optimizer});
  return stages;
}

std::vector<Stage> extraction_stages(std::int64_t student_layers,
                                     const ExtractionOptions& options) {
  RETORT_CHECK(student_layers >= 1,
               "[stages] expected a student with at least 1 hidden layer, got ", student_layers);
  RETORT_CHECK(options.until.steps >= 1,
               "[stages] expected at least 1 step in a projection stage, got ",
               options.until.steps);
  RETORT_CHECK(options.variant != ProjectionVariant::kHead || options.width >= 1,
               "[stages] expected a projection width of at least 1, got ", options.width);
  std::vector<Stage> stages;
  for (std::int64_t i = 1; i <= student_layers; ++i)
    stages.push_back({.name = join("projection ", i),
                      .loss = StageLoss::kProjection,
                      .teacher = options.projection_teacher,
                      .until = options.until,
                      .variant = options.variant,
                      .width = options.width,
                      .student_layer = i,
                      .seed = options.seed,
                      .centre = options.centre,
                      .scale = options.scale});
  stages.push_back({.name = "distill", .teacher = options.final_teacher});
  return stages;
}

std::vector<std::size_t> pick_checkpoints(std::span<const double> accuracies, double first_above,
                                          std::size_t count) {
  std::size_t first = 0;
  while (first < accuracies.size() && !(accuracies[first] > first_above)) ++first;
  std::vector<std::size_t> picked;
  if (first + 1 >= accuracies.size()) return picked;
  const std::size_t room = accuracies.size() - 1 - first;  // candidates first .. size - 2
  const std::size_t n = count < room ? count : room;
  for (std::size_t k = 0; k < n; ++k) picked.push_back(first + k * room / n);
  return picked;
}

}  // namespace retort::distill
