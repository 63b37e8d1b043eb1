// One job, an arm with a seed or a teacher: stages, batches, steps, evaluation, checkpoints, log
// lines. The only code that sees both distill and curriculum.
#include "tools/kdtrain/train_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "curriculum/curriculum.h"
#include "distill/losses/projection.h"
#include "distill/step.h"
#include "engine/autograd/autograd.h"
#include "engine/io/json.h"
#include "engine/runtime/device.h"
#include "nn/checkpoint/checkpoint.h"
#include "nn/checkpoint/weights.h"
#include "nn/layers/linear.h"
#include "nn/optim/optimizer.h"
#include "nn/optim/schedule.h"
#include "tools/kdtrain/signals.h"

namespace retort::tools {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

nn::Schedule schedule_of(const Settings& settings, const std::string& section, std::int64_t steps) {
  const auto part = [&](double share) {
    return static_cast<std::int64_t>(std::llround(share * static_cast<double>(steps)));
  };
  nn::Schedule schedule;
  schedule.kind = nn::parse_schedule(settings.text(section + ".schedule"));
  schedule.base = settings.number(section + ".lr");
  schedule.final = settings.number(section + ".lr_final");
  schedule.total = steps;
  schedule.gamma = settings.number(section + ".gamma");
  schedule.warmup = std::min(part(settings.number(section + ".warmup")), steps - 1);
  for (const double share : settings.numbers(section + ".milestones"))
    schedule.milestones.push_back(part(share));
  schedule.check();
  return schedule;
}

curriculum::SamplerOptions sampler_options(const Settings& settings, const std::string& section,
                                           std::uint64_t key, std::int64_t steps) {
  curriculum::SamplerOptions options;
  options.batch_size = settings.integer(section + ".batch");
  options.seed = key;
  options.feeding = settings.text(section + ".order") == "shuffle"
                        ? curriculum::Feeding::kShuffled
                        : curriculum::Feeding::kSequential;
  if (section != "train") return options;
  options.window_batches = settings.integer("train.window_shuffle");
  const std::string& pacing = settings.text("curriculum.pacing");
  if (pacing == "none") return options;
  options.feeding = curriculum::Feeding::kPaced;
  options.pacing.kind = curriculum::parse_pacing_kind(pacing);
  options.pacing.start = settings.number("curriculum.start");
  options.pacing.increase = settings.number("curriculum.increase");
  const auto& lengths = settings.integers("curriculum.pacing_steps");
  options.pacing.step_lengths.assign(lengths.begin(), lengths.end() - 1);
  options.pacing.step_length = lengths.back();
  options.pacing.full_at = settings.number("curriculum.full_at");
  options.pacing.total_steps = steps;
  return options;
}

// Sums between two log lines. Always folded step by step, so that a resumed run adds the same
// numbers in the same order.
struct Sums {
  double loss = 0, ce = 0, kd = 0, lambda = 0, correct = 0, teacher_correct = 0;
  std::int64_t steps = 0, samples = 0;

  Json json() const {
    Json out = Json::object();
    out.set("loss", loss).set("ce", ce).set("kd", kd).set("lambda", lambda);
    out.set("correct", correct).set("teacher_correct", teacher_correct);
    out.set("steps", steps).set("samples", samples);
    return out;
  }
  static Sums of(const Json& json) {
    Sums s;
    s.loss = json.at("loss").as_number();
    s.ce = json.at("ce").as_number();
    s.kd = json.at("kd").as_number();
    s.lambda = json.at("lambda").as_number();
    s.correct = json.at("correct").as_number();
    s.teacher_correct = json.at("teacher_correct").as_number();
    s.steps = json.at("steps").as_integer();
    s.samples = json.at("samples").as_integer();
    return s;
  }
};

class Job {
 public:
  Job(RunContext& context, const TrainingPlan& plan, std::size_t log_job)
      : context_(context),
        plan_(plan),
        s_(*plan.settings),
        section_(plan.section),
        log_job_(log_job),
        title_(plan.arm + "/" + std::to_string(plan.seed)),
        folder_(context.folder->arm_folder(plan.arm, plan.seed)),
        parity_(context.data->parity),
        batch_(s_.integer(section_ + ".batch")) {}

