#include "tools/kdtrain/trainer.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <tuple>

#include "curriculum/schedules/cutoff.h"
#include "distill/teacher/share_logits.h"
#include "engine/runtime/allocator.h"
#include "nn/checkpoint/weights.h"
#include "nn/data/drawn.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/training_settings.h"

namespace retort::tools {
namespace {

template <class T>
Tensor whole(const std::vector<T>& list) {
  return Tensor::from(list, {static_cast<std::int64_t>(list.size())});
}

// What the trainer reads of a curriculum, as a checkpoint keeps it.
NamedTensors state_of(const curriculum::Curriculum& c) {
  NamedTensors state{{"order", whole(c.order.indices)}, {"confidence", whole(c.confidence)}};
  if (!c.excluded.empty())
    state.emplace_back("excluded",
                       whole(std::vector<std::int64_t>(c.excluded.begin(), c.excluded.end())));
  return state;
}

curriculum::Curriculum curriculum_from(const NamedTensors& state) {
  curriculum::Curriculum c;
  for (const auto& [name, tensor] : state) {
    if (name == "order") c.order.indices = tensor.to_vector<std::int64_t>();
    if (name == "confidence") c.confidence = tensor.to_vector<float>();
    if (name != "excluded") continue;
    for (const std::int64_t flag : tensor.to_vector<std::int64_t>())
      c.excluded.push_back(static_cast<std::uint8_t>(flag));
  }
  RETORT_CHECK_AS(kBadInput, !c.order.indices.empty(),
                  "[resume] the checkpoint has no order of the samples");
  return c;
}

// Samples of a batch that this rank's slices hold.
std::pair<std::int64_t, std::int64_t> own_part(std::int64_t samples, std::int64_t slices,
                                               const Communicator& ranks) {
  const nn::RankExchange::Range own =
      nn::RankExchange::slices_of(slices, ranks.size(), ranks.rank());
  return {nn::slice_of(samples, slices, own.begin).first,
          nn::slice_of(samples, slices, own.end).first};
}

std::int64_t counted_rows(const nn::Batch& batch) {
  if (!batch.targets.defined()) return batch.rows();
  const std::vector<std::int32_t> targets = batch.targets.to_vector<std::int32_t>();
  return batch.rows() -
         std::count(targets.begin(), targets.end(), distill::DistillationLossArgs().ignore_index);
}

}  // namespace

std::string SnapshotRule::name() const {
  if (step > 0) return "step_" + std::to_string(step);
  char text[48];  // all digits: rules that differ have files of their own
  const auto [end, error] = std::to_chars(text, text + sizeof text, accuracy_above);
  return "above_" + std::string(text, end);
}

Trainer::Trainer(const TrainingPlan& plan, Device device, Communicator* ranks)
    : plan_(plan),
      s_(*plan.settings),
      device_(device),
      ranks_(ranks),
      slices_(slices_of(s_, plan.section)),
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
  if (ranks_ != nullptr) share_caches();
  staged_ = std::make_unique<distill::StagedDistillation>(
      *plan.model, std::move(teachers), plan.stages,
      optimizer_factory(s_, plan.section,
                        device == Device::kCuda && plan.reading.dtype == DType::kBF16, ranks),
      [this] { return calibration(); });
  const distill::GraphOptions graphs{.graph = s_.flag("train.graph"),
                                     .overlap = s_.flag("train.graph_overlap")};
  meter_.share_with(ranks);
  staged_->use_meter(meter_, graphs);
  if (device == Device::kCuda && graphs.graph) feed_ = loader_->source().device_feed();
}

void Trainer::make_batches() {
  batches_ = nn::sequential_plan(plan_.data->facts().indices(), batch_);
  loader_ = std::make_unique<nn::Loader>(
      plan_.data->source(source_options()), batches_,
      nn::LoaderOptions{.steps_per_epoch = epoch_steps_, .prefetch = s_.flag("train.prefetch")});
  load(batches_);
  if (plan_.data->facts().endless()) return;
  if (plan_.curriculum) return feed_in(plan_.curriculum->curriculum);
  std::vector<std::int64_t> order(static_cast<std::size_t>(plan_.data->size()));
  std::iota(order.begin(), order.end(), 0);
  feed(std::move(order));
}

void Trainer::feed_in(const curriculum::Curriculum& c) {
  const std::string& how = s_.text(plan_.section + ".order");
  std::vector<std::int64_t> order = c.order.indices;  // without what cannot be scored
  if (how != "curriculum") std::sort(order.begin(), order.end());
  const auto sampler = feed(order);
  if (plan_.rescore)
    rescore_steps_ = s_.integer("curriculum.rescore_epochs") * sampler->batches_per_epoch();
  if (s_.text("distill.reliance.mode") == "off") return;
  if (how == "shuffle") {  // as the first epoch is fed
    order.clear();
    for (std::int64_t step = 0; step < sampler->batches_per_epoch(); ++step)
      for (const std::int64_t i : sampler->batch(step)) order.push_back(i);
  }
  reliance_.emplace(c.confidence, order, batch_, reliance_options(s_), c.excluded);
}

std::shared_ptr<const curriculum::Sampler> Trainer::feed(std::vector<std::int64_t> order) {
  const auto sampler = std::make_shared<curriculum::Sampler>(
      std::move(order), sampler_options(s_, plan_.section, plan_.key, planned_, *plan_.data));
  batches_ = [sampler](std::int64_t step) { return sampler->batch(step); };
  if (ranks_ == nullptr)
    load(batches_);
  else  // the loader's own, in another thread: a sampler is asked by one at a time
    load([own = *sampler](std::int64_t step) { return own.batch(step); });
  return sampler;
}

