#include "bench/harness/commands.h"
#include "kernels/common/check.h"
namespace retort::bench {
int roofline_command(const Arguments&) { fail(ErrorCode::kUsage, "to come"); }
}  // namespace retort::bench
