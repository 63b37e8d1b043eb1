#include "tools/kdtrain/train_loop.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "nn/checkpoint/checkpoint.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/job_log.h"
#include "tools/kdtrain/job_rules.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

// The training broke.
class Broken : public Error {
 public:
  Broken(std::int64_t step, const std::string& reason)
      : Error(ErrorCode::kNumerics, reason), step_(step) {}
  std::int64_t step() const { return step_; }

 private:
  std::int64_t step_;
};

// The rhythm of a job: what happens after which step.
struct Rhythm {
  std::int64_t log = 1, evaluate = 1, checkpoint = 0;

  Rhythm(const TrainingPlan& plan, std::int64_t epoch_steps) {
    const Settings& s = *plan.settings;
    log = s.integer("train.log_steps");
    const std::int64_t often =
        s.integer(plan.section == "teacher.train" ? "teacher.train.checkpoint_steps"
                                                  : "train.evaluate_steps");
    evaluate = often > 0 ? often : epoch_steps;
    const std::int64_t save = s.integer("train.checkpoint_steps");
    checkpoint = save > 0 ? save : s.integer("train.checkpoint_epochs") * epoch_steps;
  }
};

// The sets that a job is evaluated on, as its model and its teacher read them.
class EvaluationPasses {
 public:
  EvaluationPasses(const RunContext& context, const TrainingPlan& plan)
      : context_(context), plan_(plan) {
    for (const EvaluationSet& set : context.data->evaluation) {
      std::vector<nn::Reading> readings{plan.reading};
      if (plan.teacher != nullptr) readings.push_back(plan.teacher->reading);
      sources_.push_back(plain_source(*set.data, context.device, std::move(readings)));
    }
  }
  std::size_t size() const { return sources_.size(); }
  const std::string& name(std::size_t set) const { return context_.data->evaluation[set].name; }

  Evaluated run(std::size_t set, std::int64_t step) const {
    const auto start = Clock::now();
    const auto refuse = [&](const std::string& why) {
      throw Broken(step, join("after the update at step ", step, " the model is broken on ",
                              name(set), " (", why, ")"));
    };
    const Beat beat(
        context_.progress,
        "evaluating " + plan_.arm + "/" + std::to_string(plan_.seed) + " on " + name(set),
        context_.data->evaluation[set].data->size());
    distill::MeasureOptions options{.batch = plan_.settings->integer("train.evaluate_batch"),
                                    .each = beat.of_batches(),
                                    .ranks = context_.ranks->shared()};
    if (plan_.teacher != nullptr && !plan_.teacher->answers.empty())
      options.teacher = plan_.teacher->answers[set].get();
    Evaluated result;
    try {
      const distill::Measurement m = distill::measure(*plan_.model, *sources_[set], options);
      result.rows = static_cast<std::int64_t>(m.targets.size());
      result.metrics = m.metrics();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNumerics) throw;
      refuse(error.what());
    }
    if (!std::isfinite(result.value("loss"))) refuse("its loss is not finite");
    result.seconds = seconds_since(start);
    return result;
  }

 private:
  const RunContext& context_;
  const TrainingPlan& plan_;
  std::vector<std::shared_ptr<const nn::Source>> sources_;
};

class Job {
 public:
  Job(RunContext& context, const TrainingPlan& plan, std::size_t log_job)
      : context_(context),
        plan_(plan),
        title_(plan.arm + "/" + std::to_string(plan.seed)),
        folder_(context.folder->job_folder(plan.arm, plan.seed, plan.task)),
        ranks_(*context.ranks),
        trainer_(plan, context.device, ranks_.shared()),
        rhythm_(plan, trainer_.steps_per_epoch()),
        log_(context.log, log_job, plan, context.ranks),
        costs_(trainer_.timer(), ranks_.shared()),
        stop_(*plan.settings),
        best_(plan.section == "train" ? plan.settings->text("train.keep_best") : ""),
        passes_(context, plan) {
    ranks_.on_writer([&] {
      make_folders(folder_);
      files_.emplace(folder_);
    });
  }

  Outcome run() {
    restore();
    try {
      return train();
    } catch (const Broken& broken) {
      return failed(broken.step(), broken.what());
    } catch (const Error& error) {
      // In a step of several ranks it may be this one's alone, and the others wait for it.
      if (error.code() != ErrorCode::kNumerics || (in_step_ && ranks_.several())) throw;
      return failed(step() + 1, error.what());
    }
  }

 private:
  std::int64_t step() const { return trainer_.steps_done(); }

