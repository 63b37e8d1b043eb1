// Runtime of the CUDA emulator. Compile this file WITHOUT -fsanitize=thread (the scheduler hands
// data between fibers behind TSan's back on purpose); ASan/UBSan/MSan flags do no harm.
// Sanitizer hooks are weak symbols, so one object serves every build.
//
// One long file: fibers, blocks, barriers, shared memory, asynchronous copies and clusters are the
// state of one scheduler, which nothing else sees. What an instruction computes is in
// instructions.cpp.
#include "kernels/simt/emu.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "kernels/simt/async_proxy.h"
#if defined(SIMT_EMU_UCONTEXT) || !defined(__x86_64__)
#define SIMT_EMU_USE_UCONTEXT 1
#include <ucontext.h>
#else
#define SIMT_EMU_USE_UCONTEXT 0
#endif
#if defined(SIMT_EMU_VALGRIND)
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>
#endif

extern "C" {
#define SIMT_WEAK __attribute__((weak))
SIMT_WEAK void __sanitizer_start_switch_fiber(void** save, const void* bottom, std::size_t size);
SIMT_WEAK void __sanitizer_finish_switch_fiber(void* save, const void** bottom, std::size_t* size);
SIMT_WEAK void __asan_poison_memory_region(void const volatile*, std::size_t);
SIMT_WEAK void __asan_unpoison_memory_region(void const volatile*, std::size_t);
SIMT_WEAK void* __tsan_create_fiber(unsigned);
SIMT_WEAK void* __tsan_get_current_fiber();
SIMT_WEAK void __tsan_switch_to_fiber(void*, unsigned);
SIMT_WEAK void __tsan_acquire(void*);
SIMT_WEAK void __tsan_release(void*);
SIMT_WEAK void __msan_start_switch_fiber(const void* bottom, std::size_t size);
SIMT_WEAK void __msan_finish_switch_fiber(const void** bottom, std::size_t* size);
SIMT_WEAK void __msan_allocated_memory(const volatile void*, std::size_t);
SIMT_WEAK void __msan_unpoison(const volatile void*, std::size_t);
}

namespace retort::simt::emu {

constinit thread_local Thread* t_cur = nullptr;
constinit thread_local const BlockIds* t_ids = nullptr;

namespace {

bool has_asan() { return __asan_poison_memory_region != nullptr; }
bool has_tsan() { return __tsan_create_fiber != nullptr; }
bool has_msan() { return __msan_allocated_memory != nullptr; }
void acquire(void* p) {
  if (__tsan_acquire) __tsan_acquire(p);
}
void release(void* p) {
  if (__tsan_release) __tsan_release(p);
}

// ---------------------------------------------------------------- context switch
#if SIMT_EMU_USE_UCONTEXT
struct Context {
  ucontext_t uc{};
};
void context_swap(Context& from, Context& to) { swapcontext(&from.uc, &to.uc); }
void context_make(Context& c, char* stack, std::size_t size, void (*entry)()) {
  getcontext(&c.uc);
  c.uc.uc_stack.ss_sp = stack;
  c.uc.uc_stack.ss_size = size;
  c.uc.uc_link = nullptr;
  makecontext(&c.uc, entry, 0);
}
#else
struct Context {
  void* sp = nullptr;
};
extern "C" void simt_context_swap(void** save, void* load);
asm(R"(
.text
.p2align 4
.globl simt_context_swap
.hidden simt_context_swap
.type simt_context_swap,@function
simt_context_swap:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
.size simt_context_swap,.-simt_context_swap
)");
void context_swap(Context& from, Context& to) { simt_context_swap(&from.sp, to.sp); }
void context_make(Context& c, char* stack, std::size_t size, void (*entry)()) {
  auto top = (reinterpret_cast<std::uintptr_t>(stack) + size) & ~std::uintptr_t{15};
  auto* p = reinterpret_cast<std::uint64_t*>(top);
  *--p = 0;  // end of the call chain; keeps rsp % 16 == 8
  *--p = reinterpret_cast<std::uint64_t>(entry);
  for (int i = 0; i < 6; ++i) *--p = 0;
  c.sp = p;
}
#endif

struct PendingCopy {
  void* dst = nullptr;
  const void* src = nullptr;
  unsigned bytes = 0, src_bytes = 0, group = 0;
};

struct Fiber {
  Context ctx;
  char* map = nullptr;  // guard page + stack
  char* stack = nullptr;
  std::size_t size = 0, map_size = 0;
  void* fake = nullptr;  // ASan fake stack
  void* tsan = nullptr;
  struct ThreadState* job = nullptr;
  std::vector<PendingCopy> copies;  // of its thread: grown and freed by one TSan fiber
};

enum class State : std::uint8_t { not_started, ready, waiting, done };

struct ThreadState;
struct BlockState;
struct ThreadState : Thread {
  State state = State::not_started;
  BlockState* home = nullptr;
  Fiber* fiber = nullptr;
  const char* wait_what = "";
  Loc wait_loc{};
  unsigned async_group = 0;  // groups committed so far
  bool fenced = false, block_fenced = false;
  void* last_atomic = nullptr;   // of global memory
  bool proxy_fenced = false;     // since the block's last barrier
  AsyncProxy::Chain landed = 0;  // by cp.async since its last async_proxy_fence
  unsigned products = 0;         // wgmma under way
  bool cluster_arrived = false;  // at the cluster barrier, and has not waited yet
  unsigned cluster_phase = 0;    // of that arrival
  const void* waits_for_tile = nullptr;
};

struct Barrier {
  int arrived = 0, expect = 0, acc = 0, result = 0;
  unsigned phase = 0;
  Loc loc{};
};

struct Collective {
  std::uint32_t mask = 0, arrived = 0;
  CollectiveFn fn = nullptr;
  const char* what = "";
  Loc loc{};
  bool orders_memory = false;
  unsigned sync = 0;  // its TSan sync object: see warp_collective
  void* req[32] = {};
};

struct Warp {
  std::uint32_t exited = 0;  // exited or never existed
  unsigned open = 0;
  std::uint8_t opened[32] = {};     // collectives so far, by the first lane of their mask
  unsigned at_cluster_barrier = 0;  // lanes that arrived in this phase, the first of them at:
  Loc cluster_loc{};
  Collective pending[32];  // each holds a waiting lane: never more than 32
};

constexpr unsigned kMaxCluster = 16, kBlockThreads = 1024, kThreads = kMaxCluster * kBlockThreads;

// FIFO of the runnable threads. Fixed storage, like everything the fibers share: a heap block
// freed by another fiber than the one that allocated it would look like a race to TSan.
struct ReadyQueue {
  ThreadState* item[kThreads];
  unsigned head = 0, size = 0;
  bool empty() const { return size == 0; }
  void clear() { head = size = 0; }
  void push(ThreadState* t) { item[(head + size++) % kThreads] = t; }
  ThreadState* pop() {
    ThreadState* t = item[head];
    head = (head + 1) % kThreads;
    --size;
    return t;
  }
};
template <unsigned kMost>
struct ThreadList {
  ThreadState* item[kMost];
  unsigned size = 0;
  void push_back(ThreadState* t) { item[size++] = t; }
  void clear() { size = 0; }
  ThreadState** begin() { return item; }
  ThreadState** end() { return item + size; }
};

struct WarpGroup {
  unsigned arrived = 0;
  GroupFn fn = nullptr;
  const char* what = "";
  Loc loc{};
  void* req[128] = {};
};

struct SharedEntry {
  const void* key;
  char* ptr;
  std::size_t bytes, align;
};
struct Cancelled {};

constexpr unsigned kTileBarriers = 16, kTileCopies = 64;
struct TileCopy {
  void* dst;
  const void* src;
  unsigned bytes, phase;
};
// An mbarrier. Its phase ends when all arrivals came and all expected bytes were asked for; the
// copies themselves are made by the first thread that waits.
struct TileBarrierState {
  const void* at = nullptr;
  bool ready = false;
  const ThreadState* owner = nullptr;  // who initialised it
  unsigned arrivals = 0, pending = 0, phase = 0, copies = 0;
  std::int64_t bytes = 0;  // expected, less those under way
  TileCopy copy[kTileCopies];
};

constexpr std::size_t kArena = 512 * 1024, kRedZone = 256;
constexpr std::size_t kMostStaticShared = 48 * 1024;  // ptxas refuses more
constexpr std::size_t kDynamicAlign = 1024;           // of SIMT_DYNAMIC_SHARED
constexpr unsigned char kPoison = 0xFF, kCanary = 0xC5;
constexpr int kBarriers = 16;

// memset that TSan's interceptor does not see (the poison is not an access by any CUDA thread)
void fill(char* p, unsigned char v, std::size_t n) {
  if (!has_tsan()) {
    std::memset(p, v, n);
    return;
  }
  for (std::size_t i = 0; i < n; ++i) static_cast<volatile char*>(p)[i] = static_cast<char>(v);
}

std::string at(const Loc& l) {
  const char* f = l.file;
  const char* s = std::strrchr(f, '/');
  return std::string(s ? s + 1 : f) + ":" + std::to_string(l.line);
}
bool same(const Loc& a, const Loc& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

struct Launch {  // shared by the workers of one launch
  const Grid* grid = nullptr;
  std::atomic<std::uint64_t> next{0};
  std::uint64_t total = 0;  // clusters
  std::size_t shared_limit = 0;
  std::atomic<bool> failed{false};
  std::mutex mutex;
  Fault fault{};
  std::string message;
  void record(Fault f, const std::string& m) {
    std::lock_guard lock(mutex);
    if (!failed.exchange(true)) {
      fault = f;
      message = m;
    }
  }
};

std::mutex g_stats_mutex;
Stats g_stats;

}  // namespace

struct Block {};

namespace {

struct Worker;

// One block of the cluster that a worker runs: what its threads share.
struct BlockState : Block {
  Worker* worker = nullptr;
  unsigned rank = 0;  // in the cluster
  BlockIds ids;
  std::vector<ThreadState> threads;
  std::vector<Warp> warps;
  Barrier bars[kBarriers];
  ThreadList<kBlockThreads> bar_waiting[kBarriers];
  WarpGroup groups[8];
  TileBarrierState tiles[kTileBarriers];
  unsigned count = 0, done = 0, tile_count = 0;
  char* arena = nullptr;
  std::size_t arena_used = 0, shared_bytes = 0;
  std::vector<SharedEntry> shared;
  char* dyn = nullptr;
  char* sync = nullptr;  // addresses used as TSan sync objects
  AsyncProxy proxy{kArena, kPoison};
  unsigned proxy_fenced = 0;  // threads that have fenced since the last barrier
  // The last time another block asked for an address in this one's shared memory.
  bool mapped = false;
  unsigned mapped_phase = 0, mapped_by = 0;
  Loc mapped_loc{};

