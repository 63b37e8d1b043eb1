#include "nn/models/registry.h"

#include <algorithm>
#include <optional>

#include "nn/models/mlp.h"
#include "nn/models/resnet.h"

namespace retort::nn {
namespace {

struct CifarNet {
  const char* name;
  int depth;  // 6n + 2
  bool wide;  // RepDistiller's x4 layout
};
constexpr CifarNet kCifarNets[] = {
    {"resnet8", 8, false},     {"resnet14", 14, false}, {"resnet20", 20, false},
    {"resnet32", 32, false},   {"resnet44", 44, false}, {"resnet56", 56, false},
    {"resnet110", 110, false}, {"resnet8x4", 8, true},  {"resnet32x4", 32, true},
};

struct ImagenetNet {
  const char* name;
  bool bottleneck;
  std::array<int, 4> blocks;
};
constexpr ImagenetNet kImagenetNets[] = {
    {"resnet18", false, {2, 2, 2, 2}},  {"resnet34", false, {3, 4, 6, 3}},
    {"resnet50", true, {3, 4, 6, 3}},   {"resnet101", true, {3, 4, 23, 3}},
    {"resnet152", true, {3, 8, 36, 3}},
};

ResNetConfig cifar_net(const CifarNet& net, const ModelConfig& config) {
  ResNetConfig c;
  const int n = (net.depth - 2) / 6;
  c.blocks = {n, n, n};
  std::vector<std::int64_t> widths = config.widths;
  if (widths.empty())
    widths = net.wide ? std::vector<std::int64_t>{32, 64, 128, 256}
                      : std::vector<std::int64_t>{16, 16, 32, 64};
  RETORT_CHECK(widths.size() == 4, "[make_model] expected 4 widths (stem and 3 stages) for ",
               config.arch, ", got ", widths.size());
  c.stem_width = widths[0];
  c.widths.assign(widths.begin() + 1, widths.end());
  c.shortcut = net.wide ? ResNetConfig::Shortcut::kB : ResNetConfig::Shortcut::kA;
  if (!net.wide) {  // as akamaster/pytorch_resnet_cifar10
    c.fan = Fan::kIn;
    c.he_head = true;
    c.head_name = "linear";
    c.shortcut_name = "shortcut";
  }
  return c;
}

ResNetConfig imagenet_net(const ImagenetNet& net, const ModelConfig& config, bool cifar_stem) {
  RETORT_CHECK(config.widths.empty(), "[make_model] ", config.arch,
               " has fixed widths, got widths");
  ResNetConfig c;
  c.stem = cifar_stem ? ResNetConfig::Stem::k3x3 : ResNetConfig::Stem::k7x7MaxPool;
  c.bottleneck = net.bottleneck;
  c.blocks.assign(net.blocks.begin(), net.blocks.end());
  c.widths = {64, 128, 256, 512};
  c.stem_width = 64;
  return c;
}

std::optional<ResNetConfig> find_resnet(const ModelConfig& config) {
  for (const CifarNet& net : kCifarNets)
    if (config.arch == net.name) return cifar_net(net, config);
  for (const ImagenetNet& net : kImagenetNets) {
    if (config.arch == net.name) return imagenet_net(net, config, false);
    if (config.arch == std::string(net.name) + "_cifar") return imagenet_net(net, config, true);
  }
  return std::nullopt;
}

std::shared_ptr<Model> make_resnet(ResNetConfig c, const ModelConfig& config) {
  RETORT_CHECK(!config.scalar_output, "[make_model] scalar_output belongs to mlp, got ",
               config.arch);
  RETORT_CHECK(config.shortcut.empty() || config.shortcut == "A" || config.shortcut == "B",
               "[make_model] expected shortcut A or B, got '", config.shortcut, "'");
  for (const std::int64_t width : c.widths)
    RETORT_CHECK(width >= 1, "[make_model] expected widths >= 1, got ", width);
  RETORT_CHECK(c.stem_width >= 1, "[make_model] expected widths >= 1, got ", c.stem_width);
  if (config.shortcut == "A") {
    RETORT_CHECK(!c.bottleneck && c.blocks.size() == 3,
                 "[make_model] shortcut A belongs to the CIFAR nets, got ", config.arch);
    c.shortcut = ResNetConfig::Shortcut::kA;
  } else if (config.shortcut == "B") {
    c.shortcut = ResNetConfig::Shortcut::kB;
  }
  c.input_channels = config.input_channels;
  c.classes = config.classes;
  return std::make_shared<ResNet>(c);
}

std::shared_ptr<Model> make_mlp(const ModelConfig& config) {
  RETORT_CHECK(config.shortcut.empty(), "[make_model] mlp has no shortcut, got '", config.shortcut,
               "'");
  const auto hidden = config.widths.empty() ? std::vector<std::int64_t>{256} : config.widths;
  return std::make_shared<Mlp>(config.inputs, hidden, config.classes, config.scalar_output);
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names{"mlp"};
  for (const CifarNet& net : kCifarNets) names.emplace_back(net.name);
  for (const ImagenetNet& net : kImagenetNets) {
    names.emplace_back(net.name);
    names.push_back(std::string(net.name) + "_cifar");
  }
  return names;
}

std::shared_ptr<Model> make_model(const ModelConfig& config) {
  RETORT_CHECK(config.classes >= 1, "[make_model] expected classes >= 1, got ", config.classes);
  RETORT_CHECK(config.input_channels >= 1, "[make_model] expected input_channels >= 1, got ",
               config.input_channels);
  std::shared_ptr<Model> model;
  if (config.arch == "mlp") {
    model = make_mlp(config);
  } else if (const auto resnet = find_resnet(config)) {
    model = make_resnet(*resnet, config);
  } else {
    std::string known;
    for (const std::string& name : model_names()) known += (known.empty() ? "" : ", ") + name;
    fail(ErrorCode::kUsage, "[make_model] unknown model '", config.arch, "'; known: ", known);
  }
  if (config.initialize) model->initialize(config.seed);
  return model;
}

}  // namespace retort::nn
