#include "distill/schedules/stage.h"

#include <algorithm>

namespace retort::distill {

bool Stage::partial() const {
  return std::all_of(terms.begin(), terms.end(), [](const WeightedTerm& weighted) {
    return weighted.term->of_student().layers > 0;
  });
}

std::vector<Stage> one_shot_stages(std::size_t teacher, const Terms& terms) {
  return {Stage{.name = "distill", .teachers = {teacher}, .terms = terms}};
}

std::vector<Stage> progressive_stages(std::span<const ProgressivePart> parts,
                                      std::size_t final_teacher, bool fresh_optimizer,
                                      const Terms& terms) {
  std::vector<Stage> stages;
  for (const ProgressivePart& part : parts) {
    RETORT_CHECK(part.steps >= 1, "[stages] expected at least 1 step with each checkpoint, got ",
                 part.steps);
    stages.push_back({.name = join("checkpoint ", stages.size() + 1),
                      .teachers = {part.teacher},
                      .terms = terms,
                      .until = {.steps = part.steps},
                      .fresh_optimizer = fresh_optimizer});
  }
  stages.push_back({.name = "distill",
                    .teachers = {final_teacher},
                    .terms = terms,
                    .fresh_optimizer = fresh_optimizer});
  return stages;
}

std::vector<Stage> extraction_stages(std::int64_t student_layers, const ExtractionOptions& options,
                                     const Terms& terms) {
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
                      .teachers = {options.projection_teacher},
                      .terms = {{1, std::make_shared<Projection>(ProjectionOptions{
                                        options.variant, options.width, i, options.seed,
                                        options.centre, options.scale})}},
                      .until = options.until});
  stages.push_back({.name = "distill", .teachers = {options.final_teacher}, .terms = terms});
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
