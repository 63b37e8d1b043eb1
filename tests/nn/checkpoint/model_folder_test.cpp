// Folders of Hugging Face's: what is read, what is ignored, what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "nn/checkpoint/weight_files.h"
#include "nn/checkpoint/weights.h"
#include "nn/models/registry.h"
#include "tests/support/close.h"
#include "tests/support/temporary_folder.h"

namespace retort::nn {
namespace {

using test::same_bytes;
using test::TemporaryFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::shared_ptr<Model> tiny(const char* arch, TextTask task, std::uint64_t seed = 1) {
  return make_model({.arch = arch,
                     .classes = 3,
                     .seed = seed,
                     .options = {{"layers", std::int64_t{2}},
                                 {"hidden_size", std::int64_t{8}},
                                 {"heads", std::int64_t{2}},
                                 {"intermediate", std::int64_t{12}},
                                 {"positions", std::int64_t{6}}},
                     .task = task,
                     .ids = 11});
}

// The tensors of a model, to be written otherwise.
class File {
 public:
  explicit File(const Model& model) : tensors_(weights_of(model)) {}
  Tensor& at(const std::string& name) {
    for (auto& [n, tensor] : tensors_)
      if (n == name) return tensor;
    ADD_FAILURE() << "no " << name;
    return tensors_[0].second;
  }
  void add(const std::string& name, const Tensor& tensor) { tensors_.emplace_back(name, tensor); }
  void drop(const std::string& name) {
    std::erase_if(tensors_, [&](const auto& t) { return t.first == name; });
  }
  template <class F>
  void rename(const F& f) {
    for (auto& [name, tensor] : tensors_) name = f(name);
  }
  template <class F>
  void change(const F& f) {
    for (auto& [name, tensor] : tensors_) tensor = f(tensor);
  }
  void write(const std::string& path) const { write_safetensors(path, tensors_); }
  const NamedTensors& tensors() const { return tensors_; }

 private:
  NamedTensors tensors_;
};

std::string error_of(Module& module, const std::string& path) {
  const std::string before = weights_hash(module);
  try {
    load_weights(module, path);
    return "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput) << e.what();
    EXPECT_EQ(weights_hash(module), before);
    return e.what();
  }
}

TEST(ModelFolder, other_spellings_and_types_are_read) {
  const TemporaryFolder folder;
  const auto model = tiny("bert", TextTask::kMaskedLm);
  const std::string wanted = weights_hash(*model);
  File legacy(*model);  // no prefix on the body, gamma and beta, a decoder written out, leftovers
  legacy.add("cls.predictions.decoder.weight", legacy.at("bert.embeddings.word_embeddings.weight"));
  legacy.add("cls.predictions.decoder.bias", legacy.at("cls.predictions.bias"));
  legacy.add("bert.embeddings.position_ids", Tensor::from<std::int64_t>({0, 1}, {1, 2}));
  legacy.add("bert.pooler.dense.weight", Tensor::zeros({8, 8}));
  legacy.add("cls.seq_relationship.bias", Tensor::zeros({2}));
  legacy.rename([](std::string name) {
    if (name.starts_with("bert.")) name.erase(0, 5);
    for (const auto& [ours, theirs] : {std::pair(".LayerNorm.weight", ".LayerNorm.gamma"),
                                       {".LayerNorm.bias", ".LayerNorm.beta"}})
      if (const auto at = name.find(ours); at != std::string::npos)
        name.replace(at, std::string(ours).size(), theirs);
    return name;
  });
  legacy.write(folder / "legacy");
  const auto other = tiny("bert", TextTask::kMaskedLm, 2);
  EXPECT_EQ(load_weights(*other, folder / "legacy").ignored.size(), 3u);
  EXPECT_EQ(weights_hash(*other), wanted);

  File exact(*model);
  exact.change([](const Tensor& t) { return t.to(DType::kBF16).to(DType::kF32); });
  exact.write(folder / "exact");
  load_weights(*model, folder / "exact");
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF64}) {
    File stored(*model);
    stored.change([&](const Tensor& t) { return t.to(dtype); });
    stored.write(folder / "stored");
    load_weights(*other, folder / "stored");
    for (const auto& [path, parameter] : other->named_parameters())
      for (const auto& [name, want] : exact.tensors())
        if (name == path && dtype != DType::kF16) {
          EXPECT_TRUE(same_bytes(parameter, want)) << path;
        }
  }
}

