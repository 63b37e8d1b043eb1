#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "bench/harness/commands.h"
#include "kernels/common/check.h"
#include "kernels/common/parallel.h"

namespace retort::bench {
namespace {

// The text, all of it, as a number.
template <class T>
std::optional<T> number_in(const std::string& text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) return {};
  return value;
}

}  // namespace

std::string take(Arguments& arguments, const std::string& name, const std::string& otherwise) {
  const auto at = std::find(arguments.begin(), arguments.end(), name);
  if (at == arguments.end()) return otherwise;
  RETORT_CHECK(at + 1 != arguments.end(), "distill_bench: ", name, " needs a value");
  const std::string value = *(at + 1);
  arguments.erase(at, at + 2);
  return value;
}

double take_number(Arguments& arguments, const std::string& name, double otherwise, double least) {
  const std::string text = take(arguments, name);
  if (text.empty()) return otherwise;
  const std::optional<double> value = number_in<double>(text);
  RETORT_CHECK(value && std::isfinite(*value) && *value >= least, "distill_bench: ", name,
               " expects a number of at least ", least, ", got '", text, "'");
  return *value;
}

void take_threads(Arguments& arguments) {
  const std::string text = take(arguments, "--threads");
  if (text.empty()) return;
  const std::optional<int> value = number_in<int>(text);
  RETORT_CHECK(value && *value >= 1,
               "distill_bench: --threads expects a whole number of at least 1, got '", text, "'");
  set_thread_count(*value);
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
