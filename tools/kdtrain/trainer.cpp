#include "tools/kdtrain/trainer.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "curriculum/sampling/sampler.h"
#include "curriculum/schedules/cutoff.h"
#include "engine/runtime/allocator.h"
#include "nn/checkpoint/weights.h"
#include "nn/data/drawn.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {

std::string SnapshotRule::name() const {
  if (step > 0) return "step_" + std::to_string(step);
  char text[48];  // all digits: rules that differ have files of their own
  const auto [end, error] = std::to_chars(text, text + sizeof text, accuracy_above);
  return "above_" + std::string(text, end);
}

Trainer::Trainer(const TrainingPlan& plan, Device device)
    : plan_(plan),
      s_(*plan.settings),
      device_(device),
      batch_(s_.integer(plan.section + ".batch")),
      timer_(device) {
  plan.model->to(device);
  epoch_steps_ = epoch_steps(s_, plan.section, *plan.data);
  planned_ = planned_steps(s_, plan.section, *plan.data);
  const double cutoff = s_.number("distill.cutoff");  // 0 and 1: never
  cutoff_ = curriculum::cutoff_step(cutoff == 0 ? 1 : cutoff, planned_);
  schedule_ = schedule_of(s_, plan.section, planned_);
  settings_.temperature = {static_cast<float>(s_.number("distill.temperature"))};
  settings_.micro_batch = s_.integer(plan.section + ".micro_batch");
  settings_.timer = &timer_;
  make_batches();
  std::vector<distill::RunTeacher> teachers;
  for (const auto& teacher : plan.teachers) teachers.push_back({teacher, 1});
  staged_ = std::make_unique<distill::StagedDistillation>(
      *plan.model, std::move(teachers), plan.stages,
      optimizer_factory(s_, plan.section,
                        device == Device::kCuda && plan.reading.dtype == DType::kBF16),
      [this] { return calibration(); });
  const distill::GraphOptions graphs{.graph = s_.flag("train.graph"),
                                     .overlap = s_.flag("train.graph_overlap")};
  staged_->use_meter(meter_, graphs);
  if (device == Device::kCuda && graphs.graph) feed_ = loader_->source().device_feed();
}

void Trainer::make_batches() {
  const std::shared_ptr<const nn::Source> source = plan_.data->source(source_options());
  const nn::LoaderOptions options{.steps_per_epoch = epoch_steps_,
                                  .prefetch = s_.flag("train.prefetch")};
  if (plan_.data->facts().endless()) {
    batches_ = nn::sequential_plan(plan_.data->facts().indices(), batch_);
    loader_ = std::make_unique<nn::Loader>(source, batches_, options);
    return;
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(plan_.data->size()));
  std::iota(order.begin(), order.end(), 0);
  if (plan_.curriculum) {
    order = plan_.curriculum->curriculum.order.indices;  // without what cannot be scored
    if (s_.text(plan_.section + ".order") != "curriculum") std::sort(order.begin(), order.end());
  }
  const auto sampler = std::make_shared<curriculum::Sampler>(
      order, sampler_options(s_, plan_.section, plan_.key, planned_, *plan_.data));
  if (plan_.curriculum && s_.text("distill.reliance.mode") != "off") {
    const curriculum::Curriculum& c = plan_.curriculum->curriculum;
    if (s_.text(plan_.section + ".order") == "shuffle") {  // as the first epoch is fed
      order.clear();
      for (std::int64_t step = 0; step < sampler->batches_per_epoch(); ++step)
        for (const std::int64_t i : sampler->batch(step)) order.push_back(i);
    }
    reliance_.emplace(c.confidence, order, batch_, reliance_options(s_), c.excluded);
  }
  batches_ = [sampler](std::int64_t step) { return sampler->batch(step); };
  loader_ = std::make_unique<nn::Loader>(source, batches_, options);
}

