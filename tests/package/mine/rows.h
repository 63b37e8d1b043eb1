// Everything that this library adds: one line each.
#pragma once
#include <vector>

#include "curriculum/scoring/sample_statistics.h"
#include "distill/metrics/metric.h"

namespace mine {

/// The smallest accuracy of a class that has rows.
std::optional<double> worst_class(const retort::distill::RowRecords& rows);

/// p / (1 - p) of the largest probability.
std::vector<float> odds(const retort::curriculum::SampleStatistics& statistics);

/// Half of the data in the first half of the run, then all.
double halves(std::int64_t step, std::int64_t total_steps);

/// Adds the rows to the registries; once.
void add_rows();

}  // namespace mine
