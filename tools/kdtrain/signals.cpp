#include "tools/kdtrain/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace retort::tools {
namespace {

std::atomic<int> g_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);  // or a handler may not touch it

void on_signal(int signal) {
  int none = 0;
  if (g_signal.compare_exchange_strong(none, signal)) return;
  if (signal == SIGINT) {
    constexpr char kText[] = "\nkdtrain: quit at once; the last checkpoint stands\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, kText, sizeof kText - 1);
    _exit(130);
  }
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

int stop_requested() { return g_signal.load(std::memory_order_relaxed); }

}  // namespace retort::tools