TEST(ModelFolder, a_decoder_that_stands_alone_is_the_embedding) {
  const TemporaryFolder folder;
  const auto model = tiny("gpt2", TextTask::kCausalLm);
  File file(*model);
  file.add("lm_head.weight", file.at("transformer.wte.weight"));
  file.drop("transformer.wte.weight");
  file.add("transformer.h.0.attn.bias", Tensor::zeros({1, 1, 6, 6}));
  file.add("transformer.h.0.attn.masked_bias", Tensor::zeros({}));
  file.write(folder / "f");
  const auto other = tiny("gpt2", TextTask::kCausalLm, 2);
  EXPECT_EQ(load_weights(*other, folder / "f").ignored.size(), 2u);
  EXPECT_EQ(weights_hash(*other), weights_hash(*model));
}

TEST(ModelFolder, matrices_of_gpt2_lie_the_other_way_in_files) {
  const auto model = tiny("gpt2", TextTask::kCausalLm);
  File file(*model);
  EXPECT_EQ(file.at("transformer.h.0.attn.c_attn.weight").shape(), (Shape{8, 24}));
  const float in_file = file.at("transformer.h.1.mlp.c_fc.weight").to_vector<float>()[5];
  for (const auto& [path, parameter] : model->named_parameters())
    if (path == "transformer.h.1.mlp.c_fc.weight") {
      EXPECT_EQ(parameter.shape(), (Shape{12, 8}));
      EXPECT_EQ(parameter.to_vector<float>()[5 * 8], in_file);
    }
}

TEST(ModelFolder, shards_are_found_by_their_index) {
  const TemporaryFolder folder;
  const auto model = tiny("distilbert", TextTask::kClassification);
  NamedTensors first, second;
  Json map = Json::object();
  for (const auto& [name, tensor] : weights_of(*model)) {
    auto& shard = name.find("layer.1") == std::string::npos ? first : second;
    map.set(name, &shard == &first ? "model-1-of-2.safetensors" : "model-2-of-2.safetensors");
    shard.emplace_back(name, tensor);
  }
  const std::string at = folder / "m";
  make_folders(at);
  write_safetensors(at + "/model-1-of-2.safetensors", first);
  write_safetensors(at + "/model-2-of-2.safetensors", second);
  const auto index = [&](const Json& weights) {
    write_file_atomically(
        at + "/model.safetensors.index.json",
        Json::object().set("metadata", Json::object()).set("weight_map", weights).dump());
  };
  index(map);
  const auto other = tiny("distilbert", TextTask::kClassification, 2);
  load_weights(*other, at);
  EXPECT_EQ(weights_hash(*other), weights_hash(*model));
  Json wrong = map;
  wrong.set("distilbert.transformer.layer.1.ffn.lin1.bias", "model-1-of-2.safetensors");
  index(wrong);
  EXPECT_THAT(error_of(*other, at),
              HasSubstr("there is no such tensor in model-1-of-2.safetensors"));
  index(Json::object().set("x", "../elsewhere"));
  EXPECT_THAT(error_of(*other, at), HasSubstr("expected a file's name"));
  index(Json::object());
  EXPECT_THAT(error_of(*other, at), HasSubstr("weight_map"));
}

