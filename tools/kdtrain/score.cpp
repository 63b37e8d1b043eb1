// `kdtrain score`: a recipe's curriculum without training the students.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "engine/io/file.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/teachers.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

// The given one, or the one that the recipe trains: in a folder beside the CSV file, which the same
// command finds again.
TeacherSet scored_teacher(const CommandLine& line, const Recipe& recipe, const Settings& settings,
                          const ExperimentData& data, Device device) {
  const JobList jobs(std::span(&recipe, 1));
  RETORT_CHECK(!jobs.models().empty() && jobs.models()[0].is_teacher,
               "[score] expected an arm that learns from the teacher");
  const std::string& given = recipe.base.text("teacher.weights");
  const std::string weights = given.empty() ? train_teacher(line, recipe, line.out + ".teacher")
                                            : find_weights(recipe.base, given);
  TeacherSet teacher = load_teacher_set(jobs, 0, 0, data, device,
                                        {weights, weights.substr(0, weights.find_last_of('/'))});
  check_teacher_set(jobs, 0, data, device, &teacher);
  for (const std::string& problem : teacher.problems)
    std::fprintf(stderr, "kdtrain: note: allowed untrained teacher: %s\n", problem.c_str());
  const Maskings maskings = maskings_of(settings);
  teacher.statistics =
      score_samples(teacher.final->model(),
                    *plain_source(*data.student, device, {teacher.reading}, maskings.in_turn_of()),
                    recipe.base.integer("train.evaluate_batch"), maskings.count);
  return teacher;
}

// Before the work that the file is for.
void check_can_be_written(const std::string& file) {
  std::error_code absent;
  RETORT_CHECK_AS(kIo, !std::filesystem::is_directory(file, absent), "[score] --out ",
                  escaped(file), " is a folder: expected the name of a file");
  const std::string folder = parent_folder(file);
  RETORT_CHECK_AS(kIo, ::faccessat(AT_FDCWD, folder.c_str(), W_OK | X_OK, AT_EACCESS) == 0,
                  "[score] cannot write ", escaped(file), ": ", std::strerror(errno));
}

}  // namespace

int score_command(const CommandLine& line) {
  const auto recipe = checked_recipe(line);
  if (!recipe) return static_cast<int>(ErrorCode::kUsage);
  const Settings& base = recipe->base;
  RETORT_CHECK(
      recipe->tasks.empty(),
      "[score] expected a recipe without tasks: a run writes the curricula of its tasks to "
      "curriculum/");
  const Settings* settings = &base;
  for (const Arm& arm : recipe->arms)
    if (has_curriculum(arm.settings)) {
      settings = &arm.settings;
      RETORT_CHECK(settings->text("curriculum.scorer") != kScorerStudent &&
                       settings->text("curriculum.scorer") != kScorerModels &&
                       arm.teachers == Teachers{"teacher"},
                   "[score] expected a curriculum by [teacher], but arm '", arm.name,
                   "' has one by its student or by another model: a run writes it to curriculum/");
      break;
    }
  check_can_be_written(line.out);
  const Device device = open_device(line.device, base);
  const ExperimentData data = open_data(base, false);
  RETORT_CHECK(!data.endless(), "[score] ", base.text("data.format"),
               " draws fresh samples: there is nothing to order");
  TeacherSet teacher;
  if (is_scored_by_teacher(*settings))
    teacher = scored_teacher(line, *recipe, *settings, data, device);
  const auto made = make_curriculum(*settings, curriculum_name(*settings), teacher.statistics,
                                    *data.student, teacher.seed);
  for (const std::string& warning : made->curriculum.warnings)
    std::fprintf(stderr, "kdtrain: note: %s\n", warning.c_str());
  if (settings->text("distill.reliance.mode") != "off") {
    const curriculum::Reliance reliance(made->curriculum.confidence, made->curriculum.order.indices,
                                        settings->integer("train.batch"),
                                        reliance_options(*settings), made->curriculum.excluded);
    for (const std::string& warning : reliance.warnings())
      std::fprintf(stderr, "kdtrain: note: %s\n", warning.c_str());
  }
  write_file_atomically(line.out, made->curriculum.csv);
  std::printf("%s: %lld samples, %s\n", line.out.c_str(),
              static_cast<long long>(data.student->size()), made->name.c_str());
  return 0;
}

}  // namespace retort::tools
