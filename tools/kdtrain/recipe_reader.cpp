// From text to keys: lines of the file and words of the command line, each checked against its line
// of the schema.
#include <algorithm>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {
namespace {

std::string join_path(const std::vector<std::string>& path, std::size_t from = 0) {
  std::string out;
  for (std::size_t i = from; i < path.size(); ++i) out += (i > from ? "." : "") + path[i];
  return out;
}

bool is_block(std::string_view word) {
  return std::find(std::begin(kBlocks), std::end(kBlocks), word) != std::end(kBlocks);
}

std::string unknown_key(const std::string& key, std::string* hint) {
  if (key.starts_with("arms.")) {
    *hint = "an arm is a table [[arm]] with two brackets and a name";
    return "unknown key '" + shown(key) + "'";
  }
  const std::string near = nearest_key(key);
  if (!near.empty()) *hint = "did you mean '" + near + "'?";
  const auto dot = key.find('.');
  const std::string table = dot == std::string::npos ? "" : " " + key.substr(0, dot);
  *hint += (hint->empty() ? "" : "  ") +
           ("(kdtrain schema" +
            (schema_as_text(table.empty() ? "" : table.substr(1)).empty() ? "" : table) + ")");
  return "unknown key '" + shown(key) + "'";
}

// The line of a key as it stands in a block. A [[model]] says of itself what [student] says.
const KeySpec* key_in(std::string_view block, const std::string& key) {
  if (block == "model")
    if (const KeySpec* const own = find_key("student." + key)) return own;
  return find_key(key);
}

// Tasks may differ in their data too, and in how the teacher goes on with them: a corpus first, then
// a task on another one.
bool may_set(std::string_view block, const KeySpec& spec) {
  return block.empty() || spec.in_arm ||
         (block == "task" &&
          (spec.key.starts_with("data.") ||
           (spec.key.starts_with("teacher.train.") && spec.key != "teacher.train.weights")));
}

Assignment refused(const KeySpec& spec) { return {spec.key, spec.fallback, "", true}; }

// Of an unknown key the one that was meant, most likely.
std::optional<Assignment> meant(std::string_view block, const std::string& key) {
  const std::string near = nearest_key(key);
  const KeySpec* const spec = near.empty() ? nullptr : find_key(near);
  if (spec == nullptr || !may_set(block, *spec)) return std::nullopt;
  return refused(*spec);
}

class TextReader {
 public:
  TextReader(const std::string& source, RawRecipe* raw, std::vector<RecipeProblem>* problems)
      : source_(source), raw_(raw), problems_(problems) {}

  /// Returns whether it is TOML at all.
  bool read(std::string_view text) {
    const TomlResult toml = read_toml(text);
    for (const TomlProblem& p : toml.problems) problem(p.place, p.message);
    for (const RawEntry& entry : toml.entries) {
      if (is_block(entry.path[0]))
        block_entry(entry.path[0], entry);
      else if (entry.path[0] == "size" && entry.path.size() > 1)
        size_entry(entry);
      else
        keep(assignment("", join_path(entry.path), entry), &raw_->base);
    }
    return toml.problems.empty();
  }

 private:
  using Maybe = std::optional<Assignment>;

  void problem(Place place, std::string message, std::string hint = "") {
    problems_->push_back({source_, place, std::move(message), std::move(hint)});
  }
  static void keep(Maybe own, std::vector<Assignment>* list) {
    if (own) list->push_back(std::move(*own));
  }

  Maybe assignment(std::string_view block, const std::string& key, const RawEntry& entry) {
    const KeySpec* const spec = key_in(block, key);
    if (spec == nullptr) {
      std::string hint;
      const std::string message = unknown_key(key, &hint);
      problem(entry.place, message, hint);
      return meant(block, key);
    }
    if (!may_set(block, *spec)) {
      const std::string table(block);
      problem(entry.place, "'" + spec->key + "' cannot differ between " + table + "s",
              "set it outside [[" + table + "]]");
      return {};
    }
    Assignment own{spec->key,
                   {},
                   source_ + ":" + std::to_string(entry.place.line) + ":" +
                       std::to_string(entry.place.column)};
    const std::string wrong = convert(*spec, entry.value, &own.value);
    if (wrong.empty()) return own;
    problem(entry.value.place, spec->key + ": " + wrong);
    return refused(*spec);
  }

