// `kdtrain sweep`: a recipe run with values drawn for some of its keys. Every trial is a run of its own,
// with fresh weights, in a folder of its own, and resumes like one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/data.h"
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/signals.h"
#include "tools/kdtrain/sweep_ranges.h"
#include "tools/report/sweep_page.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

// How long the trials of a rung train: KEY=VALUE, or "" where nobody is halved.
struct Rung {
  std::string word, text;
};

class Sweep {
 public:
  Sweep(const CommandLine& line, const Recipe& recipe)
      : line_(line),
        recipe_(recipe),
        arm_(arm_of(recipe)),
        folder_(line.out.empty() ? "runs/" + recipe.name + "_sweep" : line.out) {
    const Settings& s = recipe.base;
    for (const std::string& text : s.texts("sweep.ranges"))
      ranges_.push_back(parse_sweep_range(text));
    RETORT_CHECK(!ranges_.empty(), recipe.place(s, "sweep.ranges"),
                 ": sweep.ranges: expected at least one, such as \"train.lr = log(1e-5, 1e-3)\"");
    for (std::size_t i = 0; i < ranges_.size(); ++i)
      for (std::size_t j = 0; j < i; ++j)
        RETORT_CHECK(ranges_[i].key != ranges_[j].key, recipe.place(s, "sweep.ranges"),
                     ": sweep.ranges: '", escaped(ranges_[i].key), "' is there twice");
    trials_ = line.trials > 0 ? line.trials : s.integer("sweep.trials");
    results_.title = recipe.name + ": sweep";
    results_.metric = MetricText(s.text("sweep.metric"));
    for (const SweepRange& range : ranges_)
      results_.axes.push_back(
          {range.key, range.text, range.kind == SweepRange::Kind::kLog, range.choices});
    make_rungs();
    check_metric();
    check_trials();
  }

  // Returns the exit status of a signal, or 0.
  int run() {
    begin();
    share_teacher();
    std::vector<std::int64_t> alive;
    for (std::int64_t trial = 1; trial <= trials_; ++trial) alive.push_back(trial);
    for (std::size_t r = 0; r < rungs_.size(); ++r) {
      std::vector<SweepTrial> of_rung;
      for (const std::int64_t trial : alive) {
        SweepTrial result;
        if (const int status = run_trial(trial, r, &result); status != 0) return status;
        of_rung.push_back(result);
        results_.trials.push_back(std::move(result));
        write();
      }
      order(&of_rung);
      const double keep = std::ceil(static_cast<double>(of_rung.size()) /
                                    static_cast<double>(std::max<std::int64_t>(1, halving())));
      of_rung.resize(static_cast<std::size_t>(std::max(1.0, keep)));
      alive.clear();
      for (const SweepTrial& trial : of_rung)
        if (trial.failed.empty()) alive.push_back(trial.number);
      std::sort(alive.begin(), alive.end());
    }
    tell();
    return 0;
  }

 private:
  // The one that is judged: sweep.arm, or the first.
  static const Arm& arm_of(const Recipe& recipe) {
    const std::string& name = recipe.base.text("sweep.arm");
    for (const Arm& arm : recipe.arms)
      if (name.empty() || arm.name == name) return arm;
    fail(ErrorCode::kUsage, recipe.place(recipe.base, "sweep.arm"),
         ": sweep.arm: there is no arm '", escaped(name), "'");
  }

  std::int64_t halving() const { return recipe_.base.integer("sweep.halving"); }

