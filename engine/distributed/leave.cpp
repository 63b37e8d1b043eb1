#include "engine/distributed/leave.h"

#include <unistd.h>

#include <chrono>
#include <thread>

#include "engine/distributed/mpi/mpi_link.h"

namespace retort {

void leave_together(Communicator& ranks, const PeerLoss& loss) {
  static constexpr int kStatus = static_cast<int>(ErrorCode::kPeer);
  static constexpr std::chrono::milliseconds kWordsTravel{200}, kPatience{2000};
  if (loss.teller) {
    // A rank that left after an error has yet to say which.
    std::this_thread::sleep_for(loss.reason == PeerLoss::Reason::kLeft ? kPatience : kWordsTravel);
    std::thread([] {
      std::this_thread::sleep_for(kPatience);
      _exit(kStatus);
    }).detach();
    if (MpiLink* const link = ranks.link()) link->abort(kStatus);
  }
  std::this_thread::sleep_for(loss.reason == PeerLoss::Reason::kLeft ? 2 * kPatience : kPatience);
  _exit(kStatus);
}

}  // namespace retort
