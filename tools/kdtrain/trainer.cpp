#include "tools/kdtrain/trainer.h"

#include <algorithm>

#include "curriculum/sampling/sampler.h"
#include "engine/runtime/allocator.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {

Trainer::Trainer(const TrainingPlan& plan, const ExperimentData& data, Device device)
    : plan_(plan),
      s_(*plan.settings),
      device_(device),
      batch_(s_.integer(plan.section + ".batch")),
      dtype_(precision_of(s_, plan.section == "train" ? "train.precision" : "teacher.precision")),
      teacher_dtype_(precision_of(s_, "teacher.precision")),
      timer_(device) {
  plan.model->to(device);
  const std::int64_t samples = data.parity ? s_.integer("data.epoch_size") : plan.data->size();
  epoch_steps_ = (samples + batch_ - 1) / batch_;
  planned_ = planned_steps(s_, plan.section, samples);
  schedule_ = schedule_of(s_, plan.section, planned_);
  settings_.temperature = {static_cast<float>(s_.number("distill.temperature"))};
  settings_.divergence = divergence_of(s_);
  settings_.timer = &timer_;
  make_loader(data);
  staged_ = std::make_unique<distill::StagedDistillation>(
      *plan.model,
      std::vector<std::shared_ptr<const distill::Teacher>>(plan.teachers.begin(),
                                                           plan.teachers.end()),
      plan.stages,
      optimizer_factory(s_, plan.section, device == Device::kCuda && dtype_ == DType::kBF16),
      [this, parity = data.parity] { return calibration(parity); });
  if (device != Device::kCuda) return;
  const distill::GraphOptions graphs{.graph = s_.flag("train.graph"),
                                     .overlap = s_.flag("train.graph_overlap")};
  staged_->use_graphs(meter_, graphs);
  const auto images = std::dynamic_pointer_cast<const nn::ImageDataset>(plan.data);
  if (images && graphs.graph) feed_ = std::make_unique<nn::ImageFeed>(images, batch_options());
}

void Trainer::make_loader(const ExperimentData& data) {
  const nn::LoaderOptions options{.steps_per_epoch = epoch_steps_};
  if (data.parity) {
    batches_ = nn::sequential_plan(plan_.data->size(), batch_);
    loader_ = std::make_unique<nn::Loader>(plan_.data, batches_, options, batch_options());
    return;
  }
  std::vector<std::int64_t> order;
  if (plan_.curriculum) {
    order = plan_.curriculum->order.indices;
  } else {
    for (std::int64_t i = 0; i < plan_.data->size(); ++i) order.push_back(i);
  }
  if (plan_.curriculum && s_.text("distill.reliance.mode") != "off")
    reliance_.emplace(plan_.curriculum->confidence, order, batch_, reliance_options(s_));
  const auto sampler = std::make_shared<curriculum::Sampler>(
      std::move(order), sampler_options(s_, plan_.section, plan_.key, planned_));
  batches_ = [sampler](std::int64_t step) { return sampler->batch(step); };
  loader_ = std::make_unique<nn::Loader>(plan_.data, batches_, options, batch_options());
}

nn::BatchOptions Trainer::batch_options() const {
  nn::BatchOptions options;
  options.device = device_;
  options.dtype = dtype_;
  options.augment = nn::parse_augment(
      s_.text(plan_.section == "train" ? "data.augment" : "teacher.train.augment"));
  options.seed = plan_.key;
  options.normalize = plan_.normalize;
  if (!plan_.teachers.empty()) {
    options.teacher_normalize = plan_.teacher->normalize;
    options.teacher_dtype = teacher_dtype_;
  }
  return options;
}

Tensor Trainer::calibration(bool parity) const {
  const std::shared_ptr<const nn::Dataset> source =
      parity ? parity_stream(s_, derive_key(plan_.seed, "calibration")) : plan_.data;
  const std::int64_t count = std::min(s_.integer("distill.extraction.calibration"), source->size());
  nn::BatchOptions options = batch_options();
  options.augment = nn::Augment::kNone;
  const MemoryRoleScope role(MemoryRole::kData);
  return source->make_batch(nn::sequential_plan(count, count)(0), options).teacher_inputs;
}

std::vector<float> Trainer::lambda_of(const std::vector<std::int64_t>& samples) const {
  if (plan_.teachers.empty()) return {0.0f};
  if (!reliance_) return {static_cast<float>(s_.number("distill.lambda"))};
  if (reliance_->options().per_sample) return reliance_->of_samples(samples);
  return {static_cast<float>(reliance_->of_batch(samples))};
}

StepOutcome Trainer::step() {
  timer_.start();
  const std::int64_t at = steps_done();
  nn::Batch batch;  // 7 -> 1
  nn::FeedBatch place;
  if (feed_) {
    place = feed_->place(batches_, epoch_steps_, at);
    const auto begin = feed_->order().begin() + place.begin;
    batch.sample.assign(begin, begin + place.rows);
  } else {
    batch = loader_->at(at);
  }
  timer_.mark(distill::Phase::kData);
  learning_rate_ = schedule_.at(at);
  const distill::Stage& stage = staged_->stage();
  stage_name_ = stage.name;
  StepOutcome outcome;
  if (stage.loss == distill::StageLoss::kProjection) {
    outcome.lambda = 1;
  } else {
    settings_.lambda = stage.lambda ? std::vector<float>{*stage.lambda} : lambda_of(batch.sample);
    for (const float l : settings_.lambda) outcome.lambda += static_cast<double>(l);
    outcome.lambda /= static_cast<double>(settings_.lambda.size());
    if (reliance_ && !stage.lambda) outcome.clamped = reliance_->clamped(batch.sample);
  }
  outcome.samples = batch.size();
  if (feed_) {
    const auto next = feed_->place(at + 1);
    staged_->step(*feed_, place, settings_, learning_rate_, next ? &*next : nullptr);
    return outcome;
  }
  const distill::StepReport report = staged_->step(
      {batch.inputs, batch.teacher_inputs, batch.targets, batch.sample, batch.augment}, settings_,
      learning_rate_);                              // 2 .. 6
  if (device_ == Device::kCpu) meter_.add(report);  // on CUDA the stages do
  return outcome;
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
