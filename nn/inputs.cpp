#include "nn/inputs.h"

#include <algorithm>

#include "engine/ops/cast.h"
#include "engine/ops/linear.h"

namespace retort::nn {

const char* name_of(Reads reads) {
  switch (reads) {
    case Reads::kFeatures: return "features";
    case Reads::kImages: return "images";
    case Reads::kTokens: return "tokens";
  }
  return "?";
}

Inputs Inputs::tokens(Tensor ids, std::vector<std::int32_t> starts,
                      std::vector<std::int32_t> wanted) {
  RETORT_CHECK(ids.defined() && ids.rank() == 1 && ids.dtype() == DType::kI32,
               "[inputs] expected ids (T) of i32");
  RETORT_CHECK(
      !starts.empty() && starts.front() == 0 && starts.back() == ids.dim(0) &&
          std::adjacent_find(starts.begin(), starts.end(), std::greater_equal<>()) == starts.end(),
      "[inputs] expected starts from 0 to ", ids.dim(0), ", each above the one before");
  RETORT_CHECK(std::is_sorted(wanted.begin(), wanted.end()) &&
                   (wanted.empty() || (wanted.front() >= 0 && wanted.back() < ids.dim(0))),
               "[inputs] expected ascending rows below ", ids.dim(0));
  Inputs in(std::move(ids));
  const Device device = in.values.device();
  in.starts = Tensor::from(starts, {static_cast<std::int64_t>(starts.size())}, device);
  if (!wanted.empty())
    in.rows = Tensor::from(wanted, {static_cast<std::int64_t>(wanted.size())}, device);
  in.starts_on_host = std::move(starts);
  in.rows_on_host = std::move(wanted);
  return in;
}

std::int64_t Inputs::samples() const {
  if (!starts_on_host.empty())
    return (static_cast<std::int64_t>(starts_on_host.size()) - 1) / choices;
  return values.defined() && values.rank() >= 1 ? values.dim(0) : 0;
}

Inputs Inputs::slice(std::int64_t begin, std::int64_t end) const {
  RETORT_CHECK(begin >= 0 && begin <= end && end <= samples(), "[inputs] expected samples within ",
               samples(), ", got ", begin, " to ", end);
  if (begin == 0 && end == samples()) return *this;
  const auto keyed = [&](Inputs part) {
    part.activations = activations;
    if (drawn_by.defined()) part.drawn_by = drawn_by.slice(begin * choices, end * choices);
    part.step = step;
    return part;
  };
  if (starts_on_host.empty()) return keyed(values.slice(begin, end));
  const auto at = [this](std::int64_t s) { return starts_on_host[static_cast<std::size_t>(s)]; };
  const std::int32_t first = at(begin * choices), last = at(end * choices);
  std::vector<std::int32_t> own_starts, own_rows;
  for (std::int64_t s = begin * choices; s <= end * choices; ++s)
    own_starts.push_back(at(s) - first);
  for (const std::int32_t row : rows_on_host)
    if (row >= first && row < last) own_rows.push_back(row - first);
  Inputs part = tokens(values.slice(first, last), std::move(own_starts), std::move(own_rows));
  if (rows.defined() && !part.rows.defined())
    part.rows = Tensor::empty({0}, DType::kI32, values.device());
  part.choices = choices;
  if (segments.defined()) part.segments = segments.slice(first, last);
  return keyed(std::move(part));
}

void Inputs::key(std::span<const std::int64_t> numbers, std::int64_t at) {
  RETORT_CHECK(static_cast<std::int64_t>(numbers.size()) == samples(),
               "[inputs] expected numbers of ", samples(), " samples, got ", numbers.size());
  std::vector<std::int64_t> of_sequence;
  for (const std::int64_t number : numbers)
    for (std::int64_t c = 0; c < choices; ++c) of_sequence.push_back(number * choices + c);
  const auto count = static_cast<std::int64_t>(of_sequence.size());
  drawn_by = Tensor::from(of_sequence, {count}, device());
  step = Tensor::full({}, static_cast<double>(at), DType::kI64, device());
}

Want Want::operator|(const Want& other) const {
  const bool everything = layers == 0 || other.layers == 0;
  // Those of whoever wants only the first layers need no logits either.
  const auto can_do_without = [](const Want& want) { return want.head || want.layers > 0; };
  return {everything ? 0 : std::max(layers, other.layers), hidden || other.hidden,
          features || other.features,
          (head || other.head) && can_do_without(*this) && can_do_without(other),
          attention || other.attention};
}

Tensor logits_of(const Outputs& outputs) {
  if (outputs.logits.defined()) return outputs.logits;
  RETORT_CHECK(outputs.head.defined() && outputs.features.defined(),
               "[outputs] expected logits, or features and a head");
  return linear(cast(outputs.features, outputs.head.weight.dtype()), outputs.head.weight,
                outputs.head.bias);
}

}  // namespace retort::nn
