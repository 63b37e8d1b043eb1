#include "tools/kdtrain/jobs.h"

#include <algorithm>

#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

std::int64_t hidden_layers(const Settings& s) {
  const std::string& arch = s.text("student.arch");
  if (arch == "mlp") return static_cast<std::int64_t>(s.integers("student.hidden").size());
  for (const char* three_stages : {"resnet8", "resnet14", "resnet20", "resnet32", "resnet44",
                                   "resnet56", "resnet110", "resnet8x4", "resnet32x4"})
    if (arch == three_stages) return 3;
  return 4;
}

std::int64_t samples_of(const Settings& s, const ExperimentData& data, bool teacher) {
  if (data.parity) return s.integer("data.epoch_size");
  return teacher ? data.teacher->size() : data.student->size();
}

// Adds the teachers of the stages to the plan.
std::vector<distill::Stage> stages_of(const StudentJob& job, const TeacherSet& set,
                                      std::vector<std::shared_ptr<distill::Teacher>>* teachers) {
  const Settings& s = job.arm->settings;
  const std::string& method = s.text("distill.method");
  if (method == "progressive") {
    std::vector<distill::ProgressivePart> parts;
    for (const double accuracy : s.numbers("distill.progressive.accuracies")) {
      parts.push_back({teachers->size(), s.integer("distill.progressive.steps")});
      teachers->push_back(set.snapshots.at(accuracy));
    }
    return distill::progressive_stages(parts, 0, s.flag("distill.progressive.fresh_optimizer"));
  }
  if (method != "extraction") return distill::one_shot_stages();
  distill::ExtractionOptions options;
  options.variant = distill::parse_projection_variant(s.text("distill.extraction.variant"));
  options.width = s.integer("distill.extraction.width");
  options.until.steps = s.integer("distill.extraction.steps");
  options.until.window = s.integer("distill.extraction.window");
  options.until.min_improvement = s.number("distill.extraction.min_improvement");
  options.centre = s.flag("distill.extraction.centre");
  options.scale = s.flag("distill.extraction.scale");
  const std::int64_t seed = s.integer("distill.extraction.seed");
  options.seed = derive_key(seed != 0 ? seed : job.number, "projection");
  if (uses_untrained_teacher(s)) {
    options.projection_teacher = teachers->size();
    teachers->push_back(set.untrained);
  }
  return distill::extraction_stages(hidden_layers(s), options);
}

}  // namespace

bool uses_untrained_teacher(const Settings& arm) {
  return arm.text("distill.method") == "extraction" &&
         arm.text("distill.extraction.teacher") == "untrained";
}

Device open_device(const std::string& name, const Settings& settings) {
  if (name == "auto" && settings.text("data.format") == "parity") return Device::kCpu;
  const Device device = parse_device(name);
  if (device == Device::kCuda) set_allow_tf32(settings.flag("train.tf32"));
  return device;
}

JobList::JobList(const Recipe& recipe) : recipe_(recipe), base_(recipe.base) {
  for (const Arm& arm : recipe.arms) {
    const Settings& s = arm.settings;
    RETORT_CHECK(arm.name != "teacher", "[recipe] an arm may not be named 'teacher'");
    if (!uses_teacher(s)) continue;
    needs_teacher_ = true;
    wants_scores_ |= s.text("train.order") == "curriculum";
    wants_untrained_ |= uses_untrained_teacher(s);
    all_allow_ &= s.flag("teacher.allow_untrained");
    if (s.text("distill.method") == "progressive")
      for (const double accuracy : s.numbers("distill.progressive.accuracies"))
        if (std::find(snapshots_.begin(), snapshots_.end(), accuracy) == snapshots_.end())
          snapshots_.push_back(accuracy);
  }
  std::sort(snapshots_.begin(), snapshots_.end());
  trains_teacher_ = needs_teacher_ && base_.text("teacher.weights").empty();
  teacher_seeds_ = base_.integers("teacher.seeds");
  if (!trains_teacher_) teacher_seeds_.resize(1);
  for (const Arm& arm : recipe.arms)
    for (std::size_t t = 0; t < teacher_seeds_.size(); ++t)
      for (const std::int64_t seed : base_.integers("seeds"))
        students_.push_back(
            {&arm, t, seed, several_teachers() ? 100 * teacher_seeds_[t] + seed : seed});
}

