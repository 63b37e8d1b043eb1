#include "engine/distributed/pulse.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <iomanip>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "engine/distributed/mpi/mpi_link.h"
#include "engine/runtime/progress.h"

namespace retort {
namespace {

using Reason = PeerLoss::Reason;
using Clock = std::chrono::steady_clock;

enum class Doing : std::int64_t { kWorks, kWaits, kDone, kLeft };
enum class Verdict : std::int64_t { kWell, kAllDone, kLost };

// One message, in both directions: a rank's word of itself, rank 0's with the verdict.
struct Word {
  std::int64_t step, counter;
  Doing doing;
  Verdict verdict;
  std::int64_t lost_rank, lost_step, lost_ms;
  Reason reason;
};

// What this process does; one writer or more, one reader.
struct Activity {
  std::atomic<std::int64_t> step{-1};
  std::atomic<int> waits{0};
  std::atomic<bool> lost{false};
  std::mutex mutex;
  std::string sentence;  // of the loss; guarded by mutex
};
Activity& activity() {
  static Activity* const one = new Activity;  // threads outlive main
  return *one;
}

double seconds_since(Clock::time_point from) {
  return std::chrono::duration<double>(Clock::now() - from).count();
}

constexpr std::chrono::milliseconds kLook{50}, kTell{500};

}  // namespace

std::string PeerLoss::sentence(const Communicator& ranks) const {
  const RankInfo& info = ranks.of(rank);
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << "rank " << rank << " (" << info.host << ", pid " << info.pid << ") ";
  if (reason == Reason::kLeft)
    text << "left after an error";
  else
    text << (reason == Reason::kNotHeard ? "was not heard of for " : "has not moved for ")
         << std::fixed << std::setprecision(1) << seconds << " s";
  if (step >= 0) text << "; its last word was of step " << step;
  return text.str();
}

class Pulse::Thread {
 public:
  Thread(Communicator& ranks, Options options)
      : ranks_(ranks), link_(*ranks.link()), options_(std::move(options)) {
    // Signals are for the program's own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void end(Doing how) {
    end_.store(how);
    if (thread_.joinable()) thread_.join();
  }

 private:
  // A word on its way.
  struct Box {
    Word word{};
    MpiRequest request{};
    bool open = false;
  };
  // What rank 0 knows of a rank.
  struct Seen {
    Word word{-1, 0, Doing::kWorks, Verdict::kWell, 0, 0, 0, Reason::kNotHeard};
    Clock::time_point heard = Clock::now(), moved = Clock::now();
    Box in, out;
  };

  void run() {
    try {
      ranks_.rank() == 0 ? watch_all() : watch_rank_0();
    } catch (const std::exception&) {
      // MPI refused: the main thread meets the same in its own calls.
    }
    for (Seen& seen : seen_)
      for (Box* box : {&seen.in, &seen.out})
        if (box->open) link_.drop(&box->request);
  }

  // Seconds that this thread itself was away: stopped with its process, or on a busy machine. They
  // are nobody's silence.
  Clock::duration away() {
    const auto before = std::exchange(last_look_, Clock::now());
    const auto gap = last_look_ - before;
    return gap > kTell ? gap : Clock::duration::zero();
  }

  Word mine() const {
    const Activity& now = activity();
    const Doing end = end_.load();
    return {now.step,
            progress(),
            end != Doing::kWorks ? end
            : now.waits > 0      ? Doing::kWaits
                                 : Doing::kWorks,
            Verdict::kWell,
            0,
            0,
            0,
            Reason::kNotHeard};
  }

  // True once for each word that came.
  bool hear(int peer, Box& box, Word* word) {
    constexpr int kBytes = sizeof(Word);
    if (!box.open) {
      link_.receive(&box.word, kBytes, peer, MpiLink::kPulse, &box.request);
      box.open = true;
    }
    if (!link_.test(&box.request)) return false;
    box.open = false;
    *word = box.word;
    return true;
  }

  // False if the word before is still on its way: to one that does not take it.
  bool tell(int peer, Box& box, const Word& word) {
    if (box.open && !link_.test(&box.request)) return false;
    box.word = word;
    link_.send(&box.word, sizeof(Word), peer, MpiLink::kPulse, &box.request);
    box.open = true;
    return true;
  }

