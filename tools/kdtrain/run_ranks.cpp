#include "tools/kdtrain/run_ranks.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <thread>

#include "engine/distributed/leave.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "tools/kdtrain/error_codes.h"
#include "tools/kdtrain/rank_status.h"
#include "tools/kdtrain/ranks.h"
#include "tools/kdtrain/signals.h"

namespace retort::tools {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 40;  // of a file

// A plain file, without waiting for the disk: whoever writes it may be about to leave.
void write_plainly(const std::string& path, const std::string& text) noexcept {
  const std::string temporary = path + ".tmp-" + std::to_string(getpid());
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return;
  const bool whole = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(file);
  if (!whole || std::rename(temporary.c_str(), path.c_str()) != 0) ::unlink(temporary.c_str());
}

}  // namespace

RunRanks::RunRanks(Communicator& ranks) : ranks_(ranks), agreement_(ranks) {}
RunRanks::~RunRanks() = default;

void RunRanks::watch() {
  if (!several()) return;
  pulse_ = std::make_unique<Pulse>(
      ranks_, Pulse::Options{.timeout_s = peer_patience_s(),
                             .on_loss = [this](const PeerLoss& loss) { lost(loss); }});
}

void RunRanks::end() {
  agreement_.end();
  if (pulse_ == nullptr) return;
  pulse_->stop();
  pulse_.reset();
}

void RunRanks::yield_to_loss() {
  try {
    detail::give_up_if_lost("the end");
  } catch (const Error&) {
    std::this_thread::sleep_for(std::chrono::seconds(10));
    _exit(static_cast<int>(ErrorCode::kPeer));
  }
}

void RunRanks::lost(const PeerLoss& loss) {
  std::string what = loss.sentence(ranks_);
  {
    const std::lock_guard lock(mutex_);
    what += "; " + (checkpoint_.empty() ? "there is no checkpoint yet" : checkpoint_);
  }
  if (loss.teller)
    std::fprintf(stderr, "kdtrain: %s%s%s\n", rank_prefix(),
                 error_label(ErrorCode::kPeer, what).c_str(), what.c_str());
  if (writes() || (loss.teller && loss.rank == 0))
    write_status("lost", static_cast<int>(ErrorCode::kPeer), loss.rank, what);
  leave_together(ranks_, loss);
}

// -- errors ---------------------------------------------------------------------------------------

RunRanks::Fault RunRanks::fault_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const SharedError&) {
    throw;  // everybody's already
  } catch (const Error& error) {
    return {static_cast<std::int64_t>(error.code()), error.what()};
  } catch (const std::bad_alloc&) {
    return {static_cast<std::int64_t>(ErrorCode::kMemory), "out of memory"};
  }
  return {};
}

void RunRanks::settle(const Fault& mine) {
  std::vector<std::int64_t> codes(static_cast<std::size_t>(ranks_.size()));
  ranks_.gather(&mine.code, codes.data(), sizeof mine.code);
  const auto first =
      std::find_if(codes.begin(), codes.end(), [](std::int64_t c) { return c != 0; });
  if (first == codes.end()) return;
  const int rank = static_cast<int>(first - codes.begin());
  std::string text = mine.text;
  ranks_.broadcast(&text, rank);
  const auto code = static_cast<ErrorCode>(*first);
  if (code == kStopped) {
    std::int64_t signal = stop_requested();
    ranks_.agree({&signal, 1});
    agree_on_signal(static_cast<int>(signal));
  }
  const RankInfo& info = ranks_.of(rank);
  throw SharedError(
      code,
      rank == 0 ? text : join("rank ", rank, " (", info.host, ", pid ", info.pid, "): ", text),
      rank);
}

void RunRanks::together(const std::function<void()>& body) {
  if (!several()) return body();
  settle(fault_of(body));
}

void RunRanks::on_writer(const std::function<void()>& body) {
  if (!several()) return body();
  Fault fault = pending_;
  if (writes() && fault.code == 0) {
    const detail::WaitScope disk;  // may be slow: no sign of a stuck rank
    fault = fault_of(body);
  }
  share_fault(std::move(fault));
}

std::string RunRanks::once(const std::function<std::string()>& body) {
  if (!several()) return body();
  std::string text;
  Fault fault;
  if (writes()) fault = fault_of([&] { text = body(); });
  share_fault(std::move(fault));
  ranks_.broadcast(&text, 0);
  return text;
}

void RunRanks::share_fault(Fault fault) {
  ranks_.broadcast(&fault.code, sizeof fault.code, 0);
  if (fault.code == 0) return;
  ranks_.broadcast(&fault.text, 0);
  throw SharedError(static_cast<ErrorCode>(fault.code), fault.text, 0);
}

std::string RunRanks::from_writer(const std::function<std::string()>& body) {
  if (!several()) return body();
  std::string text;
  on_writer([&] { text = body(); });
  ranks_.broadcast(&text, 0);
  return text;
}

