// Clusters, asynchronous copies, mbarriers, wgmma: what they give, and what a kernel owes them.
#include "tests/ptx/ptx_run.h"

namespace retort::ptx {
namespace {
const std::string kBarrier =
    "barrier.cluster.arrive.release.aligned;\n"
    "barrier.cluster.wait.acquire.aligned;\n";
// the tid in shared memory, and %r10 := 1000 rank + the word of the other block, read by mapa
const std::string kRemote =
    "mov.u32 %r5, dynamic;\nshl.b32 %r2, %r1, 2;\nadd.s32 %r3, %r5, %r2;\nst.shared.u32 [%r3], "
    "%r1;\n" +
    kBarrier +
    "mov.u32 %r8, %cluster_ctarank;\nxor.b32 %r9, %r8, 1;\ncvt.u64.u32 %rd5, %r3;\n"
    "cvta.shared.u64 %rd6, %rd5;\nmapa.u64 %rd7, %rd6, %r9;\n";
const std::string kReadRemote = "ld.u32 %r10, [%rd7];\nmad.lo.s32 %r10, %r9, 1000, %r10;\n";
const std::string kStore =
    "mul.wide.u32 %rd9, %r8, 128;\nadd.s64 %rd3, %rd3, %rd9;\n"
    "st.global.u32 [%rd3], %r10;\n";

TEST(PtxCluster, shared_memory_of_the_other_block) {
  expect_words(run(kRemote + kReadRemote + kBarrier + kStore, 32, 2),
               [](u32 t) { return t % 32 + 1000 * (1 - t / 32); });
  // without the second barrier the other may be gone: seen when one block runs ahead
  expect_fault(run(kRemote + "mov.u32 %r12, 0;\nsetp.eq.s32 %p1, %r8, 0;\n@%p1 bra E;\nM:\n"
                             "add.s32 %r12, %r12, 1;\nsetp.lt.u32 %p2, %r12, 9000;\n@%p2 bra M;\n"
                             "ld.u32 %r10, [%rd7];\nE:\nmov.u32 %r2, 0;",
                   32, 2),
               "has exited");
}
TEST(PtxCluster, refusals) {
  expect_fault(
      run("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.arrive.release.aligned;", 32,
          2),
      "twice");
  expect_fault(run("barrier.cluster.wait.acquire.aligned;", 32, 2), "without an arrive");
  expect_fault(
      run("mov.u64 %rd5, dynamic;\ncvta.shared.u64 %rd6, %rd5;\nmapa.u64 %rd7, %rd6, 2;", 32, 2),
      "mapa to block 2");
}

const std::string kCopy =
    "mov.u32 %r5, dynamic;\nshl.b32 %r2, %r1, 4;\nadd.s32 %r3, %r5, %r2;\n"
    "mov.u32 %r4, 77;\nst.global.u32 [%rd3], %r4;\n"
    "cp.async.cg.shared.global [%r3], [%rd1], 16;\n"
    "cp.async.commit_group;\n";
TEST(PtxCopy, arrives_at_its_wait) {
  const std::string wait = "cp.async.wait_group 0;\n",
                    read = "ld.shared.u32 %r6, [%r3+8];\nst.global.u32 [%rd3], %r6;\n";
  for (const bool late : {false, true})
    expect_words(run(kCopy + wait + read, 32, 1, [&](Options& o) { o.late = late; }),
                 [](u32) { return 77u; });
  expect_fault(run(kCopy + read + wait), "read before it was written");
  expect_fault(run(kCopy), "cp.async under way");
  expect_fault(run(kCopy + "cp.async.wait_group 1;\n"), "cp.async under way");
}
TEST(PtxCopy, fills_with_zeros) {
  expect_words(run("mov.u32 %r5, dynamic;\nshl.b32 %r2, %r1, 4;\nadd.s32 %r3, %r5, %r2;\n"
                   "mov.u32 %r4, 77;\nst.global.u32 [%rd3], %r4;\nmov.u32 %r7, 4;\n"
                   "cp.async.cg.shared.global [%r3], [%rd1], 16, %r7;\ncp.async.commit_group;\n"
                   "cp.async.wait_all;\nld.shared.v2.u32 {%r6, %r7}, [%r3];\n"
                   "mad.lo.s32 %r6, %r7, 1000, %r6;\nst.global.u32 [%rd3], %r6;\n"),
               [](u32) { return 77u; });
  expect_fault(run("mov.u32 %r5, dynamic;\ncp.async.cg.shared.global [%r5+4], [%rd1], 16;"),
               "not aligned to 16");
}

// one thread asks for 128 bytes of global memory; all wait for them
const std::string kInit =
    "mov.u32 %r5, dynamic;\nadd.s32 %r6, %r5, 512;\nst.global.u32 [%rd3], %r1;\n"
    "bar.sync 0;\nsetp.eq.u32 %p1, %r1, 0;\n"
    "@%p1 mbarrier.init.shared::cta.b64 [%r6], 1;\n";
const std::string kKnown = "@%p1 fence.mbarrier_init.release.cluster;\nbar.sync 0;\n";
std::string ask(u32 expected) {
  return "@!%p1 bra W;\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], " +
         std::to_string(expected) +
         ";\nmov.u32 %r7, 128;\n"
         "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%rd1], %r7, "
         "[%r6];\n"
         "W:\n";
}
const std::string kWait =
                      "L:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], 0;\n@!%p2 bra L;\n",
                  kRead =
                      "mad.lo.s32 %r8, %r1, 4, %r5;\nld.shared.u32 %r9, [%r8];\n"
                      "add.s32 %r9, %r9, 100;\nst.global.u32 [%rd3], %r9;\n";
TEST(PtxBulk, arrives_with_its_barrier) {
  for (const bool late : {false, true})
    expect_words(
        run(kInit + kKnown + ask(128) + kWait + kRead, 32, 1, [&](Options& o) { o.late = late; }),
        [](u32 t) { return t + 100; });
}
TEST(PtxBulk, what_goes_wrong_is_seen) {
  expect_fault(run(kInit + "bar.sync 0;\n" + ask(128) + kWait + kRead), "not made known");
  expect_fault(run(kInit + kKnown + ask(256) + kWait + kRead), "deadlock");
  expect_fault(run(kInit + kKnown + ask(128) + kRead), "read before it was written");
  expect_fault(run(kInit + kKnown + ask(128) +
                   "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], 0;\n" + kRead),
               "read before it was written");
  expect_fault(
      run(kInit + kKnown + ask(128) +
          "L:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], 1;\n@!%p2 bra L;\n" + kRead),
      "read before it was written");  // the phase before is over: nothing is waited for
  expect_fault(run(kInit + kKnown +
                   "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], 128;\n"
                   "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], 128;\n"),
               "all arrivals");
  expect_fault(run("mov.u32 %r5, dynamic;\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r5], 0;"),
               "no mbarrier");
}

// A and B of 64 x 64 in shared memory, 128 bytes a row, swizzled; D has 64 x 64.
std::string wgmma_text(const std::string& fence, const std::string& accumulators_fence,
                       const std::string& wait) {
  // 128 threads write 64 rows of bf16 ones to A at 0 and B at 8192: 16384 bytes, all the same word
  std::string d = "{", zero;
  for (int k = 0; k < 32; ++k) {
    d += (k ? ", %f" : "%f") + std::to_string(40 + k);
    zero += "mov.f32 %f" + std::to_string(40 + k) + ", 0f00000000;\n";
  }
  d += "}";
  return "mov.u32 %r5, dynamic;\nshl.b32 %r2, %r1, 7;\nadd.s32 %r3, %r5, %r2;\nmov.u32 %r4, "
         "0x3f803f80;\n"
         "mov.u32 %r6, 0;\nL:\nst.shared.u32 [%r3], %r4;\nadd.s32 %r3, %r3, 4;\nadd.s32 %r6, %r6, "
         "1;\n"
         "setp.lt.u32 %p1, %r6, 32;\n@%p1 bra L;\n" +
         fence + "bar.sync 0;\n" +
         // start / 16, stride 1024 / 16, swizzle of 128 bytes
         "shr.u32 %r7, %r5, 4;\ncvt.u64.u32 %rd4, %r7;\nor.b64 %rd5, %rd4, 0x4000004000000000;\n"
         "add.s64 %rd6, %rd5, 512;\n" +
         zero + accumulators_fence + "setp.eq.u32 %p2, 0, 0;\n" +
         "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " + d +
         ", %rd5, %rd6, %p2, 1, 1, 0, 0;\nwgmma.commit_group.sync.aligned;\n" + wait +
         "cvt.rzi.u32.f32 %r9, %f71;\nst.global.u32 [%rd3], %r9;\n";
}
const std::string kProxyFence = "fence.proxy.async.shared::cta;\n",
                  kWgmmaFence = "wgmma.fence.sync.aligned;\n",
                  kWgmmaWait = "wgmma.wait_group.sync.aligned 0;\n";
TEST(PtxWgmma, sums_sixteen_products) {
  for (const bool late : {false, true})
    expect_words(run(wgmma_text(kProxyFence, kWgmmaFence, kWgmmaWait), 128, 1,
                     [&](Options& o) { o.late = late; }),
                 [](u32) { return 16u; });
}
TEST(PtxWgmma, what_it_is_owed) {
  expect_fault(run(wgmma_text("", kWgmmaFence, kWgmmaWait), 128), "without fence.proxy.async");
  expect_fault(run(wgmma_text(kProxyFence, "", kWgmmaWait), 128), "without a wgmma.fence");
  expect_fault(run(wgmma_text(kProxyFence, kWgmmaFence, ""), 128), "wgmma under way");
}
// Between its fence and the first product a sum may be moved, but not computed.
TEST(PtxWgmma, sums_stay_as_they_were_at_the_fence) {
  const auto after_fence = [](const std::string& text) {
    return run(wgmma_text(kProxyFence, kWgmmaFence + text, kWgmmaWait), 128);
  };
  expect_words(after_fence("mov.f32 %f45, %f46;\n"), [](u32) { return 16u; });
  for (const char* const text : {"add.f32 %f71, %f71, 0f3f800000;\n",
                                 "setp.eq.u32 %p3, %r1, 77;\n@%p3 mov.f32 %f45, 0f3f800000;\n"})
    expect_fault(after_fence(text), "computed after the wgmma.fence");
}
TEST(PtxWgmma, four_warps_come_together) {
  const std::string last_warp = "setp.ge.u32 %p3, %r1, 96;\n";
  for (const Schedule schedule : {Schedule::kForward, Schedule::kReverse}) {
    const auto refused = [&](const std::string& before, const std::string& what,
                             u32 threads = 128) {
      expect_fault(run(wgmma_text(kProxyFence, before + kWgmmaFence, kWgmmaWait), threads, 1,
                       [&](Options& o) { o.schedule = schedule; }),
                   what);
    };
    refused("", "incomplete warp group", 96);
    refused("setp.eq.u32 %p3, %r1, 5;\n@%p3 ret;\n", "a part of the warp");
    refused(last_warp + "@%p3 ret;\n", "exit");
    refused(last_warp +
                "@%p3 bra O;\nwgmma.fence.sync.aligned;\nbra N;\nO:\n"
                "wgmma.commit_group.sync.aligned;\nN:\n",
            "another warp of the warp group waits at line");
    refused(last_warp + "@%p3 bra O;\nbra N;\nO:\nbar.sync 0;\nN:\n",
            "deadlock: 1 warps at a barrier");
    refused(last_warp + "@%p3 add.s64 %rd6, %rd6, 64;\n", "differ within the warp group");
  }
}
// B is read for all four warps: a barrier is due also when the first of them wrote it.
TEST(PtxWgmma, what_one_warp_wrote_the_others_read) {
  std::string text = wgmma_text(kProxyFence, kWgmmaFence, kWgmmaWait);
  text.insert(text.find(kWgmmaFence),
              "add.s32 %r3, %r5, 8192;\n"
              "setp.eq.u32 %p3, %r1, 0;\n@%p3 st.shared.u32 [%r3], %r4;\n" +
                  kProxyFence);
  expect_fault(run(text, 128), "race: wgmma reads shared memory");
}
}  // namespace
}  // namespace retort::ptx