  // Successive halving: each rung trains `halving` times as long as the one before, from fresh weights.
  void make_rungs() {
    if (halving() < 2) {
      rungs_.push_back({});
      return;
    }
    const Settings& s = arm_.settings;
    const bool steps = s.integer("train.steps") > 0;
    const std::string key = steps ? "train.steps" : "train.epochs";
    for (const SweepRange& range : ranges_)
      RETORT_CHECK(!range.key.ends_with(key), recipe_.place(recipe_.base, "sweep.halving"),
                   ": sweep.halving sets ", key, ", and sweep.ranges draws it");
    for (const TaskSpec& task : recipe_.tasks)
      for (const Assignment& a : task.own)
        RETORT_CHECK(a.key != key, recipe_.place(recipe_.base, "sweep.halving"),
                     ": sweep.halving sets ", key, ", and task '", task.name, "' has its own");
    const bool own = std::find(arm_.owned.begin(), arm_.owned.end(), key) != arm_.owned.end();
    for (std::int64_t left = recipe_.base.integer("sweep.rungs"); left-- > 0;) {
      const double share = std::pow(static_cast<double>(halving()), -static_cast<double>(left));
      const auto length =
          std::max<std::int64_t>(1, std::llround(share * static_cast<double>(s.integer(key))));
      Rung rung{(own ? "arm." + arm_.name + "." : "") + key + "=" + std::to_string(length),
                std::to_string(length) + (steps ? " step" : " epoch") + (length == 1 ? "" : "s")};
      if (rungs_.empty() || rungs_.back().word != rung.word) rungs_.push_back(std::move(rung));
    }
  }

  std::string value(std::int64_t trial, std::size_t range) const {
    return ranges_[range].draw(recipe_.base.integer("sweep.seed"), trial);
  }

  // What a trial's command line says beside the sweep's own words.
  std::vector<std::string> words_of(std::int64_t trial, std::size_t rung) const {
    std::vector<std::string> words;
    if (!recipe_.arms.empty() && recipe_.arms.size() > 1) words.push_back("arms=" + arm_.name);
    if (!rungs_[rung].word.empty()) words.push_back(rungs_[rung].word);
    for (std::size_t i = 0; i < ranges_.size(); ++i)
      words.push_back(ranges_[i].key + "=" + value(trial, i));
    if (!teacher_.empty()) words.push_back("teacher.weights=" + teacher_);
    return words;
  }

  void check_metric() const {
    const std::string& place = recipe_.place(recipe_.base, "sweep.metric");
    const ExperimentData data = open_data(recipes_in_tasks(recipe_).back().base, false);
    nn::Strings sets;
    for (const EvaluationSet& set : data.evaluation) sets.push_back(set.name);
    const MetricText& metric = results_.metric;
    const bool known =
        metric.kind.better != distill::Better::kNeither &&
        (metric.set.empty() || std::find(sets.begin(), sets.end(), metric.set) != sets.end());
    RETORT_CHECK(known, place, ": sweep.metric: expected SPLIT.METRIC with a split of ",
                 to_toml(sets), " and a metric of which more or less is better, found ",
                 to_toml(Value(escaped(metric.name))));
    if (metric.set == "test")
      std::fprintf(stderr,
                   "kdtrain: note: sweep.metric = \"%s\": what is chosen by the test set is not "
                   "measured by it any more; choose by data.validation_files, or for text by "
                   "data.holdout\n",
                   metric.name.c_str());
  }

  // All mistakes before the first trial: both ends of every range, each with the first trial's others.
  void check_trials() const {
    const RecipeText text = find_recipe(line_.subject);
    const auto check = [&](const std::vector<std::string>& more) {
      std::vector<std::string> words = line_.words;
      words.insert(words.end(), more.begin(), more.end());
      const RecipeResult result = parse_recipe(text.source, text.text, words);
      if (result.problems.empty()) return;
      const RecipeProblem& first = result.problems.front();
      fail(ErrorCode::kUsage, recipe_.place(recipe_.base, "sweep.ranges"),
           ": sweep.ranges draws what the recipe refuses, ", list_of_words(more), ": ",
           first.message, first.hint.empty() ? "" : "; " + first.hint);
    };
    for (std::size_t rung = 0; rung < rungs_.size(); ++rung)
      for (std::size_t i = 0; i < ranges_.size(); ++i)
        for (const std::string& corner : ranges_[i].corners()) {
          std::vector<std::string> words = words_of(1, rung);
          words.push_back(ranges_[i].key + "=" + corner);  // the last one counts
          check(words);
        }
    for (std::int64_t trial = 1; trial <= std::min<std::int64_t>(trials_, 1000); ++trial)
      check(words_of(trial, rungs_.size() - 1));
  }

