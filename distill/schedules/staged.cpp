#include "distill/schedules/staged.h"

#include <algorithm>

#include "engine/autograd/autograd.h"

namespace retort::distill {
namespace {

const Tensor& entry(const NamedTensors& state, const std::string& name) {
  for (const auto& [key, tensor] : state)
    if (key == name) return tensor;
  fail(ErrorCode::kBadInput, "[stages] the state has no '", name, "'");
}

StepSettings settings_of(const Stage& stage, StepSettings settings) {
  if (stage.lambda) settings.lambda = {*stage.lambda};
  if (stage.temperature) settings.temperature = {*stage.temperature};
  return settings;
}

bool calibrates(const Stage& stage) {
  return std::any_of(stage.terms.begin(), stage.terms.end(),
                     [](const WeightedTerm& weighted) { return weighted.term->calibrates(); });
}

std::string state_prefix(const Term& term) { return "stages." + term.name() + "."; }
std::string head_prefix(const Term& term) { return "stages." + term.name() + "_head."; }

Tensor on_host(const Tensor& t) { return t.detach().to(Device::kCpu).clone(); }

// The losses of the parts of all ranks, in the order that one rank has them in. Collective.
void add_all_parts(const StepReport& report, const StepSettings& settings,
                   std::vector<Tensor>* window, const nn::BatchSlices& slices) {
  const std::int64_t most = (settings.share->samples + slices.count() - 1) / slices.count(),
                     each = settings.micro_batch > 0 ? settings.micro_batch : most,
                     parts = (slices.last() - slices.first()) * ((most + each - 1) / each);
  std::vector<double> mine(static_cast<std::size_t>(1 + parts));  // how many, and each
  mine[0] = static_cast<double>(report.parts.size());
  RETORT_ASSERT(report.parts.size() < mine.size());
  for (std::size_t i = 0; i < report.parts.size(); ++i) mine[1 + i] = report.parts[i].total.item();
  const std::vector<double> all = slices.exchange()->gather(mine);
  for (std::size_t at = 0; at < all.size(); at += mine.size())
    for (std::size_t i = 0; i < static_cast<std::size_t>(all[at]); ++i)
      window->push_back(Tensor::scalar(all[at + 1 + i], DType::kF64));
}

}  // namespace

StagedDistillation::StagedDistillation(nn::Model& student, std::vector<RunTeacher> teachers,
                                       std::vector<Stage> stages, OptimizerFactory make_optimizer,
                                       std::function<nn::Batch()> calibration)
    : student_(student),
      teachers_(std::move(teachers)),
      stages_(std::move(stages)),
      make_optimizer_(std::move(make_optimizer)),
      calibration_(std::move(calibration)) {
  RETORT_CHECK(!stages_.empty(), "[stages] expected at least one stage");
  RETORT_CHECK(make_optimizer_ != nullptr, "[stages] expected an optimizer factory");
  for (const RunTeacher& t : teachers_)
    if (t.teacher != nullptr) check_apart(*t.teacher, student_);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Stage& s = stages_[i];
    const bool last = i + 1 == stages_.size();
    RETORT_CHECK(!s.terms.empty(), "[stages] expected a term in '", s.name, "'");
    RETORT_CHECK(s.until.steps >= 0 && s.until.window >= 0,
                 "[stages] expected steps and window >= 0 in '", s.name, "'");
    RETORT_CHECK(last || s.until.steps > 0 || s.until.window > 0, "[stages] '", s.name,
                 "' never ends and is not the last stage");
    RETORT_CHECK(!calibrates(s) || calibration_ != nullptr, "[stages] '", s.name,
                 "' needs calibration samples");
    for (const std::size_t t : s.teachers) {
      RETORT_CHECK(teachers_.empty() || t < teachers_.size(), "[stages] '", s.name,
                   "' names teacher ", t, " of ", teachers_.size());
      RETORT_CHECK(!calibrates(s) || (t < teachers_.size() && teachers_[t].teacher != nullptr),
                   "[stages] '", s.name, "' needs a teacher, and there is none with index ", t);
    }
  }
}