void JobList::check_lengths(const ExperimentData& data) const {
  const auto check = [&](const Settings& s, const std::string& arm, const std::string& section,
                         std::int64_t samples) {
    const std::int64_t batch = s.integer(section + ".batch");
    RETORT_CHECK(batch <= samples, recipe_.place(s, section + ".batch"), ": ", arm, section,
                 ".batch = ", batch, " is larger than its ", samples, " training samples");
  };
  if (!data.parity && trains_teacher_) check(base_, "", "teacher.train", data.teacher->size());
  for (const Arm& arm : recipe_.arms) {
    if (!data.parity)
      check(arm.settings, "arm '" + arm.name + "': ", "train", data.student->size());
    check_stages(arm, data);
  }
}

void JobList::check_stages(const Arm& arm, const ExperimentData& data) const {
  const Settings& s = arm.settings;
  const std::string& method = s.text("distill.method");
  if (method == "one_shot") return;
  const bool extraction = method == "extraction";
  if (extraction && s.integer("distill.extraction.window") > 0) return;  // they may end earlier
  const std::string key = "distill." + method + ".steps";
  const std::int64_t stages =
      extraction ? hidden_layers(s)
                 : static_cast<std::int64_t>(s.numbers("distill.progressive.accuracies").size());
  const std::int64_t planned = planned_steps(s, "train", samples_of(s, data, false));
  RETORT_CHECK(stages * s.integer(key) < planned, recipe_.place(s, key), ": arm '", arm.name,
               "': ", key, " = ", s.integer(key), " in each of ", stages, " stages leaves none of ",
               planned, " steps to the final teacher's output");
}

std::int64_t JobList::teacher_steps(const ExperimentData& data) const {
  return planned_steps(base_, "teacher.train", samples_of(base_, data, true));
}

std::int64_t JobList::student_steps(const StudentJob& job, const ExperimentData& data) const {
  return planned_steps(job.arm->settings, "train", samples_of(job.arm->settings, data, false));
}

std::shared_ptr<nn::Model> JobList::fresh_teacher(std::size_t t, const ExperimentData& data) const {
  return build_model(base_, "teacher", data, derive_key(teacher_seeds_[t], "teacher"));
}

TrainingPlan JobList::teacher_plan(std::size_t t, const ExperimentData& data) const {
  TrainingPlan plan;
  plan.arm = "teacher";
  plan.seed = teacher_seeds_[t];
  plan.settings = &base_;
  plan.section = "teacher.train";
  plan.key = derive_key(plan.seed, "teacher");
  plan.model = fresh_teacher(t, data);
  plan.model_section = "teacher";
  plan.data = data.parity ? parity_stream(base_, plan.key) : data.teacher;
  plan.normalize = normalize_of(base_.value("teacher.normalize"));
  plan.stages = distill::one_shot_stages();
  plan.snapshot_accuracies = snapshots_;
  return plan;
}

TrainingPlan JobList::student_plan(const StudentJob& job, const ExperimentData& data,
                                   const TeacherSet* teacher,
                                   std::shared_ptr<const Curriculum> curriculum) const {
  const Settings& s = job.arm->settings;
  TrainingPlan plan;
  plan.arm = job.arm->name;
  plan.seed = job.number;
  plan.settings = &s;
  plan.section = "train";
  plan.key = derive_key(job.seed, "student");
  plan.model = build_model(s, "student", data, plan.key);
  plan.model_section = "student";
  plan.normalize = normalize_of(s.value("student.normalize"));
  plan.data = data.parity ? parity_stream(s, plan.key) : data.student;
  plan.teacher = teacher;
  plan.curriculum = std::move(curriculum);
  plan.stages = distill::one_shot_stages();
  if (!uses_teacher(s)) return plan;
  plan.teachers.push_back(teacher->final);
  plan.stages = stages_of(job, *teacher, &plan.teachers);
  return plan;
}

int jobs_at_once(const Settings& settings, Device device, std::size_t count) {
  const std::int64_t wanted = settings.integer("train.jobs");
  if (device != Device::kCpu || wanted == 1 || count <= 1) return 1;
  std::int64_t jobs = std::min<std::int64_t>(thread_count(), static_cast<std::int64_t>(count));
  if (wanted > 1) jobs = std::min(jobs, wanted);
  return static_cast<int>(jobs);
}

void run_jobs(std::size_t count, int at_once, const std::function<void(std::size_t)>& body) {
  if (at_once <= 1) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
  const int threads = thread_count();
  set_thread_count(at_once);
  try {
    parallel_for(static_cast<std::int64_t>(count), 1,
                 [&](std::int64_t begin, std::int64_t) { body(static_cast<std::size_t>(begin)); });
  } catch (...) {
    set_thread_count(threads);
    throw;
  }
  set_thread_count(threads);
}

}  // namespace retort::tools
