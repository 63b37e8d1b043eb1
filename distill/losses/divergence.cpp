#include "distill/losses/divergence.h"

namespace retort::distill {
namespace {

std::vector<DivergenceKind> built_in() {
  std::vector<DivergenceKind> kinds;
  for (int i = 0; i < kernels::kDivergences; ++i) {
    const auto divergence = static_cast<Divergence>(i);
    kinds.push_back({{kernels::name_of(divergence)}, divergence});
  }
  return kinds;
}

}  // namespace

std::string DivergenceKind::range() const {
  return join(facts().above_least ? "(" : "[", facts().least, ", ", facts().most, ")");
}

bool DivergenceKind::in_range(double parameter) const {
  return kernels::in_range(facts(), parameter);
}

std::string DivergenceKind::describe() const {
  const kernels::DivergenceFacts& f = facts();
  std::string text = join(f.name, ": ", f.formula);
  if (f.role != nullptr) text += join(", k (", f.role, ") in ", range(), ", ", f.parameter);
  if (f.tau_power != 2) text += join(", with tau^", f.tau_power);
  if (divergence.outside == nullptr) return text;
  return text + (on_cuda() ? " (from a library)" : " (from a library; on the CPU alone)");
}

nn::Registry<DivergenceKind>& divergence_kinds() {
  static nn::Registry<DivergenceKind> kinds("divergence", built_in());
  return kinds;
}

void detail::check_facts(const kernels::DivergenceFacts& facts) {
  RETORT_CHECK(facts.least >= 0 && facts.least < facts.most, "[divergence] ", facts.name,
               ": expected a range of the parameter from 0 on, got ", facts.least, " to ",
               facts.most);
  RETORT_CHECK(kernels::in_range(facts, facts.parameter), "[divergence] ", facts.name,
               ": its default ", facts.parameter, " is out of its range");
}

}  // namespace retort::distill
