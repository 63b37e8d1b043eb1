#include "kernels/common/check.h"
#include "tools/kdtrain/command_line.h"

namespace retort::tools {
int run_command(const CommandLine&) { fail(ErrorCode::kUsage, "run is not in this version"); }
int score_command(const CommandLine&) { fail(ErrorCode::kUsage, "score is not in this version"); }
int eval_command(const CommandLine&) { fail(ErrorCode::kUsage, "eval is not in this version"); }
int report_command(const CommandLine&) { fail(ErrorCode::kUsage, "report is not in this version"); }
int selftest_command(const CommandLine&) { return 0; }
}  // namespace retort::tools