  Outcome run() {
    prepare();
    restore();
    while (step_ < steps_ && !reached_) {
      if (stop_requested() != 0 || context_.abort.load(std::memory_order_relaxed)) {
        checkpoint(false);
        return Outcome::kStopped;
      }
      one_step();
      after_step();
    }
    if (!finished_) finish();
    return Outcome::kFinished;
  }

 private:
  // -- before the first step ----------------------------------------------------------------------
  void prepare() {
    plan_.model->to(context_.device);
    const std::int64_t samples = parity_ ? s_.integer("data.epoch_size") : plan_.data->size();
    epoch_steps_ = (samples + batch_ - 1) / batch_;
    steps_ = planned_steps(s_, section_, samples);
    schedule_ = schedule_of(s_, section_, steps_);
    if (!parity_) {
      std::vector<std::int64_t> order;
      if (plan_.curriculum) {
        order = plan_.curriculum->order.indices;
      } else {
        for (std::int64_t i = 0; i < plan_.data->size(); ++i) order.push_back(i);
      }
      sampler_.emplace(order, sampler_options(s_, section_, plan_.key, steps_));
      if (plan_.curriculum && s_.text("distill.reliance.mode") != "off") {
        curriculum::RelianceOptions options;
        options.mode = curriculum::parse_reliance_mode(s_.text("distill.reliance.mode"));
        options.offset = curriculum::parse_reliance_offset(s_.text("distill.reliance.s"));
        options.clamp = s_.flag("distill.reliance.clamp");
        options.per_sample = s_.text("distill.reliance.per") == "sample";
        reliance_.emplace(plan_.curriculum->confidence, order, batch_, options);
      }
    }
    log_steps_ = s_.integer("train.log_steps");
    const bool teacher = section_ == "teacher.train";
    const std::int64_t often =
        s_.integer(teacher ? "teacher.train.checkpoint_steps" : "train.evaluate_steps");
    evaluate_steps_ = often > 0 ? often : epoch_steps_;
    const std::int64_t save = s_.integer("train.checkpoint_steps");
    checkpoint_steps_ = save > 0 ? save : s_.integer("train.checkpoint_epochs") * epoch_steps_;
    stop_at_ = s_.number("train.stop_at_accuracy");
    settings_.temperature = {static_cast<float>(s_.number("distill.temperature"))};
    settings_.divergence = divergence();
    const auto dtype = [&](const char* key) {
      return s_.text(key) == "bf16" ? DType::kBF16 : DType::kF32;
    };
    teacher_dtype_ = dtype("teacher.precision");
    dtype_ = teacher ? teacher_dtype_ : dtype("train.precision");
  }

  distill::Divergence divergence() const {
    const std::string& name = s_.text("distill.divergence");
    for (int i = 0; i < kernels::kDivergences; ++i)
      if (name == kernels::name_of(static_cast<distill::Divergence>(i)))
        return static_cast<distill::Divergence>(i);
    fail(ErrorCode::kUsage, "[recipe] no divergence is called ", name);
  }

  std::size_t stage_at(std::int64_t step, std::int64_t* begin) const {
    std::int64_t start = 0;
    for (std::size_t i = 0; i + 1 < plan_.stages.size(); ++i) {
      const std::int64_t end = start + plan_.stages[i].until.steps;
      if (step < end) return *begin = start, i;
      start = end;
    }
    return *begin = start, plan_.stages.size() - 1;
  }

  // The stage's trained module and optimizer. Everything drawn here is a function of the plan.
  void enter_stage(std::size_t index) {
    const distill::Stage& stage = plan_.stages[index];
    const bool keep_optimizer = optimizer_ && !stage.fresh_optimizer && !head_;
    stage_ = index;
    projection_.reset();
    head_.reset();
    if (stage.loss == distill::StageLoss::kProjection) head_ = prepare_projection(stage);
    if (keep_optimizer && !head_) return;
    optimizer_.reset();
    if (head_) head_->to(context_.device);
    optimizer_ = make_optimizer(trained_modules());
  }

  // The model, and in a HEAD projection stage the linear map behind it, thrown away afterwards.
  nn::TrainedModules trained_modules() const {
    nn::TrainedModules modules{{"", plan_.model.get()}};
    if (head_) modules.emplace_back("head.", head_.get());
    return modules;
  }

