// Curriculum files: an order with its scores as text, written and read back.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "curriculum/ordering/order.h"

namespace retort::curriculum {

/// The curriculum file: a header line and one line a rank,
/// "rank,index,label,score,correct,group". scores, labels and correct are by sample; where there
/// are no labels or nobody knows what is correct, (0), and their fields stay empty.
///
/// Errors    kUsage for a sample without score, label or correctness, or a label below 0.
std::string order_csv(const Order& order, std::span<const std::int32_t> labels,
                      std::span<const float> scores, std::span<const std::uint8_t> correct);

/// What a curriculum file says. Arrays are by sample; a sample that the file leaves out has a NaN
/// score.
struct OrderFile {
  bool ranked = false;                // false: scores only, the order is still to be made
  Order order;                        // ranked only
  std::vector<float> scores;          // (N)
  std::vector<std::int32_t> labels;   // (N), or empty; -1 for a sample left out
  std::vector<std::uint8_t> correct;  // (N), or empty
};

/// Reads what order_csv wrote (the same scores, bit for bit), or the shorter form with the header
/// "index,score" and a line a sample, in any order.
///
/// Every line has all fields of its header, without blanks or quotes; lines end in LF or CRLF.
/// Ranks count up from 0, no index comes twice, scores are finite, labels >= 0, correct is 0 or 1,
/// and labels and correct are given everywhere or nowhere. Groups count up from 0 without a gap;
/// where there are several, no label comes twice in one.
///
/// `samples` is N. Without it N is the number of lines, so that no index may be missing.
///
/// Errors    kBadInput "NAME:LINE: expected ..., got ..." for the first line that breaks a rule.
OrderFile read_order_csv(std::string_view text, const std::string& name,
                         std::optional<std::int64_t> samples = {});

}  // namespace retort::curriculum