  Outcome train() {
    while (step() < trainer_.steps_planned() && !reached_) {
      if (ranks_.stop_agreed() || context_.abort.load(std::memory_order_relaxed)) {
        checkpoint(false);
        return {Outcome::kStopped};
      }
      if (trainer_.rescoring_is_due()) {
        const auto before = Clock::now();
        fold();  // a loss that is no number is told before its scores are
        trainer_.rescore();
        log_.note(join("step ", step(), ": the student scored again, and its order is new"));
        costs_.leave_out(before);
      }
      in_step_ = true;
      costs_.add(trainer_.step());
      in_step_ = false;
      ranks_.begin_word(step());
      after_step();
    }
    if (!finished_) finish();
    return {Outcome::kFinished};
  }

  Outcome failed(std::int64_t step, const std::string& reason) {
    log_.failed(step, reason);
    ranks_.on_writer([&] {
      record_failure(folder_, {step, reason, context_.data_hash, log_.sync()});
    });
    return {Outcome::kFailed, step, reason};
  }

  // -- checkpoints --------------------------------------------------------------------------------
  Json state(bool finished) const {
    Json out = Json::object();
    out.set("arm", plan_.arm).set("seed", plan_.seed).set("step", step());
    out.set("data", context_.data_hash).set("teacher", teacher_hash());
    out.set("finished", finished);
    out.set("best", best_.json());
    out.set("sums", sums_.json()).set("steps_to", stop_.json()).set("reached", reached_);
    out.set("wall_s", wall_before_ + seconds_since(start_));
    Json last = Json::object(), kept = Json::array();
    for (const auto& [name, value] : last_) last.set(name, value);
    for (const std::string& name : kept_) kept.push(name);
    return out.set("last", std::move(last)).set("kept", std::move(kept));
  }

  std::string teacher_hash() const {
    return plan_.teacher == nullptr ? "" : plan_.teacher->final->hash();
  }

  void checkpoint(bool finished) {
    const auto begin = Clock::now();
    fold();
    compare_weights();
    nn::CheckpointContents contents = trainer_.checkpoint(state(finished), metadata());
    ranks_.on_writer([&] {
      contents.logs[kJobLines] = log_.sync();
      if (has_events()) contents.logs[kJobEvents] = log_.sync_events();
      nn::write_checkpoint(folder_, contents,
                           static_cast<int>(plan_.settings->integer("train.checkpoint_keep")));
    });
    context_.checkpointed = true;
    ranks_.note_checkpoint(title_, step());
    costs_.leave_out(begin);
  }

  void restore() {
    start_ = Clock::now();
    const std::string lines = folder_ + "/" + kJobLines;
    std::optional<nn::FoundCheckpoint> saved;
    ranks_.on_writer([&] {
      saved = nn::read_newest_valid(folder_);
      log_.open(lines, saved ? saved->logs.at(kJobLines)  // read_job_state() saw that there is one
                             : FileMark());
      const bool known = saved && saved->logs.contains(kJobEvents);
      open_events(known ? saved->logs.at(kJobEvents) : FileMark());
    });
    const RunRanks::HandedOut files = hand_out(&saved);
    if (saved)
      ranks_.together([&] { restore(*saved); });
    else
      write_first_notes();
    compare_weights();
    costs_.start();
  }

  // Rank 0's checkpoint, on all ranks.
  RunRanks::HandedOut hand_out(std::optional<nn::FoundCheckpoint>* saved) {
    const std::string& run = context_.folder->path();
    const std::string path = ranks_.from_writer(
        [&] { return *saved ? (*saved)->path.substr(run.size() + 1) : std::string(); });
    if (path.empty()) return RunRanks::HandedOut("");
    // One that a killed rank left behind is removed with the mirror.
    return ranks_.hand_out(
        run,
        [&] {
          std::vector<std::string> names;
          for (const char* name : {"model", "stages", "curriculum"}) {
            const std::string file = path + "/" + name + ".safetensors";
            std::error_code absent;
            if (std::filesystem::exists(run + "/" + file, absent)) names.push_back(file);
          }
          names.push_back(path + "/state.json");
          return names;
        },
        [&] {
          constexpr std::uint64_t kMostState = std::uint64_t{1} << 30;
          nn::FoundCheckpoint found;
          found.path = run + "/" + path;
          found.state = Json::read(found.path + "/state.json", kMostState);
          found.step = found.state.at("step").as_integer();
          *saved = std::move(found);
        });
  }

  // Whether all ranks hold what rank 0 holds.
  void compare_weights() {
    if (!ranks_.several()) return;
    std::string all;
    for (const auto& tensors : {plan_.model->named_parameters(), plan_.model->named_buffers()})
      for (const auto& [name, tensor] : tensors) {
        const Tensor host = tensor.detach().contiguous();
        all += hash_bytes({static_cast<const char*>(host.raw()), host.bytes()});
      }
    ranks_.compare_weights(hash_bytes(all).substr(0, 16), step());
  }

