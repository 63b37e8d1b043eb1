#include "engine/io/json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "engine/io/file.h"

namespace retort {
namespace {

// Counts the characters that the parser took, so that every error can say where.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at;
  std::uint64_t* taken;
  const char& operator*() const { return *at; }
  CountingIterator& operator++() {
    ++at;
    ++*taken;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at == other.at; }
  bool operator!=(const CountingIterator& other) const { return at != other.at; }
};

class Adapter {
 public:
  using Library = nlohmann::json;
  Adapter(JsonHandler& handler, const std::uint64_t& taken, std::uint64_t base, int max_depth)
      : handler_(handler), taken_(taken), base_(base), max_depth_(max_depth) {}

  bool null() {
    return say([&] { handler_.null(); });
  }
  bool boolean(bool value) {
    return say([&] { handler_.boolean(value); });
  }
  bool number_integer(std::int64_t value) {
    return say([&] { handler_.integer(value); });
  }
  bool number_unsigned(std::uint64_t value) {
    return say([&] { handler_.unsigned_integer(value); });
  }
  bool number_float(double value, const std::string&) {
    return say([&] { handler_.number(value); });
  }
  bool string(std::string& value) {
    return say([&] { handler_.string(value); });
  }
  bool binary(Library::binary_t&) { return false; }  // not in text
  bool start_object(std::size_t) {
    enter();
    handler_.begin_object();
    keys_.emplace_back(handler_.refuses_repeated_keys());
    return true;
  }
  bool key(std::string& name) {
    place();
    Keys& keys = keys_.back();
    RETORT_CHECK_AS(kBadInput, keys.left_to_handler || keys.seen.insert(name).second,
                    handler_.place(), "the key '", escaped(name), "' appears twice");
    return say([&] { handler_.key(name); });
  }
  bool end_object() {
    --depth_;
    keys_.pop_back();
    return say([&] { handler_.end_object(); });
  }
  bool start_array(std::size_t) {
    enter();
    return say([&] { handler_.begin_array(); });
  }
  bool end_array() {
    --depth_;
    return say([&] { handler_.end_array(); });
  }
  bool parse_error(std::size_t, const std::string& token, const Library::exception&) {
    place();
    fail(ErrorCode::kBadInput, handler_.place(), "not valid JSON near '", escaped(token), "'");
  }

