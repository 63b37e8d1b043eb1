#include "distill/step.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/runtime/device.h"
#include "kernels/distill_loss/distill_loss.h"

namespace retort::distill {
namespace {

// The part of a setting that belongs to samples [begin, end).
Tensor part_of(const Tensor& values, std::int64_t begin, std::int64_t end) {
  return values.defined() && values.rank() == 1 ? values.slice(begin, end) : values;
}

void mark(PhaseTimer* timer, Phase phase) {
  if (timer != nullptr) timer->mark(phase);
}

Tensor on_device(const std::vector<float>& values, Device device) {
  if (values.size() == 1)
    return Tensor::scalar(static_cast<double>(values[0]), DType::kF32, device);
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, device);
}

// How many rows the loss does not ignore: f32 scalar on their device.
Tensor count_rows(const nn::Batch& batch) {
  const Device device = batch.inputs[0].device();
  if (!batch.targets.defined())
    return Tensor::scalar(static_cast<double>(batch.rows()), DType::kF32, device);
  const Tensor count = Tensor::empty({}, DType::kF32, device);
  kernels::CountRowsArgs args;
  args.targets = batch.targets.data<std::int32_t>();
  args.rows = batch.targets.dim(0);
  args.count = count.data<float>();
  kernels::count_rows(context_of(device), args);
  return count;
}

TermLoss loss_of(const Terms& terms, const nn::Outputs& student,
                 std::span<const nn::Outputs> teachers, const Rows& rows) {
  TermLoss all;
  for (const auto& [weight, term] : terms) {
    TermLoss one = (*term)(student, teachers, rows);
    if (weight != 1) one.total = scale(one.total, static_cast<double>(weight));
    all.total = all.total.defined() ? add(all.total, one.total) : one.total;
    for (Column& column : one.columns) all.columns.push_back(std::move(column));
  }
  return all;
}

double share_of(std::int64_t part, std::int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<std::int64_t>(1, whole));
}

// Steps 1 to 6 of a batch, part by part.
StepReport run_parts(const StepContext& context, const nn::Batch& batch, const Terms& terms,
                     const Rows& rows, const nn::Want& of_student,
                     const std::optional<nn::Want>& of_teachers) {
  const std::int64_t samples = batch.size(),
                     slice = context.micro_batch == 0 ? samples : context.micro_batch;
  StepReport report;
  report.samples = samples;
  for (std::int64_t begin = 0; begin < samples; begin += slice) {
    const std::int64_t end = std::min(begin + slice, samples);
    const nn::Batch part = batch.slice(begin, end);
    std::vector<nn::Outputs> answers;  // 2
    for (std::size_t t = 0; of_teachers && t < context.teachers; ++t)
      answers.push_back(context.answer(t, part, begin, *of_teachers));
    if (of_teachers) mark(context.timer, Phase::kTeacher);
    const nn::Outputs student = context.student.forward(part.inputs[0], of_student);  // 3
    mark(context.timer, Phase::kStudent);
    Rows own = rows;
    own.targets = part.targets;
    own.sample_of_row = part.sample_of_row;
    own.lambda = part_of(rows.lambda, begin, end);
    own.temperature = part_of(rows.temperature, begin, end);
    own.share = rows.share * share_of(end - begin, samples);
    own.row_share = rows.row_share * share_of(part.rows(), batch.rows());
    own.value_share = rows.value_share * share_of(part.inputs[0].values.dim(0),  //
                                                  batch.inputs[0].values.dim(0));
    TermLoss loss = loss_of(terms, student, answers, own);  // 4
    mark(context.timer, Phase::kLoss);
    loss.total.backward();  // 5
    loss.total = loss.total.detach();
    report.parts.push_back(std::move(loss));
    report.rows.push_back(part.rows());
    report.targets.push_back(part.targets);
    if (context.after_part) context.after_part(report);
    mark(context.timer, Phase::kBackward);
  }
  context.update();  // 6
  mark(context.timer, Phase::kUpdate);
  return report;
}

