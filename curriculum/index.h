// Private to the room.
#pragma once
#include <cstddef>
#include <cstdint>

namespace retort::curriculum {

/// The place of sample i in a vector over samples.
inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace retort::curriculum
