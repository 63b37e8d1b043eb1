// Transformers against transformers: tests/golden/hugging_face.py wrote what it computes of tiny models in double.
#include "nn/models/transformer/transformer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "engine/autograd/autograd.h"
#include "engine/io/json.h"
#include "nn/checkpoint/weights.h"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"

namespace retort::nn {
namespace {

using test::same_bytes;
using ::testing::HasSubstr;

// Another folder that the script wrote may be named (tests/golden/hugging_face_peer.cmake).
std::string golden_folder() {
  const char* const other = std::getenv("RETORT_HUGGING_FACE_GOLDEN");
  return other != nullptr ? other : std::string(RETORT_SOURCE_DIR) + "/tests/golden/hugging_face";
}

using Golden = std::map<std::string, Tensor>;
Golden golden_of(const std::string& name) {
  Golden all;
  for (auto& [key, tensor] : read_safetensors(golden_folder() + "/" + name + "/golden.safetensors"))
    all.emplace(key, tensor);
  return all;
}

std::shared_ptr<Model> model_of(const std::string& name) {
  const std::string folder = golden_folder() + "/" + name;
  const Json config = Json::read(folder + "/config.json");
  ModelConfig c{
      .arch = config.at("model_type").as_string(), .classes = 3, .choices = 2, .folder = folder};
  const auto model = make_model(c);
  const WeightsInfo info = load_weights(*model, folder);
  EXPECT_TRUE(info.drawn.empty()) << info.drawn.size();
  model->eval();
  return model;
}

std::vector<std::int32_t> ints(const Tensor& t) { return t.to_vector<std::int32_t>(); }

Inputs inputs_of(const Golden& g, const std::string& name, Device device) {
  Inputs in = Inputs::tokens(g.at("ids").to(device), ints(g.at("starts")),
                             g.contains("rows") ? ints(g.at("rows")) : std::vector<std::int32_t>{});
  in.segments = g.at("segments").to(device);
  if (name.find("choice") != std::string::npos) in.choices = 2;
  return in;
}

double farthest(const Tensor& got, const Tensor& want) {
  if (!(got.shape() == want.shape())) return INFINITY;
  const std::vector<double> a = got.to_vector<double>(), b = want.to_vector<double>();
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::isfinite(a[i]) ? std::max(worst, std::abs(a[i] - b[i])) : INFINITY;
  return worst;
}
double largest(const Tensor& t) { return farthest(t, Tensor::zeros(t.shape(), t.dtype())); }

// Mean cross-entropy of the rows, and its gradient by the logits.
double cross_entropy(const Tensor& logits, const std::vector<std::int32_t>& labels,
                     Tensor* dlogits) {
  const std::vector<double> z = logits.to_vector<double>();
  const auto n = static_cast<std::size_t>(logits.dim(0)),
             v = static_cast<std::size_t>(logits.dim(1));
  std::vector<float> d(z.size());
  double loss = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::size_t c = 0; c < v; ++c) sum += std::exp(z[i * v + c]);
    for (std::size_t c = 0; c < v; ++c)
      d[i * v + c] = static_cast<float>(
          (std::exp(z[i * v + c]) / sum - (static_cast<std::int32_t>(c) == labels[i] ? 1 : 0)) /
          static_cast<double>(n));
    loss +=
        (std::log(sum) - z[i * v + static_cast<std::size_t>(labels[i])]) / static_cast<double>(n);
  }
  *dlogits = Tensor::from(d, logits.shape(), logits.device());
  return loss;
}

class TransformerGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(TransformerGolden, logits_layers_and_gradients) {
  const std::string name = GetParam();
  const Golden g = golden_of(name);
  for (const Device device : test::devices()) {
    const auto model = model_of(name);
    model->to(device);
    const Inputs in = inputs_of(g, name, device);
    const Outputs out = model->forward(in, {.hidden = true});
    EXPECT_LE(farthest(out.logits, g.at("logits")), 5e-5) << name;
    EXPECT_LE(farthest(out.embeddings, g.at("embeddings")), 5e-5) << name;
    ASSERT_EQ(static_cast<std::int64_t>(out.post.size()), model->facts().hidden_layers);
    for (std::size_t i = 0; i < out.post.size(); ++i)
      EXPECT_LE(farthest(out.post[i], g.at("layer." + std::to_string(i))), 5e-5)
          << name << " " << i;
    Tensor dlogits;
    const double loss = cross_entropy(out.logits, ints(g.at("labels")), &dlogits);
    EXPECT_NEAR(loss, g.at("loss").to_vector<double>()[0], 1e-5) << name;
    out.logits.backward(dlogits);
    const Module::FileRules rules = model->file_rules();
    std::size_t checked = 0;
    for (const auto& [path, parameter] : model->named_parameters()) {
      Tensor want = g.at("grad." + path);
      Tensor got = parameter.grad();
      ASSERT_TRUE(got.defined()) << path;
      for (const std::string& end : rules.transposed)
        if (path.ends_with(end)) {  // (in, out) there
          const std::vector<float> w = want.to_vector<float>();
          const std::int64_t in_width = want.dim(0), out_width = want.dim(1);
          std::vector<float> t(w.size());
          for (std::int64_t i = 0; i < in_width; ++i)
            for (std::int64_t o = 0; o < out_width; ++o)
              t[static_cast<std::size_t>(o * in_width + i)] =
                  w[static_cast<std::size_t>(i * out_width + o)];
          want = Tensor::from(t, {out_width, in_width});
        }
      // A key's bias moves every score of a row alike: its gradient is 0 but for rounding.
      EXPECT_LE(farthest(got, want), 3e-5 * std::max(largest(want), 5e-2)) << name << " " << path;
      ++checked;
    }
    EXPECT_GT(checked, 20u);
  }
}

// How far a model's logits, and all its gradients together, are from the golden ones: the first as a
// share of the largest, the second of their norm.
struct Distance {
  double logits = 0, gradients = 0;
};
Distance distance_from(const Golden& g, const Model& model, const Tensor& logits) {
  Tensor dlogits;
  cross_entropy(logits, ints(g.at("labels")), &dlogits);
  logits.backward(dlogits);
  const Module::FileRules rules = model.file_rules();
  double squares = 0, errors = 0;
  for (const auto& [path, parameter] : model.named_parameters()) {
    const bool turned =
        std::any_of(rules.transposed.begin(), rules.transposed.end(),
                    [&path = path](const std::string& end) { return path.ends_with(end); });
    if (turned) continue;  // (in, out) in the file
    const std::vector<double> got = parameter.grad().to_vector<double>(),
                              want = g.at("grad." + path).to_vector<double>();
    for (std::size_t i = 0; i < got.size(); ++i) {
      squares += want[i] * want[i];
      errors += (got[i] - want[i]) * (got[i] - want[i]);
    }
  }
  return {farthest(logits, g.at("logits")) / largest(g.at("logits")), std::sqrt(errors / squares)};
}

// These models magnify what is rounded, each by its own factor: in f32 with parameters of 8 bits they are
// as far off as shows here.
TEST_P(TransformerGolden, activations_may_be_bf16) {
  const std::string name = GetParam();
  const Golden g = golden_of(name);
  for (const Device device : test::devices()) {
    const auto rounded = model_of(name), model = model_of(name);
    for (const auto& [path, p] : rounded->named_parameters())
      p.copy_from(p.to(DType::kBF16).to(DType::kF32));
    rounded->to(device);
    model->to(device);
    Inputs in = inputs_of(g, name, device);
    const Distance floor = distance_from(g, *rounded, rounded->forward(in).logits);
    in.activations = DType::kBF16;
    const Outputs out = model->forward(in, {.hidden = true});
    for (const Tensor& layer : out.post) EXPECT_EQ(layer.dtype(), DType::kBF16);
    EXPECT_EQ(out.logits.dtype(), DType::kF32);
    const Distance got = distance_from(g, *model, out.logits);
    for (const auto& [path, parameter] : model->named_parameters())
      EXPECT_EQ(parameter.grad().dtype(), DType::kF32) << path;
    EXPECT_LE(got.logits, 5 * floor.logits) << name;
    EXPECT_LE(got.gradients, 5 * floor.gradients) << name;
    EXPECT_GT(got.logits, 1e-3) << name;  // it is not f32
    // A part of the batch is computed likewise, whoever reads the same ids in another dtype.
    Batch both(in, Tensor::zeros({in.samples()}, DType::kI32));
    both.inputs.push_back(in);
    both.inputs[0].activations = DType::kF32;
    const Batch part = both.slice(0, 1);
    EXPECT_EQ(part.inputs[0].activations, DType::kF32);
    EXPECT_EQ(part.inputs[1].activations, DType::kBF16);
  }
}

