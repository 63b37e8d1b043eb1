// `kdtrain run` and `score`: data, teachers, curricula, then arms x seeds.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "distill/metrics/degree_one.h"
#include "distill/teacher/preflight.h"
#include "engine/autograd/autograd.h"
#include "engine/io/json.h"
#include "engine/runtime/device.h"
#include "kernels/common/parallel.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/train_loop.h"
#include "tools/report/report.h"

namespace retort::tools {
namespace {

bool uses_teacher(const Settings& s) {
  return s.number("distill.lambda") != 0 || s.text("distill.reliance.mode") != "off" ||
         s.text("distill.method") != "one_shot" || s.text("train.order") == "curriculum";
}

RecipeResult checked_recipe(const CommandLine& line, RecipeText* text) {
  *text = find_recipe(line.subject.empty() ? embedded_recipes().front().name : line.subject);
  RecipeResult result = parse_recipe(text->source, text->text, line.words);
  for (const std::string& warning : result.warnings)
    std::fprintf(stderr, "kdtrain: note: %s\n", warning.c_str());
  if (!result.problems.empty()) std::fputs(format_problems(result, text->text).c_str(), stderr);
  return result;
}

// Text of a seed's number where every teacher meets every student.
std::int64_t pair_seed(std::int64_t teacher, std::int64_t student, bool several_teachers) {
  return several_teachers ? 100 * teacher + student : student;
}

// auto takes the GPU where there is one, but not for parity: its networks are so small that the
// time to launch a kernel would be all.
Device device_for(const std::string& name, const Settings& settings) {
  if (name == "auto" && settings.text("data.format") == "parity") return Device::kCpu;
  return parse_device(name);
}

class Run {
 public:
  Run(const CommandLine& line, const Recipe& recipe)
      : recipe_(recipe),
        base_(recipe.base),
        device_(device_for(line.device, recipe.base)),
        folder_(line.out.empty() ? "runs/" + recipe.name : line.out, recipe, line.resume),
        log_(folder_.file("metrics.jsonl")) {
    for (const Arm& arm : recipe_.arms) needs_teacher_ |= uses_teacher(arm.settings);
    trains_teacher_ = needs_teacher_ && base_.text("teacher.weights").empty();
    teacher_seeds_ = base_.integers("teacher.seeds");
    if (!trains_teacher_) teacher_seeds_.resize(1);
    several_ = teacher_seeds_.size() > 1;
  }

  // Returns the signal that stopped the run, or 0.
  int run() {
    check_names();
    data_ = open_data(base_, trains_teacher_);
    check_batches();
    std::string weights;
    if (needs_teacher_ && !trains_teacher_)
      weights = find_weights(base_, base_.text("teacher.weights"));
    folder_.start(recipe_);
    context_.recipe = &recipe_;
    context_.data = &data_;
    context_.folder = &folder_;
    context_.log = &log_;
    context_.progress = &progress_;
    context_.device = device_;
    list_jobs();
    if (needs_teacher_ && !run_teachers(weights)) return stopped();
    if (!run_students()) return stopped();
    return 0;
  }

  const std::string& path() const { return folder_.path(); }

 private:
  struct StudentJob {
    const Arm* arm;
    std::size_t teacher;  // index of teacher_seeds_
    std::int64_t seed;    // the student's
    std::int64_t number;  // as logged
    std::size_t log_job;
    bool finished;
  };

  void check_names() const {
    for (const Arm& arm : recipe_.arms)
      RETORT_CHECK(arm.name != "teacher", "[recipe] an arm may not be named 'teacher'");
  }

  void check_batches() const {
    if (data_.parity) return;
    const auto check = [&](const std::string& where, std::int64_t batch, std::int64_t samples) {
      RETORT_CHECK(batch <= samples, "[recipe] ", where, ".batch = ", batch, " is larger than its ",
                   samples, " training samples");
    };
    if (trains_teacher_)
      check("teacher.train", base_.integer("teacher.train.batch"), data_.teacher->size());
    for (const Arm& arm : recipe_.arms)
      check("arm '" + arm.name + "': train", arm.settings.integer("train.batch"),
            data_.student->size());
  }