void clear_gradients(nn::Module& module) {
  module.visit_parameters([](const std::string&, Tensor& parameter) { parameter.zero_grad(); });
}

}  // namespace

void check_apart(const Teacher& teacher, nn::Model& student) {
  RETORT_CHECK(&teacher.model() != &student, "[step] the student is its own teacher '",
               teacher.name(), "'");
  std::set<const void*> own;
  const auto add = [&](const std::string&, Tensor& t) { own.insert(t.storage().get()); };
  student.visit_parameters(add);
  student.visit_buffers(add);
  for (const auto& tensors : {teacher.model().named_parameters(), teacher.model().named_buffers()})
    for (const auto& [path, tensor] : tensors)
      RETORT_CHECK(!own.contains(tensor.storage().get()), "[step] the student shares '", path,
                   "' with its teacher '", teacher.name(), "': it would train it");
}

bool asks_teacher(const StepSettings& settings, std::int64_t samples, bool has_teacher) {
  RETORT_CHECK(samples >= 1, "[distill_step] expected at least one sample");
  const auto count = static_cast<std::size_t>(samples);
  for (const auto* values : {&settings.lambda, &settings.temperature})
    RETORT_CHECK(values->size() == 1 || values->size() == count, "[distill_step] expected 1 or ",
                 samples, " values of lambda and temperature, got ", values->size());
  for (std::size_t i = 0; i < settings.lambda.size(); ++i)
    RETORT_CHECK(std::isfinite(settings.lambda[i]), "[distill_step] expected a finite lambda, got ",
                 settings.lambda[i], " for sample ", i, " of the batch");
  for (std::size_t i = 0; i < settings.temperature.size(); ++i)
    RETORT_CHECK(std::isfinite(settings.temperature[i]) && settings.temperature[i] > 0,
                 "[distill_step] expected a finite temperature > 0, got ", settings.temperature[i],
                 " for sample ", i, " of the batch");
  RETORT_CHECK(settings.micro_batch >= 0, "[distill_step] expected micro_batch >= 0, got ",
               settings.micro_batch);
  const bool asks = std::any_of(settings.lambda.begin(), settings.lambda.end(),
                                [](float lambda) { return lambda != 0; });
  RETORT_CHECK(!asks || has_teacher,
               "[distill_step] expected a teacher for a lambda that is not 0");
  return asks;
}

Rows rows_of(const nn::Batch& batch, const StepSettings& settings, bool asks) {
  Rows rows;
  rows.targets = batch.targets;
  rows.sample_of_row = batch.sample_of_row;
  if (!asks) return rows;
  const Device device = batch.inputs[0].device();
  rows.lambda = on_device(settings.lambda, device);
  rows.temperature = on_device(settings.temperature, device);
  return rows;
}

std::optional<nn::Want> want_of_teachers(const Terms& terms, const Rows& rows) {
  std::optional<nn::Want> want;
  for (const auto& [weight, term] : terms)
    if (const auto one = term->of_teacher(rows)) want = want ? *want | *one : *one;
  return want;
}

nn::Outputs answer_of(const Teacher& teacher, const nn::Batch& part, std::size_t reading,
                      const nn::Want& want) {
  const nn::Inputs& inputs = part.read_by(reading);
  if (!want.logits_suffice() || (want.head && teacher.cache() == nullptr))
    return teacher.forward(inputs, want);
  nn::Outputs answer;
  answer.logits = teacher.logits(inputs, part.sample, part.variant);  // (N, V)
  return answer;
}

