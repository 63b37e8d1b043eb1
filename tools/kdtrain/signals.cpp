#include "tools/kdtrain/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "engine/io/file.h"

namespace retort::tools {
namespace {

std::atomic<int> g_signal{0};                          // this process's own
std::atomic<int> g_agreed{0};                          // of all ranks
static_assert(std::atomic<int>::is_always_lock_free);  // or a handler may not touch it

constexpr int kHandled[] = {SIGTERM, SIGHUP, SIGUSR1, SIGINT, SIGQUIT};

void on_signal(int signal) {
  int none = 0;
  if (g_signal.compare_exchange_strong(none, signal)) return;
  constexpr char kText[] = "\nkdtrain: quit at once; the last checkpoint stands\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(exit_code_of(signal));
}

bool is_ignored(int signal) {
  struct sigaction now {};
  return sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int signal : kHandled)
    if (signal != SIGHUP || !is_ignored(SIGHUP)) sigaction(signal, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  stop_wanted = []() noexcept { return stop_requested() != 0; };
}

int stop_requested() noexcept {
  const int agreed = g_agreed.load(std::memory_order_relaxed);
  return agreed != 0 ? agreed : g_signal.load(std::memory_order_relaxed);
}

void agree_on_signal(int signal) noexcept { g_agreed.store(signal, std::memory_order_relaxed); }

int exit_code_of(int signal) noexcept { return signal == SIGINT || signal == SIGQUIT ? 130 : 143; }

const char* signal_name(int signal) noexcept {
  switch (signal) {
    case SIGTERM: return "SIGTERM";
    case SIGHUP: return "SIGHUP";
    case SIGUSR1: return "SIGUSR1";
    case SIGINT: return "SIGINT";
    case SIGQUIT: return "SIGQUIT";
    default: return "a signal";
  }
}

}  // namespace retort::tools
