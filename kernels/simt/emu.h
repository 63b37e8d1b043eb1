// CPU emulator of the CUDA execution model: interface seen by kernels and tests.
//
// A block's threads are fibers on one OS thread, and so are those of all blocks of a cluster;
// blocks (clusters) are spread over OS threads. A fiber runs until it blocks in a barrier or a warp
// collective, so between two synchronisation points the order of threads is whatever
// Config::schedule says (forward, reverse, random(seed)).
//
// What it detects by itself (always on): barrier divergence, deadlock, early exit, mismatched warp
// collectives and masks, writes past shared arrays (canaries), too much shared memory, misaligned
// vector/cp.async/ldmatrix addresses, cp.async and bulk data used before it was waited for (NaN
// poison), shared memory of another block mapped before that block surely runs or left unguarded
// when it exits; wgmma or a bulk copy over generic writes without a proxy fence, wgmma over sums
// without its own fence.
// What it prepares for sanitizers, with no wrapper in the kernels:
//   ASan  red zones around every shared array, fiber stack switches announced
//   UBSan alignment of vector types, array bounds
//   TSan  every CUDA thread is a TSan fiber; only __syncthreads/__syncwarp order them
//   MSan  shared memory is uninitialised at block start
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace retort::simt::emu {

// Call site. Not std::source_location: clang 14 (hence clang-tidy 14) cannot parse libstdc++'s.
struct Loc {
  const char* file = "";
  unsigned line = 0;
  static constexpr Loc current(const char* f = __builtin_FILE(), unsigned l = __builtin_LINE()) {
    return {f, l};
  }
};

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

struct Block;    // opaque
struct Thread {  // the part of a CUDA thread that kernels read
  uint3 thread_idx;
  unsigned linear = 0, lane = 0, warp = 0;
  Block* block = nullptr;
};
struct BlockIds {
  uint3 block_idx;
  dim3 block_dim, grid_dim;
};
extern constinit thread_local Thread* t_cur;
extern constinit thread_local const BlockIds* t_ids;

enum class Fault {
  barrier_divergence,
  deadlock,
  early_exit,
  bad_collective,
  shared_overflow,
  shared_limit,
  misaligned,
  async_outstanding,
  launch_config,
  bad_cluster,
  cluster_exit,
  bad_tile,
  proxy_fence,
  register_fence
};
const char* to_string(Fault);

struct Error : std::runtime_error {
  Fault fault;
  Error(Fault f, const std::string& what) : std::runtime_error(what), fault(f) {}
};

enum class Schedule { forward, reverse, random };

struct Config {
  unsigned os_threads = 0;  // 0: hardware_concurrency
  Schedule schedule = Schedule::forward;
  std::uint64_t seed = 1;
  std::size_t shared_limit = 0;  // bytes a block may use; 0: the capability's
  int capability = 0;            // 0: RETORT_SIMT_CAPABILITY, read at every launch, or 90
  std::size_t stack_bytes = 0;   // 0: 64 KiB (256 KiB under a sanitizer)
  bool strict = true;            // early exit / outstanding cp.async are faults
  bool count_loads = false;      // load_shared16 meets its whole warp, to count bank conflicts
};
Config& config();
/// Of the device that is emulated: 80 or 90. Decides which launches are refused.
int capability();

struct Stats {  // summed over the launches since reset
  std::uint64_t blocks = 0, threads = 0, barriers = 0, collectives = 0, switches = 0, mma = 0,
                ldmatrix = 0, ldmatrix_conflicts = 0, loads = 0, load_conflicts = 0,
                cluster_barriers = 0, bulk_bytes = 0,
                exp2 = 0;  // exponentials: what the special-function unit does
};
Stats stats();
void reset_stats();

struct Grid {
  const char* name = "kernel";
  dim3 grid, block;
  std::size_t smem = 0;
  void (*entry)(void*) = nullptr;
  void* closure = nullptr;
  unsigned cluster = 1;  // blocks along x that run together: 1, 2, 4, 8 or 16
};
void run_grid(const Grid&);  // throws Error (the first fault of the launch)

// -- called from kernels ---------------------------------------------------------------------
enum class BarOp { none, count, all_of, any_of };
int block_barrier(int id, int count, BarOp op, int pred, Loc loc);

using CollectiveFn = void (*)(void* const* lanes, std::uint32_t present);
void warp_collective(CollectiveFn fn, std::uint32_t mask, void* request, bool orders_memory,
                     const char* what, Loc loc);

// 128 consecutive threads (4 warps) that meet: wgmma.
using GroupFn = void (*)(void* const* threads);
void warpgroup_collective(GroupFn fn, void* request, const char* what, Loc loc);

// Shared-space addresses as 32-bit offsets, as descriptors hold them.
std::uint32_t shared_offset(const void* p, Loc loc);
const void* shared_at(std::uint32_t offset);

// Thread-block clusters and bulk copies: see cluster.h and tile.h, which kernels include.
unsigned cluster_rank();
unsigned cluster_size();
void cluster_arrive(Loc loc);
void cluster_wait(Loc loc);
void* map_shared_rank(const void* p, unsigned rank, Loc loc);
void tile_barrier_init(const void* barrier, unsigned arrivals, Loc loc);
void tile_barriers_ready();
void tile_barrier_arrive(const void* barrier, unsigned bytes, Loc loc);
void tile_load(void* dst, const void* src, unsigned bytes, const void* barrier, Loc loc);
void tile_barrier_wait(const void* barrier, unsigned parity, Loc loc);

void* shared_alloc(const void* key, std::size_t bytes, std::size_t align);
void* dynamic_shared();
std::size_t dynamic_shared_size();

void cp_async_enqueue(void* dst, const void* src, std::size_t bytes, std::size_t src_bytes, Loc);
void cp_async_commit();
void cp_async_wait(unsigned newest_left);
void thread_fence();        // of the device
void thread_fence_block();  // of the block alone
/// The memory order of an atomic access: relaxed, unless the thread has fenced before.
int atomic_order(void* p);
void async_proxy_fence();
/// wgmma reads these bytes of shared memory: they must be visible to the asynchronous proxy.
void check_async_proxy(std::uint32_t offset, unsigned bytes, Loc loc);
void count_products(int started);  // of wgmma: none may be under way when the thread exits
void check_aligned(const void* p, std::size_t a, const char* what, Loc loc);
void count_ldmatrix(unsigned conflicts);
void count_loads(unsigned conflicts);
void count_mma();
void count_exp2();
[[noreturn]] void fail(Fault, const std::string&, Loc);

// Collective bodies that live in the uninstrumented runtime (see emu.cpp).
struct ShflReq {
  std::uint64_t value, out;
  int src;
};
void shfl_body(void* const*, std::uint32_t);
struct VoteReq {
  std::uint32_t pred, out;
};
void ballot_body(void* const*, std::uint32_t);
struct ReduceReq {
  std::int64_t value, out;
  int op;
};  // 0 add 1 min 2 max 3 and 4 or 5 xor
void reduce_body(void* const*, std::uint32_t);
struct MatchReq {
  std::uint64_t value;
  std::uint32_t out;
};
void match_body(void* const*, std::uint32_t);
void syncwarp_body(void* const*, std::uint32_t);
struct LdmatrixReq {
  std::uint16_t row[8];
  std::uintptr_t addr;
  std::uint32_t r[4];
  int count;
  bool trans;
};
void ldmatrix_body(void* const*, std::uint32_t);
struct LoadReq {
  std::uintptr_t addr;
};
void load_shared16_body(void* const*, std::uint32_t);
struct MmaReq {
  std::uint32_t a[4], b[2];
  float c[4], d[4];
};
void mma_bf16_body(void* const*, std::uint32_t);

// one thread's part: 16 bytes of A (row t/2, half t%2), the same of B, and its accumulators
struct WgmmaReq {
  std::uint16_t a[8], b[8];
  float* d;
  bool accumulate;
};
void wgmma_m64n64k16_body(void* const*);

}  // namespace retort::simt::emu
