// distill_bench compare A.json B.json: did anything become slower?
#include <cmath>
#include <cstdio>

#include "bench/harness/commands.h"
#include "bench/harness/record.h"

namespace retort::bench {
namespace {

constexpr double kConfidence = 0.99, kAlpha = 0.01;

const char* verdict(const Ratio& ratio, double p, double threshold) {
  if (!(p < kAlpha)) return "";
  if (ratio.low > 1 + threshold) return "SLOWER";
  if (ratio.high < 1 / (1 + threshold)) return "faster";
  return "";
}

}  // namespace

int compare_command(const Arguments& given) {
  Arguments arguments = given;
  const double threshold = std::stod(take(arguments, "--threshold", "0.05"));
  RETORT_CHECK(arguments.size() == 2 && arguments[0][0] != '-' && arguments[1][0] != '-',
               "distill_bench compare: expected A.json B.json [--threshold SHARE]");
  const Report a = read_report(arguments[0]), b = read_report(arguments[1]);
  for (const char* key : {"processor", "threads"}) {
    const Json *x = a.environment.find(key), *y = b.environment.find(key);
    if (x && y && x->dump() != y->dump())
      std::printf("note: %s differs: %s, %s\n", key, x->dump().c_str(), y->dump().c_str());
  }
  std::printf("%-58s %10s %10s %7s  %-15s %8s\n", "case", "A ms", "B ms", "B/A", "99 % interval",
              "p");
  int slower = 0, faster = 0, compared = 0, changed = 0;
  for (const Record& after : b.records) {
    const Record* const before = a.find(after.full_name());
    if (!before) continue;
    const Ratio ratio = bootstrap_ratio(before->samples_ms, after.samples_ms, kConfidence);
    const double p = mann_whitney_p(joined(before->samples_ms), joined(after.samples_ms));
    const std::string text = verdict(ratio, p, threshold);
    const bool bits = !before->hash.empty() && before->hash != after.hash;
    std::printf("%-58s %10.4f %10.4f %7.3f  [%5.3f, %5.3f] %8.2g %s%s\n", after.full_name().c_str(),
                before->median_ms(), after.median_ms(), ratio.value, ratio.low, ratio.high, p,
                text.c_str(), bits ? " (other bits)" : "");
    ++compared;
    slower += text == "SLOWER";
    faster += text == "faster";
    changed += bits;
  }
  RETORT_CHECK(compared > 0, "distill_bench compare: the files have no case in common");
  const auto missing = [](const Report& of, const Report& in) {
    int n = 0;
    for (const Record& r : of.records) n += in.find(r.full_name()) == nullptr;
    return n;
  };
  std::printf(
      "%d compared: %d slower and %d faster by more than %g %%, %d with other bits; %d only in "
      "A, %d only in B\n",
      compared, slower, faster, threshold * 100, changed, missing(a, b), missing(b, a));
  return slower > 0 ? 1 : 0;
}

}  // namespace retort::bench
