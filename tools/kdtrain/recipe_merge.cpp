// From keys to settings: who overrides whom, and the names that arms, models and tasks have.
#include <algorithm>

#include "tools/kdtrain/recipe_parts.h"

namespace retort::tools {
namespace {

// What the recipe itself is put together by: where the value is a mistake, it goes on as without.
constexpr const char* kOfTheRecipe[] = {"name", "size", "arms", "report.baseline"};

void set_all(Settings* settings, const std::vector<Assignment>& list) {
  for (const Assignment& own : list) {
    if (!own.task.empty()) continue;  // in_task()
    if (own.refused && std::find(std::begin(kOfTheRecipe), std::end(kOfTheRecipe), own.key) !=
                           std::end(kOfTheRecipe))
      continue;
    settings->set(own.key, own.value, own.origin);
    if (own.refused) settings->refuse(own.key);
  }
}

class Merger {
 public:
  Merger(RawRecipe raw, RecipeResult* result)
      : raw_(std::move(raw)), result_(result), recipe_(result->recipe) {}

  void run() {
    merge_base();
    for (const char* kind : kBlocks) check_names(kind);
    check_jobs();
    for (const Block& block : raw_.blocks["model"]) add_model(block);
    for (const Block& block : raw_.blocks["task"]) add_task(block);
    add_arms();
    for (const Block& block : raw_.blocks["model"]) check_teachers(block);
    for (const Block& block : raw_.blocks["arm"]) check_teachers(block);
    sort_models();
    name_recipe();
  }

 private:
  void problem(Place place, std::string message, std::string hint = "") {
    result_->problems.push_back({recipe_.source, place, std::move(message), std::move(hint)});
  }
  std::string place_of(const Block& block) const {
    return recipe_.source + ":" + std::to_string(block.place.line) + ":" +
           std::to_string(block.place.column);
  }
  std::vector<std::string> names_of(const char* kind) const {
    std::vector<std::string> names;
    if (const auto at = raw_.blocks.find(kind); at != raw_.blocks.end())
      for (const Block& block : at->second) names.push_back(block.name);
    return names;
  }

  void merge_base() {
    set_all(&recipe_.base, raw_.base);
    for (const Assignment& own : raw_.command_line)
      if (own.key == "size") set_all(&recipe_.base, {own});
    const std::string size = recipe_.base.text("size");
    if (const auto at = raw_.sizes.find(size); at != raw_.sizes.end()) {
      set_all(&recipe_.base, at->second.base);
    } else if (size != "default") {
      std::vector<std::string> sizes{"default"};
      for (const auto& [name, unused] : raw_.sizes) sizes.push_back(name);
      problem({}, "there is no table [size." + shown(size) + "]", "sizes: " + list_of(sizes));
    }
    set_all(&recipe_.base, raw_.command_line);
    for (const auto& [name, table] : raw_.sizes)
      for (const RawRecipe::Size::OfBlock& entry : table.of_blocks)
        apply_to_block(entry, name == size);
  }

  // A size's settings of single blocks: stronger than what the block says, weaker than the command
  // line.
  void apply_to_block(const RawRecipe::Size::OfBlock& entry, bool chosen) {
    std::vector<Block>& blocks = raw_.blocks[entry.kind];
    const auto block = std::find_if(blocks.begin(), blocks.end(),
                                    [&](const Block& b) { return b.name == entry.name; });
    if (block == blocks.end())
      return problem(entry.place, "there is no " + entry.kind + " '" + shown(entry.name) + "'");
    if (!chosen) return;
    const auto typed =
        std::find_if(block->own.begin(), block->own.end(),
                     [](const Assignment& own) { return own.origin == "command line"; });
    block->own.insert(typed, entry.own);
  }

  void check_names(const std::string& kind) {
    std::set<std::string> names;
    const std::vector<Block>& blocks = raw_.blocks[kind];
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const Block& block = blocks[i];
      if (!block.name.empty() && !names.insert(block.name).second)
        problem(block.place, kind + " '" + block.name + "' is there twice");
      if (block.name.empty() && !block.name_given)  // else a mistake of its own
        problem(block.place, "[[" + kind + "]] number " + std::to_string(i + 1) + " needs a name",
                "name = \"...\"");
    }
  }

  // Arms and models share a folder of jobs with the teacher.
  void check_jobs() {
    const std::vector<std::string> models = names_of("model");
    for (const std::string kind : {"arm", "model"})
      for (const Block& block : raw_.blocks[kind]) {
        if (block.name == "teacher")
          problem(block.place, "no " + kind + " may be named 'teacher': [teacher] describes it");
        if (kind == "arm" && !block.name.empty() &&
            std::find(models.begin(), models.end(), block.name) != models.end())
          problem(block.place, "a model is named '" + block.name + "' too");
      }
  }

  // The keys a block sets itself, each once; tells what the command line did not reach.
  std::vector<std::string> owned_by(const std::string& kind, const Block& block) {
    std::vector<std::string> owned;
    for (const Assignment& own : block.own) {
      if (!own.task.empty()) continue;
      if (std::find(owned.begin(), owned.end(), own.key) == owned.end()) owned.push_back(own.key);
      for (const Assignment& line : raw_.command_line)
        if (line.key == own.key && own.origin != "command line")
          result_->warnings.push_back(kind + " '" + block.name + "' sets " + own.key +
                                      " itself; to change it there use " + kind + "." + block.name +
                                      "." + own.key + "=...");
    }
    return owned;
  }