  bool has_events() const { return context_.recipe->base.flag("log.tensorboard"); }
  void open_events(const FileMark& mark) {
    if (has_events()) log_.open_events(folder_ + "/" + kJobEvents, mark);
  }

  void restore(const nn::FoundCheckpoint& saved) {
    const Json& extra = saved.state;
    RETORT_CHECK_AS(
        kBadInput,
        extra.at("arm").as_string() == plan_.arm && extra.at("seed").as_integer() == plan_.seed,
        "[resume] the checkpoint in ", folder_, " is of another job");
    // Who learns from nobody is only compared with a teacher, and that one may have failed before.
    const std::string& had = extra.at("teacher").as_string();
    RETORT_CHECK_AS(kBadInput, had == teacher_hash() || (had.empty() && plan_.teachers.empty()),
                    "[resume] the teacher's weights are not those that ", title_,
                    " began with: its checkpoint is of teacher ", had, ", this is ",
                    teacher_hash());
    trainer_.restore(saved);
    sums_ = StepSums::of(extra.at("sums"));
    stop_.restore(extra.at("steps_to"));
    best_.restore(extra.at("best"));
    reached_ = extra.at("reached").as_bool();
    wall_before_ = extra.at("wall_s").as_number();
    for (const auto& [name, value] : extra.at("last").members())
      last_.emplace_back(name, value.as_number());
    for (const Json& name : extra.at("kept").items()) kept_.insert(name.as_string());
    finished_ = extra.at("finished").as_bool();
    context_.checkpointed = true;
  }

  void write_first_notes() {
    for (const std::string& note : plan_.notes) log_.note(note);
    if (const std::string told = told_of_slices(*plan_.settings, plan_.section, *plan_.model);
        !told.empty()) {
      log_.note(told);
      context_.progress->line("note: " + title_ + ": " + told);
    }
    if (trainer_.reliance())
      for (const std::string& warning : trainer_.reliance()->warnings()) log_.note(warning);
  }

  // -- between steps ------------------------------------------------------------------------------
  // Reads back what the steps since the last call left on the device.
  void fold() {
    const auto bad = sums_.fold(trainer_.meter().take());
    if (!bad) return;
    const std::int64_t at = step() - static_cast<std::int64_t>(bad->steps_ago);
    throw Broken(at, join("the loss is ", std::isnan(bad->loss) ? "NaN" : "infinite", " at step ",
                          at, " (epoch ", (at - 1) / trainer_.steps_per_epoch() + 1, ")",
                          bad->slice < 0 ? "" : join(", first in slice ", bad->slice, " from 0")));
  }

  void after_step() {
    const bool last = step() == trainer_.steps_planned();
    // A line is of one stage: means over two objectives would be of none.
    const bool log_now = step() % rhythm_.log == 0 || last || trainer_.stage_ended();
    // A broken loss is noticed early where reading is free, on CUDA once per log line.
    if (log_now || (context_.device == Device::kCpu && trainer_.meter().size() >= 16)) fold();
    if (log_now) {
      log_.training(trainer_, &sums_, &costs_);
      look_for_slow_rank();
    }
    if (step() % rhythm_.evaluate == 0 || last) evaluate_sets();
    keep_at_step();
    if (rhythm_.checkpoint > 0 && step() % rhythm_.checkpoint == 0 && !last && !reached_)
      checkpoint(false);
    if (step() % 16 == 0 || last)
      context_.progress->update(title_, step(), trainer_.steps_planned(), log_.progress());
  }

  void evaluate_sets() {
    const auto before = Clock::now();
    fold();
    std::string shown;
    last_.clear();
    for (std::size_t i = 0; i < passes_.size(); ++i) {
      const std::string& name = passes_.name(i);
      const Evaluated e = passes_.run(i, step());
      log_.evaluation(trainer_, name, e.metrics, e.rows, e.seconds);
      for (const auto& [metric, value] : e.metrics) {
        last_.emplace_back(name + "." + metric, value);
        if (best_.notice(last_.back().first, value)) save(kJobBest);
      }
      char text[96];
      std::snprintf(text, sizeof text, "  %s %.2f %%", name.c_str(), 100 * e.value("accuracy"));
      shown += text;
      if (i == 0) notice(e);
    }
    // Data without end is evaluated too often to show it.
    if (!context_.data->endless())
      context_.progress->line(title_ + "  epoch " + epochs(step()) + "/" +
                              epochs(trainer_.steps_planned()) + "  " + log_.progress() + shown +
                              (costs_.text().empty() ? "" : "  " + costs_.text()));
    costs_.leave_out(before);  // training throughput leaves evaluation out
  }

