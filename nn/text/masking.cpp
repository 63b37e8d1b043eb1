#include "nn/text/masking.h"

#include "kernels/common/check.h"
#include "kernels/common/philox.h"

namespace retort::nn {
namespace {

// bits < this with that probability; whole numbers, so every device decides alike.
std::uint64_t threshold(double probability) {
  return static_cast<std::uint64_t>(probability * 4294967296.0);
}

bool is_share(double x) { return x >= 0 && x <= 1; }  // false for NaN

void check_mask(const char* who, const MaskingRule& rule) {
  RETORT_CHECK(rule.mask_id >= 0 && rule.mask_id < rule.vocabulary, "[", who,
               "] expected a mask id below ", rule.vocabulary, ", got ", rule.mask_id);
}

bool is_special(const char* who, std::int32_t given, const MaskingRule& rule) {
  RETORT_CHECK_AS(kBadInput, given >= 0 && given < rule.vocabulary, "[", who,
                  "] expected ids below ", rule.vocabulary, ", got ", given);
  const auto id = static_cast<std::size_t>(given);
  return id < rule.special.size() && rule.special[id] != 0;
}

}  // namespace

MaskedSample mask_tokens(std::span<const std::int32_t> ids, const MaskingRule& rule,
                         std::uint64_t seed, std::uint32_t epoch, std::uint32_t sample) {
  RETORT_CHECK(is_share(rule.share) && is_share(rule.masked) && is_share(rule.replaced) &&
                   rule.masked + rule.replaced <= 1.0 + 1e-12,
               "[mask_tokens] expected shares in [0, 1], got ", rule.share, ", ", rule.masked, ", ",
               rule.replaced);
  check_mask("mask_tokens", rule);
  constexpr std::uint32_t kPath = path_hash("mask_tokens");
  const std::uint64_t share = threshold(rule.share), masked = threshold(rule.masked),
                      changed = threshold(rule.masked + rule.replaced);
  MaskedSample out{{ids.begin(), ids.end()}, std::vector<std::int32_t>(ids.size(), kNotPredicted)};
  const auto draw = [&](std::size_t i) {
    return philox(seed, static_cast<std::uint32_t>(i), sample, epoch, kPath);
  };
  const auto predict = [&](std::size_t i, const Philox4& r) {
    out.labels[i] = ids[i];
    if (r.v[1] < masked)
      out.ids[i] = rule.mask_id;
    else if (r.v[1] < changed)
      out.ids[i] = static_cast<std::int32_t>(
          uniform_below(r.v[2], static_cast<std::uint32_t>(rule.vocabulary)));
  };
  bool any = false;
  std::size_t least = ids.size();
  std::uint64_t least_draw = UINT64_MAX;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (is_special("mask_tokens", ids[i], rule)) continue;
    const Philox4 r = draw(i);
    if (r.v[0] < share) {
      predict(i, r);
      any = true;
    } else if (r.v[0] < least_draw) {
      least_draw = r.v[0];
      least = i;
    }
  }
  if (!any && least < ids.size()) predict(least, draw(least));
  return out;
}

MaskedSample mask_in_turn(std::span<const std::int32_t> ids, const MaskingRule& rule,
                          std::int64_t pass, std::int64_t passes) {
  RETORT_CHECK(0 <= pass && pass < passes, "[mask_in_turn] expected a pass below ", passes,
               ", got ", pass);
  check_mask("mask_in_turn", rule);
  MaskedSample out{{ids.begin(), ids.end()}, std::vector<std::int32_t>(ids.size(), kNotPredicted)};
  std::int64_t number = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (is_special("mask_in_turn", ids[i], rule) || number++ % passes != pass) continue;
    out.labels[i] = ids[i];
    out.ids[i] = rule.mask_id;
  }
  return out;
}

}  // namespace retort::nn
