#include "engine/distributed/agreement.h"

#include <cstring>
#include <utility>
#include <vector>

#include "engine/distributed/mpi/mpi_link.h"
#include "engine/distributed/wait.h"

namespace retort {
namespace {

struct LastCall {
  std::int64_t hash = 0;
  char text[96] = {};
};

}  // namespace

struct Agreement::Flight {
  std::array<std::int64_t, 5> mine{}, most{};
  MpiRequest request;
};

Agreement::Agreement(Communicator& ranks) : ranks_(ranks), flight_(std::make_unique<Flight>()) {}

Agreement::~Agreement() {
  // Nobody can take a word back, and MPI may still write to it: it is left where it is.
  if (begun_ && ranks_.size() > 1) static_cast<void>(flight_.release());
}

void Agreement::begin(const Word& mine) {
  RETORT_CHECK(!begun_, "[agreement] expected finish() before the next begin()");
  const std::int64_t calls = ranks_.calls().hash;
  flight_->mine = {mine.signal, mine.error, -mine.step, calls, -calls};
  if (ranks_.size() > 1)
    ranks_.link()->maximum(flight_->mine.data(), flight_->most.data(), 5, &flight_->request);
  begun_ = true;
}

Agreement::Word Agreement::finish() {
  RETORT_CHECK(begun_, "[agreement] expected begin() before finish()");
  if (ranks_.size() > 1)
    wait_watched([&] { return ranks_.link()->test(&flight_->request); }, "the agreement of a step");
  else
    flight_->most = flight_->mine;
  begun_ = false;
  const auto& [signal, error, step, most, least] = flight_->most;
  if (most == -least) return {signal, error, -step};
  LastCall mine{ranks_.calls().hash, {}};
  ranks_.calls().text.copy(mine.text, sizeof mine.text - 1);
  std::vector<LastCall> all(static_cast<std::size_t>(ranks_.size()));
  ranks_.gather(&mine, all.data(), sizeof mine);
  for (int r = 1; r < ranks_.size(); ++r)
    if (const LastCall& other = all[static_cast<std::size_t>(r)]; other.hash != all[0].hash)
      fail(ErrorCode::kPeer, "ranks made different calls, last ", ranks_.name(0), ": ", all[0].text,
           ", ", ranks_.name(r), ": ", other.text);
  fail(ErrorCode::kPeer, "ranks made different calls");
}

}  // namespace retort
