// Dynamic masking for masked-LM training.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace retort::nn {

struct MaskingRule {
  double share = 0.15;    // of the positions, predicted
  double masked = 0.8;    // of those, replaced by mask_id
  double replaced = 0.1;  // by any id of the vocabulary; the rest stay as they are
  std::int32_t mask_id = -1;
  std::int32_t vocabulary = 0;            // ids are below it
  std::span<const std::uint8_t> special;  // by id: not 0 where an id is never predicted; ids
                                          // beyond its end are ordinary
};

inline constexpr std::int32_t kNotPredicted = -100;  // as in PyTorch and transformers

/// A sample as the model sees it, and what it shall say: labels[i] is the id that stood at i where
/// it is predicted, else kNotPredicted.
struct MaskedSample {
  std::vector<std::int32_t> ids, labels;
};

/// Masks one sample: a pure function of its arguments, so the masks do not depend on device, order,
/// split or resumption.
///
///   r(i) = philox(seed, {i, sample, epoch, "mask_tokens"})
///   position i is predicted if it is not special and r_0(i) < share; if none is, the one with the
///   smallest r_0 (none at all if every position is special). r_1(i) decides by what it is
///   replaced, r_2(i) by which id.
///
/// Errors  Error(kUsage) if shares are not in [0, 1] or mask_id is not below vocabulary;
///         Error(kBadInput) if an id is not.
/// Source  Devlin et al. 2019, arXiv:1810.04805, 3.1 and A.1; anew in each epoch: Liu et al. 2019,
///         arXiv:1907.11692, 4.1.
MaskedSample mask_tokens(std::span<const std::int32_t> ids, const MaskingRule& rule,
                         std::uint64_t seed, std::uint32_t epoch, std::uint32_t sample);

/// Pass `pass` of `passes` in which every position is predicted once, for scores: of the positions
/// that are not special, those whose number among them leaves the remainder `pass`, all replaced by
/// mask_id. With as many passes as positions each stands alone, and the sum of the losses is the
/// negative pseudo-log-likelihood; with fewer, an estimate from several masks at once.
///
/// Errors  Error(kUsage) unless 0 <= pass < passes and mask_id is below vocabulary; kBadInput if an
///         id is not.
/// Source  Salazar et al. 2020, arXiv:1910.14659, section 2.
MaskedSample mask_in_turn(std::span<const std::int32_t> ids, const MaskingRule& rule,
                          std::int64_t pass, std::int64_t passes);

}  // namespace retort::nn
