// What the files of the recipe reader share, in the order in which a recipe passes them:
//
//   recipe_reader.cpp    text and words of the command line -> keys with their places
//   recipe_value.cpp     one value against its line of the schema
//   recipe_merge.cpp     keys -> settings of arms, models, tasks
//   recipe_checks.cpp    what only several keys together can get wrong
//   recipe_fit.cpp       whether models, data and keys fit each other
//
// Every problem is kept until all are known.
#pragma once
#include <functional>
#include <set>

#include "tools/kdtrain/recipe.h"

namespace retort::tools {

/// Text of a file shown in a message: control characters replaced, at most 80 characters.
std::string shown(std::string_view text);

/// "string "abc"", "a list of 3", ...: a value in a message.
std::string describe(const RawValue& raw);

/// "a, b, c", or "none".
std::string list_of(const std::vector<std::string>& words);

/// What names of arms, recipes and curricula may hold: they become names of files.
bool valid_name(std::string_view name);
inline constexpr const char* kNameRule = "a name of letters, digits, '_', '-', '.' (at most 64)";

/// Checks a raw value against its line of the schema. Returns "" and the value, or what is wrong.
std::string convert(const KeySpec& spec, const RawValue& raw, Value* out);

/// One [[arm]], [[model]] or [[task]] as written.
struct Block {
  std::string name, label;
  std::optional<Teachers> teachers;
  Place place, teachers_place;
  std::vector<Assignment> own;
  bool name_given = false;  // even if it was refused
};

/// The arrays of tables that a recipe may have.
inline constexpr const char* kBlocks[] = {"arm", "model", "task"};

/// Keys and their places, each valid by itself.
struct RawRecipe {
  std::vector<Assignment> base, command_line;
  std::map<std::string, std::vector<Block>, std::less<>> blocks;  // by kBlocks
  struct Size {
    std::vector<Assignment> base;
    struct OfBlock {
      std::string kind, name;
      Assignment own;
      Place place;
    };
    std::vector<OfBlock> of_blocks;  // [size.NAME] arm.NAME.key = value
  };
  std::map<std::string, Size, std::less<>> sizes;
};

/// A value that is a mistake stands in the result, marked. readable: false for text that is no TOML.
RawRecipe read_recipe(const std::string& source, std::string_view text,
                      const std::vector<std::string>& words, std::vector<RecipeProblem>* problems,
                      bool* readable);

/// Fills result->recipe and the warnings.
void merge_recipe(RawRecipe raw, RecipeResult* result);

/// What no single line of the schema can say: adds to the problems. The place is that of the key
/// that decides. A check that reads a refused value says nothing.
void check_together(RecipeResult* result);

/// One check.
template <class Check>
void unless_refused(const Check& check) {
  try {
    check();
  } catch (const RefusedValue&) {
  }
}

/// Adds a problem where the recipe wants other libraries than those that are loaded. Told beside
/// all others: without a library, names and keys of its rows are unknown.
void check_libraries(RecipeResult* result);

/// A training that the recipe asks for: an arm or a model in one task.
struct Use {
  std::string who;  // "arm 'a'", "model 'b', task 'c'"
  Settings settings;
  std::vector<std::string> owned;  // keys that the arm, model or task sets itself
  const Teachers* teachers;
  std::string task = {};  // empty: the recipe has none
};

/// [teacher] is one of those it learns from.
bool learns_from_teacher(const Use& use);

/// Mistakes with their places. What several uses share is told once.
class Mistakes {
 public:
  explicit Mistakes(const Recipe& recipe) : recipe_(recipe) {}
  /// Of the recipe as a whole.
  void add(const std::string& key, const std::string& message, std::string hint = "");
  /// Of one use.
  void add(const Use& use, const std::string& key, const std::string& message,
           std::string hint = "");
  /// `uses` is how many there are: a mistake of all of them names none.
  std::vector<RecipeProblem> take(std::size_t uses) const;

 private:
  struct Mistake {
    std::string where, text, hint;
    std::vector<std::string> who;
  };
  RecipeProblem at(const std::string& where) const;

  const Recipe& recipe_;
  std::vector<Mistake> all_;
};

/// A key that no use reads is a mistake where a value asks for something: it was set, and is not the
/// row's neutral value. why_not says "" or why a use does not read it.
///
/// Note [Keys that a resolved recipe leaves out]
///   A resolved recipe gives every key, so there a fallback that asks for something (data.augment)
///   would be refused where the data does not read it. Such a key is no value of the run, and is left
///   out. Folders have recipes that were written before this was so: in a recipe.resolved.toml a
///   fallback asks for nothing.
void check_unread(const std::vector<Use>& uses, const std::string& key,
                  const std::function<std::string(const Use&)>& why_not, Mistakes* mistakes);

/// Whether the recipe has data that reads this key: true of keys that no data has.
bool is_read_by_data(const Recipe& recipe, const KeySpec& spec);

/// Every arm and every model in every task.
std::vector<Use> uses_of(const Recipe& recipe);

/// Models against data, keys against what reads them, values against the row that reads them.
void check_fit(const std::vector<Use>& uses, Mistakes* mistakes);

}  // namespace retort::tools