  static std::string list_of_words(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + shell_word(word);
    return text;
  }

  void begin() {
    const bool there = fs::exists(folder_ + "/sweep.json");
    RETORT_CHECK(!line_.resume || there, "cannot resume ", escaped(folder_, 4096),
                 ": it holds no sweep.json");
    std::error_code error;
    RETORT_CHECK(line_.resume || !fs::exists(folder_, error) || fs::is_empty(folder_, error),
                 "[sweep] ", escaped(folder_, 4096),
                 " is not empty: --resume goes on with it, --out DIR names another");
    make_folders(folder_ + "/trials");
    install_signal_handlers();
    if (!there) write();
  }

  // A teacher that no trial changes is trained once.
  void share_teacher() {
    const Settings& s = recipe_.base;
    const bool alone = recipe_.tasks.empty() && recipe_.models.empty() &&
                       s.text("teacher.weights").empty() &&
                       s.integers("teacher.seeds").size() == 1 && uses_teacher(arm_.settings) &&
                       arm_.settings.text("distill.method") != "progressive";
    const bool drawn = std::any_of(ranges_.begin(), ranges_.end(), [](const SweepRange& range) {
      return range.key.starts_with("teacher.") || range.key.starts_with("data.");
    });
    if (!alone || drawn) return;
    std::printf("the teacher that all trials learn from\n");
    std::fflush(stdout);
    Recipe own = recipe_;
    std::erase_if(own.arms, [&](const Arm& arm) { return arm.name != arm_.name; });
    teacher_ = fs::absolute(train_teacher(line_, own, folder_ + "/teacher")).string();
  }

