#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/autograd/autograd.h"
#include "engine/ops/linear.h"
#include "engine/ops/mse.h"
#include "engine/ops/reduce.h"
#include "engine/runtime/allocator.h"
#include "kernels/common/philox.h"
#include "nn/models/registry.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::nn {
namespace {

using test::all_close;
using test::randn;
using test::same_bytes;
using ::testing::HasSubstr;

std::int64_t count(const std::string& arch, std::int64_t classes,
                   const std::string& shortcut = "") {
  ModelConfig config{.arch = arch, .classes = classes, .initialize = false};
  if (!shortcut.empty()) config.options.set("shortcut", shortcut);
  return make_model(config)->parameter_count();
}

// The published transformers take a second to make.
Options few_layers(const std::string& arch) {
  if (model_kinds().at(arch).reads != Reads::kTokens) return {};
  return {{"layers", std::int64_t{1}}, {"hidden_size", std::int64_t{64}}};
}

// Counts of torchvision's documentation, of akamaster/pytorch_resnet_cifar10 and of RepDistiller.
TEST(Models, parameter_counts_are_the_published_ones) {
  EXPECT_EQ(count("resnet18", 1000), 11689512);
  EXPECT_EQ(count("resnet34", 1000), 21797672);
  EXPECT_EQ(count("resnet50", 1000), 25557032);
  EXPECT_EQ(count("resnet20", 10), 269722);
  EXPECT_EQ(count("resnet20", 10, "B"), 272474);
  EXPECT_EQ(count("resnet56", 10), 853018);
  EXPECT_EQ(count("resnet56", 10, "B"), 855770);
  EXPECT_EQ(count("resnet8x4", 100), 1233540);
  EXPECT_EQ(count("resnet32x4", 100), 7433860);
  EXPECT_EQ(count("resnet152", 1000), 60192808);
}

TEST(Models, mlp_by_hand) {
  for (const Device device : test::devices()) {
    const auto model =
        make_model({.arch = "mlp", .classes = 2, .options = {{"hidden", Ints{2}}}, .input = {2}});
    model->visit_parameters([](const std::string& path, Tensor& p) {
      if (path == "fc1.weight") p.copy_from(Tensor::from<float>({1, 2, -1, 1}, {2, 2}));
      if (path == "fc1.bias") p.copy_from(Tensor::from<float>({0, 1}, {2}));
      if (path == "fc2.weight") p.copy_from(Tensor::from<float>({1, 0, 2, -3}, {2, 2}));
      if (path == "fc2.bias") p.copy_from(Tensor::from<float>({0.5, 0}, {2}));
    });
    model->to(device);
    const Outputs y =
        model->forward(Tensor::from<float>({1, 1, 3, -1}, {2, 2}, device), {.hidden = true});
    ASSERT_EQ(y.pre.size(), 1u);
    EXPECT_EQ(y.pre[0].to_vector<float>(), (std::vector<float>{3, 1, 1, -3}));
    EXPECT_EQ(y.post[0].to_vector<float>(), (std::vector<float>{3, 1, 1, 0}));
    EXPECT_EQ(y.logits.to_vector<float>(), (std::vector<float>{3.5, 3, 1.5, 2}));
    EXPECT_TRUE(same_bytes(y.features, y.post[0]));  // what the last layer reads
  }
}

TEST(Models, scalar_output_gives_f_and_minus_f) {
  const auto model = make_model({.arch = "mlp",
                                 .classes = 2,
                                 .seed = 3,
                                 .options = {{"hidden", Ints{8, 4}}, {"output", "scalar"}},
                                 .input = {5}});
  EXPECT_EQ(model->parameter_count(), 5 * 8 + 8 + 8 * 4 + 4 + 4 + 1);
  const Tensor x = randn({3, 5}, 1);
  const std::vector<float> y = model->forward(x).logits.to_vector<float>();
  for (int i = 0; i < 3; ++i) {
    EXPECT_NE(y[2 * i], 0);
    EXPECT_EQ(y[2 * i], -y[2 * i + 1]);
  }
  sum(model->forward(x).logits).backward();  // f - f: the gradient vanishes, but flows
  for (const auto& [path, p] : model->named_parameters()) {
    ASSERT_TRUE(p.grad().defined()) << path;
    for (const float g : p.grad().to_vector<float>()) EXPECT_NEAR(g, 0, 1e-6) << path;
  }
}

TEST(Models, hidden_layers_alone_are_those_of_a_whole_pass) {
  for (const char* arch : {"mlp", "resnet8", "resnet18_cifar", "plain4"}) {
    const bool mlp = std::string(arch) == "mlp";
    const auto make = [&] {
      ModelConfig config{.arch = arch, .classes = 3, .seed = 4, .input = {8, 8, 3}};
      if (mlp) config.options.set("hidden", Ints{8, 7, 6});
      return make_model(config);
    };
    const Tensor x = mlp ? randn({5, 8 * 8 * 3}, 2) : randn({5, 8, 8, 3}, 2);
    const auto whole = make();
    const Outputs want = whole->forward(x, {.hidden = true});
    const auto layers = static_cast<std::int64_t>(want.post.size());
    for (std::int64_t n = 1; n <= layers; ++n) {
      const auto model = make();
      const auto at = static_cast<std::size_t>(n);
      const Outputs y = model->forward(x, {.layers = n, .hidden = true});
      EXPECT_FALSE(y.logits.defined());
      EXPECT_FALSE(y.features.defined());
      ASSERT_EQ(y.pre.size(), at);
      ASSERT_EQ(y.post.size(), at);
      for (std::size_t i = 0; i < at; ++i) {
        EXPECT_EQ(y.pre[i].to_vector<float>(), want.pre[i].to_vector<float>()) << arch;
        EXPECT_EQ(y.post[i].to_vector<float>(), want.post[i].to_vector<float>()) << arch;
      }
      // What lies behind was not computed: training mode would have moved its running statistics.
      if (mlp || n == layers) continue;
      for (const auto& [path, statistics] : model->named_buffers()) {
        const std::string next = std::to_string(n + 1);
        if (!path.starts_with("layer" + next) && !path.starts_with("bn" + next + ".")) continue;
        if (!path.ends_with("running_mean")) continue;
        for (const float v : statistics.to_vector<float>()) EXPECT_EQ(v, 0) << path;
      }
    }
    EXPECT_EQ(whole->facts().hidden_layers, layers) << arch;
    EXPECT_THROW(whole->forward(x, {.layers = -1, .hidden = true}), Error);
    EXPECT_THROW(whole->forward(x, {.layers = layers + 1, .hidden = true}), Error);
  }
}

TEST(Models, mlp_starts_like_nn_linear) {
  const auto model =
      make_model({.arch = "mlp", .seed = 1, .options = {{"hidden", Ints{64}}}, .input = {100}});
  for (const auto& [path, p] : model->named_parameters()) {
    const double bound = path.substr(0, 3) == "fc1" ? 0.1 : 0.125;
    double largest = 0;
    for (const double v : p.to_vector<double>()) largest = std::max(largest, std::abs(v));
    EXPECT_LE(largest, bound) << path;
    EXPECT_GT(largest, 0.7 * bound) << path;
  }
}

TEST(Models, he_initialisation_follows_each_original) {
  const auto sd = [](const Model& model, const std::string& name) {
    for (const auto& [path, p] : model.named_parameters())
      if (path == name) {
        double squares = 0;
        for (const double v : p.to_vector<double>()) squares += v * v;
        return std::sqrt(squares / static_cast<double>(p.numel()));
      }
    return -1.0;
  };
  const auto cifar = make_model({.arch = "resnet20"});
  EXPECT_NEAR(sd(*cifar, "layer3.0.conv1.weight"), std::sqrt(2.0 / (32 * 9)), 0.002);  // fan in
  EXPECT_NEAR(sd(*cifar, "linear.weight"), std::sqrt(2.0 / 64), 0.02);
  const auto wide = make_model({.arch = "resnet8x4"});
  EXPECT_NEAR(sd(*wide, "layer3.0.conv1.weight"), std::sqrt(2.0 / (256 * 9)), 0.001);  // fan out
  EXPECT_NEAR(sd(*wide, "fc.weight"), 1 / std::sqrt(3.0 * 256), 0.003);
}

TEST(Models, names_are_torchvisions_and_akamasters) {
  const auto names = [](const ModelConfig& config) {
    std::vector<std::string> list;
    for (const auto& [path, p] : make_model(config)->named_parameters()) list.push_back(path);
    return list;
  };
  EXPECT_THAT(names({.arch = "resnet8"}),
              ::testing::ElementsAre(
                  "conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight",
                  "layer1.0.bn1.weight", "layer1.0.bn1.bias", "layer1.0.conv2.weight",
                  "layer1.0.bn2.weight", "layer1.0.bn2.bias", "layer2.0.conv1.weight",
                  "layer2.0.bn1.weight", "layer2.0.bn1.bias", "layer2.0.conv2.weight",
                  "layer2.0.bn2.weight", "layer2.0.bn2.bias", "layer3.0.conv1.weight",
                  "layer3.0.bn1.weight", "layer3.0.bn1.bias", "layer3.0.conv2.weight",
                  "layer3.0.bn2.weight", "layer3.0.bn2.bias", "linear.weight", "linear.bias"));
  EXPECT_THAT(names({.arch = "resnet50_cifar", .initialize = false}),
              ::testing::IsSupersetOf({"layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias",
                                       "layer4.2.conv3.weight", "fc.weight"}));
}

TEST(Models, shapes_of_logits_and_hidden_activations) {
  const NoGrad no_grad;
  const struct {
    const char* arch;
    int side;
    std::vector<Shape> hidden;
  } cases[] = {
      {"resnet8", 32, {{2, 32, 32, 16}, {2, 16, 16, 32}, {2, 8, 8, 64}}},
      {"resnet8x4", 32, {{2, 32, 32, 64}, {2, 16, 16, 128}, {2, 8, 8, 256}}},
      {"resnet18", 32, {{2, 8, 8, 64}, {2, 4, 4, 128}, {2, 2, 2, 256}, {2, 1, 1, 512}}},
      {"resnet50_cifar", 8, {{2, 8, 8, 256}, {2, 4, 4, 512}, {2, 2, 2, 1024}, {2, 1, 1, 2048}}},
  };
  for (const auto& c : cases) {
    const bool small = c.hidden.size() == 3;  // zero weights do for the shapes of the large ones
    const auto model = make_model({.arch = c.arch, .classes = 7, .initialize = small});
    model->eval();
    const Tensor x = randn({2, c.side, c.side, 3}, 5);
    const Outputs y = model->forward(x, {.hidden = true});
    EXPECT_EQ(y.logits.shape(), (Shape{2, 7})) << c.arch;
    ASSERT_EQ(y.pre.size(), c.hidden.size());
    for (std::size_t i = 0; i < c.hidden.size(); ++i) {
      EXPECT_EQ(y.pre[i].shape(), c.hidden[i]) << c.arch;
      EXPECT_EQ(y.post[i].shape(), c.hidden[i]) << c.arch;
    }
    const std::vector<float> pre = y.pre[0].to_vector<float>(), post = y.post[0].to_vector<float>();
    for (std::size_t i = 0; i < pre.size(); ++i) ASSERT_EQ(post[i], std::max(pre[i], 0.0f));
    EXPECT_TRUE(all_close(model->forward(x).logits, y.logits)) << c.arch;
    EXPECT_TRUE(model->forward(x).pre.empty());
  }
}

TEST(Models, every_parameter_gets_a_gradient_and_statistics_move_in_training_only) {
  const auto model = make_model({.arch = "resnet8", .options = {{"shortcut", "B"}}});
  const Tensor x = randn({4, 8, 8, 3}, 5);
  const auto first_mean = [&] { return model->named_buffers()[0].second.to_vector<float>(); };
  const std::vector<float> start = first_mean();
  model->eval();
  model->forward(x);
  EXPECT_EQ(first_mean(), start);
  model->train();
  mse(model->forward(x).logits, Tensor::zeros({4, 10})).backward();
  EXPECT_NE(first_mean(), start);
  for (const auto& [path, p] : model->named_parameters()) {
    ASSERT_TRUE(p.grad().defined()) << path;
    double squares = 0;
    for (const double g : p.grad().to_vector<double>()) squares += g * g;
    EXPECT_GT(squares, 0) << path;
  }
}

TEST(Models, cuda_equals_cpu_forward_and_backward) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA backend: " << cuda_unavailable_reason();
  const Tensor x = randn({2, 8, 8, 3}, 5), target = randn({2, 4}, 6);
  for (const char* shortcut : {"A", "B"}) {
    const ModelConfig config{
        .arch = "resnet8", .classes = 4, .seed = 2, .options = {{"shortcut", shortcut}}};
    const auto cpu = make_model(config), cuda = make_model(config);
    cuda->to(Device::kCuda);
    const Outputs a = cpu->forward(x, {.hidden = true});
    const Outputs b = cuda->forward(x.to(Device::kCuda), {.hidden = true});
    EXPECT_TRUE(all_close(b.logits, a.logits, {1e-4, 1e-5}));  // 9 layers of other sum orders
    EXPECT_TRUE(all_close(b.pre[2], a.pre[2], {1e-4, 1e-5}));
    mse(a.logits, target).backward();
    mse(b.logits, target.to(Device::kCuda)).backward();
    const auto want = cpu->named_parameters(), got = cuda->named_parameters();
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(all_close(got[i].second.grad(), want[i].second.grad(), {1e-3, 1e-5}))
          << want[i].first;
    EXPECT_TRUE(all_close(cuda->named_buffers()[1].second, cpu->named_buffers()[1].second));
  }
}

