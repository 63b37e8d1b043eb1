#include "engine/distributed/agreement.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "engine/distributed/mpi/mpi_link.h"
#include "engine/distributed/wait.h"

namespace retort {
namespace {

// Ranks that have made the same calls.
struct CallGroup {
  std::int64_t hash = 0;
  std::int32_t lowest = 0, ranks = 0;
  char text[176] = {};  // the calls of the lowest
};

// What a part of the tree has to say.
struct WordOfRanks {
  std::int64_t signal = 0, error = 0, step = 0;
  CallGroup same, other;  // other: of no ranks as long as all are in step
  std::int32_t more = 0;  // ranks of further groups
};

void join_group(const CallGroup& group, WordOfRanks* word) {
  if (group.ranks == 0) return;
  for (CallGroup* known : {&word->same, &word->other}) {
    if (known->ranks == 0) {
      *known = group;
      return;
    }
    if (known->hash != group.hash) continue;
    known->ranks += group.ranks;  // lower ranks come first: the text is theirs
    return;
  }
  word->more += group.ranks;
}

void join_word(const WordOfRanks& from, WordOfRanks* word) {
  word->signal = std::max(word->signal, from.signal);
  word->error = std::max(word->error, from.error);
  word->step = std::min(word->step, from.step);
  join_group(from.same, word);
  join_group(from.other, word);
  word->more += from.more;
}

std::string told_of(const CallGroup& group, const Communicator& ranks) {
  return join(ranks.name(group.lowest),
              group.ranks == 1 ? "" : join(" and ", group.ranks - 1, " more"), ": ", group.text);
}

// "" if all are in step.
std::string difference_of(const WordOfRanks& word, const Communicator& ranks) {
  if (word.other.ranks == 0) return "";
  const CallGroup *few = &word.other, *many = &word.same;
  if (few->ranks > many->ranks) std::swap(few, many);
  return join("ranks made different calls: ", told_of(*few, ranks), "; ", told_of(*many, ranks),
              word.more == 0 ? "" : join("; and others ", word.more, " more"));
}

Agreement* g_under_way = nullptr;  // of the thread that makes the calls

}  // namespace

struct Agreement::Flight {
  enum Stage { kUp, kDown, kSent, kDone } stage = kUp;
  struct Child {
    int rank;
    WordOfRanks word;
    MpiRequest in, out;
    bool heard = false, told = false;
  };
  std::vector<Child> children;
  WordOfRanks mine, all;
  MpiRequest up, down;
  bool up_is_sent = true;
};

Agreement::Agreement(Communicator& ranks) : ranks_(ranks), flight_(std::make_unique<Flight>()) {
  const int rank = ranks.rank();
  for (int bit = 1; rank + bit < ranks.size() && (rank & bit) == 0; bit *= 2)
    flight_->children.push_back({rank + bit, {}, {}, {}});
}

Agreement::~Agreement() {
  if (g_under_way == this) g_under_way = nullptr;
  // Nobody can take a word back, and MPI may still write to it: it is left where it is.
  if (begun_ && ranks_.size() > 1) static_cast<void>(flight_.release());
}

void Agreement::begin(const Word& mine) {
  RETORT_CHECK(!begun_, "[agreement] expected finish() before the next begin()");
  RETORT_CHECK(g_under_way == nullptr, "[agreement] expected one agreement at a time");
  ranks_.count("an agreement");
  Flight& f = *flight_;
  f.mine = {mine.signal, mine.error, mine.step, {}, {}, 0};
  f.mine.same.hash = ranks_.calls().hash;
  f.mine.same.lowest = ranks_.rank();
  f.mine.same.ranks = 1;
  ranks_.calls_.text.copy(f.mine.same.text, sizeof f.mine.same.text - 1);
  ranks_.calls_.text.clear();
  begun_ = true;
  if (ranks_.size() == 1) return;
  f.stage = Flight::kUp;
  for (Flight::Child& child : f.children) {
    child.heard = child.told = false;
    ranks_.link()->receive(&child.word, sizeof child.word, child.rank, MpiLink::kAgreement,
                           &child.in);
  }
  g_under_way = this;
  advance();
}

void Agreement::advance() {
  Flight& f = *flight_;
  MpiLink& link = *ranks_.link();
  constexpr int kBytes = sizeof(WordOfRanks);
  const int parent = ranks_.rank() & (ranks_.rank() - 1);
  if (f.stage == Flight::kUp) {
    for (Flight::Child& child : f.children) {
      if (!child.heard) child.heard = link.test(&child.in);
      if (!child.heard) return;
    }
    for (const Flight::Child& child : f.children) join_word(child.word, &f.mine);
    f.stage = Flight::kDown;
    if (ranks_.rank() != 0) {
      f.up_is_sent = false;
      link.send(&f.mine, kBytes, parent, MpiLink::kAgreement, &f.up);
      link.receive(&f.all, kBytes, parent, MpiLink::kAgreement, &f.down);
    }
  }
  if (f.stage == Flight::kDown) {
    if (ranks_.rank() == 0)
      f.all = f.mine;
    else if (!link.test(&f.down))
      return;
    for (Flight::Child& child : f.children)
      link.send(&f.all, kBytes, child.rank, MpiLink::kAgreement, &child.out);
    difference_ = difference_of(f.all, ranks_);
    f.stage = Flight::kSent;
  }
  if (f.stage == Flight::kSent) {
    if (!f.up_is_sent) f.up_is_sent = link.test(&f.up);
    bool sent = f.up_is_sent;
    for (Flight::Child& child : f.children) {
      if (!child.told) child.told = link.test(&child.out);
      sent = sent && child.told;
    }
    if (sent) f.stage = Flight::kDone;
  }
}

void detail::look_at_agreement() {
  if (g_under_way == nullptr) return;
  g_under_way->advance();
  if (!g_under_way->difference_.empty()) fail(ErrorCode::kPeer, g_under_way->difference_);
}

Agreement::Word Agreement::finish() {
  RETORT_CHECK(begun_, "[agreement] expected begin() before finish()");
  Flight& f = *flight_;
  if (ranks_.size() > 1) {
    const auto start = std::chrono::steady_clock::now();
    wait_watched([&] { return f.stage == Flight::kDone; }, "the agreement of a step");
    ranks_.seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  } else {
    f.all = f.mine;
  }
  begun_ = false;
  g_under_way = nullptr;
  if (!difference_.empty()) fail(ErrorCode::kPeer, difference_);
  return {f.all.signal, f.all.error, f.all.step};
}

void Agreement::end() {
  if (begun_) finish();
  ranks_.count("the last agreement");
  begin({});
  finish();
}

}  // namespace retort
