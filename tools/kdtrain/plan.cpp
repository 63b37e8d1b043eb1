#include "tools/kdtrain/plan.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/common/philox.h"
#include "nn/data/drawn.h"
#include "tools/kdtrain/plan_measure.h"
#include "tools/kdtrain/plan_ranks.h"
#include "tools/kdtrain/prepare.h"
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

// -- jobs side by side: see Note [How the plan is measured] ----------------------------------------

struct Need {
  std::size_t steady, start;
};

template <class Of>
std::size_t side_by_side(const std::vector<const JobPlan*>& jobs, int at_once, const Of& need) {
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

void weigh_phase(Device device, const std::vector<const JobPlan*>& jobs, PhasePlan* phase) {
  std::vector<const JobPlan*> each;  // job by job, in the order in which they start
  for (const JobPlan* job : jobs)
    for (std::int64_t i = 0; i < std::min<std::int64_t>(job->count, phase->at_once); ++i)
      each.push_back(job);
  phase->by_role = phase->resident;
  phase->by_role[kWorkspace] = bytes_in_use(device)[kWorkspace];
  phase->peak = total(phase->resident) + side_by_side(each, phase->at_once, [](const JobPlan& job) {
                  return Need{job.steady + job.scratch, job.start + job.scratch};
                });
  for (std::size_t r = 0; r < phase->by_role.size(); ++r)
    phase->by_role[r] += side_by_side(each, phase->at_once, [r](const JobPlan& job) {
      return Need{job.steady_by_role[r], job.start_by_role[r]};
    });
}

// The last stage goes on to the end; a stage that the run ends in is cut.
void share_steps(JobPlan* job) {
  std::int64_t left = job->steps;
  for (std::size_t i = 0; i < job->stages.size(); ++i) {
    StagePlan& stage = job->stages[i];
    stage.steps = i + 1 == job->stages.size() ? left : std::min(left, stage.steps);
    left -= stage.steps;
  }
}

std::int64_t evaluations(std::int64_t steps, std::int64_t every) {
  return steps / every + (steps % every != 0);
}

// Any order does whose samples cost what others do.
curriculum::SampleStatistics made_up_scores(std::int64_t samples) {
  curriculum::SampleStatistics s;
  for (std::int64_t i = 0; i < samples; ++i) {
    const float p =
        static_cast<float>(philox(1, static_cast<std::uint32_t>(i), 0, 0, 0).v[0]) * 0x1p-33f +
        0.25f;  // in [1/4, 3/4)
    s.max_logit.push_back(p);
    s.max_prob.push_back(p);
    s.max_logprob.push_back(std::log(p));
    s.p_true.push_back(p);
    s.margin.push_back(p);
    s.entropy.push_back(1 - p);
    s.loss.push_back(1 - p);
    s.correct.push_back(i % 2 == 0 ? 1 : 0);
  }
  return s;
}

// The first steps are what is measured: of an order by the texts' length they would be the cheapest.
void mix(std::vector<std::int64_t>* order) {
  std::sort(order->begin(), order->end(), [](std::int64_t a, std::int64_t b) {
    const auto key = [](std::int64_t i) {
      return philox(2, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), 0, 0)
          .v[0];
    };
    return std::pair(key(a), a) < std::pair(key(b), b);
  });
}

// One task of the recipe.
class Planner {
 public:
  /// recipes: recipes_in_tasks(). Tasks after the first go on with its teacher.
  Planner(std::span<const Recipe> recipes, std::size_t task, Device device, int ranks)
      : recipe_(recipes[task]),
        base_(recipe_.base),
        device_(device),
        ranks_(ranks),
        jobs_(recipes, task) {}