TEST_P(TransformerGolden, saved_anew_it_is_the_same_file) {
  const std::string name = GetParam();
  const test::TemporaryFolder temporary;
  const char* const peer = std::getenv("RETORT_HUGGING_FACE_GOLDEN");
  const std::string folder = peer ? std::string(peer) + "/saved/" + name : temporary / name;
  const auto model = model_of(name);
  save_model(*model, folder);
  const std::string theirs = golden_folder() + "/" + name;
  std::map<std::string, Tensor> saved;
  for (auto& [key, tensor] : read_safetensors(folder + "/model.safetensors")) saved[key] = tensor;
  std::size_t count = 0;
  for (const auto& [key, tensor] : read_safetensors(theirs + "/model.safetensors")) {
    ASSERT_TRUE(saved.contains(key)) << key;
    EXPECT_TRUE(same_bytes(saved[key], tensor)) << key;
    ++count;
  }
  EXPECT_EQ(saved.size(), count);  // tied weights once
  const std::string config = folder + "/config.json";
  EXPECT_EQ(parse_transformer_config(Json::read(config), config),
            parse_transformer_config(Json::read(theirs + "/config.json"), "theirs"));
}

INSTANTIATE_TEST_SUITE_P(Models, TransformerGolden,
                         ::testing::Values("bert_masked_lm", "bert_classification",
                                           "bert_multiple_choice", "distilbert_masked_lm",
                                           "distilbert_classification", "gpt2_causal_lm"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TransformerMiniLm, golden_hidden_states_of_real_weights) {
  const char* const data = std::getenv("RETORT_DATA");
  if (data == nullptr) GTEST_SKIP() << "RETORT_DATA is not set: no MiniLM";
  const std::string folder = std::string(data) + "/weights/minilm-l6-h384-uncased";
  const auto model = make_model({.arch = "bert", .initialize = false, .folder = folder});
  EXPECT_TRUE(load_weights(*model, folder).drawn.empty());
  EXPECT_EQ(model->parameter_count(), 22713216);
  model->eval();
  const NoGrad no_grad;
  const Json golden = Json::read(folder + "/golden.json");
  std::vector<std::int32_t> ids, segments, starts{0};
  for (const Json& item : golden.at("items").items()) {
    for (const Json& id : item.at("input_ids").items())
      ids.push_back(static_cast<std::int32_t>(id.as_integer()));
    for (const Json& type : item.at("token_type_ids").items())
      segments.push_back(static_cast<std::int32_t>(type.as_integer()));
    starts.push_back(static_cast<std::int32_t>(ids.size()));
  }
  const auto tokens = static_cast<std::int64_t>(ids.size());
  Inputs in = Inputs::tokens(Tensor::from(ids, {tokens}), starts);
  in.segments = Tensor::from(segments, {tokens});
  const Outputs out = model->forward(in, {.hidden = true});
  std::vector<std::vector<double>> hidden{out.embeddings.to_vector<double>()};
  for (const Tensor& layer : out.post) hidden.push_back(layer.to_vector<double>());
  double of_states = 0, of_rms = 0;
  for (std::size_t b = 0; b + 1 < starts.size(); ++b) {
    const Json& item = golden.at("items").items()[b];
    const auto first = static_cast<std::size_t>(starts[b]),
               last = static_cast<std::size_t>(starts[b + 1]);
    for (std::size_t c = 0; c < 384; ++c) {
      double mean = 0;
      for (std::size_t t = first; t < last; ++t) mean += hidden.back()[t * 384 + c];
      mean /= static_cast<double>(last - first);
      of_states = std::max(
          {of_states, std::abs(mean - item.at("mean").items()[c].as_number()),
           std::abs(hidden.back()[first * 384 + c] - item.at("cls").items()[c].as_number())});
    }
    for (std::size_t l = 0; l < hidden.size(); ++l) {
      double sum = 0;
      for (std::size_t i = first * 384; i < last * 384; ++i) sum += hidden[l][i] * hidden[l][i];
      of_rms =
          std::max(of_rms, std::abs(std::sqrt(sum / static_cast<double>((last - first) * 384)) -
                                    item.at("layer_rms").items()[l].as_number()));
    }
  }
  EXPECT_LE(of_states, 2e-5);
  EXPECT_LE(of_rms, 2e-5);
  std::printf("MiniLM: [CLS] and means within %.1e, RMS of layers within %.1e\n", of_states,
              of_rms);
}

ModelConfig tiny(const char* arch, TextTask task, double dropout = 0) {
  return {.arch = arch,
          .classes = 3,
          .seed = 7,
          .options = {{"layers", std::int64_t{2}},
                      {"hidden_size", std::int64_t{16}},
                      {"heads", std::int64_t{2}},
                      {"positions", std::int64_t{12}},
                      {"dropout", dropout}},
          .task = task,
          .ids = 31};
}

Inputs batch_of(const std::vector<std::vector<std::int32_t>>& texts, Device device = Device::kCpu) {
  std::vector<std::int32_t> ids, starts{0};
  for (const auto& text : texts) {
    ids.insert(ids.end(), text.begin(), text.end());
    starts.push_back(static_cast<std::int32_t>(ids.size()));
  }
  return Inputs::tokens(Tensor::from(ids, {static_cast<std::int64_t>(ids.size())}, device), starts);
}

// The published sizes, of models without and with a head.
TEST(Transformer, parameter_counts_are_the_published_ones) {
  const auto count = [](const char* arch, TextTask task, std::int64_t ids) {
    return make_model({.arch = arch, .classes = 2, .initialize = false, .task = task, .ids = ids})
        ->parameter_count();
  };
  EXPECT_EQ(count("bert", TextTask::kNone, 30522), 109482240);
  EXPECT_EQ(count("bert", TextTask::kMaskedLm, 30522), 109514298);
  EXPECT_EQ(count("bert", TextTask::kClassification, 30522), 109483778);
  EXPECT_EQ(count("distilbert", TextTask::kNone, 30522), 66362880);
  EXPECT_EQ(count("distilbert", TextTask::kNone, 28996), 65190912);  // "65 M" of the study
  EXPECT_EQ(count("gpt2", TextTask::kCausalLm, 50257), 124439808);
}

TEST(Transformer, want_is_honoured) {
  const auto model = make_model(tiny("bert", TextTask::kClassification));
  model->eval();
  const Inputs in = batch_of({{1, 2, 3}, {4, 5}});
  const Outputs all = model->forward(in, {.hidden = true});
  EXPECT_EQ(all.post.size(), 2u);
  EXPECT_EQ(all.logits.shape(), (Shape{2, 3}));
  EXPECT_EQ(all.features.shape(), (Shape{2, 16}));
  const Outputs first = model->forward(in, {.layers = 1, .hidden = true});
  EXPECT_FALSE(first.logits.defined());
  ASSERT_EQ(first.post.size(), 1u);
  EXPECT_TRUE(same_bytes(first.post[0], all.post[0]));
  EXPECT_TRUE(model->forward(in).post.empty());
  EXPECT_THROW(model->forward(in, {.layers = 3}), Error);
  const Outputs open = model->forward(in, {.head = true});  // the product is the loss's
  EXPECT_FALSE(open.logits.defined());
  EXPECT_TRUE(same_bytes(logits_of(open), all.logits));
}

TEST(Transformer, only_the_rows_that_are_wanted_meet_the_vocabulary) {
  const auto model = make_model(tiny("bert", TextTask::kMaskedLm));
  model->eval();
  Inputs in = batch_of({{1, 2, 3}, {4, 5}});
  const Tensor all = model->forward(in).logits;
  EXPECT_EQ(all.shape(), (Shape{5, 31}));
  in = Inputs::tokens(in.values, in.starts_on_host, {1, 4});
  const Tensor some = model->forward(in).logits;
  EXPECT_EQ(some.shape(), (Shape{2, 31}));
  EXPECT_TRUE(test::all_close(some.slice(0, 1), all.slice(1, 2), {1e-5, 1e-6}));
  EXPECT_TRUE(test::all_close(some.slice(1, 2), all.slice(4, 5), {1e-5, 1e-6}));
  in.rows = Tensor::empty({0}, DType::kI32);
  in.rows_on_host.clear();
  EXPECT_EQ(model->forward(in).logits.shape(), (Shape{0, 31}));
}

// What a sample's logits are hangs neither on its batch nor on its place in it, dropout included.
TEST(Transformer, dropout_belongs_to_the_sample_and_the_step) {
  for (const char* arch : {"bert", "distilbert"}) {
    const auto model = make_model(tiny(arch, TextTask::kClassification, 0.3));
    Inputs both = batch_of({{1, 2, 3, 4}, {5, 6, 7}}), turned = batch_of({{5, 6, 7}, {1, 2, 3, 4}});
    EXPECT_THROW(model->forward(both), Error);  // drawn by nothing
    const std::int64_t names[] = {40, 41}, other_names[] = {41, 40};
    both.key(names, 9);
    turned.key(other_names, 9);
    const Tensor a = model->forward(both).logits, b = model->forward(turned).logits,
                 alone = model->forward(both.slice(1, 2)).logits;
    EXPECT_TRUE(test::all_close(a.slice(0, 1), b.slice(1, 2), {1e-5, 1e-6}));
    EXPECT_TRUE(test::all_close(a.slice(1, 2), b.slice(0, 1), {1e-5, 1e-6}));
    EXPECT_TRUE(test::all_close(a.slice(1, 2), alone, {1e-5, 1e-6}));
    both.key(names, 10);
    EXPECT_FALSE(test::all_close(model->forward(both).logits, a, {1e-5, 1e-6}));
    model->eval();
    EXPECT_FALSE(test::all_close(model->forward(both).logits, a, {1e-5, 1e-6}));
  }
}

TEST(Transformer, mistakes_are_named) {
  const auto model = make_model(tiny("bert", TextTask::kMaskedLm));
  model->eval();
  const auto message = [&](const Inputs& in) {
    try {
      model->forward(in);
      return std::string("accepted");
    } catch (const Error& e) {
      return std::string(e.what());
    }
  };
  EXPECT_THAT(message(batch_of({std::vector<std::int32_t>(13, 1)})),
              HasSubstr("at most 12 tokens, as many as there are positions, got one of 13"));
  EXPECT_THAT(message(Tensor::zeros({2, 3})), HasSubstr("expected ids (T) of i32"));
  EXPECT_THAT(message(batch_of({{1, 31}})), HasSubstr("31"));
  EXPECT_THROW(make_model(tiny("gpt2", TextTask::kMaskedLm)), Error);
  EXPECT_THROW(make_model(tiny("bert", TextTask::kCausalLm)), Error);
}

TEST(TransformerConfigJson, all_that_is_not_known_is_told_at_once) {
  const auto message = [](const char* text) {
    try {
      parse_transformer_config(Json::parse(text, "config.json"), "config.json");
      return std::string("accepted");
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadInput);
      return std::string(e.what());
    }
  };
  const std::string all = message(
      R"({"model_type":"bert","architectures":["BertForQuestionAnswering"],"hidden_size":100,
          "num_attention_heads":12,"hidden_act":"silu","is_decoder":true,"vocab_size":-1,
          "position_embedding_type":"relative_key"})");
  for (const char* part :
       {"config.json", "architectures: expected one of BertModel, BertForMaskedLM",
        "hidden_size: expected a multiple of num_attention_heads = 12, found 100",
        R"(hidden_act: expected "gelu", "gelu_new" or "relu", found "silu")",
        "is_decoder: expected false, found true", "vocab_size: expected an integer in",
        R"(position_embedding_type: expected "absolute", found "relative_key")"})
    EXPECT_THAT(all, HasSubstr(part));
  EXPECT_THAT(message(R"({"model_type":"roberta"})"), HasSubstr("found \"roberta\""));
  EXPECT_THAT(message(R"({"model_type":"bert","architectures":["BertForMaskedLM"],
                          "tie_word_embeddings":false})"),
              HasSubstr("tie_word_embeddings: expected true, found false"));
  EXPECT_EQ(message(R"({"model_type":"bert","use_cache":true,"what_else":[1]})"), "accepted");
}

}  // namespace
}  // namespace retort::nn