  std::size_t add_job(const std::string& arm, std::int64_t seed, bool* finished) {
    std::optional<JobState> state;
    if (folder_.resuming()) state = read_job_state(folder_.arm_folder(arm, seed));
    *finished = state && state->finished;
    return log_.add_job(state ? state->lines : "", *finished);
  }

  void list_jobs() {
    double steps = 0;
    if (needs_teacher_)
      for (const std::int64_t seed : teacher_seeds_) {
        bool finished = false;
        teacher_jobs_.push_back(trains_teacher_ ? add_job("teacher", seed, &finished)
                                                : log_.add_job("", false));
        if (trains_teacher_)
          steps += static_cast<double>(planned_steps(
              base_, "teacher.train",
              data_.parity ? base_.integer("data.epoch_size") : data_.teacher->size()));
      }
    for (const Arm& arm : recipe_.arms)
      for (std::size_t t = 0; t < teacher_seeds_.size(); ++t)
        for (const std::int64_t seed : base_.integers("seeds")) {
          StudentJob job{&arm, t, seed, pair_seed(teacher_seeds_[t], seed, several_), 0, false};
          job.log_job = add_job(arm.name, job.number, &job.finished);
          jobs_.push_back(job);
          steps += static_cast<double>(student_steps(arm.settings));
        }
    log_.open();
    progress_.set_total(static_cast<std::int64_t>(jobs_.size() + teacher_jobs_.size()), steps);
    std::fprintf(stderr, "%s: %s on %s, %zu arm%s x %zu run%s, folder %s%s\n", recipe_.name.c_str(),
                 data_.description.c_str(), name_of(device_), recipe_.arms.size(),
                 recipe_.arms.size() == 1 ? "" : "s", jobs_.size() / recipe_.arms.size(),
                 jobs_.size() == recipe_.arms.size() ? "" : "s", folder_.path().c_str(),
                 folder_.resuming() ? " (resumed)" : "");
  }

  std::int64_t student_steps(const Settings& s) const {
    return planned_steps(s, "train",
                         data_.parity ? s.integer("data.epoch_size") : data_.student->size());
  }

  // Runs body(i) for i < n: side by side on the CPU, each on one thread, or one after the other.
  template <class Body>
  void for_each_job(std::size_t n, const Body& body) {
    const std::int64_t wanted = base_.integer("train.jobs");
    const auto count = static_cast<std::int64_t>(n);
    const auto guarded = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) try {
          body(static_cast<std::size_t>(i));
        } catch (...) {
          context_.abort = true;  // the other jobs stop at a checkpoint
          throw;
        }
    };
    const bool side_by_side =
        device_ == Device::kCpu && wanted != 1 && count > 1 && thread_count() > 1;
    if (!side_by_side) {
      for (std::int64_t i = 0; i < count; ++i) guarded(i, i + 1);
      return;
    }
    const int threads = thread_count();
    if (wanted > 1) set_thread_count(static_cast<int>(std::min<std::int64_t>(wanted, threads)));
    try {
      parallel_for(count, 1, guarded);
    } catch (...) {
      set_thread_count(threads);
      throw;
    }
    set_thread_count(threads);
  }

  int stopped() {
    const int signal = stop_requested();
    return signal == 0 ? -1 : signal;
  }

  // -- teachers -----------------------------------------------------------------------------------
  bool run_teachers(const std::string& weights) {
    teachers_.resize(teacher_seeds_.size());
    std::atomic<bool> complete = true;
    if (trains_teacher_)
      for_each_job(teachers_.size(), [&](std::size_t t) {
        if (!train_teacher(t)) complete = false;
      });
    if (!complete) return false;
    for (std::size_t t = 0; t < teachers_.size(); ++t) {
      if (stop_requested() != 0) return false;
      prepare_teacher(t, weights);
    }
    return true;
  }

  std::shared_ptr<nn::Model> fresh_teacher(std::size_t t) const {
    return build_model(base_, "teacher", data_, derive_key(teacher_seeds_[t], "teacher"));
  }

  std::vector<double> snapshot_accuracies() const {
    std::vector<double> all;
    for (const Arm& arm : recipe_.arms)
      if (arm.settings.text("distill.method") == "progressive")
        for (const double accuracy : arm.settings.numbers("distill.progressive.accuracies"))
          if (std::find(all.begin(), all.end(), accuracy) == all.end()) all.push_back(accuracy);
    std::sort(all.begin(), all.end());
    return all;
  }

