// Whether models, data and keys fit each other, asked of the rows of the registries.
#include <algorithm>

#include "distill/terms/registry.h"
#include "nn/data/registry.h"
#include "nn/models/registry.h"
#include "tools/kdtrain/recipe_parts.h"
#include "tools/kdtrain/schema_parts.h"

namespace retort::tools {
namespace {

const nn::DataKind& data_of(const Use& use) {
  return nn::data_kinds().at(use.settings.text("data.format"));
}
const nn::ModelKind& model_of(const Use& use, const std::string& section) {
  return nn::model_kinds().at(use.settings.text(section + ".arch"));
}

bool has_key(const std::vector<KeySpec>& specs, const std::string& key) {
  return std::any_of(specs.begin(), specs.end(),
                     [&](const KeySpec& spec) { return spec.key == key; });
}

// The table accepts what any row accepts: here the one that reads the key has its say.
bool check_values(const Use& use, const std::string& section, const std::string& reader,
                  const std::vector<KeySpec>& specs, Mistakes* mistakes) {
  bool right = true;
  for (const KeySpec& spec : specs) {
    const std::string key = section + "." + spec.key;
    const Value& value = use.settings.value(key);
    if (nn::fitting(spec, value)) continue;
    mistakes->add(use, key,
                  "expected " + expectation(spec) + " for " + reader + ", found " + to_toml(value));
    right = false;
  }
  return right;
}

// And where every value fits, the row's own check.
template <class Kind>
void check_options(const Use& use, const std::string& section, const std::string& reader,
                   const Kind& kind, Mistakes* mistakes) {
  if (!check_values(use, section, reader, kind.options, mistakes) || !kind.check) return;
  if (const auto fault = kind.check(options_of(use.settings, section, kind.options)))
    mistakes->add(use, section + "." + fault->key, fault->message);
}

void check_model(const Use& use, const std::string& section, Mistakes* mistakes) {
  const std::string& arch = use.settings.text(section + ".arch");
  const std::string& format = use.settings.text("data.format");
  const nn::ModelKind& kind = model_of(use, section);
  const nn::DataKind& data = data_of(use);
  if (kind.reads != data.gives) {
    nn::Strings readers;
    for (const auto& other : nn::model_kinds().rows())
      if (other->reads == data.gives) readers.push_back(other->names.front());
    mistakes->add(use, section + ".arch",
                  "arch " + arch + " reads " + name_of(kind.reads) + ", data " + format +
                      " gives " + name_of(data.gives),
                  std::string(name_of(data.gives)) + " are read by " + list_of(readers));
  }
  check_options(use, section, arch, kind, mistakes);
  check_values(use, section, format, data.reading, mistakes);
}

void check_data(const Use& use, Mistakes* mistakes) {
  const Settings& s = use.settings;
  const std::string& format = s.text("data.format");
  const nn::DataKind& data = data_of(use);
  check_options(use, "data", format, data, mistakes);
  check_values(use, "data", format, data.treatment, mistakes);
  if (!data.endless) return;
  if (s.text("train.order") == "curriculum")
    mistakes->add(use, "train.order",
                  "data " + format + " draws fresh samples without end: there is nothing to order");
  else if (s.text("distill.reliance.mode") != "off")
    mistakes->add(use, "distill.reliance.mode",
                  "data " + format + " draws fresh samples without end: there is nothing to score");
  if (s.integer("data.train_sample") > 0)
    mistakes->add(use, "data.train_sample",
                  "data " + format + " is without end: there is no part of it to draw");
}

// Layers that extraction can be about; nothing where the row does not say, or options are wrong.
std::optional<std::int64_t> hidden_layers(const Use& use, const std::string& section) {
  const nn::ModelKind& kind = model_of(use, section);
  nn::ModelConfig config;
  config.arch = use.settings.text(section + ".arch");
  config.options = options_of(use.settings, section, kind.options);
  for (const auto& [key, value] : config.options)
    for (const KeySpec& spec : kind.options)
      if (spec.key == key && !nn::fitting(spec, value)) return std::nullopt;
  if (!kind.hidden_layers) return std::nullopt;
  return kind.hidden_layers(config);
}

void check_extraction(const Use& use, const std::string& section, Mistakes* mistakes) {
  if (use.settings.text("distill.method") != "extraction") return;
  const auto layers = hidden_layers(use, section);
  if (layers && *layers < 1)
    mistakes->add(use, "distill.method",
                  "extraction is about hidden layers, and " + section +
                      ".arch = " + use.settings.text(section + ".arch") + " has none");
}

// Terms beside the soft targets, against the student that they are about.
void check_terms(const Use& use, Mistakes* mistakes) {
  for (const auto& kind : distill::term_kinds().rows()) {
    const std::string section = "distill." + kind->names.front();
    if (!kind->check || use.settings.number(section + ".weight") <= 0) continue;
    if (const auto fault = kind->check(options_of(use.settings, section, kind->options),
                                       hidden_layers(use, "student").value_or(-1)))
      mistakes->add(use, section + "." + fault->key, fault->message);
  }
}

// Keys of models and of data where the model or the data at hand has no such key.
void check_keys(const std::vector<Use>& uses, const std::string& section,
                const std::vector<KeySpec>& specs,
                const std::function<const std::vector<KeySpec>&(const Use&)>& read_by,
                const std::string& kind, const std::string& kind_key, Mistakes* mistakes) {
  for (const KeySpec& spec : specs)
    check_unread(
        uses, section + "." + spec.key,
        [&](const Use& use) {
          return has_key(read_by(use), spec.key)
                     ? std::string()
                     : kind + " " + use.settings.text(kind_key) + " does not read it";
        },
        mistakes);
}

void check_model_keys(const std::vector<Use>& uses, const std::string& section,
                      Mistakes* mistakes) {
  check_keys(
      uses, section, model_options(),
      [&](const Use& use) -> const auto& { return model_of(use, section).options; }, "arch",
      section + ".arch", mistakes);
  check_keys(
      uses, section, reading_options(),
      [](const Use& use) -> const auto& { return data_of(use).reading; }, "data", "data.format",
      mistakes);
}

void check_data_keys(const std::vector<Use>& uses, Mistakes* mistakes) {
  check_keys(
      uses, "data", data_options(),
      [](const Use& use) -> const auto& { return data_of(use).options; }, "data", "data.format",
      mistakes);
  check_keys(
      uses, "data", reading_options(),
      [](const Use& use) -> const auto& { return data_of(use).reading; }, "data", "data.format",
      mistakes);
  for (const char* section : {"data", "teacher.train"})
    check_keys(
        uses, section, treatment_options(),
        [](const Use& use) -> const auto& { return data_of(use).treatment; }, "data", "data.format",
        mistakes);
}

// [teacher] as a use of its own, for each use that learns from it: its mistakes name nobody else.
std::vector<Use> uses_of_teacher(const std::vector<Use>& uses) {
  std::vector<Use> all;
  for (const Use& use : uses)
    unless_refused([&] {
      if (learns_from_teacher(use)) all.push_back({"", use.settings, {}, use.teachers});
    });
  return all;
}

}  // namespace

bool is_read_by_data(const Recipe& recipe, const KeySpec& spec) {
  const auto has = [&](const std::string& section, const std::vector<KeySpec>& rows) {
    return std::any_of(rows.begin(), rows.end(),
                       [&](const KeySpec& row) { return spec.key == section + "." + row.key; });
  };
  const auto of = [&](const auto& options, const auto& reading, const auto& treatment) {
    return has("data", options) || has("data", reading) || has("student", reading) ||
           has("teacher", reading) || has("data", treatment) || has("teacher.train", treatment);
  };
  if (!of(data_options(), reading_options(), treatment_options())) return true;
  const std::vector<Use> uses = uses_of(recipe);
  return std::any_of(uses.begin(), uses.end(), [&](const Use& use) {
    const nn::DataKind& data = data_of(use);
    return of(data.options, data.reading, data.treatment);
  });
}

void check_fit(const std::vector<Use>& uses, Mistakes* mistakes) {
  for (const Use& use : uses) {
    unless_refused([&] { check_data(use, mistakes); });
    unless_refused([&] { check_model(use, "student", mistakes); });
    unless_refused([&] { check_extraction(use, "student", mistakes); });
    unless_refused([&] { check_terms(use, mistakes); });
  }
  check_data_keys(uses, mistakes);
  check_model_keys(uses, "student", mistakes);
  const std::vector<Use> of_teacher = uses_of_teacher(uses);
  for (const Use& use : of_teacher) {
    unless_refused([&] { check_model(use, "teacher", mistakes); });
    unless_refused([&] {
      check_values(use, "teacher.train", use.settings.text("data.format"), data_of(use).treatment,
                   mistakes);
    });
    unless_refused([&] { check_extraction(use, "teacher", mistakes); });
  }
  check_model_keys(of_teacher, "teacher", mistakes);
}

}  // namespace retort::tools
