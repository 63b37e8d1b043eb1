// The order in which samples are fed.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "curriculum/scoring/score.h"

namespace retort::curriculum {

enum class OrderKind : std::uint8_t {
  kCurriculum,          // easy to hard
  kReverseExact,        // the fed order of kCurriculum, last to first
  kReverseCorrectOnly,  // correct samples hard to easy, then the misclassified as in kCurriculum
  kRandom,              // control: a permutation drawn from the seed
};
const char* name_of(OrderKind kind);
nn::Strings order_kind_names();
/// Errors    kUsage that lists the names.
OrderKind parse_order_kind(const std::string& text);
/// The words of the key curriculum.inverse: "off" (kCurriculum) and the kinds that reverse.
nn::Strings inverse_names();
OrderKind parse_inverse(const std::string& text);

enum class OrderKeys : std::uint8_t {
  kCorrectFirst,  // correct by falling easiness, then misclassified by rising easiness: a sample
                  // the teacher is surely wrong about is the hardest
  kSingle,        // falling easiness alone
};
/// kSingle for scores that see the label themselves, or where nobody knows what is correct (samples
/// without labels); else kCorrectFirst.
OrderKeys default_keys(const ScoreKind& kind, bool correct_known = true);

struct OrderOptions {
  OrderKind kind = OrderKind::kCurriculum;
  OrderKeys keys = OrderKeys::kCorrectFirst;
  bool stratify = true;    // classes in turn, by their shares
  std::uint64_t seed = 0;  // kRandom only
};

struct Order {
  std::vector<std::int64_t> indices;  // (N) sample fed at each rank
  std::vector<std::int64_t> groups;   // (N) stratified: which round of the classes; else 0
  bool operator==(const Order&) const = default;
};

/// Sorts samples 0 .. N-1, equal keys by index.
///
/// With `stratify` each class keeps the order and has its share of every stretch of it. With M the
/// size of the largest class, the k-th sample (from 0) of a class of n is emitted in group
/// floor((k + 1/2) M / n), inside a group by rank in the unstratified order. For classes of one size
/// that is one sample of every class in each group. (Dealing unequal classes one to one instead, as
/// the source's code does, leaves the end of the order to the largest class alone: a student that
/// ends on one class says that class.) kReverseExact
/// reverses the finished order, group numbers included.
///
/// Shapes    easiness (N), high is easy (see Note [Directions]); correct (N), read by kCorrectFirst
///           and kReverseCorrectOnly only; labels (N), >= 0, read with stratify only; kept empty
///           for all samples or the indices that take part.
/// Errors    kNumerics for a NaN easiness, naming the sample; kUsage for sizes, stratify without
///           labels or with one below 0, or an order by correctness where nobody knows it.
/// Source    class balancing: Hacohen, Weinshall 2019, arXiv:1904.03626.
Order make_order(std::span<const float> easiness, std::span<const std::uint8_t> correct,
                 std::span<const std::int32_t> labels, const OrderOptions& options,
                 std::span<const std::int64_t> kept = {});

}  // namespace retort::curriculum
