// What the keys' effects say of settings: same work, same order, and the name of a curriculum.
#include <algorithm>
#include <cctype>

#include "curriculum/scoring/score.h"
#include "tools/kdtrain/recipe.h"

namespace retort::tools {
namespace {

bool is_neutral(const KeySpec& spec, const Value& value) {
  return value == (spec.neutral ? *spec.neutral : spec.fallback);
}

bool is_ordered_by_teacher(const Settings& s) {
  const std::string& scorer = s.text("curriculum.scorer");
  // A random order has the teacher's scores all the same: lambda may follow them.
  const bool of_data = curriculum::score_kinds().at(s.text("curriculum.score")).of_data;
  const bool scored =
      s.text("train.order") == "curriculum" || s.text("distill.reliance.mode") != "off";
  return scored && !of_data && (scorer == "teacher" || scorer == "random");
}

// A term of the loss beside the divergence.
bool has_term(const Settings& s) {
  return std::any_of(schema().begin(), schema().end(), [&](const KeySpec& spec) {
    return spec.key.starts_with("distill.") && (spec.effects & nn::kCostsOnceOn) != 0 &&
           !is_neutral(spec, s.value(spec.key));
  });
}

// The keys whose values curriculum_name spells in words of its own.
constexpr const char* kSpelled[] = {"curriculum.scorer", "curriculum.models", "curriculum.score",
                                    "curriculum.inverse", "curriculum.stratify"};

// A value as part of a file's name: of a path its stem, of a list its values.
std::string as_word(const Value& value) {
  std::string text = to_toml(value);
  if (const auto* string = std::get_if<std::string>(&value)) {
    text = string->substr(string->find_last_of('/') + 1);
    text = text.substr(0, text.find_last_of('.'));
  }
  std::string word;
  for (const char c : text)
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-')
      word += c;
    else if (!word.empty() && word.back() != '_')
      word += '_';
  return word;
}

}  // namespace

bool uses_teacher(const Settings& s) {
  return s.number("distill.lambda") != 0 || s.text("distill.reliance.mode") != "off" ||
         s.text("distill.loss") != "seed_lambda" || s.text("distill.method") != "one_shot" ||
         !s.text("student.init").empty() || is_ordered_by_teacher(s) || has_term(s);
}

std::string cost_signature(const Settings& s) {
  std::string text = uses_teacher(s) ? "teacher" : "alone";
  for (const KeySpec& spec : schema()) {
    const Value& value = s.value(spec.key);
    if ((spec.effects & nn::kChangesCost) != 0)
      text += "|" + to_toml(value);
    else if ((spec.effects & nn::kCostsOnceOn) != 0)
      text += is_neutral(spec, value) ? "|0" : "|1";
  }
  return text;
}

std::string order_signature(const Settings& s) {
  const std::string& scorer = s.text("curriculum.scorer");
  std::string text;
  for (const KeySpec& spec : schema()) {
    const bool orders = (spec.effects & nn::kChangesOrder) != 0;
    // The samples themselves (of another task), and a student that gives the scores.
    const bool samples = spec.key.starts_with("data.") && !spec.in_arm;
    const bool scores = scorer == "student" && spec.key.starts_with("student.");
    if (!orders && ((spec.effects & nn::kChangesResult) == 0 || !(samples || scores))) continue;
    if (scorer == "random" && spec.key == "curriculum.inverse") continue;  // of a random order
    text += (text.empty() ? "" : "|") + to_toml(s.value(spec.key));
  }
  return text;
}

std::string curriculum_name(const Settings& s) {
  if (const std::string& given = s.text("curriculum.name"); !given.empty()) return given;
  const std::string& scorer = s.text("curriculum.scorer");
  const bool random = scorer == "random";
  std::string name = s.text("curriculum.score");
  if (random) name = name == "logit" ? "random" : "random_" + name;  // the scores still differ
  if (scorer == "student") name += "_of_student_" + s.text("student.arch");
  if (scorer == "models") {
    name += "_of";
    for (const std::string& model : s.texts("curriculum.models")) name += "_" + model;
  }
  if (scorer == "file") name += "_of_file";  // "data" goes without saying: its scores need it
  if (s.text("curriculum.inverse") != "off" && !random) name += "_" + s.text("curriculum.inverse");
  if (!s.flag("curriculum.stratify")) name += "_unstratified";
  for (const KeySpec& spec : schema()) {
    const bool spelled =
        std::find(std::begin(kSpelled), std::end(kSpelled), spec.key) != std::end(kSpelled);
    if ((spec.effects & nn::kChangesOrder) == 0 || spelled) continue;
    if (const Value& value = s.value(spec.key); value != spec.fallback)
      name += "_" + spec.key.substr(spec.key.rfind('.') + 1) + "_" + as_word(value);
  }
  return name;
}

}  // namespace retort::tools