void RunRanks::write(const std::function<void()>& body) {
  if (!several()) return body();
  if (!writes() || pending_.code != 0) return;
  const detail::WaitScope disk;
  pending_ = fault_of(body);
}

void RunRanks::compare(const Handshake& handshake) {
  try {
    handshake.compare(ranks_);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUsage) throw;
    throw SharedError(error.code(), error.what(), 0);
  }
}

void RunRanks::compare_weights(const std::string& hash, std::int64_t step) {
  if (!several()) return;
  const std::vector<std::string> all = ranks_.gather(hash);
  for (std::size_t r = 1; r < all.size(); ++r)
    if (all[r] != all[0])
      throw SharedError(ErrorCode::kPeer,
                        join(ranks_.name(static_cast<int>(r)), " has other weights after step ",
                             step, ": ", all[r], " instead of ", all[0]),
                        static_cast<int>(r));
}

// -- the word of a step ---------------------------------------------------------------------------

void RunRanks::begin_word(std::int64_t step) {
  if (!several()) return;
  step_ = step;
  Pulse::set_step(step);
  agreement_.begin({stop_requested(), pending_.code, step});
}

bool RunRanks::stop_agreed() {
  if (!several()) return stop_requested() != 0;
  if (!agreement_.begun()) begin_word(step_);
  Agreement::Word word;
  try {
    word = agreement_.finish();
  } catch (const Error& error) {
    yield_to_loss();  // else it is of all ranks: they have made different calls
    throw SharedError(error.code(), error.what(), 0);
  }
  if (word.error != 0) settle(pending_);
  if (word.signal != 0) agree_on_signal(static_cast<int>(word.signal));
  return word.signal != 0;
}

void RunRanks::note_checkpoint(const std::string& title, std::int64_t step) {
  if (!several()) return;
  {
    const std::lock_guard lock(mutex_);
    checkpoint_ = join("the last checkpoint is ", title, "'s of step ", step);
  }
  if (writes()) write_status("running", 0, 0, "");
}

// -- files ----------------------------------------------------------------------------------------

std::string RunRanks::mirror() const {
  return (std::filesystem::temp_directory_path() /
          join("kdtrain-", getpid(), "-rank", ranks_.rank()))
      .string();
}

RunRanks::HandedOut::~HandedOut() {
  if (!mirror_.empty()) remove_path(mirror_);
}

RunRanks::HandedOut RunRanks::hand_out(const std::string& folder,
                                       const std::function<std::vector<std::string>()>& names,
                                       const std::function<void()>& take) {
  if (!several()) return HandedOut("");
  std::vector<std::string> list;
  on_writer([&] { list = names(); });
  std::int64_t count = static_cast<std::int64_t>(list.size());
  ranks_.broadcast(&count, sizeof count, 0);
  Fault mine;
  for (std::int64_t i = 0; i < count; ++i) {
    std::string name = writes() ? list[static_cast<std::size_t>(i)] : "", bytes;
    ranks_.broadcast(&name, 0);
    bytes = from_writer([&] { return read_file(folder + "/" + name, kMostBytes); });
    if (writes() || mine.code != 0) continue;
    mine = fault_of([&] {
      const std::string file = folder + "/" + name;
      make_folders(parent_folder(file));
      write_file_atomically(file, bytes);
    });
  }
  if (!writes() && mine.code == 0) mine = fault_of(take);
  if (!writes() && mine.code != 0) remove_path(mirror());
  settle(mine);
  return HandedOut(writes() ? "" : mirror());
}

// -- status.json ----------------------------------------------------------------------------------

void RunRanks::set_status_folder(const std::string& folder) {
  const std::lock_guard lock(mutex_);
  status_folder_ = folder;
}

void RunRanks::write_status(const char* state, int code, int rank,
                            const std::string& message) noexcept {
  if (!several()) return;
  try {
    std::string folder;
    {
      const std::lock_guard lock(mutex_);
      folder = status_folder_;
    }
    std::error_code absent;
    if (folder.empty() || !std::filesystem::is_directory(folder, absent)) return;
    write_plainly(
        folder + "/" + kStatusFile,
        rank_status(state, code, rank, ranks_.of(rank).host, step_, message).dump() + "\n");
  } catch (const std::exception&) {  // what happened is told all the same
  }
}

std::string ranks_text(const Communicator& ranks, int threads, std::int64_t slices,
                       std::int64_t batch) {
  const auto many = [](std::int64_t n, const char* one) {
    return join(n, " ", one, n == 1 ? "" : "s");
  };
  std::string text = join(many(ranks.size(), "rank"), " x ", many(threads, "thread"), " on ",
                          many(ranks.nodes(), "node"), ", ", many(slices, "slice"));
  if (batch > 0) text += join(" of ", many((batch + slices - 1) / slices, "row"));
  return text + ", " + ranks.library();
}

}  // namespace retort::tools