  int run_trial(std::int64_t trial, std::size_t rung, SweepTrial* result) {
    char name[64];
    std::snprintf(name, sizeof name, "trials/%s%04lld",
                  rungs_.size() > 1 ? ("rung" + std::to_string(rung + 1) + "_").c_str() : "",
                  static_cast<long long>(trial));
    const std::vector<std::string> words = words_of(trial, rung);
    result->number = trial;
    result->rung = static_cast<std::int64_t>(rung);
    result->folder = name;
    result->budget = rungs_[rung].text;
    for (std::size_t i = 0; i < ranges_.size(); ++i) result->values.push_back(value(trial, i));
    CommandLine own = line_;
    own.command = "run";
    own.out = folder_ + "/" + name;
    own.words.insert(own.words.end(), words.begin(), words.end());
    own.resume = fs::exists(own.out + "/recipe.resolved.toml");
    std::printf("trial %lld of %lld%s: %s\n", static_cast<long long>(trial),
                static_cast<long long>(trials_),
                result->budget.empty() ? "" : (", " + result->budget).c_str(),
                list_of_words(words).c_str());
    std::fflush(stdout);
    try {
      if (const int status = run_command(own); status != 0) {
        std::fprintf(stderr, "the sweep goes on with --resume\n");
        return status;
      }
      result->value = measured(own.out);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNumerics) throw;
      result->value = std::nan("");
      result->failed = first_reason(error.what());
    }
    return 0;
  }

  static std::string first_reason(const std::string& what) {
    const auto begin = what.find("\n  ");
    if (begin == std::string::npos) return what.substr(0, what.find('\n'));
    return what.substr(begin + 3, what.find('\n', begin + 1) - begin - 3);
  }

  double measured(const std::string& run) const {
    const Json results = Json::read(run + "/results.json");
    // What a task made of an arm is an arm of its own there.
    const std::string judged =
        recipe_.tasks.empty() ? arm_.name : arm_.name + "/" + recipe_.tasks.back().name;
    for (const Json& arm : results.at("arms").items())
      if (arm.at("name").as_string() == judged)
        if (const Json* const metric = arm.at("metrics").find(results_.metric.name)) {
          const Json& mean = metric->at("mean");
          return mean.kind() == Json::Kind::kString ? std::nan("") : mean.as_number();
        }
    fail(ErrorCode::kUsage, "[sweep] ", escaped(run, 4096), " measured no ",
         escaped(results_.metric.name), ": expected a sweep.metric of its results.json");
  }

  // The best first: of later rungs before earlier ones, those that failed last.
  void order(std::vector<SweepTrial>* trials) const {
    const double sign = results_.metric.kind.better == distill::Better::kHigher ? -1 : 1;
    const auto key = [&](const SweepTrial& t) {
      const bool bad = !t.failed.empty() || std::isnan(t.value);
      return std::tuple(bad, -t.rung, bad ? 0 : sign * t.value, t.number);
    };
    std::sort(trials->begin(), trials->end(),
              [&](const SweepTrial& a, const SweepTrial& b) { return key(a) < key(b); });
  }

  // sweep.json, sweep.csv and sweep.html of what is there.
  void write() {
    order(&results_.trials);
    Json json = Json::object(), ranges = Json::object(), trials = Json::array();
    std::string csv = "trial,rung,trained," + results_.metric.name;
    for (const SweepRange& range : ranges_) {
      ranges.set(range.key, range.text);
      csv += "," + range.key;
    }
    csv += "\n";
    for (const SweepTrial& trial : results_.trials) {
      Json values = Json::object(), one = Json::object();
      csv += std::to_string(trial.number) + "," + std::to_string(trial.rung + 1) + "," +
             trial.budget + "," + Json(trial.value).dump();
      for (std::size_t i = 0; i < ranges_.size(); ++i) {
        values.set(ranges_[i].key, trial.values[i]);
        csv += "," + trial.values[i];
      }
      csv += "\n";
      one.set("trial", trial.number).set("rung", trial.rung + 1).set("trained", trial.budget);
      one.set("value", trial.value).set("values", std::move(values));
      if (!trial.failed.empty()) one.set("failed", trial.failed);
      trials.push(one.set("folder", trial.folder));
    }
    json.set("recipe", recipe_.name).set("arm", arm_.name).set("metric", results_.metric.name);
    json.set("ranges", std::move(ranges)).set("trials", std::move(trials));
    write_file_atomically(folder_ + "/sweep.json", json.dump() + "\n");
    write_file_atomically(folder_ + "/sweep.csv", csv);
    write_file_atomically(folder_ + "/sweep.html", sweep_page(results_));
  }

  void tell() const {
    std::fputs(("\n" + sweep_table(results_, 20)).c_str(), stdout);
    const SweepTrial& best = results_.trials.front();
    if (!best.failed.empty() || std::isnan(best.value))
      fail(ErrorCode::kNumerics, "[sweep] all trials failed; ", folder_, "/sweep.html lists why");
    std::string words;
    for (const std::string& word : line_.words) words += " " + shell_word(word);
    for (std::size_t i = 0; i < ranges_.size(); ++i)
      words += " " + shell_word(ranges_[i].key + "=" + best.values[i]);
    std::printf("best: trial %lld\n  kdtrain run %s%s\n%s/sweep.html\n",
                static_cast<long long>(best.number), shell_word(line_.subject).c_str(),
                words.c_str(), folder_.c_str());
  }

  const CommandLine& line_;
  const Recipe& recipe_;
  const Arm& arm_;
  std::string folder_, teacher_;  // its weights; "": trials see to it
  std::vector<SweepRange> ranges_;
  std::int64_t trials_ = 0;
  std::vector<Rung> rungs_;
  SweepResults results_;
};

}  // namespace

int sweep_command(const CommandLine& line) {
  const auto recipe = checked_recipe(line);
  if (!recipe) return static_cast<int>(ErrorCode::kUsage);
  return Sweep(line, *recipe).run();
}

}  // namespace retort::tools
