#include "distill/schedules/staged.h"

#include <algorithm>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "nn/layers/linear.h"

namespace retort::distill {
namespace {

const Tensor& entry(const NamedTensors& state, const std::string& name) {
  for (const auto& [key, tensor] : state)
    if (key == name) return tensor;
  fail(ErrorCode::kBadInput, "[stages] the state has no '", name, "'");
}

}  // namespace

StagedDistillation::StagedDistillation(nn::Model& student,
                                       std::vector<std::shared_ptr<const Teacher>> teachers,
                                       std::vector<Stage> stages, OptimizerFactory make_optimizer,
                                       std::function<Tensor()> calibration)
    : student_(student),
      teachers_(std::move(teachers)),
      stages_(std::move(stages)),
      make_optimizer_(std::move(make_optimizer)),
      calibration_(std::move(calibration)) {
  RETORT_CHECK(!stages_.empty(), "[stages] expected at least one stage");
  RETORT_CHECK(make_optimizer_ != nullptr, "[stages] expected an optimizer factory");
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Stage& s = stages_[i];
    const bool last = i + 1 == stages_.size();
    RETORT_CHECK(s.until.steps >= 0 && s.until.window >= 0,
                 "[stages] expected steps and window >= 0 in '", s.name, "'");
    RETORT_CHECK(last || s.until.steps > 0 || s.until.window > 0, "[stages] '", s.name,
                 "' never ends and is not the last stage");
    RETORT_CHECK(s.loss == StageLoss::kDistill || teacher_of(s) != nullptr, "[stages] '", s.name,
                 "' needs a teacher, and there is none with index ", s.teacher);
    RETORT_CHECK(s.loss == StageLoss::kDistill || calibration_ != nullptr, "[stages] '", s.name,
                 "' needs calibration samples");
    RETORT_CHECK(teachers_.empty() || s.teacher < teachers_.size(), "[stages] '", s.name,
                 "' names teacher ", s.teacher, " of ", teachers_.size());
  }
}

const Teacher* StagedDistillation::teacher_of(const Stage& stage) const {
  return stage.teacher < teachers_.size() ? teachers_[stage.teacher].get() : nullptr;
}

bool StagedDistillation::over() const {
  if (index_ + 1 == stages_.size()) return false;
  const SwitchRule& until = stages_[index_].until;
  return plateau_ || (until.steps > 0 && step_ >= until.steps);
}

std::size_t StagedDistillation::stage_index() const { return index_ + (over() ? 1 : 0); }

void StagedDistillation::begin_stage(bool resuming) {
  const Stage& stage = stages_[index_];
  const bool other_parameters = frozen_ != nullptr || stage.loss == StageLoss::kProjection;
  frozen_.reset();
  head_.reset();
  target_.reset();
  if (!resuming) {
    window_.clear();
    last_window_ = -1;
    plateau_ = false;
    starts_.push_back(total_);
  }
  if (stage.loss == StageLoss::kProjection) {
    const Teacher& teacher = *teacher_of(stage);
    const Tensor inputs = calibration_();
    const nn::ForwardResult of_teacher = teacher.forward(inputs);
    // One row tells what the student's layers are; evaluation mode, so that no running statistics
    // move.
    const bool training = student_.training();
    student_.eval();
    const nn::ForwardResult of_student = student_.forward(inputs.slice(0, 1), true);
    student_.train(training);
    const auto layers = static_cast<std::int64_t>(of_student.post.size());
    RETORT_CHECK(stage.student_layer >= 1 && stage.student_layer <= layers, "[stages] '",
                 stage.name, "' is for layer ", stage.student_layer, " of a student with ", layers,
                 " hidden layers");
    const Tensor student_hidden = student_side(of_student);
    const std::int64_t width = student_hidden.dim(1);
    frozen_ = std::make_unique<FrozenRest>(student_, student_hidden);
    const auto teacher_layers = static_cast<std::int64_t>(of_teacher.post.size());
    RETORT_CHECK(teacher_layers >= 1, "[stages] '", teacher.name(), "' has no hidden layer");
    teacher_layer_ = teacher_layer(stage.student_layer, layers, teacher_layers);
    const Tensor hidden =
        hidden_features(of_teacher.post[static_cast<std::size_t>(teacher_layer_ - 1)]);
    const bool with_head = stage.variant == ProjectionVariant::kHead;
    target_ = std::make_unique<ProjectionTarget>(hidden.dim(1), with_head ? stage.width : width,
                                                 stage.seed, static_cast<int>(stage.student_layer));
    if (!resuming) target_->calibrate(hidden, stage.centre, stage.scale);
    if (with_head) {
      head_ = std::make_shared<nn::Linear>(width, stage.width);
      head_->initialize(stage.seed + static_cast<std::uint64_t>(stage.student_layer));
      head_->to(inputs.device());
    }
  }
  graphed_.reset();
  if (!optimizer_ || resuming || stage.fresh_optimizer || other_parameters) {
    optimizer_.reset();
    nn::TrainedModules modules{{"", &student_}};
    if (head_) modules.emplace_back("projection_head.", head_.get());
    optimizer_ = make_optimizer_(modules);
    RETORT_CHECK(optimizer_ != nullptr, "[stages] the optimizer factory returned null");
    optimizer_->zero_grad();
  }
  if (meter_ != nullptr) make_graphed(stage);
  begun_ = true;
}

