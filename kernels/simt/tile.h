// Bulk asynchronous copies (sm_90): one thread asks the copy engine for up to a whole array, and
// every thread waits for it at a barrier that lies in shared memory (an mbarrier).
//
//   SIMT_SHARED(TileBarrier, full, [1]);
//   if (threadIdx.x == 0) {
//     tile_barrier_init(full, 1);               // 1: threads that will call tile_expect
//     tile_barriers_ready();                    // once, after all of them
//     tile_expect(full, bytes);                 // of all loads of this phase together
//     tile_load(shared, global, bytes, full);   // one or more; 16-byte aligned, whole 16s
//   }
//   __syncthreads();                            // the others see the barrier
//   tile_wait(full, 0);                         // phases 0, 1, 0, 1, ...
//
// A phase ends when its expecting threads came and all the bytes have; then the next one begins. A
// buffer may be loaded again once a barrier has followed its last ordinary read; after ordinary
// writes to it, async_proxy_fence() (warpgroup.h) as well.
#pragma once
#include "kernels/simt/simt.h"

namespace retort::simt {

struct alignas(8) TileBarrier {
  std::uint64_t word;
};

#if SIMT_CUDA
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
SIMT_D void tile_barrier_init(TileBarrier* b, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
               : "memory");
}
// The fences make the barriers known to the copy engine.
SIMT_D void tile_barriers_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
SIMT_D void tile_expect(TileBarrier* b, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
               "r"(bytes)
               : "memory");
}
SIMT_D void tile_load(void* to, const void* from, unsigned bytes, TileBarrier* b) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(b))
      : "memory");
}
SIMT_D void tile_wait(TileBarrier* b, unsigned parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}\n" ::"r"(shared_address(b)),
      "r"(parity)
      : "memory");
}
#else
SIMT_D void tile_barrier_init(TileBarrier*, unsigned) { __trap(); }
SIMT_D void tile_barriers_ready() { __trap(); }
SIMT_D void tile_expect(TileBarrier*, unsigned) { __trap(); }
SIMT_D void tile_load(void*, const void*, unsigned, TileBarrier*) { __trap(); }
SIMT_D void tile_wait(TileBarrier*, unsigned) { __trap(); }
#endif
#else
// The word itself is written and read so that sanitizers see who touches the barrier.
inline void tile_barrier_init(TileBarrier* b, unsigned arrivals, emu::Loc l = emu::Loc::current()) {
  b->word = arrivals;
  emu::tile_barrier_init(b, arrivals, l);
}
inline void tile_barriers_ready() { emu::tile_barriers_ready(); }
inline void simt_touch(const TileBarrier* b) {
  (void)*static_cast<const volatile std::uint64_t*>(&b->word);
}
inline void tile_expect(TileBarrier* b, unsigned bytes, emu::Loc l = emu::Loc::current()) {
  simt_touch(b);
  emu::tile_barrier_arrive(b, bytes, l);
}
inline void tile_load(void* to, const void* from, unsigned bytes, TileBarrier* b,
                      emu::Loc l = emu::Loc::current()) {
  simt_touch(b);
  emu::tile_load(to, from, bytes, b, l);
}
inline void tile_wait(TileBarrier* b, unsigned parity, emu::Loc l = emu::Loc::current()) {
  simt_touch(b);
  emu::tile_barrier_wait(b, parity, l);
}
#endif

}  // namespace retort::simt