nn::SourceOptions Trainer::source_options() const {
  nn::SourceOptions options;
  options.device = device_;
  options.seed = plan_.key;
  options.treatment = options_of(s_, plan_.section == "train" ? "data" : "teacher.train",
                                 nn::data_kinds().at(s_.text("data.format")).treatment);
  options.readings = {plan_.reading};
  if (!plan_.teachers.empty()) options.readings.push_back(plan_.teacher->reading);
  return options;
}

nn::Batch Trainer::calibration() const {
  nn::SourceOptions options = source_options();
  options.treatment = {};
  const std::uint64_t key = derive_key(plan_.seed, "calibration");
  const std::int64_t count = s_.integer("distill.extraction.calibration");
  const MemoryRoleScope role(MemoryRole::kData);
  if (plan_.data->facts().endless()) {  // every sample is drawn
    options.seed = key;
    return nn::first_samples(*plan_.data->source(options), count);
  }
  return plan_.data->source(options)->make(
      nn::drawn_samples(plan_.data->size(), count, key, "calibration"));
}

// The teacher's share of this step, and what is told of it.
void Trainer::set_reliance(const distill::Stage& stage, std::int64_t step,
                           std::span<const std::int64_t> samples) {
  settings_.told.clear();
  settings_.lambda = {0.0f};
  if (plan_.teachers.empty() || stage.partial()) return;
  if (stage.lambda)
    settings_.lambda = {*stage.lambda};
  else if (step >= cutoff_)
    settings_.lambda = {0.0f};
  else if (!reliance_)
    settings_.lambda = {static_cast<float>(lambda_of(s_))};
  else if (reliance_->options().per_sample)
    settings_.lambda = reliance_->of_samples(samples);
  else
    settings_.lambda = {static_cast<float>(reliance_->of_batch(samples))};
  double mean = 0;
  for (const float l : settings_.lambda) mean += static_cast<double>(l);
  settings_.told.emplace_back("lambda", mean / static_cast<double>(settings_.lambda.size()));
  if (reliance_)
    settings_.told.emplace_back("fraction_clamped", stage.lambda ? 0 : reliance_->clamped(samples));
}

std::int64_t Trainer::step() {
  timer_.start();
  const std::int64_t at = steps_done();
  nn::Batch batch;  // 7 -> 1
  nn::FeedBatch place;
  std::span<const std::int64_t> samples;
  if (feed_) {
    place = feed_->place(batches_, epoch_steps_, at);
    samples =
        std::span(feed_->order())
            .subspan(static_cast<std::size_t>(place.begin), static_cast<std::size_t>(place.rows));
  } else {
    batch = loader_->at(at);
    // What a text's model draws in training: by the sample and this step.
    if (nn::Inputs& own = batch.inputs[0]; own.starts.defined()) own.key(batch.sample, at);
    samples = batch.sample;
  }
  timer_.mark(distill::Phase::kData);
  learning_rate_ = schedule_.at(at);
  const distill::Stage& stage = staged_->stage();
  stage_name_ = stage.name;
  stage_of_step_ = staged_->stage_index();
  set_reliance(stage, at, samples);
  const auto count = static_cast<std::int64_t>(samples.size());
  if (feed_) {
    const auto next = feed_->place(at + 1);
    staged_->step(*feed_, place, settings_, learning_rate_, next ? &*next : nullptr);
  } else {
    staged_->step(batch, settings_, learning_rate_);  // 2 .. 6
  }
  return count;
}

nn::CheckpointContents Trainer::checkpoint(Json state,
                                           std::map<std::string, std::string> metadata) const {
  const MemoryRoleScope role(MemoryRole::kData);  // copies on their way to the disk
  nn::CheckpointContents contents;
  contents.step = steps_done();
  contents.state = std::move(state);
  contents.files.push_back({"model", nn::weights_of(*plan_.model), std::move(metadata)});
  contents.files.push_back({"stages", staged_->state()});  // with the optimizer's
  return contents;
}

void Trainer::restore(const nn::FoundCheckpoint& checkpoint) {
  nn::restore_checkpoint(checkpoint, {{"", plan_.model.get()}}, nullptr);
  staged_->load_state(read_safetensors(checkpoint.file("stages")));
}

}  // namespace retort::tools
