#include "distill/graphed_step.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "engine/autograd/autograd.h"
#include "engine/runtime/allocator.h"

namespace retort::distill {
namespace {

constexpr int kMostRehearsals = 8, kMostCaptures = 2;
constexpr std::size_t kMostGraphs = 4;  // shapes beyond that run eagerly

using Cursor = nn::ImageFeed::Cursor;

bool same_memory(const Tensor& a, const Tensor& b) {
  return a.raw() == b.raw() && a.shape() == b.shape() && a.dtype() == b.dtype();
}

}  // namespace

// The block that is uploaded before each step: this, then lambdas, then temperatures.
struct GraphedStep::Header {
  float learning_rate;
  std::int32_t unused;
  std::int64_t step;  // number of this update, from 1
  std::int64_t slot;  // row of the meter
  Cursor cursor, next_cursor;
};
namespace {
constexpr std::size_t kFloats = 128;  // where the lambdas begin
}

GraphedStep::GraphedStep(const Teacher* teacher, nn::Model& student, nn::Optimizer& optimizer,
                         StepMeter& meter, const GraphOptions& options)
    : teacher_(teacher),
      student_(student),
      optimizer_(optimizer),
      meter_(meter),
      options_(options),
      device_(optimizer.arena().parameters().device()) {
  static_assert(sizeof(Header) <= kFloats);
}

GraphedStep::~GraphedStep() {
  entries_.clear();  // graphs before the memory they use
  try {
    optimizer_.read_from({}, {});
  } catch (const Error&) {
    // The device is lost: whoever asks the optimizer next will hear of it.
  }
}

std::int64_t GraphedStep::graphs() const {
  return std::count_if(entries_.begin(), entries_.end(), [](const auto& entry) {
    return entry.second.graph && entry.second.graph->captured();
  });
}

GraphInfo GraphedStep::info() const { return replayed_ ? replayed_->info() : GraphInfo{}; }

void GraphedStep::step(const StepBatch& batch, const StepSettings& settings, double learning_rate,
                       const StepBatch* next) {
  check_batch(batch);
  if (next != nullptr) check_batch(*next);
  Job job;
  job.batch = batch;
  if (!job.batch.teacher_inputs.defined()) job.batch.teacher_inputs = batch.inputs;
  job.rows = batch.inputs.dim(0);
  if (next != nullptr)
    job.next_teacher_inputs = next->teacher_inputs.defined() ? next->teacher_inputs : next->inputs;
  const Tensor& now = job.batch.teacher_inputs;
  job.ahead = options_.overlap && next != nullptr && job.next_teacher_inputs.shape() == now.shape();
  run(std::move(job), settings, learning_rate);
}

void GraphedStep::step(const nn::ImageFeed& feed, const FeedBatch& batch,
                       const StepSettings& settings, double learning_rate, const FeedBatch* next) {
  const auto fits = [&](const FeedBatch& b) {
    return b.begin >= 0 && b.rows >= 1 &&
           b.begin + b.rows <= static_cast<std::int64_t>(feed.order().size());
  };
  RETORT_CHECK(fits(batch) && (next == nullptr || fits(*next)),
               "[graphed_step] expected a batch within the feed's order of ", feed.order().size(),
               ", got rows ", batch.begin, " to ", batch.begin + batch.rows);
  Job job;
  job.feed = &feed;
  job.at = batch;
  job.order = feed.uploads();
  job.rows = batch.rows;
  job.ahead = options_.overlap && next != nullptr && next->rows == batch.rows;
  if (job.ahead) job.next_at = *next;
  run(std::move(job), settings, learning_rate);
}

std::string GraphedStep::obstacle(const StepSettings& settings, std::int64_t rows) const {
  if (!options_.graph) return "graphs are switched off";
  if (device_ == Device::kCpu) return "the CPU has no graphs";
  if (settings.micro_batch != 0 && settings.micro_batch < rows)
    return "the batch is cut into micro-batches";
  if (has_gradient_hooks()) return "a hook waits for gradients on the host";
  return "";
}

void GraphedStep::run(Job job, const StepSettings& settings, double learning_rate) {
  job.asks_teacher = asks_teacher(settings, job.rows, teacher_ != nullptr);
  job.from_cache = job.asks_teacher && teacher_->cache() != nullptr &&
                   (job.feed != nullptr || !job.batch.samples.empty());
  job.ahead = job.ahead && job.asks_teacher && !job.from_cache;
  job.lambdas = settings.lambda.size();
  job.temperatures = settings.temperature.size();
  job.divergence = settings.divergence;
  replayed_ = nullptr;
  make_block(job.rows);
  optimizer_.set_learning_rate(learning_rate);
  reason_ = obstacle(settings, job.rows);
  Entry* const entry = reason_.empty() ? entry_of(job) : nullptr;
  if (entry == nullptr) {
    ahead_entry_ = nullptr;
    upload(job, settings, learning_rate, 0);
    return run_eagerly(job, settings);
  }

  upload(job, settings, learning_rate, meter_.begin_row(device_, job.asks_teacher));
  stage(job, entry->lasting);
  if (job.from_cache) look_up(job);
  if (job.ahead) look_ahead(job, *entry);
  const auto body = [&] { work(job, entry->lasting); };
  if (entry->ready && !entry->graph->captured()) {
    try {
      entry->graph->capture(body);
    } catch (const Error& error) {
      // Once more after another rehearsal: this one may have been the first to keep something.
      if (++entry->captures >= kMostCaptures) entry->failure = error.what();
      optimizer_.zero_grad();  // the half that was recorded has marked gradients as written
    }
  }
  if (entry->graph->captured()) {
    entry->graph->launch();
    replayed_ = entry->graph.get();
    ++replays_;
  } else {
    reason_ = entry->failure.empty() ? "the first runs of a step are eager" : entry->failure;
    entry->ready = entry->graph->rehearse(body);
    if (++entry->rehearsals >= kMostRehearsals && !entry->ready)
      entry->failure = "each run of the step needs more memory than the one before";
  }
  ahead_entry_ = job.ahead ? entry : nullptr;
  ahead_ = std::move(job);
}

// The graph that serves such steps, to be. Null, with a reason, if there is none.
GraphedStep::Entry* GraphedStep::entry_of(const Job& job) {
  const auto of = [](const Tensor& t) {
    return t.defined() ? join(name_of(t.dtype()), t.shape()) : std::string("none");
  };
  const StepBatch& batch = job.batch;
  const std::string source = job.feed
                                 ? join(job.feed, " ", job.feed->address(), " ", job.rows)
                                 : join(of(batch.inputs), " ", of(batch.targets), " ",
                                        batch.teacher_inputs.storage() == batch.inputs.storage()
                                            ? "shared"
                                            : of(batch.teacher_inputs));
  const std::string key =
      join(source, " ", job.asks_teacher, job.from_cache, job.ahead, student_.training(),
           context_of(device_).allow_tf32, " ", job.lambdas, " ", job.temperatures, " ",
           static_cast<int>(job.divergence));
  if (!entries_.contains(key) && entries_.size() >= kMostGraphs) {
    reason_ = "there are more kinds of steps than graphs";
    return nullptr;
  }
  Entry& entry = entries_[key];
  reason_ = entry.failure;
  if (!reason_.empty()) return nullptr;
  if (!memory_) memory_ = std::make_shared<GraphMemory>();
  if (!entry.graph) entry.graph = std::make_unique<Graph>(memory_);
  return &entry;
}

void GraphedStep::make_block(std::int64_t rows) {
  if (block_ && block_rows_ >= rows) return;
  entries_.clear();  // they read the old block
  ahead_entry_ = nullptr;
  block_rows_ = rows;
  logits_.reset();
  const auto floats = 2 * static_cast<std::size_t>(rows) * sizeof(float);
  block_ = std::make_unique<UploadRing>(device_, kFloats + floats);
  optimizer_.read_from(in_block<float>(offsetof(Header, learning_rate), {}),
                       in_block<std::int64_t>(offsetof(Header, step), {}));
}

void GraphedStep::upload(const Job& job, const StepSettings& settings, double learning_rate,
                         std::int64_t slot) {
  optimizer_.begin_step();
  auto* const memory = static_cast<std::byte*>(block_->host());
  Header header{};
  header.learning_rate = static_cast<float>(learning_rate);
  header.step = optimizer_.steps();
  header.slot = slot;
  header.cursor = {job.at.begin, job.at.epoch, job.at.seed};
  header.next_cursor = {job.next_at.begin, job.next_at.epoch, job.next_at.seed};
  std::memcpy(memory, &header, sizeof header);
  auto* const floats = reinterpret_cast<float*>(memory + kFloats);
  std::copy(settings.lambda.begin(), settings.lambda.end(), floats);
  std::copy(settings.temperature.begin(), settings.temperature.end(), floats + block_rows_);
  block_->upload();
}

template <class T>
Tensor GraphedStep::in_block(std::size_t offset, const Shape& shape) const {
  return Tensor::wrap(block_->device_block().storage(),
                      static_cast<std::int64_t>(offset / sizeof(T)), shape, dtype_of<T>,
                      shape.rank() == 0 ? 1 : shape[-1]);
}

void GraphedStep::run_eagerly(const Job& job, const StepSettings& settings) {
  StepBatch batch = job.batch;
  nn::Batch made;
  if (job.feed != nullptr) {
    made = job.feed->host_batch(job.at);
    batch = {made.inputs, made.teacher_inputs, made.targets, made.sample, made.augment};
  }
  meter_.add(distill_step(teacher_, student_, batch, settings, [&] {
    optimizer_.update();
    optimizer_.zero_grad();
  }));
}

void GraphedStep::stage(const Job& job, Lasting& in) const {
  if (job.feed != nullptr) return;
  const auto take = [](Tensor& to, const Tensor& from) {
    if (!from.defined()) return;
    if (!to.defined()) to = Tensor::empty(from.shape(), from.dtype(), from.device());
    to.copy_from(from);
  };
  take(in.inputs, job.batch.inputs);
  take(in.targets, job.batch.targets);
  if (same_memory(job.batch.teacher_inputs, job.batch.inputs))
    in.teacher_inputs = in.inputs;
  else if (job.asks_teacher && !job.ahead && !job.from_cache)
    take(in.teacher_inputs, job.batch.teacher_inputs);
  if (job.ahead) take(in.next_teacher_inputs, job.next_teacher_inputs);
}

// The logits of this batch, unless the step before computed them.
void GraphedStep::look_ahead(const Job& job, Entry& entry) {
  const bool there =
      ahead_entry_ == &entry && ahead_.next_at == job.at && ahead_.order == job.order &&
      (job.feed || same_memory(ahead_.next_teacher_inputs, job.batch.teacher_inputs));
  if (there) return;
  const Tensor made = teacher_->logits(
      job.feed ? job.feed->make_for_teacher(cursor(offsetof(Header, cursor)), job.rows)
               : job.batch.teacher_inputs);
  Lasting& lasting = entry.lasting;
  if (!lasting.logits.defined()) {
    lasting.logits = Tensor::empty(made.shape(), made.dtype(), device_);
    lasting.next_logits = Tensor::empty(made.shape(), made.dtype(), device_);
  }
  lasting.logits.copy_from(made);
}

// The cached logits of this batch, to where the captured step reads them.
void GraphedStep::look_up(const Job& job) {
  const auto classes = static_cast<std::size_t>(teacher_->classes());
  if (!logits_)
    logits_ = std::make_unique<UploadRing>(
        device_, static_cast<std::size_t>(block_rows_) * classes * sizeof(float), 2);
  nn::ImageFeed::Names names{job.batch.samples,
                             {job.batch.augment.begin(), job.batch.augment.end()}};
  if (job.feed != nullptr) names = job.feed->names(job.at);
  RETORT_CHECK(static_cast<std::int64_t>(names.samples.size()) == job.rows,
               "[graphed_step] expected ", job.rows, " sample indices, got ", names.samples.size());
  const auto inputs = [&] {
    return job.feed ? job.feed->make_for_teacher(cursor(offsetof(Header, cursor)), job.rows)
                    : job.batch.teacher_inputs;
  };
  teacher_->cached_logits(inputs, names.samples, names.augment,
                          {static_cast<float*>(logits_->host()), names.samples.size() * classes});
  logits_->upload();
}

Tensor GraphedStep::cursor(std::size_t offset) const {
  return in_block<std::uint8_t>(offset, {static_cast<std::int64_t>(sizeof(Cursor))});
}

// Everything that is captured. The order of the flow; see Note [What a captured function may do].
void GraphedStep::work(const Job& job, const Lasting& in) {
  if (job.ahead) {
    const OnSideStream side;
    in.next_logits.copy_from(teacher_->logits(
        job.feed ? job.feed->make_for_teacher(cursor(offsetof(Header, next_cursor)), job.rows)
                 : in.next_teacher_inputs));
  }
  Tensor inputs = in.inputs, teacher_inputs = in.teacher_inputs, targets = in.targets;  // 1
  if (job.feed != nullptr) {
    const nn::ImageFeed::Images made =
        job.feed->make(cursor(offsetof(Header, cursor)), job.rows,
                       job.asks_teacher && !job.ahead && !job.from_cache);
    inputs = made.inputs;
    teacher_inputs = made.teacher_inputs;
    targets = made.targets;
  }
  DistillationLossArgs args;
  args.targets = targets;
  args.divergence = job.divergence;
  if (job.asks_teacher) {  // 2
    if (job.from_cache)
      args.teacher_logits =
          Tensor::wrap(logits_->device_block().storage(), 0, {job.rows, teacher_->classes()},
                       DType::kF32, teacher_->classes());
    else
      args.teacher_logits = job.ahead ? in.logits : teacher_->logits(teacher_inputs);  // (B, V)
    const auto setting = [&](std::size_t count, std::size_t at) {
      return in_block<float>(kFloats + at * sizeof(float),
                             count == 1 ? Shape{} : Shape{static_cast<std::int64_t>(count)});
    };
    args.lambda = setting(job.lambdas, 0);
    args.temperature = setting(job.temperatures, static_cast<std::size_t>(block_rows_));
  }
  const DistillationLossResult loss =
      forward_backward(student_, inputs, std::move(args));  // 3, 4, 5
  kernels::StepStatisticsArgs numbers = step_columns(loss.total, &loss, targets, job.rows);
  numbers.numbers = meter_.rows().data<double>();
  numbers.slot = in_block<std::int64_t>(offsetof(Header, slot), {}).data<std::int64_t>();
  kernels::step_statistics(context_of(device_), numbers);
  optimizer_.update();  // 6
  optimizer_.zero_grad();
  if (job.ahead) {
    join_side_stream();
    in.logits.copy_from(in.next_logits);
  }
}

}  // namespace retort::distill
