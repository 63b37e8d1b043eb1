#include "tools/kdtrain/plan.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/common/philox.h"
#include "tools/kdtrain/plan_measure.h"
#include "tools/kdtrain/step_costs.h"
#include "tools/kdtrain/teachers.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

constexpr auto kWorkspace = static_cast<std::size_t>(MemoryRole::kWorkspace);

std::size_t total(const RoleBytes& bytes) {
  std::size_t sum = 0;
  for (const std::size_t b : bytes) sum += b;
  return sum;
}

// Arms with equal texts do the same work in a step: order, lambda, rates cost nothing.
std::string work_of(const Settings& s) {
  std::string text = uses_teacher(s) ? "teacher" : "alone";
  for (const char* key :
       {"data.augment", "student.arch", "student.shortcut", "student.hidden", "student.normalize",
        "train.batch", "train.optimizer", "train.precision", "distill.method", "distill.divergence",
        "distill.extraction.variant", "distill.extraction.width", "distill.extraction.steps",
        "distill.extraction.window", "distill.extraction.calibration", "distill.extraction.teacher",
        "distill.progressive.accuracies", "distill.progressive.steps"})
    text += "|" + to_toml(s.value(key));
  for (const char* key : {"train.momentum", "train.clip_norm"})
    text += s.number(key) > 0 ? "|1" : "|0";
  return text;
}

class Planner {
 public:
  Planner(const Recipe& recipe, Device device)
      : recipe_(recipe), base_(recipe.base), device_(device), jobs_(recipe) {}

  RunPlan run() {
    const auto start = Clock::now();
    reset_peak_memory(device_);
    data_ = open_data(base_, jobs_.trains_teacher());
    jobs_.check_lengths(data_);
    plan_.description = data_.description;
    PhasePlan& reading = add_phase("reading the data", 1);
    reading.peak = memory_statistics(device_).peak_bytes;
    reading.by_role = memory_statistics(device_).peak_by_role;
    if (jobs_.needs_teacher()) {
      if (jobs_.trains_teacher()) plan_teachers();
      make_teachers();
    }
    plan_students();
    for (const PhasePlan& phase : plan_.phases) {
      plan_.peak = std::max(plan_.peak, phase.peak);
      plan_.seconds += phase.seconds;
    }
    for (const JobPlan& job : plan_.jobs) {
      const auto kept = static_cast<std::size_t>(base_.integer("train.checkpoint_keep"));
      plan_.disk_bytes +=
          static_cast<std::size_t>(job.count) * (job.model_bytes + kept * job.checkpoint_bytes);
    }
    plan_.measured_s = seconds_since(start);
    return std::move(plan_);
  }

 private:
  PhasePlan& add_phase(std::string name, int at_once) {
    PhasePlan phase;
    phase.name = std::move(name);
    phase.at_once = at_once;
    phase.resident = bytes_in_use(device_);
    phase.resident[kWorkspace] = 0;
    plan_.phases.push_back(std::move(phase));
    return plan_.phases.back();
  }

  // Jobs side by side: see Note [How the plan is measured].
  void weigh_phase(PhasePlan* phase, const std::vector<const JobPlan*>& jobs) const {
    std::vector<const JobPlan*> each;  // job by job, in the order in which they start
    for (const JobPlan* job : jobs)
      for (std::int64_t i = 0; i < std::min<std::int64_t>(job->count, phase->at_once); ++i)
        each.push_back(job);
    phase->by_role = phase->resident;
    phase->by_role[kWorkspace] = bytes_in_use(device_)[kWorkspace];
    phase->peak =
        total(phase->resident) + side_by_side(each, phase->at_once, [](const JobPlan& job) {
          return Need{job.steady + job.scratch, job.start + job.scratch};
        });
    for (std::size_t r = 0; r < phase->by_role.size(); ++r)
      phase->by_role[r] += side_by_side(each, phase->at_once, [r](const JobPlan& job) {
        return Need{job.steady_by_role[r], job.start_by_role[r]};
      });
  }

