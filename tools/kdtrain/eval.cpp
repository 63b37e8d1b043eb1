#include <algorithm>
#include <bit>
#include <cstdio>
#include <optional>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/runtime/device.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/experiment.h"

namespace retort::tools {

int eval_command(const CommandLine& line) {
  static_assert(std::endian::native == std::endian::little);  // --logits promises it
  const KeySpec& key = *find_key("student.arch");
  const std::vector<std::string> names = split(key.choices, '|');
  if (std::find(names.begin(), names.end(), line.arch) == names.end()) {
    const std::string near = nearest_word(line.arch, names);
    fail(ErrorCode::kUsage, "--arch: expected ", expectation(key), ", found '", escaped(line.arch),
         "'", near.empty() ? "" : "; did you mean '" + near + "'?");
  }
  std::string text = "train.epochs = 1\nteacher.train.epochs = 1\ndistill.lambda = 0.0\n";
  text += "student.arch = \"" + line.arch + "\"\n";
  if (line.arch == "mlp") text += "data.format = \"parity\"\nteacher.arch = \"mlp\"\n";
  const RecipeResult result = parse_recipe("command line", text, line.words);
  if (!result.problems.empty()) {
    std::fputs(format_problems(result, text).c_str(), stderr);
    return static_cast<int>(ErrorCode::kUsage);
  }
  const Settings& settings = result.recipe.base;
  const Device device = parse_device(line.device);
  const std::string file = find_weights(settings, line.model);
  ExperimentData shape;
  shape.parity = settings.text("data.format") == "parity";
  const auto data = open_split(settings, line.split);
  shape.classes = data->classes();
  std::shared_ptr<nn::Model> model = build_model(settings, "student", shape, 0);
  const nn::WeightsInfo info = nn::load_weights(*model, file);
  nn::Normalize normalize = normalize_of(settings.value("data.normalize"));
  if (const auto at = info.metadata.find("normalize");
      at != info.metadata.end() && settings.is_default("data.normalize"))
    normalize = normalize_of_text(at->second);
  model->to(device);
  model->eval();
  std::vector<Tensor> logits;
  std::optional<AtomicFile> out;  // opened before the work that it is for
  if (!line.logits.empty()) out.emplace(line.logits);
  const EvaluationRequest request{device,    DType::kF32, settings.integer("train.evaluate_batch"),
                                  normalize, nullptr,     out ? &logits : nullptr};
  const distill::EvaluationResult r = evaluate(*model, *data, request);
  if (out) {
    for (const Tensor& part : logits) {
      const std::vector<float> values = part.to_vector<float>();
      out->writer().write(values.data(), values.size() * sizeof(float));
    }
    out->commit();
  }
  Json json = Json::object();
  json.set("n", r.samples).set("accuracy", r.accuracy).set("loss", r.loss);
  json.set("calibration_error", r.calibration_error).set("classes", data->classes());
  json.set("model", file).set("arch", line.arch).set("normalize", normalize.str());
  json.set("parameters", model->parameter_count()).set("data", data->describe());
  json.set("split", line.split).set("device", name_of(device));
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace retort::tools