  std::unique_ptr<nn::Optimizer> make_optimizer(const nn::TrainedModules& modules) const {
    const auto common = [&](auto config) {
      config.learning_rate = s_.number(section_ + ".lr");
      config.weight_decay = s_.number(section_ + ".weight_decay");
      config.decay_norm_and_bias = s_.flag(section_ + ".decay_norm_and_bias");
      config.clip_norm = s_.number(section_ + ".clip_norm");
      return config;
    };
    if (s_.text(section_ + ".optimizer") == "sgd") {
      auto config = common(nn::SgdConfig{});
      config.momentum = s_.number(section_ + ".momentum");
      config.nesterov = s_.flag(section_ + ".nesterov");
      return std::make_unique<nn::Sgd>(modules, config);
    }
    auto config = common(nn::AdamWConfig{});
    config.beta1 = s_.number(section_ + ".beta1");
    config.beta2 = s_.number(section_ + ".beta2");
    config.epsilon = s_.number(section_ + ".epsilon");
    return std::make_unique<nn::AdamW>(modules, config);
  }

  std::shared_ptr<nn::Linear> prepare_projection(const distill::Stage& stage) {
    const distill::Teacher& teacher = *plan_.teachers.at(stage.teacher);
    const std::int64_t count = s_.integer("distill.extraction.calibration");
    std::shared_ptr<const nn::Dataset> source = plan_.data;
    if (parity_) source = parity_stream(s_, derive_key(plan_.seed, "calibration"));
    std::vector<std::int64_t> samples;
    for (std::int64_t i = 0; i < std::min(count, source->size()); ++i) samples.push_back(i);
    nn::BatchOptions options;
    options.device = context_.device;
    options.normalize = plan_.normalize;
    options.teacher_normalize = plan_.teacher->normalize;
    options.dtype = dtype_;
    const nn::Batch batch = source->make_batch(samples, options);
    std::vector<Tensor> student_hidden;
    {
      const NoGrad no_grad;
      plan_.model->eval();
      student_hidden = plan_.model->forward(batch.inputs.slice(0, 2), true).post;
      plan_.model->train();
    }
    const std::vector<Tensor> teacher_hidden =
        teacher.forward(batch.teacher_inputs.to(teacher_dtype_)).post;
    RETORT_CHECK(!student_hidden.empty() && !teacher_hidden.empty(),
                 "[extraction] expected models with hidden layers");
    teacher_layer_ = static_cast<std::size_t>(distill::teacher_layer(
                         stage.student_layer, static_cast<std::int64_t>(student_hidden.size()),
                         static_cast<std::int64_t>(teacher_hidden.size()))) -
                     1;
    const Tensor h = distill::hidden_features(teacher_hidden.at(teacher_layer_));  // (M, m_T)
    const std::int64_t student_width =
        student_hidden.at(static_cast<std::size_t>(stage.student_layer - 1)).dim(-1);
    const bool uses_head = stage.variant == distill::ProjectionVariant::kHead;
    const std::int64_t p = uses_head ? stage.width : student_width;
    projection_.emplace(h.dim(-1), p, stage.seed, static_cast<int>(stage.student_layer));
    projection_->calibrate(h, stage.centre, stage.scale);
    if (!uses_head) return nullptr;
    auto head = std::make_shared<nn::Linear>(student_width, p);
    head->initialize(stage.seed + static_cast<std::uint64_t>(stage.student_layer));
    return head;
  }

  // -- checkpoints --------------------------------------------------------------------------------
  Json state(bool finished) const {
    Json out = Json::object();
    out.set("arm", plan_.arm).set("seed", plan_.seed).set("step", step_);
    out.set("stage", static_cast<std::int64_t>(stage_)).set("finished", finished);
    out.set("sums", sums_.json()).set("steps_to", steps_to_).set("reached", reached_);
    out.set("wall_s", wall_before_ + seconds_since(start_));
    Json last = Json::object();
    for (const auto& [name, value] : last_) last.set(name, value);
    out.set("last", std::move(last)).set("lines", lines_);
    return out;
  }

