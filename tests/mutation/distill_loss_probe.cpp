// The distillation loss kernels on the emulator, against their definition in double: a plain
// program, so that it can be built quickly with a fault planted in a kernel
// (tests/mutation/mutate.py) and by itself as a test. Every buffer is followed by guards, and
// another order of threads must give the same bytes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels/distill_loss/distill_loss.cuh"
#include "kernels/distill_loss/distill_loss_composed.h"
#include "kernels/simt/emu.h"

namespace retort::kernels {
namespace {

// The first failure ends the program: a planted fault needs no second.
void expect(bool ok, const std::string& what, const std::string& where) {
  if (ok) return;
  std::printf("FAIL %s: %s\n", what.c_str(), where.c_str());
  std::exit(1);
}

struct HostScratch final : Scratch {
  std::vector<std::vector<double>> blocks;
  void* get(std::size_t bytes) override {
    blocks.emplace_back(bytes / sizeof(double) + 1, std::nan(""));
    return blocks.back().data();
  }
};

double uniform(unsigned& seed) {
  seed = seed * 1664525u + 1013904223u;
  return (seed >> 8) / 16777216.0;
}

/// One call and what it must give.
struct Probe {
  std::string name;
  std::int64_t rows, classes, pitch, offset;  // offset: elements before the first row
  std::vector<float> tau, lambda, weights;
  std::vector<std::uint8_t> mask;
  std::vector<std::int32_t> targets;
  std::vector<double> s, t;  // (N, V), exact in bf16
  bool in_place = false, ramp = false, statistics = true;
  std::int64_t teacher_shift = 0, gradient_shift = 0;  // elements: rows that lie differently
  double tau_of_all = 0;                               // 0: mixed
  std::vector<int> clusters = {2};
  Divergence divergence = Divergence::kForwardKl;

  Probe(std::string n, std::int64_t r, std::int64_t v, std::int64_t gap, std::int64_t at)
      : name(std::move(n)), rows(r), classes(v), pitch(v + gap), offset(at) {}

