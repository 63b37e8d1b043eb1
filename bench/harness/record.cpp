#include "bench/harness/record.h"

#include <algorithm>
#include <cmath>

#include "bench/harness/case.h"
#include "engine/io/file.h"

namespace retort::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Json to_json(const Blocks& blocks) {
  Json list = Json::array();
  for (const Block& block : blocks) {
    Json inner = Json::array();
    for (const double v : block) inner.push(v);
    list.push(std::move(inner));
  }
  return list;
}

// For files written before there were bounds: what every case of any dtype meets.
constexpr double kWideErrorBound = default_error_bound(DType::kBF16);

Blocks blocks_of(const Json& record, const char* key) {
  Blocks blocks;
  for (const Json& inner : record.at(key).items()) {
    blocks.emplace_back();
    for (const Json& v : inner.items()) {
      blocks.back().push_back(v.as_number());
      RETORT_CHECK_AS(kBadInput, blocks.back().back() > 0 && std::isfinite(blocks.back().back()),
                      key, ": ", v.dump(), " is no time");
    }
    RETORT_CHECK_AS(kBadInput, !blocks.back().empty(), key, ": a block without samples");
  }
  RETORT_CHECK_AS(kBadInput, !blocks.empty(), key, ": no samples");
  return blocks;
}

Json number_or_null(double v) { return std::isnan(v) ? Json() : Json(v); }
double number_or_nan(const Json& v) { return v.is_null() ? kNan : v.as_number(); }

Json to_json(const Ceilings& c) {
  Json j = Json::object();
  j.set("copy_gb_per_s", c.copy_gb_per_s);
  j.set("gemm_f32_gflop_per_s", c.gemm_f32_gflop_per_s);
  j.set("gemm_bf16_gflop_per_s", c.gemm_bf16_gflop_per_s);
  j.set("fma_f32_gflop_per_s", c.fma_f32_gflop_per_s);
  j.set("dot_bf16_gflop_per_s", c.dot_bf16_gflop_per_s);
  return j;
}

Ceilings ceilings_of(const Json& j) {
  return {j.at("copy_gb_per_s").as_number(), j.at("gemm_f32_gflop_per_s").as_number(),
          j.at("gemm_bf16_gflop_per_s").as_number(), j.at("fma_f32_gflop_per_s").as_number(),
          j.at("dot_bf16_gflop_per_s").as_number()};
}

Json to_json(const Record& r, const Ceilings& c) {
  const std::vector<double> all = joined(r.samples_ms);
  Json j = Json::object();
  j.set("name", r.name).set("device", r.device).set("dtype", r.dtype);
  j.set("median_ms", r.median_ms()).set("mad_ms", median_absolute_deviation(all));
  j.set("quartiles_ms", Json::array().push(quantile(all, 0.25)).push(quantile(all, 0.75)));
  j.set("samples", static_cast<std::int64_t>(all.size()));
  j.set("calls_per_sample", r.calls_per_sample).set("works", r.works).set("cold", r.cold);
  j.set("graphed", r.graphed);
  j.set("bytes", r.bytes).set("flops", r.flops).set("matrix", r.matrix);
  j.set("gb_per_s", r.gb_per_s()).set("gflop_per_s", r.gflop_per_s());
  const Bound bound = r.bound(c);
  j.set("share_of_ceiling", number_or_null(bound.share));
  if (bound.share == bound.share) j.set("bound_by", bound.gemm ? "gemm" : "copy");
  j.set("launches", number_or_null(r.launches)).set("workspace_bytes", r.workspace_bytes);
  // null: not applicable; NaN is written as "nan", which readers of older files take too.
  j.set("max_error", r.max_error ? Json(*r.max_error) : Json());
  if (r.max_error) j.set("error_bound", r.error_bound);
  j.set("hash", r.hash).set("hashed_bytes", r.hashed_bytes).set("hash_equal", r.hash_equal);
  if (!r.composed_ms.empty()) {
    const Ratio ratio = bootstrap_ratio(r.samples_ms, r.composed_ms);
    j.set("composed_graphed", r.composed_graphed);
    j.set("composed_median_ms", median(joined(r.composed_ms)));
    j.set("composed_over_fused", Json::array().push(ratio.value).push(ratio.low).push(ratio.high));
  }
  j.set("samples_ms", to_json(r.samples_ms));
  if (!r.composed_ms.empty()) j.set("composed_ms", to_json(r.composed_ms));
  return j;
}

