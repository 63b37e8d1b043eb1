#include "tools/kdtrain/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace retort::tools {
namespace {

using Clock = std::chrono::steady_clock;

std::string clock_time(double seconds) {
  char text[32];
  const long s = static_cast<long>(seconds);
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%ldh%02ldm", s / 3600, s / 60 % 60);
  else
    std::snprintf(text, sizeof text, "%ldm%02lds", s / 60, s % 60);
  return text;
}

std::size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
  return 80;
}

}  // namespace

Progress::Progress(bool quiet)
    : quiet_(quiet),
      start_(Clock::now()),
      last_(start_ - std::chrono::hours(1)),
      last_beat_(start_) {
  if (quiet_) return;
  const char* term = std::getenv("TERM");
  terminal_ = isatty(STDERR_FILENO) && term != nullptr && std::string(term) != "dumb";
  if (terminal_) ticker_ = std::thread([this] { tick(); });
}

Progress::~Progress() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    erase();
  }
  end_.notify_all();
  if (ticker_.joinable()) ticker_.join();
}

void Progress::tick() {
  std::unique_lock lock(mutex_);
  while (!end_.wait_for(lock, std::chrono::seconds(1), [this] { return ended_; })) draw(true);
}

void Progress::set_total(std::int64_t jobs, double steps) {
  const std::lock_guard lock(mutex_);
  jobs_ = jobs;
  total_ = steps;
}

void Progress::erase() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
}

void Progress::draw(bool force) {
  if (!terminal_) return;
  if (running_.empty() && beating_.empty()) return erase();
  const auto now = Clock::now();
  if (!force && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  double done = done_;
  for (const auto& [name, job] : running_) done += static_cast<double>(job.first);
  const double share = total_ > 0 ? std::min(1.0, done / total_) : 0;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  constexpr int kWidth = 20;
  const int filled = static_cast<int>(share * kWidth);
  std::string text = "[" + std::string(static_cast<std::size_t>(filled), '#') +
                     std::string(static_cast<std::size_t>(kWidth - filled), '.') + "] ";
  char part[64];
  std::snprintf(part, sizeof part, "%3.0f%% %lld/%lld", share * 100,
                static_cast<long long>(finished_), static_cast<long long>(jobs_));
  text += part;
  text += " " + clock_time(elapsed);
  if (share > 0.02) text += " left " + clock_time(elapsed * (1 - share) / share);
  for (const auto& [name, job] : running_) text += " | " + name + " " + job.second;
  for (const auto& [what, state] : beating_) text += " | " + what + state;
  text.resize(std::min(text.size(), terminal_width() - 1));
  erase();
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::update(const std::string& job, std::int64_t step, std::int64_t,
                      const std::string& text) {
  const std::lock_guard lock(mutex_);
  running_[job] = {step, text};
  draw(false);
}

void Progress::beat(const std::string& what, std::int64_t done, std::int64_t total) {
  const std::lock_guard lock(mutex_);
  const std::string state =
      total > 0 ? " " + std::to_string(done) + "/" + std::to_string(total) : "";
  beating_[what] = state;
  draw(false);
  const auto now = Clock::now();
  if (quiet_ || terminal_ || now - last_beat_ < std::chrono::seconds(30)) return;
  last_beat_ = now;
  std::fprintf(stderr, "%s%s\n", what.c_str(), state.c_str());
}

void Progress::rest(const std::string& what) {
  const std::lock_guard lock(mutex_);
  beating_.erase(what);
  draw(true);
}

std::function<void(const nn::Batch&, const nn::Outputs&)> Beat::of_batches() const {
  if (progress_ == nullptr) return {};
  return [this, done = std::int64_t{0}](const nn::Batch& batch, const nn::Outputs&) mutable {
    progress_->beat(what_, done += batch.size(), total_);
  };
}

void Progress::line(const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (quiet_) return;
  erase();
  std::fprintf(stderr, "%s\n", text.c_str());
  draw(true);
}

void Progress::finish(const std::string& job, std::int64_t steps) {
  const std::lock_guard lock(mutex_);
  running_.erase(job);
  done_ += static_cast<double>(steps);
  ++finished_;
  draw(true);
}

}  // namespace retort::tools
