#include "curriculum/ordering/order.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "curriculum/index.h"
#include "curriculum/names.h"
#include "curriculum/sampling/permutation.h"
#include "kernels/common/check.h"
#include "kernels/common/philox.h"

namespace retort::curriculum {
namespace {

using Indices = std::vector<std::int64_t>;

constexpr Named<OrderKind> kKinds[] = {{OrderKind::kCurriculum, "curriculum"},
                                       {OrderKind::kReverseExact, "reverse_exact"},
                                       {OrderKind::kReverseCorrectOnly, "reverse_correct_only"},
                                       {OrderKind::kRandom, "random"}};
constexpr Named<OrderKind> kInverses[] = {{OrderKind::kCurriculum, "off"}, kKinds[1], kKinds[2]};

// There are as many rounds as the largest class has samples, and a smaller class is spread over them
// evenly: the k-th of its n samples belongs to the round in which (k + 1/2) / n of all rounds lie
// behind. A stable sort by round keeps the rank inside it.
Order stratified(const Indices& ranked, std::span<const std::int32_t> labels) {
  std::map<std::int32_t, std::int64_t> size, seen;
  std::int64_t rounds = 0;
  for (const std::int64_t i : ranked) rounds = std::max(rounds, ++size[labels[at(i)]]);
  std::vector<std::int64_t> round(ranked.size());
  for (std::size_t r = 0; r < ranked.size(); ++r) {
    const std::int32_t c = labels[at(ranked[r])];
    round[r] = (2 * seen[c]++ + 1) * rounds / (2 * size[c]);
  }
  std::vector<std::size_t> places(ranked.size());
  std::iota(places.begin(), places.end(), std::size_t{0});
  std::stable_sort(places.begin(), places.end(),
                   [&](std::size_t a, std::size_t b) { return round[a] < round[b]; });
  Order order;
  for (const std::size_t place : places) {
    order.indices.push_back(ranked[place]);
    order.groups.push_back(round[place]);
  }
  return order;
}

}  // namespace

const char* name_of(OrderKind kind) { return name_in(kKinds, kind); }
nn::Strings order_kind_names() { return names_in(kKinds); }
OrderKind parse_order_kind(const std::string& text) { return parse_in(kKinds, "order", text); }
nn::Strings inverse_names() { return names_in(kInverses); }
OrderKind parse_inverse(const std::string& text) { return parse_in(kInverses, "inverse", text); }

OrderKeys default_keys(const ScoreKind& kind, bool correct_known) {
  return kind.sees_label || !correct_known ? OrderKeys::kSingle : OrderKeys::kCorrectFirst;
}

Order make_order(std::span<const float> easiness, std::span<const std::uint8_t> correct,
                 std::span<const std::int32_t> labels, const OrderOptions& options,
                 std::span<const std::int64_t> kept) {
  const std::size_t n = easiness.size();
  const bool split_by_correct =
      options.kind != OrderKind::kRandom &&
      (options.keys == OrderKeys::kCorrectFirst || options.kind == OrderKind::kReverseCorrectOnly);
  RETORT_CHECK(!split_by_correct || correct.size() == n, "[order] expected ", n,
               " correctness flags, got ", correct.size(),
               correct.empty() ? ": samples without labels are neither right nor wrong" : "");
  RETORT_CHECK(!options.stratify || labels.size() == n, "[order] expected ", n,
               " labels to deal classes in turn, got ", labels.size(),
               labels.empty() ? ": without labels, set stratify = false" : "");
  Indices ranked(kept.begin(), kept.end());
  if (kept.empty()) {
    ranked.resize(n);
    std::iota(ranked.begin(), ranked.end(), 0);
  }
  for (const std::int64_t i : ranked) {
    RETORT_CHECK(i >= 0 && at(i) < n, "[order] expected kept indices below ", n, ", got ", i);
    RETORT_CHECK_AS(kNumerics, !std::isnan(easiness[at(i)]), "[order] the score of sample ", i,
                    " is NaN");
    RETORT_CHECK(!options.stratify || labels[at(i)] >= 0, "[order] expected labels >= 0, got ",
                 labels[at(i)], " for sample ", i);
  }
  std::sort(ranked.begin(), ranked.end());
  if (options.kind == OrderKind::kRandom) {
    const Indices places = permutation(static_cast<std::int64_t>(ranked.size()), options.seed, 0,
                                       path_hash("curriculum.random_order"));
    Indices shuffled(ranked.size());
    for (std::size_t r = 0; r < ranked.size(); ++r) shuffled[r] = ranked[at(places[r])];
    ranked = std::move(shuffled);
  } else {
    const bool correct_reversed = options.kind == OrderKind::kReverseCorrectOnly;
    const bool by_single_key = options.keys == OrderKeys::kSingle;
    std::stable_sort(ranked.begin(), ranked.end(), [&](std::int64_t a, std::int64_t b) {
      const float ea = easiness[at(a)], eb = easiness[at(b)];
      if (!split_by_correct) return ea > eb;
      const bool ca = correct[at(a)] != 0, cb = correct[at(b)] != 0;
      if (ca != cb) return ca;
      if (ca) return correct_reversed ? ea < eb : ea > eb;
      return by_single_key ? ea > eb : ea < eb;
    });
  }
  Order order;
  if (options.stratify) {
    order = stratified(ranked, labels);
  } else {
    order.indices = std::move(ranked);
    order.groups.assign(order.indices.size(), 0);
  }
  if (options.kind == OrderKind::kReverseExact && !order.indices.empty()) {
    std::reverse(order.indices.begin(), order.indices.end());
    std::reverse(order.groups.begin(), order.groups.end());
    const std::int64_t last = order.groups.front();
    for (std::int64_t& g : order.groups) g = last - g;
  }
  return order;
}

}  // namespace retort::curriculum
