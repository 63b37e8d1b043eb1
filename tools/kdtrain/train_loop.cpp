#include "tools/kdtrain/train_loop.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "nn/checkpoint/checkpoint.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/job_log.h"
#include "tools/kdtrain/signals.h"

namespace retort::tools {
namespace {

class Job {
 public:
  Job(RunContext& context, const TrainingPlan& plan, std::size_t log_job)
      : context_(context),
        plan_(plan),
        s_(*plan.settings),
        title_(plan.arm + "/" + std::to_string(plan.seed)),
        folder_(context.folder->arm_folder(plan.arm, plan.seed)),
        parity_(context.data->parity),
        trainer_(plan, *context.data, context.device),
        log_(context.log, log_job, plan),
        costs_(trainer_.timer()) {
    const bool teacher = plan.section == "teacher.train";
    const std::int64_t often =
        s_.integer(teacher ? "teacher.train.checkpoint_steps" : "train.evaluate_steps");
    evaluate_steps_ = often > 0 ? often : trainer_.steps_per_epoch();
    const std::int64_t save = s_.integer("train.checkpoint_steps");
    checkpoint_steps_ =
        save > 0 ? save : s_.integer("train.checkpoint_epochs") * trainer_.steps_per_epoch();
    stop_at_ = s_.number("train.stop_at_accuracy");
  }

  Outcome run() {
    restore();
    while (step() < trainer_.steps_planned() && !reached_) {
      if (stop_requested() != 0 || context_.abort.load(std::memory_order_relaxed)) {
        checkpoint(false);
        return Outcome::kStopped;
      }
      const StepOutcome outcome = trainer_.step();
      costs_.add(outcome.samples);
      sums_.add(outcome);
      after_step();
    }
    if (!finished_) finish();
    return Outcome::kFinished;
  }

 private:
  std::int64_t step() const { return trainer_.steps_done(); }

  // -- checkpoints --------------------------------------------------------------------------------
  Json state(bool finished) const {
    Json out = Json::object();
    out.set("arm", plan_.arm).set("seed", plan_.seed).set("step", step());
    out.set("data", context_.data_hash).set("teacher", teacher_hash());
    out.set("finished", finished);
    out.set("sums", sums_.json()).set("steps_to", steps_to_).set("reached", reached_);
    out.set("wall_s", wall_before_ + seconds_since(start_));
    Json last = Json::object();
    for (const auto& [name, value] : last_) last.set(name, value);
    out.set("last", std::move(last)).set("lines", log_.lines());
    return out;
  }

  std::string teacher_hash() const {
    return plan_.teacher == nullptr ? "" : plan_.teacher->final->hash();
  }

  void checkpoint(bool finished) {
    const auto begin = Clock::now();
    fold();
    nn::write_checkpoint(folder_, trainer_.checkpoint(state(finished), metadata()),
                         static_cast<int>(s_.integer("train.checkpoint_keep")));
    context_.checkpointed = true;
    costs_.leave_out(begin);
  }

  void restore() {
    start_ = Clock::now();
    make_folders(folder_);
    const auto saved = nn::read_newest_valid(folder_);
    if (saved) {
      const Json& extra = saved->state;
      RETORT_CHECK_AS(
          kBadInput,
          extra.at("arm").as_string() == plan_.arm && extra.at("seed").as_integer() == plan_.seed,
          "[resume] the checkpoint in ", folder_, " is of another job");
      RETORT_CHECK_AS(kBadInput, extra.at("teacher").as_string() == teacher_hash(),
                      "[resume] the teacher's weights are not those that ", title_,
                      " began with: its checkpoint is of teacher ", extra.at("teacher").as_string(),
                      ", this is ", teacher_hash());
      trainer_.restore(*saved);
      sums_ = StepSums::of(extra.at("sums"));
      steps_to_ = extra.at("steps_to").as_integer();
      reached_ = extra.at("reached").as_bool();
      wall_before_ = extra.at("wall_s").as_number();
      log_.restore(extra.at("lines").as_string());
      for (const auto& [name, value] : extra.at("last").members()) last_[name] = value.as_number();
      finished_ = extra.at("finished").as_bool();
      context_.checkpointed = true;
      if (finished_) save_model();
    } else {
      for (const std::string& note : plan_.notes) log_.note(note);
      if (trainer_.reliance())
        for (const std::string& warning : trainer_.reliance()->warnings()) log_.note(warning);
    }
    costs_.start();
  }

