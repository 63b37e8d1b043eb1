// What language does with rows: embeddings and their gradient, sums over a sample's rows, ranks of
// targets, dropout keyed by sample.
#include <memory>

#include "bench/cases/cases.h"
#include "bench/cases/inputs.h"
#include "bench/harness/session.h"
#include "engine/autograd/autograd.h"
#include "engine/ops/dropout.h"
#include "engine/ops/elementwise.h"
#include "kernels/axpy/axpy.h"
#include "kernels/dropout/dropout.h"
#include "kernels/gather_rows/gather_rows.h"
#include "kernels/row_rank/row_rank.h"
#include "kernels/segment_sum/segment_sum.h"

namespace retort::bench {
namespace {

constexpr std::int64_t kSamples = 20000;

struct Size {
  std::int64_t rows, columns, table;  // table: its rows, or segments
};

void add_case(Plan& plan, const std::string& name, const Size& s, DType dtype, double elements,
              std::function<Work(const Case&)> make) {
  plan.add(name + "/" + shape_name(s.rows, s.columns, s.table), dtype,
           elements * static_cast<double>(size_of(dtype)), 0, std::move(make));
}

std::size_t index_of(std::int64_t row, std::int64_t column, std::int64_t columns) {
  return static_cast<std::size_t>(row * columns + column);
}

// ------------------------------------------------------------------------------ gather, scatter

Work make_gather(const Size& s, const Case& c) {
  const Tensor table = normal({s.table, s.columns}, c.seed, c.dtype, c.device),
               y = Tensor::empty({s.rows, s.columns}, c.dtype, c.device),
               at = integers(s.rows, c.seed + 1, s.table, c.device);
  Work w;
  w.run = [=] {
    kernels::gather_rows(kernel_context(c.device),
                         {y.raw(), table.raw(), at.data<std::int32_t>(), s.rows, s.columns, s.table,
                          s.columns, s.columns, c.dtype});
  };
  w.outputs = [=] { return std::vector<Tensor>{y}; };
  w.error = [=] {
    const auto got = Host(y), from = Host(table);
    const std::vector<std::int32_t> rows = at.to_vector<std::int32_t>();
    Error64 e;
    for (const std::int64_t i : sampled(s.rows * s.columns, kSamples))
      e.add(
          got[static_cast<std::size_t>(i)],
          from[index_of(rows[static_cast<std::size_t>(i / s.columns)], i % s.columns, s.columns)]);
    return e.value();
  };
  return w;
}

Work make_scatter(const Size& s, const Case& c) {
  const Tensor table0 = normal({s.table, s.columns}, c.seed, c.dtype, c.device),
               table = table0.clone(),
               x = normal({s.rows, s.columns}, c.seed + 1, c.dtype, c.device),
               at = integers(s.rows, c.seed + 2, s.table, c.device);
  Work w;
  w.run = [=] {
    kernels::scatter_rows(kernel_context(c.device),
                          {table.raw(), x.raw(), at.data<std::int32_t>(), s.rows, s.columns,
                           s.table, s.columns, s.columns, c.dtype});
  };
  w.reset = [=] { table.copy_from(table0); };
  w.outputs = [=] { return std::vector<Tensor>{table}; };
  w.error = [=] {  // a few rows of the table, whole
    const auto got = Host(table), old = Host(table0), from = Host(x);
    const std::vector<std::int32_t> rows = at.to_vector<std::int32_t>();
    Error64 e;
    for (const std::int64_t row : sampled(s.table, 16)) {
      std::vector<double> want;
      for (std::int64_t k = 0; k < s.columns; ++k) want.push_back(old[index_of(row, k, s.columns)]);
      for (std::int64_t n = 0; n < s.rows; ++n)
        for (std::int64_t k = 0; rows[static_cast<std::size_t>(n)] == row && k < s.columns; ++k)
          want[static_cast<std::size_t>(k)] += from[index_of(n, k, s.columns)];
      for (std::int64_t k = 0; k < s.columns; ++k)
        e.add(got[index_of(row, k, s.columns)], want[static_cast<std::size_t>(k)]);
    }
    return e.value();
  };
  return w;
}

// ------------------------------------------------------------------------------ segments

// Lengths between half of the average and three halves of it.
std::vector<std::int32_t> starts_of(const Size& s, std::uint64_t seed) {
  std::vector<std::int32_t> starts{0};
  const std::int64_t average = std::max<std::int64_t>(1, s.rows / s.table);
  for (std::int64_t k = 1; k < s.table; ++k) {
    const std::uint32_t r =
        philox(seed, static_cast<std::uint32_t>(k), 0, 0, path_hash("bench")).v[0];
    const std::int64_t length = average / 2 + uniform_below(r, static_cast<std::uint32_t>(average));
    starts.push_back(
        static_cast<std::int32_t>(std::min<std::int64_t>(s.rows, starts.back() + length)));
  }
  starts.push_back(static_cast<std::int32_t>(s.rows));
  return starts;
}

Work make_segment_sum(const Size& s, bool backward, const Case& c) {
  const std::vector<std::int32_t> bounds = starts_of(s, c.seed);
  const Tensor starts = Tensor::from(bounds, {s.table + 1}, c.device),
               many = backward ? Tensor::empty({s.rows, s.columns}, c.dtype, c.device)
                               : normal({s.rows, s.columns}, c.seed, c.dtype, c.device, 1, 0.5),
               few = backward ? normal({s.table, s.columns}, c.seed, c.dtype, c.device)
                              : Tensor::empty({s.table, s.columns}, c.dtype, c.device);
  Work w;
  w.run = [=] {
    const Context& context = kernel_context(c.device);
    const std::int32_t* const at = starts.data<std::int32_t>();
    if (backward)
      kernels::segment_spread(context, {many.raw(), few.raw(), at, s.table, s.rows, s.columns,
                                        s.columns, true, c.dtype});
    else
      kernels::segment_sum(context, {few.raw(), many.raw(), at, s.table, s.rows, s.columns,
                                     s.columns, true, c.dtype});
  };
  w.outputs = [=] { return std::vector<Tensor>{backward ? many : few}; };
  w.error = [=] {
    const auto rows = Host(many), segments = Host(few);
    Error64 e;
    for (const std::int64_t k : sampled(s.table, 64)) {
      const auto at = static_cast<std::size_t>(k);
      const double n = std::max(1, bounds[at + 1] - bounds[at]);
      for (const std::int64_t column : sampled(s.columns, 16)) {
        double sum = 0;
        for (std::int64_t r = bounds[at]; r < bounds[at + 1]; ++r) {
          const double value = rows[index_of(r, column, s.columns)];
          if (backward)
            e.add(value, segments[index_of(k, column, s.columns)] / n);
          else
            sum += value;
        }
        if (!backward) e.add(segments[index_of(k, column, s.columns)], sum / n);
      }
    }
    return e.value();
  };
  return w;
}

// ------------------------------------------------------------------------------ ranks

Work make_row_rank(const Size& s, const Case& c) {
  const Tensor logits = normal({s.rows, s.columns}, c.seed, c.dtype, c.device, 3),
               at = integers(s.rows, c.seed + 1, s.columns, c.device),
               rank = Tensor::empty({s.rows}, DType::kI32, c.device);
  Work w;
  w.run = [=] {
    kernels::row_rank(kernel_context(c.device),
                      {rank.data<std::int32_t>(), logits.raw(), at.data<std::int32_t>(), s.rows,
                       s.columns, s.columns, -100, c.dtype});
  };
  w.outputs = [=] { return std::vector<Tensor>{rank}; };
  w.error = [=] {
    const auto x = Host(logits);
    const auto targets = at.to_vector<std::int32_t>(), got = rank.to_vector<std::int32_t>();
    Error64 e;
    for (const std::int64_t n : sampled(s.rows, 64)) {
      const std::int32_t target = targets[static_cast<std::size_t>(n)];
      const double mine = x[index_of(n, target, s.columns)];
      std::int64_t before = 0;
      for (std::int64_t v = 0; v < s.columns; ++v) {
        const double other = x[index_of(n, v, s.columns)];
        before += other > mine || (other == mine && v < target);
      }
      e.add(got[static_cast<std::size_t>(n)], static_cast<double>(before));
    }
    return e.value();
  };
  return w;
}

// ------------------------------------------------------------------------------ dropout, columns

Work make_dropout(const Size& s, const Case& c) {
  const Tensor x = normal({s.rows, s.columns}, c.seed, c.dtype, c.device),
               y = Tensor::empty({s.rows, s.columns}, c.dtype, c.device),
               sample = integers(s.rows, c.seed + 1, 1 << 30, c.device);
  constexpr double kP = 0.1;
  constexpr std::uint32_t kPath = path_hash("bench");
  Work w;
  w.run = [=] {
    kernels::DropoutArgs args{y.raw(), x.raw(), s.rows, s.columns, kP, c.seed, kPath};
    args.sample = sample.raw();
    args.dtype = c.dtype;
    kernels::dropout(kernel_context(c.device), args);
  };
  w.composed = [=] {
    const NoGrad no_grad;
    static_cast<void>(dropout_composed(x, kP, {c.seed, {}, sample, {}}, kPath));
  };
  w.outputs = [=] { return std::vector<Tensor>{y}; };
  w.error = [=] {
    const auto from = Host(x), got = Host(y);
    const std::vector<std::int32_t> samples = sample.to_vector<std::int32_t>();
    Error64 e;
    for (const std::int64_t i : sampled(s.rows * s.columns, kSamples)) {
      const auto n = static_cast<std::size_t>(i / s.columns);
      const std::int64_t column = i % s.columns;
      const std::uint32_t word = philox(c.seed, static_cast<std::uint32_t>(column / 4),
                                        static_cast<std::uint32_t>(samples[n]), 0, kPath)
                                     .v[column % 4];
      const bool kept = word >= kernels::dropout_threshold(kP);
      e.add(got[static_cast<std::size_t>(i)],
            kept ? from[static_cast<std::size_t>(i)] / (1 - kP) : 0);
    }
    return e.value();
  };
  return w;
}

// y += x for columns of a packed gradient three times as wide.
Work make_axpy_rows(const Size& s, const Case& c) {
  const Tensor wide0 = normal({s.rows, 3 * s.columns}, c.seed, c.dtype, c.device),
               wide = wide0.clone(), y = wide.slice_columns(s.columns, 2 * s.columns),
               x = normal({s.rows, s.columns}, c.seed + 1, c.dtype, c.device);
  Work w;
  w.run = [=] {
    kernels::axpy_rows(kernel_context(c.device), {y.raw(), x.raw(), 1, s.rows, s.columns,
                                                  y.row_pitch(), x.row_pitch(), c.dtype});
  };
  w.reset = [=] { wide.copy_from(wide0); };
  w.outputs = [=] { return std::vector<Tensor>{wide}; };
  w.error = [=] {
    const auto got = Host(wide), old = Host(wide0), from = Host(x);
    Error64 e;
    for (const std::int64_t i : sampled(s.rows * 3 * s.columns, kSamples)) {
      const std::int64_t row = i / (3 * s.columns), column = i % (3 * s.columns) - s.columns;
      const bool inside = column >= 0 && column < s.columns;
      e.add(
          got[static_cast<std::size_t>(i)],
          old[static_cast<std::size_t>(i)] + (inside ? from[index_of(row, column, s.columns)] : 0));
    }
    return e.value();
  };
  return w;
}

}  // namespace

void add_indexed_row_cases(Plan& plan) {
  // A batch of BERT-base: words, positions, token types. Then its rows as samples.
  const std::vector<Size> tables = plan.pick<std::vector<Size>>(
      {{70, 8, 5}}, {{1024, 768, 28996}, {1024, 768, 512}, {1024, 768, 2}},
      {{16384, 768, 30522}, {16384, 768, 512}, {16384, 768, 2}});
  const std::vector<Size> samples = plan.pick<std::vector<Size>>(
      {{40, 9, 3}}, {{8192, 768, 64}, {65536, 1, 512}}, {{65536, 768, 512}, {1 << 20, 1, 8192}});
  const std::vector<Size> logits = plan.pick<std::vector<Size>>(
      {{6, 33, 1}}, {{1024, 100, 1}, {1024, 28996, 1}}, {{65536, 1000, 1}, {8192, 30522, 1}});
  const std::vector<Size> layers = plan.pick<std::vector<Size>>(
      {{5, 12, 1}}, {{1024, 768, 1}, {1024, 3072, 1}}, {{16384, 768, 1}, {16384, 3072, 1}});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto elements = [](const Size& s) { return static_cast<double>(s.rows * s.columns); };
    for (const Size& s : tables) {
      add_case(plan, "gather_rows", s, dtype, 2 * elements(s),
               [=](const Case& c) { return make_gather(s, c); });
      // Rows of the table that are touched: at most all.
      const double touched = static_cast<double>(std::min(s.rows, s.table) * s.columns);
      add_case(plan, "scatter_rows", s, dtype, elements(s) + 2 * touched,
               [=](const Case& c) { return make_scatter(s, c); });
    }
    for (const Size& s : samples) {
      const double both = elements(s) + static_cast<double>(s.table * s.columns);
      add_case(plan, "segment_sum", s, dtype, both,
               [=](const Case& c) { return make_segment_sum(s, false, c); });
      add_case(plan, "segment_spread", s, dtype, both,
               [=](const Case& c) { return make_segment_sum(s, true, c); });
    }
    for (const Size& s : logits)
      add_case(plan, "row_rank", s, dtype, elements(s),
               [=](const Case& c) { return make_row_rank(s, c); });
    for (const Size& s : layers) {
      add_case(plan, "dropout", s, dtype, 2 * elements(s),
               [=](const Case& c) { return make_dropout(s, c); });
      add_case(plan, "axpy_rows", s, dtype, 3 * elements(s),
               [=](const Case& c) { return make_axpy_rows(s, c); });
    }
  }
}

}  // namespace retort::bench
