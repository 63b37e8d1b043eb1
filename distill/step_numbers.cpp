#include "distill/step_numbers.h"

#include <algorithm>
#include <limits>

namespace retort::distill {

const StepNumbers::Sum* StepNumbers::find(std::string_view name) const {
  const auto at = std::find_if(columns_.begin(), columns_.end(),
                               [&](const Sum& column) { return column.name == name; });
  return at == columns_.end() ? nullptr : &*at;
}

void StepNumbers::add(std::string_view name, double sum, double weight) {
  auto at = std::find_if(columns_.begin(), columns_.end(),
                         [&](const Sum& column) { return column.name == name; });
  if (at == columns_.end()) at = columns_.insert(at, {std::string(name), 0, 0});
  at->sum += sum;
  at->weight += weight;
}

StepNumbers& StepNumbers::operator+=(const StepNumbers& other) {
  steps += other.steps;
  samples += other.samples;
  rows += other.rows;
  for (const Sum& column : other.columns_) add(column.name, column.sum, column.weight);
  return *this;
}

double StepNumbers::mean(std::string_view name) const {
  const Sum* const column = find(name);
  if (column == nullptr) return std::numeric_limits<double>::quiet_NaN();
  return column->weight == 0 ? 0 : column->sum / column->weight;
}

double StepNumbers::sum(std::string_view name) const {
  const Sum* const column = find(name);
  return column == nullptr ? 0 : column->sum;
}

}  // namespace retort::distill
