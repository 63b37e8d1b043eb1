// The device: memory, warps, blocks, clusters, and the machine that runs a grid on them.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "tools/ptx/module.h"

namespace retort::ptx {

// ----------------------------------------------------------------------------------------- memory

/// Device pointers are not canonical x86 addresses: the host cannot follow one by accident.
inline constexpr u64 kDeviceBias = 0x0400'0000'0000'0000, kSharedWindow = 0x0800'0000'0000'0000,
                     kLocalWindow = 0x0c00'0000'0000'0000, kWindows = 0x0c00'0000'0000'0000;
inline constexpr u32 kSharedBase = 1024;  // what sm_90 keeps for itself
inline constexpr u32 kSharedMost = 227 * 1024;

enum Space : u8 { kGeneric, kGlobal, kShared, kLocal, kParam };

struct Allocation {
  u64 begin, end;  // as the device sees it
  u8* host;
};
/// Global memory: registered allocations, nothing else.
class Memory {
 public:
  void add(u64 begin, std::size_t bytes, void* host);
  bool remove(u64 begin);
  const Allocation* find(u64 address) const;
  /// The last one that begins at or below the address; null if there is none.
  const Allocation* before(u64 address) const;

 private:
  std::map<u64, Allocation> map_;
};
Memory& memory();

// -------------------------------------------------------------------------------------- execution

enum class Schedule : u8 { kForward, kReverse, kShuffle };

/// How a grid is run. Every legal schedule, completion and rounding must give a right result.
struct Options {
  bool checks = true;    // shared memory: races, missing proxy fences
  bool strict = true;    // a read of unwritten shared memory is a fault; else it is told once
  bool tell = false;     // every hazard of shared memory is told once a line, and none is a fault
  bool global = false;   // global memory: races between blocks
  bool traffic = false;  // count sectors and bank passes
  bool fuse = false;     // see fuse_products
  bool late = true;      // asynchronous work happens at the latest moment; false: at once
  int ulps = 0;          // results of approximate instructions are off by up to so many
  Schedule schedule = Schedule::kForward;
  u32 seed = 1;
  u64 quantum = 2000;  // instructions of a warp before the next has its turn

  /// From RETORT_PTX_CHECKS, _STRICT, _TELL, _GLOBAL, _FUSE, _LATE, _ULPS, _SEED, _QUANTUM (numbers), _TRAFFIC (set
  /// or not) and _SCHEDULE (forward, reverse, shuffle).
  static Options from_environment();
};
struct Dim {
  u32 x = 1, y = 1, z = 1;
};
struct Launch {
  Dim grid, block;
  u32 dynamic_shared = 0, cluster = 1;
  std::vector<u8> params;
};
struct Stats {
  u64 warp_instructions = 0, lane_instructions = 0, blocks = 0, launches = 0;
  double seconds = 0;
};

struct Group {  // lanes of a warp that share a program counter
  u32 pc, mask;
  bool waiting;
};
struct CopyRecord {  // cp.async of one warp
  u32 mask;
  u32 group[32];
  u32 to[32];
  u64 from[32];
  u8 valid[32];
};
struct WgmmaRecord {
  u32 group;
  const Inst* inst;
  u64 a, b;
  bool add;
};
struct Accumulators {  // of wgmma under way
  std::vector<u32> slots;
  std::vector<float> values;
  u32 under_way = 0;
};
struct BulkRecord {
  u32 to_rank, to, bytes, bar_rank, bar;
  u64 from;
};
struct Mbarrier {
  u32 count = 0, pending = 0, parity = 0;
  i64 tx = 0;
  bool known = false;  // to the asynchronous proxy
  u32 owner = 0;
};
/// Who touched two bytes of shared memory last.
struct Access {
  u32 epoch = 0;
  u16 thread = 0;  // + 1; 0 nobody; 0xffff several warps; 0x8000 | w several of warp w
  u16 fences = 0;  // of writes: proxy fences the writer had done by then; 0xffff: the async proxy
};
/// Who touched a byte of global memory last, in which launch.
struct GlobalAccess {
  u32 writer = 0, reader = 0;  // block + 1
  u32 launch = 0;
  u32 fences = 0;      // of device scope, that the writer's block had made by then
  Access write, read;  // inside those blocks
};
using GlobalPage = std::array<GlobalAccess, 4096>;
struct Block;
struct Cluster;
class Machine;
enum class State : u8 { kReady, kBarrier, kWarpGroup, kClusterWait, kPolling, kDone };
struct Warp {
  u32* r = nullptr;  // registers: 32 lanes each
  u32* p = nullptr;  // predicates: a mask each
  u32 pc = 0, mask = 0, live = 0;
  u32 next = ~0u;  // smallest pc of the other groups
  std::vector<Group> others;
  State state = State::kReady;
  u32 index = 0, barrier_id = 0, barrier_count = 0;
  u32 epoch = 0;  // 64 per block barrier, and 1 per warp barrier
  bool cluster_arrived = false;
  u32 cluster_phase = 0;
  Block* block = nullptr;
  Machine* machine = nullptr;
  const Inst* now = nullptr;
  u32 committed[32] = {};  // cp.async groups of each lane
  u16 fences[32] = {};
  std::vector<CopyRecord> copies;
  u32 wgmma_committed = 0;
  bool wgmma_fenced = false;  // since the last wait
  std::vector<u32> at_fence;  // registers as they were then
  std::vector<WgmmaRecord> wgmmas;
  std::map<u32, Accumulators> accumulators;  // by first slot
  bool poll_failed = false;
  std::vector<u8> local;

