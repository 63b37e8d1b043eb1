#include "engine/io/json_view.h"

#include <algorithm>

#include "engine/io/file.h"

namespace retort {
namespace {

// RFC 6901: '~' is "~0" and '/' is "~1".
std::string escaped_token(std::string_view key) {
  std::string out;
  for (const char c : key) {
    if (c == '~')
      out += "~0";
    else if (c == '/')
      out += "~1";
    else
      out += c;
  }
  return out;
}

}  // namespace

JsonView JsonView::child(const Json& value, const std::string& token) const {
  JsonView view(value, file_);
  view.pointer_ = pointer_ + '/' + token;
  return view;
}

std::string JsonView::place() const {
  return escaped(file_, 4096) + ": " + (pointer_.empty() ? "" : escaped(pointer_, 400) + ": ");
}

void JsonView::expected(std::string_view what) const {
  const std::string text = value_->kind() == Json::Kind::kObject  ? "an object"
                           : value_->kind() == Json::Kind::kArray ? "an array"
                                                                  : escaped(value_->dump());
  refuse("expected ", what, ", got ", text);
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  if (value_->kind() != Json::Kind::kObject) expected("an object");
  const Json* found = value_->find(key);
  if (found == nullptr) return std::nullopt;
  return child(*found, escaped_token(key));
}

JsonView JsonView::at(std::string_view key) const {
  const auto found = find(key);
  if (!found) refuse("expected the key '", escaped(key), "'");
  return *found;
}

JsonView JsonView::member(std::size_t index) const {
  const auto& [key, value] = value_->members().at(index);
  return child(value, escaped_token(key));
}

std::size_t JsonView::size() const {
  if (value_->kind() != Json::Kind::kArray) expected("an array");
  return value_->items().size();
}

JsonView JsonView::item(std::size_t index) const {
  if (index >= size()) refuse("expected more than ", index, " items, got ", size());
  return child(value_->items()[index], std::to_string(index));
}

void JsonView::only(std::initializer_list<std::string_view> known) const {
  if (value_->kind() != Json::Kind::kObject) expected("an object");
  for (const auto& [key, value] : value_->members())
    if (std::find(known.begin(), known.end(), key) == known.end())
      child(value, escaped_token(key)).refuse("a key that this version does not know");
}

bool JsonView::boolean() const {
  if (value_->kind() != Json::Kind::kBool) expected("true or false");
  return value_->as_bool();
}

const std::string& JsonView::string() const {
  if (value_->kind() != Json::Kind::kString) expected("a string");
  return value_->as_string();
}

std::uint64_t JsonView::integer(std::uint64_t most) const {
  if (value_->kind() != Json::Kind::kUnsigned || value_->as_unsigned() > most)
    expected(join("an integer from 0 to ", most));
  return value_->as_unsigned();
}

void JsonView::is(std::string_view text) const {
  if (string() != text) expected(json_quote(text));
}

}  // namespace retort
