// Rows with the fault that RETORT_TEST_FAULT names; kdtrain is to say which, and end.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "curriculum/scoring/score.h"
#include "mine/logit_mse.h"
#include "mine/skip_net.h"
#include "nn/extension.h"

namespace {

std::string fault() {
  const char* const name = std::getenv("RETORT_TEST_FAULT");
  return name == nullptr ? "" : name;
}

// Columns or a loss that no log can hold.
class Odd : public mine::LogitMse {
 public:
  retort::distill::TermLoss operator()(const retort::nn::Outputs& student,
                                       std::span<const retort::nn::Outputs> teachers,
                                       const retort::distill::Rows& rows) const override {
    retort::distill::TermLoss loss = LogitMse::operator()(student, teachers, rows);
    if (fault() == "no_loss") return {};
    loss.columns[0].name = fault() == "column_of_line" ? "lr" : "loss_ce";
    return loss;
  }
};

}  // namespace

RETORT_EXTENSION {
  namespace nn = retort::nn;
  nn::ModelKind model = mine::skip_net_kind();
  if (fault() == "no_make") model.make = nullptr;
  if (fault() == "no_model")
    model.make = [](const nn::ModelConfig&) { return std::shared_ptr<nn::Model>(); };
  if (fault() == "throws")
    model.make = [](const nn::ModelConfig&) -> std::shared_ptr<nn::Model> {
      throw std::runtime_error("no layers today");
    };
  if (fault() == "layers")
    model.hidden_layers = [](const nn::ModelConfig&) { return std::int64_t{3}; };
  if (fault() == "key") model.options[0].key = "Skip Width";
  if (fault() == "table") model.options[0].key = "train";
  if (fault() == "fallback") model.options[0].fallback = std::int64_t{0};
  nn::model_kinds().add(model);
  retort::distill::TermKind term = mine::logit_mse_kind();
  if (fault() == "no_term")
    term.make = [](const retort::distill::TermConfig&) {
      return std::shared_ptr<retort::distill::Term>();
    };
  else if (fault() == "no_loss" || fault().starts_with("column"))
    term.make = [](const retort::distill::TermConfig&) { return std::make_shared<Odd>(); };
  retort::distill::term_kinds().add(term);
  if (fault() == "no_score") retort::curriculum::score_kinds().add({.names = {"nothing"}});
}
