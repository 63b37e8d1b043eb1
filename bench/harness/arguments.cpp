#include <algorithm>

#include "bench/harness/commands.h"
#include "kernels/common/check.h"

namespace retort::bench {

std::string take(Arguments& arguments, const std::string& name, const std::string& otherwise) {
  const auto at = std::find(arguments.begin(), arguments.end(), name);
  if (at == arguments.end()) return otherwise;
  RETORT_CHECK(at + 1 != arguments.end(), "distill_bench: ", name, " needs a value");
  const std::string value = *(at + 1);
  arguments.erase(at, at + 2);
  return value;
}

bool take_flag(Arguments& arguments, const std::string& name) {
  const auto at = std::find(arguments.begin(), arguments.end(), name);
  if (at == arguments.end()) return false;
  arguments.erase(at);
  return true;
}

void expect_none(const Arguments& arguments) {
  RETORT_CHECK(arguments.empty(), "distill_bench: unknown argument '", arguments.front(), "'");
}

}  // namespace retort::bench
