#include "distill/step.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "distill/own_rows.h"
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
    RETORT_CHECK(one.total.defined() && one.total.rank() == 0, "[step] expected a scalar from '",
                 term->name(), "', got ",
                 one.total.defined() ? one.total.shape().str() : "nothing");
    if (weight != 1) one.total = scale(one.total, static_cast<double>(weight));
    all.total = all.total.defined() ? add(all.total, one.total) : one.total;
    for (Column& column : one.columns) all.columns.push_back(std::move(column));
  }
  return all;
}

// Samples of the whole batch that this process runs.
std::pair<std::int64_t, std::int64_t> samples_of(const nn::BatchSlices& slices,
                                                 std::int64_t samples) {
  return {nn::slice_of(samples, slices.count(), slices.first()).first,
          nn::slice_of(samples, slices.count(), slices.last()).first};
}

// How many.
std::int64_t own_samples(const nn::BatchSlices* slices, std::int64_t samples) {
  if (slices == nullptr) return samples;
  const auto [first, last] = samples_of(*slices, samples);
  return last - first;
}

// The whole of which this batch is all, or a part.
BatchShare whole_of(const nn::Batch& batch, const std::optional<BatchShare>& given,
                    const nn::BatchSlices* slices) {
  if (!given)
    return {batch.size(), 0, batch.size(), 0, batch.rows(), batch.inputs[0].values.dim(0)};
  RETORT_CHECK(slices != nullptr && given->samples >= 1,
               "[step] expected slices and at least one sample for a share of a batch");
  const auto [first, last] = samples_of(*slices, given->samples);
  RETORT_CHECK(given->first == first && given->last == last && batch.size() == last - first,
               "[step] expected samples ", first, " to ", last, " of ", given->samples,
               " for slices ", slices->first(), " to ", slices->last(), ", got ", batch.size(),
               " as ", given->first, " to ", given->last);
  BatchShare share = *given;
  if (share.rows == 0) share.rows = share.samples;
  if (share.values == 0) share.values = share.samples;
  return share;
}

double share_of(std::int64_t part, std::int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<std::int64_t>(1, whole));
}

// Steps 2 to 5 of a batch, part by part, and 6.
class Parts {
 public:
  Parts(const StepContext& context, const nn::Batch& batch, const Terms& terms, const Rows& rows,
        const nn::Want& of_student, const std::optional<nn::Want>& of_teachers,
        const BatchShare& whole)
      : context_(context),
        batch_(batch),
        whole_(whole),
        terms_(terms),
        rows_(rows),
        of_student_(of_student),
        of_teachers_(of_teachers) {
    report_.samples = own_samples(context.slices, whole.samples);
  }

  StepReport run() {
    nn::BatchSlices* const slices = context_.slices;
    if (slices == nullptr) run_slice(0, whole_.samples);
    for (std::int64_t s = 0; slices != nullptr && s < slices->count(); ++s) {
      if (s < slices->first() || s >= slices->last()) continue;  // another rank's
      const auto [begin, end] = nn::slice_of(whole_.samples, slices->count(), s);
      run_slice(begin, end);
      slices->add(s, begin < end);
    }
    context_.update();  // 6
    mark(context_.timer, Phase::kUpdate);
    return std::move(report_);
  }

 private:
  // Samples are numbered as in the whole batch.
  void run_slice(std::int64_t first, std::int64_t last) {
    const std::int64_t each = context_.micro_batch == 0 ? last - first : context_.micro_batch;
    std::int64_t part = 0;
    for (std::int64_t begin = first; begin < last; begin += each, ++part) {
      std::optional<nn::StatisticsScope> scope;
      if (context_.slices != nullptr) scope.emplace(context_.slices->begin_pass(part));
      report_.slice_rows.push_back(slice_row_);
      run_part(begin, std::min(begin + each, last));
    }
    if (first < last) ++slice_row_;
  }

  void run_part(std::int64_t begin, std::int64_t end) {
    const bool in_slices = context_.slices != nullptr;  // see Note [Rows of a slice]
    const auto own_part = [&](const Tensor& t) { return in_slices ? own_rows(t) : t; };
    const std::int64_t at = begin - whole_.first;  // in the batch at hand
    nn::Batch part = batch_.slice(at, at + end - begin);
    if (in_slices) part = own_rows(std::move(part));
    std::vector<nn::Outputs> answers;  // 2
    for (std::size_t t = 0; of_teachers_ && t < context_.teachers; ++t) {
      answers.push_back(context_.answer(t, part, at, *of_teachers_));
      answers.back().logits = own_part(answers.back().logits);
    }
    if (of_teachers_) mark(context_.timer, Phase::kTeacher);
    const nn::Outputs student = context_.student.forward(part.inputs[0], of_student_);  // 3
    mark(context_.timer, Phase::kStudent);
    Rows own = rows_;
    own.targets = part.targets;
    own.sample_of_row = part.sample_of_row;
    own.lambda = own_part(part_of(rows_.lambda, begin, end));
    own.temperature = own_part(part_of(rows_.temperature, begin, end));
    own.share = rows_.share * share_of(end - begin, whole_.samples);
    own.row_share = rows_.row_share * share_of(part.rows(), whole_.rows);
    own.value_share = rows_.value_share * share_of(part.inputs[0].values.dim(0), whole_.values);
    TermLoss loss = loss_of(terms_, student, answers, own);  // 4
    mark(context_.timer, Phase::kLoss);
    loss.total.backward();  // 5
    loss.total = loss.total.detach();
    report_.parts.push_back(std::move(loss));
    report_.rows.push_back(part.rows());
    report_.targets.push_back(part.targets);
    if (context_.after_part) context_.after_part(report_);
    mark(context_.timer, Phase::kBackward);
  }