bool StagedDistillation::over() const {
  if (index_ + 1 == stages_.size()) return false;
  const SwitchRule& until = stages_[index_].until;
  return plateau_ || (until.steps > 0 && step_ >= until.steps);
}

std::size_t StagedDistillation::stage_index() const { return index_ + (over() ? 1 : 0); }

// Terms that look at samples first, and the parameters that a partial stage leaves alone.
void StagedDistillation::begin_terms(const Stage& stage, bool resuming) {
  if (!calibrates(stage)) return;
  const nn::Batch batch = calibration_();
  std::vector<std::shared_ptr<const Teacher>> teachers;
  std::vector<std::size_t> readings;
  for (const std::size_t t : stage.teachers) {
    teachers.push_back(teachers_[t].teacher);
    readings.push_back(teachers_[t].reading);
  }
  for (const auto& [weight, term] : stage.terms)
    term->begin({student_, teachers, readings, batch}, resuming);
  if (!stage.partial()) return;
  // The loss of one sample tells what it reaches; in evaluation mode, so that no running statistics
  // move.
  const nn::Batch one = batch.slice(0, 1);
  const nn::Evaluating evaluating(student_);
  const Answer answer = [&](std::size_t t, const nn::Batch& part, std::int64_t,
                            const nn::Want& want) {
    return teachers[t]->forward(part.read_by(readings[t]), want);
  };
  nn::Want want = stage.terms.front().term->of_student();
  for (const auto& [weight, term] : stage.terms) want = want | term->of_student();
  const nn::Outputs outputs = student_.forward(one.inputs[0], want);
  const Rows rows = rows_of(one, {}, false);
  std::vector<nn::Outputs> answers;
  if (const auto asked = want_of_teachers(stage.terms, rows))
    for (std::size_t t = 0; t < teachers.size(); ++t) answers.push_back(answer(t, one, 0, *asked));
  std::vector<Tensor> totals;
  for (const auto& [weight, term] : stage.terms)
    totals.push_back((*term)(outputs, answers, rows).total);
  frozen_ = std::make_unique<FrozenRest>(student_, totals);
}

nn::TrainedModules StagedDistillation::trained_with(const Stage& stage) {
  nn::TrainedModules modules{{"", &student_}};
  for (const auto& [weight, term] : stage.terms)
    if (nn::Module* const more = term->trained())
      modules.emplace_back(term->name() + "_head.", more);
  return modules;
}

void StagedDistillation::begin_stage(bool resuming) {
  const Stage& stage = stages_[index_];
  graphed_.reset();
  // Parameters that were frozen or trained beside the student want another optimizer: kept in
  // optimizer_ itself, so that a beginning that throws can be tried again.
  if (resuming || stage.fresh_optimizer || frozen_ || trains_more_ || stage.partial())
    optimizer_.reset();
  frozen_.reset();
  if (!resuming) {
    window_.clear();
    last_window_ = -1;
    plateau_ = false;
  }
  begin_terms(stage, resuming);
  const nn::TrainedModules modules = trained_with(stage);
  if (!optimizer_ || modules.size() > 1) {
    optimizer_.reset();
    optimizer_ = make_optimizer_(modules);
    RETORT_CHECK(optimizer_ != nullptr, "[stages] the optimizer factory returned null");
    optimizer_->zero_grad();
  }
  trains_more_ = modules.size() > 1;
  make_graphed(stage);
  if (!resuming) starts_.push_back(total_);
  begun_ = true;
}

std::vector<RunTeacher> StagedDistillation::teachers_of(const Stage& stage) const {
  std::vector<RunTeacher> teachers;
  for (const std::size_t t : stage.teachers)
    if (t < teachers_.size()) teachers.push_back(teachers_[t]);
  return teachers;
}

void StagedDistillation::make_graphed(const Stage& stage) {
  const Device device = optimizer_->arena().parameters().device();
  if (meter_ == nullptr || device == Device::kCpu || stage.until.window > 0) return;
  graphed_ = std::make_unique<GraphedStep>(teachers_of(stage), stage.terms, student_, *optimizer_,
                                           *meter_, graph_options_);
}

