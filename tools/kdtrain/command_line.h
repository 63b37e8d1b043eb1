// What kdtrain was asked to do.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/kdtrain/recipe.h"

namespace retort::tools {

struct CommandLine {
  std::string command;             // "run", "doctor", ...
  std::string subject;             // recipe, run folder or schema section; "" = default
  std::vector<std::string> words;  // key=value, in order; compare: run folders
  std::string invocation;          // the whole line, as a shell takes it
  std::string out;                 // --out
  std::string device = "auto";     // --device
  std::vector<std::string> load;   // --load, in order
  int threads = 0;                 // --threads; 0 = as the environment says
  std::int64_t trials = 0;         // sweep; 0 = as the recipe says
  int ranks = 0;                   // --ranks of run and plan; 0: nothing was said
  bool resume = false;
  bool retry_failed = false;
  bool json = false;
  bool no_data = false;                 // validate
  std::string model, arch, logits;      // eval
  std::string split = "test";           // eval
  std::string vocab, tokenizer;         // tokenize: one of them
  bool cased = false, uncased = false;  // tokenize, with vocab: one of them
};

/// Fills `line`. Returns -1 to go on, or the exit status after help, version or a usage error was
/// printed.
int parse_command_line(int argc, char** argv, CommandLine* line);

/// A word as a shell takes it.
std::string shell_word(const std::string& word);

/// "retort 0.1.0"
std::string version_text();

/// The recipe that the line names (default: the first embedded one) with its overrides. Prints
/// warnings; prints all mistakes and returns nothing if there is one. tells: false prints nothing.
std::optional<Recipe> checked_recipe(const CommandLine& line,
                                     bool tells = true);  // recipes_command.cpp

/// Trains the recipe's teacher alone, of its first seed, in a run folder of its own, which may have
/// begun before. The file of its weights. Errors    as run_command's; kStopped after a signal.
std::string train_teacher(const CommandLine& line, Recipe recipe,
                          const std::string& folder);  // runner.cpp

/// The commands; each returns an exit status and may throw Error.
int run_command(const CommandLine& line);       // runner.cpp
int sweep_command(const CommandLine& line);     // sweep.cpp
int plan_command(const CommandLine& line);      // plan_command.cpp
int score_command(const CommandLine& line);     // score.cpp
int eval_command(const CommandLine& line);      // eval.cpp
int tokenize_command(const CommandLine& line);  // tokenize.cpp
int report_command(const CommandLine& line);    // report_command.cpp
int doctor_command(const CommandLine& line);    // doctor.cpp
int selftest_command(const CommandLine& line);  // selftest.cpp
int list_command(const CommandLine& line);      // recipes_command.cpp
int show_command(const CommandLine& line);      // recipes_command.cpp
int copy_command(const CommandLine& line);      // recipes_command.cpp
int explain_command(const CommandLine& line);   // recipes_command.cpp
int compare_command(const CommandLine& line);   // compare_command.cpp
int validate_command(const CommandLine& line);  // recipes_command.cpp
int schema_command(const CommandLine& line);    // recipes_command.cpp

}  // namespace retort::tools
