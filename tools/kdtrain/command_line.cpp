// The only file that includes CLI11 (it is slow to compile).
#include "tools/kdtrain/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>

#include "tools/kdtrain/error_codes.h"
#include "tools/kdtrain/schema.h"

#if !defined(RETORT_VERSION)
#define RETORT_VERSION "0.0.0"
#endif

namespace retort::tools {
namespace {

constexpr const char* kFooter =
    "Recipes are TOML; `key=value` overrides any key (kdtrain schema lists them), and\n"
    "`arm.NAME.key=value` one arm's. Examples:\n"
    "  kdtrain run                                       # the embedded default: sparse parity\n"
    "  kdtrain run cifar10_six_arms data.root=DIR --out runs/six\n"
    "  kdtrain plan cifar10_six_arms data.root=DIR       # memory and time before starting\n"
    "  kdtrain run my.toml train.epochs=10 --resume --out runs/mine\n"
    "Exit codes: 0 done, 2 usage or recipe, 3 bad input file, 4 I/O, 5 memory, 6 a job met NaN or "
    "infinity,\n"
    "7 another rank is lost, 8 device, 130 stopped by SIGINT or SIGQUIT, 143 by SIGTERM, SIGHUP "
    "or\n"
    "SIGUSR1, after a checkpoint (a second signal quits at once), 1 a fault of kdtrain itself.";

bool is_override(const std::string& word) {
  const auto equals = word.find('=');
  std::error_code error;
  return equals != std::string::npos && word.find('/') > equals &&
         !std::filesystem::is_regular_file(word, error);
}

}  // namespace

std::string shell_word(const std::string& word) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) || std::strchr("_./=:,+-%@", c);
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string version_text() { return std::string("retort ") + RETORT_VERSION; }

