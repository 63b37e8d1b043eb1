// The published residual networks, by name.
#include <array>

#include "nn/models/resnet.h"

namespace retort::nn {
namespace {

struct CifarNet {
  const char* name;
  int depth;  // 6n + 2
};
constexpr CifarNet kCifarNets[] = {{"resnet8", 8},    {"resnet14", 14}, {"resnet20", 20},
                                   {"resnet32", 32},  {"resnet44", 44}, {"resnet56", 56},
                                   {"resnet110", 110}};
constexpr CifarNet kWideCifarNets[] = {{"resnet8x4", 8}, {"resnet32x4", 32}};

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
constexpr const char* kCifarStem = "_cifar";

std::shared_ptr<Model> make(ResNetConfig c, const ModelConfig& config) {
  const std::string& shortcut = config.options.text("shortcut");
  if (shortcut == "A") c.shortcut = ResNetConfig::Shortcut::kA;
  if (shortcut == "B") c.shortcut = ResNetConfig::Shortcut::kB;
  c.input_channels = config.input_channels();
  c.classes = config.classes;
  return std::make_shared<ResNet>(c);
}

template <std::size_t N>
int depth_of(const CifarNet (&nets)[N], const std::string& name) {
  for (const CifarNet& net : nets)
    if (name == net.name) return net.depth;
  fail(ErrorCode::kUsage, "[resnet] no CIFAR net is called ", name);
}

std::optional<OptionFault> check_widths(const Options& options) {
  const std::size_t widths = options.integers("widths").size();
  if (widths == 0 || widths == 4) return std::nullopt;
  return OptionFault{"widths",
                     "expected 4 (stem and 3 stages) or none, got " + std::to_string(widths)};
}

ResNetConfig cifar_config(int depth, const Ints& published, const ModelConfig& config) {
  const Ints& given = config.options.integers("widths");
  const Ints& widths = given.empty() ? published : given;
  if (const auto fault = check_widths(config.options))
    fail(ErrorCode::kUsage, "[make_model] ", config.arch, ": ", fault->key, ": ", fault->message);
  ResNetConfig c;
  const int n = (depth - 2) / 6;
  c.blocks = {n, n, n};
  c.stem_width = widths[0];
  c.widths.assign(widths.begin() + 1, widths.end());
  return c;
}

std::vector<OptionSpec> cifar_options() {
  return {
      choice_option("shortcut", "auto", "auto|A|B",
                    "Residual shortcut of CIFAR ResNets: A pads, B projects.")
          .with(kChangesCost),
      ints_option("widths", {}, 1, 65536, "channels",
                  "Channels of a CIFAR ResNet's stem and its three stages; empty: as published.")
          .with(kChangesCost)};
}

}  // namespace

ModelKind cifar_resnet_kind() {
  ModelKind kind;
  for (const CifarNet& net : kCifarNets) kind.names.emplace_back(net.name);
  kind.reads = Reads::kImages;
  kind.options = cifar_options();
  kind.check = check_widths;
  kind.doc = "CIFAR nets of He et al. 2016, section 4.2; 6n + 2 layers in three stages";
  kind.hidden_layers = [](const ModelConfig&) { return 3; };
  kind.make = [](const ModelConfig& config) {
    ResNetConfig c = cifar_config(depth_of(kCifarNets, config.arch), {16, 16, 32, 64}, config);
    c.shortcut = ResNetConfig::Shortcut::kA;
    c.fan = Fan::kIn;  // as akamaster/pytorch_resnet_cifar10, and the names
    c.he_head = true;
    c.head_name = "linear";
    c.shortcut_name = "shortcut";
    return make(c, config);
  };
  return kind;
}

ModelKind wide_cifar_resnet_kind() {
  ModelKind kind;
  for (const CifarNet& net : kWideCifarNets) kind.names.emplace_back(net.name);
  kind.reads = Reads::kImages;
  kind.options = cifar_options();
  kind.check = check_widths;
  kind.doc = "CIFAR nets in the wider layout of Tian et al. (RepDistiller)";
  kind.hidden_layers = [](const ModelConfig&) { return 3; };
  kind.make = [](const ModelConfig& config) {
    ResNetConfig c =
        cifar_config(depth_of(kWideCifarNets, config.arch), {32, 64, 128, 256}, config);
    c.shortcut = ResNetConfig::Shortcut::kB;
    return make(c, config);
  };
  return kind;
}

ModelKind imagenet_resnet_kind() {
  ModelKind kind;
  for (const ImagenetNet& net : kImagenetNets) {
    kind.names.emplace_back(net.name);
    kind.names.push_back(std::string(net.name) + kCifarStem);
  }
  kind.reads = Reads::kImages;
  kind.options = {choice_option("shortcut", "auto", "auto|B", "Residual shortcut: B projects.")
                      .with(kChangesCost)};
  kind.doc = "torchvision's nets, with a 7x7 stem and max pool, or (_cifar) a 3x3 stem";
  kind.hidden_layers = [](const ModelConfig&) { return 4; };
  kind.make = [](const ModelConfig& config) -> std::shared_ptr<Model> {
    for (const ImagenetNet& net : kImagenetNets) {
      const bool cifar_stem = config.arch == std::string(net.name) + kCifarStem;
      if (config.arch != net.name && !cifar_stem) continue;
      ResNetConfig c;
      c.stem = cifar_stem ? ResNetConfig::Stem::k3x3 : ResNetConfig::Stem::k7x7MaxPool;
      c.bottleneck = net.bottleneck;
      c.blocks.assign(net.blocks.begin(), net.blocks.end());
      c.widths = {64, 128, 256, 512};
      c.stem_width = 64;
      return make(c, config);
    }
    fail(ErrorCode::kUsage, "[resnet] no net is called ", config.arch);
  };
  return kind;
}

}  // namespace retort::nn
