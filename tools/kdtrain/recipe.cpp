// From text to settings: lines of the file and words of the command line become keys with their
// place, the schema checks them, and every problem is kept until all are known.
#include "tools/kdtrain/recipe.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <set>

namespace retort::tools {
namespace {

std::string join_path(const std::vector<std::string>& path, std::size_t from = 0) {
  std::string out;
  for (std::size_t i = from; i < path.size(); ++i) out += (i > from ? "." : "") + path[i];
  return out;
}

// Text of a file shown in a message: control characters escaped, at most 80 characters.
std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 80)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      out += '?';
    else
      out += c;
  }
  while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80 &&
         text.size() > 80)
    out.pop_back();
  return text.size() > 80 ? out + "..." : out;
}

std::string describe(const RawValue& raw) {
  struct Visitor {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return to_toml(Value(v)); }
    std::string operator()(const std::string& v) const { return "string \"" + shown(v) + "\""; }
    std::string operator()(const RawValue::List& v) const {
      return "a list of " + std::to_string(v.size());
    }
  };
  return std::visit(Visitor{}, raw.value);
}

bool as_number(const RawValue& raw, double* out) {
  if (const auto* i = std::get_if<std::int64_t>(&raw.value))
    return *out = static_cast<double>(*i), true;
  if (const auto* d = std::get_if<double>(&raw.value)) return *out = *d, true;
  return false;
}

bool in_range(const KeySpec& spec, double v) { return v >= spec.least && v <= spec.most; }

// Checks a raw value against its line of the schema. Returns "" and the value, or what is wrong.
std::string convert(const KeySpec& spec, const RawValue& raw, Value* out) {
  const std::string mismatch = "expected " + expectation(spec) + ", found " + describe(raw);
  const auto* list = std::get_if<RawValue::List>(&raw.value);
  const auto* string = std::get_if<std::string>(&raw.value);
  double number = 0;
  switch (spec.type) {
    case Type::kBool:
      if (const auto* b = std::get_if<bool>(&raw.value)) return *out = *b, "";
      return mismatch;
    case Type::kInt: {
      const auto* i = std::get_if<std::int64_t>(&raw.value);
      if (i == nullptr || !in_range(spec, static_cast<double>(*i))) return mismatch;
      return *out = *i, "";
    }
    case Type::kFloat:
      if (!as_number(raw, &number) || !in_range(spec, number)) return mismatch;
      return *out = number, "";
    case Type::kString:
      if (string == nullptr) return mismatch;
      return *out = *string, "";
    case Type::kChoice: {
      const auto words = split(spec.choices, '|');
      if (string == nullptr) return mismatch;
      if (std::find(words.begin(), words.end(), *string) == words.end()) {
        const std::string near = nearest_word(*string, words);
        return mismatch + (near.empty() ? "" : "; did you mean '" + near + "'?");
      }
      return *out = *string, "";
    }
    case Type::kInts: {
      std::vector<std::int64_t> values;
      const RawValue::List one{raw};
      for (const RawValue& element : list ? *list : one) {
        const auto* i = std::get_if<std::int64_t>(&element.value);
        if (i == nullptr || !in_range(spec, static_cast<double>(*i))) return mismatch;
        values.push_back(*i);
      }
      return *out = std::move(values), "";
    }
    case Type::kFloats: {
      std::vector<double> values;
      const RawValue::List one{raw};
      for (const RawValue& element : list ? *list : one) {
        if (!as_number(element, &number) || !in_range(spec, number)) return mismatch;
        values.push_back(number);
      }
      return *out = std::move(values), "";
    }
    case Type::kStrings: {
      std::vector<std::string> values;
      const RawValue::List one{raw};
      for (const RawValue& element : list ? *list : one) {
        const auto* s = std::get_if<std::string>(&element.value);
        if (s == nullptr) return mismatch;
        values.push_back(*s);
      }
      return *out = std::move(values), "";
    }
    case Type::kNormalize: {
      const auto words = split(spec.choices, '|');
      if (string != nullptr) {
        if (std::find(words.begin(), words.end(), *string) == words.end()) return mismatch;
        return *out = *string, "";
      }
      if (list == nullptr) return mismatch;
      std::vector<double> values;
      for (const RawValue& part : *list) {
        const auto* inner = std::get_if<RawValue::List>(&part.value);
        const RawValue::List one{part};
        for (const RawValue& element : inner ? *inner : one) {
          if (!as_number(element, &number) || !std::isfinite(number)) return mismatch;
          values.push_back(number);
        }
      }
      if (values.size() != 2 && values.size() != 6) return mismatch;
      for (std::size_t i = values.size() / 2; i < values.size(); ++i)
        if (!(values[i] > 0)) return "expected deviations > 0, found " + to_toml(Value(values[i]));
      return *out = std::move(values), "";
    }
  }
  return mismatch;
}