 private:
  void place() { handler_.offset_ = base_ + taken_; }
  template <class F>
  bool say(F&& event) {
    place();
    event();
    return true;
  }
  void enter() {
    place();
    RETORT_CHECK_AS(kBadInput, ++depth_ <= max_depth_, handler_.place(), "expected at most ",
                    max_depth_, " levels of nesting");
  }
  JsonHandler& handler_;
  const std::uint64_t& taken_;
  std::uint64_t base_;
  int max_depth_, depth_ = 0;
  struct Keys {  // of an object that is open
    explicit Keys(bool left) : left_to_handler(left) {}
    bool left_to_handler;
    std::unordered_set<std::string> seen;
  };
  std::vector<Keys> keys_;
};

// Length of the UTF-8 sequence at the front of text, 0 if it is not one (RFC 3629).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    if (!tail(1) || !tail(2)) return 0;
    if (lead == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
    if (lead == 0xed && byte(1) > 0x9f) return 0;  // surrogate
    return 3;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (lead == 0xf0 && byte(1) < 0x90) return 0;
    if (lead == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

// Builds a Json tree from events.
class TreeBuilder : public JsonHandler {
 public:
  void null() override { put(Json()); }
  void boolean(bool value) override { put(Json(value)); }
  void integer(std::int64_t value) override { put(Json(value)); }
  void unsigned_integer(std::uint64_t value) override { put(Json(value)); }
  void number(double value) override { put(Json(value)); }
  void string(std::string& value) override { put(Json(std::move(value))); }
  void key(std::string& name) override { keys_.push_back(std::move(name)); }
  void begin_object() override { open_.push_back(Json::object()); }
  void begin_array() override { open_.push_back(Json::array()); }
  void end_object() override { end_array(); }
  void end_array() override {
    Json done = std::move(open_.back());
    open_.pop_back();
    put(std::move(done));
  }
  Json take() { return std::move(result_); }

 private:
  void put(Json value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().kind() == Json::Kind::kArray) {
      open_.back().push(std::move(value));
    } else {
      // The parser refused duplicates already: no search.
      const_cast<std::vector<Json::Member>&>(open_.back().members())
          .emplace_back(std::move(keys_.back()), std::move(value));
      keys_.pop_back();
    }
  }
  Json result_;
  std::vector<Json> open_;
  std::vector<std::string> keys_;
};

const char* name_of(Json::Kind kind) {
  switch (kind) {
    case Json::Kind::kNull: return "null";
    case Json::Kind::kBool: return "a boolean";
    case Json::Kind::kInteger: return "a negative integer";
    case Json::Kind::kUnsigned: return "an integer";
    case Json::Kind::kNumber: return "a number";
    case Json::Kind::kString: return "a string";
    case Json::Kind::kArray: return "an array";
    case Json::Kind::kObject: return "an object";
  }
  return "?";
}

[[noreturn]] void wrong_kind(const char* want, Json::Kind got) {
  fail(ErrorCode::kBadInput, "[json] expected ", want, ", got ", name_of(got));
}

}  // namespace

std::string JsonHandler::place() const {
  return join(escaped(file_, 4096), ": byte ", offset_, ": ");
}

void parse_json(std::string_view text, JsonHandler& handler, const std::string& file,
                std::uint64_t base_offset, int max_depth) {
  handler.file_ = file;
  // The parser takes a NUL for the end and would not look at what is behind it.
  if (const std::size_t nul = text.find('\0'); nul != text.npos) {
    handler.offset_ = base_offset + nul;
    fail(ErrorCode::kBadInput, handler.place(), "not valid JSON: a NUL byte");
  }
  std::uint64_t taken = 0;
  Adapter adapter(handler, taken, base_offset, max_depth);
  const CountingIterator first{text.data(), &taken}, last{text.data() + text.size(), &taken};
  nlohmann::json::sax_parse(first, last, &adapter, nlohmann::json::input_format_t::json,
                            /*strict=*/true);
}

Json::Json(std::int64_t value) {
  if (value >= 0) {
    kind_ = Kind::kUnsigned;
    unsigned_ = static_cast<std::uint64_t>(value);
  } else {
    kind_ = Kind::kInteger;
    integer_ = value;
  }
}

Json Json::array() {
  Json value;
  value.kind_ = Kind::kArray;
  return value;
}

Json Json::object() {
  Json value;
  value.kind_ = Kind::kObject;
  return value;
}

Json Json::parse(std::string_view text, const std::string& file) {
  TreeBuilder builder;
  parse_json(text, builder, file);
  return builder.take();
}

Json Json::read(const std::string& path, std::uint64_t max_bytes) {
  return parse(read_file(path, max_bytes), path);
}

bool Json::as_bool() const {
  if (kind_ != Kind::kBool) wrong_kind("a boolean", kind_);
  return unsigned_ != 0;
}

std::int64_t Json::as_integer() const {
  if (kind_ == Kind::kInteger) return integer_;
  if (kind_ != Kind::kUnsigned) wrong_kind("an integer", kind_);
  RETORT_CHECK_AS(kBadInput, unsigned_ <= std::uint64_t{INT64_MAX},
                  "[json] expected an integer below 2^63, got ", unsigned_);
  return static_cast<std::int64_t>(unsigned_);
}

std::uint64_t Json::as_unsigned() const {
  if (kind_ != Kind::kUnsigned) wrong_kind("an integer >= 0", kind_);
  return unsigned_;
}

double Json::as_number() const {
  if (kind_ == Kind::kNumber) return number_;
  if (kind_ == Kind::kUnsigned) return static_cast<double>(unsigned_);
  if (kind_ == Kind::kInteger) return static_cast<double>(integer_);
  if (kind_ == Kind::kString) {
    if (string_ == "nan") return std::numeric_limits<double>::quiet_NaN();
    if (string_ == "inf") return std::numeric_limits<double>::infinity();
    if (string_ == "-inf") return -std::numeric_limits<double>::infinity();
  }
  wrong_kind("a number", kind_);
}

const std::string& Json::as_string() const {
  if (kind_ != Kind::kString) wrong_kind("a string", kind_);
  return string_;
}

const std::vector<Json>& Json::items() const {
  if (kind_ != Kind::kArray) wrong_kind("an array", kind_);
  return items_;
}

const std::vector<Json::Member>& Json::members() const {
  if (kind_ != Kind::kObject) wrong_kind("an object", kind_);
  return members_;
}

const Json* Json::find(std::string_view key) const {
  for (const Member& member : members())
    if (member.first == key) return &member.second;
  return nullptr;
}

const Json& Json::at(std::string_view key) const {
  const Json* value = find(key);
  RETORT_CHECK_AS(kBadInput, value != nullptr, "[json] expected the key '", escaped(key), "'");
  return *value;
}

Json& Json::set(const std::string& key, Json value) {
  if (kind_ == Kind::kNull) kind_ = Kind::kObject;
  if (kind_ != Kind::kObject) wrong_kind("an object", kind_);
  for (Member& member : members_)
    if (member.first == key) {
      member.second = std::move(value);
      return *this;
    }
  members_.emplace_back(key, std::move(value));
  return *this;
}

Json& Json::push(Json value) {
  if (kind_ == Kind::kNull) kind_ = Kind::kArray;
  if (kind_ != Kind::kArray) wrong_kind("an array", kind_);
  items_.push_back(std::move(value));
  return *this;
}

std::string Json::dump() const {
  std::string out;
  write(out);
  return out;
}

// Recursion is bounded: values come from code, or from parse_json with its depth cap.
void Json::write(std::string& out) const {
  switch (kind_) {
    case Kind::kNull: out += "null"; return;
    case Kind::kBool: out += unsigned_ ? "true" : "false"; return;
    case Kind::kInteger: out += std::to_string(integer_); return;
    case Kind::kUnsigned: out += std::to_string(unsigned_); return;
    case Kind::kNumber: {
      if (std::isnan(number_)) {
        out += "\"nan\"";
      } else if (std::isinf(number_)) {
        out += number_ > 0 ? "\"inf\"" : "\"-inf\"";
      } else {
        char text[32];
        const auto end = std::to_chars(text, text + sizeof text, number_).ptr;
        out.append(text, end);
        if (std::string_view(text, static_cast<std::size_t>(end - text)).find_first_of(".e") ==
            std::string_view::npos)
          out += ".0";  // so that it reads back as a number, not an integer
      }
      return;
    }
    case Kind::kString: out += json_quote(string_); return;
    case Kind::kArray:
      out += '[';
      for (std::size_t i = 0; i < items_.size(); ++i) {
        if (i) out += ',';
        items_[i].write(out);
      }
      out += ']';
      return;
    case Kind::kObject:
      out += '{';
      for (std::size_t i = 0; i < members_.size(); ++i) {
        if (i) out += ',';
        out += json_quote(members_[i].first) + ':';
        members_[i].second.write(out);
      }
      out += '}';
      return;
  }
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t n = utf8_length(text);
    const char c = text[0];
    if (n == 0) {
      out += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (n == 1 && static_cast<unsigned char>(c) < 0x20) {
      constexpr char kDigits[] = "0123456789abcdef";
      out += {'\\', 'u', '0', '0', kDigits[c >> 4], kDigits[c & 15]};
    } else {
      out += text.substr(0, n);
    }
    text.remove_prefix(n == 0 ? 1 : n);
  }
  return out + '"';
}

}  // namespace retort