  void checkpoint(bool finished) {
    fold();
    nn::write_checkpoint(folder_,
                         nn::checkpoint_of(step_, trained_modules(), *optimizer_, state(finished)),
                         static_cast<int>(s_.integer("train.checkpoint_keep")));
  }

  void restore() {
    start_ = Clock::now();
    interval_start_ = start_;
    make_folders(folder_);
    const auto saved = nn::read_newest_valid(folder_);
    if (saved) {
      const Json& extra = saved->state;
      RETORT_CHECK_AS(
          kBadInput,
          extra.at("arm").as_string() == plan_.arm && extra.at("seed").as_integer() == plan_.seed,
          "[resume] the checkpoint in ", folder_, " is of another job");
      step_ = extra.at("step").as_integer();
      enter_stage(static_cast<std::size_t>(extra.at("stage").as_integer()));
      nn::restore_checkpoint(*saved, trained_modules(), optimizer_.get());
      sums_ = Sums::of(extra.at("sums"));
      steps_to_ = extra.at("steps_to").as_integer();
      reached_ = extra.at("reached").as_bool();
      wall_before_ = extra.at("wall_s").as_number();
      lines_ = extra.at("lines").as_string();
      for (const auto& [name, value] : extra.at("last").members()) last_[name] = value.as_number();
      finished_ = extra.at("finished").as_bool();
      if (finished_) save_model();
      return;
    }
    enter_stage(0);
    for (const std::string& note : plan_.notes) {
      Json line = Json::object();
      line.set("arm", plan_.arm).set("seed", plan_.seed).set("split", "note").set("text", note);
      write(line);
    }
    if (reliance_)
      for (const std::string& warning : reliance_->warnings()) {
        Json line = Json::object();
        line.set("arm", plan_.arm).set("seed", plan_.seed).set("split", "note");
        write(line.set("text", warning));
      }
  }

  // -- the loop -----------------------------------------------------------------------------------
  void one_step() {
    std::int64_t begin = 0;
    const std::size_t stage_index = stage_at(step_, &begin);
    if (stage_index != stage_) enter_stage(stage_index);
    const distill::Stage& stage = plan_.stages[stage_index];

    std::vector<std::int64_t> samples;  // 7 -> 1
    if (sampler_) {
      samples = sampler_->batch(step_);
    } else {
      for (std::int64_t i = 0; i < batch_; ++i) samples.push_back(step_ * batch_ + i);
    }
    nn::BatchOptions options;
    options.device = context_.device;
    options.augment = nn::parse_augment(
        parity_ ? "none" : s_.text(section_ == "train" ? "data.augment" : "teacher.train.augment"));
    options.dtype = dtype_;
    options.seed = plan_.key;
    options.epoch = static_cast<std::uint32_t>(step_ / epoch_steps_);
    options.normalize = plan_.normalize;
    if (plan_.teacher != nullptr) options.teacher_normalize = plan_.teacher->normalize;
    nn::Batch batch = plan_.data->make_batch(samples, options);
    batch.teacher_inputs = batch.teacher_inputs.to(teacher_dtype_);

    learning_rate_ = schedule_.at(step_);
    optimizer_->set_learning_rate(learning_rate_);
    const auto update = [&] {  // 6
      optimizer_->step();
      optimizer_->zero_grad();
    };
    if (stage.loss == distill::StageLoss::kProjection) {
      projection_step(stage, batch, update);
    } else {
      settings_.lambda = lambda_of(stage, samples);
      double lambda = 0;
      for (const float l : settings_.lambda) lambda += static_cast<double>(l);
      lambdas_.push_back(lambda / static_cast<double>(settings_.lambda.size()));
      const distill::Teacher* teacher =
          plan_.teachers.empty() ? nullptr : plan_.teachers.at(stage.teacher).get();
      distill::StepBatch in{batch.inputs, batch.teacher_inputs, batch.targets, batch.sample,
                            batch.augment};
      reports_.push_back(distill::distill_step(teacher, *plan_.model, in, settings_, update));
    }
    ++step_;
    interval_samples_ += batch.size();
  }

