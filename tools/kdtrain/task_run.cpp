#include "tools/kdtrain/task_run.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <optional>

#include "engine/io/file.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/job_log.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/prepare.h"
#include "tools/kdtrain/step_costs.h"

namespace retort::tools {
namespace {

// A job's state on its way to ranks that have no folder; its lines are rank 0's.
std::string packed(const std::optional<JobState>& state) {
  if (!state) return "";
  Json rejected = Json::array(), json = Json::object();
  for (const std::string& one : state->rejected) rejected.push(one);
  json.set("step", state->step).set("finished", state->finished).set("failure", state->failure);
  return json.set("data", state->data).set("rejected", std::move(rejected)).dump();
}

std::optional<JobState> unpacked(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const Json json = Json::parse(text, "rank 0");
  JobState state;
  state.step = json.at("step").as_integer();
  state.finished = json.at("finished").as_bool();
  state.failure = json.at("failure").as_string();
  state.data = json.at("data").as_string();
  for (const Json& one : json.at("rejected").items()) state.rejected.push_back(one.as_string());
  return state;
}

}  // namespace

void RunShared::next_phase() {
  const MemoryStatistics now = memory_statistics(device);
  peak.peak_bytes = std::max(peak.peak_bytes, now.peak_bytes);
  for (std::size_t r = 0; r < now.peak_by_role.size(); ++r)
    peak.peak_by_role[r] = std::max(peak.peak_by_role[r], now.peak_by_role[r]);
  reset_peak_memory(device);
  release_cached_memory(device);
}

void TaskRun::open() {
  OpenedTask opened = open_task(jobs_, shared_.device, !ranks().several());
  data_ = std::move(opened.data);
  sets_ = std::move(opened.sets);
  notes_ = std::move(opened.notes);
  data_hash_ = hash_of(data_);
  failed_models_.resize(jobs_.models().size());
}

void TaskRun::check() { check_given(jobs_, data_, shared_.device, &sets_, once()); }

void TaskRun::add_hashes(std::map<std::string, std::string>* hashes) const {
  for (const std::string& part : split(data_hash_, ' ')) {
    const std::size_t colon = part.find(':');
    (*hashes)[(jobs_.task().empty() ? "" : jobs_.task() + ".") + part.substr(0, colon)] =
        part.substr(colon + 1);
  }
}

void TaskRun::write_origin() const {
  std::string csv = "part,sample,index\n";
  const auto add = [&](const char* part, const std::vector<std::int64_t>& origin) {
    for (std::size_t i = 0; i < origin.size(); ++i)
      csv += std::string(part) + "," + std::to_string(i) + "," + std::to_string(origin[i]) + "\n";
  };
  add("student", data_.student_origin);
  add("teacher", data_.teacher_origin);
  if (data_.student_origin.empty() && data_.teacher_origin.empty()) return;
  shared_.folder->write_once(
      jobs_.task().empty() ? "samples.csv" : "samples_" + jobs_.task() + ".csv", csv);
}

double TaskRun::list() {
  double steps = 0;
  logged_models_.resize(jobs_.models().size());
  for (std::size_t m = 0; m < jobs_.models().size(); ++m)
    for (const std::int64_t seed : jobs_.teacher_seeds()) {
      const SourceModel& model = jobs_.models()[m];
      if (!trained_here(m)) {
        logged_models_[m].push_back({shared_.log->add_job("", false), false, true, ""});
        continue;
      }
      logged_models_[m].push_back(add_job(model.name, seed));
      steps += static_cast<double>(jobs_.model_steps(m, data_));
    }
  for (const StudentJob& job : jobs_.students()) {
    if (shared_.models_only) break;
    logged_students_.push_back(add_job(job.arm->name, job.number));
    steps += static_cast<double>(jobs_.student_steps(job, data_));
  }
  return steps;
}

std::int64_t TaskRun::job_count() const {
  std::size_t count = logged_students_.size();
  for (const auto& of_model : logged_models_) count += of_model.size();
  return static_cast<std::int64_t>(count);
}

bool TaskRun::run() {
  shared_.context.data = &data_;
  shared_.context.data_hash = data_hash_;
  shared_.next_phase();
  for (std::size_t m = 0; m < jobs_.models().size(); ++m)
    if (!run_model(m)) return false;
  if (!shared_.models_only && !run_students()) return false;
  tell_of_caches();
  return true;
}

void TaskRun::tell_of_caches() const {
  struct Asked {
    std::uint64_t computed = 0, kept = 0;
  } mine;
  bool features = false;  // of the rows of a text, instead of logits
  for (const auto& of_model : sets_)
    for (const TeacherSet& set : of_model) {
      if (set.final == nullptr || set.final->cache() == nullptr) continue;
      const distill::LogitCacheStatistics asked = set.final->cache()->statistics();
      features = set.final->keeps(distill::CachedRows::kFeatures);
      mine.computed += asked.misses;
      mine.kept += asked.hits;
    }
  std::vector<Asked> all(static_cast<std::size_t>(ranks().size()), mine);
  if (ranks().several()) ranks().shared()->gather(&mine, all.data(), sizeof mine);
  Asked sum;
  for (const Asked& one : all) sum.computed += one.computed, sum.kept += one.kept;
  if (sum.computed + sum.kept > 0)
    shared_.progress.line(
        join(features ? "teachers' features: " : "teachers' logits: ", sum.computed,
             features ? " words" : " samples", " computed, ", sum.kept, " kept from before"));
}

void TaskRun::release() {
  sets_.clear();
  curricula_.clear();
}

bool TaskRun::trained_here(std::size_t m) const { return jobs_.models()[m].trained; }

std::string TaskRun::folder_of(const std::string& model, std::int64_t seed) const {
  for (const SourceModel& m : jobs_.models())
    if (m.name == model && m.trained) return shared_.folder->job_folder(model, seed, jobs_.task());
  return before_ == nullptr ? "" : before_->folder_of(model, seed);
}

std::string TaskRun::teacher_before(std::int64_t seed) const {
  const std::string folder = before_->folder_of("teacher", seed);
  if (folder.empty()) return find_weights(recipe_.base, recipe_.base.text("teacher.weights"));
  check_job_file(folder, kJobWeights);
  return folder + "/" + kJobWeights;
}

TaskRun::LoggedJob TaskRun::add_job(const std::string& arm, std::int64_t seed) {
  std::optional<JobState> state;
  if (shared_.folder->resuming()) {
    const std::string folder = shared_.folder->job_folder(arm, seed, jobs_.task());
    const std::string told = ranks().from_writer([&] {
      if (shared_.retry_failed) forget_failure(folder);
      state = read_job_state(folder);
      return ranks().several() ? packed(state) : "";
    });
    if (!ranks().writes()) state = unpacked(told);
  }
  const bool finished = state && state->finished;
  ranks().together([&] {
    RETORT_CHECK_AS(kBadInput, !state || is_same_data(state->data, data_hash_),
                    "[resume] the data is not what ", arm, "/", seed, " began with: it was ",
                    state->data, ", is ", data_hash_);
  });
  if (!state) return {shared_.log->add_job("", false), false, false, ""};
  for (const std::string& damaged : state->rejected)
    shared_.progress.line("note: a damaged checkpoint is passed over, " + title_of(arm, seed) +
                          " goes on from step " + std::to_string(state->step) + ": " + damaged);
  const bool failed = !state->failure.empty();
  return {shared_.log->add_job(state->lines, finished || failed), finished, false, state->failure};
}

std::string TaskRun::title_of(const std::string& arm, std::int64_t seed) const {
  return arm + "/" + std::to_string(seed) +
         (jobs_.task().empty() ? "" : " in task " + jobs_.task());
}

void TaskRun::add_failure(const std::string& arm, std::int64_t seed, const std::string& reason,
                          std::int64_t steps) {
  const std::string title = title_of(arm, seed);
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.failed.push_back({title, reason});
    failed_.insert({arm, seed});
  }
  shared_.progress.line(title + " failed: " + reason);
  shared_.progress.finish(arm + "/" + std::to_string(seed), steps);
}

