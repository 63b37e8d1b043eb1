#include "tools/kdtrain/teachers.h"

#include <algorithm>
#include <filesystem>

#include "distill/metrics/degree_one.h"
#include "distill/teacher/preflight.h"
#include "engine/io/json.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/train_loop.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

// Problems that were allowed.
std::vector<std::string> check_teacher(const distill::Teacher& teacher,
                                       const nn::Normalize& normalize, const ExperimentData& data,
                                       Device device, bool allow) {
  const nn::Dataset& source = *data.evaluation.front().data;
  const std::int64_t count = std::min<std::int64_t>(source.size(), 512);
  nn::BatchOptions options;
  options.device = device;
  options.normalize = normalize;
  const nn::Batch batch = source.make_batch(nn::sequential_plan(count, count)(0), options);
  return distill::preflight(teacher, batch.inputs, batch.targets, data.classes, allow).problems;
}

}  // namespace

// Arms with one seed see the same (sample, augmentation) pairs, so a cache saves all but the first
// of them the teacher's pass. The bits of a row do not depend on which job asked first.
std::shared_ptr<distill::LogitCache> make_cache(const Settings& settings,
                                                const ExperimentData& data, Device device,
                                                const distill::Teacher& teacher) {
  const std::string& mode = settings.text("teacher.cache");
  if (data.parity || mode == "off" || (mode == "auto" && device != Device::kCpu)) return nullptr;
  const auto bytes = static_cast<std::uint64_t>(settings.number("teacher.cache_mib") * 1048576);
  return std::make_shared<distill::LogitCache>(
      distill::LogitCacheKey{nn::hex(data.student->hash()), teacher.hash(), data.classes}, bytes);
}

std::shared_ptr<distill::Teacher> load_teacher(const Settings& settings,
                                               std::shared_ptr<nn::Model> model,
                                               const std::string& file, const std::string& name,
                                               Device device, nn::Normalize* normalize) {
  const nn::WeightsInfo info = nn::load_weights(*model, file);
  if (const auto at = info.metadata.find("normalize");
      at != info.metadata.end() && settings.is_default("teacher.normalize"))
    *normalize = normalize_of_text(at->second);
  model->to(device);
  return std::make_shared<distill::Teacher>(std::move(model), name);
}

TeacherSet load_teacher_set(const JobList& jobs, std::size_t t, const ExperimentData& data,
                            Device device, const TeacherFiles& files) {
  const Settings& base = jobs.settings();
  TeacherSet set;
  set.seed = jobs.teacher_seeds()[t];
  set.normalize = normalize_of(base.value("teacher.normalize"));
  set.dtype = precision_of(base, "teacher.precision");
  const auto load = [&](const std::string& file, const std::string& name) {
    return load_teacher(base, jobs.fresh_teacher(t, data), file, name, device, &set.normalize);
  };
  set.final = load(files.final, "teacher");
  if (jobs.trains_teacher())
    for (const double accuracy : jobs.snapshot_accuracies()) {
      const std::string file = files.snapshots + "/" + snapshot_file(accuracy);
      RETORT_CHECK(std::filesystem::exists(file), "[progressive] no checkpoint of teacher ",
                   set.seed, " exceeds the accuracy ", accuracy,
                   ": lower distill.progressive.accuracies or teacher.train.checkpoint_steps");
      set.snapshots[accuracy] = load(file, snapshot_file(accuracy));
    }
  if (jobs.wants_untrained()) {
    std::shared_ptr<nn::Model> model = jobs.fresh_teacher(t, data);
    model->to(device);
    set.untrained = std::make_shared<distill::Teacher>(std::move(model), "untrained");
  }
  set.problems = check_teacher(*set.final, set.normalize, data, device, jobs.all_allow_untrained());
  return set;
}

void measure_teacher(const JobList& jobs, const ExperimentData& data, Device device,
                     TeacherSet* set) {
  const Settings& base = jobs.settings();
  const std::int64_t batch = base.integer("train.evaluate_batch");
  for (const EvaluationSet& evaluation : data.evaluation) {
    set->evaluation_logits.emplace_back();
    EvaluationRequest request{device,         set->dtype, batch,
                              set->normalize, nullptr,    &set->evaluation_logits.back()};
    set->evaluation.push_back(evaluate(set->final->model(), *evaluation.data, request));
  }
  if (jobs.wants_scores()) score_samples(set, *data.student, device, batch);
  if (auto cache = make_cache(base, data, device, *set->final))
    set->final->use_cache(std::move(cache));
}

std::vector<std::string> notes_of_arm(const Arm& arm, const TeacherSet& set,
                                      const ExperimentData& data, Device device) {
  if (!uses_teacher(arm.settings)) return {};
  std::vector<std::string> notes = set.problems;
  if (uses_untrained_teacher(arm.settings))
    for (std::string& problem : check_teacher(*set.untrained, set.normalize, data, device,
                                              arm.settings.flag("teacher.allow_untrained")))
      notes.push_back(std::move(problem));
  return notes;
}

void log_given_teacher(const TeacherSet& set, const ExperimentData& data,
                       const std::map<std::string, double>& more_metrics, double seconds,
                       MetricsLog* log, std::size_t log_job) {
  Json last = Json::object();
  last.set("arm", "teacher").set("seed", set.seed).set("step", 0).set("split", "final");
  for (std::size_t i = 0; i < data.evaluation.size(); ++i) {
    const std::string& name = data.evaluation[i].name;
    const distill::EvaluationResult& r = set.evaluation[i];
    Json line = Json::object();
    line.set("arm", "teacher").set("seed", set.seed).set("epoch", 0).set("step", 0);
    line.set("split", name).set("loss", r.loss).set("loss_ce", r.loss).set("loss_kd", 0.0);
    line.set("lambda", 0.0).set("temperature", 1.0).set("lr", 0.0).set("accuracy", r.accuracy);
    line.set("samples_per_s", 0).set("calibration_error", r.calibration_error);
    log->write(log_job, line.dump());
    last.set(name + ".accuracy", r.accuracy).set(name + ".loss", r.loss);
  }
  for (const auto& [name, value] : more_metrics) last.set(name, value);
  last.set("parameters", set.final->model().parameter_count()).set("wall_s", seconds);
  log->write(log_job, last.dump());
  log->finish(log_job);
}

std::map<std::string, double> probe_teacher(const std::shared_ptr<nn::Model>& trained,
                                            const std::shared_ptr<nn::Model>& untrained,
                                            const Settings& settings, const ExperimentData& data,
                                            Device device) {
  const auto source = parity_stream(settings, derive_key(0, "probe"));
  const auto inputs = [&](std::int64_t first, std::int64_t count) {
    std::vector<std::int64_t> samples;
    for (std::int64_t i = first; i < first + count; ++i) samples.push_back(i);
    nn::BatchOptions options;
    options.device = device;
    return source->make_batch(samples, options).inputs;
  };
  untrained->to(device);
  const bool training = trained->training();
  const auto result = distill::degree_one_probe(distill::Teacher(trained), inputs, data.support);
  const auto before = distill::degree_one_probe(distill::Teacher(untrained), inputs, data.support);
  trained->requires_grad(true);
  trained->train(training);
  return {{"probe.degree1_ratio", result.ratio}, {"probe.untrained_ratio", before.ratio}};
}

}  // namespace retort::tools