int parse_command_line(int argc, char** argv, CommandLine* line) {
  CLI::App app{"kdtrain: train students from teachers, by recipe", "kdtrain"};
  app.footer(kFooter);
  app.set_version_flag("--version", version_text());
  app.require_subcommand(1);
  std::vector<std::string> words;
  std::vector<CLI::App*> commands;
  const auto command = [&](const char* name, const char* help) {
    CLI::App* sub = app.add_subcommand(name, help);
    commands.push_back(sub);
    return sub;
  };
  const auto device_options = [&](CLI::App* sub) {
    sub->add_option("--device", line->device, "auto, cpu or cuda")
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
        ->capture_default_str();
    sub->add_option("--threads", line->threads, "CPU threads; default: all cores")
        ->check(CLI::Range(1, 4096));
  };

  const auto load_option = [&](CLI::App* sub) {
    sub->add_option("--load", line->load,
                    "A library that adds models, data, loss terms, metrics, ...; may be repeated")
        ->type_name("LIBRARY")
        ->allow_extra_args(false);
  };

  CLI::App* run =
      command("run", "Run a recipe: a file or an embedded name; default parity_extraction");
  run->add_option("recipe", words, "RECIPE [key=value ...]");
  // "$OUT" of a variable that is not set.
  const CLI::Validator named(
      [](const std::string& text) {
        return text.empty() ? std::string("expected a name, got an empty one") : "";
      },
      "");
  run->add_option("--out", line->out, "Run folder; default runs/NAME")->check(named);
  run->add_flag("--resume", line->resume, "Go on from the newest checkpoints in the run folder");
  run->add_flag("--retry-failed", line->retry_failed,
                "With --resume: try jobs again that failed, each from its last checkpoint");
  run->add_option("--ranks", line->ranks,
                  "As many processes that share each batch: starts mpirun; CPU only")
      ->check(CLI::Range(1, 4096));
  device_options(run);
  load_option(run);

  CLI::App* sweep =
      command("sweep", "Run a recipe with values drawn for some keys, and say which were best");
  sweep->add_option("recipe", words, "RECIPE [key=value ...], with sweep.ranges")->required();
  sweep->add_option("--trials", line->trials, "How many; default sweep.trials")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1000000}));
  sweep->add_option("--out", line->out, "Folder of the sweep; default runs/NAME_sweep");
  sweep->add_flag("--resume", line->resume, "Go on with a sweep; more --trials may be asked for");
  sweep->add_flag("--retry-failed", line->retry_failed, "With --resume: try failed trials again");
  device_options(sweep);
  load_option(sweep);

  CLI::App* ls = command("ls", "List the embedded recipes, or say what one of them does");
  ls->add_option("name", line->subject, "An embedded recipe, or a file");
  ls->add_flag("--json", line->json, "As JSON");
  CLI::App* show = command("show", "Print a recipe");
  show->add_option("name", line->subject, "An embedded recipe, or a file")->required();
  CLI::App* copy = command("cp", "Copy a recipe, to change it");
  copy->add_option("name", line->subject, "An embedded recipe, or a file")->required();
  copy->add_option("file", line->out, "The new file, such as my.toml")->required();
  CLI::App* explain = command("explain", "What an error's code means, and what to do about it");
  explain->add_option("code", line->subject, "Such as RT0301; none: all")->capture_default_str();
  CLI::App* compare = command("compare", "What differs between runs: keys, and results by arm");
  compare->add_option("folders", words, "Run folders; the first is what others are compared with")
      ->required();
  compare->add_flag("--json", line->json, "As JSON");

  CLI::App* validate = command("validate", "Check a recipe and say what it would run");
  validate->add_option("recipe", words, "RECIPE [key=value ...]");
  validate->add_flag("--no-data", line->no_data, "Leave out what takes data and weights");
  load_option(validate);

  CLI::App* plan = command("plan", "Measure what a recipe will take: memory, time, steps, disk");
  plan->add_option("recipe", words, "RECIPE [key=value ...]");
  plan->add_flag("--json", line->json, "As one JSON object");
  plan->add_option("--ranks", line->ranks,
                   "For as many ranks as `run --ranks`: what one of them takes")
      ->check(CLI::Range(1, 4096));
  device_options(plan);
  load_option(plan);

  CLI::App* score = command("score", "Write a recipe's curriculum without training the students");
  score->add_option("recipe", words, "RECIPE [key=value ...]")->required();
  score->add_option("--out", line->out, "The CSV file to write")->required()->check(named);
  device_options(score);
  load_option(score);

  CLI::App* eval = command("eval", "Evaluate weights on a data set; prints one JSON object");
  eval->add_option("--model", line->model, "Weights: .safetensors, or a folder of them")
      ->required();
  eval->add_option("--arch", line->arch, "Architecture, as in teacher.arch")->required();
  eval->add_option("overrides", words, "data.key=value ...");
  eval->add_option("--split", line->split, "train, validation or test")
      ->check(CLI::IsMember({"train", "validation", "test"}))
      ->capture_default_str();
  eval->add_option("--logits", line->logits,
                   "Also write the logits: little-endian f32 (n, classes)");
  device_options(eval);
  load_option(eval);

  CLI::App* tokenize = command(
      "tokenize", "Text to WordPiece ids: a text a line on stdin, a JSON list a line on stdout");
  tokenize->add_option("--vocab", line->vocab, "vocab.txt, by the rules of Google's BERT");
  tokenize->add_flag("--cased", line->cased, "With --vocab: letters and accents as they are");
  tokenize->add_flag("--uncased", line->uncased, "With --vocab: lower case, no accents");
  tokenize->add_option("--tokenizer", line->tokenizer,
                       "tokenizer.json; its padding and truncation are left aside");

  CLI::App* report = command("report", "Rebuild report.html and results.json of a run folder");
  report->add_option("folder", line->subject, "Run folder")->required();

  CLI::App* doctor = command("doctor", "Say what this machine offers: CPU, memory, CUDA, data");
  doctor->add_flag("--json", line->json, "As one JSON object");
  doctor->add_option("--threads", line->threads, "CPU threads")->check(CLI::Range(1, 4096));

  CLI::App* selftest = command("selftest", "Check the numbers of every op on each device here");
  device_options(selftest);

  CLI::App* schema = command("schema", "Every recipe key: type, range, default, meaning");
  schema->add_option("section", line->subject, "A section or a key, such as train");
  schema->add_flag("--json", line->json, "As JSON");
  load_option(schema);

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForAllHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::string message = e.what();
    if (const auto end = message.find('\n'); end != std::string::npos) message.resize(end);
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty()) {
      std::vector<std::string> names;
      for (const CLI::App* sub : commands) names.push_back(sub->get_name());
      const std::string near = nearest_word(argv[1], names);
      message = "there is no command '" + std::string(argv[1]) + "'" +
                (near.empty() ? "" : "; did you mean '" + near + "'?");
    }
    std::cerr << "kdtrain: " << error_label(ErrorCode::kUsage, message) << message
              << " (kdtrain --help)\n";
    return 2;
  }
  for (int i = 0; i < argc; ++i)
    line->invocation += (i > 0 ? " " : "") + shell_word(i > 0 ? argv[i] : "kdtrain");
  line->command = app.get_subcommands().front()->get_name();
  for (std::string& word : words) {
    const bool takes_subject = line->command != "eval" && line->command != "compare";
    if (takes_subject && line->subject.empty() && line->words.empty() && !is_override(word))
      line->subject = std::move(word);
    else
      line->words.push_back(std::move(word));
  }
  return -1;
}

}  // namespace retort::tools