  // Waits for what is on its way, but not for one who may be gone.
  void flush(Box& box) {
    const auto begin = Clock::now();
    while (box.open && seconds_since(begin) < 1) {
      box.open = !link_.test(&box.request);
      if (box.open) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (box.open) link_.drop(&box.request);
  }

  // Takes in what came of a rank; true if it is lost now.
  bool look_at(int rank, Seen& seen, PeerLoss* loss) {
    Word word = mine();
    bool heard = rank == 0;
    for (Word next; rank != 0 && hear(rank, seen.in, &next);) heard = true, word = next;
    if (heard) {
      seen.heard = Clock::now();
      if (word.counter != seen.word.counter || word.doing != Doing::kWorks) seen.moved = seen.heard;
      seen.word = word;
    }
    const auto is = [&](Reason reason, double seconds) {
      *loss = {rank, reason, seconds, seen.word.step, true};
      return true;
    };
    if (seen.word.doing == Doing::kDone) return false;
    if (seen.word.doing == Doing::kLeft) return is(Reason::kLeft, 0);
    if (const double s = seconds_since(seen.heard); s > options_.timeout_s)
      return is(Reason::kNotHeard, s);
    if (const double s = seconds_since(seen.moved); s > options_.timeout_s)
      return is(Reason::kNotMoved, s);
    return false;
  }

  void watch_all() {
    seen_.resize(static_cast<std::size_t>(ranks_.size()));
    for (auto next = Clock::now();; std::this_thread::sleep_for(kLook)) {
      PeerLoss loss;
      bool lost = false, done = true;
      const auto missed = away();
      for (int r = 0; r < ranks_.size(); ++r) {
        Seen& seen = seen_[static_cast<std::size_t>(r)];
        seen.heard += missed;
        seen.moved += missed;
        lost = lost || look_at(r, seen, &loss);
        done = done && seen.word.doing == Doing::kDone;
      }
      if (!lost && !done && Clock::now() < next) continue;
      next = Clock::now() + kTell;
      Word word = mine();
      word.verdict = lost ? Verdict::kLost : done ? Verdict::kAllDone : Verdict::kWell;
      word.lost_rank = loss.rank;
      word.lost_step = loss.step;
      word.lost_ms = static_cast<std::int64_t>(loss.seconds * 1000);
      word.reason = loss.reason;
      for (int r = 1; r < ranks_.size(); ++r) {
        Seen& seen = seen_[static_cast<std::size_t>(r)];
        // So that nobody misses the last word.
        if (done || (lost && r != loss.rank)) flush(seen.out);
        tell(r, seen.out, word);
      }
      if (lost && end_.load() != Doing::kLeft) meet(loss);
      if (!lost && !done) continue;
      for (std::size_t r = 1; r < seen_.size(); ++r) flush(seen_[r].out);
      return;
    }
  }

  void watch_rank_0() {
    seen_.resize(1);
    Box &in = seen_[0].in, &out = seen_[0].out;
    auto heard = Clock::now();
    std::int64_t step = -1;  // of rank 0
    for (auto next = heard;; std::this_thread::sleep_for(kLook)) {
      Word word{};
      heard += away();
      while (hear(0, in, &word)) {
        heard = Clock::now();
        step = word.step;
        if (word.verdict == Verdict::kWell) continue;
        if (word.verdict == Verdict::kLost)
          meet({static_cast<int>(word.lost_rank), word.reason,
                static_cast<double>(word.lost_ms) / 1000, word.lost_step, false});
        return flush(out);
      }
      if (const double s = seconds_since(heard); s > options_.timeout_s + 0.5) {
        meet({0, Reason::kNotHeard, s, step, ranks_.rank() == 1});
        return;
      }
      const Word now = mine();
      const bool ends = now.doing == Doing::kDone || now.doing == Doing::kLeft;
      if (Clock::now() < next && (!ends || told_end_)) continue;
      next = Clock::now() + kTell;
      if (tell(0, out, now)) told_end_ = ends;
      if (told_end_ && now.doing == Doing::kLeft) return flush(out);
    }
  }

  void meet(const PeerLoss& loss) {
    {
      const std::lock_guard lock(activity().mutex);
      activity().sentence = loss.sentence(ranks_);
    }
    activity().lost = true;
    if (options_.on_loss) options_.on_loss(loss);
  }

  Communicator& ranks_;
  MpiLink& link_;
  Options options_;
  std::atomic<Doing> end_{Doing::kWorks};
  bool told_end_ = false;   // rank 0 knows how this rank ends
  std::vector<Seen> seen_;  // on rank 0: of all; else of rank 0
  Clock::time_point last_look_ = Clock::now();
  std::thread thread_;
};

Pulse::Pulse(Communicator& ranks, Options options) {
  if (ranks.size() == 1) return;
  RETORT_CHECK(ranks.link()->world().serialized,
               "[pulse] expected a program that initialises MPI with MPI_THREAD_SERIALIZED");
  RETORT_CHECK(options.timeout_s >= 1, "[pulse] expected a timeout of 1 s or more, got ",
               options.timeout_s);
  note_progress();
  thread_ = std::make_unique<Thread>(ranks, std::move(options));
}

Pulse::~Pulse() {
  if (thread_ != nullptr) thread_->end(Doing::kLeft);
}

void Pulse::stop() {
  if (thread_ == nullptr) return;
  thread_->end(Doing::kDone);
  thread_.reset();
  detail::give_up_if_lost("the end");
}

void Pulse::set_step(std::int64_t step) noexcept {
  activity().step.store(step, std::memory_order_relaxed);
  note_progress();
}

detail::WaitScope::WaitScope() noexcept { activity().waits.fetch_add(1); }
detail::WaitScope::~WaitScope() {
  note_progress();  // what was waited for has come
  activity().waits.fetch_sub(1);
}

void detail::give_up_if_lost(const char* what) {
  if (!activity().lost.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(activity().mutex);
  fail(ErrorCode::kPeer, activity().sentence, "; it was waited for in ", what);
}

}  // namespace retort
