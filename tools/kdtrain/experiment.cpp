#include "tools/kdtrain/experiment.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "engine/autograd/autograd.h"
#include "engine/io/file.h"
#include "kernels/common/philox.h"
#include "nn/data/cifar.h"
#include "nn/data/packed_file.h"
#include "nn/data/parity.h"
#include "nn/models/registry.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

nn::CifarFormat cifar_format(const Settings& settings) {
  return settings.text("data.format") == "cifar100" ? nn::CifarFormat::kCifar100
                                                    : nn::CifarFormat::kCifar10;
}

// data.root itself, or the folder inside it that holds the file.
std::string data_folder(const Settings& settings, const std::string& first_file) {
  std::string root = settings.text("data.root");
  if (root.empty()) root = environment("RETORT_DATA");
  RETORT_CHECK(!root.empty(), "[data] expected data.root=DIR, the folder of the ",
               settings.text("data.format"), " files (or the environment variable RETORT_DATA)");
  std::error_code error;
  RETORT_CHECK_AS(kIo, fs::is_directory(root, error), "[data] data.root: there is no folder ",
                  escaped(root, 4096));
  const std::string archive =
      settings.text("data.format") == "cifar100" ? "cifar-100-binary" : "cifar-10-batches-bin";
  std::string looked;
  for (const std::string& inner : {std::string(), "/" + settings.text("data.format")}) {
    const std::string folder = root + inner;
    if (nn::packed_exists(folder + "/" + first_file) ||
        nn::packed_exists(folder + "/" + archive + "/" + first_file))
      return folder;
    looked += (looked.empty() ? "" : ", ") + folder;
  }
  if (first_file.starts_with('/')) return root;
  fail(ErrorCode::kIo, "[data] there is no file ", escaped(first_file, 4096), " nor ",
       escaped(first_file, 4096), ".xz in ", escaped(looked, 4096), " or a folder ", archive,
       " there");
}

std::shared_ptr<nn::ImageDataset> first_samples(std::shared_ptr<nn::ImageDataset> data,
                                                std::int64_t limit) {
  if (limit == 0 || limit >= data->size()) return data;
  std::vector<std::int64_t> indices(static_cast<std::size_t>(limit));
  for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<std::int64_t>(i);
  return data->subset(indices);
}

std::shared_ptr<nn::ImageDataset> read_images(const Settings& settings,
                                              std::vector<std::string> files, bool train,
                                              std::int64_t per_file, std::int64_t limit) {
  const nn::CifarFormat format = cifar_format(settings);
  if (files.empty()) files = nn::cifar_standard_files(format, train);
  const std::string folder = data_folder(settings, files.front());
  std::vector<std::shared_ptr<const nn::ImageDataset>> parts;
  for (const std::string& file : files)
    parts.push_back(first_samples(nn::read_cifar(format, folder, {file}), per_file));
  return first_samples(parts.size() == 1 ? std::const_pointer_cast<nn::ImageDataset>(parts[0])
                                         : nn::ImageDataset::concatenate(parts),
                       limit);
}

nn::ParityOptions parity_options(const Settings& settings) {
  nn::ParityOptions options;
  options.n = settings.integer("data.bits");
  options.k = settings.integer("data.support");
  if (const std::int64_t seed = settings.integer("data.support_seed"); seed != 0)
    options.support_seed = static_cast<std::uint64_t>(seed);
  return options;
}

std::shared_ptr<nn::ParityDataset> parity_test(const Settings& settings) {
  nn::ParityOptions options = parity_options(settings);
  options.size = settings.integer("data.test_size");
  options.held_out = true;
  return std::make_shared<nn::ParityDataset>(options);
}

std::vector<std::int32_t> labels_of(const nn::Dataset& data) {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(data.size()));
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = data.label(static_cast<std::int64_t>(i));
  return labels;
}

}  // namespace