  struct Need {
    std::size_t steady, start;
  };
  template <class Of>
  static std::size_t side_by_side(const std::vector<const JobPlan*>& jobs, int at_once,
                                  const Of& need) {
    std::size_t starts = 0, steady = 0, extra = 0;
    std::vector<std::size_t> largest;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      const Need n = need(*jobs[i]);
      if (i < static_cast<std::size_t>(at_once)) starts += std::max(n.steady, n.start);
      largest.push_back(n.steady);
      extra = std::max(extra, n.start > n.steady ? n.start - n.steady : 0);
    }
    std::sort(largest.rbegin(), largest.rend());
    for (std::size_t i = 0; i < largest.size() && i < static_cast<std::size_t>(at_once); ++i)
      steady += largest[i];
    return std::max(starts, steady + extra);
  }

  std::size_t scratch_of_each(const PhasePlan& phase) const {
    return bytes_in_use(device_)[kWorkspace] / static_cast<std::size_t>(phase.at_once);
  }

  static std::int64_t evaluations(std::int64_t steps, std::int64_t every) {
    return steps / every + (steps % every != 0);
  }

  // The last stage goes on to the end; a stage that the run ends in is cut.
  static void share_steps(JobPlan* job) {
    std::int64_t left = job->steps;
    for (std::size_t i = 0; i < job->stages.size(); ++i) {
      StagePlan& stage = job->stages[i];
      stage.steps = i + 1 == job->stages.size() ? left : std::min(left, stage.steps);
      left -= stage.steps;
    }
  }

  // -- teachers -----------------------------------------------------------------------------------
  void plan_teachers() {
    const std::size_t count = jobs_.teacher_seeds().size();
    PhasePlan& phase = add_phase("training teachers", jobs_at_once(base_, device_, count));
    JobPlan job;
    job.arm = "teacher";
    job.count = static_cast<std::int64_t>(count);
    job.steps = jobs_.teacher_steps(data_);
    job.batch = base_.integer("teacher.train.batch");
    measure_job({&data_, device_, phase.at_once,
                 [&](std::shared_ptr<void>*) { return jobs_.teacher_plan(0, data_); }},
                &job);
    job.scratch = scratch_of_each(phase);
    share_steps(&job);
    const std::int64_t often = base_.integer("teacher.train.checkpoint_steps");
    job.evaluations = evaluations(job.steps, often > 0 ? often : job.steps_per_epoch);
    job.job_s = static_cast<double>(job.steps) * job.stages[0].step_s +
                static_cast<double>(job.evaluations) * job.evaluation_s;
    phase.seconds = job.job_s * std::ceil(static_cast<double>(count) / phase.at_once);
    plan_.jobs.push_back(job);
    weigh_phase(&phase, {&plan_.jobs.back()});
  }

  std::shared_ptr<distill::Teacher> fresh(std::size_t t, const std::string& name) {
    std::shared_ptr<nn::Model> model = jobs_.fresh_teacher(t, data_);
    model->to(device_);
    return std::make_shared<distill::Teacher>(std::move(model), name);
  }

  // Teachers as the students' phase will hold them, with fresh weights.
  void make_teachers() {
    PhasePlan& phase = add_phase("preparing teachers", 1);
    reset_peak_memory(device_);
    for (std::size_t t = 0; t < jobs_.teacher_seeds().size(); ++t) {
      TeacherSet set;
      set.seed = jobs_.teacher_seeds()[t];
      set.normalize = normalize_of(base_.value("teacher.normalize"));
      set.dtype = precision_of(base_, "teacher.precision");
      set.final = fresh(t, "teacher");
      for (const double accuracy : jobs_.snapshot_accuracies())
        set.snapshots[accuracy] = fresh(t, "snapshot");
      if (jobs_.wants_untrained()) set.untrained = fresh(t, "untrained");
      const std::int64_t batch = base_.integer("train.evaluate_batch");
      std::int64_t samples = 0;
      for (const EvaluationSet& evaluation : data_.evaluation) {
        std::vector<Tensor> logits;
        const std::int64_t n = evaluation.data->size();
        for (std::int64_t begin = 0; begin < n; begin += batch)
          logits.push_back(
              Tensor::zeros({std::min(batch, n - begin), data_.classes}, DType::kF32, device_));
        set.evaluation_logits.push_back(std::move(logits));
        samples += n;
      }
      const nn::Dataset& evaluated = *data_.evaluation.front().data;
      ask(set, evaluated, 512);  // preflight's batch
      double per_sample = ask(set, evaluated, batch);
      if (jobs_.wants_scores()) {
        samples += data_.student->size();
        per_sample = ask(set, *data_.student, batch);
      }
      phase.seconds += static_cast<double>(samples) * per_sample;
      if (jobs_.wants_scores()) set.statistics = made_up_scores();
      teachers_.push_back(std::move(set));
    }
    phase.peak = memory_statistics(device_).peak_bytes;
    phase.by_role = memory_statistics(device_).peak_by_role;
  }

  // Seconds per sample of the teacher in evaluation.
  double ask(const TeacherSet& set, const nn::Dataset& data, std::int64_t batch) const {
    const std::int64_t n = std::min(batch, data.size());
    nn::BatchOptions options;
    options.device = device_;
    options.dtype = set.dtype;
    options.normalize = set.normalize;
    const auto start = Clock::now();
    const nn::Batch rows = data.make_batch(nn::sequential_plan(n, n)(0), options);
    set.final->logits(rows.inputs).to(Device::kCpu);
    return seconds_since(start) / static_cast<double>(n);
  }

  // Any order does: which samples come first costs nothing.
  curriculum::SampleStatistics made_up_scores() const {
    std::vector<float> logits;
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; i < data_.student->size(); ++i) {
      labels.push_back(data_.student->label(i));
      for (std::int64_t c = 0; c < data_.classes; ++c)
        logits.push_back(static_cast<float>(philox(1, static_cast<std::uint32_t>(i),
                                                   static_cast<std::uint32_t>(c), 0, 0)
                                                .v[0]) *
                         0x1p-30f);
    }
    return curriculum::statistics_of_logits(logits, data_.classes, labels);
  }

  // -- students -----------------------------------------------------------------------------------
  // The teachers of one dry run: models shared, cache its own, so that its teacher passes are real.
  std::shared_ptr<TeacherSet> own_teacher(std::size_t t) const {
    auto set = std::make_shared<TeacherSet>(teachers_[t]);
    set->final = std::make_shared<distill::Teacher>(*set->final);
    set->final->use_cache(make_cache(base_, data_, device_, *set->final));
    return set;
  }

  void plan_students() {
    const std::vector<StudentJob>& all = jobs_.students();
    PhasePlan& phase = add_phase("students", jobs_at_once(base_, device_, all.size()));
    std::vector<JobPlan> arms;
    double seconds = 0, longest = 0;
    for (const Arm& arm : recipe_.arms) {
      const auto first = std::find_if(all.begin(), all.end(),
                                      [&](const StudentJob& job) { return job.arm == &arm; });
      JobPlan job;
      job.arm = arm.name;
      job.count = static_cast<std::int64_t>(all.size() / recipe_.arms.size());
      job.steps = jobs_.student_steps(*first, data_);
      job.batch = arm.settings.integer("train.batch");
      plan_arm(*first, phase.at_once, &job);
      job.scratch = scratch_of_each(phase);
      seconds += static_cast<double>(job.count) * job.job_s;
      longest = std::max(longest, job.job_s);
      arms.push_back(std::move(job));
    }
    seconds += cached_teacher_seconds(arms);
    phase.seconds = std::max(longest, seconds / phase.at_once);
    const std::size_t from = plan_.jobs.size();
    plan_.jobs.insert(plan_.jobs.end(), arms.begin(), arms.end());
    std::vector<const JobPlan*> of_phase;
    for (std::size_t i = from; i < plan_.jobs.size(); ++i) of_phase.push_back(&plan_.jobs[i]);
    weigh_phase(&phase, of_phase);
  }

  void plan_arm(const StudentJob& student, int at_once, JobPlan* job) {
    const Settings& s = student.arm->settings;
    std::shared_ptr<const Curriculum> curriculum;
    if (s.text("train.order") == "curriculum")
      curriculum = make_curriculum(s, "plan", teachers_[student.teacher], *data_.student);
    const auto [known, is_new] = measured_.try_emplace(work_of(s));
    if (is_new)
      measure_job({&data_, device_, at_once,
                   [&](std::shared_ptr<void>* keep) {
                     if (teachers_.empty())
                       return jobs_.student_plan(student, data_, nullptr, nullptr);
                     const auto set = own_teacher(student.teacher);
                     *keep = set;
                     return jobs_.student_plan(student, data_, set.get(), curriculum);
                   }},
                  &known->second);
    const JobPlan asked = *job;
    *job = known->second;
    job->arm = asked.arm;
    job->count = asked.count;
    job->steps = asked.steps;
    job->batch = asked.batch;
    share_steps(job);
    const std::int64_t often = s.integer("train.evaluate_steps");
    job->evaluations = evaluations(job->steps, often > 0 ? often : job->steps_per_epoch);
    plan_.may_stop_early |= s.number("train.stop_at_accuracy") > 0;
    job->job_s = static_cast<double>(job->evaluations) * job->evaluation_s;
    for (const StagePlan& stage : job->stages)
      job->job_s += static_cast<double>(stage.steps) *
                    (stage.step_s - (is_cached(*job) ? stage.teacher_s : 0));
  }

  bool is_cached(const JobPlan& job) const {
    return !teachers_.empty() && job.stages.front().teacher_s > 0 &&
           make_cache(base_, data_, device_, *teachers_[0].final) != nullptr;
  }

  // The teacher's passes that fill the cache: once for each teacher and seed, or once for each
  // teacher where images are never augmented. Rows beyond its size are computed by every job.
  double cached_teacher_seconds(const std::vector<JobPlan>& arms) {
    double per_sample = 0, rows_wanted = 0, rows_different = 0;
    const double seeds = static_cast<double>(base_.integers("seeds").size()),
                 teachers = static_cast<double>(teachers_.size());
    for (std::size_t a = 0; a < arms.size(); ++a) {
      const JobPlan& job = arms[a];
      if (!is_cached(job)) continue;
      const double samples = static_cast<double>(job.steps * job.batch);
      const bool augmented = recipe_.arms[a].settings.text("data.augment") != "none";
      const double own = augmented ? samples * seeds
                                   : std::min(samples, static_cast<double>(data_.student->size()));
      per_sample =
          std::max(per_sample, job.stages.front().teacher_s / static_cast<double>(job.batch));
      rows_wanted += samples * seeds * teachers;
      rows_different = std::max(rows_different, own * teachers);
    }
    if (rows_wanted == 0) return 0;
    constexpr double kRowBytes = 16;  // key beside the logits
    const double row = static_cast<double>(data_.classes) * 4 + kRowBytes,
                 room = teachers * std::floor(base_.number("teacher.cache_mib") * 1048576 / row),
                 held = std::min(rows_different, room);
    plan_.cache_bytes = static_cast<std::size_t>(held * row);
    const double computed = held + (rows_wanted - rows_wanted * held / rows_different);
    return per_sample * computed;
  }

  const Recipe& recipe_;
  const Settings& base_;
  Device device_;
  JobList jobs_;
  ExperimentData data_;
  std::vector<TeacherSet> teachers_;
  std::map<std::string, JobPlan> measured_;  // by work_of
  RunPlan plan_;
};

}  // namespace

RunPlan make_plan(const Recipe& recipe, Device device) { return Planner(recipe, device).run(); }

}  // namespace retort::tools