void StagedDistillation::use_meter(StepMeter& meter, const GraphOptions& options) {
  meter_ = &meter;
  graph_options_ = options;
  graphed_.reset();
  if (begun_ && !over()) make_graphed(stages_[index_]);
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

StepReport StagedDistillation::run(const nn::Batch& batch, const StepSettings& settings,
                                   double learning_rate) {
  const Stage& stage = stages_[index_];
  optimizer_->set_learning_rate(learning_rate);
  const Update update = [this] {
    optimizer_->step();
    optimizer_->zero_grad();
  };
  StepSettings own = settings;
  own.slices = optimizer_->slices();
  return eager_step(teachers_of(stage), stage.terms, student_, batch, own, update, meter_);
}

void StagedDistillation::count_step(const Stage& stage, const StepReport& report,
                                    const StepSettings& settings) {
  ++step_;
  ++total_;
  if (stage.until.window > 0) watch_plateau(report, settings);
}

StepReport StagedDistillation::step(const nn::Batch& batch, const StepSettings& settings,
                                    double learning_rate) {
  const Stage& stage = enter_due_stage();
  const StepSettings own = settings_of(stage, settings);
  StepReport report;
  if (graphed_) {
    graphed_->step(batch, own, learning_rate);
    report.samples = batch.size();
  } else {
    report = run(batch, own, learning_rate);
  }
  count_step(stage, report, own);
  return report;
}

StepReport StagedDistillation::step(const nn::DeviceFeed& feed, const nn::FeedBatch& batch,
                                    const StepSettings& settings, double learning_rate,
                                    const nn::FeedBatch* next) {
  RETORT_CHECK(meter_ != nullptr, "[stages] expected use_meter() before a step on a feed");
  const Stage& stage = enter_due_stage();
  if (!graphed_) return step(feed.host_batch(batch), settings, learning_rate);
  // Another stage may ask another teacher: nothing is computed ahead for it.
  const bool last = stage.until.steps > 0 && step_ + 1 == stage.until.steps;
  graphed_->step(feed, batch, settings_of(stage, settings), learning_rate, last ? nullptr : next);
  StepReport report;
  report.samples = batch.rows;
  count_step(stage, report, settings);
  return report;
}

void StagedDistillation::watch_plateau(const StepReport& report, const StepSettings& settings) {
  const SwitchRule& until = stages_[index_].until;
  if (const nn::BatchSlices* const slices = optimizer_->slices();
      slices != nullptr && slices->exchange() != nullptr && settings.share)
    add_all_parts(report, settings, &window_, *slices);
  else
    for (const TermLoss& part : report.parts) window_.push_back(part.total);
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
  for (const auto& [weight, term] : stages_[index_].terms) {
    for (const auto& [name, tensor] : term->state())
      state.emplace_back(state_prefix(*term) + name, on_host(tensor));
    if (const nn::Module* const head = term->trained())
      for (const auto& [name, tensor] : head->named_parameters())
        state.emplace_back(head_prefix(*term) + name, on_host(tensor));
  }
  for (const auto& [name, tensor] : optimizer_->state())
    state.emplace_back("optimizer." + name, tensor);
  return state;
}

void StagedDistillation::load_terms(const NamedTensors& state) {
  for (const auto& [weight, term] : stages_[index_].terms) {
    NamedTensors own;
    const std::string prefix = state_prefix(*term);
    for (const auto& [name, tensor] : state)
      if (name.starts_with(prefix)) own.emplace_back(name.substr(prefix.size()), tensor);
    if (!own.empty()) term->load_state(own);
    if (const nn::Module* const head = term->trained())
      for (const auto& [name, tensor] : head->named_parameters())
        tensor.detach().copy_from(entry(state, head_prefix(*term) + name));
  }
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
  if (!begun) return;
  begin_stage(true);
  load_terms(state);
  NamedTensors of_optimizer;
  for (const auto& [name, tensor] : state)
    if (name.starts_with("optimizer.")) of_optimizer.emplace_back(name.substr(10), tensor);
  optimizer_->load_state(of_optimizer);
}

}  // namespace retort::distill