  RunPlan run() {
    const auto start = Clock::now();
    reset_peak_memory(device_);
    data_ = open_task(jobs_, device_).data;
    plan_.description = data_.describe();
    PhasePlan& reading = add_phase("reading the data", 1);
    reading.peak = memory_statistics(device_).peak_bytes;
    reading.by_role = memory_statistics(device_).peak_by_role;
    for (std::size_t m = 0; m < jobs_.models().size(); ++m) {
      const SourceModel& model = jobs_.models()[m];
      if (model.trained) plan_model(m);
      make_teachers(m);
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
  // Ranks take part in one job at a time.
  int at_once(std::size_t jobs) const {
    return ranks_ > 1 ? 1 : jobs_at_once(base_, device_, jobs);
  }

  PhasePlan& add_phase(std::string name, int at_once) {
    PhasePlan phase;
    phase.name = std::move(name);
    phase.at_once = at_once;
    phase.resident = bytes_in_use(device_);
    phase.resident[kWorkspace] = 0;
    plan_.phases.push_back(std::move(phase));
    return plan_.phases.back();
  }

  std::size_t scratch_of_each(const PhasePlan& phase) const {
    return bytes_in_use(device_)[kWorkspace] / static_cast<std::size_t>(phase.at_once);
  }

  // -- models that others learn from --------------------------------------------------------------
  void plan_model(std::size_t m) {
    const SourceModel& model = jobs_.models()[m];
    const std::size_t count = jobs_.teacher_seeds().size();
    PhasePlan& phase = add_phase(model.is_teacher ? "training teachers" : "training " + model.name,
                                 at_once(count));
    JobPlan job;
    job.arm = model.name;
    job.count = static_cast<std::int64_t>(count);
    job.steps = jobs_.model_steps(m, data_);
    job.batch = model.settings->integer(model.training() + ".batch");
    measure_job(share_of_ranks({&data_, device_, phase.at_once,
                                [&](std::shared_ptr<void>* keep) {
                                  const auto from =
                                      teacher_for(model.learns_from, *model.settings, 0, keep);
                                  return jobs_.model_plan(m, 0, data_, from.first, from.second);
                                }},
                               ranks_),
                &job);
    count_in_ranks(*model.settings, model.training(), data_, device_, ranks_, &job);
    job.scratch = scratch_of_each(phase);
    share_steps(&job);
    const std::int64_t often = model.settings->integer(
        model.is_teacher ? "teacher.train.checkpoint_steps" : "train.evaluate_steps");
    job.evaluations = evaluations(job.steps, often > 0 ? often : job.steps_per_epoch);
    job.job_s = static_cast<double>(job.evaluations) * job.evaluation_s;
    for (const StagePlan& stage : job.stages)
      job.job_s += static_cast<double>(stage.steps) * stage.step_s;
    phase.seconds = job.job_s * std::ceil(static_cast<double>(count) / phase.at_once);
    plan_.jobs.push_back(job);
    weigh_phase(device_, {&plan_.jobs.back()}, &phase);
  }

  // A model as those who learn from it will hold it, with fresh weights.
  void make_teachers(std::size_t m) {
    PhasePlan& phase = add_phase("preparing " + jobs_.models()[m].name, 1);
    reset_peak_memory(device_);
    sets_.emplace_back();
    const std::int64_t batch = base_.integer("train.evaluate_batch");
    for (std::size_t t = 0; t < jobs_.teacher_seeds().size(); ++t) {
      TeacherSet set = fresh_teacher_set(jobs_, m, t, data_, device_);
      std::int64_t samples = 0;
      for (const EvaluationSet& evaluation : data_.evaluation) {
        const std::int64_t n = evaluation.data->size();
        set.answers.push_back(std::make_shared<distill::TeacherAnswers>(
            set.final, 1, static_cast<std::uint64_t>(base_.number("teacher.cache_mib") * 1048576)));
        samples += n;
      }
      const nn::Dataset& evaluated = *data_.evaluation.front().data;
      ask(set, evaluated, 512, 256);  // as preflight does
      double per_sample = ask(set, evaluated, batch, 0);
      if (jobs_.wants_scores_of(m)) {
        samples += data_.student->size();
        per_sample = ask(set, *data_.student, batch, 0);
      }
      phase.seconds += static_cast<double>(samples) * per_sample / ranks_;
      sets_.back().push_back(std::move(set));
    }
    phase.peak = memory_statistics(device_).peak_bytes;
    phase.by_role = memory_statistics(device_).peak_by_role;
  }

  // Seconds per sample of the teacher in evaluation: so many made ready at once, then in passes of so
  // many (0: as in evaluation).
  double ask(const TeacherSet& set, const nn::Dataset& data, std::int64_t batch,
             std::int64_t pass) const {
    if (pass == 0) pass = distill::samples_of_a_pass(data.facts(), device_);
    const auto start = Clock::now();
    const nn::Batch rows =
        plain_source(data, device_, {set.reading})
            ->make(nn::drawn_samples(data.size(), std::max(batch, pass), 0, "plan"));
    for (std::int64_t at = 0; at < rows.size(); at += pass)
      set.final->logits(rows.slice(at, std::min(at + pass, rows.size())).inputs[0])
          .to(Device::kCpu);
    return seconds_since(start) / static_cast<double>(rows.size());
  }

  // -- students -----------------------------------------------------------------------------------
  // What a job of one dry run learns from: models shared, cache its own, so that its teacher's
  // passes are real; and the order of its samples.
  std::pair<const TeacherSet*, std::shared_ptr<const NamedCurriculum>> teacher_for(
      std::size_t m, const Settings& s, std::size_t t, std::shared_ptr<void>* keep) const {
    std::shared_ptr<const NamedCurriculum> curriculum;
    if (has_curriculum(s)) {
      const auto made = std::make_shared<NamedCurriculum>(
          *make_curriculum(s, "plan", made_up_scores(data_.student->size()), *data_.student, 1));
      mix(&made->curriculum.order.indices);
      curriculum = made;
    }
    if (m == SourceModel::kNothing) return {nullptr, std::move(curriculum)};
    const auto set = std::make_shared<TeacherSet>(sets_[m][t]);
    set->final = std::make_shared<distill::Teacher>(*set->final);
    set->final->use_cache(make_cache(base_, data_, device_, *set));
    *keep = set;
    return {set.get(), std::move(curriculum)};
  }

  void plan_students() {
    const std::vector<StudentJob>& all = jobs_.students();
    PhasePlan& phase = add_phase("students", at_once(all.size()));
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
    weigh_phase(device_, of_phase, &phase);
  }

  void plan_arm(const StudentJob& student, int at_once, JobPlan* job) {
    const Settings& s = student.arm->settings;
    const auto [known, is_new] =
        measured_.try_emplace(cost_signature(s) + "|" + std::to_string(student.judge));
    if (is_new) {
      measure_job(
          share_of_ranks({&data_, device_, at_once,
                          [&](std::shared_ptr<void>* keep) {
                            const auto from = teacher_for(student.judge, s, student.teacher, keep);
                            return jobs_.student_plan(student, data_, from.first, from.second);
                          }},
                         ranks_),
          &known->second);
      count_in_ranks(s, "train", data_, device_, ranks_, &known->second);
    }
    const JobPlan asked = *job;
    *job = known->second;
    job->arm = asked.arm;
    job->count = asked.count;
    job->steps = asked.steps;
    job->batch = asked.batch;
    share_steps(job);
    const std::int64_t often = s.integer("train.evaluate_steps");
    job->evaluations = evaluations(job->steps, often > 0 ? often : job->steps_per_epoch);
    plan_.may_stop_early |=
        s.number("train.stop_at_accuracy") > 0 || !s.text("train.stop_at").empty();
    job->job_s = static_cast<double>(job->evaluations) * job->evaluation_s + scoring_s(s, *job);
    for (const StagePlan& stage : job->stages)
      job->job_s += static_cast<double>(stage.steps) *
                    (stage.step_s - (is_cached(*job) ? stage.teacher_s : 0));
  }

  // Seconds in which a student scores its samples: at the start, and where it is to score again.
  double scoring_s(const Settings& s, const JobPlan& job) const {
    if (!has_curriculum(s) || s.text("curriculum.scorer") != kScorerStudent) return 0;
    double evaluated = 0;
    for (const EvaluationSet& set : data_.evaluation)
      evaluated += static_cast<double>(set.data->size());
    const nn::Reading reading = reading_of(s, "student", *data_.kind, DType::kF32);
    double passes = 1;
    if (const std::int64_t often = s.integer("curriculum.rescore_epochs") * job.steps_per_epoch)
      passes += static_cast<double>(evaluations(job.steps, often) - 1);  // not behind the last step
    if (plain_source(*data_.student, device_, {reading})->facts().redrawn)
      passes *= static_cast<double>(s.integer("curriculum.maskings"));
    return passes * job.evaluation_s / evaluated * static_cast<double>(data_.student->size());
  }

  // Something is drawn for a sample in every epoch: a treatment asks for more than nothing.
  bool is_treated(const Settings& s) const {
    const auto& keys = data_.kind->treatment;
    return std::any_of(keys.begin(), keys.end(), [&](const nn::OptionSpec& spec) {
      return s.value("data." + spec.key) != spec.neutral.value_or(spec.fallback);
    });
  }

  bool is_cached(const JobPlan& job) const {
    return !sets_.empty() && job.stages.front().teacher_s > 0 &&
           keeps_answers(base_, data_, sets_[0][0]) &&
           make_cache(base_, data_, device_, sets_[0][0]) != nullptr;
  }

  // Of logits, or of what stands for them: one, or as many as a text has predicted words, on average
  // over some that are drawn.
  double rows_of_sample() const {
    const nn::DataFacts& facts = data_.facts();
    if (facts.task != nn::TextTask::kMaskedLm && facts.task != nn::TextTask::kCausalLm) return 1;
    const nn::Reading reading = reading_of(base_, "student", *data_.kind, DType::kF32);
    const nn::Batch some = plain_source(*data_.student, device_, {reading})
                               ->make(nn::drawn_samples(facts.size, 64, 0, "rows of a text"));
    return std::max(1.0, static_cast<double>(some.rows()) / static_cast<double>(some.size()));
  }

  // The teacher's passes that fill the cache: once for each teacher and seed, or once for each
  // teacher where images are never augmented. Rows beyond its size are computed by every job.
  double cached_teacher_seconds(const std::vector<JobPlan>& arms) {
    double per_sample = 0, rows_wanted = 0, rows_different = 0;
    const double seeds = static_cast<double>(base_.integers("seeds").size()),
                 teachers = static_cast<double>(jobs_.teacher_seeds().size());
    for (std::size_t a = 0; a < arms.size(); ++a) {
      const JobPlan& job = arms[a];
      if (!is_cached(job)) continue;
      const double samples = static_cast<double>(job.steps * job.batch);
      const bool augmented = is_treated(recipe_.arms[a].settings) || data_.facts().redrawn;
      const double own = augmented ? samples * seeds
                                   : std::min(samples, static_cast<double>(data_.student->size()));
      per_sample =
          std::max(per_sample, job.stages.front().teacher_s / static_cast<double>(job.batch));
      rows_wanted += samples * seeds * teachers;
      rows_different = std::max(rows_different, own * teachers);
    }
    if (rows_wanted == 0) return 0;
    constexpr double kRowBytes = 16;  // key beside the logits
    const auto cache = make_cache(base_, data_, device_, sets_[0][0]);
    const double row = rows_of_sample() * (static_cast<double>(cache->key().width) * 4 + kRowBytes),
                 room = teachers * std::floor(base_.number("teacher.cache_mib") * 1048576 / row),
                 held = std::min(rows_different, room);
    plan_.cache_bytes = static_cast<std::size_t>(held * row);
    const double computed = held + (rows_wanted - rows_wanted * held / rows_different);
    return per_sample * computed;
  }

  const Recipe& recipe_;
  const Settings& base_;
  Device device_;
  int ranks_;
  JobList jobs_;
  ExperimentData data_;
  TeacherSets sets_;
  std::map<std::string, JobPlan> measured_;  // by cost_signature
  RunPlan plan_;
};

}  // namespace

RunPlan make_plan(const Recipe& recipe, Device device, int ranks) {
  const std::vector<Recipe> recipes = recipes_in_tasks(recipe);
  RunPlan all;
  if (recipe.tasks.empty()) {
    all = Planner(recipes, 0, device, ranks).run();
    all.ranks = ranks;
    return all;
  }
  all.ranks = ranks;
  for (std::size_t i = 0; i < recipes.size(); ++i) {
    const TaskSpec& task = recipe.tasks[i];
    RunPlan one = Planner(recipes, i, device, ranks).run();
    if (all.description.empty()) all.description = one.description;
    for (JobPlan& job : one.jobs) {
      job.arm += " " + task.name;
      all.jobs.push_back(std::move(job));
    }
    for (PhasePlan& phase : one.phases) {
      phase.name = task.name + ": " + phase.name;
      all.phases.push_back(std::move(phase));
    }
    all.peak = std::max(all.peak, one.peak);
    all.cache_bytes = std::max(all.cache_bytes, one.cache_bytes);
    all.disk_bytes += one.disk_bytes;
    all.seconds += one.seconds;
    all.may_stop_early |= one.may_stop_early;
    all.measured_s += one.measured_s;
  }
  return all;
}

}  // namespace retort::tools