  void draw(bool rising) {
    unsigned seed = 7;
    for (std::int64_t i = 0; i < rows; ++i) {
      tau.push_back(tau_of_all > 0
                        ? static_cast<float>(tau_of_all)
                        : std::vector<float>{2, 1, 4, 3}[static_cast<std::size_t>(i % 4)]);
      lambda.push_back(0.25f * static_cast<float>(1 + i % 3));
      weights.push_back(0.5f + static_cast<float>(i % 3));
      mask.push_back(i % 5 != 3);
      targets.push_back(static_cast<std::int32_t>(uniform(seed) * static_cast<double>(classes)));
      for (std::int64_t k = 0; k < classes; ++k)
        for (std::vector<double>* x : {&s, &t}) {
          const double slope =
              rising ? 40.0 * static_cast<double>(k) / static_cast<double>(classes) : 0;
          const double value = 8 * (uniform(seed) - 0.5) + (x == &s ? slope : -slope);
          x->push_back(static_cast<double>(to_float(to_bf16(static_cast<float>(value)))));
        }
    }
  }
};

/// What must come out: of rows that do not count zeros.
struct Expected {
  double total = 0;
  std::vector<DistillRow> rows;
  double gradient(std::int64_t row, std::int64_t v) const {
    const std::vector<double>& g = rows[static_cast<std::size_t>(row)].gradient;
    return g.empty() ? 0 : g[static_cast<std::size_t>(v)];
  }
};

Expected expected(const Probe& p) {
  Expected e;
  double z = 0;
  const auto counts = [&](std::size_t i) { return p.mask[i] && p.targets[i] != -100; };
  for (std::size_t i = 0; i < p.mask.size(); ++i) z += counts(i);
  for (std::size_t i = 0; i < static_cast<std::size_t>(p.rows); ++i) {
    DistillRow row;
    if (counts(i)) {
      const auto logits = [&](const std::vector<double>& x) {
        const auto begin = x.begin() + static_cast<std::int64_t>(i) * p.classes;
        return std::vector<double>(begin, begin + p.classes);
      };
      row = distill_row_composed(
          {static_cast<double>(p.lambda[i]), static_cast<double>(p.tau[i]),
           static_cast<double>(p.weights[i]) / z, p.divergence, default_parameter(p.divergence),
           static_cast<std::size_t>(p.targets[i])},
          logits(p.s), logits(p.t));
    }
    e.total += row.loss;
    e.rows.push_back(std::move(row));
  }
  return e;
}

constexpr double kSentinel = -77;

/// The kernel of a chip without clusters, and clusters of the sizes asked for.
template <class T>
std::vector<std::pair<std::string, RowPlan>> plans(const Probe& p) {
  std::vector<std::pair<std::string, RowPlan>> list;
  const RowPlan plain = plan_rows(p.rows, p.classes, sizeof(T), 2, 80);
  list.emplace_back(name_of(plain.kernel), plain);
  if (p.rows > 100) return list;
  constexpr std::int64_t kVec = 16 / sizeof(T);
  const std::int64_t chunks = (p.classes + 2 * (kVec - 1)) / kVec;
  for (const int cluster : p.clusters) {
    RowPlan plan{RowKernel::kCluster, cluster, static_cast<int>((chunks + cluster - 1) / cluster)};
    plan.shared_bytes = static_cast<std::size_t>(plan.slice_chunks) * 32;
    list.emplace_back("cluster of " + std::to_string(cluster), plan);
  }
  return list;
}

template <class T>
std::vector<T> place(const Probe& p, const std::vector<double>& x, std::int64_t shift = 0) {
  std::vector<T> out(static_cast<std::size_t>(p.offset + shift + p.rows * p.pitch + 8),
                     from_float<T>(static_cast<float>(kSentinel)));
  for (std::int64_t i = 0; i < p.rows; ++i)
    for (std::int64_t k = 0; k < p.classes; ++k)
      out[static_cast<std::size_t>(p.offset + shift + i * p.pitch + k)] =
          from_float<T>(static_cast<float>(x[static_cast<std::size_t>(i * p.classes + k)]));
  return out;
}

/// On chip, a row costs four exponentials an element at tau 1, 2 and 4 (columns that fill up the
/// 16-byte chunks included), and a few for each warp that merges the blocks' sums.
template <class T>
void count_exponentials(const Probe& p, const RowPlan& plan, const std::string& where) {
  if (plan.kernel != RowKernel::kCluster || p.divergence != Divergence::kForwardKl ||
      !(p.tau_of_all == 1 || p.tau_of_all == 2 || p.tau_of_all == 4))
    return;
  std::int64_t counted = 0;
  for (const std::uint8_t m : p.mask) counted += m != 0;
  constexpr std::int64_t kVec = 16 / sizeof(T);
  const std::int64_t least = 4 * counted * p.classes,
                     most = 4 * counted * (p.classes + 2 * kVec) +
                            counted * plan.cluster * plan.cluster * SIMT_NS::kClusterWarps * 4;
  const auto got = static_cast<std::int64_t>(simt::emu::stats().exp2);
  expect(got >= least && got <= most,
         "exponentials " + std::to_string(got) + " not in [" + std::to_string(least) + ", " +
             std::to_string(most) + "]",
         where);
}

template <class T>
void run_planned(const Probe& p, const std::string& kernel, const RowPlan& plan,
                 const Expected& want) {
  const std::string where = p.name + (sizeof(T) == 2 ? " bf16, " : " f32, ") + kernel;
  const auto n = static_cast<std::size_t>(p.rows);
  std::vector<T> before;
  std::vector<float> stats_before;
  for (const auto schedule : {simt::emu::Schedule::forward, simt::emu::Schedule::reverse}) {
    simt::emu::config().schedule = schedule;
    std::vector<T> s = place<T>(p, p.s);
    const std::vector<T> t = place<T>(p, p.t, p.teacher_shift);
    std::vector<T> own =
        place<T>(p, std::vector<double>(p.s.size(), std::nan("")), p.gradient_shift);
    std::vector<T>& ds = p.in_place ? s : own;
    std::vector<float> stats(kRowStatistics * n + 1, static_cast<float>(kSentinel));
    std::vector<std::int32_t> argmax(2 * n + 1, -77);
    std::vector<std::uint8_t> correct(2 * n + 1, 77);
    float total[2] = {0, static_cast<float>(kSentinel)};
    std::int32_t invalid[2] = {-1, -77};
    DistillLossArgs a;
    a.student = s.data() + p.offset;
    a.teacher = t.data() + p.offset + p.teacher_shift;
    a.dstudent = ds.data() + p.offset + p.gradient_shift;
    a.student_pitch = a.teacher_pitch = a.dstudent_pitch = p.pitch;
    a.targets = p.targets.data();
    a.lambda = p.lambda.data();
    a.temperature = p.tau.data();
    a.weights = p.weights.data();
    a.mask = p.mask.data();
    a.lambda_stride = a.temperature_stride = a.weights_stride = 1;
    a.total = total;
    a.invalid_row = invalid;
    if (p.statistics) {
      a.statistics = stats.data();
      a.argmax = argmax.data();
      a.correct = correct.data();
    }
    a.rows = p.rows;
    a.classes = p.classes;
    a.dtype = dtype_of<T>;
    a.divergence = p.divergence;
    HostScratch scratch;
    Context context;
    context.device = Device::kCuda;
    context.scratch = &scratch;
    simt::emu::reset_stats();
    distill_loss_launch(context, a, plan);
    count_exponentials<T>(p, plan, where);

    // Not |difference| > bound: a NaN must fail.
    const auto near = [](double got, double wanted, double bound) {
      return std::abs(got - wanted) <= bound;
    };
    expect(near(static_cast<double>(total[0]), want.total, 1e-5 * std::abs(want.total)), "total",
           where);
    expect(total[1] == static_cast<float>(kSentinel) && invalid[1] == -77, "guard", where);
    expect(invalid[0] == 0, "invalid row", where);
    double worst = 0;
    bool guards = true, nan = false;
    for (std::size_t k = 0; k < ds.size(); ++k) {
      const auto at = static_cast<std::int64_t>(k) - p.offset - p.gradient_shift;
      const double got = static_cast<double>(to_float(ds[k]));
      const std::int64_t row = at < 0 ? -1 : at / p.pitch, column = at < 0 ? 0 : at % p.pitch;
      if (at < 0 || row >= p.rows || column >= p.classes) {
        guards = guards && got == static_cast<double>(to_float(from_float<T>(-77.0f)));
        continue;
      }
      const double g = want.gradient(row, column);
      nan = nan || std::isnan(got);
      worst = std::fmax(worst, std::abs(got - g) - (sizeof(T) == 2 ? 0.004 * std::abs(g) : 0));
    }
    expect(guards, "gradient guard", where);
    expect(!nan && worst <= 1e-6, "gradient", where);
    if (p.statistics) {
      for (std::size_t k = 0; k < kRowStatistics; ++k) {
        bool ok = true;
        for (std::size_t i = 0; i < n; ++i) {
          const double wanted = want.rows[i].statistics[k];
          const auto got = static_cast<double>(stats[k * n + i]);
          ok = ok && (got == wanted || near(got, wanted, 1e-5 * (1 + std::abs(wanted))));
        }
        expect(ok, "statistic " + std::to_string(k), where);
      }
      bool same = true;
      for (std::size_t i = 0; i < n; ++i) {
        const int best_s = want.rows[i].argmax_student, best_t = want.rows[i].argmax_teacher;
        same = same && argmax[i] == best_s && argmax[n + i] == best_t &&
               correct[i] == (best_s >= 0 && best_s == p.targets[i]) &&
               correct[n + i] == (best_t >= 0 && best_t == p.targets[i]);
      }
      expect(same, "argmax", where);
      expect(stats.back() == static_cast<float>(kSentinel) && argmax.back() == -77 &&
                 correct.back() == 77,
             "statistics guard", where);
    }
    if (before.empty()) {
      before = ds;
      stats_before = stats;
    } else {
      expect(std::memcmp(before.data(), ds.data(), ds.size() * sizeof(T)) == 0 &&
                 stats_before == stats,
             "order of threads", where);
    }
  }
}

template <class T>
void run(const Probe& p) {
  const Expected want = expected(p);
  for (const auto& [name, plan] : plans<T>(p)) run_planned<T>(p, name, plan, want);
}

/// A target outside the classes: NaN, and the row is named.
void run_invalid(const RowPlan& plan) {
  const float s[12] = {};
  const std::int32_t targets[3] = {1, -100, 4};
  float ds[12], total;
  std::int32_t invalid = 0;
  DistillLossArgs a;
  a.student = s, a.dstudent = ds, a.targets = targets, a.total = &total, a.invalid_row = &invalid;
  a.student_pitch = a.dstudent_pitch = a.classes = 4;
  a.rows = 3;
  HostScratch scratch;
  Context context;
  context.device = Device::kCuda;
  context.scratch = &scratch;
  distill_loss_launch(context, a, plan);
  expect(std::isnan(total) && invalid == 3, "invalid target", "4 classes");
  expect(std::isnan(ds[8]) && ds[4] == 0 && std::isfinite(ds[0]), "its gradient", "4 classes");
}

}  // namespace
}  // namespace retort::kernels

