#include "tools/kdtrain/recipe_identity.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "engine/io/file.h"
#include "tools/kdtrain/models.h"
#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {
namespace {

// Their content is compared by hash_of(data) and the teacher's hash, which each checkpoint holds.
bool is_hashed_by_jobs(const std::string& key) {
  return key == "data.root" || key == "teacher.weights" || key == "teacher.train.files" ||
         (key.starts_with("data.") && key.ends_with("_files"));
}
constexpr const char* kFiles[] = {"student.weights", "teacher.train.weights", "curriculum.file"};
bool is_file(const std::string& key) {
  return std::find(std::begin(kFiles), std::end(kFiles), key) != std::end(kFiles);
}

bool is_rate(const std::string& key) {
  return key.ends_with("train.lr") || key.ends_with("train.lr_final") ||
         key.ends_with("train.clip_norm");
}

// Of a folder of weights: names and contents of what lies in it.
std::string hash_of_folder(const std::string& folder) {
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_regular_file()) files.insert(entry.path());
  std::string all;
  for (const std::filesystem::path& file : files)
    all += join(file.filename().string(), " ", hash_file(file.string()), "\n");
  return hash_bytes(all);
}

// "" where there is no such file.
std::string hash_of_file(const Settings& settings, const std::string& key) {
  const std::string& name = settings.text(key);
  if (name.empty()) return "";
  try {
    const std::string path = key == "curriculum.file" ? name : find_weights(settings, name);
    return std::filesystem::is_directory(path) ? hash_of_folder(path) : hash_file(path);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kIo && error.code() != ErrorCode::kBadInput) throw;
    return "";  // whoever reads it says what is wrong
  }
}

template <class T>
bool has_all(const std::vector<T>& now, const std::vector<T>& before) {
  return std::all_of(before.begin(), before.end(), [&](const T& one) {
    return std::find(now.begin(), now.end(), one) != now.end();
  });
}

using Begun = std::function<BegunJobs(const std::string&)>;

class Comparison {
 public:
  Comparison(const std::function<std::string(const std::string&)>& known_hash, const Begun& begun,
             Device device)
      : known_hash_(known_hash), begun_(begun), device_(device) {}

  RecipeChanges of(const Recipe& now, const Recipe& saved) {
    const std::vector<TaskSpec>&tasks = now.tasks, &before = saved.tasks;
    const bool same =
        std::equal(tasks.begin(), tasks.end(), before.begin(), before.end(),
                   [](const TaskSpec& x, const TaskSpec& y) { return x.name == y.name; });
    compare(now.base, saved.base, "", "teacher");
    if (same)
      for (std::size_t i = 0; i < tasks.size(); ++i) tasks_.emplace_back(tasks[i], before[i]);
    else
      changes_.refused.emplace_back("the list of tasks");
    for (const auto& [task, had] : tasks_)
      compare(in_task(now.base, task), in_task(saved.base, had), "task." + task.name + ".",
              "teacher");
    compare_all(now.arms, saved.arms, "arm");
    compare_all(now.models, saved.models, "model");
    return std::move(changes_);
  }

 private:
  // What an arm or model says of a task itself, now or before.
  static std::set<std::string> own_keys(const std::string& task, const std::vector<Assignment>& now,
                                        const std::vector<Assignment>& before) {
    std::set<std::string> keys;
    for (const std::vector<Assignment>* all : {&now, &before})
      for (const Assignment& own : *all)
        if (own.task == task) keys.insert(own.key);
    return keys;
  }

  // What everybody has in common is told once. who: the arm or model whose settings these are, or the
  // teacher. only: no other keys; null: all.
  void compare(const Settings& now, const Settings& saved, const std::string& where,
               const std::string& who, const std::set<std::string>* only = nullptr) {
    for (const KeySpec& spec : schema()) {
      if (only != nullptr && !only->contains(spec.key)) continue;
      const std::string has = to_toml(now.value(spec.key)), had = to_toml(saved.value(spec.key));
      if (has == had && rewritten(spec.key, now))
        changes_.refused.push_back(where + spec.key + " " + has + " has another content");
      if (has == had || spec.key == "name" || spec.key == "description") continue;
      const std::string change = spec.key + " was " + had + ", is " + has;
      if (begun_ && is_rate(spec.key)) {
        if (spec.key.starts_with("teacher.") == (who == "teacher"))
          compare_rate(where + change, who);
        continue;
      }
      if (where.empty())
        common_.insert(change);
      else if (common_.contains(change))
        continue;
      (may_differ(spec, now, saved) ? changes_.told : changes_.refused).push_back(where + change);
    }
  }

  // Each job has the rate of its own settings, so this is told of everybody whom it concerns.
  void compare_rate(const std::string& change, const std::string& who) {
    const BegunJobs begun = begun_(who);
    if (!begun.unfinished.empty())
      changes_.refused.push_back(change + ", and " + list_of(begun.unfinished) +
                                 " did not fail: it would go on with another");
    else if (begun.finished.empty())
      changes_.told.push_back(change);
    else if (begun.failed.empty())
      changes_.refused.push_back(change + ", and " + list_of(begun.finished) +
                                 " has not failed: give it to who has, arm.NAME.train.lr");
    else
      changes_.told.push_back(change + ": " + list_of(begun.failed) + " with it, " +
                              list_of(begun.finished) + " as before");
  }

