#include "distill/metrics/metric.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

#include "distill/metrics/metrics_of_rows.h"
#include "kernels/common/check.h"

namespace retort::distill {
namespace {

// What people look for first stands first: tables keep this order.
std::deque<MetricKind> built_in() {
  return {
      {.name = "steps_to",
       .label = "steps to",
       .doc = "training steps until an accuracy was reached; the cap where it never was",
       .unit = Unit::kSteps,
       .better = Better::kLower,
       .digits = 0,
       .family = true},
      {.name = "accuracy",
       .doc = "share of rows whose first largest logit is the target's",
       .unit = Unit::kShare,
       .better = Better::kHigher,
       .digits = 2,
       .curve = true,
       .proportion = true,
       .of = accuracy},
      {.name = "balanced_accuracy",
       .doc = "mean over classes of the share of their rows that are right",
       .unit = Unit::kShare,
       .better = Better::kHigher,
       .digits = 2,
       .compares = false,
       .of = balanced_accuracy},
      {.name = "top5",
       .label = "top-5 accuracy",
       .doc = "share of rows whose target is among the five largest logits",
       .unit = Unit::kShare,
       .better = Better::kHigher,
       .digits = 2,
       .curve = true,
       .proportion = true,
       .of = top5},
      {.name = "macro_f1",
       .label = "macro F1",
       .doc = "mean of the classes' F1; classes without any target or prediction are left out",
       .unit = Unit::kShare,
       .better = Better::kHigher,
       .digits = 2,
       .curve = true,
       .of = macro_f1},
      {.name = "mcc",
       .label = "Matthews correlation",
       .doc = "R_K, the Matthews correlation of any number of classes (Gorodkin 2004)",
       .better = Better::kHigher,
       .of = mcc},
      {.name = "loss",
       .doc = "mean negative log-likelihood (NLL) of the target; on training lines the objective",
       .unit = Unit::kNats,
       .better = Better::kLower,
       .curve = true,
       .of = mean_loss},
      {.name = "perplexity",
       .doc = "exp of the mean negative log-likelihood",
       .better = Better::kLower,
       .digits = 2,
       .compares = false,
       .of = perplexity},
      {.name = "calibration_error",
       .label = "calibration error (ECE)",
       .doc = "expected calibration error in 15 equal bins of the confidence (Guo et al. 2017)",
       .unit = Unit::kShare,
       .better = Better::kLower,
       .digits = 2,
       .compares = false,
       .curve = true,
       .of = calibration_error},
      {.name = "teacher_agreement",
       .label = "agreement with the teacher",
       .doc = "share of rows that student and teacher predict alike",
       .unit = Unit::kShare,
       .digits = 2,
       .compares = false,
       .curve = true,
       .proportion = true,
       .of = teacher_agreement},
      {.name = "mean_kl",
       .label = "KL to the teacher",
       .doc = "mean KL(teacher || student) at temperature 1",
       .unit = Unit::kNats,
       .compares = false,
       .curve = true,
       .of = mean_kl},
      {.name = "fraction_clamped",
       .label = "lambda clamped",
       .doc = "share of rows whose reliance met the edge of [0, 1]",
       .unit = Unit::kShare,
       .digits = 2,
       .compares = false},
      {.name = "probe",
       .doc = "how much more a hidden layer shows the bits that matter than the others",
       .digits = 3,
       .compares = false,
       .family = true},
      {.name = "wall_s",
       .label = "wall time",
       .doc = "of the job, all its sittings",
       .unit = Unit::kSeconds,
       .better = Better::kLower,
       .digits = 1,
       .compares = false},
      {.name = "parameters",
       .doc = "trainable numbers of the model",
       .unit = Unit::kCount,
       .digits = 0,
       .compares = false},
  };
}

struct Registry {
  std::mutex mutex;
  std::deque<MetricKind> kinds = built_in();  // a deque: pointers stay valid as it grows
};

Registry& registry() {
  static Registry all;
  return all;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_name(std::string_view name) {
  return !name.empty() && name[0] >= 'a' && name[0] <= 'z' &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || is_digit(c) || c == '_'; });
}

// Keys of metrics.jsonl that say which line it is; a metric of that name would replace them.
bool is_key_of_lines(std::string_view name) {
  constexpr std::string_view kKeys[] = {"arm",   "seed",   "epoch", "step", "split",
                                        "stage", "reason", "text",  "n"};
  return std::find(std::begin(kKeys), std::end(kKeys), name) != std::end(kKeys);
}

// Of a name without its set. `rest`: what a family's member has behind the family's name.
const MetricKind* kind_of(const std::deque<MetricKind>& kinds, std::string_view name,
                          std::string_view* rest) {
  *rest = {};
  for (const MetricKind& kind : kinds)
    if (kind.name == name) return &kind;
  for (const MetricKind& kind : kinds) {
    const std::size_t size = kind.name.size();
    if (!kind.family || name.size() <= size + 1 || !name.starts_with(kind.name)) continue;
    if (name[size] != '_' && name[size] != '.') continue;
    *rest = name.substr(size + 1);
    return &kind;
  }
  return nullptr;
}

}  // namespace

const char* name_of(Unit unit) {
  switch (unit) {
    case Unit::kShare: return "%";
    case Unit::kNats: return "nats";
    case Unit::kSteps: return "steps";
    case Unit::kSeconds: return "s";
    case Unit::kCount:
    case Unit::kNone: return "";
  }
  return "";
}

std::vector<const MetricKind*> metric_kinds() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  std::vector<const MetricKind*> kinds;
  for (const MetricKind& kind : all.kinds) kinds.push_back(&kind);
  return kinds;
}

void register_metric(MetricKind kind) {
  RETORT_CHECK(is_name(kind.name), "[metric] expected a name of [a-z][a-z0-9_]*, got '", kind.name,
               "'");
  RETORT_CHECK(!is_key_of_lines(kind.name), "[metric] expected another name than '", kind.name,
               "': lines of metrics.jsonl use it for themselves");
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  for (const MetricKind& other : all.kinds)
    RETORT_CHECK(other.name != kind.name, "[metric] the name '", kind.name, "' is taken");
  all.kinds.push_back(std::move(kind));
}

MetricName parse_metric_name(std::string_view name) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  // The longest end of the name that has a kind: a point may be part of a family's member.
  for (std::size_t begin = 0; begin < name.size();) {
    std::string_view rest;
    if (const MetricKind* kind = kind_of(all.kinds, name.substr(begin), &rest))
      return {std::string(name.substr(0, begin ? begin - 1 : 0)), std::string(rest), kind};
    const std::size_t point = name.find('.', begin);
    if (point == std::string_view::npos) break;
    begin = point + 1;
  }
  const std::size_t point = name.find('.');
  if (point == 0 || point == std::string_view::npos || point + 1 == name.size() ||
      is_digit(name[point + 1]))
    return {"", std::string(name), nullptr};
  return {std::string(name.substr(0, point)), std::string(name.substr(point + 1)), nullptr};
}

const MetricKind* find_metric(std::string_view name) { return parse_metric_name(name).kind; }

}  // namespace retort::distill
