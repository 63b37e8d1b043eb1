// Before ranks work together: are they about to do the same thing?
#pragma once
#include <span>
#include <string>
#include <vector>

#include "engine/distributed/communicator.h"

namespace retort {

/// Named facts that must be equal on all ranks: version, hashes of recipe, data, weights. Names end
/// up in the sentence "rank 3 (host) has other training data: 8c1e instead of f3a1", so they are
/// words: "training data".
class Handshake {
 public:
  struct Field {
    std::string name, value;
  };

  Handshake& add(std::string name, std::string value);

  /// Collective. Throws Error(kUsage) on all ranks, with the same sentence, if any rank has another
  /// value, or another list of names, than rank 0. One gather of 40 bytes while all agree.
  void compare(Communicator& ranks) const;

  /// The sentence for the lists of all ranks, "" if they are equal; `hosts` by rank.
  static std::string difference(std::span<const std::vector<Field>> of_ranks,
                                std::span<const std::string> hosts);

 private:
  std::vector<Field> fields_;
};

/// What every program begins with: the ABI hash of the library at hand, as "kernel headers".
Handshake handshake_of_build();

}  // namespace retort
