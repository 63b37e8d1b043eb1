// What this machine is, in words.
#pragma once
#include <string>

namespace retort::tools {

/// The value of a line "key : value" of a file such as /proc/cpuinfo; "" if there is none.
std::string first_match(const char* file, const std::string& key);
/// "AMD EPYC 7B13, 2 cores, 8 GiB".
std::string machine_text();
/// "2026-11-29T23:45:00Z".
std::string utc_now();

}  // namespace retort::tools