std::string TaskRun::why_not(const std::string& arm, std::int64_t seed, std::size_t model,
                             std::size_t t) const {
  if (before_ != nullptr && before_->has_failed(arm, seed))
    return "it failed in task " + before_->jobs_.task();
  if (model != SourceModel::kNothing && failed_models_[model].contains(t))
    return "its teacher " + jobs_.models()[model].name + "/" +
           std::to_string(jobs_.teacher_seeds()[t]) + " failed";
  return "";
}

std::string TaskRun::why_not(const StudentJob& job) const {
  std::string why = why_not(job.arm->name, job.number, job.model, job.teacher);
  for (const std::size_t m : jobs_.scorers_of(job.arm->settings))
    if (why.empty() && failed_models_[m].contains(job.teacher))
      why = "its scorer " + jobs_.models()[m].name + "/" +
            std::to_string(jobs_.teacher_seeds()[job.teacher]) + " failed";
  return why;
}

bool TaskRun::passed_over(const std::string& arm, std::int64_t seed, const LoggedJob& logged,
                          const std::string& why, std::int64_t steps) {
  if (!logged.failure.empty()) {
    add_failure(arm, seed, logged.failure, steps);
    return true;
  }
  if (why.empty() || logged.finished) return false;
  ranks().on_writer(
      [&] { log_not_begun(arm, seed, jobs_.task(), why, shared_.log, logged.log_job); });
  add_failure(arm, seed, why, steps);
  return true;
}

