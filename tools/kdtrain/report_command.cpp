#include <cstdio>

#include "tools/kdtrain/command_line.h"
#include "tools/report/report.h"

namespace retort::tools {

int report_command(const CommandLine& line) {
  write_report(line.subject);
  std::fputs(results_table(line.subject).c_str(), stdout);
  std::printf("%s/report.html\n", line.subject.c_str());
  return 0;
}

}  // namespace retort::tools