  // What a block says from path[from] on: KEY, or of an arm or model task.NAME.KEY.
  Maybe own_key(const std::string& kind, const RawEntry& entry, std::size_t from) {
    const bool of_task =
        kind != "task" && entry.path[from] == "task" && entry.path.size() > from + 2;
    Maybe own = assignment(kind, join_path(entry.path, from + (of_task ? 2 : 0)), entry);
    if (own && of_task) own->task = entry.path[from + 1];
    return own;
  }

  void size_entry(const RawEntry& entry) {
    RawRecipe::Size& size = raw_->sizes[entry.path[1]];
    if (entry.path.size() == 2)
      return problem(entry.place, "expected a table [size." + shown(entry.path[1]) + "]");
    if (is_block(entry.path[2]) && entry.path.size() > 4) {  // arm.NAME.key
      if (Maybe own = own_key(entry.path[2], entry, 4))
        size.of_blocks.push_back({entry.path[2], entry.path[3], std::move(*own), entry.place});
      return;
    }
    const std::string key = join_path(entry.path, 2);
    if (key == "size" || key == "arms")
      return problem(entry.place, "'" + key + "' cannot stand in a [size] table");
    keep(assignment("", key, entry), &size.base);
  }

  void block_entry(const std::string& kind, const RawEntry& entry) {
    if (entry.path.size() < 3 || !entry.element)
      return problem(entry.place, "expected an array of tables [[" + kind + "]]",
                     "write [[" + kind + "]] with two brackets");
    std::vector<Block>& blocks = raw_->blocks[kind];
    while (blocks.size() <= *entry.element) blocks.emplace_back();
    Block& block = blocks[*entry.element];
    if (block.place.line == 0) block.place = entry.place;
    const std::string key = join_path(entry.path, 2);
    if (key == "name" || (key == "label" && kind == "arm")) return word(kind, key, entry, &block);
    if (key == "teachers" && kind != "task") return teachers(kind, entry, &block);
    keep(own_key(kind, entry, 2), &block.own);
  }

  void word(const std::string& kind, const std::string& key, const RawEntry& entry, Block* block) {
    const auto* const text = std::get_if<std::string>(&entry.value.value);
    const bool name = key == "name";
    block->name_given |= name;
    if (text == nullptr || (name && !valid_name(*text)))
      return problem(entry.value.place, kind + " " + key + ": expected " +
                                            (name ? kNameRule : "a string") + ", found " +
                                            describe(entry.value));
    (name ? block->name : block->label) = *text;
  }

  void teachers(const std::string& kind, const RawEntry& entry, Block* block) {
    Value value;
    const KeySpec list = nn::strings_option("teachers", {}, "").not_empty();
    const std::string wrong = convert(list, entry.value, &value);
    if (!wrong.empty()) return problem(entry.value.place, kind + " teachers: " + wrong);
    block->teachers = std::get<nn::Strings>(std::move(value));
    block->teachers_place = entry.value.place;
  }

