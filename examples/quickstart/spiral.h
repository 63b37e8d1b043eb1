// Data of the quickstart: points on the three arms of a spiral, and how well a model knows them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "nn/module.h"

struct Points {
  retort::Tensor inputs, labels;  // (N, 2) f32, (N) i32
};

/// `points` points in turn on the three arms; of ten labels `wrong` are false.
inline Points spiral(int points, int wrong) {
  std::vector<float> x;
  std::vector<int> y;
  for (int i = 0; i < points; ++i) {
    const float t = 0.5f + 3.5f * float(i) / float(points), angle = t + 2.0944f * float(i % 3);
    x.insert(x.end(), {t * std::cos(angle), t * std::sin(angle)});
    y.push_back((i + (7 * i % 10 < wrong)) % 3);
  }
  return {retort::Tensor::from(x, {points, 2}), retort::Tensor::from(y, {points})};
}

/// Prints the model's accuracy on points with clean labels.
inline void print_accuracy(const char* what, retort::nn::Model& model) {
  const Points unseen = spiral(999, 0);
  const auto logits = model.forward(unseen.inputs).logits.to_vector<float>();  // (N, 3)
  const auto labels = unseen.labels.to_vector<int>();
  int right = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto row = logits.begin() + std::ptrdiff_t(3 * i);
    right += std::max_element(row, row + 3) - row == labels[i];
  }
  std::printf("%-30s %.2f\n", what, double(right) / double(labels.size()));
}