  std::vector<float> lambda_of(const distill::Stage& stage,
                               const std::vector<std::int64_t>& samples) const {
    if (plan_.teachers.empty()) return {0.0f};
    if (stage.lambda) return {*stage.lambda};
    if (!reliance_) return {static_cast<float>(s_.number("distill.lambda"))};
    if (reliance_->options().per_sample) return reliance_->of_samples(samples);
    return {static_cast<float>(reliance_->of_batch(samples))};
  }

  template <class Update>
  void projection_step(const distill::Stage& stage, const nn::Batch& batch, const Update& update) {
    const auto layer = static_cast<std::size_t>(stage.student_layer - 1);
    const nn::ForwardResult told = plan_.teachers.at(stage.teacher)->forward(batch.teacher_inputs);
    const Tensor target = (*projection_)(distill::hidden_features(told.post.at(teacher_layer_)));
    const nn::ForwardResult said = plan_.model->forward(batch.inputs, true);
    Tensor hidden = distill::hidden_features(stage.variant == distill::ProjectionVariant::kPre
                                                 ? said.pre.at(layer)
                                                 : said.post.at(layer));  // (B, m_S)
    if (head_) hidden = head_->forward(hidden);                           // (B, p)
    const Tensor loss = distill::projection_loss(hidden, target);
    loss.backward();
    update();
    distill::StepReport report;
    report.losses.push_back(loss.detach());
    report.samples = batch.size();
    reports_.push_back(std::move(report));
    lambdas_.push_back(1.0);
  }

  // Reads back what the steps since the last call left on the device.
  void fold() {
    for (std::size_t i = 0; i < reports_.size(); ++i) {
      const distill::StepStatistics step = reports_[i].host();
      const double n = static_cast<double>(step.samples);
      if (!std::isfinite(step.loss)) {
        const std::int64_t at = step_ - static_cast<std::int64_t>(reports_.size() - i) + 1;
        fail(ErrorCode::kNumerics, "arm ", plan_.arm, ", seed ", plan_.seed, ": the loss is ",
             std::isnan(step.loss) ? "NaN" : "infinite", " at step ", at, " (epoch ",
             (at - 1) / epoch_steps_ + 1,
             "); the last checkpoint and all lines before it stand. A smaller ", section_,
             ".lr or a ", section_, ".clip_norm may help");
      }
      sums_.loss += step.loss;
      sums_.ce += step.loss_ce * n;
      sums_.kd += step.loss_kd * n;
      sums_.lambda += lambdas_[i];
      sums_.correct += std::round(step.accuracy * n);
      sums_.teacher_correct += std::round(step.teacher_accuracy * n);
      sums_.steps += 1;
      sums_.samples += step.samples;
    }
    reports_.clear();
    lambdas_.clear();
  }

  void after_step() {
    const bool last = step_ == steps_;
    const bool log_now = step_ % log_steps_ == 0 || last;
    const bool evaluate_now = step_ % evaluate_steps_ == 0 || last;
    if (reports_.size() >= 16 || log_now) fold();
    if (log_now) log_training();
    if (evaluate_now) evaluate_sets();
    if (checkpoint_steps_ > 0 && step_ % checkpoint_steps_ == 0 && !last && !reached_)
      checkpoint(false);
    if (step_ % 16 == 0 || last) context_.progress->update(title_, step_, steps_, progress_text_);
  }

  Json head(const std::string& split) const {
    Json line = Json::object();
    line.set("arm", plan_.arm).set("seed", plan_.seed);
    if (step_ % epoch_steps_ == 0)
      line.set("epoch", step_ / epoch_steps_);
    else
      line.set(
          "epoch",
          std::round(1e4 * static_cast<double>(step_) / static_cast<double>(epoch_steps_)) / 1e4);
    line.set("step", step_).set("split", split);
    return line;
  }

  void write(const Json& line) {
    const std::string text = line.dump();
    context_.log->write(log_job_, text);
    lines_ += text + "\n";
  }