std::string unknown_key(const std::string& key, std::string* hint) {
  const std::string near = nearest_key(key);
  if (!near.empty()) *hint = "did you mean '" + near + "'?";
  const auto dot = key.find('.');
  const std::string table = dot == std::string::npos ? "" : " " + key.substr(0, dot);
  *hint += (hint->empty() ? "" : "  ") +
           ("(kdtrain schema" +
            (schema_as_text(table.empty() ? "" : table.substr(1)).empty() ? "" : table) + ")");
  return "unknown key '" + shown(key) + "'";
}

bool valid_name(const std::string& name) {
  if (name.empty() || name.size() > 64 || name[0] == '.' || name[0] == '-') return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.';
  });
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
    if (entry_value(join_path(entry.path, 2), entry, false, &own)) {
      if (own.spec->key == "size" || own.spec->key == "arms")
        problem(entry.place, "'" + own.spec->key + "' cannot stand in a [size] table", "");
      else
        sizes_[entry.path[1]].push_back(std::move(own));
    }
  }

  void arm_entry(const RawEntry& entry) {
    if (entry.path.size() < 3 || entry.path[1][0] != '#') {
      problem(entry.place, "expected an array of tables [[arm]]",
              "write [[arm]] with two brackets");
      return;
    }
    const std::size_t index = static_cast<std::size_t>(std::stoul(entry.path[1].substr(1)));
    while (arms_.size() <= index) arms_.emplace_back();
    RawArm& arm = arms_[index];
    if (arm.place.line == 0) arm.place = entry.place;
    const std::string key = join_path(entry.path, 2);
    if (key == "name" || key == "label") {
      const auto* text = std::get_if<std::string>(&entry.value.value);
      if (text == nullptr || (key == "name" && !valid_name(*text)))
        problem(entry.value.place,
                "arm " + key + ": expected " +
                    (key == "name" ? "a name of letters, digits, '_', '-', '.' (at most 64)"
                                   : "a string") +
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

  static std::string list_of(const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
    return out.empty() ? "none" : out;
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

    std::set<std::string> names;
    for (std::size_t i = 0; i < arms_.size(); ++i) {
      RawArm& arm = arms_[i];
      if (arm.name.empty()) {
        problem(arm.place, "[[arm]] number " + std::to_string(i + 1) + " needs a name",
                "name = \"...\"");
      } else if (!names.insert(arm.name).second) {
        problem(arm.place, "two arms are named '" + arm.name + "'", "");
      }
    }
    if (arms_.empty()) arms_.push_back({"student", "", {}, {}});
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
    if (result_->problems.empty()) check_together();
  }

  // What no single line of the schema can say. The place is that of the key that decides.
  void check_together() {
    const Recipe& recipe = result_->recipe;
    const auto wrong = [&](const Settings& s, const std::string& arm, const std::string& key,
                           std::string message) {
      const std::string where = s.origin(key);
      result_->problems.push_back(
          {where == "default" ? source_ : where,
           {},
           (arm.empty() ? "" : "arm '" + arm + "': ") + key + ": " + message,
           ""});
    };
    const Settings& base = recipe.base;
    const bool parity = base.text("data.format") == "parity";
    if (parity && base.integer("data.support") > base.integer("data.bits"))
      wrong(base, "", "data.support",
            "expected at most data.bits = " + std::to_string(base.integer("data.bits")));
    std::set<std::int64_t> seeds;
    for (const std::int64_t seed : base.integers("seeds"))
      if (!seeds.insert(seed).second)
        wrong(base, "", "seeds", "seed " + std::to_string(seed) + " is there twice");
    if (base.integers("seeds").empty()) wrong(base, "", "seeds", "expected at least one seed");
    if (base.integers("teacher.seeds").empty())
      wrong(base, "", "teacher.seeds", "expected at least one seed");
    if (base.integers("teacher.seeds").size() > 1)
      for (const std::int64_t seed : base.integers("seeds"))
        if (seed >= 100)
          wrong(base, "", "seeds", "expected seeds below 100 with several teacher seeds");
    if ((base.text("teacher.arch") == "mlp") != parity)
      wrong(base, "", "teacher.arch", parity ? "parity needs an mlp" : "images need a resnet");
    const auto check_training = [&](const Settings& s, const std::string& arm,
                                    const std::string& section) {
      if ((s.integer(section + ".epochs") > 0) == (s.integer(section + ".steps") > 0))
        wrong(s, arm, section + ".epochs",
              "expected exactly one of " + section + ".epochs and " + section + ".steps to be > 0");
      const auto& milestones = s.numbers(section + ".milestones");
      if (!std::is_sorted(milestones.begin(), milestones.end()))
        wrong(s, arm, section + ".milestones", "expected ascending fractions");
      if (s.flag(section + ".nesterov") &&
          (s.number(section + ".momentum") == 0 || s.text(section + ".optimizer") != "sgd"))
        wrong(s, arm, section + ".nesterov", "needs SGD with momentum > 0");
    };
    bool needs_teacher = false;
    for (const Arm& arm : recipe.arms) {
      const Settings& s = arm.settings;
      const bool uses_teacher =
          s.number("distill.lambda") != 0 || s.text("distill.reliance.mode") != "off" ||
          s.text("distill.method") != "one_shot" || s.text("train.order") == "curriculum";
      needs_teacher |= uses_teacher;
      check_training(s, arm.name, "train");
      if ((s.text("student.arch") == "mlp") != parity)
        wrong(s, arm.name, "student.arch", parity ? "parity needs an mlp" : "images need a resnet");
      const bool curriculum = s.text("train.order") == "curriculum";
      if (curriculum && parity)
        wrong(s, arm.name, "train.order", "parity draws fresh samples: there is nothing to order");
      if (s.text("distill.reliance.mode") != "off" && !curriculum)
        wrong(s, arm.name, "distill.reliance.mode",
              "selective reliance needs train.order = \"curriculum\"");
      if (s.text("curriculum.pacing") != "none" && !curriculum)
        wrong(s, arm.name, "curriculum.pacing", "pacing needs train.order = \"curriculum\"");
      if (s.integer("train.window_shuffle") > 0 && s.text("train.order") == "shuffle")
        wrong(s, arm.name, "train.window_shuffle",
              "train.order = \"shuffle\" shuffles everything already");
      if (s.text("distill.method") == "progressive" &&
          (base.integer("teacher.train.checkpoint_steps") == 0 ||
           !base.text("teacher.weights").empty()))
        wrong(s, arm.name, "distill.method",
              "progressive needs a teacher trained by the recipe with "
              "teacher.train.checkpoint_steps > 0");
    }
    if (needs_teacher && base.text("teacher.weights").empty())
      check_training(base, "", "teacher.train");
  }

  std::string source_;
  RecipeResult* result_;
  std::vector<RawArm::Own> base_;
  std::vector<RawArm> arms_;
  std::map<std::string, std::vector<RawArm::Own>> sizes_;
  std::set<std::string> sizes_seen_;
};

}  // namespace

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
  std::string names;
  for (const EmbeddedRecipe& recipe : embedded_recipes())
    names += std::string(names.empty() ? "" : ", ") + recipe.name;
  fail(ErrorCode::kUsage, "no recipe '", shown(name_or_file),
       "': expected a readable file or one of the embedded recipes: ", names);
}

}  // namespace retort::tools
