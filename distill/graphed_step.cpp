#include "distill/graphed_step.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "distill/own_rows.h"
#include "engine/autograd/autograd.h"
#include "engine/runtime/allocator.h"

namespace retort::distill {
namespace {

constexpr int kMostRehearsals = 8, kMostCaptures = 2;
constexpr std::size_t kMostGraphs = 4;  // shapes beyond that run eagerly

using Cursor = nn::FeedCursor;

bool same_memory(const Tensor& a, const Tensor& b) {
  return a.defined() && b.defined() && a.raw() == b.raw() && a.shape() == b.shape() &&
         a.dtype() == b.dtype();
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

GraphedStep::GraphedStep(std::vector<RunTeacher> teachers, Terms terms, nn::Model& student,
                         nn::Optimizer& optimizer, StepMeter& meter, const GraphOptions& options)
    : teachers_(std::move(teachers)),
      terms_(std::move(terms)),
      student_(student),
      optimizer_(optimizer),
      meter_(meter),
      options_(options),
      device_(optimizer.arena().parameters().device()) {
  static_assert(sizeof(Header) <= kFloats);
  if (!teachers_.empty() && teachers_[0].teacher == nullptr) teachers_.clear();
  RETORT_CHECK(!terms_.empty(), "[graphed_step] expected at least one term");
  for (const RunTeacher& t : teachers_)
    if (t.teacher != nullptr) check_apart(*t.teacher, student_);
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

void GraphedStep::step(const nn::Batch& batch, const StepSettings& settings, double learning_rate,
                       const nn::Batch* next) {
  batch.check();
  if (next != nullptr) next->check();
  Job job;
  job.batch = batch;
  job.samples = batch.size();
  if (next != nullptr) job.next_teacher_inputs = next->read_by(reading());
  job.ahead = options_.overlap && next != nullptr &&
              job.next_teacher_inputs.values.shape() == batch.read_by(reading()).values.shape();
  run(std::move(job), settings, learning_rate);
}

void GraphedStep::step(const nn::DeviceFeed& feed, const FeedBatch& batch,
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
  job.samples = batch.rows;
  job.ahead = options_.overlap && next != nullptr && next->rows == batch.rows;
  if (job.ahead) job.next_at = *next;
  run(std::move(job), settings, learning_rate);
}

std::string GraphedStep::obstacle(const Job& job, const StepSettings& settings) const {
  if (!options_.graph) return "graphs are switched off";
  if (device_ == Device::kCpu) return "the CPU has no graphs";
  const std::int64_t slices = optimizer_.slices() ? optimizer_.slices()->count() : 1;
  if (settings.micro_batch != 0 && settings.micro_batch < (job.samples + slices - 1) / slices)
    return "the batch is cut into micro-batches";
  if (has_gradient_hooks()) return "a hook waits for gradients on the host";
  if (job.batch.sample_of_row.defined()) return "the number of rows differs from batch to batch";
  for (const nn::Inputs& inputs : job.batch.inputs)
    if (inputs.starts.defined() || inputs.segments.defined() || inputs.rows.defined())
      return "the number of tokens differs from batch to batch";
  return "";
}

void GraphedStep::run(Job job, const StepSettings& settings, double learning_rate) {
  job.gives_share = asks_teacher(settings, job.samples, teacher() != nullptr);
  job.lambdas = settings.lambda.size();
  job.temperatures = settings.temperature.size();
  replayed_ = nullptr;
  make_block(job.samples);
  job.of_teachers = want_of_teachers(terms_, rows_in_block(job, job.batch));
  RETORT_CHECK(!job.of_teachers || teacher() != nullptr, "[graphed_step] expected a teacher");
  // Logits of one teacher can be had from a cache or ahead of time; all else is asked in the step.
  const bool logits_alone =
      job.of_teachers && job.of_teachers->logits_suffice() && teachers_.size() == 1;
  job.from_cache =
      logits_alone && teacher()->cache() != nullptr &&
      (job.feed != nullptr || (!job.batch.sample.empty() && !job.batch.inputs[0].starts.defined()));
  // Logits that are multiplied out chunk by chunk cannot lie ready.
  job.ahead = job.ahead && logits_alone && !job.from_cache && !job.of_teachers->head;
  optimizer_.set_learning_rate(learning_rate);
  reason_ = obstacle(job, settings);
  Entry* const entry = reason_.empty() ? entry_of(job) : nullptr;
  const std::int64_t steps = optimizer_.steps();
  const bool ahead = job.ahead && entry != nullptr;
  bool has_row = false;
  try {
    if (entry != nullptr) {
      const std::int64_t slices = optimizer_.slices() ? optimizer_.slices()->count() : 1;
      const std::int64_t row = meter_.begin_row(device_, job.samples, settings.told, slices);
      has_row = true;
      return run_entry(std::move(job), *entry, settings, learning_rate, row);
    }
    ahead_entry_ = nullptr;
    upload(job, settings, learning_rate, 0);
    run_eagerly(job, settings);
  } catch (...) {
    if (has_row) meter_.drop_row();
    if (optimizer_.steps() > steps) optimizer_.cancel_step();
    optimizer_.zero_grad();
    ahead_entry_ = nullptr;  // its logits may be half of this batch, half of the next
    if (ahead) join_again();
    throw;
  }
}

// The next step may use what the side stream was given when the one at hand came to no end.
void GraphedStep::join_again() noexcept {
  try {
    join_side_stream();
  } catch (const Error&) {
    // The device is lost: the next launch says so.
  }
}

void GraphedStep::run_entry(Job job, Entry& entry, const StepSettings& settings,
                            double learning_rate, std::int64_t row) {
  upload(job, settings, learning_rate, row);
  stage(job, entry.lasting);
  if (job.from_cache) look_up(job);
  if (job.ahead) look_ahead(job, entry);
  const auto body = [&] { work(job, entry); };
  if (entry.ready && !entry.graph->captured()) {
    try {
      entry.graph->capture(body);
    } catch (const Error& error) {
      // Once more after another rehearsal: this one may have been the first to keep something.
      if (++entry.captures >= kMostCaptures) entry.failure = error.what();
      optimizer_.zero_grad();  // the half that was recorded has marked gradients as written
    }
  }
  if (entry.graph->captured()) {
    entry.graph->launch();
    replayed_ = entry.graph.get();
    ++replays_;
  } else {
    reason_ = entry.failure.empty() ? "the first runs of a step are eager" : entry.failure;
    entry.ready = entry.graph->rehearse(body);
    if (++entry.rehearsals >= kMostRehearsals && !entry.ready)
      entry.failure = "each run of the step needs more memory than the one before";
  }
  meter_.name_row(row, entry.names);
  ahead_entry_ = job.ahead ? &entry : nullptr;
  ahead_ = std::move(job);
}

// The graph that serves such steps, to be. Null, with a reason, if there is none.
GraphedStep::Entry* GraphedStep::entry_of(const Job& job) {
  const auto of = [](const Tensor& t) {
    return t.defined() ? join(name_of(t.dtype()), t.shape()) : std::string("none");
  };
  std::string source = join(job.feed ? job.feed->id() : 0, " ",
                            job.feed ? job.feed->address() : nullptr, " ", job.samples);
  for (const nn::Inputs& inputs : job.batch.inputs)
    source += join(" ", of(inputs.values),
                   same_memory(inputs.values, job.batch.inputs[0].values) ? " shared" : "");
  source += join(" ", of(job.batch.targets));
  const std::string key =
      join(source, " ", job.gives_share, job.from_cache, job.ahead, student_.training(),
           context_of(device_).allow_tf32, " ", job.lambdas, " ", job.temperatures);
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

void GraphedStep::make_block(std::int64_t samples) {
  if (block_ && block_samples_ >= samples) return;
  entries_.clear();  // they read the old block
  ahead_entry_ = nullptr;
  block_samples_ = samples;
  logits_.reset();
  const auto floats = 2 * static_cast<std::size_t>(samples) * sizeof(float);
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
  std::copy(settings.temperature.begin(), settings.temperature.end(), floats + block_samples_);
  block_->upload();
}

template <class T>
Tensor GraphedStep::in_block(std::size_t offset, const Shape& shape) const {
  return Tensor::wrap(block_->device_block().storage(),
                      static_cast<std::int64_t>(offset / sizeof(T)), shape, dtype_of<T>,
                      shape.rank() == 0 ? 1 : shape[-1]);
}

void GraphedStep::run_eagerly(const Job& job, const StepSettings& settings) {
  const nn::Batch batch = job.feed != nullptr ? job.feed->host_batch(job.at) : job.batch;
  StepSettings own = settings;
  own.slices = optimizer_.slices();
  eager_step(
      teachers_, terms_, student_, batch, own,
      [&] {
        optimizer_.update();
        optimizer_.zero_grad();
      },
      &meter_);
}

// Copies what comes as tensors to where the captured step reads it.
void GraphedStep::stage(const Job& job, Lasting& in) const {
  if (job.feed != nullptr) return;
  const auto take = [](Tensor& to, const Tensor& from) {
    if (!from.defined()) return;
    if (!to.defined()) to = Tensor::empty(from.shape(), from.dtype(), from.device());
    to.copy_from(from);
  };
  const std::vector<nn::Inputs>& from = job.batch.inputs;
  in.batch.inputs.resize(from.size());
  const bool asked_here = job.of_teachers && !job.ahead && !job.from_cache;
  for (std::size_t r = 0; r < from.size(); ++r) {
    if (r > 0 && same_memory(from[r].values, from[0].values))
      in.batch.inputs[r] = in.batch.inputs[0];
    else if (r == 0 || asked_here)
      take(in.batch.inputs[r].values, from[r].values);
  }
  take(in.batch.targets, job.batch.targets);
  if (job.ahead) take(in.next_teacher_inputs.values, job.next_teacher_inputs.values);
}

// What the teacher sees of the batch that a cursor names, or of the batch at hand.
nn::Inputs GraphedStep::teacher_inputs(const Job& job, std::size_t cursor_offset) const {
  if (job.feed == nullptr) return job.batch.read_by(reading());
  const std::size_t wanted[] = {reading()};
  return job.feed->make(cursor(cursor_offset), job.samples, wanted).read_by(reading());
}

// The teacher's logits of a batch, asked for as the step itself would: slice by slice, since the
// last bits of a row may depend on how many pass at once.
Tensor GraphedStep::ask(const nn::Inputs& inputs) const {
  const nn::BatchSlices* const slices = optimizer_.slices();
  if (slices == nullptr) return teacher()->logits(inputs);
  const std::int64_t samples = inputs.samples();
  Tensor all;
  for (std::int64_t s = 0; s < slices->count(); ++s) {
    const auto [begin, end] = nn::slice_of(samples, slices->count(), s);
    if (begin == end) continue;
    const Tensor own = teacher()->logits(own_rows(inputs.slice(begin, end)));
    if (!all.defined()) all = Tensor::empty({samples, own.dim(1)}, own.dtype(), own.device());
    all.slice(begin, end).copy_from(own);
  }
  return all;
}

// The logits of this batch, unless the step before computed them.
void GraphedStep::look_ahead(const Job& job, Entry& entry) {
  const bool there =
      ahead_entry_ == &entry && ahead_.next_at == job.at && ahead_.order == job.order &&
      (job.feed ||
       same_memory(ahead_.next_teacher_inputs.values, job.batch.read_by(reading()).values));
  if (there) return;
  const Tensor made = ask(teacher_inputs(job, offsetof(Header, cursor)));
  Lasting& lasting = entry.lasting;
  if (!lasting.logits.defined()) {
    lasting.logits = Tensor::empty(made.shape(), made.dtype(), device_);
    lasting.next_logits = Tensor::empty(made.shape(), made.dtype(), device_);
  }
  lasting.logits.copy_from(made);
}

// The cached logits of this batch, to where the captured step reads them.
void GraphedStep::look_up(const Job& job) {
  const auto classes = static_cast<std::size_t>(teacher()->classes());
  if (!logits_)
    logits_ = std::make_unique<UploadRing>(
        device_, static_cast<std::size_t>(block_samples_) * classes * sizeof(float), 2);
  nn::DeviceFeed::Names names{job.batch.sample, job.batch.variant};
  if (job.feed != nullptr) names = job.feed->names(job.at);
  RETORT_CHECK(static_cast<std::int64_t>(names.samples.size()) == job.samples,
               "[graphed_step] expected ", job.samples, " sample indices, got ",
               names.samples.size());
  teacher()->cached_logits([&] { return teacher_inputs(job, offsetof(Header, cursor)); },
                           names.samples, names.variants,
                           {static_cast<float*>(logits_->host()), names.samples.size() * classes});
  logits_->upload();
}

Tensor GraphedStep::cursor(std::size_t offset) const {
  return in_block<std::uint8_t>(offset, {static_cast<std::int64_t>(sizeof(Cursor))});
}

// The batch as the captured step sees it: made from the feed, or copied before.
nn::Batch GraphedStep::batch_of(const Job& job, const Lasting& in) const {
  if (job.feed == nullptr) return in.batch;
  std::vector<std::size_t> readings{0};
  if (job.of_teachers && !job.ahead && !job.from_cache)
    for (const RunTeacher& t : teachers_)
      if (std::find(readings.begin(), readings.end(), t.reading) == readings.end())
        readings.push_back(t.reading);
  const std::size_t known = job.feed->source().options().readings.size();
  std::erase_if(readings, [&](std::size_t r) { return r >= known; });
  return job.feed->make(cursor(offsetof(Header, cursor)), job.samples, readings);
}

Rows GraphedStep::rows_in_block(const Job& job, const nn::Batch& batch) const {
  Rows rows;
  rows.targets = batch.targets;
  if (!job.gives_share) return rows;
  const auto setting = [&](std::size_t count, std::size_t at) {
    return in_block<float>(kFloats + at * sizeof(float),
                           count == 1 ? Shape{} : Shape{static_cast<std::int64_t>(count)});
  };
  rows.lambda = setting(job.lambdas, 0);
  rows.temperature = setting(job.temperatures, static_cast<std::size_t>(block_samples_));
  return rows;
}

// Everything that is captured. The order of the flow; see Note [What a captured function may do].
void GraphedStep::work(const Job& job, Entry& entry) {
  const Lasting& in = entry.lasting;
  if (job.ahead) {
    const OnSideStream side;
    in.next_logits.copy_from(ask(job.feed ? teacher_inputs(job, offsetof(Header, next_cursor))
                                          : in.next_teacher_inputs));
  }
  const nn::Batch batch = batch_of(job, in);  // 1
  const Answer answer = [&](std::size_t t, const nn::Batch& part, std::int64_t begin,
                            const nn::Want& want) {
    nn::Outputs logits;
    const std::int64_t end = begin + part.size(), classes = teacher()->classes();
    if (job.from_cache)
      logits.logits = Tensor::wrap(logits_->device_block().storage(), begin * classes,
                                   {part.size(), classes}, DType::kF32, classes);
    else if (job.ahead)
      logits.logits = in.logits.slice(begin, end);
    else
      return teachers_[t].teacher->forward(part.read_by(teachers_[t].reading), want);
    return logits;  // (N, V)
  };
  const Update update = [&] {
    optimizer_.update();
    optimizer_.zero_grad();
  };
  StepContext context{student_, teachers_.size(), answer, update,
                      0,        nullptr,          {},     optimizer_.slices()};
  context.after_part = [&](const StepReport& so_far) {
    entry.names = so_far.write_part(so_far.parts.size() - 1, meter_, 0,
                                    in_block<std::int64_t>(offsetof(Header, slot), {}));
  };
  one_step(context, batch, terms_, rows_in_block(job, batch));  // 2 .. 6
  if (job.ahead) {
    join_side_stream();
    in.logits.copy_from(in.next_logits);
  }
}

}  // namespace retort::distill
