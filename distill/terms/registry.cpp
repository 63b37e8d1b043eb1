#include "distill/terms/registry.h"

#include "distill/terms/attention_maps.h"
#include "distill/terms/cosine.h"
#include "distill/terms/hidden_mse.h"

namespace retort::distill {
namespace {

// "layers" of a student with so many hidden ones; -1: nobody knows yet.
std::optional<nn::OptionFault> check_layers(const nn::Options& options,
                                            std::int64_t hidden_layers) {
  if (hidden_layers == 0) return nn::OptionFault{"weight", "the student has no hidden layers"};
  for (const std::int64_t layer : options.integers("layers"))
    if (hidden_layers > 0 && layer > hidden_layers)
      return nn::OptionFault{
          "layers", join("layer ", layer, " of a student with ", hidden_layers, " hidden layers")};
  return std::nullopt;
}

TermKind hidden_mse_kind() {
  return {
      .names = {"hidden_mse"},
      .options = {nn::ints_option("layers", {}, 1, 1000, "",
                                  "The student's hidden layers that are compared; empty: all.")
                      .with(nn::kChangesCost)},
      .doc = "mean squared error of hidden layers through learned linear maps (hints)",
      .make = [](const TermConfig& c) -> std::shared_ptr<Term> {
        return std::make_shared<HiddenMse>(HiddenMseOptions{c.options.integers("layers"), c.seed});
      },
      .check = check_layers};
}

TermKind cosine_kind() {
  return {
      .names = {"cosine"},
      .options = {nn::choice_option("over", "rows", "rows|positions|layers",
                                    "The last layer's inputs of each row of logits; the last "
                                    "hidden layer at every position of a text; hidden layers.")
                      .with(nn::kChangesCost),
                  nn::ints_option("layers", {}, 1, 1000, "",
                                  "With over = \"layers\": the student's that are compared; empty: "
                                  "all.")
                      .with(nn::kChangesCost)},
      .doc = "1 - cosine of features of student and teacher",
      .make = [](const TermConfig& c) -> std::shared_ptr<Term> {
        return std::make_shared<Cosine>(CosineOptions{
            c.seed, parse_cosine_over(c.options.text("over")), c.options.integers("layers")});
      },
      .check =
          [](const nn::Options& options, std::int64_t hidden_layers) {
            std::optional<nn::OptionFault> fault;
            if (options.text("over") != name_of(CosineOver::kRows))
              fault = check_layers(options, hidden_layers);
            if (!fault && options.text("over") != name_of(CosineOver::kLayers) &&
                !options.integers("layers").empty())
              fault = nn::OptionFault{"layers", "is read with over = \"layers\" only"};
            return fault;
          }};
}

TermKind attention_kind() {
  return {
      .names = {"attention"},
      .options = {nn::choice_option("distance", "kl", "kl|probabilities|scores",
                                    "Of the teacher's rows of attention from the student's: "
                                    "KL or squared error of probabilities, or of the scores "
                                    "that softmax reads.")
                      .with(nn::kChangesCost),
                  nn::ints_option("layers", {}, 1, 1000, "",
                                  "The student's layers that are compared; empty: all.")
                      .with(nn::kChangesCost)},
      .doc = "distance of a transformer's attention maps from the teacher's",
      .make = [](const TermConfig& c) -> std::shared_ptr<Term> {
        return std::make_shared<AttentionMaps>(AttentionMapsOptions{
            c.options.integers("layers"), parse_attention_distance(c.options.text("distance"))});
      },
      .check = check_layers};
}

}  // namespace

nn::Registry<TermKind>& term_kinds() {
  static nn::Registry<TermKind> kinds("loss term",
                                      {hidden_mse_kind(), cosine_kind(), attention_kind()});
  return kinds;
}

std::vector<nn::OptionSpec> options_of(const TermKind& kind) {
  std::vector<nn::OptionSpec> all{
      nn::number_option("weight", 0, 0, 1e6, "", "Weight in the loss of: " + kind.doc + "; 0: off.")
          .with(nn::kChangesCost | nn::kCostsOnceOn)};
  all.insert(all.end(), kind.options.begin(), kind.options.end());
  return all;
}

}  // namespace retort::distill