  const std::string& source_;
  RawRecipe* raw_;
  std::vector<RecipeProblem>* problems_;
};

// Of "arm.NAME.key" the block; `key` is what stays. Names may hold dots: the longest that fits.
Block* block_of(RawRecipe* raw, const std::string& kind, std::string* key) {
  Block* found = nullptr;
  for (Block& block : raw->blocks[kind])
    if (!block.name.empty() && key->starts_with(kind + "." + block.name + ".") &&
        (found == nullptr || block.name.size() > found->name.size()))
      found = &block;
  if (found != nullptr) key->erase(0, kind.size() + found->name.size() + 2);
  return found;
}

// A value as typed in a shell: words need no quotes, lists no brackets.
bool read_word(const KeySpec& spec, const std::string& text, RawValue* out) {
  const bool bare_text =
      spec.type == Type::kString || spec.type == Type::kChoice || spec.type == Type::kNormalize;
  const bool quoted = !text.empty() && (text[0] == '"' || text[0] == '\'' || text[0] == '[');
  if (spec.type == Type::kStrings && !quoted) {
    RawValue::List list;
    for (std::string& part : split(text, ',')) list.push_back({std::move(part), {}});
    out->value = std::move(list);
    return true;
  }
  if (bare_text && !quoted) {
    out->value = text;
    return true;
  }
  const bool list = spec.type == Type::kInts || spec.type == Type::kFloats;
  TomlResult one = read_toml_value(list && !quoted ? "[" + text + "]" : text);
  if (!one.problems.empty()) return false;
  *out = std::move(one.entries[0].value);
  return true;
}

// One "key=value". Returns what is wrong with it, or "".
std::string read_argument(const std::string& argument, RawRecipe* raw, std::string* hint) {
  const auto equals = argument.find('=');
  if (equals == std::string::npos || equals == 0)
    return "expected key=value, got '" + shown(argument) + "'";
  std::string key = argument.substr(0, equals);
  const std::string text = argument.substr(equals + 1);
  const std::string kind = key.substr(0, key.find('.'));
  Block* block = nullptr;
  if (is_block(kind) && kind.size() < key.size()) {
    const std::string whole = key;
    block = block_of(raw, kind, &key);
    if (block == nullptr) {
      std::vector<std::string> names;
      for (const Block& b : raw->blocks[kind]) names.push_back(b.name);
      *hint = kind + "s: " + list_of(names);
      return "no such " + kind + " in '" + shown(whole) + "'";
    }
  }
  std::string task;
  if (block != nullptr && kind != "task" && key.starts_with("task."))
    if (const Block* const own = block_of(raw, "task", &key)) task = own->name;
  const KeySpec* const spec = key_in(block != nullptr ? kind : "", key);
  std::vector<Assignment>& list = block != nullptr ? block->own : raw->command_line;
  const auto keep = [&](Assignment own) {
    own.task = task;
    list.push_back(std::move(own));
  };
  if (spec == nullptr) {
    if (auto near = meant(block != nullptr ? kind : "", key)) keep(std::move(*near));
    return unknown_key(key, hint);
  }
  if (block != nullptr && !may_set(kind, *spec))
    return "'" + key + "' cannot differ between " + kind + "s";
  RawValue value;
  if (!read_word(*spec, text, &value)) {
    keep(refused(*spec));
    return key + ": expected " + expectation(*spec) + ", found '" + shown(text) + "'";
  }
  Assignment own{spec->key, {}, "command line"};
  if (const std::string wrong = convert(*spec, value, &own.value); !wrong.empty()) {
    keep(refused(*spec));
    return key + ": " + wrong;
  }
  keep(std::move(own));
  return "";
}

// Whoever asks for steps on the command line does not want the recipe's epochs, and the other way
// round.
void replace_length(std::vector<Assignment>* line) {
  const auto find = [&](const std::string& key) {
    return std::find_if(line->begin(), line->end(),
                        [&](const Assignment& own) { return own.key == key; });
  };
  for (const std::string section : {"train", "teacher.train"})
    for (const auto& [given, other] : {std::pair{section + ".steps", section + ".epochs"},
                                       {section + ".epochs", section + ".steps"}}) {
      const auto at = find(given);
      if (at == line->end() || find(other) != line->end()) continue;
      if (at->refused || std::get<std::int64_t>(at->value) > 0)
        line->push_back({other, std::int64_t{0}, "command line, for " + given});
    }
}

}  // namespace

std::string list_of(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out.empty() ? "none" : out;
}

RawRecipe read_recipe(const std::string& source, std::string_view text,
                      const std::vector<std::string>& words, std::vector<RecipeProblem>* problems,
                      bool* readable) {
  RawRecipe raw;
  *readable = TextReader(source, &raw, problems).read(text);
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string hint;
    std::string wrong = read_argument(words[i], &raw, &hint);
    if (!wrong.empty())
      problems->push_back({"command line, argument " + std::to_string(i + 1),
                           {},
                           std::move(wrong),
                           std::move(hint)});
  }
  replace_length(&raw.command_line);
  return raw;
}

}  // namespace retort::tools