TEST(Models, bf16_inputs_train_f32_parameters) {
  const Tensor x = randn({4, 8, 8, 3}, 5), target = randn({4, 4}, 6);
  for (const Device device : test::devices()) {
    const ModelConfig config{
        .arch = "resnet8", .classes = 4, .seed = 2, .options = {{"shortcut", "B"}}};
    const auto full = make_model(config), mixed = make_model(config);
    full->to(device);
    mixed->to(device);
    const Outputs a = full->forward(x.to(device), {.hidden = true});
    const Outputs b = mixed->forward(x.to(DType::kBF16).to(device), {.hidden = true});
    EXPECT_EQ(b.post[1].dtype(), DType::kBF16);
    EXPECT_EQ(b.logits.dtype(), DType::kF32);
    EXPECT_TRUE(all_close(b.logits, a.logits, {0.05, 0.05}));  // 8 bits, 9 layers
    mse(a.logits, target.to(device)).backward();
    mse(b.logits, target.to(device)).backward();
    double error = 0, size = 0;
    const auto want = full->named_parameters(), got = mixed->named_parameters();
    for (std::size_t i = 0; i < want.size(); ++i) {
      const Tensor gradient = got[i].second.grad();
      ASSERT_TRUE(gradient.defined()) << got[i].first;
      EXPECT_EQ(gradient.dtype(), DType::kF32);
      const std::vector<double> g = gradient.to_vector<double>(),
                                w = want[i].second.grad().to_vector<double>();
      for (std::size_t k = 0; k < g.size(); ++k)
        error += (g[k] - w[k]) * (g[k] - w[k]), size += w[k] * w[k];
    }
    EXPECT_LT(std::sqrt(error / size), 0.2) << name_of(device);  // measured 0.107: ReLUs flip
  }
}