  void log_training() {
    if (sums_.steps == 0) return;
    const double n = static_cast<double>(sums_.samples), steps = static_cast<double>(sums_.steps);
    Json line = head("train");
    line.set("loss", sums_.loss / steps).set("loss_ce", sums_.ce / n).set("loss_kd", sums_.kd / n);
    line.set("lambda", sums_.lambda / steps);
    line.set("temperature", static_cast<double>(settings_.temperature[0]));
    line.set("lr", learning_rate_).set("accuracy", sums_.correct / n);
    const double elapsed = seconds_since(interval_start_);
    line.set("samples_per_s",
             std::round(static_cast<double>(interval_samples_) / std::max(elapsed, 1e-9)));
    if (plan_.stages.size() > 1) line.set("stage", plan_.stages[stage_].name);
    if (reliance_) line.set("fraction_clamped", reliance_->fraction_clamped());
    write(line);
    char text[64];
    std::snprintf(text, sizeof text, "loss %.3f acc %.3f", sums_.loss / steps, sums_.correct / n);
    progress_text_ = text;
    sums_ = {};
    interval_samples_ = 0;
    interval_start_ = Clock::now();
  }

  void evaluate_sets() {
    const auto before = Clock::now();
    fold();
    std::string shown;
    for (std::size_t i = 0; i < context_.data->evaluation.size(); ++i) {
      const EvaluationSet& set = context_.data->evaluation[i];
      const auto start = Clock::now();
      EvaluationRequest request{context_.device, dtype_, s_.integer("train.evaluate_batch"),
                                plan_.normalize};
      if (plan_.teacher != nullptr && !plan_.teacher->evaluation_logits.empty())
        request.teacher_logits = &plan_.teacher->evaluation_logits[i];
      const distill::EvaluationResult r = evaluate_one(set, request);
      Json line = head(set.name);
      line.set("loss", r.loss).set("loss_ce", r.loss).set("loss_kd", r.mean_kl);
      line.set("lambda", 0.0).set("temperature", 1.0).set("lr", learning_rate_);
      line.set("accuracy", r.accuracy);
      line.set("samples_per_s",
               std::round(static_cast<double>(r.samples) / std::max(seconds_since(start), 1e-9)));
      line.set("calibration_error", r.calibration_error);
      last_[set.name + ".accuracy"] = r.accuracy;
      last_[set.name + ".loss"] = r.loss;
      if (request.teacher_logits != nullptr) {
        line.set("teacher_agreement", r.agreement);
        last_[set.name + ".teacher_agreement"] = r.agreement;
      }
      write(line);
      char text[96];
      std::snprintf(text, sizeof text, "  %s %.2f %%", set.name.c_str(), 100 * r.accuracy);
      shown += text;
      if (i == 0) notice_accuracy(r.accuracy);
    }
    if (!parity_)
      context_.progress->line(title_ + "  epoch " +
                              std::to_string((step_ + epoch_steps_ - 1) / epoch_steps_) + "/" +
                              std::to_string((steps_ + epoch_steps_ - 1) / epoch_steps_) + "  " +
                              progress_text_ + shown);
    interval_start_ += Clock::now() - before;  // training throughput leaves evaluation out
  }

  distill::EvaluationResult evaluate_one(const EvaluationSet& set,
                                         const EvaluationRequest& request) {
    const auto refuse = [&](const std::string& why) {
      fail(ErrorCode::kNumerics, "arm ", plan_.arm, ", seed ", plan_.seed,
           ": after the update at step ", step_, " the model is broken on ", set.name, " (", why,
           "); the last checkpoint and all lines before it stand. A smaller ", section_,
           ".lr or a ", section_, ".clip_norm may help");
    };
    distill::EvaluationResult result;
    try {
      result = evaluate(*plan_.model, *set.data, request);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNumerics) throw;
      refuse(error.what());
    }
    if (!std::isfinite(result.loss)) refuse("its loss is not finite");
    return result;
  }

  void notice_accuracy(double accuracy) {
    if (stop_at_ > 0 && accuracy >= stop_at_ && steps_to_ < 0) {
      steps_to_ = step_;
      reached_ = section_ == "train";  // a teacher trains to its end
    }
    for (const double threshold : plan_.snapshot_accuracies)
      if (accuracy > threshold && !last_.contains(snapshot_file(threshold))) {
        last_[snapshot_file(threshold)] = static_cast<double>(step_);
        nn::save_weights(*plan_.model, folder_ + "/" + snapshot_file(threshold), metadata());
      }
  }

  std::map<std::string, std::string> metadata() const {
    return {{"arch", s_.text(plan_.model_section + ".arch")},
            {"normalize", plan_.normalize.str()},
            {"arm", plan_.arm},
            {"seed", std::to_string(plan_.seed)},
            {"step", std::to_string(step_)}};
  }

