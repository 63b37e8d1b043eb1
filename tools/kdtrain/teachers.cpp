#include "tools/kdtrain/teachers.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <optional>

#include "distill/metrics/degree_one.h"
#include "distill/teacher/preflight.h"
#include "distill/teacher/share_logits.h"
#include "engine/io/json.h"
#include "engine/ops/linear.h"
#include "nn/checkpoint/weights.h"
#include "nn/data/drawn.h"
#include "nn/data/parity.h"
#include "tools/kdtrain/job_state.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/ranks.h"

namespace retort::tools {
namespace {

constexpr std::int64_t kPreflightSamples = 512;
constexpr std::int64_t kPreflightTexts = 32;  // whose rows are many, and as wide as a vocabulary

bool has_rows_of_words(const nn::DataFacts& data) {
  return data.task == nn::TextTask::kMaskedLm || data.task == nn::TextTask::kCausalLm;
}

// Problems that were allowed.
std::vector<std::string> check_teacher(const distill::Teacher& teacher, const nn::Reading& reading,
                                       const ExperimentData& data, Device device, bool allow,
                                       const Once& once) {
  const std::string told = once([&] {
    nn::Reading plain = reading;
    plain.dtype = DType::kF32;
    const auto source = plain_source(*data.evaluation.front().data, device, {plain});
    const nn::Batch batch = source->make(nn::drawn_samples(
        data.evaluation.front().data->size(),
        has_rows_of_words(data.facts()) ? kPreflightTexts : kPreflightSamples, 0, "preflight"));
    Json list = Json::array();
    for (const std::string& problem :
         distill::preflight(teacher, batch, data.facts().classes, allow).problems)
      list.push(problem);
    return list.dump();
  });
  const Json list = Json::parse(told, "preflight");
  std::vector<std::string> problems;
  for (const Json& problem : list.items()) problems.push_back(problem.as_string());
  return problems;
}

std::shared_ptr<distill::Teacher> teacher_of(std::shared_ptr<nn::Model> model,
                                             const std::string& name, Device device) {
  model->to(device);
  return std::make_shared<distill::Teacher>(std::move(model), name);
}

bool is_text(const ExperimentData& data) { return data.facts().gives == nn::Reads::kTokens; }

}  // namespace

bool keeps_answers(const Settings& settings, const ExperimentData& data, const TeacherSet& set) {
  const std::string& mode = settings.text("teacher.cache");
  return mode == "on" || (mode == "auto" && (!has_rows_of_words(data.facts()) || set.asked_again));
}

// Arms with one seed see the same (sample, variant) pairs, so a cache saves all but the first of
// them the teacher's pass. The bits of a row do not depend on which job asked first.
std::shared_ptr<distill::LogitCache> make_cache(const Settings& settings,
                                                const ExperimentData& data, Device device,
                                                const TeacherSet& set) {
  const std::string& mode = settings.text("teacher.cache");
  if (data.endless() || (mode != "on" && device != Device::kCpu)) return nullptr;
  if (is_text(data) && device != Device::kCpu) return nullptr;
  const bool words = has_rows_of_words(data.facts());
  const nn::Head head = set.final->model().head();
  if (words && !head.defined()) return nullptr;
  // "off" keeps nothing, but asks the teacher in the same passes: a knob of memory changes no byte.
  const auto bytes =
      keeps_answers(settings, data, set)
          ? static_cast<std::uint64_t>(settings.number("teacher.cache_mib") * 1048576)
          : 0;
  return std::make_shared<distill::LogitCache>(
      distill::LogitCacheKey{nn::hex(data.student->hash()), set.final->hash(),
                             words ? head.weight.dim(1) : data.facts().classes, set.reading.str(),
                             words ? distill::CachedRows::kFeatures : distill::CachedRows::kLogits},
      bytes);
}

TeacherSet fresh_teacher_set(const JobList& jobs, std::size_t model, std::size_t t,
                             const ExperimentData& data, Device device) {
  const SourceModel& m = jobs.models()[model];
  TeacherSet set;
  set.model = m.name;
  set.seed = jobs.teacher_seeds()[t];
  set.asked_again = !data.facts().redrawn || jobs.recipe().arms.size() > 1;
  set.reading = reading_of(*m.settings, m.section(), *data.kind,
                           precision_of(jobs.settings(), "teacher.precision"));
  const auto fresh = [&](const std::string& name) {
    return teacher_of(jobs.fresh_model(model, t, data), name, device);
  };
  set.final = fresh(m.name);
  for (const SnapshotRule& rule : jobs.snapshots_of(model))
    set.snapshots[rule.name()] = fresh(rule.name());
  if (jobs.wants_untrained(model)) set.untrained = fresh("untrained");
  return set;
}

TeacherSet load_teacher_set(const JobList& jobs, std::size_t model, std::size_t t,
                            const ExperimentData& data, Device device, const TeacherFiles& files) {
  const SourceModel& m = jobs.models()[model];
  TeacherSet set;
  set.model = m.name;
  set.seed = jobs.teacher_seeds()[t];
  set.asked_again = !data.facts().redrawn || jobs.recipe().arms.size() > 1;
  set.reading = reading_of(*m.settings, m.section(), *data.kind,
                           precision_of(jobs.settings(), "teacher.precision"));
  const auto load = [&](const std::string& file, const std::string& name) {
    std::shared_ptr<nn::Model> fresh = jobs.fresh_model(model, t, data);
    const nn::WeightsInfo info = nn::load_weights(*fresh, file);
    if (const std::string told = told_of_drawn(info); !told.empty() && prints())
      std::fprintf(stderr, "kdtrain: note: %s: %s\n", name.c_str(), told.c_str());
    take_metadata(info.metadata, *m.settings, m.section(), *data.kind, &set.reading);
    return teacher_of(std::move(fresh), name, device);
  };
  if (!m.given) check_job_file(files.folder, kJobWeights);
  set.final = load(files.final, m.name);
  if (!m.given)
    for (const SnapshotRule& rule : jobs.snapshots_of(model)) {
      const std::string name = rule.name() + ".safetensors", file = files.folder + "/" + name;
      // A file that no list names is no moment that never came, but one whose list is lost.
      RETORT_CHECK(std::filesystem::exists(file) || FileManifest(files.folder).knows(name),
                   "[progressive] no checkpoint of ", m.name, " ", set.seed,
                   rule.step > 0 ? join(" was taken at step ", rule.step)
                                 : join(" exceeds the accuracy ", rule.accuracy_above),
                   ": lower distill.progressive.accuracies or teacher.train.checkpoint_steps");
      check_job_file(files.folder, name);
      set.snapshots[rule.name()] = load(file, rule.name());
    }
  if (jobs.wants_untrained(model))
    set.untrained = teacher_of(jobs.fresh_model(model, t, data), "untrained", device);
  return set;
}

void check_teacher_set(const JobList& jobs, std::size_t model, const ExperimentData& data,
                       Device device, TeacherSet* set, const Once& once) {
  set->problems =
      check_teacher(*set->final, set->reading, data, device, jobs.all_allow_untrained(model), once);
}

void measure_teacher(const JobList& jobs, std::size_t model, const ExperimentData& data,
                     Device device, Progress* progress, TeacherSet* set, Communicator* ranks) {
  const std::string title = set->model + "/" + std::to_string(set->seed);
  const Settings& base = jobs.settings();
  const std::int64_t batch = base.integer("train.evaluate_batch");
  // What is kept for evaluation stays below the cap of the training cache.
  const auto room = static_cast<std::uint64_t>(base.number("teacher.cache_mib") * 1048576);
  for (const EvaluationSet& evaluation : data.evaluation) {
    const auto source = plain_source(*evaluation.data, device, {set->reading});
    const Beat beat(progress, "evaluating " + title + " on " + evaluation.name,
                    evaluation.data->size());
    set->evaluation.push_back(
        distill::measure(set->final->model(), *source,
                         {.batch = batch, .each = beat.of_batches_until_stopped(), .ranks = ranks})
            .metrics());
    set->answers.push_back(std::make_shared<distill::TeacherAnswers>(set->final, 1, room));
  }
  if (auto cache = make_cache(base, data, device, *set)) set->final->use_cache(std::move(cache));
  if (jobs.wants_scores_of(model)) {
    const Beat beat(progress, "scoring with " + title, data.student->size());
    auto each = beat.of_batches_until_stopped();
    // What is said of a sentence here is what students ask for later: once is enough.
    std::optional<RowsAlone> rows_alone;
    if (const auto& cache = set->final->cache();
        is_text(data) && set->final->keeps(distill::CachedRows::kLogits)) {
      rows_alone.emplace();
      if (ranks != nullptr) cache->remember_new_rows();
      each = [cache, told = std::move(each)](const nn::Batch& part, const nn::Outputs& outputs) {
        cache->insert(part.sample, {}, outputs.logits.to_vector<float>());
        if (told) told(part, outputs);
      };
    }
    const Maskings maskings = jobs.maskings_of(model);
    set->statistics =
        score_samples(set->final->model(),
                      *plain_source(*data.student, device, {set->reading}, maskings.in_turn_of()),
                      batch, maskings.count, std::move(each), ranks);
    if (rows_alone && ranks != nullptr) distill::share_new_rows(*set->final->cache(), *ranks);
  }
}

std::vector<std::string> notes_of_arm(const Settings& arm, const TeacherSet& set,
                                      const ExperimentData& data, Device device, const Once& once) {
  std::vector<std::string> notes = set.problems;
  if (uses_untrained_teacher(arm))
    for (std::string& problem : check_teacher(*set.untrained, set.reading, data, device,
                                              arm.flag("teacher.allow_untrained"), once))
      notes.push_back(std::move(problem));
  return notes;
}

distill::Metrics probe_teacher(const std::shared_ptr<nn::Model>& trained,
                               const std::shared_ptr<nn::Model>& untrained,
                               const ExperimentData& data, Device device) {
  const auto parity = std::dynamic_pointer_cast<const nn::ParityDataset>(data.student);
  if (parity == nullptr) return {};
  nn::SourceOptions options;
  options.device = device;
  options.seed = derive_key(0, "probe");
  const auto source = parity->source(options);
  const auto inputs = [&](std::int64_t first, std::int64_t count) {
    std::vector<std::int64_t> samples(static_cast<std::size_t>(count));
    std::iota(samples.begin(), samples.end(), first);
    return source->make(samples).inputs[0].values;
  };
  untrained->to(device);
  const bool training = trained->training();
  const auto result =
      distill::degree_one_probe(distill::Teacher(trained), inputs, parity->support());
  const auto before =
      distill::degree_one_probe(distill::Teacher(untrained), inputs, parity->support());
  trained->requires_grad(true);
  trained->train(training);
  return {{"probe.degree1_ratio", result.ratio}, {"probe.untrained_ratio", before.ratio}};
}

}  // namespace retort::tools
