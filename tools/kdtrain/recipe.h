// A recipe: settings checked against the schema; arms, models and tasks that override them; and
// where each value came from. Order of precedence, weakest first: default, recipe, [size.NAME],
// command line `key=value`, the arm's or model's own key, command line `arm.NAME.key=value`, the
// task's own key, command line `task.NAME.key=value`, the arm's or model's own key for that task,
// command line `arm.NAME.task.NAME.key=value`.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tools/kdtrain/schema.h"
#include "tools/kdtrain/toml_reader.h"

namespace retort::tools {

/// A value of every key of the schema, with its origin ("default", "recipe.toml:12:3", ...). The
/// first one made fixes the table of keys: see schema().
/// What reading a value throws that was refused: whoever asks more of it cannot know.
struct RefusedValue {};

class Settings {
 public:
  Settings();  // all defaults

  bool flag(std::string_view key) const { return get<bool>(key); }
  std::int64_t integer(std::string_view key) const { return get<std::int64_t>(key); }
  double number(std::string_view key) const { return get<double>(key); }
  const std::string& text(std::string_view key) const { return get<std::string>(key); }
  const std::vector<std::int64_t>& integers(std::string_view key) const {
    return get<std::vector<std::int64_t>>(key);
  }
  const std::vector<double>& numbers(std::string_view key) const {
    return get<std::vector<double>>(key);
  }
  const std::vector<std::string>& texts(std::string_view key) const {
    return get<std::vector<std::string>>(key);
  }

  const Value& value(std::string_view key) const { return at(key).value; }
  const std::string& origin(std::string_view key) const { return at(key).origin; }
  bool is_default(std::string_view key) const { return at(key).origin == "default"; }
  void set(std::string_view key, Value value, std::string origin);
  /// Its value is none: reading it throws RefusedValue.
  void refuse(std::string_view key);

 private:
  struct Setting {
    Value value;
    std::string origin;
    bool refused = false;
  };
  const Setting& at(std::string_view key) const;
  template <class T>
  const T& get(std::string_view key) const {
    const T* value = std::get_if<T>(&at(key).value);
    if (value == nullptr) throw std::logic_error("setting of another type: " + std::string(key));
    return *value;
  }
  std::map<std::string, Setting, std::less<>> settings_;
};

/// The values of a registry row's keys: a spec "hidden" in section "student" is "student.hidden".
nn::Options options_of(const Settings& settings, std::string_view section,
                       std::span<const nn::OptionSpec> specs);

/// Who has these settings learns from a teacher, starts from one, or is ordered by one.
bool uses_teacher(const Settings& settings);

/// Equal texts: the same work in a step, so one measurement does for both. Order, lambda and rates
/// cost nothing. See Note [What keys decide], schema_keys.cpp.
std::string cost_signature(const Settings& settings);

/// Equal texts: the same scores and order.
std::string order_signature(const Settings& settings);

/// curriculum.name, or a name made of the settings that decide the order. Of a checked recipe,
/// equal names mean equal order_signature()s.
std::string curriculum_name(const Settings& settings);

/// train.stop_at: a metric of the first evaluation split and the value it must reach.
struct StopRule {
  std::string metric;
  bool at_least = true;  // else at most
  double value = 0;
};
/// Reads "accuracy >= 0.99"; nothing if it is not of that form.
std::optional<StopRule> parse_stop_rule(std::string_view text);

/// What an arm, model or task sets itself.
struct Assignment {
  std::string key;
  Value value;
  std::string origin;
  bool refused = false;   // the value was a mistake
  std::string task = {};  // of an arm or model: holds in this task alone
};

/// Names of models to learn from; "teacher" is what [teacher] describes.
using Teachers = std::vector<std::string>;

struct Arm {
  std::string name;
  std::string label;                      // for tables; the name if the recipe gives none
  Settings settings;                      // merged, of no task
  std::vector<std::string> owned;         // keys that the arm sets itself
  std::vector<Assignment> in_tasks = {};  // and those of single tasks
  Teachers teachers = {"teacher"};
};

/// [[model]]: a network between [teacher] and the arms (a teacher assistant), trained once like an
/// arm's student: its settings are those of [student], [train] and [distill] with its own.
struct ModelSpec {
  std::string name;
  Settings settings;  // merged, of no task; its architecture is student.arch
  std::vector<std::string> owned;
  std::vector<Assignment> in_tasks = {};
  Teachers teachers = {"teacher"};
  std::string place;  // "FILE:LINE:COLUMN"
};

/// [[task]]: every arm and model goes through all tasks, each from what the one before left.
struct TaskSpec {
  std::string name;
  std::vector<Assignment> own;  // stronger than what an arm says
  std::string place;
};
/// The settings in this task of whoever has the settings without it, and these keys of its own for
/// single tasks.
Settings in_task(const Settings& settings, const TaskSpec& task,
                 std::span<const Assignment> own = {});

struct Recipe {
  std::string source;  // file name as given, or "embedded:NAME"
  std::string name;
  Settings base;
  std::vector<Arm> arms;          // those selected by `arms`
  std::vector<ModelSpec> models;  // each after those it learns from
  std::vector<TaskSpec> tasks;    // in their order; empty: one task without a name

  /// Where a value was set, for messages: "FILE:LINE:COLUMN", "command line", or the file's name.
  const std::string& place(const Settings& settings, std::string_view key) const {
    return settings.is_default(key) ? source : settings.origin(key);
  }
};

/// One mistake. Printed as file:line:column: error: message, the line, a caret, the hint.
struct RecipeProblem {
  std::string file;  // or "command line, argument 3"
  Place place;
  std::string message;
  std::string hint;
};

struct RecipeResult {
  Recipe recipe;
  std::vector<RecipeProblem> problems;
  std::vector<std::string> warnings;
};

/// Parses and checks everything; collects all mistakes. Never throws on bad input.
/// overrides: "key=value" as typed; first_argument numbers them in messages.
RecipeResult parse_recipe(const std::string& source, std::string_view text,
                          const std::vector<std::string>& overrides);

/// All mistakes as text, one block each, with a closing count.
std::string format_problems(const RecipeResult& result, std::string_view text);

/// recipe.resolved.toml: a complete recipe, each value with its origin as a comment.
std::string resolved_toml(const Recipe& recipe);

/// The text of a recipe: a file, or one of the embedded ones by name. Throws Error(kUsage) naming
/// what there is if neither exists.
struct RecipeText {
  std::string source;
  std::string text;
};
RecipeText find_recipe(const std::string& name_or_file);

struct EmbeddedRecipe {
  const char* name;
  const char* text;
};
/// The recipes of examples/recipes/, compiled in (generated). The first is the default.
const std::vector<EmbeddedRecipe>& embedded_recipes();

}  // namespace retort::tools
