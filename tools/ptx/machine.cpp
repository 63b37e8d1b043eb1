// Runs a grid: cluster after cluster, the warps of a cluster's blocks by turns, each until it has
// to wait.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
std::string hex(u64 v) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(v));
  return text;
}
namespace {
Schedule schedule_from_environment() {
  const char* const text = std::getenv("RETORT_PTX_SCHEDULE");
  const std::string name = text ? text : "forward";
  if (name == "forward") return Schedule::kForward;
  if (name == "reverse") return Schedule::kReverse;
  if (name == "shuffle") return Schedule::kShuffle;
  throw Fault("RETORT_PTX_SCHEDULE: expected forward, reverse or shuffle, got " + name);
}
}  // namespace

Options Options::from_environment() {
  Options o;
  const auto number = [](const char* name, long otherwise) {
    const char* const v = std::getenv(name);
    return v ? std::strtol(v, nullptr, 0) : otherwise;
  };
  o.checks = number("RETORT_PTX_CHECKS", 1) != 0;
  o.strict = number("RETORT_PTX_STRICT", 1) != 0;
  o.tell = number("RETORT_PTX_TELL", 0) != 0;
  o.global = number("RETORT_PTX_GLOBAL", 0) != 0;
  o.fuse = number("RETORT_PTX_FUSE", 0) != 0;
  for (const char* const report : {"RETORT_PTX_TRAFFIC", "RETORT_PTX_REPORT", "RETORT_PTX_HTML"})
    o.traffic = o.traffic || std::getenv(report) != nullptr;
  o.late = number("RETORT_PTX_LATE", 1) != 0;
  o.ulps = static_cast<int>(number("RETORT_PTX_ULPS", 0));
  o.schedule = schedule_from_environment();
  o.seed = static_cast<u32>(number("RETORT_PTX_SEED", 1));
  o.quantum = static_cast<u64>(number("RETORT_PTX_QUANTUM", 2000));
  return o;
}

void fail(const Warp& w, u32 lane, const std::string& what) { w.machine->fail(w, lane, what); }
// Block, thread and line, without the text of the line.
std::string Machine::where(const Warp& w, u32 lane) const {
  const u32 t = w.thread(lane), x = launch->block.x, y = launch->block.y;
  const auto triple = [](u32 a, u32 b, u32 c) {
    return "(" + std::to_string(a) + "," + std::to_string(b) + "," + std::to_string(c) + ")";
  };
  std::string text = "block " + triple(w.block->id.x, w.block->id.y, w.block->id.z) + " thread " +
                     triple(t % x, t / x % y, t / x / y) + ", PTX line " +
                     std::to_string(w.now ? w.now->line : 0);
  if (w.now == nullptr) return text;
  const std::string source =
      describe(*module, f->sources[static_cast<std::size_t>(w.now - f->code.data())]);
  return source.empty() ? text : text + ", " + source;
}
void Machine::fail(const Warp& w, u32 lane, const std::string& what) const {
  const u32 line = w.now ? w.now->line : 0;
  throw Fault(f->name + ": " + where(w, lane) + ": " + what + "\n    " +
              (line < module->lines.size() ? module->lines[line] : ""));
}

void Machine::hazard(const Warp& w, u32 lane, const std::string& what, bool refused) {
  if (refused && !options.tell) fail(w, lane, what);
  Hazard& h = hazards[{f, w.now->line}];
  if (h.count++ > 0) return;
  h.what = where(w, lane) + ": " + what;
  std::fprintf(stderr, "note: %s: %s\n", f->name.c_str(), h.what.c_str());
}

std::string Machine::census() const {
  std::map<std::string, u32> where;
  for (const Block& b : cluster.blocks)
    for (const Warp& w : b.warps) {
      const char* const what = w.state == State::kBarrier ? "at a barrier"
                               : w.state == State::kWarpGroup
                                   ? "waiting for the others of their warp group"
                               : w.state == State::kClusterWait ? "at a cluster barrier"
                               : w.state == State::kPolling     ? "polling an mbarrier"
                               : w.state == State::kDone        ? "exited"
                                                                : "ready";
      std::string place;
      if (w.state != State::kDone && w.now) {
        place = ", line " + std::to_string(w.now->line);
        const std::string source =
            describe(*module, f->sources[static_cast<std::size_t>(w.now - f->code.data())]);
        if (!source.empty()) place += " (" + source + ")";
      }
      ++where[what + place];
    }
  std::string text;
  for (const auto& [what, count] : where)
    text += " " + std::to_string(count) + " warps " + what + ";";
  return text;
}