  // A note for who watches: no line of the log, which is the same however fast ranks are.
  void look_for_slow_rank() {
    if (!ranks_.several()) return;
    const double mine = costs_.own_seconds();
    std::vector<double> all(static_cast<std::size_t>(ranks_.size()));
    ranks_.shared()->gather(&mine, all.data(), sizeof mine);
    if (const auto slow = context_.slow_rank.look(all))
      context_.progress->line(
          join("note: ", ranks_.shared()->name(slow->first), " ", slow->second));
  }

  // Of the rank that needed most.
  MemoryStatistics memory_of_largest() const {
    const MemoryStatistics mine = memory_statistics(context_.device);
    if (!ranks_.several()) return mine;
    std::vector<MemoryStatistics> all(static_cast<std::size_t>(ranks_.size()));
    ranks_.shared()->gather(&mine, all.data(), sizeof mine);
    return *std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return a.peak_bytes < b.peak_bytes;
    });
  }

  std::string epochs(std::int64_t steps) const {
    const std::int64_t each = trainer_.steps_per_epoch();
    return std::to_string((steps + each - 1) / each);
  }

  void notice(const Evaluated& evaluated) {
    // A teacher trains to its end.
    if (stop_.notice(evaluated, step())) reached_ = plan_.section == "train";
    for (const SnapshotRule& rule : plan_.snapshots)
      if (rule.step == 0 && evaluated.value("accuracy") > rule.accuracy_above) keep(rule);
  }

  void keep_at_step() {
    for (const SnapshotRule& rule : plan_.snapshots)
      if (rule.step > 0 && rule.step == step()) keep(rule);
  }

  // The first moment of the kind is what counts.
  void keep(const SnapshotRule& rule) {
    if (!kept_.insert(rule.name()).second) return;
    save(rule.name() + ".safetensors");
  }

  std::map<std::string, std::string> metadata() const {
    std::map<std::string, std::string> all =
        metadata_of(plan_.reading, *context_.data->kind, plan_.data->facts());
    all["arch"] = plan_.settings->text(plan_.model_section + ".arch");
    if (plan_.reading.dtype == DType::kBF16) all["precision"] = "bf16";
    all["arm"] = plan_.arm;
    all["seed"] = std::to_string(plan_.seed);
    all["step"] = std::to_string(step());
    return all;
  }

  void save(const std::string& name) {
    ranks_.on_writer([&] { write_weights(name); });
  }

  void write_weights(const std::string& name) {
    const MemoryRoleScope role(MemoryRole::kData);
    if (name != kJobWeights) {
      nn::save_weights(*plan_.model, folder_ + "/" + name, metadata());
    } else {  // with what belongs to it, such as config.json and the vocabulary
      nn::save_model(*plan_.model, folder_, metadata());
      if (plan_.model->facts().reads == nn::Reads::kTokens)
        copy_vocabulary(*plan_.settings, plan_.model_section, folder_);
    }
    files_->record(name);
  }

  // -- the end ------------------------------------------------------------------------------------
  void finish() {
    fold();
    log_.training(trainer_, &sums_, &costs_);
    distill::Metrics metrics = last_;
    stop_.add_metrics(trainer_.steps_planned(), &metrics);
    if (plan_.final_metrics)
      for (const auto& metric : plan_.final_metrics(plan_.model)) metrics.push_back(metric);
    const MemoryStatistics memory = memory_of_largest();
    log_.final_line(trainer_, sums_, metrics, memory, wall_before_ + seconds_since(start_));
    save(kJobWeights);  // before the checkpoint, which says that all is done
    checkpoint(true);
    if (!context_.data->endless()) return;
    char text[128];
    const std::string first = context_.data->evaluation[0].name + ".accuracy";
    const auto at = std::find_if(last_.begin(), last_.end(),
                                 [&](const auto& metric) { return metric.first == first; });
    std::snprintf(text, sizeof text, "%s  %lld steps, accuracy %.4f", title_.c_str(),
                  static_cast<long long>(step()), at == last_.end() ? 0 : at->second);
    context_.progress->line(text + ("  " + costs_.text()));
  }

  RunContext& context_;
  const TrainingPlan& plan_;
  std::string title_, folder_;
  RunRanks& ranks_;
  Trainer trainer_;
  Rhythm rhythm_;
  JobLog log_;
  std::optional<FileManifest> files_;  // of rank 0
  StepSums sums_;
  StepCosts costs_;
  StopRules stop_;
  BestSoFar best_;
  EvaluationPasses passes_;

  distill::Metrics last_;       // newest evaluation, for the final line
  std::set<std::string> kept_;  // snapshots
  bool reached_ = false, finished_ = false, in_step_ = false;
  double wall_before_ = 0;
  Clock::time_point start_;
};

}  // namespace

Outcome run_job(RunContext& context, const TrainingPlan& plan, std::size_t log_job) {
  return Job(context, plan, log_job).run();
}

}  // namespace retort::tools
