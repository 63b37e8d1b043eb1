// Errors that users meet, by a code that stays: "kdtrain: error[RT0301]: ...".
//
// Note [Codes of errors]
//   RT, the exit status in two digits, and a number that is never used for something else. A row
//   knows its errors by a part of their text; of several rows the first that fits counts, and the
//   last one of each status takes what no other row names. ERRORS.md is errors_page(), and a test
//   keeps it so.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "kernels/common/check.h"

namespace retort::tools {

struct ErrorRow {
  const char* code;  // "RT0301"
  int status;        // as ErrorCode
  const char* text;  // a part of the message; "": all others
  const char* what;  // what happened, in a sentence
  const char* cure;  // what to do about it
};
std::span<const ErrorRow> error_rows();

/// The row of a message; takes no memory. Statuses that no row has count as internal, 1.
const ErrorRow& error_row(int status, std::string_view message) noexcept;
inline const ErrorRow& error_row(ErrorCode code, std::string_view message) noexcept {
  return error_row(static_cast<int>(code), message);
}
/// "error[RT0301]: ".
std::string error_label(ErrorCode code, std::string_view message);

/// All rows as Markdown.
std::string errors_page();
/// One of them for a terminal, "" if there is no such code.
std::string explain_error(std::string_view code);

}  // namespace retort::tools