void Machine::check_launch() const {
  const auto refuse = [&](const std::string& why) { throw Fault(f->name + ": " + why); };
  const Launch& l = *launch;
  const u32 threads = l.block.x * l.block.y * l.block.z;
  if (threads == 0 || threads > f->max_threads)
    refuse("a block of " + std::to_string(threads) + " threads, at most " +
           std::to_string(f->max_threads));
  if (l.params.size() != f->param_size)
    refuse(std::to_string(l.params.size()) + " bytes of parameters, expected " +
           std::to_string(f->param_size));
  if (l.dynamic_shared && !f->dynamic_shared)
    refuse("dynamic shared memory for a module that has none");
  if (f->shared_size - kSharedBase + l.dynamic_shared > kSharedMost)
    refuse("too much shared memory");
  if (l.grid.x % l.cluster) refuse("a grid that clusters do not divide");
}

namespace {
constexpr const char* kSpecials[] = {
    "%tid.x",    "%tid.y",      "%tid.z",           "%ntid.x",           "%ntid.y",
    "%ntid.z",   "%ctaid.x",    "%ctaid.y",         "%ctaid.z",          "%nctaid.x",
    "%nctaid.y", "%nctaid.z",   "%cluster_ctarank", "%cluster_nctarank", "%laneid",
    "%warpid",   "%lanemask_lt"};
constexpr u32 kBlockX = 6;
}  // namespace

// The place of each special register that the kernel reads in kSpecials, and its slot.
void Machine::find_specials() {
  specials_.clear();
  for (const auto& [name, slot] : f->specials) {
    const auto found = std::find(std::begin(kSpecials), std::end(kSpecials), name);
    if (found == std::end(kSpecials))
      throw Fault("ptx: the special register " + name + " is not implemented");
    specials_.push_back({static_cast<u32>(found - std::begin(kSpecials)), slot});
  }
}
u32 Machine::special(u32 place, const Block& block, u32 thread) const {
  const Dim &size = launch->block, &grid = launch->grid;
  switch (place) {
    case 0: return thread % size.x;
    case 1: return thread / size.x % size.y;
    case 2: return thread / size.x / size.y;
    case 3: return size.x;
    case 4: return size.y;
    case 5: return size.z;
    case 6: return block.id.x;
    case 7: return block.id.y;
    case 8: return block.id.z;
    case 9: return grid.x;
    case 10: return grid.y;
    case 11: return grid.z;
    case 12: return block.rank;
    case 13: return static_cast<u32>(cluster.blocks.size());
    case 14: return thread % 32;
    case 15: return thread / 32;
    default: return (1u << thread % 32) - 1;
  }
}

// All but the block's number stays where it is from cluster to cluster: nothing writes these slots.
void Machine::set_registers(Warp& w, const Block& block, bool fresh) {
  const auto all_lanes = [&](u32 slot, bool is_wide, u64 value) {
    for (u32 lane = 0; lane < 32; ++lane) {
      if (is_wide)
        put_wide(w, slot, lane, value);
      else
        w.r[slot + lane] = static_cast<u32>(value);
    }
  };
  for (const auto& [place, slot] : specials_)
    if (fresh || (place >= kBlockX && place <= kBlockX + 2))
      for (u32 lane = 0; lane < 32; ++lane)
        w.r[slot + lane] = special(place, block, w.thread(lane));
  if (!fresh) return;
  for (const auto& [key, slot] : f->constants) all_lanes(slot, key.second, key.first);
  for (const auto& [key, slot] : f->shared_names)
    all_lanes(slot, key.second, u64{block.rank} << 24 | key.first);
}

