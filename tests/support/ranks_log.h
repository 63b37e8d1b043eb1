// What ranks say in tests: into a file, since a launcher that ends its ranks may lose their last words.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
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

}  // namespace retort::test