  BlockState() : threads(kBlockThreads), warps(32) { shared.reserve(64); }
  BlockState(const BlockState&) = delete;
  ~BlockState() {
    if (!arena) return;
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(arena, kArena);
    munmap(arena, kArena);
  }

  void* sync_addr(std::size_t slot) { return sync + 8 * slot; }
  void* bar_sync(int id, unsigned phase) { return sync_addr(2u * unsigned(id) + (phase & 1)); }
  void* tile_sync(const TileBarrierState* b) {
    return sync_addr(2 * kBarriers + std::size_t(b - tiles));
  }
  void* cluster_sync(unsigned phase) {  // block 0's count
    return sync_addr(2 * kBarriers + kTileBarriers + (phase & 1));
  }
  void* warp_sync(unsigned w, unsigned slot) {
    return sync_addr(2 * kBarriers + kTileBarriers + 2 + 64 * std::size_t{w} + slot);
  }
  static constexpr std::size_t kSyncBytes = 8 * (2 * kBarriers + kTileBarriers + 2 + 64 * 32);

  void begin(const Grid& g, std::uint64_t index);
  void retire();
  char* carve(std::size_t bytes, std::size_t align);
  void check_canaries();
  void complete(Warp& w, unsigned i, unsigned warp_index);
  // Note [Writes after the own fence] in async_proxy.h
  void turn_ends(const ThreadState* t) {
    if (!proxy.watching(t->linear)) return;
    for (const SharedEntry& e : shared) proxy.compare(std::size_t(e.ptr - arena), e.bytes, arena);
    proxy.compared();
  }
  void unfence(ThreadState* t) {
    if (!t->proxy_fenced) return;
    t->proxy_fenced = false;
    --proxy_fenced;
  }
  const SharedEntry* entry_of(const void* p) const {
    const char* c = static_cast<const char*>(p);
    for (const auto& e : shared)
      if (c >= e.ptr && c < e.ptr + e.bytes) return &e;
    return nullptr;
  }
  void* shared_array(const void* key, std::size_t bytes, std::size_t align) {
    for (const auto& e : shared)
      if (e.key == key) return e.ptr;
    char* p = carve(bytes, align);
    shared.push_back({key, p, bytes, align});
    return p;
  }
};

struct ClusterBarrier {
  unsigned arrived = 0, phase = 0;
  ThreadList<kThreads> waiting;
};

// One OS thread. It runs one cluster at a time (one block, where a launch has no clusters), all of
// its blocks at once.
struct Worker {
  Launch* launch = nullptr;
  std::vector<std::unique_ptr<BlockState>> blocks;
  unsigned cluster = 1;  // blocks in use
  ClusterBarrier cluster_barrier;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> free_fibers;
  ReadyQueue ready;
  ThreadList<kThreads> wake;
  Fiber main;
  unsigned count = 0, done = 0;  // threads of the cluster
  unsigned turns = 0;            // clusters it has run
  bool cancelling = false, faulted = false;
  std::mt19937_64 rng;
  char* sync_base = nullptr;  // where the blocks' TSan sync objects lie
  std::size_t sync_next = 0;
  Stats stats;

  Worker() {
    release(this);  // TSan: fibers see what was made up to here
  }
  Worker(const Worker&) = delete;
  ~Worker() {
    for (auto& f : fibers) {
      if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(f->stack, f->size);
      munmap(f->map, f->map_size);
    }
    if (sync_base) munmap(sync_base, kSyncBytes);
  }

  static constexpr std::size_t kSyncBytes = std::size_t{256} << 20;