ExperimentData open_data(const Settings& settings, bool trains_teacher) {
  ExperimentData data;
  data.parity = settings.text("data.format") == "parity";
  if (data.parity) {
    const auto test = parity_test(settings);
    data.classes = test->classes();
    data.support = test->support();
    data.evaluation.push_back({"test", test});
    data.description = test->describe();
    return data;
  }
  auto train =
      read_images(settings, settings.texts("data.train_files"), true,
                  settings.integer("data.train_per_file"), settings.integer("data.train_limit"));
  data.classes = train->classes();
  // The rest of a split is what students see whether or not the teacher is trained in this run: a
  // teacher that a run of the same recipe left behind must not score what it was trained on.
  if (const double share = settings.number("teacher.train.split"); share > 0) {
    const double ratios[] = {share, 1 - share};
    const auto parts = curriculum::stratified_split(labels_of(*train), ratios, 0);
    RETORT_CHECK(!parts[0].empty() && !parts[1].empty(), "[data] teacher.train.split = ", share,
                 " of ", train->size(), " training samples leaves a part empty");
    if (trains_teacher) data.teacher = train->subset(parts[0]);
    train = train->subset(parts[1]);
  } else if (trains_teacher) {
    const auto& files = settings.texts("teacher.train.files");
    data.teacher = files.empty() ? train : read_images(settings, files, true, 0, 0);
  }
  data.student = train;
  data.description = train->describe();
  if (const auto& files = settings.texts("data.validation_files"); !files.empty())
    data.evaluation.push_back(
        {"validation",
         read_images(settings, files, true, 0, settings.integer("data.validation_limit"))});
  data.evaluation.push_back({"test", read_images(settings, settings.texts("data.test_files"), false,
                                                 0, settings.integer("data.test_limit"))});
  return data;
}

std::string hash_of(const ExperimentData& data) {
  std::string all;
  const auto add = [&](const std::string& name, const nn::Dataset* samples) {
    if (samples != nullptr) all += (all.empty() ? "" : " ") + name + ":" + nn::hex(samples->hash());
  };
  add("train", data.student.get());
  add("teacher", data.teacher.get());
  for (const EvaluationSet& set : data.evaluation) add(set.name, set.data.get());
  return all;
}

std::shared_ptr<const nn::Dataset> open_split(const Settings& settings, const std::string& split) {
  const bool test = split == "test";
  if (settings.text("data.format") == "parity") {
    RETORT_CHECK(test, "[data] parity draws its samples: expected split test, got ", split);
    return parity_test(settings);
  }
  RETORT_CHECK(split != "validation" || !settings.texts("data.validation_files").empty(),
               "[data] split validation: expected data.validation_files=FILE, the format has no "
               "standard name for it");
  return read_images(settings, settings.texts("data." + split + "_files"), !test,
                     split == "train" ? settings.integer("data.train_per_file") : 0,
                     settings.integer("data." + split + "_limit"));
}

std::shared_ptr<const nn::Dataset> parity_stream(const Settings& settings, std::uint64_t key) {
  nn::ParityOptions options = parity_options(settings);
  options.size = std::int64_t{1} << 48;
  options.seed = key;
  return std::make_shared<nn::ParityDataset>(options);
}

std::uint64_t derive_key(std::int64_t seed, const char* purpose) {
  const Philox4 r = philox(static_cast<std::uint64_t>(seed), 0, 0, 0, path_hash(purpose));
  return (std::uint64_t{r.v[0]} << 32) | r.v[1];
}

std::shared_ptr<nn::Model> build_model(const Settings& settings, const std::string& section,
                                       const ExperimentData& data, std::uint64_t key) {
  nn::ModelConfig config;
  config.arch = settings.text(section + ".arch");
  config.classes = data.classes;
  config.seed = key;
  if (config.arch == "mlp") {
    config.widths = settings.integers(section + ".hidden");
    config.inputs = data.parity ? settings.integer("data.bits") : 3072;
    config.scalar_output = data.parity;
  } else if (const std::string& shortcut = settings.text(section + ".shortcut");
             shortcut != "auto") {
    config.shortcut = shortcut;
  }
  return nn::make_model(config);
}

nn::Normalize normalize_of(const Value& value) {
  if (const auto* name = std::get_if<std::string>(&value)) return nn::Normalize::named(*name);
  const auto& numbers = std::get<std::vector<double>>(value);
  if (numbers.size() == 2)
    return nn::Normalize::custom(std::vector<double>(3, numbers[0]),
                                 std::vector<double>(3, numbers[1]));
  return nn::Normalize::custom({numbers.begin(), numbers.begin() + 3},
                               {numbers.begin() + 3, numbers.end()});
}

nn::Normalize normalize_of_text(const std::string& text) {
  const RecipeResult result = parse_recipe(
      "metadata", "train.epochs = 1\nteacher.train.epochs = 1\n", {"data.normalize=" + text});
  RETORT_CHECK_AS(kBadInput, result.problems.empty(), "[normalize] expected a normalisation, got '",
                  escaped(text), "'");
  return normalize_of(result.recipe.base.value("data.normalize"));
}