void StagedDistillation::make_graphed(const Stage& stage) {
  if (stage.loss != StageLoss::kDistill || stage.until.window > 0) return;
  graphed_ = std::make_unique<GraphedStep>(teacher_of(stage), student_, *optimizer_, *meter_,
                                           graph_options_);
}

void StagedDistillation::use_graphs(StepMeter& meter, const GraphOptions& options) {
  meter_ = &meter;
  graph_options_ = options;
  graphed_.reset();
  if (begun_ && !over()) make_graphed(stages_[index_]);
}

Tensor StagedDistillation::student_side(const nn::ForwardResult& result) const {
  const Stage& stage = stages_[index_];
  const auto layer = static_cast<std::size_t>(stage.student_layer - 1);
  const bool pre = stage.variant == ProjectionVariant::kPre;
  const Tensor h = hidden_features(pre ? result.pre[layer] : result.post[layer]);
  return head_ ? static_cast<const nn::Linear&>(*head_).forward(h) : h;
}

StepReport StagedDistillation::projection_step(const StepBatch& batch, const StepSettings& settings,
                                               const Update& update) {
  const Stage& stage = stages_[index_];
  const Tensor& teacher_inputs =
      batch.teacher_inputs.defined() ? batch.teacher_inputs : batch.inputs;
  const std::int64_t rows = batch.inputs.dim(0),
                     slice = settings.micro_batch == 0 ? rows : settings.micro_batch;
  RETORT_CHECK(rows >= 1 && slice >= 1, "[stages] expected at least one sample");
  const auto mark = [&](Phase phase) {
    if (settings.timer != nullptr) settings.timer->mark(phase);
  };
  StepReport report;
  report.samples = rows;
  for (std::int64_t begin = 0; begin < rows; begin += slice) {
    const std::int64_t end = std::min(begin + slice, rows);
    const nn::ForwardResult of_teacher =
        teacher_of(stage)->forward_hidden(teacher_inputs.slice(begin, end), teacher_layer_);
    mark(Phase::kTeacher);
    const nn::ForwardResult of_student =
        student_.forward_hidden(batch.inputs.slice(begin, end), stage.student_layer);
    mark(Phase::kStudent);
    const Tensor target = (*target_)(hidden_features(of_teacher.post.back()));  // (b, p)
    Tensor loss = projection_loss(student_side(of_student), target);
    if (slice < rows)
      loss = scale(loss, static_cast<double>(end - begin) / static_cast<double>(rows));
    mark(Phase::kLoss);
    loss.backward();
    mark(Phase::kBackward);
    report.losses.push_back(loss.detach());
  }
  update();
  mark(Phase::kUpdate);
  return report;
}

const Stage& StagedDistillation::enter_due_stage() {
  if (over()) {
    ++index_;
    step_ = 0;
    begun_ = false;
  }
  if (!begun_) begin_stage(false);
  return stages_[index_];
}

StepReport StagedDistillation::run(const StepBatch& batch, const StepSettings& settings,
                                   double learning_rate) {
  const Stage& stage = stages_[index_];
  optimizer_->set_learning_rate(learning_rate);
  const Update update = [this] {
    optimizer_->step();
    optimizer_->zero_grad();
  };
  StepReport report = stage.loss == StageLoss::kProjection
                          ? projection_step(batch, settings, update)
                          : distill_step(teacher_of(stage), student_, batch, settings, update);
  if (meter_ != nullptr) meter_->add(report);
  return report;
}

namespace {

StepSettings settings_of(const Stage& stage, StepSettings settings) {
  if (stage.lambda) settings.lambda = {*stage.lambda};
  if (stage.temperature) settings.temperature = {*stage.temperature};
  return settings;
}

}  // namespace

StepReport StagedDistillation::step(const StepBatch& batch, StepSettings settings,
                                    double learning_rate) {
  const Stage& stage = enter_due_stage();
  settings = settings_of(stage, std::move(settings));
  StepReport report;
  if (graphed_) {
    graphed_->step(batch, settings, learning_rate);
    report.samples = batch.inputs.dim(0);
  } else {
    report = run(batch, settings, learning_rate);
  }
  ++step_;
  ++total_;
  if (stage.until.window > 0) watch_plateau(report);
  return report;
}