void Machine::start(u32 first, u32 count) {
  const Launch& l = *launch;
  const u32 threads = l.block.x * l.block.y * l.block.z, warps = (threads + 31) / 32;
  const u32 per_warp = (f->slots + f->predicates + 31) / 32 * 32;
  cluster = Cluster{};
  cluster.blocks.resize(count);
  cluster.threads = threads * count;
  const bool fresh = files_.size() != std::size_t{count} * warps * per_warp;
  if (fresh) files_.assign(std::size_t{count} * warps * per_warp, 0xffff'ffffu);
  for (u32 b = 0; b < count; ++b) {
    Block& block = cluster.blocks[b];
    const u32 n = first + b;
    block.id = {n % l.grid.x, n / l.grid.x % l.grid.y, n / l.grid.x / l.grid.y};
    block.rank = b;
    block.number = n;
    block.threads = threads;
    block.live_warps = warps;
    block.shared.assign(f->shared_size - kSharedBase + l.dynamic_shared, 0xff);
    if (options.checks) {
      block.writes.assign(block.shared.size() / 2 + 1, {});
      block.reads.assign(block.shared.size() / 2 + 1, {});
    }
    block.warps.resize(warps);
    block.groups.resize((warps + 3) / 4);
    for (u32 k = 0; k < warps; ++k) {
      Warp& w = block.warps[k];
      w.r = files_.data() + std::size_t{b * warps + k} * per_warp;
      w.p = w.r + f->slots;
      w.index = k;
      w.block = &block;
      w.machine = this;
      const u32 here = std::min(32u, threads - 32 * k);
      w.live = w.mask = here == 32 ? ~0u : (1u << here) - 1;
      if (f->local_size) w.local.assign(std::size_t{32} * f->local_size, 0xff);
      set_registers(w, block, fresh);
    }
  }
}

// Turns of all warps until all have left.
void Machine::run_cluster() {
  std::vector<Warp*> order;
  for (Block& b : cluster.blocks)
    for (Warp& w : b.warps) order.push_back(&w);
  if (options.schedule == Schedule::kReverse) std::reverse(order.begin(), order.end());
  std::size_t left = order.size();
  u32 idle = 0;
  while (left > 0) {
    if (options.schedule == Schedule::kShuffle)
      for (std::size_t k = order.size(); k > 1; --k) {
        random_ ^= random_ << 13, random_ ^= random_ >> 17, random_ ^= random_ << 5;
        std::swap(order[k - 1], order[random_ % k]);
      }
    bool moved = false;
    for (Warp* w : order) {
      if (w->state != State::kReady && w->state != State::kPolling) continue;
      const bool polled = w->state == State::kPolling;
      w->state = State::kReady;
      const u64 before = stats.warp_instructions;
      step(*w);
      // a warp that only polled again has not moved
      moved =
          moved || !(polled && w->state == State::kPolling && stats.warp_instructions - before < 8);
      if (w->state == State::kDone) --left;
    }
    if (!moved && complete_bulk(*this)) moved = true;  // when nothing else can go on
    idle = moved ? 0 : idle + 1;
    if (left > 0 && idle > 64) throw Fault(f->name + ": deadlock:" + census());
  }
  if (!cluster.bulk.empty())
    throw Fault(f->name + ": the blocks exited with bulk copies under way");
}

void Machine::run_grid() {
  const Launch& l = *launch;
  const u64 blocks = u64{l.grid.x} * l.grid.y * l.grid.z;
  ++launch_number;
  if (options.global) global_fences.assign(blocks, 0);
  if (global_pages.size() > 512) global_pages.clear();  // 128 KiB each
  for (u64 first = 0; first < blocks; first += l.cluster) {
    start(static_cast<u32>(first), l.cluster);
    run_cluster();
    stats.blocks += l.cluster;
    f->blocks += l.cluster;
  }
}

void Machine::run(Module& m, Function& function, const Launch& l) {
  const auto begin = std::chrono::steady_clock::now();
  module = &m;
  f = &function;
  launch = &l;
  t_ulps = options.ulps;
  random_ = options.seed ? options.seed : 1;
  lower(m, function, options.fuse);
  check_launch();
  find_specials();
  cache.assign(f->code.size(), nullptr);
  files_.clear();
  const u64 lanes = stats.lane_instructions;
  ++f->launches;
  const auto count_lanes = [&] { f->lane_instructions += stats.lane_instructions - lanes; };
  try {
    run_grid();
  } catch (const Fault& fault) {  // kept for the report
    count_lanes();
    Hazard& h = hazards[{f, 0}];
    if (h.count++ == 0) h.what = std::string("the launch failed: ") + fault.what();
    throw;
  }
  count_lanes();
  ++stats.launches;
  stats.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
}  // namespace retort::ptx