  bool train_teacher(std::size_t t) {
    TrainingPlan plan;
    plan.arm = "teacher";
    plan.seed = teacher_seeds_[t];
    plan.settings = &base_;
    plan.section = "teacher.train";
    plan.key = derive_key(plan.seed, "teacher");
    plan.model = fresh_teacher(t);
    plan.model_section = "teacher";
    plan.data = data_.parity ? parity_stream(base_, plan.key) : data_.teacher;
    plan.normalize = normalize_of(base_.value("teacher.normalize"));
    plan.stages = distill::one_shot_stages();
    plan.snapshot_accuracies = snapshot_accuracies();
    if (base_.flag("train.probe") && data_.parity)
      plan.final_metrics = [this, t](const std::shared_ptr<nn::Model>& model) {
        return probe(model, fresh_teacher(t));
      };
    const Outcome outcome = run_job(context_, plan, teacher_jobs_[t]);
    if (outcome == Outcome::kFinished) {
      log_.finish(teacher_jobs_[t]);
      progress_.finish(
          "teacher/" + std::to_string(plan.seed),
          planned_steps(base_, "teacher.train",
                        data_.parity ? base_.integer("data.epoch_size") : data_.teacher->size()));
    }
    return outcome == Outcome::kFinished;
  }

  std::map<std::string, double> probe(const std::shared_ptr<nn::Model>& trained,
                                      const std::shared_ptr<nn::Model>& untrained) const {
    const auto source = parity_stream(base_, derive_key(0, "probe"));
    const auto inputs = [&](std::int64_t first, std::int64_t count) {
      std::vector<std::int64_t> samples;
      for (std::int64_t i = first; i < first + count; ++i) samples.push_back(i);
      nn::BatchOptions options;
      options.device = device_;
      return source->make_batch(samples, options).inputs;
    };
    untrained->to(device_);
    const bool training = trained->training();
    const auto result = distill::degree_one_probe(distill::Teacher(trained), inputs, data_.support);
    const auto before =
        distill::degree_one_probe(distill::Teacher(untrained), inputs, data_.support);
    trained->requires_grad(true);
    trained->train(training);
    return {{"probe.degree1_ratio", result.ratio}, {"probe.untrained_ratio", before.ratio}};
  }

  void prepare_teacher(std::size_t t, const std::string& weights) {
    TeacherSet& set = teachers_[t];
    set.seed = teacher_seeds_[t];
    set.normalize = normalize_of(base_.value("teacher.normalize"));
    if (base_.text("teacher.precision") == "bf16") set.dtype = DType::kBF16;
    const std::string folder = folder_.arm_folder("teacher", set.seed);
    const auto start = std::chrono::steady_clock::now();
    const auto load = [&](const std::string& file, const std::string& name) {
      std::shared_ptr<nn::Model> model = fresh_teacher(t);
      const nn::WeightsInfo info = nn::load_weights(*model, file);
      if (const auto at = info.metadata.find("normalize");
          at != info.metadata.end() && base_.is_default("teacher.normalize"))
        set.normalize = normalize_of_text(at->second);
      model->to(device_);
      return std::make_shared<distill::Teacher>(model, name);
    };
    set.final = load(trains_teacher_ ? folder + "/model.safetensors" : weights, "teacher");
    for (const double accuracy : trains_teacher_ ? snapshot_accuracies() : std::vector<double>{}) {
      const std::string file = folder + "/" + snapshot_file(accuracy);
      RETORT_CHECK(std::filesystem::exists(file), "[progressive] no checkpoint of teacher ",
                   set.seed, " exceeds the accuracy ", accuracy,
                   ": lower distill.progressive.accuracies or teacher.train.checkpoint_steps");
      set.snapshots[accuracy] = load(file, snapshot_file(accuracy));
    }
    bool wants_untrained = false, wants_scores = false, all_allow = true;
    for (const Arm& arm : recipe_.arms) {
      const Settings& s = arm.settings;
      if (!uses_teacher(s)) continue;
      wants_untrained |= s.text("distill.method") == "extraction" &&
                         s.text("distill.extraction.teacher") == "untrained";
      wants_scores |= s.text("train.order") == "curriculum";
      all_allow &= s.flag("teacher.allow_untrained");
    }
    if (wants_untrained) {
      std::shared_ptr<nn::Model> model = fresh_teacher(t);
      model->to(device_);
      set.untrained = std::make_shared<distill::Teacher>(model, "untrained");
    }
    check_teacher(*set.final, set.normalize, all_allow);
    if (wants_untrained)
      for (const Arm& arm : recipe_.arms)
        if (arm.settings.text("distill.method") == "extraction" &&
            arm.settings.text("distill.extraction.teacher") == "untrained")
          arm_notes_[arm.name] = check_teacher(*set.untrained, set.normalize,
                                               arm.settings.flag("teacher.allow_untrained"));

    const std::int64_t batch = base_.integer("train.evaluate_batch");
    for (const EvaluationSet& evaluation : data_.evaluation) {
      set.evaluation_logits.emplace_back();
      EvaluationRequest request{device_,       set.dtype, batch,
                                set.normalize, nullptr,   &set.evaluation_logits.back()};
      set.evaluation.push_back(evaluate(set.final->model(), *evaluation.data, request));
    }
    if (!trains_teacher_) log_given_teacher(t, start);
    if (wants_scores) score_samples(&set, *data_.student, device_, batch);
    use_cache(&set);
  }

