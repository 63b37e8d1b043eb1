#include "engine/distributed/communicator.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "engine/distributed/cores.h"
#include "engine/distributed/launcher.h"
#include "engine/distributed/mpi/mpi_link.h"
#include "engine/distributed/wait.h"
#include "engine/io/file.h"
#include "engine/runtime/plugin_file.h"

namespace retort {

std::size_t detail::piece_bytes = std::size_t{1} << 30;

namespace {

// What a rank tells the others about itself.
struct Introduction {
  char host[64] = {};
  std::int64_t pid = 0;
  std::int32_t leader = 0, place = 0;
  CoreMask cores{};
};

Introduction introduction_of(const MpiWorld& world) {
  Introduction mine;
  if (gethostname(mine.host, sizeof mine.host - 1) != 0) std::strcpy(mine.host, "unknown");
  mine.pid = getpid();
  mine.leader = world.leader;
  mine.place = world.place;
  mine.cores = own_cores();
  return mine;
}

std::vector<RankInfo> infos_of(std::span<const Introduction> all) {
  std::vector<int> leaders;
  for (const Introduction& one : all) leaders.push_back(one.leader);
  std::sort(leaders.begin(), leaders.end());
  leaders.erase(std::unique(leaders.begin(), leaders.end()), leaders.end());
  std::vector<RankInfo> infos;
  for (const Introduction& one : all) {
    std::vector<CoreMask> on_node;
    for (const Introduction& other : all)
      if (other.leader == one.leader) on_node.push_back(other.cores);
    const auto node = std::lower_bound(leaders.begin(), leaders.end(), one.leader);
    infos.push_back({.host = escaped({one.host, strnlen(one.host, sizeof one.host)}),
                     .pid = one.pid,
                     .node = static_cast<int>(node - leaders.begin()),
                     .place = one.place,
                     .cores = count_cores(one.cores),
                     .threads = threads_per_rank(one.cores, on_node)});
  }
  return infos;
}

std::string plugin_path(MpiFamily family) {
  const char* const named = std::getenv("RETORT_MPI_LIBRARY");
  return named != nullptr && *named != '\0'
             ? named
             : join(library_folder(), "/libretort_mpi_", name_of(family), ".so");
}

}  // namespace

Communicator::Communicator() { infos_ = infos_of(std::vector{introduction_of({})}); }
Communicator::~Communicator() = default;

Communicator& Communicator::world() {
  // Never destroyed: at exit other ranks may be gone, and MPI with them.
  static Communicator* const world = new Communicator;
  return *world;
}

Communicator& Communicator::start() {
  Communicator& world = Communicator::world();
  if (world.link_ != nullptr) return world;
  const Launch launch = find_launch();
  if (launch.size == 1) return world;
  if (!launch.problem.empty()) throw Error(ErrorCode::kUsage, launch.problem);
  std::unique_ptr<MpiLink> link;
  try {
    link = std::make_unique<MpiLink>(plugin_path(launch.family));
  } catch (const Error& error) {
    fail(error.code(), "launched as ", launch.size, " ranks, but there is ", error.what());
  }
  const MpiWorld& mpi = link->world();
  const MpiFamily family = mpi.open_mpi ? MpiFamily::kOpenMpi : MpiFamily::kMpich;
  if (const std::string problem = launch_problem(launch, family, mpi.size); !problem.empty()) {
    link->finish();  // all that MPI sees meet the same difference
    throw Error(ErrorCode::kUsage, problem);
  }
  world.link_ = std::move(link);
  world.rank_ = mpi.rank;
  world.size_ = mpi.size;
  world.library_ = mpi.library;
  world.infos_.resize(static_cast<std::size_t>(mpi.size));
  world.introduce();
  return world;
}

void Communicator::introduce() {
  const Introduction mine = introduction_of(link_->world());
  std::vector<Introduction> all(static_cast<std::size_t>(size_));
  gather(&mine, all.data(), sizeof mine);
  infos_ = infos_of(all);
  for (const RankInfo& info : infos_) nodes_ = std::max(nodes_, info.node + 1);
}

std::string Communicator::name(int rank) const {
  return join("rank ", rank, " (", of(rank).host, ")");
}

// What MPI refuses once it refuses for good: messages that were on their way may be lost.
template <class F>
void Communicator::guarded(const char* call, F&& f) {
  if (!broken_.empty()) fail(ErrorCode::kPeer, "[", call, "] ", broken_);
  const auto begin = std::chrono::steady_clock::now();
  try {
    f();
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  } catch (const Error& error) {
    broken_ = join("after an error in [", call, "]: ", error.what());
    fail(error.code(), "[", call, "] ", error.what());
  }
}

void Communicator::count(const std::string& call) {
  if (size_ == 1) return;  // nobody to differ from, and jobs side by side share a world of one
  std::uint64_t hash = static_cast<std::uint64_t>(calls_.hash);
  for (const char c : call) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u + 1;
  calls_.hash = static_cast<std::int64_t>(hash);
  // Long enough to see where two ranks part; the first calls are what counts.
  constexpr std::size_t kLongest = 160;
  std::string& text = calls_.text;
  if (text.size() > kLongest) return;
  if (call == last_call_ && !text.empty()) {
    if (repeated_ > 1) text.resize(text.rfind(" x "));
    text += join(" x ", ++repeated_);
    return;
  }
  text += text.empty() ? call : join(", ", call);
  if (text.size() > kLongest) text += ", ...";
  last_call_ = call;
  repeated_ = 1;
}

void Communicator::transfer(std::span<const Transfer> list) {
  for (const Transfer& one : list)
    RETORT_CHECK(one.peer >= 0 && one.peer < size_ && one.peer != rank_,
                 "[transfer] expected another rank of ", size_, ", got ", one.peer);
  count("a transfer");
  if (list.empty()) return;
  struct Piece {
    MpiRequest request;
    int bytes, peer;
    bool send, done = false;
  };
  std::vector<Piece> pieces;
  const auto post = [&](const Transfer& one, std::size_t offset) {
    const int bytes = static_cast<int>(std::min(one.bytes - offset, detail::piece_bytes));
    std::byte* const at = static_cast<std::byte*>(one.data) + offset;
    Piece piece{{}, bytes, one.peer, one.send};
    if (one.send)
      link_->send(at, bytes, one.peer, MpiLink::kTransfer, &piece.request);
    else
      link_->receive(at, bytes, one.peer, MpiLink::kTransfer, &piece.request);
    pieces.push_back(piece);
  };
  const auto all_done = [&] {
    bool all = true;
    for (Piece& piece : pieces) {
      int bytes = 0;
      if (piece.done) continue;
      piece.done = link_->test(&piece.request, &bytes);
      all = all && piece.done;
      if (piece.done && !piece.send && bytes != piece.bytes)
        fail(ErrorCode::kPeer, name(piece.peer), " sent ", bytes, " bytes where ", piece.bytes,
             " are received");
    }
    return all;
  };
  guarded("transfer", [&] {
    try {
      for (const bool send : {false, true})  // receives first: what comes finds its place
        for (const Transfer& one : list) {
          if (one.send != send) continue;
          std::size_t offset = 0;
          do post(one, offset);
          while ((offset += detail::piece_bytes) < one.bytes);
        }
      wait_watched(all_done, "a transfer");
    } catch (...) {
      for (Piece& piece : pieces)
        if (!piece.done) link_->drop(&piece.request);
      throw;
    }
  });
}

void Communicator::gather(const void* mine, void* all, std::size_t bytes) {
  count(join("gather of ", bytes, " bytes"));
  if (bytes == 0) return;
  if (size_ == 1) {
    std::memcpy(all, mine, bytes);
    return;
  }
  const auto ranks = static_cast<std::size_t>(size_);
  const std::size_t piece = std::max<std::size_t>(1, detail::piece_bytes / ranks);
  guarded("gather", [&] {
    const auto gather_piece = [&](const void* from, void* to, std::size_t n) {
      MpiRequest request;
      link_->gather(from, to, static_cast<int>(n), &request);
      wait_watched([&] { return link_->test(&request); }, "a gather");
    };
    if (bytes <= piece) return gather_piece(mine, all, bytes);
    std::vector<std::byte> inbox(piece * ranks);
    for (std::size_t offset = 0; offset < bytes; offset += piece) {
      const std::size_t n = std::min(piece, bytes - offset);
      gather_piece(static_cast<const std::byte*>(mine) + offset, inbox.data(), n);
      for (std::size_t r = 0; r < ranks; ++r)
        std::memcpy(static_cast<std::byte*>(all) + r * bytes + offset, inbox.data() + r * n, n);
    }
  });
}

std::vector<std::string> Communicator::gather(const std::string& mine) {
  const auto ranks = static_cast<std::size_t>(size_);
  const std::uint64_t size = mine.size();
  std::vector<std::uint64_t> sizes(ranks);
  gather(&size, sizes.data(), sizeof size);
  const std::uint64_t longest = *std::max_element(sizes.begin(), sizes.end());
  std::string padded = mine, all(longest * ranks, '\0');
  padded.resize(longest);
  gather(padded.data(), all.data(), longest);
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < ranks; ++r) texts.push_back(all.substr(r * longest, sizes[r]));
  return texts;
}

