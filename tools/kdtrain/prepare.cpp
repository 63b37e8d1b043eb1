#include "tools/kdtrain/prepare.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "distill/metrics/metric.h"
#include "engine/autograd/autograd.h"
#include "nn/checkpoint/weights.h"
#include "nn/layers/batch_norm.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/ranks.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

// Up to so many values of a channel, its variance is off by half and more.
constexpr std::int64_t kFewValues = 8;

// The batch norm that sees the fewest values of a channel.
struct FewestValues {
  std::string layer;             // "": the model has none
  std::int64_t of_a_sample = 0;  // values
};

FewestValues fewest_values(nn::Model& model, const nn::Source& samples) {
  if (model.named_buffers().empty()) return {};  // no batch norm
  constexpr std::int64_t kTwice[] = {0, 0};      // of one sample alone there may be no statistics
  const nn::BatchNormWatch watch;
  model.train(true);
  const NoGrad no_grad;
  nn::Batch batch = samples.make(kTwice);
  if (nn::Inputs& own = batch.inputs[0]; own.starts.defined()) own.key(batch.sample, 0);
  model.forward(batch.inputs[0]);
  FewestValues fewest;
  for (const auto& seen : watch.seen()) {
    const std::int64_t values = seen.values / 2;
    if (!fewest.layer.empty() && values >= fewest.of_a_sample) continue;
    fewest.of_a_sample = values;
    for (const auto& [name, tensor] : model.named_buffers())
      if (tensor.raw() == seen.running_var.raw()) fewest.layer = name.substr(0, name.rfind('.'));
  }
  return fewest;
}

class Checks {
 public:
  Checks(const JobList& jobs, OpenedTask* task) : jobs_(jobs), data_(task->data), task_(*task) {}

  void statistics() {
    for (std::size_t m = 0; m < jobs_.models().size(); ++m) {
      const SourceModel& model = jobs_.models()[m];
      if (!model.trained) continue;
      statistics_of(model.name, *model.settings, model.section(), model.training(),
                    model.is_teacher ? *data_.teacher : *data_.student);
    }
    for (const Arm& arm : jobs_.recipe().arms)
      statistics_of(arm.name, arm.settings, "student", "train", *data_.student);
  }

  // What is wrong with how a model reads the data is found when a source is made.
  void readings() {
    for (const SourceModel& model : jobs_.models())
      reading_of_model(*model.settings, model.section());
    for (const Arm& arm : jobs_.recipe().arms) reading_of_model(arm.settings, "student");
  }

  void best() {
    for (const Arm& arm : jobs_.recipe().arms) best_of(arm.settings);
    for (const ModelSpec& model : jobs_.recipe().models) best_of(model.settings);
  }

  // Files of orders, and whether they are of these samples.
  void orders() {
    for (const Arm& arm : jobs_.recipe().arms) order_of(arm.settings);
    for (const ModelSpec& model : jobs_.recipe().models) order_of(model.settings);
  }

  void vocabularies() {
    for (const Arm& arm : jobs_.recipe().arms)
      check_vocabularies(arm.settings,
                         jobs_.models().empty() ? std::vector<std::string>{"student"}
                                                : std::vector<std::string>{"teacher", "student"},
                         *data_.student);
  }

  // What only the models themselves can say of a term: layers, heads.
  void terms() {
    for (const Arm& arm : jobs_.recipe().arms)
      terms_of(arm.settings, arm.teachers, "arm '" + arm.name + "': ");
    for (const SourceModel& model : jobs_.models())
      if (model.learns_from != SourceModel::kNothing)
        terms_of(*model.settings, {jobs_.models()[model.learns_from].name},
                 "model '" + model.name + "': ");
  }

  void initial_weights() {
    const std::string& start = jobs_.settings().text("teacher.train.weights");
    if (!start.empty() && !jobs_.settings().text("teacher.weights").empty())
      std::fprintf(stderr,
                   "kdtrain: note: teacher.weights is a trained teacher: teacher.train.weights is "
                   "not read\n");
    if (data_.teacher != nullptr && !start.empty() && !jobs_.teacher_continues())
      nn::load_weights(*build_model(jobs_.settings(), "teacher", data_.facts(), 0),
                       find_weights(jobs_.settings(), start));
    for (const Arm& arm : jobs_.recipe().arms) weights_of(arm.settings);
    for (const ModelSpec& model : jobs_.recipe().models) weights_of(model.settings);
    for (const Arm& arm : jobs_.recipe().arms) layers_of(arm.settings);
    for (const ModelSpec& model : jobs_.recipe().models) layers_of(model.settings);
  }

