// A JSON value that knows where it stands, for readers of other programs' files: what does not fit
// is named by file and JSON pointer (RFC 6901).
#pragma once
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "engine/io/json.h"

namespace retort {

/// A reference to a value of a Json tree, which must outlive it. Every function that expects
/// something throws Error(kBadInput) "FILE: /pointer/to/it: expected ..., got ..." if it is
/// otherwise.
class JsonView {
 public:
  JsonView(const Json& root, std::string file) : value_(&root), file_(std::move(file)) {}

  const Json& value() const { return *value_; }
  const std::string& pointer() const { return pointer_; }  // "" is the root

  JsonView at(std::string_view key) const;                   // expects an object with that key
  std::optional<JsonView> find(std::string_view key) const;  // expects an object
  JsonView member(std::size_t index) const;  // of an object that has so many; constant time
  std::size_t size() const;                  // expects an array
  JsonView item(std::size_t index) const;    // expects one with so many items
  /// Expects an object all of whose keys are among `known`.
  void only(std::initializer_list<std::string_view> known) const;

  bool is_null() const { return value_->is_null(); }
  bool boolean() const;
  const std::string& string() const;
  std::uint64_t integer(std::uint64_t most) const;  // in [0, most]
  /// Expects this very string.
  void is(std::string_view text) const;

  /// "FILE: /pointer: " and the parts, as Error(kBadInput).
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    retort::fail(ErrorCode::kBadInput, place(), parts...);
  }
  [[noreturn]] void expected(std::string_view what) const;  // ", got" what it is

 private:
  JsonView child(const Json& value, const std::string& token) const;
  std::string place() const;
  const Json* value_;
  std::string file_, pointer_;
};

}  // namespace retort