  void save_model() const {
    nn::save_weights(*plan_.model, folder_ + "/model.safetensors", metadata());
  }

  void finish() {
    if (sums_.steps > 0 || !reports_.empty()) {
      fold();
      log_training();
    }
    Json line = Json::object();
    line.set("arm", plan_.arm).set("seed", plan_.seed).set("step", step_).set("split", "final");
    for (const auto& [name, value] : last_)
      if (!name.ends_with(".safetensors")) line.set(name, value);
    if (stop_at_ > 0) {
      char name[32];
      std::snprintf(name, sizeof name, "steps_to_%g", stop_at_);
      line.set(name, steps_to_ < 0 ? steps_ : steps_to_);
    }
    if (plan_.final_metrics)
      for (const auto& [name, value] : plan_.final_metrics(plan_.model)) line.set(name, value);
    if (reliance_) line.set("fraction_clamped", reliance_->fraction_clamped());
    line.set("parameters", plan_.model->parameter_count());
    line.set("wall_s", std::round(1e3 * (wall_before_ + seconds_since(start_))) / 1e3);
    write(line);
    checkpoint(true);
    save_model();
    if (parity_) {  // its evaluations are too many to show
      char text[128];
      std::snprintf(text, sizeof text, "%s  %lld steps, accuracy %.4f", title_.c_str(),
                    static_cast<long long>(step_),
                    last_[context_.data->evaluation[0].name + ".accuracy"]);
      context_.progress->line(text);
    }
  }

  RunContext& context_;
  const TrainingPlan& plan_;
  const Settings& s_;
  std::string section_;
  std::size_t log_job_;
  std::string title_, folder_;
  bool parity_;
  std::int64_t batch_;

  std::int64_t steps_ = 0, epoch_steps_ = 1, log_steps_ = 1, evaluate_steps_ = 1;
  std::int64_t checkpoint_steps_ = 0;
  double stop_at_ = 0;
  nn::Schedule schedule_;
  std::optional<curriculum::Sampler> sampler_;
  std::optional<curriculum::Reliance> reliance_;
  std::optional<distill::ProjectionTarget> projection_;
  std::size_t teacher_layer_ = 0;
  std::shared_ptr<nn::Linear> head_;
  std::unique_ptr<nn::Optimizer> optimizer_;
  distill::StepSettings settings_;
  DType dtype_ = DType::kF32, teacher_dtype_ = DType::kF32;  // of inputs, so of activations

  std::int64_t step_ = 0;  // finished ones
  std::size_t stage_ = static_cast<std::size_t>(-1);
  double learning_rate_ = 0;
  Sums sums_;
  std::vector<distill::StepReport> reports_;  // not folded yet
  std::vector<double> lambdas_;               // beside them
  std::map<std::string, double> last_;        // newest evaluation, for the final line
  std::int64_t steps_to_ = -1;
  bool reached_ = false, finished_ = false;
  std::string lines_, progress_text_;
  double wall_before_ = 0;
  std::int64_t interval_samples_ = 0;
  Clock::time_point start_, interval_start_;
};

}  // namespace

std::int64_t planned_steps(const Settings& settings, const std::string& section,
                           std::int64_t samples) {
  const std::int64_t steps = settings.integer(section + ".steps");
  if (steps > 0) return steps;
  const std::int64_t batch = settings.integer(section + ".batch");
  return settings.integer(section + ".epochs") * ((samples + batch - 1) / batch);
}

std::string snapshot_file(double accuracy) {
  char name[48];
  std::snprintf(name, sizeof name, "above_%g.safetensors", accuracy);
  return name;
}

std::optional<JobState> read_job_state(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) return std::nullopt;
  const auto saved = nn::read_newest_valid(folder);
  if (!saved) return std::nullopt;
  return JobState{saved->state.at("step").as_integer(), saved->state.at("finished").as_bool(),
                  saved->state.at("lines").as_string()};
}

Outcome run_job(RunContext& context, const TrainingPlan& plan, std::size_t log_job) {
  return Job(context, plan, log_job).run();
}

}  // namespace retort::tools