  // And those for single tasks; of two the last one counts.
  std::vector<Assignment> owned_in_tasks(const Block& block) {
    std::vector<Assignment> all;
    const std::vector<std::string> tasks = names_of("task");
    for (const Assignment& own : block.own) {
      if (own.task.empty()) continue;
      if (std::find(tasks.begin(), tasks.end(), own.task) == tasks.end()) {
        problem(block.place, block.name + ": there is no task '" + shown(own.task) + "'",
                "tasks: " + list_of(tasks));
        continue;
      }
      std::erase_if(all, [&](const Assignment& before) {
        return before.key == own.key && before.task == own.task;
      });
      all.push_back(own);
    }
    return all;
  }

  void add_model(const Block& block) {
    ModelSpec model{block.name,  recipe_.base,   owned_by("model", block), owned_in_tasks(block),
                    {"teacher"}, place_of(block)};
    if (block.teachers) model.teachers = *block.teachers;
    set_all(&model.settings, block.own);
    recipe_.models.push_back(std::move(model));
  }

  void add_task(const Block& block) {
    TaskSpec task{block.name, {}, place_of(block)};
    for (const std::string& key : owned_by("task", block))
      for (auto own = block.own.rbegin(); own != block.own.rend(); ++own)  // the last one counts
        if (own->key == key) {
          task.own.push_back(*own);
          break;
        }
    recipe_.tasks.push_back(std::move(task));
  }

  void add_arms() {
    std::vector<Block>& arms = raw_.blocks["arm"];
    if (arms.empty()) arms.emplace_back().name = "student";
    const std::vector<std::string> all = names_of("arm");
    const auto is_arm = [&](const std::string& name) {
      return std::find(all.begin(), all.end(), name) != all.end();
    };
    const auto& selected = recipe_.base.texts("arms");
    for (const std::string& name : selected)
      if (!is_arm(name))
        problem({}, "arms: there is no arm '" + shown(name) + "'", "arms: " + list_of(all));
    if (const std::string& name = recipe_.base.text("report.baseline");
        !name.empty() && !is_arm(name))
      problem({}, "report.baseline: there is no arm '" + shown(name) + "'",
              "arms: " + list_of(all));
    for (const Block& block : arms) {
      if (!selected.empty() &&
          std::find(selected.begin(), selected.end(), block.name) == selected.end())
        continue;
      Arm arm{block.name,
              block.label.empty() ? block.name : block.label,
              recipe_.base,
              owned_by("arm", block),
              owned_in_tasks(block),
              {"teacher"}};
      if (block.teachers) arm.teachers = *block.teachers;
      set_all(&arm.settings, block.own);
      recipe_.arms.push_back(std::move(arm));
    }
  }

  void check_teachers(const Block& block) {
    if (!block.teachers) return;
    const std::vector<std::string> models = names_of("model");
    std::set<std::string> seen;
    for (const std::string& name : *block.teachers) {
      if (!seen.insert(name).second)
        problem(block.teachers_place, "teachers: '" + shown(name) + "' is there twice");
      else if (name != "teacher" && std::find(models.begin(), models.end(), name) == models.end())
        problem(block.teachers_place, "there is no model '" + shown(name) + "' to learn from",
                "models: " + list_of(models) + ", and teacher");
    }
  }

  // Puts every model behind those it learns from. What stays is in a circle, or learns from one.
  void sort_models() {
    std::vector<ModelSpec> waiting = std::move(recipe_.models), sorted;
    const auto waits_for = [&](const std::string& name) {
      return std::any_of(waiting.begin(), waiting.end(),
                         [&](const ModelSpec& model) { return model.name == name; });
    };
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t i = 0; i < waiting.size() && !moved; ++i) {
        const Teachers& teachers = waiting[i].teachers;
        if (std::any_of(teachers.begin(), teachers.end(), waits_for)) continue;
        sorted.push_back(std::move(waiting[i]));
        waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
        moved = true;
      }
    }
    if (!waiting.empty()) tell_circle(waiting);
    recipe_.models = std::move(sorted);
  }

  // Following one teacher that waits from each model ends in the circle.
  void tell_circle(const std::vector<ModelSpec>& waiting) {
    std::vector<std::string> path{waiting.front().name};
    for (;;) {
      const auto model = std::find_if(waiting.begin(), waiting.end(),
                                      [&](const ModelSpec& m) { return m.name == path.back(); });
      const auto next = std::find_if(
          model->teachers.begin(), model->teachers.end(), [&](const std::string& name) {
            return std::any_of(waiting.begin(), waiting.end(),
                               [&](const ModelSpec& m) { return m.name == name; });
          });
      path.push_back(*next);
      const auto begin = std::find(path.begin(), path.end(), *next);
      if (begin == path.end() - 1) continue;  // not been there yet
      std::string circle;
      for (auto name = begin; name != path.end(); ++name)
        circle += (circle.empty() ? "" : " <- ") + *name;
      for (const Block& block : raw_.blocks["model"])
        if (block.name == *next)
          return problem(block.teachers ? block.teachers_place : block.place,
                         "model '" + *next + "' learns from itself", circle);
    }
  }

  void name_recipe() {
    recipe_.name = recipe_.base.text("name");
    if (recipe_.name.empty()) {
      std::string stem = recipe_.source.substr(recipe_.source.find_last_of("/:") + 1);
      if (stem.ends_with(".toml")) stem.resize(stem.size() - 5);
      recipe_.name = valid_name(stem) ? stem : "run";
    }
    if (!valid_name(recipe_.name))
      problem({},
              "name: expected letters, digits, '_', '-', '.', found '" + shown(recipe_.name) + "'");
  }

  RawRecipe raw_;
  RecipeResult* result_;
  Recipe& recipe_;
};

}  // namespace

void merge_recipe(RawRecipe raw, RecipeResult* result) { Merger(std::move(raw), result).run(); }

}  // namespace retort::tools
