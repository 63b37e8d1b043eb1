// distill_bench compare A.json B.json: did anything become slower, or wrong?
#include <cstdio>
#include <set>

#include "bench/harness/commands.h"
#include "bench/harness/record.h"
#include "bench/harness/verdict.h"

namespace retort::bench {
namespace {

std::string text_of(const Json* value) { return value ? value->dump() : "not recorded"; }

// The machine, the program and its libraries: whatever differs may be why times do.
void note_environments(const Json& a, const Json& b) {
  const std::set<std::string> differ_always{"date", "load_at_start"};
  const auto note = [&](const std::string& key) {
    const std::string x = text_of(a.find(key)), y = text_of(b.find(key));
    if (x != y && !differ_always.contains(key))
      std::printf("note: %s differs: %s, %s\n", key.c_str(), x.c_str(), y.c_str());
  };
  for (const auto& [key, value] : a.members()) note(key);
  for (const auto& [key, value] : b.members())
    if (!a.find(key)) note(key);
}

std::string words_for(const Comparison& c, std::size_t blocks) {
  switch (c.verdict) {
    case Verdict::kSlower: return "SLOWER";
    case Verdict::kFaster: return "faster";
    case Verdict::kSame: return "";
    case Verdict::kUndecided: break;
  }
  return join("undecided: ", blocks, blocks == 1 ? " block" : " blocks");
}

struct Pair {
  const Record *before, *after;
  std::size_t blocks() const {
    return std::min(before->samples_ms.size(), after->samples_ms.size());
  }
  bool other_bits() const { return !before->hash.empty() && before->hash != after->hash; }
};

void print_table(const std::vector<Pair>& pairs, const Comparisons& result) {
  std::printf("%-58s %10s %10s %7s  %-15s %8s\n", "case", "A ms", "B ms", "B/A", "99 % interval",
              "p");
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const Comparison& c = result.cases[i];
    const bool decided = c.verdict != Verdict::kUndecided;
    char interval[64] = "-", p[32] = "-";
    if (decided) {
      std::snprintf(interval, sizeof interval, "[%5.3f, %5.3f]", c.low, c.high);
      std::snprintf(p, sizeof p, "%.2g", c.p);
    }
    std::printf("%-58s %10.4f %10.4f %7.3f  %-15s %8s %s%s\n", pairs[i].after->full_name().c_str(),
                pairs[i].before->median_ms(), pairs[i].after->median_ms(), c.ratio, interval, p,
                words_for(c, pairs[i].blocks()).c_str(),
                pairs[i].other_bits() ? " (other bits)" : "");
  }
}

void print_summary(const std::vector<Pair>& pairs, const Comparisons& result, double threshold) {
  int slower = 0, faster = 0, changed = 0;
  std::vector<double> ratios;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    slower += result.cases[i].verdict == Verdict::kSlower;
    faster += result.cases[i].verdict == Verdict::kFaster;
    changed += pairs[i].other_bits();
    ratios.push_back(result.cases[i].ratio);
  }
  std::printf(
      "%zu compared, %zu decided: %d slower and %d faster by more than %g %% (of those, at most %g "
      "%% are expected to be chance), %d with other bits; median ratio %.3f\n",
      pairs.size(), result.decided, slower, faster, threshold * 100, kFalseDiscovery * 100, changed,
      median(ratios));
  if (result.decided > 0)
    std::printf("blocks lie so far apart that one case alone is called slower from B/A %.2f up\n",
                result.smallest_found);
  if (result.decided < pairs.size())
    std::printf(
        "undecided: %zu cases have fewer than %zu blocks in A or B, and so say nothing about how "
        "the machine drifts; measure with --benchmark_repetitions=5 "
        "--benchmark_enable_random_interleaving=true\n",
        pairs.size() - result.decided, kLeastBlocks);
}

}  // namespace

int compare_command(const Arguments& given) {
  Arguments arguments = given;
  const double threshold = take_number(arguments, "--threshold", 0.05, 0);
  const bool allow_missing = take_flag(arguments, "--allow-missing");
  RETORT_CHECK(
      arguments.size() == 2 && arguments[0][0] != '-' && arguments[1][0] != '-',
      "distill_bench compare: expected A.json B.json [--threshold SHARE] [--allow-missing]");
  const Report a = read_report(arguments[0]), b = read_report(arguments[1]);
  std::vector<Pair> pairs;
  std::vector<std::pair<Blocks, Blocks>> samples;
  for (const Record& after : b.records)
    if (const Record* const before = a.find(after.full_name())) {
      pairs.push_back({before, &after});
      samples.emplace_back(before->samples_ms, after.samples_ms);
    }
  RETORT_CHECK(!pairs.empty(), "distill_bench compare: the files have no case in common");

  note_environments(a.environment, b.environment);
  const Comparisons result = decide(samples, threshold);
  print_table(pairs, result);
  bool failed = false;
  for (const Record& r : b.records)
    if (const std::string complaint = r.complaint(); !complaint.empty()) {
      std::printf("WRONG in B: %s: %s\n", r.full_name().c_str(), complaint.c_str());
      failed = true;
    }
  for (const Record& r : a.records)
    if (!b.find(r.full_name())) {
      std::printf("missing from B: %s\n", r.full_name().c_str());
      failed = failed || !allow_missing;
    }
  for (const Record& r : b.records)
    if (!a.find(r.full_name())) std::printf("only in B: %s\n", r.full_name().c_str());
  print_summary(pairs, result, threshold);
  for (const Comparison& c : result.cases) failed = failed || c.verdict == Verdict::kSlower;
  return failed ? 1 : 0;
}

}  // namespace retort::bench
