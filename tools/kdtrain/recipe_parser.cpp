// From text to settings: lines of the file and words of the command line become keys with their
// place, the schema checks them, and every problem is kept until all are known.
#include <algorithm>
#include <set>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {
namespace {

std::string join_path(const std::vector<std::string>& path, std::size_t from = 0) {
  std::string out;
  for (std::size_t i = from; i < path.size(); ++i) out += (i > from ? "." : "") + path[i];
  return out;
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

struct RawArm {
  std::string name, label;
  Place place;
  struct Own {
    const KeySpec* spec;
    Value value;
    std::string origin;
  };
  std::vector<Own> own;
  bool name_given = false;  // even if it was refused
};

class Parser {
 public:
  Parser(const std::string& source, RecipeResult* result) : source_(source), result_(result) {}

  void run(std::string_view text, const std::vector<std::string>& overrides) {
    const TomlResult toml = read_toml(text);
    for (const TomlProblem& p : toml.problems) problem(p.place, p.message, "");
    for (const RawEntry& entry : toml.entries) {
      if (entry.path[0] == "arm")
        arm_entry(entry);
      else if (entry.path[0] == "size" && entry.path.size() > 1)
        size_entry(entry);
      else
        base_entry(entry);
    }
    std::vector<RawArm::Own> from_command_line;
    for (std::size_t i = 0; i < overrides.size(); ++i)
      override_entry(overrides[i], "command line, argument " + std::to_string(i + 1),
                     &from_command_line);
    replace_length(&from_command_line);
    merge(from_command_line);
  }

 private:
  void problem(Place place, std::string message, std::string hint) {
    result_->problems.push_back({source_, place, std::move(message), std::move(hint)});
  }
  std::string origin(Place place) const {
    return source_ + ":" + std::to_string(place.line) + ":" + std::to_string(place.column);
  }

  void base_entry(const RawEntry& entry) {
    RawArm::Own own;
    if (entry_value(join_path(entry.path), entry, false, &own)) base_.push_back(std::move(own));
  }

  bool entry_value(const std::string& key, const RawEntry& entry, bool in_arm, RawArm::Own* own) {
    const KeySpec* spec = find_key(key);
    if (spec == nullptr) {
      std::string hint;
      const std::string message = unknown_key(key, &hint);
      problem(entry.place, message, hint);
      return false;
    }
    if (in_arm && !spec->in_arm) {
      problem(entry.place, "'" + key + "' cannot differ between arms", "set it outside [[arm]]");
      return false;
    }
    const std::string wrong = convert(*spec, entry.value, &own->value);
    if (!wrong.empty()) {
      problem(entry.value.place, key + ": " + wrong, "");
      return false;
    }
    own->spec = spec;
    own->origin = origin(entry.place);
    return true;
  }

  void size_entry(const RawEntry& entry) {
    sizes_seen_.insert(entry.path[1]);
    if (entry.path.size() == 2) {
      problem(entry.place, "expected a table [size." + shown(entry.path[1]) + "]", "");
      return;
    }
    RawArm::Own own;
    if (entry.path[2] == "arm" && entry.path.size() > 4) {  // arm.NAME.key
      if (entry_value(join_path(entry.path, 4), entry, true, &own))
        size_arms_[entry.path[1]].push_back({entry.path[3], std::move(own), entry.place});
      return;
    }
    if (entry_value(join_path(entry.path, 2), entry, false, &own)) {
      if (own.spec->key == "size" || own.spec->key == "arms")
        problem(entry.place, "'" + own.spec->key + "' cannot stand in a [size] table", "");
      else
        sizes_[entry.path[1]].push_back(std::move(own));
    }
  }

  void arm_entry(const RawEntry& entry) {
    if (entry.path.size() < 3 || !entry.element) {
      problem(entry.place, "expected an array of tables [[arm]]",
              "write [[arm]] with two brackets");
      return;
    }
    while (arms_.size() <= *entry.element) arms_.emplace_back();
    RawArm& arm = arms_[*entry.element];
    if (arm.place.line == 0) arm.place = entry.place;
    const std::string key = join_path(entry.path, 2);
    if (key == "name" || key == "label") {
      const auto* text = std::get_if<std::string>(&entry.value.value);
      arm.name_given |= key == "name";
      if (text == nullptr || (key == "name" && !valid_name(*text)))
        problem(entry.value.place,
                "arm " + key + ": expected " + (key == "name" ? kNameRule : "a string") +
                    ", found " + describe(entry.value),
                "");
      else
        (key == "name" ? arm.name : arm.label) = *text;
      return;
    }
    RawArm::Own own;
    if (entry_value(key, entry, true, &own)) arm.own.push_back(std::move(own));
  }

  void override_entry(const std::string& argument, const std::string& where,
                      std::vector<RawArm::Own>* out) {
    const auto complain = [&](std::string message, std::string hint = "") {
      result_->problems.push_back({where, {}, std::move(message), std::move(hint)});
    };
    const auto equals = argument.find('=');
    if (equals == std::string::npos || equals == 0)
      return complain("expected key=value, got '" + shown(argument) + "'");
    std::string key = argument.substr(0, equals), text = argument.substr(equals + 1), arm;
    if (key.starts_with("arm.")) {
      const auto names = [&] {
        std::vector<std::string> all;
        for (const RawArm& a : arms_) all.push_back(a.name);
        return all;
      }();
      for (const std::string& name : names)  // names may hold dots: the longest that fits
        if (!name.empty() && key.starts_with("arm." + name + ".") && name.size() > arm.size())
          arm = name;
      if (arm.empty())
        return complain("no such arm in '" + shown(key) + "'", "arms: " + list_of(names));
      key = key.substr(5 + arm.size());
    }
    const KeySpec* spec = find_key(key);
    if (spec == nullptr) {
      std::string hint;
      const std::string message = unknown_key(key, &hint);
      return complain(message, hint);
    }
    RawValue raw;
    const bool bare_text = spec->type == Type::kString || spec->type == Type::kChoice ||
                           spec->type == Type::kNormalize;
    const bool quoted = !text.empty() && (text[0] == '"' || text[0] == '\'' || text[0] == '[');
    if (spec->type == Type::kStrings && !quoted) {
      RawValue::List list;
      for (std::string& part : split(text, ',')) list.push_back({std::move(part), {}});
      raw.value = std::move(list);
    } else if (bare_text && !quoted) {
      raw.value = text;
    } else {
      const bool list = spec->type == Type::kInts || spec->type == Type::kFloats;
      const TomlResult one = read_toml_value(list && !quoted ? "[" + text + "]" : text);
      if (!one.problems.empty())
        return complain(key + ": expected " + expectation(*spec) + ", found '" + shown(text) + "'");
      raw = one.entries[0].value;
    }
    RawArm::Own own{spec, {}, "command line"};
    const std::string wrong = convert(*spec, raw, &own.value);
    if (!wrong.empty()) return complain(key + ": " + wrong);
    if (arm.empty()) {
      out->push_back(std::move(own));
      return;
    }
    if (!spec->in_arm) return complain("'" + key + "' cannot differ between arms");
    for (RawArm& a : arms_)
      if (a.name == arm) a.own.push_back(own);
  }

  // Whoever asks for steps on the command line does not want the recipe's epochs, and the other way
  // round.
  static void replace_length(std::vector<RawArm::Own>* line) {
    const auto find = [&](const std::string& key) {
      return std::find_if(line->begin(), line->end(),
                          [&](const RawArm::Own& own) { return own.spec->key == key; });
    };
    for (const std::string section : {"train", "teacher.train"})
      for (const auto& [given, other] : {std::pair{section + ".steps", section + ".epochs"},
                                         {section + ".epochs", section + ".steps"}}) {
        const auto at = find(given);
        if (at == line->end() || find(other) != line->end()) continue;
        if (std::get<std::int64_t>(at->value) > 0)
          line->push_back({find_key(other), std::int64_t{0}, "command line, for " + given});
      }
  }

  static std::string list_of(const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
    return out.empty() ? "none" : out;
  }

  // A size's settings of single arms: stronger than what the arm says, weaker than the command
  // line.
  void apply_to_arms(const std::string& size) {
    for (const auto& [name, entries] : size_arms_)
      for (const SizeArm& entry : entries) {
        const auto arm = std::find_if(arms_.begin(), arms_.end(),
                                      [&](const RawArm& a) { return a.name == entry.arm; });
        if (arm == arms_.end())
          problem(entry.place, "there is no arm '" + shown(entry.arm) + "'", "");
        else if (name == size)
          arm->own.insert(
              std::find_if(arm->own.begin(), arm->own.end(),
                           [](const RawArm::Own& own) { return own.origin == "command line"; }),
              entry.own);
      }
  }

  void merge(const std::vector<RawArm::Own>& command_line) {
    Recipe& recipe = result_->recipe;
    recipe.source = source_;
    const auto apply = [](Settings& settings, const std::vector<RawArm::Own>& entries) {
      for (const RawArm::Own& own : entries) settings.set(own.spec->key, own.value, own.origin);
    };
    apply(recipe.base, base_);
    for (const RawArm::Own& own : command_line)
      if (own.spec->key == "size") apply(recipe.base, {own});
    const std::string size = recipe.base.text("size");
    if (const auto at = sizes_.find(size); at != sizes_.end()) {
      apply(recipe.base, at->second);
    } else if (size != "default" && !sizes_seen_.contains(size)) {
      result_->problems.push_back(
          {source_,
           {},
           "there is no table [size." + shown(size) + "]",
           "sizes: default, " + list_of({sizes_seen_.begin(), sizes_seen_.end()})});
    }
    apply(recipe.base, command_line);
    apply_to_arms(size);

    std::set<std::string> names;
    for (std::size_t i = 0; i < arms_.size(); ++i) {
      RawArm& arm = arms_[i];
      if (arm.name.empty()) {
        if (arm.name_given) continue;  // a name of its own kind of mistake
        problem(arm.place, "[[arm]] number " + std::to_string(i + 1) + " needs a name",
                "name = \"...\"");
      } else if (!names.insert(arm.name).second) {
        problem(arm.place, "two arms are named '" + arm.name + "'", "");
      }
    }
    if (arms_.empty()) arms_.emplace_back().name = "student";
    const auto& selected = recipe.base.texts("arms");
    for (const std::string& name : selected) {
      std::vector<std::string> all;
      for (const RawArm& arm : arms_) all.push_back(arm.name);
      if (std::find(all.begin(), all.end(), name) == all.end())
        result_->problems.push_back(
            {source_, {}, "arms: there is no arm '" + shown(name) + "'", "arms: " + list_of(all)});
    }
    for (const RawArm& raw : arms_) {
      if (!selected.empty() &&
          std::find(selected.begin(), selected.end(), raw.name) == selected.end())
        continue;
      Arm arm{raw.name, raw.label.empty() ? raw.name : raw.label, recipe.base, {}};
      apply(arm.settings, raw.own);
      for (const RawArm::Own& own : raw.own) {
        if (std::find(arm.owned.begin(), arm.owned.end(), own.spec->key) == arm.owned.end())
          arm.owned.push_back(own.spec->key);
        for (const RawArm::Own& line : command_line)
          if (line.spec == own.spec && own.origin != "command line")
            result_->warnings.push_back("arm '" + raw.name + "' sets " + own.spec->key +
                                        " itself; to change it there use arm." + raw.name + "." +
                                        own.spec->key + "=...");
      }
      recipe.arms.push_back(std::move(arm));
    }
    recipe.name = recipe.base.text("name");
    if (recipe.name.empty()) {
      std::string stem = source_.substr(source_.find_last_of("/:") + 1);
      if (stem.ends_with(".toml")) stem.resize(stem.size() - 5);
      recipe.name = valid_name(stem) ? stem : "run";
    }
    if (!valid_name(recipe.name))
      result_->problems.push_back(
          {source_,
           {},
           "name: expected letters, digits, '_', '-', '.', found '" + shown(recipe.name) + "'",
           ""});
    if (result_->problems.empty()) check_together(result_);
  }

  std::string source_;
  RecipeResult* result_;
  std::vector<RawArm::Own> base_;
  std::vector<RawArm> arms_;
  std::map<std::string, std::vector<RawArm::Own>> sizes_;
  std::set<std::string> sizes_seen_;
  struct SizeArm {
    std::string arm;
    RawArm::Own own;
    Place place;
  };
  std::map<std::string, std::vector<SizeArm>> size_arms_;
};

}  // namespace

RecipeResult parse_recipe(const std::string& source, std::string_view text,
                          const std::vector<std::string>& overrides) {
  RecipeResult result;
  Parser(source, &result).run(text, overrides);
  std::stable_sort(result.problems.begin(), result.problems.end(),
                   [&](const auto& a, const auto& b) {
                     return std::tuple(a.file != source, a.place.line, a.place.column) <
                            std::tuple(b.file != source, b.place.line, b.place.column);
                   });
  return result;
}

}  // namespace retort::tools