TEST(Models, same_seed_same_model) {
  const auto one = make_model({.arch = "resnet8", .seed = 5}),
             two = make_model({.arch = "resnet8", .seed = 5}),
             other = make_model({.arch = "resnet8", .seed = 6});
  EXPECT_TRUE(same_bytes(one->named_parameters()[0].second, two->named_parameters()[0].second));
  EXPECT_FALSE(same_bytes(one->named_parameters()[0].second, other->named_parameters()[0].second));
}

TEST(Models, every_name_is_known_and_others_are_refused) {
  for (const std::string& name : model_kinds().names()) {
    const bool images = model_kinds().at(name).reads == Reads::kImages;
    const Shape input = images ? Shape{32, 32, 3} : Shape{4};
    const ModelConfig config{
        .arch = name, .options = few_layers(name), .input = input, .initialize = false};
    EXPECT_NO_THROW(make_model(config)) << name;
  }
  try {
    make_model({.arch = "resnet21"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("unknown model 'resnet21'; known: resnet8"));
  }
  EXPECT_THROW(make_model({.arch = "resnet18", .options = {{"shortcut", "A"}}}), Error);
  EXPECT_THROW(make_model({.arch = "resnet20", .options = {{"shortcut", "C"}}}), Error);
  EXPECT_THROW(make_model({.arch = "resnet20", .classes = 0}), Error);
  EXPECT_THROW(make_model({.arch = "resnet20", .options = {{"widths", Ints{16, 32, 64}}}}), Error);
  EXPECT_THROW(make_model({.arch = "mlp"}), Error);
  EXPECT_THROW(
      make_model({.arch = "mlp", .classes = 3, .options = {{"output", "scalar"}}, .input = {4}}),
      Error);
  const auto model = make_model({.arch = "resnet8"});
  EXPECT_THROW(model->forward(Tensor::zeros({1, 3, 32, 32})), Error);
}

// Stages are planned from the kind, before there is a model.
TEST(Models, facts_are_those_of_the_kind) {
  for (const std::string& name : model_kinds().names()) {
    const ModelKind& kind = model_kinds().at(name);
    const bool images = kind.reads == Reads::kImages;
    ModelConfig config{.arch = name, .classes = 7, .initialize = false};
    config.input = images ? Shape{32, 32, 3} : Shape{4};
    config.options = few_layers(name);
    if (kind.reads == Reads::kTokens) {  // its head is what the data asks for
      config.task = name == "gpt2" ? TextTask::kCausalLm : TextTask::kClassification;
      config.ids = 7;
    }
    const ModelFacts facts = make_model(config)->facts();
    EXPECT_EQ(facts.reads, kind.reads) << name;
    EXPECT_EQ(facts.classes, 7) << name;
    EXPECT_EQ(facts.hidden_layers, kind.hidden_layers(complete(config))) << name;
  }
  const ModelConfig deep{.arch = "mlp", .options = {{"hidden", Ints{8, 8, 8}}}, .input = {4}};
  EXPECT_EQ(make_model(deep)->facts().hidden_layers, 3);
  EXPECT_EQ(model_kinds().at("mlp").hidden_layers(complete(deep)), 3);
}

TEST(Models, options_of_another_kind_are_refused_with_the_nearest_of_its_own) {
  const auto error_of = [](const ModelConfig& config) -> std::string {
    try {
      make_model(config);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return e.what();
    }
    return "accepted";
  };
  EXPECT_THAT(error_of({.arch = "mlp", .options = {{"widths", Ints{8}}}, .input = {4}}),
              HasSubstr("[mlp] does not read 'widths'; it reads hidden, output"));
  EXPECT_THAT(error_of({.arch = "resnet8", .options = {{"hidden", Ints{8}}}}),
              HasSubstr("[resnet8] does not read 'hidden'"));
  EXPECT_THAT(error_of({.arch = "mlp", .options = {{"hidden", Ints{0}}}, .input = {4}}),
              HasSubstr("[mlp] hidden: expected"));
  EXPECT_THAT(error_of({.arch = "mlp", .options = {{"hidden", Ints{}}}, .input = {4}}),
              HasSubstr("[mlp] hidden: expected"));
  EXPECT_THAT(error_of({.arch = "resnt20"}), HasSubstr("did you mean 'resnet20'?"));
  // What recipes are checked with says the same before a model is made.
  const ModelKind& kind = model_kinds().at("resnet8");
  const auto fault = kind.check(complete("resnet8", kind.options, {{"widths", Ints{1, 2, 3}}}));
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->key, "widths");
}

