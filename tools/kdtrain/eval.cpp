#include <algorithm>
#include <bit>
#include <cstdio>
#include <optional>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/runtime/device.h"
#include "nn/checkpoint/weights.h"
#include "tools/kdtrain/command_line.h"
#include "tools/kdtrain/curricula.h"
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/models.h"

namespace retort::tools {

namespace {

// The data format that a model reads where the command line names none: the first that gives such
// values.
std::string default_format(nn::Reads reads) {
  for (const auto& kind : nn::data_kinds().rows())
    if (kind->gives == reads) return kind->names.front();
  return nn::data_kinds().names().front();
}

}  // namespace

int eval_command(const CommandLine& line) {
  static_assert(std::endian::native == std::endian::little);  // --logits promises it
  const KeySpec& key = *find_key("student.arch");
  const std::vector<std::string> names = split(key.choices, '|');
  if (std::find(names.begin(), names.end(), line.arch) == names.end()) {
    const std::string near = nearest_word(line.arch, names);
    fail(ErrorCode::kUsage, "--arch: expected ", expectation(key), ", found '", escaped(line.arch),
         "'", near.empty() ? "" : "; did you mean '" + near + "'?");
  }
  const nn::Reads reads = nn::model_kinds().at(line.arch).reads;
  const std::string text =
      "train.epochs = 1\nteacher.train.epochs = 1\ndistill.lambda = 0.0\n"
      "student.arch = \"" +
      line.arch + "\"\nteacher.arch = \"" + line.arch + "\"\ndata.format = \"" +
      default_format(reads) + "\"\nstudent.weights = " + to_toml(line.model) + "\n";
  const RecipeResult result = parse_recipe("command line", text, line.words);
  if (!result.problems.empty()) {
    std::fputs(format_problems(result, text).c_str(), stderr);
    return static_cast<int>(ErrorCode::kUsage);
  }
  const Settings& settings = result.recipe.base;
  const Device device = chosen_device(line.device);
  const std::string file = find_weights(settings, line.model);
  const auto data = open_split(settings, line.split);
  const nn::DataKind& kind = nn::data_kinds().at(settings.text("data.format"));
  std::shared_ptr<nn::Model> model = build_model(settings, "student", data->facts(), 0);
  const nn::WeightsInfo info = nn::load_weights(*model, file);
  if (const std::string told = told_of_drawn(info); !told.empty())
    std::fprintf(stderr, "kdtrain: note: %s\n", told.c_str());
  nn::Reading reading = reading_of(settings, "data", kind, DType::kF32);
  take_metadata(info.metadata, settings, "data", kind, &reading);
  // As the run evaluated it, so that both give one number.
  const auto precision = info.metadata.find("precision");
  if (precision != info.metadata.end() && precision->second == "bf16") reading.dtype = DType::kBF16;
  model->to(device);
  std::optional<AtomicFile> out;  // opened before the work that it is for
  if (!line.logits.empty()) out.emplace(line.logits);
  distill::MeasureOptions options{.batch = settings.integer("train.evaluate_batch")};
  if (out)
    options.each = [&](const nn::Batch&, const nn::Outputs& outputs) {
      const std::vector<float> values = outputs.logits.to_vector<float>();
      out->writer().write(values.data(), values.size() * sizeof(float));
    };
  const distill::Measurement m =
      distill::measure(*model, *plain_source(*data, device, {reading}), options);
  if (out) out->commit();
  Json json = Json::object();
  json.set("n", static_cast<std::int64_t>(m.targets.size()));
  for (const auto& [name, value] : m.metrics()) json.set(name, value);
  json.set("classes", data->classes()).set("model", file).set("arch", line.arch);
  for (const auto& [name, value] : metadata_of(reading, kind, data->facts())) json.set(name, value);
  if (reading.dtype == DType::kBF16) json.set("precision", "bf16");
  json.set("parameters", model->parameter_count()).set("data", data->describe());
  json.set("split", line.split).set("device", name_of(device));
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace retort::tools