bool TaskRun::run_and_tell(const TrainingPlan& plan, std::size_t log_job, std::int64_t steps) {
  const Outcome outcome = run_job(shared_.context, plan, log_job);
  if (outcome.kind == Outcome::kStopped) return false;
  ranks().on_writer([&] { shared_.log->finish(log_job); });
  if (outcome.kind == Outcome::kFailed)
    add_failure(plan.arm, plan.seed, outcome.reason, steps);
  else
    shared_.progress.finish(plan.arm + "/" + std::to_string(plan.seed), steps);
  return true;
}

void TaskRun::run_all(std::size_t count, const std::function<void(std::size_t)>& body) {
  // Ranks take part in one job at a time.
  const int at_once = ranks().several() ? 1 : jobs_at_once(recipe_.base, shared_.device, count);
  run_jobs(count, at_once, [&](std::size_t i) {
    try {
      body(i);
    } catch (...) {
      shared_.context.abort = true;
      throw;
    }
  });
}

// -- models that others learn from ----------------------------------------------------------------

bool TaskRun::run_model(std::size_t m) {
  const SourceModel& model = jobs_.models()[m];
  const std::size_t count = jobs_.teacher_seeds().size();
  if (trained_here(m) && !model.is_teacher)
    for (std::size_t t = 0; t < count; ++t)
      if (model.learns_from == SourceModel::kNothing ||
          !failed_models_[model.learns_from].contains(t))
        curriculum_for(asker_of(m, t));
  std::atomic<bool> complete = true;
  if (trained_here(m))
    run_all(count, [&](std::size_t t) {
      if (!train_model(m, t)) complete = false;
    });
  if (!complete) return false;
  for (std::size_t t = 0; t < count && !shared_.models_only; ++t) {
    if (ranks().stop_agreed()) return false;
    const std::int64_t seed = jobs_.teacher_seeds()[t];
    if (!trained_here(m) && !model.given &&
        passed_over(model.name, seed, logged_models_[m][t], why_not(model.name, seed, m, t), 0))
      failed_models_[m].insert(t);
    if (has_failed(model.name, seed)) {
      failed_models_[m].insert(t);
      sets_[m].emplace_back();  // nobody looks at it
      continue;
    }
    if (!model.given) {
      const std::string folder = folder_of(model.name, jobs_.teacher_seeds()[t]);
      std::vector<std::string> names{"files.json", kJobWeights};
      for (const SnapshotRule& rule : jobs_.snapshots_of(m))
        names.push_back(rule.name() + ".safetensors");
      const RunRanks::HandedOut files = hand_out(folder, names);
      ranks().together([&] {
        sets_[m].push_back(load_teacher_set(jobs_, m, t, data_, shared_.device,
                                            {folder + "/model.safetensors", folder}));
      });
      check_teacher_set(jobs_, m, data_, shared_.device, &sets_[m][t], once());
    }
    TeacherSet& set = sets_[m][t];
    const auto start = Clock::now();
    measure_teacher(jobs_, m, data_, shared_.device, &shared_.progress, &set, ranks().shared());
    for (const Arm& arm : recipe_.arms)
      if (uses_teacher(arm.settings) && arm.teachers.at(0) == model.name)
        if (auto notes = notes_of_arm(arm.settings, set, data_, shared_.device, once());
            !notes.empty())
          arm_notes_[{arm.name, t}] = std::move(notes);
    if (logged_models_[m][t].elsewhere) {
      TrainingPlan plan;
      plan.arm = model.name;
      plan.seed = set.seed;
      plan.task = jobs_.task();
      plan.model = unfolded_copy(m, t);
      const distill::Metrics more = probe(plan.model, m, t);
      ranks().on_writer([&] {
        log_evaluated(plan, data_, set.evaluation, more, seconds_since(start), shared_.log,
                      logged_models_[m][t].log_job);
      });
      shared_.progress.finish(model.name + "/" + std::to_string(set.seed), 0);
    }
  }
  return true;
}