StepReport StagedDistillation::step(const nn::ImageFeed& feed, const FeedBatch& batch,
                                    const StepSettings& settings, double learning_rate,
                                    const FeedBatch* next) {
  RETORT_CHECK(meter_ != nullptr, "[stages] expected use_graphs() before a step on a feed");
  const Stage& stage = enter_due_stage();
  if (!graphed_) {
    const nn::Batch made = feed.host_batch(batch);
    return step({made.inputs, made.teacher_inputs, made.targets, made.sample, made.augment},
                settings, learning_rate);
  }
  // Another stage may ask another teacher: nothing is computed ahead for it.
  const bool last = stage.until.steps > 0 && step_ + 1 == stage.until.steps;
  graphed_->step(feed, batch, settings_of(stage, settings), learning_rate, last ? nullptr : next);
  ++step_;
  ++total_;
  StepReport report;
  report.samples = batch.rows;
  return report;
}

void StagedDistillation::watch_plateau(const StepReport& report) {
  const SwitchRule& until = stages_[index_].until;
  for (const Tensor& loss : report.losses) window_.push_back(loss);
  if (step_ % until.window != 0) return;
  double mean = 0;  // the only reads from the device: once per window
  for (const Tensor& loss : window_) mean += loss.item() / static_cast<double>(until.window);
  window_.clear();
  plateau_ = last_window_ >= 0 && !(mean < last_window_ * (1 - until.min_improvement));
  last_window_ = mean;
}

NamedTensors StagedDistillation::state() const {
  NamedTensors state;
  std::vector<std::int64_t> position{static_cast<std::int64_t>(index_), step_, total_, begun_,
                                     plateau_};
  position.insert(position.end(), starts_.begin(), starts_.end());
  state.emplace_back("stages.position",
                     Tensor::from(position, {static_cast<std::int64_t>(position.size())}));
  std::vector<double> window{last_window_};
  for (const Tensor& loss : window_) window.push_back(loss.item());
  state.emplace_back("stages.window",
                     Tensor::from(window, {static_cast<std::int64_t>(window.size())}));
  if (!begun_) return state;
  const auto host = [](const Tensor& t) { return t.detach().to(Device::kCpu).clone(); };
  if (target_) {
    state.emplace_back("stages.projection.weight", host(target_->weight()));
    state.emplace_back("stages.projection.bias", host(target_->bias()));
  }
  if (head_)
    for (const auto& [name, tensor] : head_->named_parameters())
      state.emplace_back("stages.head." + name, host(tensor));
  for (const auto& [name, tensor] : optimizer_->state())
    state.emplace_back("optimizer." + name, tensor);
  return state;
}

void StagedDistillation::load_state(const NamedTensors& state) {
  const std::vector<std::int64_t> position =
      entry(state, "stages.position").to_vector<std::int64_t>();
  RETORT_CHECK_AS(kBadInput,
                  position.size() >= 5 && position[0] >= 0 && position[1] >= 0 &&
                      position[0] < static_cast<std::int64_t>(stages_.size()),
                  "[stages] the state does not belong to these ", stages_.size(), " stages");
  index_ = static_cast<std::size_t>(position[0]);
  step_ = position[1];
  total_ = position[2];
  const bool begun = position[3] != 0;
  plateau_ = position[4] != 0;
  starts_.assign(position.begin() + 5, position.end());
  const std::vector<double> window = entry(state, "stages.window").to_vector<double>();
  RETORT_CHECK_AS(kBadInput, !window.empty(), "[stages] the state's window is empty");
  last_window_ = window[0];
  window_.clear();
  for (std::size_t i = 1; i < window.size(); ++i)
    window_.push_back(Tensor::scalar(window[i], DType::kF64));
  begun_ = false;
  graphed_.reset();
  optimizer_.reset();
  frozen_.reset();
  head_.reset();
  target_.reset();
  if (!begun) return;
  begin_stage(true);
  if (target_) {
    const Device device = student_.named_parameters().at(0).second.device();
    target_->restore(entry(state, "stages.projection.weight").to(device),
                     entry(state, "stages.projection.bias").to(device));
  }
  if (head_)
    for (const auto& [name, tensor] : head_->named_parameters())
      tensor.detach().copy_from(entry(state, "stages.head." + name));
  NamedTensors of_optimizer;
  for (const auto& [name, tensor] : state)
    if (name.starts_with("optimizer.")) of_optimizer.emplace_back(name.substr(10), tensor);
  optimizer_->load_state(of_optimizer);
}

}  // namespace retort::distill
