// Settings, messages, recipe.resolved.toml, and where recipes are found.
#include "tools/kdtrain/recipe.h"

#include <algorithm>
#include <fstream>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {

Settings::Settings() {
  static const auto defaults = [] {
    std::map<std::string, Setting, std::less<>> all;
    for (const KeySpec& spec : schema()) {
      const TomlResult raw = read_toml_value(spec.fallback);
      Value value;
      if (!raw.problems.empty() || !convert(spec, raw.entries[0].value, &value).empty())
        throw std::logic_error("the default of " + spec.key + " is not valid");
      all.emplace(spec.key, Setting{std::move(value), "default"});
    }
    return all;
  }();
  settings_ = defaults;
}

const Settings::Setting& Settings::at(std::string_view key) const {
  const auto at = settings_.find(key);
  if (at == settings_.end()) throw std::logic_error("no such setting: " + std::string(key));
  return at->second;
}

void Settings::set(std::string_view key, Value value, std::string origin) {
  const_cast<Setting&>(at(key)) = {std::move(value), std::move(origin)};
}

bool uses_teacher(const Settings& s) {
  return s.number("distill.lambda") != 0 || s.text("distill.reliance.mode") != "off" ||
         s.text("distill.method") != "one_shot" || s.text("train.order") == "curriculum";
}

std::string curriculum_name(const Settings& s) {
  if (const std::string& given = s.text("curriculum.name"); !given.empty()) return given;
  const bool random = s.text("curriculum.scorer") == "random";
  std::string name = s.text("curriculum.score");
  if (random) name = name == "logit" ? "random" : "random_" + name;  // the scores still differ
  if (s.text("curriculum.inverse") != "off" && !random) name += "_" + s.text("curriculum.inverse");
  if (!s.flag("curriculum.stratify")) name += "_unstratified";
  return name;
}

std::string format_problems(const RecipeResult& result, std::string_view text) {
  const std::vector<std::string> lines = split(text, '\n');
  std::string out;
  std::size_t printed = 0;
  for (const RecipeProblem& p : result.problems) {
    if (++printed > 50) break;
    out += p.file;
    if (p.place.line > 0)
      out += ":" + std::to_string(p.place.line) + ":" + std::to_string(p.place.column);
    out += ": error: " + p.message + "\n";
    const std::size_t line = static_cast<std::size_t>(p.place.line);
    const bool excerpt = line > 0 && line <= lines.size() && lines[line - 1].size() <= 200;
    if (excerpt) {
      const std::string number = std::to_string(line);
      const std::size_t column = static_cast<std::size_t>(std::max(1, p.place.column));
      out += std::string(number.size() < 5 ? 5 - number.size() : 0, ' ') + number + " | " +
             shown(lines[line - 1]) + "\n      | " +
             std::string(std::min<std::size_t>(column - 1, 80), ' ') + "^";
      if (!p.hint.empty()) out += " " + p.hint;
      out += "\n";
    } else if (!p.hint.empty()) {
      out += "      " + p.hint + "\n";
    }
  }
  const std::size_t count = result.problems.size();
  return out + std::to_string(count) + (count == 1 ? " error" : " errors") +
         "; nothing was started\n";
}

std::string resolved_toml(const Recipe& recipe) {
  std::string out =
      "# Every value of this run, with where it came from. A complete recipe itself.\n";
  std::string table;
  const auto line = [](const std::string& key, const Value& value, const std::string& origin) {
    std::string text = key + " = " + to_toml(value);
    // [mean, std] of three channels keeps the form in which people write it.
    return text + (text.size() < 40 ? std::string(40 - text.size(), ' ') : "") + " # " +
           shown(origin) + "\n";
  };
  const auto value_of = [&](const Settings& s, const std::string& key) {
    if (key == "name") return Value(recipe.name);
    if (key == "size") return Value(std::string("default"));  // its overrides are applied already
    if (key == "arms") return Value(std::vector<std::string>{});
    return s.value(key);
  };
  // Keys of the top come first; a deeper table opens its own header.
  for (const KeySpec& spec : schema()) {
    const auto dot = spec.key.rfind('.');
    const std::string here = dot == std::string::npos ? "" : spec.key.substr(0, dot);
    if (here != table) out += "\n[" + (table = here) + "]\n";
    std::string origin = recipe.base.origin(spec.key);
    if (spec.key == "size" && origin != "default")
      origin += ": was " + to_toml(recipe.base.value("size")) + ", applied below";
    out += line(spec.key.substr(dot == std::string::npos ? 0 : dot + 1),
                value_of(recipe.base, spec.key), origin);
  }
  for (const Arm& arm : recipe.arms) {
    out += "\n[[arm]]\nname = " + to_toml(Value(arm.name)) +
           "\nlabel = " + to_toml(Value(arm.label)) + "\n";
    for (const std::string& key : arm.owned)
      out += line(key, arm.settings.value(key), arm.settings.origin(key));
  }
  return out;
}

RecipeText find_recipe(const std::string& name_or_file) {
  std::ifstream file(name_or_file, std::ios::binary);
  if (file) {
    std::string text(kMaxRecipeBytes + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (file.gcount() > 0 || file.eof()) {
      text.resize(static_cast<std::size_t>(file.gcount()));
      return {name_or_file, std::move(text)};
    }
  }
  for (const EmbeddedRecipe& recipe : embedded_recipes())
    if (name_or_file == recipe.name) return {std::string("embedded:") + recipe.name, recipe.text};
  std::string list;
  std::vector<std::string> names;
  for (const EmbeddedRecipe& recipe : embedded_recipes()) {
    list += std::string(list.empty() ? "" : ", ") + recipe.name;
    names.emplace_back(recipe.name);
  }
  const std::string near = nearest_word(name_or_file, names);
  fail(ErrorCode::kUsage, "no recipe '", shown(name_or_file),
       "': expected a readable file or one of the embedded recipes: ", list,
       near.empty() ? "" : "; did you mean '" + near + "'?");
}

}  // namespace retort::tools