std::string find_weights(const Settings& settings, const std::string& name) {
  std::vector<std::string> places{name};
  if (!name.starts_with('/'))
    for (const std::string& root : {settings.text("data.root"), environment("RETORT_DATA")})
      if (!root.empty()) {
        places.push_back(root + "/" + name);
        places.push_back(root + "/weights/" + name);
        places.push_back(root + "/../" + name);
      }
  std::string tried;
  for (const std::string& place : places) {
    std::error_code error;  // a name too long, a folder that may not be entered
    if (fs::is_regular_file(place, error)) return place;
    tried += (tried.empty() ? "" : ", ") + place;
  }
  fail(ErrorCode::kIo, "[weights] there is no file ", name, " (tried ", tried, ")");
}

distill::EvaluationResult evaluate(nn::Model& model, const nn::Dataset& data,
                                   const EvaluationRequest& request) {
  const bool training = model.training();
  model.eval();
  const NoGrad no_grad;
  distill::EvaluationMeter meter;
  nn::BatchOptions options;
  options.device = request.device;
  options.dtype = request.dtype;
  options.normalize = request.normalize;
  std::vector<std::int64_t> samples;
  std::size_t number = 0;
  for (std::int64_t begin = 0; begin < data.size(); begin += request.batch, ++number) {
    samples.clear();
    for (std::int64_t i = begin; i < std::min(begin + request.batch, data.size()); ++i)
      samples.push_back(i);
    const nn::Batch batch = data.make_batch(samples, options);
    const Tensor logits = model.forward(batch.inputs).logits;  // (B, V)
    meter.add(logits, batch.targets,
              request.teacher_logits ? request.teacher_logits->at(number) : Tensor());
    if (request.logits) request.logits->push_back(logits.detach());
  }
  model.train(training);
  return meter.result();
}

void score_samples(TeacherSet* teacher, const nn::Dataset& data, Device device,
                   std::int64_t batch) {
  std::vector<Tensor> logits;
  EvaluationRequest request{device, teacher->dtype, batch, teacher->normalize, nullptr, &logits};
  evaluate(teacher->final->model(), data, request);
  std::vector<float> rows;
  for (const Tensor& part : logits) {
    const std::vector<float> values = part.to_vector<float>();
    rows.insert(rows.end(), values.begin(), values.end());
  }
  teacher->statistics = curriculum::statistics_of_logits(rows, data.classes(), labels_of(data));
}

std::string curriculum_name(const Settings& settings, const TeacherSet& teacher,
                            bool several_teachers) {
  std::string name = curriculum_name(settings);
  if (several_teachers) name += "_teacher" + std::to_string(teacher.seed);
  return name;
}

std::shared_ptr<const Curriculum> make_curriculum(const Settings& settings, std::string name,
                                                  const TeacherSet& teacher,
                                                  const nn::Dataset& data) {
  using namespace curriculum;
  auto result = std::make_shared<Curriculum>();
  result->name = std::move(name);
  const ScoreKind kind = parse_score_kind(settings.text("curriculum.score"));
  const auto scores = scores_of(teacher.statistics, kind);
  result->scores.assign(scores.begin(), scores.end());
  result->correct = teacher.statistics.correct;
  result->confidence = confidence_of(kind, scores);
  OrderOptions options;
  const std::string& inverse = settings.text("curriculum.inverse");
  options.kind = settings.text("curriculum.scorer") == "random" ? OrderKind::kRandom
                 : inverse == "off"                             ? OrderKind::kCurriculum
                                                                : parse_order_kind(inverse);
  options.keys = default_keys(kind);
  options.stratify = settings.flag("curriculum.stratify");
  options.seed = derive_key(teacher.seed, "curriculum.random");
  const std::vector<std::int32_t> labels = labels_of(data);
  result->order = make_order(easiness_of(kind, scores), result->correct, labels, options);
  result->csv = order_csv(result->order, labels, result->scores, result->correct);
  const std::int64_t right = std::count(result->correct.begin(), result->correct.end(), 1);
  if (right == data.size())
    result->warnings.push_back("the teacher is right on all " + std::to_string(right) +
                               " samples it scores: did it train on them?");
  return result;
}

}  // namespace retort::tools
