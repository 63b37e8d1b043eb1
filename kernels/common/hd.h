// RETORT_HD: a function compiled for host and device alike. Headers that use only this, bf16.h and
// <cstdint> compile under nvcc, NVRTC and any host compiler.
#pragma once

#if defined(__CUDACC__)
#define RETORT_HD __host__ __device__ __forceinline__
#else
#define RETORT_HD inline
#endif