  // -- between steps ------------------------------------------------------------------------------
  // Reads back what the steps since the last call left on the device.
  void fold() {
    const auto bad = sums_.fold(trainer_.meter().take());
    if (!bad) return;
    const std::int64_t at = step() - static_cast<std::int64_t>(bad->steps_ago);
    fail(ErrorCode::kNumerics, "arm ", plan_.arm, ", seed ", plan_.seed, ": the loss is ",
         std::isnan(bad->loss) ? "NaN" : "infinite", " at step ", at, " (epoch ",
         (at - 1) / trainer_.steps_per_epoch() + 1, "); ", what_stands());
  }

  std::string what_stands() const {
    return "the last checkpoint and all lines before it stand. A smaller " + plan_.section +
           ".lr or a " + plan_.section + ".clip_norm may help";
  }

  void after_step() {
    const bool last = step() == trainer_.steps_planned();
    const bool log_now = step() % s_.integer("train.log_steps") == 0 || last;
    const bool evaluate_now = step() % evaluate_steps_ == 0 || last;
    // A broken loss is noticed early where reading is free, on CUDA once per log line.
    if (log_now || (context_.device == Device::kCpu && sums_.waiting() >= 16)) fold();
    if (log_now) log_.training(trainer_, &sums_, &costs_);
    if (evaluate_now) evaluate_sets();
    if (checkpoint_steps_ > 0 && step() % checkpoint_steps_ == 0 && !last && !reached_)
      checkpoint(false);
    if (step() % 16 == 0 || last)
      context_.progress->update(title_, step(), trainer_.steps_planned(), log_.progress());
  }

  void evaluate_sets() {
    const auto before = Clock::now();
    fold();
    std::string shown;
    for (std::size_t i = 0; i < context_.data->evaluation.size(); ++i) {
      const EvaluationSet& set = context_.data->evaluation[i];
      const auto start = Clock::now();
      EvaluationRequest request{context_.device, trainer_.dtype(),
                                s_.integer("train.evaluate_batch"), plan_.normalize};
      const bool teacher = plan_.teacher != nullptr && !plan_.teacher->evaluation_logits.empty();
      if (teacher) request.teacher_logits = &plan_.teacher->evaluation_logits[i];
      const distill::EvaluationResult r = evaluate_one(set, request);
      log_.evaluation(trainer_, set.name, r, seconds_since(start), teacher);
      last_[set.name + ".accuracy"] = r.accuracy;
      last_[set.name + ".loss"] = r.loss;
      if (teacher) last_[set.name + ".teacher_agreement"] = r.agreement;
      char text[96];
      std::snprintf(text, sizeof text, "  %s %.2f %%", set.name.c_str(), 100 * r.accuracy);
      shown += text;
      if (i == 0) notice_accuracy(r.accuracy);
    }
    if (!parity_) {
      const auto epochs = [&](std::int64_t steps) {
        const std::int64_t each = trainer_.steps_per_epoch();
        return std::to_string((steps + each - 1) / each);
      };
      context_.progress->line(title_ + "  epoch " + epochs(step()) + "/" +
                              epochs(trainer_.steps_planned()) + "  " + log_.progress() + shown +
                              (costs_.text().empty() ? "" : "  " + costs_.text()));
    }
    costs_.leave_out(before);  // training throughput leaves evaluation out
  }

