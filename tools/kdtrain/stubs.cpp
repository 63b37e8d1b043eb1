#include "tools/kdtrain/command_line.h"

namespace retort::tools {
int selftest_command(const CommandLine&) { return 0; }
}  // namespace retort::tools