void Communicator::broadcast(std::string* text, int root) {
  std::uint64_t size = text->size();
  broadcast(&size, sizeof size, root);
  text->resize(size);
  broadcast(text->data(), size, root);
}

void Communicator::broadcast(void* data, std::size_t bytes, int root) {
  RETORT_CHECK(root >= 0 && root < size_, "[broadcast] expected a rank below ", size_, ", got ",
               root);
  count(join("broadcast of ", bytes, " bytes of rank ", root));
  if (size_ == 1) return;
  guarded("broadcast", [&] {
    for (std::size_t offset = 0; offset < bytes; offset += detail::piece_bytes) {
      MpiRequest request;
      link_->broadcast(static_cast<std::byte*>(data) + offset,
                       static_cast<int>(std::min(bytes - offset, detail::piece_bytes)), root,
                       &request);
      wait_watched([&] { return link_->test(&request); }, "a broadcast");
    }
  });
}

void Communicator::agree(std::span<std::int64_t> words) {
  count(join("agreement on ", words.size(), " words"));
  if (size_ == 1 || words.empty()) return;
  guarded("agree", [&] {
    std::vector<std::int64_t> most(words.size());
    MpiRequest request;
    link_->maximum(words.data(), most.data(), static_cast<int>(words.size()), &request);
    wait_watched([&] { return link_->test(&request); }, "an agreement");
    std::copy(most.begin(), most.end(), words.begin());
  });
}

void Communicator::finish() {
  if (size_ == 1 || link_ == nullptr) return;
  std::int64_t here = 0;
  agree({&here, 1});  // so that what waits inside MPI_Finalize waits for nobody
  guarded("finish", [&] { link_->finish(); });
  broken_ = "after finish()";
}

}  // namespace retort
