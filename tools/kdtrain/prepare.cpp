#include "tools/kdtrain/prepare.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "distill/metrics/metric.h"
#include "engine/io/file.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/models.h"

namespace retort::tools {
namespace {

// Batch norm has the variance 0 in every channel where it sees one value of each: after one step
// from their start, 1, running variances are all 1 - momentum. The layer's name, or "".
std::string layer_with_one_value(nn::Model& model) {
  constexpr float kAfterOne = 0.9F;
  for (const auto& [name, tensor] : model.named_buffers()) {
    if (!name.ends_with("running_var")) continue;
    const std::vector<float> values = tensor.to_vector<float>();
    if (std::all_of(values.begin(), values.end(),
                    [](float v) { return std::abs(v - kAfterOne) < 1e-6F; }))
      return name.substr(0, name.rfind('.'));
  }
  return "";
}

class Checks {
 public:
  Checks(const JobList& jobs, const ExperimentData& data) : jobs_(jobs), data_(data) {}

  void statistics() {
    for (std::size_t m = 0; m < jobs_.models().size(); ++m) {
      const SourceModel& model = jobs_.models()[m];
      if (model.given || (model.is_teacher && data_.teacher == nullptr)) continue;
      statistics_of(*model.settings, model.section(), model.training(),
                    model.is_teacher ? *data_.teacher : *data_.student);
    }
    for (const Arm& arm : jobs_.recipe().arms)
      statistics_of(arm.settings, "student", "train", *data_.student);
  }

  void best() {
    for (const Arm& arm : jobs_.recipe().arms) best_of(arm.settings);
    for (const ModelSpec& model : jobs_.recipe().models) best_of(model.settings);
  }

  void vocabularies() {
    for (const Arm& arm : jobs_.recipe().arms)
      check_vocabularies(arm.settings,
                         jobs_.models().empty() ? std::vector<std::string>{"student"}
                                                : std::vector<std::string>{"teacher", "student"},
                         *data_.student);
  }

  void initial_weights() {
    const std::string& start = jobs_.settings().text("teacher.train.weights");
    if (data_.teacher != nullptr && !start.empty())
      nn::load_weights(*build_model(jobs_.settings(), "teacher", data_.facts(), 0),
                       find_weights(jobs_.settings(), start));
    for (const Arm& arm : jobs_.recipe().arms) weights_of(arm.settings);
    for (const ModelSpec& model : jobs_.recipe().models) weights_of(model.settings);
  }

 private:
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
  void weights_of(const Settings& s) {
    const std::string& file = s.text("student.weights");
    if (file.empty()) return;
    nn::load_weights(*build_model(s, "student", data_.facts(), 0),
                     find_weights(jobs_.settings(), file));
  }

  // Only a single sample can leave one value to a channel.
  void statistics_of(const Settings& s, const std::string& section, const std::string& training,
                     const nn::Dataset& samples) {
    const std::int64_t batch = s.integer(training + ".batch"),
                       micro = s.integer(training + ".micro_batch"),
                       slices = s.integer(training + ".slices"), size = samples.facts().epoch_size,
                       all = samples.facts().endless() ? batch : size;
    if (smallest_part(all, batch, micro, slices) > 1) return;
    const std::string asked = section + "|" + cost_signature(s);
    if (!seen_.insert(asked).second) return;
    const auto model = build_model(s, section, samples.facts(), 1);
    if (model->named_buffers().empty()) return;  // no batch norm
    model->train(true);
    const nn::Reading reading = reading_of(s, section, *data_.kind, DType::kF32);
    model->forward(nn::first_samples(*plain_source(samples, Device::kCpu, {reading}), 1).inputs[0]);
    const std::string layer = layer_with_one_value(*model);
    if (layer.empty()) return;
    if (smallest_part(all, batch, micro) > 1) {
      const std::string key = training + ".slices";
      fail(ErrorCode::kUsage, jobs_.recipe().place(s, key), ": ", key, " = ", slices,
           " leaves one sample to a slice (or to its last micro-batch), of a batch of ", batch,
           " or of the last of ", size,
           " samples: batch norm has one value of each channel there (", layer, " of ",
           s.text(section + ".arch"), "), and no variance: expected fewer slices");
    }
    const bool whole = batch == 1 || micro == 1;
    const std::string key = training + (micro == 1 ? ".micro_batch" : ".batch");
    fail(ErrorCode::kUsage, jobs_.recipe().place(s, key), ": ", key, " = ", s.integer(key),
         whole ? "" : join(" leaves one of ", size, " samples to the last part of an epoch"),
         ": batch norm has one value of each channel there (", layer, " of ",
         s.text(section + ".arch"), "), and no variance: expected ",
         whole ? "at least 2" : "a batch that leaves another rest");
  }

  const JobList& jobs_;
  const ExperimentData& data_;
  std::set<std::string> seen_;
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

OpenedTask open_task(const JobList& jobs, bool first, Device device) {
  OpenedTask task;
  task.data = open_data(jobs.settings(), first && jobs.trains_teacher());
  jobs.check_lengths(task.data);
  jobs.check_device(device);
  Checks checks(jobs, task.data);
  checks.best();
  checks.initial_weights();
  checks.vocabularies();
  checks.statistics();
  task.sets.resize(jobs.models().size());
  for (std::size_t m = 0; m < jobs.models().size(); ++m)
    if (jobs.models()[m].given)
      task.sets[m].push_back(load_teacher_set(
          jobs, m, 0, task.data, device,
          {find_weights(jobs.settings(), jobs.settings().text("teacher.weights")), ""}));
  return task;
}

void check_files(const Recipe& recipe) {
  const std::vector<Recipe> recipes = recipes_in_tasks(recipe);
  for (std::size_t task = 0; task < recipes.size(); ++task)
    open_task(JobList(recipes, task), task == 0, Device::kCpu);
}

}  // namespace retort::tools