  // ------------------------------------------------------------ fibers
  Fiber* new_fiber();
  void jump(Fiber& from, Fiber& to);
  ThreadState* pop() { return ready.empty() ? nullptr : ready.pop(); }
  template <unsigned kMost>
  void push_all(ThreadList<kMost>& v) {
    auto s = config().schedule;
    if (s == Schedule::reverse) std::reverse(v.begin(), v.end());
    if (s == Schedule::random) std::shuffle(v.begin(), v.end(), rng);
    for (auto* t : v) {
      if (t->state == State::waiting) t->state = State::ready;
      ready.push(t);
    }
  }
  Fiber* fiber_for(ThreadState* t) {
    if (t->fiber) return t->fiber;
    if (has_tsan()) {  // one TSan fiber per CUDA thread, and another one in the next block: else
                       // what two blocks' thread 0 do would pass for ordered
      const unsigned n = t->home->count;
      t->fiber = fibers[t->home->rank * n + (t->linear + 7 * turns) % n].get();
    } else if (!free_fibers.empty()) {
      t->fiber = free_fibers.back();
      free_fibers.pop_back();
    } else {
      t->fiber = new_fiber();
    }
    t->fiber->job = t;
    t->fiber->copies.clear();
    return t->fiber;
  }
  void set_current(ThreadState* t) {
    t_cur = t;
    t_ids = &t->home->ids;
  }
  void gone(ThreadState* t) {
    t->state = State::done;
    ++t->home->done;
    ++done;
  }
  void leave(Fiber& from) {  // run something else
    from.job->home->turn_ends(from.job);
    ThreadState* n = pop();
    Fiber& to = n ? *fiber_for(n) : main;
    if (&to != &from) jump(from, to);
  }
  void wait(ThreadState* t, const char* what, const Loc& loc) {
    t->state = State::waiting;
    t->wait_what = what;
    t->wait_loc = loc;
    leave(*t->fiber);
    set_current(t);
    if (cancelling) throw Cancelled{};
  }