StepReport one_step(const StepContext& context, const nn::Batch& batch, const Terms& terms,
                    const Rows& rows) {
  batch.check();
  RETORT_CHECK(!terms.empty(), "[step] expected at least one term");
  const std::int64_t samples = batch.size(),
                     slice = context.micro_batch == 0 ? samples : context.micro_batch;
  RETORT_CHECK(samples >= 1, "[step] expected at least one sample");
  nn::Want of_student = terms.front().term->of_student();
  for (const auto& [weight, term] : terms) of_student = of_student | term->of_student();
  const auto of_teachers = want_of_teachers(terms, rows);
  RETORT_CHECK(!of_teachers || context.teachers > 0, "[step] expected a teacher");

  Rows all = rows;
  if (slice < samples && !all.normalizer.defined()) all.normalizer = count_rows(batch);
  try {
    return run_parts(context, batch, terms, all, of_student, of_teachers);
  } catch (...) {
    clear_gradients(context.student);
    for (const auto& [weight, term] : terms)
      if (nn::Module* const more = term->trained()) clear_gradients(*more);
    throw;
  }
}

StepReport eager_step(std::span<const RunTeacher> teachers, const Terms& terms, nn::Model& student,
                      const nn::Batch& batch, const StepSettings& settings, const Update& update,
                      StepMeter* meter) {
  batch.check();
  const bool there = !teachers.empty() && teachers[0].teacher != nullptr;
  const bool asks = asks_teacher(settings, batch.size(), there);
  for (const RunTeacher& t : teachers)
    RETORT_CHECK(t.teacher == nullptr || &t.teacher->model() != &student,
                 "[step] the student is its own teacher '", t.teacher->name(), "'");
  const Answer answer = [&](std::size_t t, const nn::Batch& part, std::int64_t,
                            const nn::Want& want) {
    return answer_of(*teachers[t].teacher, part, teachers[t].reading, want);
  };
  StepContext context{student, there ? teachers.size() : 0, answer,
                      update,  settings.micro_batch,        settings.timer,
                      {}};
  if (meter != nullptr) {
    const std::int64_t row =
        meter->begin_row(batch.inputs[0].device(), batch.size(), settings.told);
    context.after_part = [meter, row](const StepReport& so_far) {
      const bool first = so_far.parts.size() == 1;
      const TermLoss& part = so_far.parts.back();
      ColumnNames names = StepMeter::write(meter->rows(), row, {}, first, part.total,
                                           so_far.targets.back(), so_far.rows.back(), part.columns);
      if (first) meter->name_row(row, std::move(names));
    };
  }
  try {
    return one_step(context, batch, terms, rows_of(batch, settings, asks));
  } catch (...) {
    if (meter != nullptr) meter->drop_row();
    throw;
  }
}

StepReport distill_step(const Teacher* teacher, nn::Model& student, const nn::Batch& batch,
                        const StepSettings& settings, const Update& update, const Terms& terms) {
  if (teacher != nullptr) check_apart(*teacher, student);
  const RunTeacher one{std::shared_ptr<const Teacher>(std::shared_ptr<void>(), teacher), 1};
  return eager_step(std::span(&one, 1), terms, student, batch, settings, update);
}

double StepReport::loss() const {
  double sum = 0;
  for (const TermLoss& part : parts) sum += part.total.item();
  return sum;
}

StepNumbers StepReport::host() const {
  if (parts.empty()) return {};
  StepMeter meter(1);
  const std::int64_t row = meter.begin_row(parts[0].total.device(), samples);
  for (std::size_t i = 0; i < parts.size(); ++i)
    meter.name_row(row, StepMeter::write(meter.rows(), row, {}, i == 0, parts[i].total, targets[i],
                                         rows[i], parts[i].columns));
  return meter.summary();
}

std::vector<float> StepReport::column(const std::string& name) const {
  std::vector<float> values;
  for (const TermLoss& part : parts)
    for (const Column& column : part.columns)
      if (column.name == name) {
        const std::vector<float> own = column.values.to_vector<float>();
        values.insert(values.end(), own.begin(), own.end());
      }
  return values;
}

}  // namespace retort::distill