  distill::EvaluationResult evaluate_one(const EvaluationSet& set,
                                         const EvaluationRequest& request) {
    const auto refuse = [&](const std::string& why) {
      fail(ErrorCode::kNumerics, "arm ", plan_.arm, ", seed ", plan_.seed,
           ": after the update at step ", step(), " the model is broken on ", set.name, " (", why,
           "); ", what_stands());
    };
    distill::EvaluationResult result;
    try {
      result = evaluate(*plan_.model, *set.data, request);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNumerics) throw;
      refuse(error.what());
    }
    if (!std::isfinite(result.loss)) refuse("its loss is not finite");
    return result;
  }

  void notice_accuracy(double accuracy) {
    if (stop_at_ > 0 && accuracy >= stop_at_ && steps_to_ < 0) {
      steps_to_ = step();
      reached_ = plan_.section == "train";  // a teacher trains to its end
    }
    for (const double threshold : plan_.snapshot_accuracies)
      if (accuracy > threshold && !last_.contains(snapshot_file(threshold))) {
        last_[snapshot_file(threshold)] = static_cast<double>(step());
        nn::save_weights(*plan_.model, folder_ + "/" + snapshot_file(threshold), metadata());
      }
  }

  std::map<std::string, std::string> metadata() const {
    return {{"arch", s_.text(plan_.model_section + ".arch")},
            {"normalize", plan_.normalize.str()},
            {"arm", plan_.arm},
            {"seed", std::to_string(plan_.seed)},
            {"step", std::to_string(step())}};
  }

  void save_model() const {
    const MemoryRoleScope role(MemoryRole::kData);
    nn::save_weights(*plan_.model, folder_ + "/model.safetensors", metadata());
  }

  // -- the end ------------------------------------------------------------------------------------
  void finish() {
    fold();
    log_.training(trainer_, &sums_, &costs_);
    std::map<std::string, double> metrics;
    for (const auto& [name, value] : last_)
      if (!name.ends_with(".safetensors")) metrics[name] = value;
    if (stop_at_ > 0) {
      char name[32];
      std::snprintf(name, sizeof name, "steps_to_%g", stop_at_);
      metrics[name] = static_cast<double>(steps_to_ < 0 ? trainer_.steps_planned() : steps_to_);
    }
    if (plan_.final_metrics)
      for (const auto& [name, value] : plan_.final_metrics(plan_.model)) metrics[name] = value;
    const MemoryStatistics memory = memory_statistics(context_.device);
    log_.final_line(trainer_, sums_, metrics, memory, wall_before_ + seconds_since(start_));
    save_model();  // before the checkpoint, which says that all is done
    checkpoint(true);
    if (parity_) {  // its evaluations are too many to show
      char text[128];
      std::snprintf(text, sizeof text, "%s  %lld steps, accuracy %.4f", title_.c_str(),
                    static_cast<long long>(step()),
                    last_[context_.data->evaluation[0].name + ".accuracy"]);
      context_.progress->line(text + ("  " + costs_.text()));
    }
  }

  RunContext& context_;
  const TrainingPlan& plan_;
  const Settings& s_;
  std::string title_, folder_;
  bool parity_;
  Trainer trainer_;
  JobLog log_;
  StepSums sums_;
  StepCosts costs_;
  std::int64_t evaluate_steps_ = 1, checkpoint_steps_ = 0;
  double stop_at_ = 0;

  std::map<std::string, double> last_;  // newest evaluation, for the final line
  std::int64_t steps_to_ = -1;
  bool reached_ = false, finished_ = false;
  double wall_before_ = 0;
  Clock::time_point start_;
};

}  // namespace

std::string snapshot_file(double accuracy) {
  char name[48];
  std::snprintf(name, sizeof name, "above_%g.safetensors", accuracy);
  return name;
}

std::optional<JobState> read_job_state(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) return std::nullopt;
  const auto saved = nn::read_newest_valid(folder);
  if (!saved) return std::nullopt;
  const Json& state = saved->state;
  return JobState{state.at("step").as_integer(), state.at("finished").as_bool(),
                  state.at("lines").as_string(), state.at("data").as_string()};
}

Outcome run_job(RunContext& context, const TrainingPlan& plan, std::size_t log_job) {
  return Job(context, plan, log_job).run();
}

}  // namespace retort::tools
