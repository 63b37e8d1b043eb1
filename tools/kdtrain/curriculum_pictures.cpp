#include "tools/kdtrain/curriculum_pictures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tools/report/curriculum_images.h"

namespace retort::tools {
namespace {

constexpr std::size_t kShown = 12;
constexpr std::int64_t kLargestSide = 96;

// Easiest first: the correct ones by falling confidence, then those that the scorer is wrong about,
// the surest last.
std::vector<std::int64_t> by_difficulty(const curriculum::Curriculum& c) {
  std::vector<std::int64_t> samples;
  for (std::size_t i = 0; i < c.confidence.size(); ++i)
    if (c.excluded.empty() || c.excluded[i] == 0) samples.push_back(static_cast<std::int64_t>(i));
  const auto key = [&](std::int64_t sample) {
    const auto i = static_cast<std::size_t>(sample);
    const bool correct = c.correct.empty() || c.correct[i] != 0;
    return std::pair(!correct, correct ? -c.confidence[i] : c.confidence[i]);
  };
  std::stable_sort(samples.begin(), samples.end(),
                   [&](std::int64_t a, std::int64_t b) { return key(a) < key(b); });
  return samples;
}

std::vector<CurriculumImage> pictures(const std::vector<std::int64_t>& samples,
                                      const curriculum::Curriculum& c,
                                      const ExperimentData& experiment,
                                      const std::vector<std::int32_t>& labels) {
  const nn::Dataset& data = *experiment.student;
  nn::Reading plain;
  plain.options.set("normalize", std::string("none"));
  const Tensor batch =
      plain_source(data, Device::kCpu, {plain})->make(samples).inputs[0].values;  // (B, H, W, C)
  const std::int64_t height = batch.dim(1), width = batch.dim(2), channels = batch.dim(3);
  const std::vector<float> values = batch.to_vector<float>();
  std::vector<CurriculumImage> images;
  for (std::size_t n = 0; n < samples.size(); ++n) {
    const auto sample = static_cast<std::size_t>(samples[n]);
    CurriculumImage image;
    image.index =
        experiment.student_origin.empty() ? samples[n] : experiment.student_origin[sample];
    if (!labels.empty()) image.label = std::to_string(labels[sample]);
    image.score = static_cast<double>(c.scores[sample]);
    image.correct = c.correct.empty() || c.correct[sample] != 0;
    image.width = width;
    image.height = height;
    const auto pixels = static_cast<std::size_t>(height * width),
               each = static_cast<std::size_t>(channels);
    for (std::size_t p = 0; p < pixels; ++p)
      for (std::size_t rgb = 0; rgb < 3; ++rgb)
        image.rgb.push_back(static_cast<std::uint8_t>(
            std::lround(255 * values[(n * pixels + p) * each + (each == 3 ? rgb : 0)])));
    images.push_back(std::move(image));
  }
  return images;
}

}  // namespace

void write_curriculum_pictures(const std::filesystem::path& run_folder,
                               const NamedCurriculum& curriculum, const ExperimentData& data) {
  const nn::DataFacts& facts = data.facts();
  if (facts.gives != nn::Reads::kImages || facts.endless() || facts.input.rank() != 3 ||
      std::max(facts.input[0], facts.input[1]) > kLargestSide ||
      (facts.input[2] != 1 && facts.input[2] != 3))
    return;
  const curriculum::Curriculum& c = curriculum.curriculum;
  std::vector<std::int64_t> samples = by_difficulty(c);
  const std::size_t count = std::min(kShown, samples.size());
  if (count == 0) return;
  const std::vector<std::int64_t> easiest(samples.begin(),
                                          samples.begin() + static_cast<std::ptrdiff_t>(count)),
      hardest(samples.rbegin(), samples.rbegin() + static_cast<std::ptrdiff_t>(count));
  const std::vector<std::int32_t> labels = data.student->labels();
  write_curriculum_images(run_folder, curriculum.name, pictures(easiest, c, data, labels),
                          pictures(hardest, c, data, labels));
}

}  // namespace retort::tools
