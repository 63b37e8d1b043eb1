// The metrics that come from one pass over the rows of an evaluation. metric.cpp lists them.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distill/metrics/metric.h"

namespace retort::distill {

using Metrics = std::vector<std::pair<std::string, double>>;

/// Every kind that these rows give, in order of registration; empty without rows. The same rows
/// give the same bits however the pass over them was cut into batches.
/// Errors    kUsage if the lengths differ, or a target or prediction is outside [0, V).
Metrics metrics_of_rows(const RowRecords& rows);

// For all of them: at least one row, as metrics_of_rows checked it. y are targets, p predictions,
// N rows, n(a, b) the rows with y = a and p = b; sums are in double, in the order of the rows.
// Counts stay exact below 9e7 rows.

/// (1/N) sum [p = y]
double accuracy(const RowRecords& rows);
/// (1/N) sum -log p(y): the negative log-likelihood (NLL), nats a row.
double mean_loss(const RowRecords& rows);
/// exp(mean_loss)
double perplexity(const RowRecords& rows);
/// sum over bins b of (n_b / N) |accuracy_b - confidence_b|, with 15 equal bins of the confidence,
/// (k/15, (k+1)/15].
/// Source    Guo et al. 2017, arXiv:1706.04599, section 2.
double calibration_error(const RowRecords& rows);
/// Mean over classes of 2 n(c, c) / (n(c, .) + n(., c)); classes that are neither target nor
/// prediction of any row are left out, as in scikit-learn.
double macro_f1(const RowRecords& rows);
/// Mean over the classes that are targets of n(c, c) / n(c, .).
double balanced_accuracy(const RowRecords& rows);
/// Matthews correlation of any number of classes, R_K, in [-1, 1]; 0 where all targets or all
/// predictions are one class.
///
///   (N R - sum_c t_c p_c) / sqrt((N^2 - sum_c p_c^2) (N^2 - sum_c t_c^2))
///
/// with R = sum_c n(c, c), t_c = n(c, .), p_c = n(., c).
/// Source    Gorodkin 2004, Computational Biology and Chemistry 28:367.
double mcc(const RowRecords& rows);
/// (1/N) sum [rank < 5]; none where no rank was measured, or with 5 classes and fewer.
std::optional<double> top5(const RowRecords& rows);
/// (1/N) sum [p = prediction of the teacher]; none without a teacher.
std::optional<double> teacher_agreement(const RowRecords& rows);
/// (1/N) sum KL(teacher || student), at temperature 1, at least 0; none without a teacher.
std::optional<double> mean_kl(const RowRecords& rows);

}  // namespace retort::distill
