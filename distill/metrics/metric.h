// What can be measured of a model, as data: one row a metric, read by everything that logs, tables,
// draws or compares one.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace retort::distill {

/// All rows of one evaluation, in data order, on the host. Rows whose target is ignored are not in
/// it. A span that nothing was measured for is empty; the others have one entry a row.
///
/// Shapes    N rows, V = classes
/// Units     loss, kl: nats
struct RowRecords {
  std::int64_t classes = 0;
  std::span<const std::int32_t> targets = {};      // (N), in [0, V)
  std::span<const std::int32_t> predictions = {};  // (N), the first of equal maxima
  std::span<const float> loss = {};                // (N), -log p(target)
  std::span<const float> confidence = {};          // (N), the largest probability
  /// (N) or empty: how many classes stand before the target by logit, equals by index. 0 if and
  /// only if the prediction is the target.
  std::span<const std::int32_t> rank = {};
  std::span<const std::int32_t> teacher_predictions = {};  // (N) or empty
  std::span<const float> kl = {};  // (N) or empty: KL(teacher || student) at temperature 1

  std::size_t rows() const { return targets.size(); }
};

/// What a value counts. A share lies within 0 and 1 and is shown in percent.
enum class Unit : std::uint8_t { kNone, kShare, kNats, kSteps, kSeconds, kCount };
enum class Better : std::uint8_t { kNeither, kHigher, kLower };

/// "%", "nats", "steps", "s", or "".
const char* name_of(Unit unit);

struct MetricKind {
  std::string name;  // as in metrics.jsonl, where a set's name may stand before it: "test.accuracy"
  std::string label = {};  // as people read it; "" = the name with spaces for underscores
  std::string doc = {};    // formula and source, in a sentence
  Unit unit = Unit::kNone;
  Better better = Better::kNeither;
  int digits = 4;           // after the point, in the unit that is shown
  bool compares = true;     // arms are compared by it; the rest stands apart
  bool curve = false;       // drawn over steps
  bool proportion = false;  // a share of rows that are right or wrong: has binomial intervals
  bool family = false;      // also NAME_x and NAME.x for any x: "steps_to_0.99"
  /// The value from one pass over rows; nullopt if the rows do not hold what it needs. Null for
  /// what is not computed from rows (steps_to, wall_s, ...). It is called with at least one row,
  /// all spans as RowRecords says, and sums in double from the first row to the last.
  std::function<std::optional<double>(const RowRecords&)> of = {};
};

/// All kinds in order of registration, ours first. The pointers stay valid.
std::vector<const MetricKind*> metric_kinds();

/// Adds a kind, from any thread: from then on it is measured, logged and reported like ours.
/// Errors    kUsage for a name that is taken, that a line of metrics.jsonl uses for itself, or that
///           is not [a-z][a-z0-9_]*.
void register_metric(MetricKind kind);

/// The kind of a name as it stands in a file: "accuracy", "test.accuracy", "glue.mnli.accuracy",
/// "steps_to_0.99", "probe.degree1_ratio". Null if there is none.
const MetricKind* find_metric(std::string_view name);

/// A name taken apart: "test.steps_to_0.99" is of the set "test", of the kind steps_to, and has
/// the rest "0.99". Without a kind the set is what stands before the first point, if a digit does
/// not follow it.
struct MetricName {
  std::string set, rest;
  const MetricKind* kind = nullptr;
};
MetricName parse_metric_name(std::string_view name);

}  // namespace retort::distill
