// The published CIFAR-10 weights of akamaster/pytorch_resnet_cifar10 must give the logits that an
// independent implementation computed in double, and the published accuracy.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <numeric>

#include "engine/autograd/autograd.h"
#include "nn/checkpoint/weights.h"
#include "nn/data/cifar.h"
#include "nn/models/registry.h"
#include "tests/support/temporary_folder.h"

namespace retort::nn {
namespace {

struct Pretrained {
  const char* arch;
  const char* file;
  int correct;  // of 1,017: 91.64 % and 92.72 %
};
constexpr Pretrained kPretrained[] = {{"resnet20", "resnet20-12fca82f", 932},
                                      {"resnet56", "resnet56-4bfd9763", 943}};

std::string data_folder() {
  const char* folder = std::getenv("RETORT_DATA");
  return folder ? folder : "";
}

template <class T>
std::vector<T> read_numbers(const std::string& path) {
  const std::string bytes = test::slurp(path);
  std::vector<T> numbers(bytes.size() / sizeof(T));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(T));
  return numbers;
}

// Logits of the first n exact test images, (n, 10) row by row.
std::vector<float> logits_of(Model& model, const Dataset& images, std::int64_t n) {
  const NoGrad no_grad;
  const auto source =
      images.source({.readings = {Reading{DType::kF32, {{"normalize", "imagenet"}}}}});
  std::vector<float> logits;
  std::vector<std::int64_t> samples(static_cast<std::size_t>(n));
  std::iota(samples.begin(), samples.end(), 0);
  for (std::int64_t begin = 0; begin < n; begin += 128) {
    const std::size_t size = static_cast<std::size_t>(std::min<std::int64_t>(128, n - begin));
    const Batch batch =
        source->make(std::span(samples).subspan(static_cast<std::size_t>(begin), size));
    const std::vector<float> y = model.forward(batch.inputs[0]).logits.to_vector<float>();
    logits.insert(logits.end(), y.begin(), y.end());
  }
  return logits;
}

class Pretrain : public ::testing::TestWithParam<Pretrained> {};

TEST_P(Pretrain, golden_logits_and_accuracy) {
  if (data_folder().empty()) GTEST_SKIP() << "RETORT_DATA is not set: no pretrained weights";
  const Pretrained& p = GetParam();
  const std::string weights = data_folder() + "/weights/" + p.file;
  const auto model = make_model({.arch = p.arch, .initialize = false});
  load_weights(*model, weights + ".safetensors");
  model->eval();
  const auto images = read_cifar(CifarFormat::kCifar10, data_folder() + "/cifar10",
                                 {"test_batch_first1017_exact.bin"});
  ASSERT_EQ(images->size(), 1017);
#if defined(RETORT_SANITIZED)
  const std::int64_t n = 8;
#else
  const std::int64_t n = 1017;
#endif
  const std::vector<float> logits = logits_of(*model, *images, n);

  const std::vector<double> exact = read_numbers<double>(weights + ".test64_logits_f64.bin");
  const std::vector<float> golden = read_numbers<float>(weights + ".test1017_logits_f32.bin");
  ASSERT_EQ(exact.size(), 640u);
  ASSERT_EQ(golden.size(), 10170u);
  double worst = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double want = i < exact.size() ? exact[i] : static_cast<double>(golden[i]);
    const double error = std::abs(static_cast<double>(logits[i]) - want);
    worst = error > worst || std::isnan(error) ? error : worst;
  }
  EXPECT_LE(worst, 1e-4);  // the bound this model is promised to meet
  RecordProperty("max_abs_error", std::to_string(worst));
  if (n < 1017) return;
  int correct = 0;
  const std::vector<std::int32_t> labels = images->labels();
  for (std::int64_t i = 0; i < n; ++i) {
    const float* const row = logits.data() + 10 * i;
    correct += std::max_element(row, row + 10) - row == labels[static_cast<std::size_t>(i)];
  }
  EXPECT_EQ(correct, p.correct);
}

INSTANTIATE_TEST_SUITE_P(Cifar10, Pretrain, ::testing::ValuesIn(kPretrained),
                         [](const auto& info) { return std::string(info.param.arch); });

TEST(PretrainedFiles, saved_again_they_hold_the_same_tensors) {
  if (data_folder().empty()) GTEST_SKIP() << "RETORT_DATA is not set: no pretrained weights";
  const test::TemporaryFolder folder;
  const std::string path = data_folder() + "/weights/resnet20-12fca82f.safetensors";
  const auto model = make_model({.arch = "resnet20", .initialize = false});
  load_weights(*model, path);
  save_weights(*model, folder / "again.safetensors");
  const SafetensorsReader before(path), after(folder / "again.safetensors");
  for (const SafetensorsEntry& entry : after.header().entries) {
    const Tensor a = after.read(entry), b = before.read(entry.name);
    ASSERT_EQ(a.shape(), b.shape()) << entry.name;
    ASSERT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes()), 0) << entry.name;
  }
}

}  // namespace
}  // namespace retort::nn