  // The same name for other weights. Curricula are compared as they are read (write_once).
  bool rewritten(const std::string& key, const Settings& now) const {
    if (!is_file(key) || key == "curriculum.file") return false;
    const std::string before = known_hash_(now.text(key)), is = hash_of_file(now, key);
    return !before.empty() && !is.empty() && is != before;
  }

  bool may_differ(const KeySpec& spec, const Settings& now, const Settings& saved) const {
    const std::string& key = spec.key;
    // On CUDA a cache asks the teacher in passes of its own, and a library's product may have other
    // bits in another size of pass (Note [Passes that fill the cache]).
    if (key == "teacher.cache" && device_ == Device::kCuda &&
        (now.text(key) == "on") != (saved.text(key) == "on"))
      return false;
    if ((spec.effects & nn::kChangesResult) == 0 || is_hashed_by_jobs(key)) return true;
    if (key == "seeds") return has_all(now.integers(key), saved.integers(key));
    if (key == "teacher.seeds")  // with several, all runs are called otherwise
      return saved.integers(key).size() > 1 && has_all(now.integers(key), saved.integers(key));
    if (!is_file(key)) return false;
    const std::string before = known_hash_(saved.text(key));
    return !before.empty() && hash_of_file(now, key) == before;
  }

  // Arms and models: {name, settings, teachers}.
  template <class T>
  void compare_all(const std::vector<T>& now, const std::vector<T>& saved,
                   const std::string& kind) {
    const auto named = [](const std::vector<T>& all, const std::string& name) {
      return std::find_if(all.begin(), all.end(), [&](const T& one) { return one.name == name; });
    };
    for (const T& before : saved) {
      const auto at = named(now, before.name);
      const std::string where = kind + "." + before.name + ".";
      if (at == now.end()) {
        changes_.refused.push_back(kind + " '" + before.name + "' is not there");
        continue;
      }
      compare(at->settings, before.settings, where, before.name);
      for (const auto& [task, had] : tasks_)
        if (const std::set<std::string> own = own_keys(task.name, at->in_tasks, before.in_tasks);
            !own.empty())
          compare(in_task(at->settings, task, at->in_tasks),
                  in_task(before.settings, had, before.in_tasks), where + "task." + task.name + ".",
                  before.name, &own);
      if (at->teachers != before.teachers)
        changes_.refused.push_back(where + "teachers was " + to_toml(before.teachers) + ", is " +
                                   to_toml(at->teachers));
    }
    for (const T& one : now)
      if (named(saved, one.name) == saved.end())
        changes_.told.push_back(kind + " '" + one.name + "' is new");
  }

  const std::function<std::string(const std::string&)>& known_hash_;
  const Begun& begun_;
  const Device device_;
  std::vector<std::pair<const TaskSpec&, const TaskSpec&>> tasks_;  // now and before
  std::set<std::string> common_;
  RecipeChanges changes_;
};

}  // namespace

RecipeChanges changes_since(const Recipe& now, const std::string& saved_text,
                            const std::function<std::string(const std::string&)>& known_hash,
                            const std::function<BegunJobs(const std::string&)>& begun,
                            Device device) {
  const RecipeResult saved = parse_recipe("recipe.resolved.toml", saved_text, {});
  // Before anything else: without its libraries, a recipe's own keys are unknown.
  const std::string had = to_toml(saved.recipe.base.value("libraries")),
                    has = to_toml(now.base.value("libraries"));
  if (had != has) return {{"libraries was " + had + ", is " + has}, {}};
  if (!saved.problems.empty()) return {{"recipe.resolved.toml does not parse"}, {}};
  const RecipeResult current = parse_recipe("now", resolved_toml(now), {});
  return Comparison(known_hash, begun, device).of(current.recipe, saved.recipe);
}

std::map<std::string, std::string> hashes_of_files(const Recipe& recipe) {
  std::map<std::string, std::string> hashes;
  const auto add = [&](const Settings& settings, const char* key) {
    const std::string& name = settings.text(key);
    if (name.empty() || hashes.contains(name)) return;
    if (std::string hash = hash_of_file(settings, key); !hash.empty())
      hashes[name] = std::move(hash);
  };
  add(recipe.base, "teacher.weights");
  const auto add_all = [&](const Settings& settings) {
    for (const char* key : kFiles) {
      add(settings, key);
      for (const TaskSpec& task : recipe.tasks) add(in_task(settings, task), key);
    }
  };
  add_all(recipe.base);
  for (const Arm& arm : recipe.arms) add_all(arm.settings);
  for (const ModelSpec& model : recipe.models) add_all(model.settings);
  return hashes;
}

}  // namespace retort::tools