  // Notes for the report, if problems were allowed.
  std::vector<std::string> check_teacher(const distill::Teacher& teacher,
                                         const nn::Normalize& normalize, bool allow) const {
    const auto& source = *data_.evaluation.front().data;
    std::vector<std::int64_t> samples;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(source.size(), 512); ++i)
      samples.push_back(i);
    nn::BatchOptions options;
    options.device = device_;
    options.normalize = normalize;
    const nn::Batch batch = source.make_batch(samples, options);
    const auto report =
        distill::preflight(teacher, batch.inputs, batch.targets, data_.classes, allow);
    return report.problems;
  }

  // Lines of a teacher that came from a file.
  void log_given_teacher(std::size_t t, std::chrono::steady_clock::time_point start) {
    const TeacherSet& set = teachers_[t];
    Json last = Json::object();
    last.set("arm", "teacher").set("seed", set.seed).set("step", 0).set("split", "final");
    for (std::size_t i = 0; i < data_.evaluation.size(); ++i) {
      const std::string& name = data_.evaluation[i].name;
      const distill::EvaluationResult& r = set.evaluation[i];
      Json line = Json::object();
      line.set("arm", "teacher").set("seed", set.seed).set("epoch", 0).set("step", 0);
      line.set("split", name).set("loss", r.loss).set("loss_ce", r.loss).set("loss_kd", 0.0);
      line.set("lambda", 0.0).set("temperature", 1.0).set("lr", 0.0).set("accuracy", r.accuracy);
      line.set("samples_per_s", 0).set("calibration_error", r.calibration_error);
      log_.write(teacher_jobs_[t], line.dump());
      last.set(name + ".accuracy", r.accuracy).set(name + ".loss", r.loss);
    }
    if (base_.flag("train.probe") && data_.parity)
      for (const auto& [name, value] : probe(fresh_copy(set), fresh_teacher(t)))
        last.set(name, value);
    last.set("parameters", set.final->model().parameter_count());
    last.set("wall_s",
             std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    log_.write(teacher_jobs_[t], last.dump());
    log_.finish(teacher_jobs_[t]);
  }

  std::shared_ptr<nn::Model> fresh_copy(const TeacherSet& set) const {
    std::shared_ptr<nn::Model> model = build_model(base_, "teacher", data_, 0);
    const auto from = set.final->model().named_parameters();
    const auto to = model->named_parameters();
    for (std::size_t i = 0; i < to.size(); ++i) to[i].second.copy_from(from[i].second);
    model->to(device_);
    return model;
  }

  // Arms with one seed see the same (sample, augmentation) pairs, so a cache saves all but the
  // first of them the teacher's pass. The bits of a row do not depend on which job asked first.
  void use_cache(TeacherSet* set) const {
    const std::string& mode = base_.text("teacher.cache");
    if (data_.parity || mode == "off" || (mode == "auto" && device_ != Device::kCpu)) return;
    const auto bytes = static_cast<std::uint64_t>(base_.number("teacher.cache_mib") * 1048576);
    set->final->use_cache(std::make_shared<distill::LogitCache>(
        distill::LogitCacheKey{nn::hex(data_.student->hash()), set->final->hash(), data_.classes},
        bytes));
  }

  // -- students -----------------------------------------------------------------------------------
  std::shared_ptr<const Curriculum> curriculum_for(const Arm& arm, std::size_t t) {
    if (arm.settings.text("train.order") != "curriculum") return nullptr;
    const std::string name = curriculum_name(arm.settings, teachers_[t], several_);
    auto& slot = curricula_[name];
    if (!slot) {
      slot = make_curriculum(arm.settings, name, teachers_[t], *data_.student);
      make_folders(folder_.file("curriculum"));
      write_file_atomically(folder_.file("curriculum/" + name + ".csv"), slot->csv);
    }
    return slot;
  }

  bool run_students() {
    for (const Arm& arm : recipe_.arms)
      for (std::size_t t = 0; t < teacher_seeds_.size(); ++t) curriculum_for(arm, t);
    std::atomic<bool> complete = true;
    for_each_job(jobs_.size(), [&](std::size_t i) {
      if (!run_student(jobs_[i])) complete = false;
    });
    return complete;
  }

  bool run_student(const StudentJob& job) {
    const std::string title = job.arm->name + "/" + std::to_string(job.number);
    const Settings& s = job.arm->settings;
    if (!job.finished) {
      if (stop_requested() != 0 || context_.abort) return false;
      const TrainingPlan plan = student_plan(job);
      if (run_job(context_, plan, job.log_job) != Outcome::kFinished) return false;
      log_.finish(job.log_job);
      write_report_quietly();
    }
    progress_.finish(title, student_steps(s));
    return true;
  }

  TrainingPlan student_plan(const StudentJob& job) {
    const Settings& s = job.arm->settings;
    TrainingPlan plan;
    plan.arm = job.arm->name;
    plan.seed = job.number;
    plan.settings = &s;
    plan.section = "train";
    plan.key = derive_key(job.seed, "student");
    plan.model = build_model(s, "student", data_, plan.key);
    plan.model_section = "student";
    plan.normalize = normalize_of(s.value("student.normalize"));
    if (const std::string& weights = s.text("student.weights"); !weights.empty())
      nn::load_weights(*plan.model, find_weights(base_, weights));
    plan.data = data_.parity ? parity_stream(s, plan.key) : data_.student;
    plan.stages = distill::one_shot_stages();
    if (needs_teacher_) plan.teacher = &teachers_[job.teacher];
    if (!uses_teacher(s)) return plan;
    const TeacherSet& set = teachers_[job.teacher];
    plan.teachers.push_back(set.final);
    if (const auto at = arm_notes_.find(plan.arm); at != arm_notes_.end())
      for (const std::string& problem : at->second)
        plan.notes.push_back("allowed untrained teacher: " + problem);
    {
      const std::lock_guard lock(mutex_);
      plan.curriculum = curriculum_for(*job.arm, job.teacher);
    }
    if (plan.curriculum)
      plan.notes.insert(plan.notes.end(), plan.curriculum->warnings.begin(),
                        plan.curriculum->warnings.end());
    const std::string& method = s.text("distill.method");
    if (method == "progressive") {
      std::vector<distill::ProgressivePart> parts;
      for (const double accuracy : s.numbers("distill.progressive.accuracies")) {
        parts.push_back({plan.teachers.size(), s.integer("distill.progressive.steps")});
        plan.teachers.push_back(set.snapshots.at(accuracy));
      }
      plan.stages = distill::progressive_stages(parts, 0);
    } else if (method == "extraction") {
      distill::ExtractionOptions options;
      options.variant = distill::parse_projection_variant(s.text("distill.extraction.variant"));
      options.width = s.integer("distill.extraction.width");
      options.until.steps = s.integer("distill.extraction.steps");
      const std::int64_t seed = s.integer("distill.extraction.seed");
      options.seed = derive_key(seed != 0 ? seed : job.number, "projection");
      if (s.text("distill.extraction.teacher") == "untrained") {
        options.projection_teacher = plan.teachers.size();
        plan.teachers.push_back(set.untrained);
      }
      plan.stages = distill::extraction_stages(hidden_layers(s), options);
    }
    return plan;
  }

  static std::int64_t hidden_layers(const Settings& s) {
    const std::string& arch = s.text("student.arch");
    if (arch == "mlp") return static_cast<std::int64_t>(s.integers("student.hidden").size());
    for (const char* three_stages : {"resnet8", "resnet14", "resnet20", "resnet32", "resnet44",
                                     "resnet56", "resnet110", "resnet8x4", "resnet32x4"})
      if (arch == three_stages) return 3;
    return 4;
  }

  void write_report_quietly() {
    if (data_.parity) return;  // many short jobs: once at the end
    const std::lock_guard lock(mutex_);
    write_report(folder_.path());
  }

  const Recipe& recipe_;
  const Settings& base_;
  Device device_;
  RunFolder folder_;
  MetricsLog log_;
  Progress progress_;
  RunContext context_;
  ExperimentData data_;
  bool needs_teacher_ = false, trains_teacher_ = false, several_ = false;
  std::vector<std::int64_t> teacher_seeds_;
  std::vector<std::size_t> teacher_jobs_;
  std::vector<TeacherSet> teachers_;
  std::vector<StudentJob> jobs_;
  std::map<std::string, std::shared_ptr<const Curriculum>> curricula_;
  std::map<std::string, std::vector<std::string>> arm_notes_;
  std::mutex mutex_;
};

}  // namespace