 private:
  void reading_of_model(const Settings& s, const std::string& section) {
    plain_source(*data_.student, Device::kCpu, {reading_of(s, section, *data_.kind, DType::kF32)});
  }
  void terms_of(const Settings& s, const Teachers& teachers, const std::string& who) {
    if (!uses_teacher(s)) return;
    const distill::Terms terms = tools::terms_of(s, 1);
    if (std::none_of(terms.begin(), terms.end(),
                     [](const auto& weighted) { return weighted.term->calibrates(); }))
      return;
    const auto from = std::find_if(jobs_.models().begin(), jobs_.models().end(),
                                   [&](const SourceModel& m) { return m.name == teachers.at(0); });
    if (!asked_of_terms_.insert(cost_signature(s) + "|" + from->name).second) return;
    const auto student = build_model(s, "student", data_.facts(), 1);
    const auto teacher = std::make_shared<const distill::Teacher>(
        build_model(*from->settings, from->section(), data_.facts(), 2));
    const auto source =
        plain_source(*data_.student, Device::kCpu,
                     {reading_of(s, "student", *data_.kind, DType::kF32),
                      reading_of(*from->settings, from->section(), *data_.kind, DType::kF32)});
    constexpr std::int64_t kTwice[] = {0, 0};
    const nn::Batch batch = source->make(kTwice);
    constexpr std::size_t kReads[] = {1};
    for (const auto& [weight, term] : terms) try {
        term->begin({*student, std::span(&teacher, 1), kReads, batch}, false);
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kUsage) throw;
        const std::string key = "distill." + term->name() + ".weight";
        fail(ErrorCode::kUsage,
             find_key(key) == nullptr ? jobs_.recipe().source : jobs_.recipe().place(s, key), ": ",
             who, error.what());
      }
  }

  void best_of(const Settings& s) {
    const std::string& metric = s.text("train.keep_best");
    if (metric.empty()) return;
    const distill::MetricName name = distill::parse_metric_name(metric);
    nn::Strings sets;
    for (const EvaluationSet& set : data_.evaluation) sets.push_back(set.name);
    const bool known = name.kind != nullptr && name.kind->of &&
                       name.kind->better != distill::Better::kNeither &&
                       std::find(sets.begin(), sets.end(), name.set) != sets.end();
    RETORT_CHECK(known, jobs_.recipe().place(s, "train.keep_best"),
                 ": train.keep_best: expected SPLIT.METRIC with a split of ", to_toml(sets),
                 " and a metric of which more or less is better, such as \"", sets.front(),
                 ".accuracy\", found ", to_toml(Value(escaped(metric))));
  }
  void order_of(const Settings& s) {
    if (has_curriculum(s) && s.text("curriculum.scorer") == curriculum::kScorerFile)
      make_curriculum(s, "", {}, *data_.student, 0);
  }
  void weights_of(const Settings& s) {
    const std::string& file = s.text("student.weights");
    if (file.empty()) return;
    nn::load_weights(*build_model(s, "student", data_.facts(), 0),
                     find_weights(jobs_.settings(), file));
  }

  // Layers of a model that is trained first: by shape, with fresh weights in place of those to come.
  void layers_of(const Settings& s) {
    const std::string& from = s.text("student.init");
    for (std::size_t m = 0; m < jobs_.models().size(); ++m) {
      if (jobs_.models()[m].name != from) continue;
      try {
        start_from_layers(*build_model(s, "student", data_.facts(), 0),
                          *jobs_.fresh_model(m, 0, data_), s);
      } catch (const Error& e) {
        fail(e.code(), jobs_.recipe().place(s, "student.init"), ": student.init: ", e.what());
      }
    }
  }

  // A sample has at least one value of each channel.
  void statistics_of(const std::string& who, const Settings& s, const std::string& section,
                     const std::string& training, const nn::Dataset& samples) {
    const std::int64_t batch = s.integer(training + ".batch"),
                       micro = s.integer(training + ".micro_batch"),
                       slices = s.integer(training + ".slices"),
                       size = samples.facts().endless() ? batch : samples.facts().epoch_size;
    // A run of less than an epoch has whole batches alone.
    const bool ends = planned_steps(s, training, samples) >= epoch_steps(s, training, samples);
    const std::int64_t least = smallest_part(ends ? size : batch, batch, micro, slices);
    if (least > kFewValues) return;
    const std::string asked = section + "|" + cost_signature(s);
    auto at = fewest_.find(asked);
    if (at == fewest_.end()) {
      const auto model = build_model(s, section, samples.facts(), 1);
      const nn::Reading reading = reading_of(s, section, *data_.kind, DType::kF32);
      at = fewest_
               .emplace(asked,
                        fewest_values(*model, *plain_source(samples, Device::kCpu, {reading})))
               .first;
    }
    const auto& [layer, of_a_sample] = at->second;
    const std::int64_t values = least * of_a_sample;
    if (layer.empty() || values > kFewValues) return;
    const bool cut = smallest_part(ends ? size : batch, batch, micro) > least,
               whole = !cut && (least == batch || least == micro);
    const std::string key = training + (cut              ? ".slices"
                                        : least == micro ? ".micro_batch"
                                                         : ".batch");
    const std::string what = join(
        key, " = ", s.integer(key),
        whole ? ""
        : cut ? join(" leaves ", least, " of ", batch, " samples, or of the last batch, to a part")
              : join(" leaves ", least, " of ", size, " samples to the last part"),
        ": batch norm has ", values == 1 ? "one value" : join(values, " values"),
        " of each channel there (", layer, " of ", s.text(section + ".arch"), ")");
    const std::string cure = whole ? "a larger one"
                             : cut ? "fewer slices"
                                   : "a batch that leaves another rest";
    if (values == 1)
      fail(ErrorCode::kUsage, jobs_.recipe().place(s, key), ": ", what,
           ", and no variance: expected ", whole ? "at least 2" : cure);
    const std::string note =
        join("few values: ", what, ", whose variance says little; ", cure, " would help");
    task_.notes[who].push_back(note);
    if (told_.insert(note).second && prints())
      std::fprintf(stderr, "kdtrain: note: %s\n", note.c_str());
  }

  const JobList& jobs_;
  const ExperimentData& data_;
  OpenedTask& task_;
  std::map<std::string, FewestValues> fewest_;  // by what is asked of a model
  std::set<std::string> asked_of_terms_;
  std::set<std::string> told_;
};

}  // namespace