// What the loader makes of it: all, or this rank's part.
void Trainer::load(const nn::BatchPlan& plan) {
  if (ranks_ == nullptr) return loader_->set_plan(plan);
  loader_->set_plan([plan, slices = slices_, ranks = ranks_](std::int64_t step) {
    std::vector<std::int64_t> samples = plan(step);
    const auto [first, last] = own_part(static_cast<std::int64_t>(samples.size()), slices, *ranks);
    // None of a batch of few: one is made all the same, for its shape.
    if (first == last) return std::vector<std::int64_t>{samples.front()};
    return std::vector<std::int64_t>(samples.begin() + first, samples.begin() + last);
  });
}

nn::Batch Trainer::batch_at(std::int64_t step) {
  nn::Batch batch = loader_->at(step);
  // What a text's model draws in training: by the sample and this step.
  if (nn::Inputs& own = batch.inputs[0]; own.starts.defined()) own.key(batch.sample, step);
  settings_.share.reset();
  if (ranks_ == nullptr) return batch;
  const auto samples = static_cast<std::int64_t>(batches_(step).size());
  const auto [first, last] = own_part(samples, slices_, *ranks_);
  if (first == last) batch = batch.slice(0, 0);
  settings_.share = share_of(batch, samples);
  return batch;
}

// See Note [Logits that ranks share].
void Trainer::share_caches() {
  for (const auto& teacher : plan_.teachers) {
    distill::LogitCache* const cache = teacher->cache().get();
    if (cache == nullptr || std::find(caches_.begin(), caches_.end(), cache) != caches_.end())
      continue;
    cache->remember_new_rows();
    caches_.push_back(cache);
  }
}

// What the loss divides by is the whole batch's: of a text only its rank knows it. Integers, so that
// no order matters.
distill::BatchShare Trainer::share_of(const nn::Batch& own, std::int64_t samples) const {
  distill::BatchShare share;
  share.samples = samples;
  std::tie(share.first, share.last) = own_part(samples, slices_, *ranks_);
  struct Counts {
    std::int64_t counted, rows, values;
    std::int64_t new_logits;  // of the teacher, since ranks told each other
  };
  Counts mine{counted_rows(own), own.rows(), own.inputs[0].values.dim(0), 0};
  for (const distill::LogitCache* cache : caches_) mine.new_logits += cache->new_rows();
  std::vector<Counts> all(static_cast<std::size_t>(ranks_->size()));
  ranks_->gather(&mine, all.data(), sizeof mine);
  std::int64_t new_logits = 0;
  for (const Counts& one : all) {
    share.counted += one.counted;
    share.rows += one.rows;
    share.values += one.values;
    new_logits += one.new_logits;
  }
  if (new_logits > 0)
    for (distill::LogitCache* cache : caches_) distill::share_new_rows(*cache, *ranks_);
  return share;
}

std::int64_t Trainer::rescored_at(std::int64_t step) const {
  return rescore_steps_ == 0 ? 0 : step / rescore_steps_ * rescore_steps_;
}

bool Trainer::rescoring_is_due() const {
  const std::int64_t at = rescored_at(steps_done());
  return at != made_at_ && at != planned_;
}

void Trainer::rescore() {
  const std::int64_t at = rescored_at(steps_done());
  curriculum::Curriculum made = plan_.rescore(*plan_.model, at);
  const std::size_t scored = made.order.indices.size(),
                    before = plan_.curriculum->curriculum.order.indices.size();
  RETORT_CHECK_AS(kNumerics, scored == before, "[rescore] at step ", at,
                  " the student could score ", scored, " samples, and ", before, " at the start");
  rescored_ = std::move(made);
  rescored_.csv.clear();
  feed_in(rescored_);
  made_at_ = at;
  // Where samples are left out a pass ends inside an epoch, whose order is on the device already.
  if (feed_ && at % epoch_steps_ != 0) feed_ = loader_->source().device_feed();
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
  if (rescoring_is_due()) rescore();
  timer_.start();
  const std::int64_t at = steps_done();
  nn::Batch batch;  // 7 -> 1
  nn::FeedBatch place;
  std::vector<std::int64_t> whole;  // with several ranks
  std::span<const std::int64_t> samples;
  if (feed_) {
    place = feed_->place(batches_, epoch_steps_, at);
    samples =
        std::span(feed_->order())
            .subspan(static_cast<std::size_t>(place.begin), static_cast<std::size_t>(place.rows));
  } else {
    batch = batch_at(at);
    if (ranks_ != nullptr) whole = batches_(at);
    samples = ranks_ != nullptr ? whole : batch.sample;
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
  if (made_at_ > 0) contents.files.push_back({"curriculum", state_of(rescored_)});
  return contents;
}

void Trainer::restore(const nn::FoundCheckpoint& checkpoint) {
  nn::restore_checkpoint(checkpoint, {{"", plan_.model.get()}}, nullptr);
  staged_->load_state(read_safetensors(checkpoint.file("stages")));
  // A checkpoint is written before the order of the step behind it is made.
  made_at_ = rescored_at(std::max<std::int64_t>(steps_done() - 1, 0));
  if (made_at_ == 0) return;
  rescored_ = curriculum_from(read_safetensors(checkpoint.file("curriculum")));
  feed_in(rescored_);
}

}  // namespace retort::tools