bool TaskRun::train_model(std::size_t m, std::size_t t) {
  const SourceModel& model = jobs_.models()[m];
  const LoggedJob& logged = logged_models_[m][t];
  const std::int64_t seed = jobs_.teacher_seeds()[t], steps = jobs_.model_steps(m, data_);
  if (passed_over(model.name, seed, logged, why_not(model.name, seed, model.learns_from, t), steps))
    return true;
  if (logged.finished) {
    shared_.progress.finish(model.name + "/" + std::to_string(seed), steps);
    return true;
  }
  const TeacherSet* teacher = nullptr;
  std::shared_ptr<const NamedCurriculum> curriculum;
  if (model.learns_from != SourceModel::kNothing) teacher = &sets_[model.learns_from][t];
  if (!model.is_teacher) {
    const std::lock_guard lock(shared_.mutex);
    curriculum = curriculum_for(asker_of(m, t));
  }
  TrainingPlan plan = jobs_.model_plan(m, t, data_, teacher, std::move(curriculum));
  if (const auto at = notes_.find(plan.arm); at != notes_.end()) plan.notes = at->second;
  start_weights(*model.settings, t, plan.arm, plan.seed, &plan);
  if (!model.is_teacher) add_rescoring(asker_of(m, t), &plan);
  plan.final_metrics = [this, m, t](const std::shared_ptr<nn::Model>& trained) {
    return probe(trained, m, t);
  };
  return run_and_tell(plan, logged.log_job, steps);
}

distill::Metrics TaskRun::probe(const std::shared_ptr<nn::Model>& model, std::size_t m,
                                std::size_t t) const {
  if (!recipe_.base.flag("train.probe") || !jobs_.models()[m].is_teacher) return {};
  return probe_teacher(model, jobs_.fresh_model(m, t, data_), data_, shared_.device);
}

RunRanks::HandedOut TaskRun::hand_out(const std::string& folder,
                                      const std::vector<std::string>& names) const {
  const std::string& run = shared_.folder->path();
  return ranks().hand_out(run, [&] {
    std::vector<std::string> there;
    std::error_code absent;
    for (const std::string& name : names)
      if (const std::string file = folder + "/" + name; std::filesystem::exists(file, absent))
        there.push_back(file.substr(run.size() + 1));
    return there;
  });
}

std::string TaskRun::weights_of(std::size_t m, std::size_t t) const {
  const SourceModel& model = jobs_.models()[m];
  if (model.given) return find_weights(recipe_.base, recipe_.base.text("teacher.weights"));
  return folder_of(model.name, jobs_.teacher_seeds()[t]) + "/" + kJobWeights;
}

std::shared_ptr<nn::Model> TaskRun::unfolded_copy(std::size_t m, std::size_t t) const {
  std::shared_ptr<nn::Model> model = jobs_.fresh_model(m, t, data_);
  const std::string file = weights_of(m, t);
  const RunRanks::HandedOut files = hand_out(
      parent_folder(file),
      jobs_.models()[m].given ? std::vector<std::string>() : std::vector<std::string>{kJobWeights});
  nn::load_weights(*model, file);
  model->to(shared_.device);
  return model;
}

}  // namespace retort::tools
