// Transformers learning from transformers, beside what PyTorch and transformers compute of the same.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "distill/step.h"
#include "distill/student/initialize.h"
#include "distill/teacher/teacher.h"
#include "nn/checkpoint/weights.h"
#include "nn/models/transformer/transformer.h"
#include "nn/optim/optimizer.h"
#include "tests/support/close.h"

namespace retort::distill {
namespace {

using test::same_bytes;

std::string golden_folder() {
  const char* const other = std::getenv("RETORT_HUGGING_FACE_GOLDEN");
  return other != nullptr ? other
                          : std::string(RETORT_SOURCE_DIR).append("/tests/golden/hugging_face");
}

std::shared_ptr<nn::Model> model_of(const std::string& name) {
  const std::string folder = golden_folder() + "/" + name;
  const auto model =
      nn::make_model({.arch = "bert", .options = {{"dropout", 0.0}}, .folder = folder});
  nn::load_weights(*model, folder);
  return model;
}

// tests/golden/hugging_face.py, train(): AdamW, lambda 0.5, tau 2, four batches in turn.
TEST(TransformerDistillation, forty_steps_have_the_losses_of_pytorch) {
  std::map<std::string, Tensor> golden;
  for (auto& [key, tensor] :
       read_safetensors(golden_folder() + "/bert_masked_lm/golden.safetensors"))
    golden.emplace(key, tensor);
  std::vector<nn::Batch> batches;
  for (int i = 0; i < 4; ++i) {
    const auto ints = [&](const char* what) {
      return golden.at("kd." + std::to_string(i) + "." + what).to_vector<std::int32_t>();
    };
    const std::vector<std::int32_t> rows = ints("rows"), starts = ints("starts");
    const Tensor ids = golden.at("kd." + std::to_string(i) + ".ids");
    nn::Batch batch(nn::Inputs::tokens(ids, starts, rows), {});
    batch.inputs[0].segments = golden.at("kd." + std::to_string(i) + ".segments");
    batch.targets = golden.at("kd." + std::to_string(i) + ".labels");
    std::vector<std::int32_t> sample_of_row;
    for (const std::int32_t row : rows) {
      std::int32_t sample = 0;
      while (starts[static_cast<std::size_t>(sample) + 1] <= row) ++sample;
      sample_of_row.push_back(sample);
    }
    batch.set_rows(sample_of_row);
    batches.push_back(std::move(batch));
  }
  const Teacher teacher(model_of("bert_masked_lm"));
  const auto student = model_of("student");
  nn::AdamWConfig config;
  config.learning_rate = 1e-3;
  config.weight_decay = 0.01;
  config.decay_norm_and_bias = false;
  nn::AdamW optimizer(*student, config);
  const std::vector<double> wanted = golden.at("kd").to_vector<double>();
  ASSERT_EQ(wanted.size(), 40u);
  double worst = 0;
  for (std::size_t step = 0; step < wanted.size(); ++step) {
    StepSettings settings;
    settings.lambda = {0.5f};
    settings.temperature = {2.0f};
    const StepReport report = distill_step(&teacher, *student, batches[step % 4], settings, [&] {
      optimizer.step();
      optimizer.zero_grad();
    });
    worst = std::max(worst, std::abs(report.loss() - wanted[step]) / wanted[step]);
  }
  EXPECT_LE(worst, 2e-5);
  EXPECT_LT(wanted[39], 0.8 * wanted[0]);
}

std::shared_ptr<nn::Model> tiny(const char* arch, std::int64_t layers, nn::TextTask task,
                                std::uint64_t seed) {
  return nn::make_model({.arch = arch,
                         .classes = 2,
                         .seed = seed,
                         .options = {{"layers", layers},
                                     {"hidden_size", std::int64_t{8}},
                                     {"heads", std::int64_t{2}},
                                     {"positions", std::int64_t{6}}},
                         .task = task,
                         .ids = 11});
}

Tensor parameter(const nn::Model& model, const std::string& name) {
  for (const auto& [path, tensor] : model.named_parameters())
    if (path == name) return tensor;
  ADD_FAILURE() << "no " << name;
  return {};
}

std::vector<std::string> copy_every_second(nn::Model& student, const nn::Model& teacher) {
  return copy_layers(student, teacher,
                     every_second_layer(dynamic_cast<const nn::Transformer&>(student),
                                        dynamic_cast<const nn::Transformer&>(teacher)));
}

TEST(EverySecondLayer, embeddings_and_head_come_with_the_layers) {
  const auto teacher = tiny("bert", 6, nn::TextTask::kMaskedLm, 1);
  const auto student = tiny("distilbert", 3, nn::TextTask::kMaskedLm, 2);
  const auto copied = copy_every_second(*student, *teacher);
  EXPECT_EQ(copied.size(), student->named_parameters().size());  // everything there is
  const auto same = [&](const char* own, const char* theirs) {
    EXPECT_TRUE(same_bytes(parameter(*student, own), parameter(*teacher, theirs))) << own;
  };
  same("distilbert.transformer.layer.1.attention.q_lin.weight",
       "bert.encoder.layer.2.attention.self.query.weight");
  same("distilbert.transformer.layer.2.ffn.lin2.bias", "bert.encoder.layer.4.output.dense.bias");
  same("distilbert.transformer.layer.2.output_layer_norm.weight",
       "bert.encoder.layer.4.output.LayerNorm.weight");
  same("distilbert.embeddings.position_embeddings.weight",
       "bert.embeddings.position_embeddings.weight");
  same("vocab_projector.bias", "cls.predictions.bias");
  same("vocab_transform.weight", "cls.predictions.transform.dense.weight");
}

TEST(EverySecondLayer, of_as_many_layers_it_is_a_copy_and_of_too_many_a_mistake) {
  const auto teacher = tiny("bert", 3, nn::TextTask::kClassification, 1);
  const auto same = tiny("bert", 3, nn::TextTask::kClassification, 2);
  copy_every_second(*same, *teacher);
  EXPECT_EQ(nn::weights_hash(*same), nn::weights_hash(*teacher));
  const auto two = tiny("bert", 2, nn::TextTask::kClassification, 2);
  copy_every_second(*two, *teacher);
  EXPECT_TRUE(same_bytes(parameter(*two, "bert.encoder.layer.1.output.dense.weight"),
                         parameter(*teacher, "bert.encoder.layer.2.output.dense.weight")));
  EXPECT_TRUE(
      same_bytes(parameter(*two, "classifier.weight"), parameter(*teacher, "classifier.weight")));
  const auto deep = tiny("bert", 4, nn::TextTask::kClassification, 2);
  EXPECT_THROW(copy_every_second(*deep, *teacher), Error);
  const auto decoder = tiny("gpt2", 2, nn::TextTask::kCausalLm, 2);
  EXPECT_THROW(copy_every_second(*decoder, *teacher), Error);
}

}  // namespace
}  // namespace retort::distill
