// What launched_test.cpp starts under a launcher: ranks_program MODE [ARGUMENT].
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/distributed/communicator.h"
#include "engine/distributed/handshake.h"
#include "engine/distributed/launcher.h"
#include "kernels/common/check.h"
#include "tests/support/ranks_log.h"

namespace {

using retort::Communicator;
using retort::test::say;
using Transfer = Communicator::Transfer;

void must(bool good, const std::string& what) {
  if (!good) throw std::logic_error(what);
}

// What rank `from` has for `to`, and behind it a byte that nobody may write.
std::vector<char> pattern(int from, int to, std::size_t bytes) {
  std::vector<char> out(bytes + 1);
  for (std::size_t i = 0; i < bytes; ++i)
    out[i] = static_cast<char>(static_cast<std::size_t>(31 * from + 7 * to) + 3 * i + i / 251);
  out.back() = 77;
  return out;
}
std::vector<char> nothing(std::size_t bytes) { return std::vector<char>(bytes + 1, 77); }

// Everybody sends everybody two messages of these sizes.
void check_transfers(Communicator& ranks, std::size_t first, std::size_t second) {
  const std::size_t sizes[] = {first, second};
  std::vector<std::vector<char>> out, in, want;
  for (int peer = 0; peer < ranks.size(); ++peer)
    for (int k = 0; k < 2; ++k) {
      out.push_back(pattern(ranks.rank(), 2 * peer + k, sizes[k]));
      want.push_back(pattern(peer, 2 * ranks.rank() + k, sizes[k]));
      in.push_back(nothing(sizes[k]));
    }
  std::vector<Transfer> list;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int peer = static_cast<int>(i / 2);
    if (peer == ranks.rank()) continue;
    list.push_back({out[i].data(), sizes[i % 2], peer, true});
    list.push_back({in[i].data(), sizes[i % 2], peer, false});
  }
  ranks.transfer(list);
  for (std::size_t i = 0; i < out.size(); ++i)
    if (static_cast<int>(i / 2) != ranks.rank())
      must(in[i] == want[i], retort::join("transfer of ", sizes[i % 2], " bytes"));
}

void check_gather(Communicator& ranks, std::size_t bytes) {
  const std::vector<char> mine = pattern(ranks.rank(), 5, bytes);
  std::vector<char> want, all = nothing(static_cast<std::size_t>(ranks.size()) * bytes);
  for (int r = 0; r < ranks.size(); ++r) {
    const std::vector<char> theirs = pattern(r, 5, bytes);
    want.insert(want.end(), theirs.begin(), theirs.end() - 1);
  }
  want.push_back(77);
  ranks.gather(mine.data(), all.data(), bytes);
  must(all == want, retort::join("gather of ", bytes, " bytes"));
}

void check_broadcast(Communicator& ranks, std::size_t bytes) {
  for (int root = 0; root < ranks.size(); ++root) {
    std::vector<char> data = pattern(ranks.rank(), root, bytes);
    ranks.broadcast(data.data(), bytes, root);
    must(data == pattern(root, root, bytes), retort::join("broadcast of ", bytes, " bytes"));
  }
}

void check_agreement(Communicator& ranks) {
  const std::int64_t r = ranks.rank(), n = ranks.size();
  std::int64_t words[] = {r, -r, r == n - 1 ? INT64_MAX : 0, r == 0 ? -5 : INT64_MIN};
  ranks.agree(words);
  must(words[0] == n - 1 && words[1] == 0 && words[2] == INT64_MAX && words[3] == -5, "agree");
}

void check_places(const Communicator& ranks) {
  must(ranks.nodes() == 1 && ranks.node() == 0 && ranks.place() == ranks.rank(), "places");
  for (int r = 0; r < ranks.size(); ++r) {
    const retort::RankInfo& info = ranks.of(r);
    must(!info.host.empty() && info.pid > 0 && info.cores >= 1, "who the ranks are");
    must(info.threads >= 1 && info.threads <= info.cores, "threads of a rank");
    for (int other = 0; other < r; ++other) must(info.pid != ranks.of(other).pid, "pids");
  }
}

void check_errors(Communicator& ranks) {
  for (const int peer : {-1, ranks.size(), ranks.rank()}) {
    char byte = 0;
    const Transfer one[] = {{&byte, 1, peer, true}};
    try {
      ranks.transfer(one);
      must(false, "a transfer to oneself");
    } catch (const retort::Error& error) {
      must(error.code() == retort::ErrorCode::kUsage, error.what());
    }
  }
}

void check_calls(Communicator& ranks) {
  check_places(ranks);
  for (const std::size_t piece : {std::size_t{1} << 30, std::size_t{64}}) {
    retort::detail::piece_bytes = piece;
    check_transfers(ranks, 0, 1);
    check_transfers(ranks, 640, 3);  // a whole number of pieces, and not
    check_transfers(ranks, 64, 12345);
    if (piece > 64) check_transfers(ranks, 3000001, 65537);
    for (const std::size_t bytes : {0, 1, 129}) {
      check_gather(ranks, bytes);
      check_broadcast(ranks, bytes);
    }
    check_agreement(ranks);
    check_errors(ranks);
  }
}

// Rank 0 sends less than rank 1 wants, or more: rank 1 meets an error, and meets it again.
void differ_in_size(Communicator& ranks, std::size_t sent) {
  std::vector<char> data(1000);
  const bool send = ranks.rank() == 0;
  const Transfer one[] = {{data.data(), send ? sent : 100, send ? 1 : 0, send}};
  ranks.transfer(one);
  if (send) return;
  must(false, "accepted");
}

int run(const std::string& mode, const std::string& argument) {
  Communicator& ranks = Communicator::start();
  must(&ranks == &Communicator::start() && &ranks == &Communicator::world(), "one world");
  if (mode == "calls") check_calls(ranks);
  if (mode == "sizes") {
    try {
      differ_in_size(ranks, static_cast<std::size_t>(std::atoi(argument.c_str())));
    } catch (const retort::Error& error) {
      say(retort::join("rank ", ranks.rank(), ", status ", static_cast<int>(error.code()), ": ",
                       error.what()));
      try {
        ranks.transfer(std::vector<Transfer>{{nullptr, 0, 0, true}});
      } catch (const retort::Error& again) {
        say(retort::join("again: ", again.what()));
      }
      return static_cast<int>(error.code());
    }
  }
  if (mode == "handshake") {  // the last rank differs in the field that is named
    retort::Handshake handshake = retort::handshake_of_build();
    for (const char* name : {"version", "recipe", "training data", "weights"})
      handshake.add(name, name == argument && ranks.rank() == ranks.size() - 1 ? "f3a1" : "8c1e");
    try {
      handshake.compare(ranks);
    } catch (const retort::Error& error) {  // known to all, so all end in order
      if (ranks.rank() == 0) say(retort::join("rank 0: ", error.what()));
      ranks.finish();
      return static_cast<int>(error.code());
    }
  }
  if (ranks.rank() == 0) {
    say(retort::join(ranks.size(), " ranks, ", ranks.nodes(), " nodes, '", ranks.library(), "'"));
  }
  ranks.finish();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : "");
  } catch (const retort::Error& error) {
    // A launcher's own status does not tell: it may be that of a rank which it killed.
    say(retort::join("rank ", retort::find_launch().rank, ", status ",
                     static_cast<int>(error.code()), ": ", error.what()));
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    say(retort::join("FAILED: ", error.what()));
    return 1;
  }
}