std::int64_t smallest_part(std::int64_t samples, std::int64_t batch, std::int64_t micro_batch,
                           std::int64_t slices) {
  const auto last = [](std::int64_t all, std::int64_t each) {
    return each == 0 || all % each == 0 ? (each == 0 ? all : std::min(all, each)) : all % each;
  };
  // Slices are of two sizes that differ by one; those without samples do not pass.
  const auto of_batch = [&](std::int64_t rows) {
    const std::int64_t parts = std::clamp<std::int64_t>(slices, 1, rows), small = rows / parts;
    const std::int64_t part = last(small, micro_batch);
    return rows % parts == 0 ? part : std::min(part, last(small + 1, micro_batch));
  };
  return std::min(of_batch(std::min(samples, batch)), of_batch(last(samples, batch)));
}

OpenedTask open_task(const JobList& jobs, Device device, bool checks_given) {
  OpenedTask task;
  task.data = open_data(jobs.settings(), jobs.trains_teacher());
  jobs.check_lengths(task.data);
  jobs.check_device(device);
  Checks checks(jobs, &task);
  checks.readings();
  checks.best();
  checks.orders();
  checks.initial_weights();
  checks.vocabularies();
  checks.statistics();
  checks.terms();
  task.sets.resize(jobs.models().size());
  for (std::size_t m = 0; m < jobs.models().size(); ++m)
    if (jobs.models()[m].given)
      task.sets[m].push_back(load_teacher_set(
          jobs, m, 0, task.data, device,
          {find_weights(jobs.settings(), jobs.settings().text("teacher.weights")), ""}));
  if (checks_given) check_given(jobs, task.data, device, &task.sets);
  return task;
}

void check_given(const JobList& jobs, const ExperimentData& data, Device device, TeacherSets* sets,
                 const Once& once) {
  for (std::size_t m = 0; m < jobs.models().size(); ++m)
    if (jobs.models()[m].given) check_teacher_set(jobs, m, data, device, &sets->at(m).at(0), once);
}

void check_files(const Recipe& recipe) {
  const std::vector<Recipe> recipes = recipes_in_tasks(recipe);
  for (std::size_t task = 0; task < recipes.size(); ++task)
    open_task(JobList(recipes, task), Device::kCpu);
}

}  // namespace retort::tools