  const StepContext& context_;
  const nn::Batch& batch_;
  const BatchShare& whole_;
  const Terms& terms_;
  const Rows& rows_;
  const nn::Want& of_student_;
  const std::optional<nn::Want>& of_teachers_;
  StepReport report_;
  std::int64_t slice_row_ = 0;  // of the next slice that has samples
};

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

BatchShare BatchShare::of(const nn::BatchSlices& slices, std::span<const std::int32_t> labels) {
  BatchShare share;
  share.samples = static_cast<std::int64_t>(labels.size());
  std::tie(share.first, share.last) = samples_of(slices, share.samples);
  share.counted =
      share.samples - std::count(labels.begin(), labels.end(), DistillationLossArgs().ignore_index);
  return share;
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
  if (teacher.keeps(CachedRows::kFeatures) && !part.sample.empty() && inputs.rows.defined()) {
    answer = teacher.features(inputs, part.sample, part.variant, part.sample_of_row_on_host);
    if (want.head) return answer;
    const NoGrad no_grad;
    answer.logits = nn::logits_of(answer);  // (N, V)
    answer.features = {}, answer.head = {};
    return answer;
  }
  answer.logits = teacher.logits(inputs, part.sample, part.variant);  // (N, V)
  return answer;
}

StepReport one_step(const StepContext& context, const nn::Batch& batch, const Terms& terms,
                    const Rows& rows) {
  batch.check();
  RETORT_CHECK(!terms.empty(), "[step] expected at least one term");
  const BatchShare whole = whole_of(batch, context.share, context.slices);
  RETORT_CHECK(whole.samples >= 1, "[step] expected at least one sample");
  nn::Want of_student = terms.front().term->of_student();
  for (const auto& [weight, term] : terms) of_student = of_student | term->of_student();
  const auto of_teachers = want_of_teachers(terms, rows);
  RETORT_CHECK(!of_teachers || context.teachers > 0, "[step] expected a teacher");

  Rows all = rows;
  const bool cut = context.slices != nullptr ||
                   (context.micro_batch != 0 && context.micro_batch < whole.samples);
  if (cut && !all.normalizer.defined())
    all.normalizer = context.share
                         ? on_device({static_cast<float>(whole.counted)}, batch.inputs[0].device())
                         : count_rows(batch);
  try {
    return Parts(context, batch, terms, all, of_student, of_teachers, whole).run();
  } catch (...) {
    if (context.slices != nullptr) context.slices->clear();
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
  const std::int64_t samples = settings.share ? settings.share->samples : batch.size();
  const bool asks = asks_teacher(settings, samples, there);
  for (const RunTeacher& t : teachers)
    RETORT_CHECK(t.teacher == nullptr || &t.teacher->model() != &student,
                 "[step] the student is its own teacher '", t.teacher->name(), "'");
  // A cache is asked once about a batch in slices: what it lacks is computed in long passes, with
  // bits that do not hang on who asks (Note [Passes that fill the cache]).
  std::vector<Tensor> cached(teachers.size());
  const Answer answer = [&](std::size_t t, const nn::Batch& part, std::int64_t begin,
                            const nn::Want& want) {
    const auto& [teacher, reading] = teachers[t];
    const bool once = settings.slices != nullptr && teacher->cache() != nullptr &&
                      want.logits_suffice() && !batch.sample.empty() &&
                      !batch.read_by(reading).starts.defined();
    if (!once) return answer_of(*teacher, part, reading, want);
    if (!cached[t].defined()) cached[t] = answer_of(*teacher, batch, reading, want).logits;
    nn::Outputs answer;
    answer.logits = cached[t].slice(begin, begin + part.size());  // (N, V)
    return answer;
  };
  StepContext context{student,
                      there ? teachers.size() : 0,
                      answer,
                      update,
                      settings.micro_batch,
                      settings.timer,
                      {},
                      settings.slices,
                      settings.share};
  if (meter != nullptr) {
    const nn::BatchSlices* const slices = settings.slices;
    const std::int64_t row = meter->begin_row(
        batch.inputs[0].device(), samples, settings.told, slices ? slices->count() : 1,
        slices ? std::optional(std::pair(slices->first(), slices->last())) : std::nullopt);
    context.after_part = [meter, row](const StepReport& so_far) {
      ColumnNames names = so_far.write_part(so_far.parts.size() - 1, *meter, row, {});
      if (so_far.parts.size() == 1) meter->name_row(row, std::move(names));
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
  const std::int64_t row =
      meter.begin_row(parts[0].total.device(), samples, {}, slice_rows.back() + 1);
  for (std::size_t i = 0; i < parts.size(); ++i) meter.name_row(row, write_part(i, meter, row, {}));
  return meter.summary();
}

ColumnNames StepReport::write_part(std::size_t i, const StepMeter& meter, std::int64_t row,
                                   const Tensor& slot) const {
  const bool first = i == 0 || slice_rows[i] != slice_rows[i - 1];
  return StepMeter::write(meter.rows(), row + slice_rows[i], slot, first, parts[i].total,
                          targets[i], rows[i], parts[i].columns);
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