Record record_of(const Json& item) {
  Record r;
  r.name = item.at("name").as_string();
  r.device = item.at("device").as_string();
  r.dtype = item.at("dtype").as_string();
  r.samples_ms = blocks_of(item, "samples_ms");
  if (item.find("composed_ms")) r.composed_ms = blocks_of(item, "composed_ms");
  r.calls_per_sample = static_cast<int>(item.at("calls_per_sample").as_integer());
  r.works = static_cast<int>(item.at("works").as_integer());
  r.cold = item.at("cold").as_bool();
  r.matrix = item.at("matrix").as_bool();
  r.bytes = item.at("bytes").as_number();
  r.flops = item.at("flops").as_number();
  r.workspace_bytes = item.at("workspace_bytes").as_number();
  r.launches = number_or_nan(item.at("launches"));
  if (!item.at("max_error").is_null()) r.max_error = item.at("max_error").as_number();
  r.error_bound = kWideErrorBound;
  if (const Json* bound = item.find("error_bound")) r.error_bound = bound->as_number();
  r.hash = item.at("hash").as_string();
  r.hash_equal = item.at("hash_equal").as_bool();
  return r;
}

Report report_of(const Json& j) {
  RETORT_CHECK_AS(kBadInput,
                  j.find("program") && j.at("program").as_string() == "distill_bench" &&
                      j.find("format") && j.at("format").as_integer() == 2,
                  "not a result of distill_bench (format 2)");
  Report report;
  report.environment = j.at("environment");
  report.cpu = ceilings_of(j.at("ceilings").at("cpu"));
  report.cuda = ceilings_of(j.at("ceilings").at("cuda"));
  for (const Json& item : j.at("records").items()) try {
      report.records.push_back(record_of(item));
    } catch (const Error& e) {
      const Json* const name = item.find("name");
      fail(e.code(), "record ", report.records.size() + 1, name ? " " + name->dump() : "", ": ",
           e.what());
    }
  return report;
}

}  // namespace

Bound Record::bound(const Ceilings& c) const {
  const double gemm = matrix && dtype == "bf16" ? c.gemm_bf16_gflop_per_s : c.gemm_f32_gflop_per_s;
  const double of_copy = bytes > 0 && c.copy_gb_per_s > 0 ? gb_per_s() / c.copy_gb_per_s : 0,
               of_gemm = flops > 0 && gemm > 0 ? gflop_per_s() / gemm : 0;
  if (of_copy == 0 && of_gemm == 0) return {};
  return {std::max(of_copy, of_gemm), of_gemm > of_copy};
}

std::string Record::complaint() const {
  // Not "above the bound": a NaN is neither above nor below.
  if (max_error && !(*max_error <= error_bound))
    return join("error ", *max_error, ", at most ", error_bound, " is right");
  return hash_equal ? "" : "two runs left different bits";
}

const Record* Report::find(const std::string& full_name) const {
  for (const Record& r : records)
    if (r.full_name() == full_name) return &r;
  return nullptr;
}

std::string line_of(const Record& record, const Ceilings& ceilings) {
  return to_json(record, ceilings).dump();
}

void write_report(const Report& report, const std::string& path) {
  Json j = Json::object();
  j.set("program", "distill_bench").set("format", 2).set("environment", report.environment);
  j.set("ceilings",
        Json::object().set("cpu", to_json(report.cpu)).set("cuda", to_json(report.cuda)));
  std::string text = j.dump();
  text.pop_back();  // the closing brace: records follow, one a line
  text += ",\n\"records\":[";
  const char* separator = "\n";
  for (const Record& r : report.records) {
    text += separator + line_of(r, report.ceilings(r));
    separator = ",\n";
  }
  write_file_atomically(path, text + "\n]}\n");
}

Report read_report(const std::string& path) {
  const Json j = Json::read(path, std::uint64_t{256} << 20);
  try {
    return report_of(j);
  } catch (const Error& e) {
    throw Error(e.code(), join(path, ": ", e.what()));
  }
}

}  // namespace retort::bench