  // ------------------------------------------------------------ cluster
  void run_cluster(std::uint64_t index);
  void finish(ThreadState* t);
  void deadlock();
  static std::string name_of(const BlockIds& ids) {
    return "block(" + std::to_string(ids.block_idx.x) + "," + std::to_string(ids.block_idx.y) +
           "," + std::to_string(ids.block_idx.z) + ")";
  }
  std::string where(const ThreadState* t) const {
    return std::string(launch->grid->name) + " " + name_of(t->home->ids) + " thread(" +
           std::to_string(t->thread_idx.x) + "," + std::to_string(t->thread_idx.y) + "," +
           std::to_string(t->thread_idx.z) + ")";
  }
};

constinit thread_local Worker* t_worker = nullptr;
ThreadState* self() { return static_cast<ThreadState*>(t_cur); }

void Worker::jump(Fiber& from, Fiber& to) {
  ++stats.switches;
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&from.fake, to.stack, to.size);
  if (__msan_start_switch_fiber) __msan_start_switch_fiber(to.stack, to.size);
  if (has_tsan()) __tsan_switch_to_fiber(to.tsan, 1 /* no_sync */);
  context_swap(from.ctx, to.ctx);
  const void* b = nullptr;
  std::size_t s = 0;
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from.fake, &b, &s);
  if (__msan_finish_switch_fiber) __msan_finish_switch_fiber(&b, &s);
}

void fiber_main() {
  Worker* w = t_worker;
  {
    const void* b = nullptr;
    std::size_t s = 0;
    if (__sanitizer_finish_switch_fiber) {
      __sanitizer_finish_switch_fiber(nullptr, &b, &s);
      if (!w->main.stack) {
        w->main.stack = const_cast<char*>(static_cast<const char*>(b));
        w->main.size = s;
      }
    }
    if (__msan_finish_switch_fiber) {
      __msan_finish_switch_fiber(&b, &s);
      if (!w->main.stack) {
        w->main.stack = const_cast<char*>(static_cast<const char*>(b));
        w->main.size = s;
      }
    }
  }
  // The fiber that entered here first: the one whose job points at a not-started thread on it.
  ThreadState* t = nullptr;
  Fiber* f = nullptr;
  const char* probe = static_cast<const char*>(__builtin_frame_address(0));
  for (auto& c : w->fibers)
    if (probe >= c->stack && probe < c->stack + c->size) f = c.get();
  for (;;) {
    w = t_worker;
    t = f->job;
    t->state = State::ready;
    w->set_current(t);
    if (!w->cancelling) {
      try {
        if (has_tsan()) {
          acquire(w);
          acquire(&w->launch->total);
        }
        w->launch->grid->entry(w->launch->grid->closure);
        w->finish(t);
      } catch (const Cancelled&) {
        w->gone(t);
      } catch (const Error& e) {
        w->launch->record(e.fault, e.what());
        w->faulted = true;
        w->gone(t);
      }
    } else {
      w->gone(t);
    }
    if (has_tsan()) release(&w->launch->failed);
    f->job = nullptr;
    t->fiber = nullptr;
    if (w->faulted) {  // back to the scheduler, which cancels
      if (!has_tsan()) w->free_fibers.push_back(f);
      w->jump(*f, w->main);
      continue;
    }
    ThreadState* n = w->pop();
    if (n && !n->fiber && !has_tsan()) {  // fresh thread: reuse this stack, no switch
      f->job = n;
      f->copies.clear();
      n->fiber = f;
      continue;
    }
    Fiber* to = n ? w->fiber_for(n) : &w->main;
    if (!has_tsan()) w->free_fibers.push_back(f);
    w->jump(*f, *to);
  }
}

Fiber* Worker::new_fiber() {
  auto f = std::make_unique<Fiber>();
  std::size_t want = config().stack_bytes;
  if (!want) want = (has_asan() || has_tsan() || has_msan()) ? 256 * 1024 : 64 * 1024;
  f->map_size = want + 4096;
  void* m = mmap(nullptr, f->map_size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) throw std::bad_alloc();
  f->map = static_cast<char*>(m);
  mprotect(f->map, 4096, PROT_NONE);
  f->stack = f->map + 4096;
  f->size = want;
#if defined(SIMT_EMU_VALGRIND)
  (void)VALGRIND_STACK_REGISTER(f->stack, f->stack + f->size);
#endif
  if (has_tsan()) f->tsan = __tsan_create_fiber(0);
  context_make(f->ctx, f->stack, f->size, fiber_main);
  fibers.push_back(std::move(f));
  return fibers.back().get();
}

char* BlockState::carve(std::size_t bytes, std::size_t align) {
  std::size_t off = (arena_used + align - 1) / align * align;
  std::size_t end = off + bytes;
  if (end + kRedZone > kArena)
    fail(Fault::shared_limit, "shared memory arena exhausted", Loc::current());
  char* p = arena + off;
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(p, bytes);
  fill(p, kPoison, bytes);
  if (!has_asan()) fill(p + bytes, kCanary, kRedZone);
  if (__msan_allocated_memory) __msan_allocated_memory(p, bytes);
#if defined(SIMT_EMU_VALGRIND)
  (void)VALGRIND_MAKE_MEM_UNDEFINED(p, bytes);
#endif
  arena_used = end + kRedZone;
  shared_bytes += bytes;
  // The dynamic array comes after the static ones, where it is aligned.
  const std::size_t dynamic = worker->launch->grid->smem, statics = shared_bytes - dynamic;
  if (statics > kMostStaticShared)
    fail(Fault::shared_limit,
         "block has " + std::to_string(statics) + " bytes of static shared memory, limit " +
             std::to_string(kMostStaticShared),
         Loc::current());
  const std::size_t limit = worker->launch->shared_limit,
                    used = dynamic +
                           (dynamic ? (statics + kDynamicAlign - 1) / kDynamicAlign * kDynamicAlign
                                    : statics);
  if (used > limit)
    fail(Fault::shared_limit,
         "block uses " + std::to_string(used) + " bytes of shared memory, " +
             std::to_string(dynamic) + " of them dynamic, limit " + std::to_string(limit),
         Loc::current());
  return p;
}

void BlockState::check_canaries() {
  if (has_asan()) return;
  Launch* const launch = worker->launch;
  for (const auto& e : shared) {
    const char* z = e.ptr + e.bytes;
    for (std::size_t i = 0; i < kRedZone; ++i)
      if (static_cast<unsigned char>(z[i]) != kCanary) {
        launch->record(Fault::shared_overflow,
                       std::string(launch->grid->name) + ": write " + std::to_string(i) +
                           " bytes past a shared array of " + std::to_string(e.bytes) + " bytes");
        worker->faulted = true;
        return;
      }
  }
}

void BlockState::begin(const Grid& g, std::uint64_t index) {
  ids.block_dim = g.block;
  ids.grid_dim = g.grid;
  ids.block_idx = {unsigned(index % g.grid.x), unsigned(index / g.grid.x % g.grid.y),
                   unsigned(index / g.grid.x / g.grid.y)};
  count = g.block.x * g.block.y * g.block.z;
  done = 0;
  if (has_tsan() && arena) {  // a remapped range has no TSan history
    munmap(arena, kArena);
    arena = nullptr;
  }
  if (!arena) {
    void* m = mmap(nullptr, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) throw std::bad_alloc();
    arena = static_cast<char*>(m);
  }
  if (__asan_poison_memory_region) __asan_poison_memory_region(arena, kArena);
  proxy.begin(index, count);
  proxy_fenced = 0;
  arena_used = kRedZone;
  shared_bytes = 0;
  shared.clear();
  mapped = false;
  tile_count = 0;
  for (auto& w : warps) {
    w.exited = w.open = w.at_cluster_barrier = 0;
    std::fill(std::begin(w.opened), std::end(w.opened), std::uint8_t{0});
  }
  if (count % 32) warps[count / 32].exited = ~0u << (count % 32);
  for (int i = 0; i < kBarriers; ++i) {
    bars[i].arrived = 0;
    bars[i].phase = 0;
    bar_waiting[i].clear();
  }
  for (auto& group : groups) group.arrived = 0;
  for (unsigned i = 0; i < count; ++i) {
    ThreadState& t = threads[i];
    t.thread_idx = {i % g.block.x, i / g.block.x % g.block.y, i / g.block.x / g.block.y};
    t.linear = i;
    t.lane = i % 32;
    t.warp = i / 32;
    t.block = this;
    t.home = this;
    t.state = State::not_started;
    t.fiber = nullptr;
    t.async_group = 0;
    t.fenced = t.block_fenced = t.proxy_fenced = false;
    t.last_atomic = nullptr;
    t.landed = 0;
    t.products = 0;
    t.cluster_arrived = false;
    t.waits_for_tile = nullptr;
  }
  dyn = carve(g.smem, kDynamicAlign);
  shared.push_back({nullptr, dyn, g.smem, kDynamicAlign});
}

// The block's last thread has exited. Its shared memory is gone: others must not read it any more.
void BlockState::retire() {
  for (unsigned i = 0; i < tile_count; ++i)
    if (config().strict && tiles[i].copies > 0)
      throw Error(Fault::async_outstanding,
                  std::string(worker->launch->grid->name) + " " + Worker::name_of(ids) +
                      " exits with bulk copies that no thread waited for");
  check_canaries();
  if (worker->cluster == 1) return;
  if (config().strict && mapped && mapped_phase == worker->cluster_barrier.phase)
    throw Error(Fault::cluster_exit, std::string(worker->launch->grid->name) + " " +
                                         Worker::name_of(ids) + " exits, but block " +
                                         std::to_string(mapped_by) +
                                         " of its cluster mapped its shared memory at " +
                                         at(mapped_loc) + " and no cluster barrier followed");
  if (__asan_poison_memory_region)
    __asan_poison_memory_region(arena, kArena);
  else
    for (const auto& e : shared) fill(e.ptr, kPoison, e.bytes);
}

void Worker::run_cluster(std::uint64_t index) {
  const Grid& g = *launch->grid;
  cluster = g.cluster;
  const unsigned block_threads = g.block.x * g.block.y * g.block.z;
  count = cluster * block_threads;
  done = 0;
  cancelling = faulted = false;
  while (blocks.size() < cluster) {
    blocks.push_back(std::make_unique<BlockState>());
    blocks.back()->worker = this;
    blocks.back()->rank = unsigned(blocks.size() - 1);
    release(this);
  }
  if (has_tsan()) {
    if (!sync_base) {
      void* m = mmap(nullptr, kSyncBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (m == MAP_FAILED) throw std::bad_alloc();
      sync_base = static_cast<char*>(m);
    }
    while (fibers.size() < count) new_fiber();
  }
  cluster_barrier.arrived = cluster_barrier.phase = 0;
  cluster_barrier.waiting.clear();
  wake.clear();
  for (unsigned r = 0; r < cluster; ++r) {
    if (has_tsan()) {
      sync_next += BlockState::kSyncBytes;
      if (sync_next + BlockState::kSyncBytes > kSyncBytes) sync_next = 0;
      blocks[r]->sync = sync_base + sync_next;
    }
    blocks[r]->begin(g, index * cluster + r);
    for (unsigned i = 0; i < block_threads; ++i) wake.push_back(&blocks[r]->threads[i]);
  }
  ready.clear();
  if (config().schedule == Schedule::random)
    rng.seed(config().seed * 0x9E3779B97F4A7C15ull + index);
  push_all(wake);

  while (ThreadState* t = pop()) {
    jump(main, *fiber_for(t));
    if (faulted) break;
  }
  if (!faulted && done < count) deadlock();
  if (done < count) {  // unwind what is left
    cancelling = true;
    ready.clear();
    for (unsigned r = 0; r < cluster; ++r)
      for (unsigned i = 0; i < block_threads; ++i)
        if (ThreadState& t = blocks[r]->threads[i]; t.state != State::done) {
          if (!t.fiber) {
            gone(&t);
            continue;
          }
          faulted = true;
          jump(main, *t.fiber);
        }
  }
  t_cur = nullptr;
  ++turns;
  stats.blocks += cluster;
  stats.threads += count;
}

void Worker::deadlock() {
  const char* what = cluster > 1 ? ": deadlock in the cluster of " : ": deadlock in ";
  std::string m = std::string(launch->grid->name) + what + name_of(blocks[0]->ids) + ":";
  for (unsigned r = 0; r < cluster; ++r) {
    const BlockState& b = *blocks[r];
    if (cluster > 1) m += " block " + std::to_string(r) + ":";
    std::vector<bool> seen(b.count, false);
    for (unsigned i = 0; i < b.count; ++i) {
      const auto& t = b.threads[i];
      if (t.state != State::waiting || seen[i]) continue;
      unsigned n = 0;
      for (unsigned j = i; j < b.count; ++j)
        if (b.threads[j].state == State::waiting && b.threads[j].wait_what == t.wait_what &&
            same(b.threads[j].wait_loc, t.wait_loc)) {
          seen[j] = true;
          ++n;
        }
      m += ' ';
      m += std::to_string(n) + " thread(s) from " + std::to_string(i) + " on wait in " +
           t.wait_what + " at " + at(t.wait_loc) + ";";
    }
    for (unsigned i = 0; i < b.tile_count; ++i)
      if (const TileBarrierState& tile = b.tiles[i]; tile.pending || tile.bytes)
        m += " tile barrier " + std::to_string(i) + " lacks " + std::to_string(tile.pending) +
             " arrival(s) and " + std::to_string(tile.bytes) + " bytes;";
    m += ' ';
    m += std::to_string(b.done) + " exited";
  }
  launch->record(Fault::deadlock, m);
  faulted = true;
}

void Worker::finish(ThreadState* t) {
  BlockState& b = *t->home;
  if (config().strict && !t->fiber->copies.empty())
    throw Error(Fault::async_outstanding,
                where(t) + " exits with cp.async copies it never waited for");
  if (config().strict && t->products > 0)
    throw Error(Fault::async_outstanding, where(t) + " exits with products of wgmma under way");
  if (config().strict && t->cluster_arrived)
    throw Error(Fault::early_exit, where(t) + " exits between cluster_arrive and cluster_wait");
  if (config().strict && cluster_barrier.arrived > 0)
    throw Error(Fault::early_exit, where(t) + " exits while " +
                                       std::to_string(cluster_barrier.arrived) +
                                       " thread(s) of its cluster are at the cluster barrier");
  if (config().strict && b.bars[0].arrived > 0)
    throw Error(Fault::early_exit, where(t) + " exits while " + std::to_string(b.bars[0].arrived) +
                                       " thread(s) wait in __syncthreads at " + at(b.bars[0].loc));
  b.turn_ends(t);
  gone(t);
  b.unfence(t);
  Warp& w = b.warps[t->warp];
  w.exited |= 1u << t->lane;
  for (unsigned i = 0; i < w.open;) {
    if ((w.pending[i].mask & ~w.exited & ~w.pending[i].arrived) == 0)
      b.complete(w, i, t->warp);
    else
      ++i;
  }
  if (b.done < b.count) return;
  try {
    b.retire();
  } catch (const Error& e) {
    launch->record(e.fault, e.what());
    faulted = true;
  }
}

void BlockState::complete(Warp& w, unsigned i, unsigned warp_index) {
  Collective& c = w.pending[i];
  c.fn(c.req, c.arrived);
  worker->wake.clear();
  for (unsigned l = 0; l < 32; ++l)
    if (c.arrived >> l & 1) {
      ThreadState* o = &threads[warp_index * 32 + l];
      if (o->state == State::waiting) worker->wake.push_back(o);
    }
  worker->push_all(worker->wake);
  if (i != --w.open) w.pending[i] = w.pending[w.open];
  ++worker->stats.collectives;
}

// ---------------------------------------------------------------- OS threads
struct Pool {
  std::mutex m;
  std::condition_variable start, finished;
  std::vector<std::thread> threads;
  Launch* job = nullptr;
  std::uint64_t generation = 0;
  unsigned busy = 0;
  bool stop = false;

  static void work(Launch* l) {
    static thread_local std::unique_ptr<Worker> w;
    if (!w) {
      w = std::make_unique<Worker>();
      if (has_tsan()) w->main.tsan = __tsan_get_current_fiber();
    }
    t_worker = w.get();
    w->launch = l;
    w->stats = {};
    for (;;) {
      std::uint64_t i = l->next.fetch_add(1, std::memory_order_relaxed);
      if (i >= l->total || l->failed.load(std::memory_order_relaxed)) break;
      if (config().schedule == Schedule::reverse) i = l->total - 1 - i;
      try {
        w->run_cluster(i);
      } catch (const Error& e) {
        l->record(e.fault, e.what());
      }
    }
    std::lock_guard lock(g_stats_mutex);
    g_stats.blocks += w->stats.blocks;
    g_stats.threads += w->stats.threads;
    g_stats.barriers += w->stats.barriers;
    g_stats.collectives += w->stats.collectives;
    g_stats.switches += w->stats.switches;
    g_stats.mma += w->stats.mma;
    g_stats.ldmatrix += w->stats.ldmatrix;
    g_stats.ldmatrix_conflicts += w->stats.ldmatrix_conflicts;
    g_stats.loads += w->stats.loads;
    g_stats.load_conflicts += w->stats.load_conflicts;
    g_stats.cluster_barriers += w->stats.cluster_barriers;
    g_stats.exp2 += w->stats.exp2;
    g_stats.bulk_bytes += w->stats.bulk_bytes;
  }
  void grow(unsigned n) {
    while (threads.size() < n)
      threads.emplace_back([this, seen = generation]() mutable {
        for (;;) {
          Launch* l = nullptr;
          {
            std::unique_lock lock(m);
            start.wait(lock, [&] { return stop || generation != seen; });
            if (stop) return;
            seen = generation;
            l = job;
          }
          work(l);
          std::lock_guard lock(m);
          if (--busy == 0) finished.notify_all();
        }
      });
  }
  void run(Launch& l, unsigned n) {
    if (n <= 1) {
      work(&l);
      return;
    }
    {
      std::lock_guard lock(m);
      grow(n - 1);
      job = &l;
      busy = unsigned(threads.size());
      ++generation;
    }
    start.notify_all();
    work(&l);
    std::unique_lock lock(m);
    finished.wait(lock, [&] { return busy == 0; });
  }
  ~Pool() {
    {
      std::lock_guard lock(m);
      stop = true;
    }
    start.notify_all();
    for (auto& t : threads) t.join();
  }
};

}  // namespace

namespace {
// RETORT_SIMT_SCHEDULE = forward | reverse | shuffle[:SEED]
Config config_from_environment() {
  Config c;
  const char* text = std::getenv("RETORT_SIMT_SCHEDULE");
  if (text == nullptr) return c;
  if (std::strcmp(text, "reverse") == 0) c.schedule = Schedule::reverse;
  if (std::strncmp(text, "shuffle", 7) == 0) {
    c.schedule = Schedule::random;
    if (text[7] == ':') c.seed = std::strtoull(text + 8, nullptr, 10);
  }
  return c;
}
}  // namespace

Config& config() {
  static Config c = config_from_environment();
  return c;
}
Stats stats() {
  std::lock_guard lock(g_stats_mutex);
  return g_stats;
}
void reset_stats() {
  std::lock_guard lock(g_stats_mutex);
  g_stats = {};
}

const char* to_string(Fault f) {
  switch (f) {
    case Fault::barrier_divergence: return "barrier divergence";
    case Fault::deadlock: return "deadlock";
    case Fault::early_exit: return "early exit";
    case Fault::bad_collective: return "bad warp collective";
    case Fault::shared_overflow: return "shared memory overflow";
    case Fault::shared_limit: return "shared memory limit";
    case Fault::misaligned: return "misaligned access";
    case Fault::async_outstanding: return "outstanding asynchronous copy";
    case Fault::bad_cluster: return "bad use of a cluster";
    case Fault::cluster_exit: return "shared memory of an exited block";
    case Fault::proxy_fence: return "missing proxy fence";
    case Fault::register_fence: return "missing wgmma fence";
    case Fault::bad_tile: return "bad use of a tile barrier";
    case Fault::launch_config: return "launch configuration";
  }
  return "?";
}

void run_grid(const Grid& g) {
  std::uint64_t threads = std::uint64_t(g.block.x) * g.block.y * g.block.z;
  std::uint64_t blocks = std::uint64_t(g.grid.x) * g.grid.y * g.grid.z;
  if (threads == 0 || threads > 1024 || blocks == 0 || g.block.z > 64 || g.grid.y > 65535 ||
      g.grid.z > 65535)
    throw Error(Fault::launch_config, std::string(g.name) + ": invalid grid or block size");
  if (g.cluster == 0 || g.cluster > kMaxCluster || (g.cluster & (g.cluster - 1)) != 0 ||
      g.grid.x % g.cluster != 0)
    throw Error(Fault::launch_config,
                std::string(g.name) + ": clusters of " + std::to_string(g.cluster) +
                    " blocks do not divide the grid's " + std::to_string(g.grid.x));
  if (g.cluster > 1 && capability() < 90)
    throw Error(Fault::launch_config, std::string(g.name) + ": clusters need capability 9.0");
  static Pool pool;
  static std::mutex one;  // launches are serialised: one "stream"
  std::lock_guard lock(one);
  Launch l;
  l.grid = &g;
  l.total = blocks / g.cluster;
  l.shared_limit = config().shared_limit ? config().shared_limit
                   : capability() >= 90  ? 227 * 1024
                                         : 163 * 1024;
  unsigned n =
      config().os_threads ? config().os_threads : std::max(1u, std::thread::hardware_concurrency());
  if (has_tsan()) release(&l.total);
  pool.run(l, unsigned(std::min<std::uint64_t>(n, l.total)));
  if (has_tsan()) acquire(&l.failed);
  if (l.failed) throw Error(l.fault, std::string(to_string(l.fault)) + ": " + l.message);
}

void fail(Fault f, const std::string& m, Loc loc) {
  throw Error(f, (t_cur ? t_worker->where(self()) + ": " : std::string()) + m + " at " + at(loc));
}

void check_aligned(const void* p, std::size_t a, const char* what, Loc loc) {
  if (reinterpret_cast<std::uintptr_t>(p) % a)
    fail(Fault::misaligned, std::string(what) + " needs " + std::to_string(a) + "-byte alignment",
         loc);
}

int block_barrier(int id, int want, BarOp op, int pred, Loc loc) {
  Worker* w = t_worker;
  ThreadState* t = self();
  BlockState& home = *t->home;
  Barrier& b = home.bars[id];
  int expect = want ? want : int(home.count);
  if (!want && home.done) {
    if (config().strict)
      fail(Fault::early_exit,
           "__syncthreads after " + std::to_string(home.done) + " thread(s) of the block exited",
           loc);
    expect -= int(home.done);
  }
  if (b.arrived == 0) {
    b.loc = loc;
    b.expect = expect;
    b.acc = op == BarOp::all_of ? 1 : 0;
  } else if (!same(b.loc, loc) || b.expect != expect) {
    fail(Fault::barrier_divergence,
         "threads of one block meet at different barriers: " + at(b.loc) + " and here", loc);
  }
  if (op == BarOp::count) b.acc += pred != 0;
  if (op == BarOp::all_of) b.acc &= pred != 0;
  if (op == BarOp::any_of) b.acc |= pred != 0;
  unsigned phase = b.phase;
  if (has_tsan()) release(home.bar_sync(id, phase));
  if (++b.arrived == b.expect) {
    b.arrived = 0;
    ++b.phase;
    b.result = b.acc;
    ++w->stats.barriers;
    home.bar_waiting[id].push_back(t);  // the last to come queues like the others
    for (ThreadState* o : home.bar_waiting[id]) home.unfence(o);
    t->state = State::waiting;
    w->push_all(home.bar_waiting[id]);
    home.bar_waiting[id].clear();
    t->wait_what = "__syncthreads";
    w->leave(*t->fiber);
    w->set_current(t);
    if (w->cancelling) throw Cancelled{};
  } else {
    home.bar_waiting[id].push_back(t);
    w->wait(t, "__syncthreads", loc);
  }
  if (has_tsan()) acquire(home.bar_sync(id, phase));
  return b.result;
}

void warp_collective(CollectiveFn fn, std::uint32_t mask, void* req, bool orders, const char* what,
                     Loc loc) {
  Worker* w = t_worker;
  ThreadState* t = self();
  Warp& warp = t->home->warps[t->warp];
  const std::uint32_t bit = 1u << t->lane;
  if (!(mask & bit))
    fail(Fault::bad_collective, std::string(what) + ": the caller's lane is not in its mask", loc);
  unsigned i = 0;
  // Overlapping masks are no fault by themselves: the lanes may come one after the other. If they
  // cannot, the deadlock report names both places.
  while (i < warp.open && warp.pending[i].mask != mask) ++i;
  if (i == warp.open) {
    Collective& c = warp.pending[warp.open++];
    c.arrived = 0;
    c.mask = mask;
    c.fn = fn;
    c.what = what;
    c.loc = loc;
    c.orders_memory = orders;
    // Groups of lanes with masks of their own meet independently of each other. Two objects each:
    // a lane may be at the group's next meeting before another has left this one.
    const auto first = unsigned(std::countr_zero(mask));
    c.sync = 2 * first + (warp.opened[first]++ & 1);
  }
  Collective& c = warp.pending[i];
  if (c.fn != fn || (config().strict && !same(c.loc, loc)))
    fail(Fault::bad_collective,
         std::string(what) + " meets " + c.what + " at " + at(c.loc) + " (lanes diverged)", loc);
  c.req[t->lane] = req;
  c.arrived |= bit;
  void* const sync = t->home->warp_sync(t->warp, c.sync);  // c is another's when this one waited
  if (has_tsan() && orders) release(sync);
  if ((mask & ~warp.exited & ~c.arrived) == 0)
    t->home->complete(warp, i, t->warp);
  else
    w->wait(t, what, loc);
  if (has_tsan() && orders) acquire(sync);
}

void warpgroup_collective(GroupFn fn, void* req, const char* what, Loc loc) {
  Worker* w = t_worker;
  ThreadState* t = self();
  BlockState& home = *t->home;
  WarpGroup& g = home.groups[t->linear / 128];
  if (home.count < (t->linear / 128 + 1) * 128)
    fail(Fault::bad_collective, std::string(what) + ": incomplete warp group", loc);
  if (g.arrived == 0) {
    g.fn = fn;
    g.what = what;
    g.loc = loc;
  } else if (g.fn != fn || !same(g.loc, loc)) {
    fail(Fault::bad_collective,
         std::string(what) + " meets " + g.what + " at " + at(g.loc) + " (warps diverged)", loc);
  }
  g.req[t->linear % 128] = req;
  if (++g.arrived < 128) {
    w->wait(t, what, loc);
    return;
  }
  g.arrived = 0;
  fn(g.req);
  w->wake.clear();
  for (unsigned i = t->linear / 128 * 128, n = 0; n < 128; ++n)
    if (&home.threads[i + n] != t) w->wake.push_back(&home.threads[i + n]);
  w->push_all(w->wake);
  ++w->stats.collectives;
}

std::uint32_t shared_offset(const void* p, Loc loc) {
  const auto d = static_cast<const char*>(p) - self()->home->arena;
  if (d < 0 || std::size_t(d) >= kArena)
    fail(Fault::bad_collective, "not a shared-memory address", loc);
  return std::uint32_t(d);
}
const void* shared_at(std::uint32_t o) { return self()->home->arena + o; }

void* shared_alloc(const void* key, std::size_t bytes, std::size_t align) {
  return self()->home->shared_array(key, bytes, std::max<std::size_t>(align, 16));
}
void* dynamic_shared() { return self()->home->dyn; }
std::size_t dynamic_shared_size() { return t_worker->launch->grid->smem; }

void cp_async_enqueue(void* dst, const void* src, std::size_t bytes, std::size_t src_bytes,
                      Loc loc) {
  check_aligned(dst, bytes, "cp.async destination", loc);
  check_aligned(src, bytes, "cp.async source", loc);
  ThreadState* t = self();
  // Poison the destination now and copy only when the group is waited for, so that data used too
  // early is NaN. memset/memcpy of run-time size: sanitizer interceptors see both as this thread's.
  std::memset(dst, kPoison, bytes);
  t->fiber->copies.push_back({dst, src, unsigned(bytes), unsigned(src_bytes), t->async_group});
}
void cp_async_wait(unsigned newest_left) {
  ThreadState* t = self();
  auto& v = t->fiber->copies;
  BlockState& home = *t->home;
  std::size_t keep = 0;
  for (const auto& c : v) {
    if (c.group + newest_left >= t->async_group) {
      v[keep++] = c;
      continue;
    }
    std::memcpy(c.dst, c.src, c.src_bytes);
    std::memset(static_cast<char*>(c.dst) + c.src_bytes, 0, c.bytes - c.src_bytes);
    const auto offset = static_cast<char*>(c.dst) - home.arena;
    if (offset >= 0 && std::size_t(offset) < kArena)
      home.proxy.landed(t->landed, std::size_t(offset));
  }
  v.resize(keep);
}
void cp_async_commit() { ++self()->async_group; }

// ---------------------------------------------------------------- clusters
unsigned cluster_rank() { return self()->home->rank; }
unsigned cluster_size() { return t_worker->cluster; }

void cluster_arrive(Loc loc) {
  Worker* w = t_worker;
  ThreadState* t = self();
  ClusterBarrier& c = w->cluster_barrier;
  if (t->cluster_arrived)
    fail(Fault::bad_cluster, "cluster_arrive twice without a cluster_wait", loc);
  if (w->done && config().strict)
    fail(Fault::early_exit,
         "cluster_arrive after " + std::to_string(w->done) + " thread(s) of the cluster exited",
         loc);
  // .aligned: the lanes of a warp execute the same instruction.
  Warp& warp = t->home->warps[t->warp];
  if (warp.at_cluster_barrier == 0)
    warp.cluster_loc = loc;
  else if (!same(warp.cluster_loc, loc))
    fail(Fault::barrier_divergence,
         "lanes of one warp meet at different cluster barriers: " + at(warp.cluster_loc) +
             " and here",
         loc);
  if (++warp.at_cluster_barrier == std::min(32u, t->home->count - 32 * t->warp))
    warp.at_cluster_barrier = 0;
  t->cluster_arrived = true;
  t->cluster_phase = c.phase;
  if (has_tsan()) release(w->blocks[0]->cluster_sync(c.phase));
  if (++c.arrived < w->count - w->done) return;
  c.arrived = 0;
  ++c.phase;
  ++w->stats.cluster_barriers;
  w->push_all(c.waiting);
  c.waiting.clear();
}

void cluster_wait(Loc loc) {
  Worker* w = t_worker;
  ThreadState* t = self();
  ClusterBarrier& c = w->cluster_barrier;
  if (!t->cluster_arrived) fail(Fault::bad_cluster, "cluster_wait without a cluster_arrive", loc);
  if (c.phase == t->cluster_phase) {
    c.waiting.push_back(t);
    w->wait(t, "cluster_wait", loc);
  } else {  // queues like those that waited, so that it is not always the first to go on
    w->ready.push(t);
    w->leave(*t->fiber);
    w->set_current(t);
    if (w->cancelling) throw Cancelled{};
  }
  t->cluster_arrived = false;
  if (has_tsan()) acquire(w->blocks[0]->cluster_sync(t->cluster_phase));
}

void* map_shared_rank(const void* p, unsigned rank, Loc loc) {
  Worker* w = t_worker;
  BlockState& home = *self()->home;
  if (rank >= w->cluster)
    fail(Fault::bad_cluster,
         "block " + std::to_string(rank) + " of a cluster of " + std::to_string(w->cluster), loc);
  const SharedEntry* own = home.entry_of(p);
  if (!own) fail(Fault::bad_cluster, "not an address in a shared array of this block", loc);
  const SharedEntry e = *own;
  const std::ptrdiff_t offset = static_cast<const char*>(p) - e.ptr;
  if (rank == home.rank) return e.ptr + offset;
  BlockState& other = *w->blocks[rank];
  if (config().strict && w->cluster_barrier.phase == 0)
    fail(Fault::bad_cluster,
         "shared memory mapped before the first cluster barrier: block " + std::to_string(rank) +
             " may not have started",
         loc);
  if (other.done == other.count)
    fail(Fault::cluster_exit, "block " + std::to_string(rank) + " of the cluster has exited", loc);
  other.mapped = true;
  other.mapped_phase = w->cluster_barrier.phase;
  other.mapped_by = home.rank;
  other.mapped_loc = loc;
  return static_cast<char*>(other.shared_array(e.key, e.bytes, e.align)) + offset;
}

// ---------------------------------------------------------------- tiles
namespace {
TileBarrierState& tile_of(const void* barrier, Loc loc) {
  BlockState& b = *self()->home;
  for (unsigned i = 0; i < b.tile_count; ++i)
    if (b.tiles[i].at == barrier) return b.tiles[i];
  fail(Fault::bad_tile, "a tile barrier that was never initialised", loc);
}
void end_phase_if_complete(BlockState& b, TileBarrierState& tile) {
  if (tile.pending || tile.bytes) return;
  ++tile.phase;
  tile.pending = tile.arrivals;
  Worker* w = b.worker;
  w->wake.clear();
  for (unsigned i = 0; i < b.count; ++i)
    if (b.threads[i].waits_for_tile == tile.at) {
      b.threads[i].waits_for_tile = nullptr;
      w->wake.push_back(&b.threads[i]);
    }
  w->push_all(w->wake);
}
}  // namespace

void tile_barrier_init(const void* barrier, unsigned arrivals, Loc loc) {
  BlockState& b = *self()->home;
  check_aligned(barrier, 8, "tile barrier", loc);
  if (!b.entry_of(barrier)) fail(Fault::bad_tile, "a tile barrier outside shared memory", loc);
  if (arrivals == 0) fail(Fault::bad_tile, "a tile barrier without arrivals", loc);
  unsigned i = 0;
  while (i < b.tile_count && b.tiles[i].at != barrier) ++i;
  if (i == kTileBarriers)
    fail(Fault::bad_tile, "more than " + std::to_string(kTileBarriers) + " tile barriers", loc);
  if (i == b.tile_count) ++b.tile_count;
  TileBarrierState& tile = b.tiles[i];
  tile.at = barrier;
  tile.ready = false;
  tile.owner = self();
  tile.arrivals = tile.pending = arrivals;
  tile.phase = tile.copies = 0;
  tile.bytes = 0;
}

void tile_barriers_ready() {
  BlockState& b = *self()->home;
  for (unsigned i = 0; i < b.tile_count; ++i)
    if (b.tiles[i].owner == self()) b.tiles[i].ready = true;
}

void tile_barrier_arrive(const void* barrier, unsigned bytes, Loc loc) {
  TileBarrierState& tile = tile_of(barrier, loc);
  if (has_tsan()) release(self()->home->tile_sync(&tile));
  tile.bytes += bytes;
  --tile.pending;  // > 0: a phase with none pending has ended
  end_phase_if_complete(*self()->home, tile);
}

void tile_load(void* dst, const void* src, unsigned bytes, const void* barrier, Loc loc) {
  BlockState& b = *self()->home;
  TileBarrierState& tile = tile_of(barrier, loc);
  if (!tile.ready) fail(Fault::bad_tile, "no tile_barriers_ready() after tile_barrier_init", loc);
  check_aligned(dst, 16, "bulk copy destination", loc);
  check_aligned(src, 16, "bulk copy source", loc);
  if (bytes == 0 || bytes % 16)
    fail(Fault::misaligned, "a bulk copy of " + std::to_string(bytes) + " bytes: not whole 16s",
         loc);
  const SharedEntry* e = b.entry_of(dst);
  if (!e || static_cast<char*>(dst) + bytes > e->ptr + e->bytes)
    fail(Fault::shared_overflow, "a bulk copy past the end of a shared array", loc);
  if (tile.copies == kTileCopies)
    fail(Fault::bad_tile, "more than " + std::to_string(kTileCopies) + " bulk copies under way",
         loc);
  const auto offset = std::size_t(static_cast<char*>(dst) - b.arena);
  b.proxy.use();
  if (!b.proxy.sees(offset, static_cast<char*>(dst), bytes))
    fail(Fault::proxy_fence,
         "a bulk copy over shared memory that was written without async_proxy_fence() after it",
         loc);
  std::memset(dst, kPoison, bytes);  // as for cp.async: used too early, it is NaN
  b.proxy.poison(offset, bytes);
  if (has_tsan()) release(b.tile_sync(&tile));
  tile.copy[tile.copies++] = {dst, src, bytes, tile.phase};
  tile.bytes -= bytes;
  b.worker->stats.bulk_bytes += bytes;
  end_phase_if_complete(b, tile);
}

void tile_barrier_wait(const void* barrier, unsigned parity, Loc loc) {
  ThreadState* t = self();
  BlockState& b = *t->home;
  TileBarrierState& tile = tile_of(barrier, loc);
  if ((tile.phase & 1) == (parity & 1)) {
    t->waits_for_tile = barrier;
    b.worker->wait(t, "tile_wait", loc);
  }
  if (has_tsan()) acquire(b.tile_sync(&tile));
  // The first to wait makes the copies: memcpy of run-time size, seen by sanitizers as this
  // thread's accesses.
  unsigned kept = 0, landed = 0;
  for (unsigned i = 0; i < tile.copies; ++i) {
    const TileCopy c = tile.copy[i];
    if (c.phase == tile.phase) {
      tile.copy[kept++] = c;
      continue;
    }
    std::memcpy(c.dst, c.src, c.bytes);
    b.proxy.write(std::size_t(static_cast<char*>(c.dst) - b.arena), static_cast<const char*>(c.src),
                  c.bytes);
    ++landed;
  }
  tile.copies = kept;
  if (has_tsan() && landed) release(b.tile_sync(&tile));
}

void count_exp2() { ++t_worker->stats.exp2; }
int capability() {
  if (config().capability) return config().capability;
  const char* text = std::getenv("RETORT_SIMT_CAPABILITY");
  return text ? std::atoi(text) : 90;
}

// ---------------------------------------------------------------- fences
void thread_fence() {
  ThreadState* t = self();
  t->fenced = t->block_fenced = true;
  if (t->last_atomic) acquire(t->last_atomic);  // what its value published is seen from here on
}
void thread_fence_block() { self()->block_fenced = true; }
int atomic_order(void* p) {
  ThreadState* t = self();
  const auto offset = static_cast<char*>(p) - t->home->arena;
  if (offset >= 0 && std::size_t(offset) < kArena)
    return t->block_fenced ? __ATOMIC_ACQ_REL : __ATOMIC_RELAXED;
  t->last_atomic = p;
  return t->fenced ? __ATOMIC_RELEASE : __ATOMIC_RELAXED;
}

void async_proxy_fence() {
  ThreadState* t = self();
  BlockState& b = *t->home;
  b.proxy.use();
  b.proxy.fence_landed(t->landed, b.arena);
  if (!t->proxy_fenced) ++b.proxy_fenced;
  t->proxy_fenced = true;
  if (b.proxy.watches(t->linear))
    for (const SharedEntry& e : b.shared)
      b.proxy.watch(std::size_t(e.ptr - b.arena), e.bytes, b.arena);
  if (b.proxy_fenced + b.done < b.count) return;
  for (const SharedEntry& e : b.shared)
    b.proxy.publish(std::size_t(e.ptr - b.arena), e.bytes, b.arena);
  b.proxy.published();
}
void check_async_proxy(std::uint32_t offset, unsigned bytes, Loc loc) {
  BlockState& b = *self()->home;
  b.proxy.use();
  if (!b.proxy.sees(offset, b.arena + offset, bytes))
    fail(Fault::proxy_fence,
         "wgmma reads shared memory that was written without async_proxy_fence() after it, by the "
         "thread that wrote (of plain writes: by all threads of the block)",
         loc);
}
void count_products(int started) {
  ThreadState* t = self();
  t->products = unsigned(int(t->products) + started);
}

void count_ldmatrix(unsigned conflicts) {
  ++t_worker->stats.ldmatrix;
  t_worker->stats.ldmatrix_conflicts += conflicts;
}
void count_loads(unsigned conflicts) {
  ++t_worker->stats.loads;
  t_worker->stats.load_conflicts += conflicts;
}
void count_mma() { ++t_worker->stats.mma; }

}  // namespace retort::simt::emu
