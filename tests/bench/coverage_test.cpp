// That every kernel has a case.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "bench/cases/cases.h"

namespace retort::bench {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Why an op has none.
const std::map<std::string, std::string> kWithout = {
    {"advance", "adds to one counter: its time is that of a launch"},
    {"count_rows", "reads 5 bytes a row, of a batch's rows: its time is that of a launch"},
    {"segment_starts", "reads 4 bytes a row, of a batch's rows: its time is that of a launch"},
};

// Ops by folder of kernels/: the functions in its headers that dispatch to a device.
std::map<std::string, std::set<std::string>> ops_by_folder(const fs::path& kernels) {
  std::map<std::string, std::set<std::string>> ops;
  const std::regex name("inline void ([a-z0-9_]+)\\(const Context&|\n  dispatch\\(");
  for (const auto& folder : fs::directory_iterator(kernels)) {
    if (!folder.is_directory() || folder.path().filename() == "common") continue;
    for (const auto& file : fs::directory_iterator(folder)) {
      if (file.path().extension() != ".h") continue;
      const std::string text = text_of(file.path());
      std::string last;
      for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it)
        if ((*it)[1].matched)
          last = (*it)[1];
        else if (!last.empty())
          ops[folder.path().filename()].insert(last);
    }
  }
  return ops;
}

// "max_pool_backward" is measured by "max_pool_3x3_s2_backward/...", "cast" by "cast_to_bf16/...".
bool measures(const std::string& case_name, const std::string& op) {
  const std::string end = "_backward";
  const std::size_t at = op.find(end);
  const std::string stem = op.substr(0, at), rest = at == op.npos ? "" : op.substr(at);
  const std::string family = case_name.substr(0, case_name.find('/'));
  if (family.rfind(stem, 0) != 0) return false;
  return rest.empty() ? family.find(end) == family.npos : family.find(rest) != family.npos;
}

TEST(Coverage, every_kernel_has_a_case_or_a_reason) {
  const fs::path kernels = fs::path(RETORT_SOURCE_DIR) / "kernels";
  const std::vector<Case> cases = all_cases(Device::kCpu, true).cases;
  const auto ops = ops_by_folder(kernels);
  std::size_t found = 0;
  for (const auto& [folder, names] : ops)
    for (const std::string& op : names) {
      ++found;
      const bool measured = std::any_of(cases.begin(), cases.end(),
                                        [&](const Case& c) { return measures(c.name, op); });
      EXPECT_NE(measured, kWithout.count(op) == 1)
          << "kernels/" << folder << ": " << op
          << (measured ? " has a case, and a reason for none" : " has no case in bench/cases");
    }
  EXPECT_GT(found, 30u);
  // A folder with a CUDA kernel has an op: else the pattern above missed it.
  for (const auto& folder : fs::directory_iterator(kernels)) {
    const std::string name = folder.path().filename();
    if (fs::exists(folder.path() / (name + "_cuda.cu"))) {
      EXPECT_TRUE(ops.count(name)) << "kernels/" << name;
    }
  }
}

TEST(Coverage, a_backward_is_not_measured_by_its_forward) {
  EXPECT_TRUE(measures("max_pool_3x3_s2_backward/2x6", "max_pool_backward"));
  EXPECT_FALSE(measures("max_pool_3x3_s2/2x6", "max_pool_backward"));
  EXPECT_FALSE(measures("max_pool_3x3_s2_backward/2x6", "max_pool"));
  EXPECT_FALSE(measures("conv2d_backward_data/2x6", "conv2d_backward_weight"));
}

}  // namespace
}  // namespace retort::bench
