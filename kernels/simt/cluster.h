// Thread-block clusters (sm_90): blocks that run together, a barrier of all their threads, and
// loads and stores in each other's shared memory.
//
//   cluster_rank(), cluster_size()   this block's place among the blocks that LaunchConfig::cluster
//                                    put together (consecutive blockIdx.x); 0 and 1 without
//   cluster_arrive(), cluster_wait() a barrier in two halves: what a thread wrote before it arrived
//                                    is seen by every thread that has waited; cluster_sync() is
//                                    both
//   map_shared_rank(p, rank)         the address, in block `rank`, of what is at p here
//
// Rules, which the emulator enforces: every thread of the cluster takes part in every barrier; the
// first barrier comes before any map_shared_rank (the other block may not have started); a barrier
// comes between the last access to another block's memory and that block's exit.
#pragma once
#include "kernels/simt/simt.h"

namespace retort::simt {

#if SIMT_CUDA
// Kernels that use these are compiled for every architecture, and launched on sm_90 and newer only.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
SIMT_D unsigned cluster_rank() {
  unsigned r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
SIMT_D unsigned cluster_size() {
  unsigned n;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
  return n;
}
SIMT_D void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
SIMT_D void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
template <class T>
SIMT_D T* map_shared_rank(T* p, unsigned rank) {
  std::uint64_t there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(rank));
  return reinterpret_cast<T*>(there);
}
#else
SIMT_D unsigned cluster_rank() { return 0; }
SIMT_D unsigned cluster_size() { return 1; }
SIMT_D void cluster_arrive() { __trap(); }
SIMT_D void cluster_wait() { __trap(); }
template <class T>
SIMT_D T* map_shared_rank(T* p, unsigned) {
  __trap();
  return p;
}
#endif
SIMT_D void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
#else
inline unsigned cluster_rank() { return emu::cluster_rank(); }
inline unsigned cluster_size() { return emu::cluster_size(); }
inline void cluster_arrive(emu::Loc l = emu::Loc::current()) { emu::cluster_arrive(l); }
inline void cluster_wait(emu::Loc l = emu::Loc::current()) { emu::cluster_wait(l); }
inline void cluster_sync(emu::Loc l = emu::Loc::current()) {
  emu::cluster_arrive(l);
  emu::cluster_wait(l);
}
template <class T>
T* map_shared_rank(T* p, unsigned rank, emu::Loc l = emu::Loc::current()) {
  return static_cast<T*>(emu::map_shared_rank(p, rank, l));
}
#endif

}  // namespace retort::simt
