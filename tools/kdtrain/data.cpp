#include "tools/kdtrain/data.h"

#include <cstdio>
#include <cstdlib>

#include "curriculum/sampling/sampler.h"
#include "nn/data/drawn.h"
#include "nn/data/normalize.h"
#include "nn/data/registry.h"
#include "tools/kdtrain/ranks.h"

namespace retort::tools {
namespace {

nn::DataRequest request_of(const Settings& settings, const std::string& split) {
  nn::DataRequest request{settings.text("data.format"), split, {}, {}};
  request.tell = [](const std::string& sentence) {
    if (prints()) std::fprintf(stderr, "kdtrain: %s\n", sentence.c_str());
  };
  request.options = options_of(settings, "data", nn::data_kinds().at(request.format).options);
  const char* const root = std::getenv("RETORT_DATA");
  if (request.options.has("root") && request.options.text("root").empty() && root != nullptr)
    request.options.set("root", std::string(root));
  return request;
}

std::shared_ptr<const nn::Dataset> open(const nn::DataRequest& request) {
  const auto data = nn::open_data(request);
  RETORT_CHECK(data != nullptr, "[data] split ", request.split, ": expected data.", request.split,
               "_files=FILE, the format has no standard name for it");
  return data;
}

// n samples of all, drawn without replacement and left in their order; which they are depends on
// the two numbers alone.
std::shared_ptr<const nn::Dataset> sample_of(std::shared_ptr<const nn::Dataset> all, std::int64_t n,
                                             std::vector<std::int64_t>* origin) {
  if (n == 0 || n == all->size()) return all;
  RETORT_CHECK(n < all->size(), "[data] data.train_sample = ", n, " of ", all->size(),
               " training samples");
  *origin = nn::drawn_samples(all->size(), n, 0, "train sample");
  return all->subset(*origin);
}

// A part of samples that are themselves a part.
std::vector<std::int64_t> origin_of(std::span<const std::int64_t> part,
                                    const std::vector<std::int64_t>& whole) {
  std::vector<std::int64_t> origin(part.begin(), part.end());
  if (!whole.empty())
    for (std::int64_t& sample : origin) sample = whole[static_cast<std::size_t>(sample)];
  return origin;
}

}  // namespace

std::string ExperimentData::describe() const {
  return facts().endless() ? evaluation.back().data->describe() : student->describe();
}

ExperimentData open_data(const Settings& settings, bool trains_teacher) {
  ExperimentData data;
  data.kind = &nn::data_kinds().at(settings.text("data.format"));
  const nn::DataRequest train = request_of(settings, "train");
  data.student =
      sample_of(open(train), settings.integer("data.train_sample"), &data.student_origin);
  if (trains_teacher) {
    data.teacher = data.student;
    data.teacher_origin = data.student_origin;
  }
  // The rest of a split is what students see whether or not the teacher is trained in this run: a
  // teacher that a run of the same recipe left behind must not score what it was trained on.
  if (const double share = settings.number("teacher.train.split"); share > 0) {
    const std::vector<std::int32_t> labels = data.student->labels();
    RETORT_CHECK(!labels.empty(), "[data] teacher.train.split needs labelled samples with an end");
    const double ratios[] = {share, 1 - share};
    const auto parts = curriculum::stratified_split(labels, ratios, 0);
    RETORT_CHECK(!parts[0].empty() && !parts[1].empty(), "[data] teacher.train.split = ", share,
                 " of ", data.student->size(), " training samples leaves a part empty");
    if (trains_teacher) {
      data.teacher = data.student->subset(parts[0]);
      data.teacher_origin = origin_of(parts[0], data.student_origin);
    }
    data.student = data.student->subset(parts[1]);
    data.student_origin = origin_of(parts[1], data.student_origin);
  } else if (const auto& files = settings.texts("teacher.train.files");
             trains_teacher && !files.empty()) {
    nn::DataRequest own = train;
    own.options.set("train_files", files);
    // What is made of columns is the same for teacher and students, who share batches.
    if (own.options.has("columns_from") && own.options.texts("columns_from").empty())
      own.options.set("columns_from", train.options.texts("train_files"));
    own.options.set("train_per_file", std::int64_t{0});
    own.options.set("train_limit", std::int64_t{0});
    data.teacher = open(own);
    data.teacher_origin.clear();
  }
  for (const char* split : {"validation", "test"})
    if (auto set = nn::open_data(request_of(settings, split)))
      data.evaluation.push_back({split, std::move(set)});
  RETORT_CHECK(!data.evaluation.empty(), "[data] expected a validation or a test split");
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

bool is_same_data(const std::string& had, const std::string& has) {
  const std::vector<std::string> parts = split(has, ' ');
  for (const std::string& before : split(had, ' ')) {
    const std::string name = before.substr(0, before.find(':') + 1);
    for (const std::string& now : parts)
      if (now.starts_with(name) && now != before) return false;
  }
  return true;
}

std::shared_ptr<const nn::Dataset> open_split(const Settings& settings, const std::string& split) {
  const auto data = open(request_of(settings, split));
  RETORT_CHECK(!data->facts().endless(), "[data] ", settings.text("data.format"),
               " draws its training samples: expected split test, got ", split);
  return data;
}

nn::Reading reading_of(const Settings& settings, const std::string& section,
                       const nn::DataKind& kind, DType dtype) {
  return {dtype, options_of(settings, section, kind.reading)};
}

std::map<std::string, std::string> metadata_of(const nn::Reading& reading, const nn::DataKind& kind,
                                               const nn::DataFacts& data) {
  std::map<std::string, std::string> metadata;
  for (const nn::OptionSpec& spec : kind.reading) {
    const nn::OptionValue& value = reading.options.value(spec.key);
    metadata[spec.key] = spec.type == nn::OptionType::kNormalize
                             ? nn::Normalize::of(value, data.input[2]).str()
                         : std::holds_alternative<std::string>(value) ? std::get<std::string>(value)
                                                                      : to_toml(value);
  }
  return metadata;
}

void take_metadata(const std::map<std::string, std::string>& metadata, const Settings& settings,
                   const std::string& section, const nn::DataKind& kind, nn::Reading* reading) {
  for (const nn::OptionSpec& spec : kind.reading) {
    const auto at = metadata.find(spec.key);
    if (at == metadata.end() || !settings.is_default(section + "." + spec.key)) continue;
    if (spec.type == nn::OptionType::kNormalize)
      reading->options.set(spec.key, nn::Normalize::parse(at->second));
    else if (std::holds_alternative<std::string>(spec.fallback))
      reading->options.set(spec.key, at->second);
  }
}

std::shared_ptr<const nn::Source> plain_source(const nn::Dataset& data, Device device,
                                               std::vector<nn::Reading> readings,
                                               std::int64_t masks_in_turn) {
  nn::SourceOptions options;
  options.device = device;
  options.readings = std::move(readings);
  options.masks_in_turn = masks_in_turn;
  return data.source(options);
}

}  // namespace retort::tools