int run_command(const CommandLine& line) {
  RecipeText text;
  const RecipeResult result = checked_recipe(line, &text);
  if (!result.problems.empty()) return static_cast<int>(ErrorCode::kUsage);
  install_signal_handlers();
  Run run(line, result.recipe);
  int signal = 0;
  try {
    signal = run.run();
  } catch (...) {
    try {
      write_report(run.path());  // of what there is; the failure itself is what counts
    } catch (const Error&) {
    }
    throw;
  }
  write_report(run.path());
  if (signal != 0) {
    std::string again = "kdtrain run";
    if (!line.subject.empty()) again += " " + line.subject;
    for (const std::string& word : line.words) again += " '" + word + "'";
    std::fprintf(stderr, "stopped by %s after a checkpoint; to go on:\n  %s --out %s --resume\n",
                 signal == 2 ? "SIGINT" : "SIGTERM", again.c_str(), run.path().c_str());
    return 128 + signal;
  }
  std::fputs(results_table(run.path()).c_str(), stdout);
  std::printf("%s/report.html\n", run.path().c_str());
  return 0;
}

int score_command(const CommandLine& line) {
  RecipeText text;
  const RecipeResult result = checked_recipe(line, &text);
  if (!result.problems.empty()) return static_cast<int>(ErrorCode::kUsage);
  const Recipe& recipe = result.recipe;
  const Settings* settings = &recipe.base;
  for (const Arm& arm : recipe.arms)
    if (arm.settings.text("train.order") == "curriculum") {
      settings = &arm.settings;
      break;
    }
  const std::string& weights = recipe.base.text("teacher.weights");
  RETORT_CHECK(!weights.empty(),
               "[score] expected teacher.weights=FILE, such as DIR/arms/teacher/seed1/"
               "model.safetensors of a run");
  const Device device = parse_device(line.device);
  const ExperimentData data = open_data(recipe.base, false);
  RETORT_CHECK(!data.parity, "[score] parity draws fresh samples: there is nothing to order");
  TeacherSet teacher;
  teacher.normalize = normalize_of(recipe.base.value("teacher.normalize"));
  std::shared_ptr<nn::Model> model = build_model(recipe.base, "teacher", data, 0);
  const nn::WeightsInfo info = nn::load_weights(*model, find_weights(recipe.base, weights));
  if (const auto at = info.metadata.find("normalize");
      at != info.metadata.end() && recipe.base.is_default("teacher.normalize"))
    teacher.normalize = normalize_of_text(at->second);
  model->to(device);
  teacher.final = std::make_shared<distill::Teacher>(model);
  score_samples(&teacher, *data.student, device, recipe.base.integer("train.evaluate_batch"));
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