TEST(ModelFolder, what_another_head_lacks_is_drawn_and_said) {
  const TemporaryFolder folder;
  const auto masked = tiny("bert", TextTask::kMaskedLm);
  save_model(*masked, folder / "masked");
  const auto classifier = tiny("bert", TextTask::kClassification, 2);
  const auto drawn = weights_of(*tiny("bert", TextTask::kClassification, 2));
  const WeightsInfo info = load_weights(*classifier, folder / "masked");
  EXPECT_THAT(info.drawn, ElementsAre("bert.pooler.dense.weight", "bert.pooler.dense.bias",
                                      "classifier.weight", "classifier.bias"));
  File file(*classifier);
  for (const auto& [name, tensor] : drawn)
    if (name.starts_with("classifier.")) {
      EXPECT_TRUE(same_bytes(file.at(name), tensor));
    }
  EXPECT_TRUE(same_bytes(file.at("bert.embeddings.word_embeddings.weight"),
                         File(*masked).at("bert.embeddings.word_embeddings.weight")));
  // Nothing may lack of a model of the very same class, and no part by halves.
  save_model(*classifier, folder / "classifier");
  File lacking(*classifier);
  lacking.drop("classifier.weight");
  lacking.drop("classifier.bias");
  lacking.write(folder / "classifier/model.safetensors");
  EXPECT_THAT(error_of(*classifier, folder / "classifier"),
              HasSubstr("missing: classifier.weight, classifier.bias"));
  File half(*classifier);
  half.drop("classifier.bias");
  half.write(folder / "half");
  EXPECT_THAT(error_of(*classifier, folder / "half"), HasSubstr("missing: classifier.bias"));
}

TEST(ModelFolder, all_misfits_are_told_at_once) {
  const TemporaryFolder folder;
  const auto model = tiny("bert", TextTask::kMaskedLm);
  File file(*model);
  file.drop("bert.encoder.layer.0.output.dense.bias");
  file.add("bert.encoder.layer.7.output.dense.bias", Tensor::zeros({8}));
  file.at("bert.encoder.layer.1.intermediate.dense.weight") = Tensor::zeros({8, 12});
  file.at("bert.encoder.layer.1.intermediate.dense.bias") =
      Tensor::full({12}, std::numeric_limits<double>::quiet_NaN());
  file.add("cls.predictions.decoder.weight", Tensor::zeros({11, 8}));
  file.write(folder / "f");
  const std::string message = error_of(*model, folder / "f");
  for (const char* part :
       {"missing: bert.encoder.layer.0.output.dense.bias",
        "unexpected: bert.encoder.layer.7.output.dense.bias",
        "bert.encoder.layer.1.intermediate.dense.weight: expected (12, 8), got (8, 12)",
        "not tied: cls.predictions.decoder.weight: expected the values of "
        "bert.embeddings.word_embeddings.weight",
        "'bert.encoder.layer.1.intermediate.dense.bias' has a NaN or an infinity at element 0"})
    EXPECT_THAT(message, HasSubstr(part));
}

TEST(ModelFolder, config_and_embeddings_must_agree_with_the_data) {
  const TemporaryFolder folder;
  save_model(*tiny("bert", TextTask::kMaskedLm), folder / "m");
  const auto make = [&](const char* arch, std::int64_t ids) {
    try {
      make_model({.arch = arch, .ids = ids, .folder = folder / "m"});
      return std::string("made");
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadInput);
      return std::string(e.what());
    }
  };
  EXPECT_EQ(make("bert", 11), "made");
  EXPECT_THAT(make("bert", 12), HasSubstr("at least the 12 ids that the data has, found 11"));
  EXPECT_THAT(make("distilbert", 11),
              HasSubstr("expected model_type \"distilbert\", found \"bert\""));
  make_folders(folder / "old");
  write_file_atomically(folder / "old/pytorch_model.bin", "x");
  const auto model = tiny("bert", TextTask::kMaskedLm);
  EXPECT_THAT(error_of(*model, folder / "old"), HasSubstr("safe_serialization=True"));
}

}  // namespace
}  // namespace retort::nn
