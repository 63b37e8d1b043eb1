// That this process gets on, for whoever watches it from outside (engine/distributed/pulse.h).
#pragma once
#include <cstdint>

namespace retort {

/// Counts a piece of work: an op, a block of a file. From any thread; a few nanoseconds.
void note_progress() noexcept;
/// Pieces so far, with the chunks of the pool.
std::int64_t progress() noexcept;

}  // namespace retort
