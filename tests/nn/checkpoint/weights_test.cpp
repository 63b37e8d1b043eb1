#include "nn/checkpoint/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/models/registry.h"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"

namespace retort::nn {
namespace {

using test::same_bytes;
using test::TemporaryFolder;
using ::testing::HasSubstr;

std::string error_of(Module& module, const std::string& path) {
  const std::string before = weights_hash(module);
  try {
    load_weights(module, path);
    return "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
    EXPECT_EQ(weights_hash(module), before) << "a refused file must leave the module as it was";
    return e.what();
  }
}

std::shared_ptr<Model> net(std::uint64_t seed, const std::string& shortcut = "B") {
  return make_model(
      {.arch = "resnet8", .classes = 3, .seed = seed, .options = {{"shortcut", shortcut}}});
}

TEST(Weights, round_trip_gives_the_same_bytes) {
  const TemporaryFolder folder;
  const auto a = net(1), b = net(2);
  EXPECT_NE(weights_hash(*a), weights_hash(*b));
  save_weights(*a, folder / "w", {{"normalize", "imagenet"}});
  const WeightsInfo info = load_weights(*b, folder / "w");
  EXPECT_EQ(info.metadata.at("normalize"), "imagenet");
  EXPECT_EQ(weights_hash(*a), weights_hash(*b));
}

TEST(Weights, convolutions_are_stored_channels_first) {
  const TemporaryFolder folder;
  const auto model = net(1);
  save_weights(*model, folder / "w");
  const Tensor file = SafetensorsReader(folder / "w").read("layer2.0.conv1.weight");
  EXPECT_EQ(file.shape(), (Shape{32, 16, 3, 3}));
  for (const auto& [path, p] : model->named_parameters()) {
    if (path != "layer2.0.conv1.weight") continue;
    const std::vector<float> krsc = p.to_vector<float>(), kcrs = file.to_vector<float>();
    for (int k = 0; k < 32; ++k)
      for (int c = 0; c < 16; ++c)
        for (int r = 0; r < 3; ++r)
          for (int s = 0; s < 3; ++s)
            ASSERT_EQ(kcrs[((k * 16 + c) * 3 + r) * 3 + s], krsc[((k * 3 + r) * 3 + s) * 16 + c]);
  }
}

TEST(Weights, wrapped_and_other_spellings_of_names_are_understood) {
  const TemporaryFolder folder;
  const auto model = net(1), loaded = net(2);
  NamedTensors tensors;
  for (const auto& [name, tensor] : weights_of(*model)) {
    std::string other = "module._orig_mod." + name;
    if (const auto at = other.find("linear."); at != std::string::npos) other.replace(at, 6, "fc");
    if (const auto at = other.find("shortcut."); at != std::string::npos)
      other.replace(at, 8, "downsample");
    if (const auto at = other.find("layer2.0."); at != std::string::npos)
      other.replace(at, 9, "layer2._orig_mod.0.");
    tensors.emplace_back(other, tensor);
  }
  tensors.emplace_back("module.bn1.num_batches_tracked", Tensor::full({}, 7, DType::kI64));
  write_safetensors(folder / "w", tensors);
  const WeightsInfo info = load_weights(*loaded, folder / "w");
  EXPECT_EQ(info.ignored, (std::vector<std::string>{"module.bn1.num_batches_tracked"}));
  EXPECT_EQ(weights_hash(*model), weights_hash(*loaded));
}

TEST(Weights, other_floating_types_are_converted) {
  const TemporaryFolder folder;
  const auto model = net(1), loaded = net(2);
  for (const DType dtype : {DType::kF64, DType::kF16, DType::kBF16}) {
    NamedTensors tensors;
    for (const auto& [name, tensor] : weights_of(*model))
      tensors.emplace_back(name, tensor.to(dtype));
    write_safetensors(folder / "w", tensors);
    load_weights(*loaded, folder / "w");
    const auto got = weights_of(*loaded);
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_TRUE(same_bytes(got[i].second, tensors[i].second.to(DType::kF32))) << got[i].first;
  }
}

TEST(Weights, all_misfits_are_listed_in_one_error) {
  const TemporaryFolder folder;
  const auto model = net(1);
  NamedTensors tensors = weights_of(*model);
  tensors.erase(tensors.begin());  // conv1.weight
  for (auto& [name, tensor] : tensors) {
    if (name == "bn1.bias") name = "extra\n";
    if (name == "linear.weight") tensor = Tensor::zeros({10, 64});
    if (name == "linear.bias") tensor = Tensor::zeros({3}, DType::kI64);
    if (name == "layer1.0.conv1.weight") tensor = Tensor::zeros({16, 3, 3, 16});  // our own layout
  }
  write_safetensors(folder / "w", tensors);
  const std::string error = error_of(*model, folder / "w");
  EXPECT_THAT(error, HasSubstr(folder / "w"));
  EXPECT_THAT(error, HasSubstr("missing: conv1.weight, bn1.bias;"));
  EXPECT_THAT(error, HasSubstr("unexpected: extra\\x0a;"));
  EXPECT_THAT(error, HasSubstr("linear.weight: expected (3, 64), got (10, 64)"));
  EXPECT_THAT(error, HasSubstr("linear.bias: expected a floating dtype, got I64"));
  EXPECT_THAT(error, HasSubstr("conv1.weight: expected (16, 16, 3, 3), got (16, 3, 3, 16)"));
}

TEST(Weights, weights_of_another_model_are_refused_briefly) {
  const TemporaryFolder folder;
  save_weights(*make_model({.arch = "resnet56"}), folder / "w");
  const auto model = net(1, "A");
  const std::string error = error_of(*model, folder / "w");
  EXPECT_THAT(error, HasSubstr("unexpected: "));
  EXPECT_THAT(error, HasSubstr(" more"));
  EXPECT_LT(error.size(), 2000u);
}

TEST(Weights, nan_and_infinity_are_refused_by_name) {
  const TemporaryFolder folder;
  const auto model = net(1);
  for (const double bad : {std::nan(""), static_cast<double>(INFINITY)}) {
    NamedTensors tensors = weights_of(*model);
    for (auto& [name, tensor] : tensors)
      if (name == "layer1.0.bn2.running_var") {
        tensor = tensor.clone();
        tensor.slice(5, 6).fill(bad);
      }
    write_safetensors(folder / "w", tensors);
    EXPECT_THAT(error_of(*model, folder / "w"),
                HasSubstr("'layer1.0.bn2.running_var' has a NaN or an infinity at element 5"));
    std::filesystem::remove(folder / "w");
  }
}

TEST(Weights, a_value_that_is_infinite_in_the_models_dtype_is_refused) {
  const TemporaryFolder folder;
  const auto model = net(1);
  NamedTensors tensors = weights_of(*model);
  for (auto& [name, tensor] : tensors)
    if (name == "layer1.0.bn2.running_var") {
      tensor = tensor.to(DType::kF64);
      tensor.slice(5, 6).fill(1e300);
    }
  write_safetensors(folder / "w", tensors);
  EXPECT_THAT(
      error_of(*model, folder / "w"),
      HasSubstr("'layer1.0.bn2.running_var' has a NaN or an infinity at element 5 (as f32)"));
}

// As training scripts save: the wrapper that held the model, or an average of weights.
TEST(Weights, names_behind_a_prefix_get_one_sentence_with_the_cure) {
  const TemporaryFolder folder;
  const auto model = net(1);
  for (const std::string prefix : {"model.", "module.student.", "net.backbone.module."}) {
    NamedTensors tensors;
    for (const auto& [name, tensor] : weights_of(*model))
      tensors.emplace_back(prefix + name, tensor);
    tensors.emplace_back("epoch", Tensor::scalar(3));
    write_safetensors(folder / "w", tensors);
    const std::string error = error_of(*model, folder / "w"),
                      shown = prefix == "net.backbone.module." ? "net.backbone." : prefix;
    EXPECT_THAT(error, HasSubstr("their names begin with '" + shown + "'"));
    EXPECT_THAT(error, HasSubstr("k.removeprefix('" + shown + "')"));
    EXPECT_LT(error.size(), 400u);
    std::filesystem::remove(folder / "w");
  }
}

TEST(Weights, the_counter_of_an_averaged_model_is_ignored) {
  const TemporaryFolder folder;
  const auto model = net(1), loaded = net(2);
  NamedTensors tensors;
  for (const auto& [name, tensor] : weights_of(*model))
    tensors.emplace_back("module." + name, tensor);
  tensors.emplace_back("n_averaged", Tensor::full({}, 7, DType::kI64));
  write_safetensors(folder / "w", tensors);
  const WeightsInfo info = load_weights(*loaded, folder / "w");
  EXPECT_EQ(info.ignored, (std::vector<std::string>{"n_averaged"}));
  EXPECT_EQ(info.path, folder / "w");
  EXPECT_EQ(weights_hash(*model), weights_hash(*loaded));
}

TEST(Weights, the_same_weight_twice_is_refused) {
  const TemporaryFolder folder;
  const auto model = net(1);
  NamedTensors tensors = weights_of(*model);
  tensors.emplace_back("module.conv1.weight", tensors[0].second);
  write_safetensors(folder / "w", tensors);
  EXPECT_THAT(error_of(*model, folder / "w"), HasSubstr("are the same weight"));
}

TEST(Weights, load_in_place_on_every_device) {
  const TemporaryFolder folder;
  const auto model = net(1);
  save_weights(*model, folder / "w");
  for (const Device device : test::devices()) {
    const auto loaded = net(2);
    loaded->to(device);
    const Tensor handle = loaded->named_parameters()[0].second;
    load_weights(*loaded, folder / "w");
    EXPECT_TRUE(same_bytes(handle, model->named_parameters()[0].second));
    EXPECT_EQ(weights_hash(*loaded), weights_hash(*model));
  }
}

}  // namespace
}  // namespace retort::nn
