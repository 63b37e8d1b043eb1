#include "tools/kdtrain/schema.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>

#include "kernels/common/check.h"

namespace retort::tools {
namespace {

class Table {
 public:
  std::vector<KeySpec> rows;

  void flag(std::string key, const char* fallback, const char* doc, bool arm = true) {
    rows.push_back({std::move(key), Type::kBool, fallback, "", 0, 0, "", doc, arm});
  }
  void count(std::string key, const char* fallback, double least, double most, const char* unit,
             const char* doc, bool arm = true) {
    rows.push_back({std::move(key), Type::kInt, fallback, "", least, most, unit, doc, arm});
  }
  void number(std::string key, const char* fallback, double least, double most, const char* unit,
              const char* doc, bool arm = true) {
    rows.push_back({std::move(key), Type::kFloat, fallback, "", least, most, unit, doc, arm});
  }
  void text(std::string key, const char* fallback, const char* doc, bool arm = true) {
    rows.push_back({std::move(key), Type::kString, fallback, "", 0, 0, "", doc, arm});
  }
  void choice(std::string key, const char* fallback, const char* choices, const char* doc,
              bool arm = true) {
    rows.push_back({std::move(key), Type::kChoice, fallback, choices, 0, 0, "", doc, arm});
  }
  void list(std::string key, Type type, const char* fallback, double least, double most,
            const char* unit, const char* doc, bool arm = true) {
    rows.push_back({std::move(key), type, fallback, "", least, most, unit, doc, arm});
  }
  void normalize(std::string key, const char* fallback, const char* doc, bool arm) {
    rows.push_back({std::move(key), Type::kNormalize, fallback, "cifar|imagenet|none", -1e6, 1e6,
                    "", doc, arm});
  }
};

constexpr const char* kArchitectures =
    "resnet8|resnet14|resnet20|resnet32|resnet44|resnet56|resnet110|resnet8x4|resnet32x4|"
    "resnet18|resnet34|resnet50|resnet101|resnet152|resnet18_cifar|resnet34_cifar|resnet50_cifar|"
    "resnet101_cifar|resnet152_cifar|mlp";

// How a network is trained: the same keys for the student and for a teacher trained by the recipe.
void training_keys(Table& t, const std::string& section, bool arm) {
  const auto key = [&](const char* name) { return section + "." + name; };
  t.count(key("epochs"), "0", 0, 100000, "epochs",
          "Passes over the training data; 0: train by steps.", arm);
  t.count(key("steps"), "0", 0, 1e9, "steps", "Optimizer updates; 0: train by epochs.", arm);
  t.count(key("batch"), "128", 1, 65536, "samples", "Samples in a step.", arm);
  t.choice(key("optimizer"), "\"sgd\"", "sgd|adamw", "Update rule.", arm);
  t.number(key("lr"), "0.1", 0, 1000, "", "Learning rate at the start (after warm-up).", arm);
  t.number(key("momentum"), "0.9", 0, 0.99999, "", "Momentum of SGD.", arm);
  t.flag(key("nesterov"), "false", "Nesterov momentum for SGD.", arm);
  t.number(key("beta1"), "0.9", 0, 0.99999, "", "First-moment decay of AdamW.", arm);
  t.number(key("beta2"), "0.999", 0, 0.9999999, "", "Second-moment decay of AdamW.", arm);
  t.number(key("epsilon"), "1e-8", 1e-20, 1, "", "Added to the denominator of AdamW.", arm);
  t.number(key("weight_decay"), "0.0", 0, 100, "", "L2 (SGD) or decoupled (AdamW) weight decay.",
           arm);
  t.flag(key("decay_norm_and_bias"), "true",
         "Weight decay also on biases and batch-norm parameters.", arm);
  t.choice(key("schedule"), "\"constant\"", "constant|step|cosine|linear",
           "Learning rate over the run.", arm);
  t.list(key("milestones"), Type::kFloats, "[0.5, 0.75]", 0, 1, "fraction of the run",
         "Where schedule = \"step\" multiplies the rate by gamma.", arm);
  t.number(key("gamma"), "0.1", 0, 1, "", "Factor at each milestone.", arm);
  t.number(key("lr_final"), "0.0", 0, 1000, "", "Rate at the end of cosine and linear schedules.",
           arm);
  t.number(key("warmup"), "0.0", 0, 1, "fraction of the run", "Linear warm-up from 0.", arm);
  t.number(key("clip_norm"), "0.0", 0, 1e9, "", "Clip the global gradient norm to this; 0: off.",
           arm);
  t.choice(key("order"), "\"shuffle\"", "shuffle|sequential|curriculum",
           "Order of samples in an epoch.", arm);
}

std::vector<KeySpec> make_table() {
  Table t;
  // clang-format off
  t.text("name", "\"\"", "Name of the experiment; empty: the recipe's file name.", false);
  t.text("description", "\"\"", "One sentence for the report.", false);
  t.text("size", "\"default\"", "Which [size.NAME] table of overrides applies.", false);
  t.list("seeds", Type::kInts, "[1]", 0, 1e9, "", "Every arm is repeated for each of these.", false);
  t.list("arms", Type::kStrings, "[]", 0, 0, "", "Names of the arms to run; empty: all.", false);

  t.choice("data.format", "\"cifar10\"", "cifar10|cifar100|parity", "What the data is.", false);
  t.text("data.root", "\"\"", "Folder of the data files; empty: the environment variable RETORT_DATA.", false);
  t.list("data.train_files", Type::kStrings, "[]", 0, 0, "", "Training files in data.root (X may be X.xz); empty: the format's standard names.", false);
  t.list("data.validation_files", Type::kStrings, "[]", 0, 0, "", "Held-out files, reported as split 'validation'.", false);
  t.list("data.test_files", Type::kStrings, "[]", 0, 0, "", "Test files, reported as split 'test'; empty: the format's standard name.", false);
  t.count("data.train_per_file", "0", 0, 1e9, "samples", "Use the first n samples of every training file; 0: all.", false);
  t.count("data.train_limit", "0", 0, 1e9, "samples", "Use the first n training samples; 0: all.", false);
  t.count("data.validation_limit", "0", 0, 1e9, "samples", "Use the first n validation samples; 0: all.", false);
  t.count("data.test_limit", "0", 0, 1e9, "samples", "Use the first n test samples; 0: all.", false);
  t.choice("data.augment", "\"crop_flip\"", "none|crop_flip", "Random crop with 4 pixels of padding and horizontal flip, keyed by (seed, epoch, sample).");
  t.normalize("data.normalize", "\"cifar\"", "Normalisation for `kdtrain eval` when the weights file names none.", false);
  t.count("data.bits", "40", 1, 4096, "bits", "Parity: length n of an input.", false);
  t.count("data.support", "5", 1, 4096, "bits", "Parity: size k of the secret subset.", false);
  t.count("data.support_seed", "0", 0, 1e9, "", "Parity: draws the secret subset; 0: bits 0 .. k-1.", false);
  t.count("data.epoch_size", "3200", 1, 1e9, "samples", "Parity: fresh samples that count as one epoch.", false);
  t.count("data.test_size", "2048", 1, 1e7, "samples", "Parity: size of the fixed test set.", false);

  t.choice("teacher.arch", "\"resnet20\"", kArchitectures, "The teacher's architecture.", false);
  t.text("teacher.weights", "\"\"", "Weights (.safetensors), looked for as given, in data.root and in RETORT_DATA; empty: train it by [teacher.train].", false);
  t.normalize("teacher.normalize", "\"cifar\"", "Normalisation of the teacher's inputs; unless it is set, the weights file's own.", false);
  t.choice("teacher.shortcut", "\"auto\"", "auto|A|B", "Residual shortcut of CIFAR ResNets: A pads, B projects.", false);
  t.list("teacher.hidden", Type::kInts, "[1024]", 1, 65536, "units", "Hidden widths of an mlp.", false);
  t.list("teacher.seeds", Type::kInts, "[1]", 0, 99, "", "Seeds of teachers trained by the recipe; with several, every arm and seed runs with each.", false);
  t.flag("teacher.allow_untrained", "false", "Accept a teacher at chance level (controls); the report shows it.");
  t.choice("teacher.precision", "\"f32\"", "f32|bf16", "Arithmetic of the teacher's forward pass.", false);
  t.choice("teacher.cache", "\"auto\"", "auto|off|on", "Keep the teacher's logits per (sample, augmentation).", false);
  t.number("teacher.cache_mib", "512", 1, 1048576, "MiB", "Largest memory of that cache.", false);
  training_keys(t, "teacher.train", false);
  t.list("teacher.train.files", Type::kStrings, "[]", 0, 0, "", "Files the teacher trains on; empty: data.train_files.", false);
  t.number("teacher.train.split", "0.0", 0, 0.99, "fraction", "Train the teacher on this part of the training data and everything else on the rest (0.6: the 3:2 split), also when teacher.weights names a teacher trained so; 0: no split.", false);
  t.choice("teacher.train.augment", "\"crop_flip\"", "none|crop_flip", "Augmentation while the teacher trains.", false);
  t.count("teacher.train.checkpoint_steps", "0", 0, 1e9, "steps", "Evaluate the teacher every n steps; distill.progressive.accuracies are looked for at these moments; 0: every epoch.", false);

  t.choice("student.arch", "\"resnet8\"", kArchitectures, "The student's architecture.");
  t.text("student.weights", "\"\"", "Initial weights (.safetensors); empty: drawn from the seed. A normalisation that the file names holds unless student.normalize is set.");
  t.normalize("student.normalize", "\"cifar\"", "Normalisation of the student's inputs.", true);
  t.choice("student.shortcut", "\"auto\"", "auto|A|B", "Residual shortcut of CIFAR ResNets.");
  t.list("student.hidden", Type::kInts, "[32]", 1, 65536, "units", "Hidden widths of an mlp.");

  t.choice("distill.method", "\"one_shot\"", "one_shot|progressive|extraction", "one_shot: the final teacher throughout; progressive: teacher checkpoints, then the final one; extraction: random projections of the teacher's hidden layers, then the final output.");
  t.number("distill.lambda", "0.5", -10, 10, "", "Weight of the distillation term; 1 - lambda weighs the cross-entropy. 0: no teacher.");
  t.number("distill.temperature", "4.0", 1e-3, 1e4, "", "Softmax temperature of the distillation term (tau^2 is inside the loss).");
  t.choice("distill.divergence", "\"forward_kl\"", "forward_kl|reverse_kl|jensen_shannon|total_variation|skew_kl|skew_reverse_kl", "Divergence between teacher and student.");
  t.choice("distill.reliance.mode", "\"off\"", "off|minmax|rank|literal", "Selective reliance: lambda of a batch from the teacher's scores; off: distill.lambda.");
  t.choice("distill.reliance.s", "\"global_easiest\"", "first_batch|global_easiest", "literal: batch whose lambda is 0.");
  t.flag("distill.reliance.clamp", "true", "Clamp lambda to [0, 1].");
  t.choice("distill.reliance.per", "\"batch\"", "batch|sample", "One lambda for a batch, or one for each sample.");
  t.list("distill.progressive.accuracies", Type::kFloats, "[0.7]", 0, 1, "accuracy", "Teacher checkpoints before the final teacher: for each of these the first whose accuracy exceeds it.");
  t.count("distill.progressive.steps", "1000", 1, 1e9, "steps", "Length of the stage with each teacher checkpoint.");
  t.flag("distill.progressive.fresh_optimizer", "false", "New optimizer state for every teacher.");
  t.choice("distill.extraction.variant", "\"post\"", "post|pre|head", "Student side: activations, pre-activations, or a trainable linear head on the activations.");
  t.count("distill.extraction.width", "16", 1, 65536, "", "Projection width p of variant = \"head\" (others: the student's width).");
  t.count("distill.extraction.steps", "1000", 1, 1e9, "steps", "Length of each stage, or with a window its greatest length.");
  t.count("distill.extraction.window", "0", 0, 1e9, "steps", "End a stage earlier, when the mean loss of so many steps is not min_improvement below that of as many before; 0: off.");
  t.number("distill.extraction.min_improvement", "0.01", 0, 1, "fraction", "What a window must gain on the one before.");
  t.flag("distill.extraction.centre", "true", "Targets less their mean over the calibration samples.");
  t.flag("distill.extraction.scale", "true", "Targets divided by their deviation over the calibration samples.");
  t.count("distill.extraction.seed", "0", 0, 1e9, "", "Draws the projections; 0: from the arm's seed.");
  t.choice("distill.extraction.teacher", "\"final\"", "final|untrained", "Whose hidden layers are projected (untrained: the control).");
  t.count("distill.extraction.calibration", "2048", 2, 1e7, "samples", "Samples that fix the mean and deviation of the targets.");

  t.text("curriculum.name", "\"\"", "Name of curriculum/<name>.csv; empty: made from the settings.");
  t.choice("curriculum.scorer", "\"teacher\"", "teacher|random", "Who scores the samples.");
  t.choice("curriculum.score", "\"logit\"", "logit|prob|logprob|p_true|margin|entropy|loss", "The teacher's score of a sample.");
  t.choice("curriculum.inverse", "\"off\"", "off|reverse_exact|reverse_correct_only", "Hard samples first: the exact reverse, or the correct ones reversed and the wrong ones still last.");
  t.flag("curriculum.stratify", "true", "Round-robin over classes.");
  t.choice("curriculum.pacing", "\"none\"", "none|fixed_exponential|varied_exponential|single_step|linear|quadratic|root|exp|log|step", "How the share of data in use grows.");
  t.number("curriculum.start", "0.2", 1e-6, 1, "fraction", "Share of the data at the start of pacing.");
  t.number("curriculum.increase", "1.9", 1, 1e6, "factor", "Growth at each step of exponential pacing.");
  t.list("curriculum.pacing_steps", Type::kInts, "[100]", 1, 1e9, "steps", "Steps between increases (varied_exponential: a list).");
  t.number("curriculum.full_at", "0.5", 1e-6, 1, "fraction of the run", "When the other pacing functions reach all data.");

  training_keys(t, "train", true);
  t.count("train.window_shuffle", "0", 0, 1e9, "batches", "Shuffle inside windows of this many batches when order is sequential or curriculum; 0: off.");
  t.choice("train.precision", "\"f32\"", "f32|bf16", "Arithmetic of the student (bf16 keeps f32 master weights).");
  t.flag("train.tf32", "false", "CUDA: products of f32 may round their factors to TF32 (11 bits), teacher's and student's; off: true f32.", false);
  t.flag("train.graph", "true", "CUDA: replay each training step as one captured graph; changes no byte.", false);
  t.flag("train.graph_overlap", "false", "CUDA, with train.graph: the next batch's teacher runs beside the student's step.", false);
  t.count("train.evaluate_steps", "0", 0, 1e9, "steps", "Evaluate every n steps; 0: every epoch.");
  t.count("train.evaluate_batch", "500", 1, 65536, "samples", "Samples in an evaluation step.", false);
  t.count("train.log_steps", "50", 1, 1e9, "steps", "Write a line of split 'train' every n steps.");
  t.count("train.checkpoint_epochs", "1", 0, 100000, "epochs", "Write a checkpoint every n epochs; 0: only at the end and on a signal.", false);
  t.count("train.checkpoint_steps", "0", 0, 1e9, "steps", "Write a checkpoint every n steps; 0: by epochs.", false);
  t.count("train.checkpoint_keep", "2", 1, 1000, "", "Checkpoints to keep in each arm's folder.", false);
  t.number("train.stop_at_accuracy", "0.0", 0, 1, "accuracy", "Stop an arm when the first evaluation split reaches this; the steps it took are a metric (the cap counts as the value); 0: off.");
  t.flag("train.probe", "false", "Parity: report the degree-1 probe of the teacher's hidden layer.", false);
  t.count("train.jobs", "0", 0, 1024, "", "Arms and seeds that run at the same time on the CPU; 0: as many as there are threads.", false);
  // clang-format on
  return std::move(t.rows);
}

int distance(std::string_view a, std::string_view b) {  // Damerau-Levenshtein, adjacent swaps
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = static_cast<int>(i);
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i)
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// Whole numbers as people write them: 100000, not 1e+05.
std::string bound_text(double value) {
  if (std::abs(value) < 1e15 && std::floor(value) == value)
    return std::to_string(static_cast<long long>(value));
  std::string text = number_text(value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\u%04X", static_cast<unsigned>(c));
      out += buffer;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string_view last_part(std::string_view key) {
  const auto dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

bool in_section(const KeySpec& spec, std::string_view section) {
  return section.empty() || spec.key == section || spec.key.starts_with(std::string(section) + ".");
}

}  // namespace

const std::vector<KeySpec>& schema() {
  static const std::vector<KeySpec> table = make_table();
  return table;
}

const KeySpec* find_key(std::string_view key) {
  static const std::map<std::string, const KeySpec*, std::less<>> index = [] {
    std::map<std::string, const KeySpec*, std::less<>> map;
    for (const KeySpec& spec : schema())
      if (!map.emplace(spec.key, &spec).second)
        throw std::logic_error("two schema lines for " + spec.key);
    return map;
  }();
  const auto at = index.find(key);
  return at == index.end() ? nullptr : at->second;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return parts;
}

std::string expectation(const KeySpec& spec) {
  const std::string range = " in [" + bound_text(spec.least) + ", " + bound_text(spec.most) + "]";
  std::string words;
  for (const std::string& word : split(spec.choices, '|'))
    words += (words.empty() ? "" : ", ") + word;
  switch (spec.type) {
    case Type::kBool: return "true or false";
    case Type::kInt: return "an integer" + range;
    case Type::kFloat: return "a number" + range;
    case Type::kString: return "a string";
    case Type::kChoice: return "one of " + words;
    case Type::kInts: return "a list of integers" + range;
    case Type::kFloats: return "a list of numbers" + range;
    case Type::kStrings: return "a list of strings";
    case Type::kNormalize: return "one of " + words + ", [mean, std] or [[r, g, b], [r, g, b]]";
  }
  return "";
}

std::string to_toml(const Value& value) {
  const auto list = [](const auto& items, auto&& text) {
    std::string out = "[";
    for (const auto& item : items) out += (out.size() > 1 ? ", " : "") + text(item);
    return out + "]";
  };
  struct Visitor {
    decltype(list)& list_of;
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return number_text(v); }
    std::string operator()(const std::string& v) const { return quoted(v); }
    std::string operator()(const std::vector<std::int64_t>& v) const {
      return list_of(v, [](std::int64_t x) { return std::to_string(x); });
    }
    std::string operator()(const std::vector<double>& v) const { return list_of(v, number_text); }
    std::string operator()(const std::vector<std::string>& v) const { return list_of(v, quoted); }
  };
  return std::visit(Visitor{list}, value);
}

std::string nearest_word(std::string_view word, const std::vector<std::string>& words) {
  std::string best;
  int least = std::max(2, static_cast<int>(word.size()) / 3) + 1;
  for (const std::string& candidate : words) {
    if (candidate.size() > word.size() + 8 || word.size() > 64) continue;
    const int d = distance(word, candidate);
    if (d < least && d < static_cast<int>(std::max(word.size(), candidate.size())))
      least = d, best = candidate;
  }
  return best;
}

std::string nearest_key(std::string_view key) {
  if (key.size() > 120) return "";
  std::string moved;  // right name, wrong table
  int nearest = std::numeric_limits<int>::max();
  for (const KeySpec& spec : schema())
    if (last_part(spec.key) == last_part(key))
      if (const int d = distance(key, spec.key); d < nearest) nearest = d, moved = spec.key;
  if (!moved.empty()) return moved;
  std::vector<std::string> same_table, all;
  const auto table = key.substr(0, key.size() - last_part(key).size());
  for (const KeySpec& spec : schema()) {
    all.push_back(spec.key);
    if (spec.key.starts_with(table)) same_table.push_back(spec.key.substr(table.size()));
  }
  const std::string near = nearest_word(last_part(key), same_table);
  if (!near.empty() && !table.empty()) return std::string(table) + near;
  std::string best;
  int least = std::max(2, static_cast<int>(key.size()) / 5) + 1;
  for (const std::string& candidate : all) {
    const int d = std::min(distance(key, candidate), distance(key, last_part(candidate)) + 1);
    if (d < least) least = d, best = candidate;
  }
  return best;
}

std::string schema_as_text(std::string_view section) {
  std::string out, table = "?";
  for (const KeySpec& spec : schema()) {
    if (!in_section(spec, section)) continue;
    const auto name = last_part(spec.key);
    const std::string here = spec.key.substr(0, spec.key.size() - name.size());
    if (here != table) {
      table = here;
      out += out.empty() ? "" : "\n";
      out +=
          table.empty() ? "# top of the file\n" : "[" + table.substr(0, table.size() - 1) + "]\n";
    }
    out += std::string(name) + " = " + spec.fallback + "\n    " + expectation(spec);
    if (!spec.unit.empty()) out += "; " + spec.unit;
    out += "\n    " + spec.doc + (spec.in_arm ? "" : " (Not in an [[arm]].)") + "\n";
  }
  return out;
}

std::string schema_as_json(std::string_view section) {
  const auto json_number = [](double v) { return std::isfinite(v) ? bound_text(v) : "null"; };
  constexpr const char* kTypes[] = {"bool", "int",    "float",   "string",   "choice",
                                    "ints", "floats", "strings", "normalize"};
  std::string out = "[";
  for (const KeySpec& spec : schema()) {
    if (!in_section(spec, section)) continue;
    out += out.size() > 1 ? ",\n" : "\n";
    out += "{\"key\":" + quoted(spec.key) + ",\"type\":\"" + kTypes[static_cast<int>(spec.type)] +
           "\",\"default\":" + quoted(spec.fallback);
    if (!spec.choices.empty()) out += ",\"choices\":" + to_toml(Value(split(spec.choices, '|')));
    if (spec.most > spec.least)
      out += ",\"least\":" + json_number(spec.least) + ",\"most\":" + json_number(spec.most);
    if (!spec.unit.empty()) out += ",\"unit\":" + quoted(spec.unit);
    out += ",\"arm\":" + std::string(spec.in_arm ? "true" : "false") +
           ",\"doc\":" + quoted(spec.doc) + "}";
  }
  return out + "\n]\n";
}

}  // namespace retort::tools