  u32 thread(u32 lane) const { return index * 32 + lane; }
};
/// B of a product: the four warps of a group read the same one.
struct Factor {
  u64 descriptor = 0;
  bool across = false;
  u32 columns = 0;
  std::vector<float> values;  // [depth][columns]
};
struct WarpGroup {
  u32 arrived = 0;  // warps that wait at `at`
  const Inst* at = nullptr;
  std::vector<Factor> factors;  // of the instruction that runs
  u32 used = 0;                 // of them
};
struct Block {
  Dim id;
  u32 rank = 0;
  u32 number = 0;        // in the grid
  bool counted = false;  // has touched global memory atomically: may know what others published
  bool exited = false;
  std::vector<u8> shared;
  std::vector<Access> writes, reads, atomics;  // the last: empty until there is one
  std::vector<Warp> warps;
  std::vector<WarpGroup> groups;  // of four warps
  u32 arrived[16] = {}, voted[16] = {};
  u32 threads = 0, live_warps = 0;
  std::map<u32, Mbarrier> mbarriers;
};
struct Cluster {
  std::vector<Block> blocks;
  u32 arrived = 0, phase = 0, threads = 0;
  std::vector<BulkRecord> bulk;
};

/// Runs grids, cluster after cluster. Throws Fault, with block, thread and line, for what a kernel
/// must not do.
class Machine {
 public:
  Options options;
  Stats stats;

  void run(Module& m, Function& function, const Launch& l);

  // For the instructions:
  Module* module = nullptr;
  Function* f = nullptr;
  const Launch* launch = nullptr;
  Cluster cluster;
  std::vector<const Allocation*> cache;  // by instruction: the allocation it last touched
  std::unordered_map<u64, std::unique_ptr<GlobalPage>> global_pages;  // by address / 4096
  std::vector<u32> global_fences;                                     // by block of the grid
  u32 launch_number = 0;
  [[noreturn]] void fail(const Warp& w, u32 lane, const std::string& what) const;
  /// A race, a missing fence or a read of what nobody wrote, in shared memory: a fault, or kept
  /// and told if it is not `refused` or Options::tell is set.
  void hazard(const Warp& w, u32 lane, const std::string& what, bool refused = true);
  /// By function and line of PTX: what was wrong there first, faults included, and how often.
  struct Hazard {
    std::string what;
    u64 count = 0;
  };
  std::map<std::pair<const Function*, u32>, Hazard> hazards;

 private:
  void check_launch() const;
  void start(u32 first_block, u32 blocks);
  void set_registers(Warp& w, const Block& block, bool fresh);
  void find_specials();
  u32 special(u32 place, const Block& block, u32 thread) const;
  void run_cluster();
  void step(Warp& w);
  bool stopped(Warp& w, const Inst& i, u32 m);
  bool leave(Warp& w, u32 m);
  bool together(Warp& w, const Inst& i);
  void cluster_arrive(Warp& w);
  bool cluster_wait(Warp& w);
  void poll(Warp& w);
  void reconverge(Warp& w);
  bool pick(Warp& w);
  bool gather(Warp& w, const Inst& i, u32& m);
  void arrive(Warp& w);
  std::string census() const;
  std::string where(const Warp& w, u32 lane) const;
  void run_grid();

  std::vector<std::pair<u32, u32>> specials_;  // what, slot
  std::vector<u32> files_;                     // registers of a cluster's warps
  u32 random_ = 1;
};
}  // namespace retort::ptx
