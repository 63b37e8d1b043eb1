// What ranks say in tests: into a file, since a launcher that ends its ranks may lose their last words.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <string>

namespace retort::test {

/// Appends a line to the file RETORT_RANKS_LOG; prints it if there is none.
inline void say(const std::string& text) {
  const char* const path = std::getenv("RETORT_RANKS_LOG");
  const int log = path != nullptr ? ::open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : 1;
  const std::string line = text + "\n";
  [[maybe_unused]] const auto written = ::write(log, line.data(), line.size());
  if (path != nullptr && log >= 0) ::close(log);
}

/// main() of a program of ranks: what it is asked for is its first argument.
template <class Run>
int run_and_say(Run run, const char* argument) {
  try {
    run(std::stoll(argument));
    return 0;
  } catch (const std::exception& error) {
    say(std::string("failed: ") + error.what());
    return 1;
  }
}

}  // namespace retort::test