TEST(Models, an_mlp_on_the_sign_of_one_number_has_one_output) {
  const auto parameters = [](const char* output, bool scalar_target) {
    return make_model({.arch = "mlp",
                       .classes = 2,
                       .options = {{"hidden", Ints{8}}, {"output", output}},
                       .input = {5},
                       .scalar_target = scalar_target,
                       .initialize = false})
        ->parameter_count();
  };
  const std::int64_t hidden = 5 * 8 + 8, one = hidden + 8 + 1, two = hidden + 2 * (8 + 1);
  EXPECT_EQ(parameters("auto", true), one);
  EXPECT_EQ(parameters("auto", false), two);
  EXPECT_EQ(parameters("scalar", false), one);
  EXPECT_EQ(parameters("classes", true), two);
}

TEST(Models, a_kind_from_outside_is_made_by_name) {
  if (model_kinds().find("one_layer") == nullptr)
    model_kinds().add({.names = {"one_layer"},
                       .options = {count_option("width", 6, 1, 9, "units", "Hidden units.")},
                       .hidden_layers = [](const ModelConfig&) { return 1; },
                       .make = [](const ModelConfig& c) -> std::shared_ptr<Model> {
                         return make_model({.arch = "mlp",
                                            .classes = c.classes,
                                            .options = {{"hidden", c.options.value("width")}},
                                            .input = c.input,
                                            .initialize = false});
                       }});
  const auto model = make_model({.arch = "one_layer", .classes = 3, .seed = 4, .input = {2}});
  EXPECT_EQ(model->parameter_count(), 2 * 6 + 6 + 6 * 3 + 3);
  const auto same = make_model(
      {.arch = "mlp", .classes = 3, .seed = 4, .options = {{"hidden", Ints{6}}}, .input = {2}});
  EXPECT_TRUE(same_bytes(model->named_parameters()[0].second, same->named_parameters()[0].second));
  EXPECT_THROW(model_kinds().add({.names = {"mlp"}}), Error);
}

TEST(Models, features_are_what_the_last_layer_reads) {
  const NoGrad no_grad;
  const struct {
    const char* arch;
    Shape input;
    std::int64_t features;
  } cases[] = {
      {"resnet8", {8, 8, 3}, 64}, {"resnet18_cifar", {8, 8, 3}, 512}, {"plain4", {8, 8, 3}, 128}};
  for (const auto& c : cases) {
    const auto model = make_model({.arch = c.arch, .classes = 3, .seed = 1, .input = c.input});
    model->eval();
    const Outputs y = model->forward(randn({2, 8, 8, 3}, 1));
    EXPECT_EQ(y.features.shape(), (Shape{2, c.features})) << c.arch;
    // The logits are the last layer of them.
    Tensor weight, bias;
    for (const auto& [path, p] : model->named_parameters()) {
      if (p.shape() == Shape{3, c.features}) weight = p;
      if (p.shape() == Shape{3}) bias = p;
    }
    EXPECT_TRUE(all_close(y.logits, linear(y.features, weight, bias))) << c.arch;
  }
}

}  // namespace
}  // namespace retort::nn
