// Waiting for other ranks without going deaf: the host never blocks inside a library.
#pragma once
#include <functional>

namespace retort {

/// Waits until ready() says true, asking again and again: first at once, then 20,000 times a second.
/// The only way the host waits for peers or its device while there are several ranks. `what` is a
/// literal for messages: "a transfer".
/// Throws what ready() throws, and Error(kPeer) if another rank was lost meanwhile (pulse.h).
void wait_watched(const std::function<bool()>& ready, const char* what);

}  // namespace retort
