// JSON: events for large headers, a small tree for everything else, and writing.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/common/check.h"

namespace retort {

/// Receives the events of parse_json. A handler that throws stops the parser.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;
  virtual void null() = 0;
  virtual void boolean(bool value) = 0;
  virtual void integer(std::int64_t value) = 0;            // written with a minus sign
  virtual void unsigned_integer(std::uint64_t value) = 0;  // written without
  virtual void number(double value) = 0;  // with a point, an exponent, or too large
  virtual void string(std::string& value) = 0;
  virtual void key(std::string& name) = 0;
  virtual void begin_object() = 0;
  virtual void end_object() = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;

  /// Asked after begin_object: true if this handler itself refuses a key twice in that object, so
  /// that the parser need not remember a million names.
  virtual bool refuses_repeated_keys() const { return false; }

  /// Set by parse_json before each event: what to name in an error.
  std::string place() const;
  std::string file_;
  std::uint64_t offset_ = 0;  // bytes read so far, counted from the start of the file
};

/// Reads one JSON value that fills `text`. Objects and arrays may be nested max_depth deep; a key
/// twice in one object, invalid UTF-8, NUL bytes and anything after the value are refused. Errors
/// are Error(kBadInput) with the file and the byte offset (base_offset = where the text starts in
/// it).
void parse_json(std::string_view text, JsonHandler& handler, const std::string& file,
                std::uint64_t base_offset = 0, int max_depth = 64);

/// A JSON value. Objects keep the order in which keys were set.
class Json {
 public:
  enum class Kind : std::uint8_t {
    kNull,
    kBool,
    kInteger,
    kUnsigned,
    kNumber,
    kString,
    kArray,
    kObject
  };
  using Member = std::pair<std::string, Json>;

  Json() = default;
  Json(bool value) : kind_(Kind::kBool), unsigned_(value) {}
  Json(int value) : Json(static_cast<std::int64_t>(value)) {}
  Json(std::int64_t value);
  Json(std::uint64_t value) : kind_(Kind::kUnsigned), unsigned_(value) {}
  Json(double value) : kind_(Kind::kNumber), number_(value) {}
  Json(std::string value) : kind_(Kind::kString), string_(std::move(value)) {}
  Json(const char* value) : Json(std::string(value)) {}
  static Json array();
  static Json object();

  /// From text; at most max_bytes.
  static Json parse(std::string_view text, const std::string& file);
  static Json read(const std::string& path, std::uint64_t max_bytes = std::uint64_t{16} << 20);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }

  // -- reading: throws Error(kBadInput) if the value is of another kind or out of range ----------
  bool as_bool() const;
  std::int64_t as_integer() const;
  std::uint64_t as_unsigned() const;
  double as_number() const;  // any number; also the strings "nan", "inf", "-inf"
  const std::string& as_string() const;
  const std::vector<Json>& items() const;
  const std::vector<Member>& members() const;
  const Json* find(std::string_view key) const;  // null if there is none
  const Json& at(std::string_view key) const;    // throws Error(kBadInput) if there is none

  // -- building -----------------------------------------------------------------------------------
  Json& set(const std::string& key, Json value);  // replaces; makes null an object
  Json& push(Json value);                         // makes null an array

  /// Compact text on one line. Doubles in the shortest form that reads back equal; NaN and
  /// infinities, which JSON lacks, as the strings "nan", "inf", "-inf".
  std::string dump() const;

 private:
  void write(std::string& out) const;
  Kind kind_ = Kind::kNull;
  std::uint64_t unsigned_ = 0;
  std::int64_t integer_ = 0;
  double number_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<Member> members_;
};

/// The text as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
std::string json_quote(std::string_view text);

}  // namespace retort
