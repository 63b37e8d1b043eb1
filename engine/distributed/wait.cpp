#include "engine/distributed/wait.h"

#include <sched.h>

#include <chrono>
#include <thread>

#include "engine/distributed/agreement.h"
#include "engine/distributed/pulse.h"

namespace retort {

void wait_watched(const std::function<bool()>& ready, const char* what) {
  // Ranks may be more than cores, so even the first wait gives the core away.
  constexpr int kYields = 200;
  constexpr std::chrono::microseconds kPause{50};
  const detail::WaitScope waiting;
  for (int asked = 0; !ready(); ++asked) {
    detail::give_up_if_lost(what);
    detail::look_at_agreement();
    if (asked < kYields)
      sched_yield();
    else
      std::this_thread::sleep_for(kPause);
  }
}

}  // namespace retort