int main() {
  using namespace retort::kernels;
  using retort::bf16;
  retort::simt::emu::config().os_threads = 2;
  const auto both = [](const Probe& p) {
    run<float>(p);
    run<bf16>(p);
  };
  // {a warp a row, a block a row} x {aligned, not} x {falling into place, ramps}
  for (const std::int64_t classes : {1, 10, 45, 128, 1101}) {
    Probe p("V = " + std::to_string(classes), 7, classes, 0, 0);
    p.draw(false);
    both(p);
    Probe q("pitched V = " + std::to_string(classes), 6, classes, 3, 1);
    q.draw(true);
    q.in_place = true;
    both(q);
  }
  for (const std::int64_t classes : {45, 1101}) {
    Probe p("-inf V = " + std::to_string(classes), 4, classes, 0, 0);
    p.draw(false);
    for (std::size_t k = 0; k < p.t.size(); k += 3) p.t[k] = -HUGE_VAL;
    run<float>(p);
    Probe q("reverse KL V = " + std::to_string(classes), 5, classes, 2, 0);
    q.draw(false);
    q.divergence = Divergence::kReverseKl;
    both(q);
    Probe r("no statistics V = " + std::to_string(classes), 5, classes, 0, 0);
    r.draw(false);
    r.statistics = false;
    r.targets[1] = -100;
    both(r);
  }
  for (const double tau : {1.0, 2.0, 4.0}) {
    Probe p("tau = " + std::to_string(tau), 3, 1300, 1, 0);
    p.tau_of_all = tau;
    p.clusters = {1, 4};
    p.draw(false);
    both(p);
  }
  for (const std::int64_t classes : {1, 16, 17, 64, 65, 129}) {  // around the edges of slices
    Probe p("slices of V = " + std::to_string(classes), 2, classes, 1, 3);
    p.clusters = {1, 2, 8};
    p.draw(true);
    both(p);
  }
  for (const std::int64_t classes : {10, 100, 1101}) {  // neighbouring rows take other branches
    Probe p("with and without soft targets, V = " + std::to_string(classes), 9, classes, 0, 0);
    p.draw(false);
    p.statistics = false;
    for (std::size_t i = 0; i < 9; i += 2) p.lambda[i] = 0;
    both(p);
  }
  Probe apart("teacher shifted against the student", 3, 1101, 0, 1);
  apart.teacher_shift = 2;
  apart.gradient_shift = 1;
  apart.draw(false);
  both(apart);
  Probe ties("equal maxima in several slices", 3, 1200, 0, 0);
  ties.clusters = {1, 8};
  ties.draw(false);
  for (std::size_t i = 0; i < 3; ++i)
    for (const std::size_t k : {150u, 300u, 301u, 900u, 1199u})
      if (k >= 300 * i) ties.s[i * 1200 + k] = ties.t[i * 1200 + k] = 6;
  both(ties);
  Probe flat("equal logits", 2, 1200, 0, 0);
  flat.draw(false);
  std::fill(flat.s.begin(), flat.s.end(), 1.5);
  std::fill(flat.t.begin(), flat.t.end(), -0.5);
  both(flat);
  for (const std::int64_t classes : {40, 1200}) {  // whole slices of one row or both are -inf
    Probe p("-inf slices V = " + std::to_string(classes), 4, classes, 0, 0);
    p.clusters = {4};
    p.draw(false);
    const auto v = static_cast<std::size_t>(classes);
    for (std::size_t k = 0; k < v * 5 / 8; ++k) {
      p.t[k] = p.t[v + k] = p.s[v + k] = -HUGE_VAL;
      p.t[3 * v - 1 - k] = -HUGE_VAL;
    }
    for (std::size_t i = 0; i < 4; ++i)  // targets where both are finite
      p.targets[i] = i == 2 ? 0 : static_cast<std::int32_t>(classes - 1);
    both(p);
  }
  Probe wide("V = 5000", 3, 5000, 0, 0);
  wide.draw(true);
  both(wide);
  Probe many("N = 1500", 1500, 3, 0, 0);  // more rows than the reducing block has threads
  many.draw(false);
  run<float>(many);
  run_invalid({RowKernel::kFourLanes});
  run_invalid({RowKernel::kWarp});
  run_invalid({RowKernel::kBlockTwoPass});
  run_invalid({RowKernel::kCluster, 1, 2, 64});
  run_invalid({RowKernel::kCluster, 4, 1, 32});
  std::printf("distill_loss: all well\n");
  return 0;
}
