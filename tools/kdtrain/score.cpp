// `kdtrain score`: a recipe's curriculum without training the students.
#include <cstdio>

#include "engine/io/file.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/teachers.h"

namespace retort::tools {

int score_command(const CommandLine& line) {
  const auto recipe = checked_recipe(line);
  if (!recipe) return static_cast<int>(ErrorCode::kUsage);
  const Settings& base = recipe->base;
  const Settings* settings = &base;
  for (const Arm& arm : recipe->arms)
    if (arm.settings.text("train.order") == "curriculum") {
      settings = &arm.settings;
      break;
    }
  const std::string& weights = base.text("teacher.weights");
  RETORT_CHECK(!weights.empty(),
               "[score] expected teacher.weights=FILE, such as DIR/arms/teacher/seed1/"
               "model.safetensors of a run");
  const Device device = open_device(line.device, base);
  const ExperimentData data = open_data(base, false);
  RETORT_CHECK(!data.parity, "[score] parity draws fresh samples: there is nothing to order");
  const JobList jobs(*recipe);
  TeacherSet teacher = load_teacher_set(jobs, 0, data, device, {find_weights(base, weights), ""});
  for (const std::string& problem : teacher.problems)
    std::fprintf(stderr, "kdtrain: note: allowed untrained teacher: %s\n", problem.c_str());
  score_samples(&teacher, *data.student, device, base.integer("train.evaluate_batch"));
  const auto curriculum = make_curriculum(*settings, curriculum_name(*settings, teacher, false),
                                          teacher, *data.student);
  for (const std::string& warning : curriculum->warnings)
    std::fprintf(stderr, "kdtrain: note: %s\n", warning.c_str());
  write_file_atomically(line.out, curriculum->csv);
  std::printf("%s: %lld samples, %s\n", line.out.c_str(),
              static_cast<long long>(data.student->size()), curriculum->name.c_str());
  return 0;
}

}  // namespace retort::tools
