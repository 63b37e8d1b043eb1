#include "curriculum/ordering/order.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>
#include <string_view>

#include "curriculum/sampling/permutation.h"
#include "kernels/common/check.h"
#include "kernels/common/philox.h"

namespace retort::curriculum {
namespace {

using Indices = std::vector<std::int64_t>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Round g takes the g-th sample of every class; walking the ranks once and counting per class
// gives each sample its round, and a stable sort by round keeps the rank inside it.
Order stratified(const Indices& ranked, std::span<const std::int32_t> labels) {
  std::map<std::int32_t, std::int64_t> seen;
  std::vector<std::int64_t> round(ranked.size());
  for (std::size_t r = 0; r < ranked.size(); ++r) round[r] = seen[labels[at(ranked[r])]]++;
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

const char* name_of(OrderKind kind) {
  switch (kind) {
    case OrderKind::kCurriculum: return "curriculum";
    case OrderKind::kReverseExact: return "reverse_exact";
    case OrderKind::kReverseCorrectOnly: return "reverse_correct_only";
    case OrderKind::kRandom: return "random";
  }
  return "?";
}

OrderKind parse_order_kind(const std::string& text) {
  for (const OrderKind kind : {OrderKind::kCurriculum, OrderKind::kReverseExact,
                               OrderKind::kReverseCorrectOnly, OrderKind::kRandom})
    if (text == name_of(kind)) return kind;
  fail(ErrorCode::kUsage,
       "[order] expected curriculum, reverse_exact, reverse_correct_only or random, got '", text,
       "'");
}

OrderKeys default_keys(ScoreKind kind) {
  return kind == ScoreKind::kPTrue || kind == ScoreKind::kLoss ? OrderKeys::kSingle
                                                               : OrderKeys::kCorrectFirst;
}

Order make_order(std::span<const float> easiness, std::span<const std::uint8_t> correct,
                 std::span<const std::int32_t> labels, const OrderOptions& options,
                 std::span<const std::int64_t> kept) {
  const std::size_t n = easiness.size();
  const bool split_by_correct =
      options.kind != OrderKind::kRandom &&
      (options.keys == OrderKeys::kCorrectFirst || options.kind == OrderKind::kReverseCorrectOnly);
  RETORT_CHECK(!split_by_correct || correct.size() == n, "[order] expected ", n,
               " correctness flags, got ", correct.size());
  RETORT_CHECK(!options.stratify || labels.size() == n, "[order] expected ", n, " labels, got ",
               labels.size());
  Indices ranked(kept.begin(), kept.end());
  if (kept.empty()) {
    ranked.resize(n);
    std::iota(ranked.begin(), ranked.end(), 0);
  }
  for (const std::int64_t i : ranked) {
    RETORT_CHECK(i >= 0 && at(i) < n, "[order] expected kept indices below ", n, ", got ", i);
    RETORT_CHECK_AS(kNumerics, !std::isnan(easiness[at(i)]), "[order] the score of sample ", i,
                    " is NaN");
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

std::string order_csv(const Order& order, std::span<const std::int32_t> labels,
                      std::span<const float> scores, std::span<const std::uint8_t> correct) {
  std::string text = "rank,index,label,score,correct,group\n";
  for (std::size_t r = 0; r < order.indices.size(); ++r) {
    const std::size_t i = at(order.indices[r]);
    RETORT_CHECK(i < labels.size() && i < scores.size() && i < correct.size(),
                 "[order_csv] sample ", i, " has no label, score or correctness");
    char score[32];  // %.9g, whatever the locale
    const auto end = std::to_chars(score, score + sizeof score, static_cast<double>(scores[i]),
                                   std::chars_format::general, 9);
    text += join(r, ",", i, ",", labels[i], ",", std::string_view(score, end.ptr), ",",
                 correct[i] ? 1 : 0, ",", order.groups[r], "\n");
  }
  return text;
}

}  // namespace retort::curriculum
