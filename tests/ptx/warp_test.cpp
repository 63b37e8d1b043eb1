// Divergence, barriers, and what the threads of a warp do together.
#include "tests/ptx/ptx_run.h"

namespace retort::ptx {
namespace {
const std::string kStore = "st.global.u32 [%rd3], %r2;";

TEST(PtxFlow, lanes_part_and_meet_again) {
  expect_words(run("and.b32 %r2, %r1, 1;\nsetp.eq.s32 %p1, %r2, 0;\nmov.u32 %r2, 7;\n@%p1 bra A;\n"
                   "mov.u32 %r2, 9;\nbra.uni B;\nA:\nadd.s32 %r2, %r2, 1;\nB:\n" +
                   kStore),
               [](u32 t) { return t % 2 ? 9u : 8u; });
  expect_words(run("mov.u32 %r2, 0;\nL:\nadd.s32 %r2, %r2, 1;\nsetp.le.u32 %p1, %r2, %r1;\n"
                   "@%p1 bra L;\n" +
                   kStore),
               [](u32 t) { return t + 1; });
  // met again: a shuffle of the whole warp after the branch
  expect_words(
      run("setp.lt.u32 %p1, %r1, 7;\nmov.u32 %r2, %r1;\n@%p1 bra A;\nadd.s32 %r2, %r2, 50;\n"
          "A:\nshfl.sync.bfly.b32 %r2, %r2, 16, 31, -1;\n" +
          kStore),
      [](u32 t) { return (t ^ 16) < 7 ? t ^ 16 : (t ^ 16) + 50; });
}
TEST(PtxFlow, labels_belong_to_their_braces) {
  expect_words(run("mov.u32 %r2, 0;\n{\n.reg .pred %q;\nsetp.eq.s32 %q, %r1, 3;\n@%q bra L;\n"
                   "add.s32 %r2, %r2, 1;\nL:\n}\n{\nbra L;\nadd.s32 %r2, %r2, 100;\nL:\n}\n" +
                   kStore),
               [](u32 t) { return t == 3 ? 0u : 1u; });
}
TEST(PtxFlow, barriers) {
  expect_fault(run("setp.lt.u32 %p1, %r1, 32;\n@%p1 bra A;\nbar.sync 0;\nA:\nmov.u32 %r2, 0;", 64),
               "deadlock");
  expect_fault(run("setp.lt.u32 %p1, %r1, 16;\n@%p1 bra A;\nbar.sync 0;\nA:\nmov.u32 %r2, 0;"),
               "deadlock");
  // a barrier of one half of the block
  expect_words(run("setp.lt.u32 %p1, %r1, 64;\nmov.u32 %r2, 1;\n@!%p1 bra A;\nbar.sync 1, 64;\n"
                   "mov.u32 %r2, 2;\nA:\n" +
                       kStore,
                   128),
               [](u32 t) { return t < 64 ? 2u : 1u; });
  expect_words(run("setp.lt.u32 %p1, %r1, 40;\nbar.red.popc.u32 %r2, 0, %p1;\n" + kStore, 64),
               [](u32) { return 40u; });
}

TEST(PtxShuffle, values) {
  const auto shuffle = [](const std::string& rest) {
    return run("shfl.sync." + rest + "\n" + kStore);
  };
  expect_words(shuffle("bfly.b32 %r2|%p1, %r1, 5, 31, -1;"), [](u32 t) { return t ^ 5; });
  expect_words(shuffle("up.b32 %r2|%p1, %r1, 3, 6144, -1;"),  // segments of eight
               [](u32 t) { return t % 8 < 3 ? t : t - 3; });
  expect_words(shuffle("down.b32 %r2, %r1, 4, 31, -1;"), [](u32 t) { return t < 28 ? t + 4 : t; });
  expect_words(shuffle("idx.b32 %r2, %r1, 2, 0x181f, -1;"), [](u32 t) { return t / 8 * 8 + 2; });
}
TEST(PtxShuffle, who_takes_part) {
  const std::string two =
      "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra A;\n"
      "shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\nbra B;\nA:\n"
      "shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\nB:\n" +
      kStore;
  expect_fault(run(two), "wait for the others");
  expect_words(run("setp.lt.u32 %p1, %r1, 16;\nmov.u32 %r2, %r1;\n@!%p1 bra B;\n"
                   "shfl.sync.bfly.b32 %r2, %r1, 1, 31, 65535;\nB:\n" +
                   kStore),
               [](u32 t) { return t < 16 ? t ^ 1 : t; });
  expect_fault(run("shfl.sync.idx.b32 %r2, %r1, 20, 31, 65535;"), "its own member mask");
  // the others have left: half a warp at a full shuffle is legal
  expect_words(
      run("setp.ge.u32 %p1, %r1, 16;\n@%p1 ret;\nshfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\n" +
          kStore),
      [](u32 t) { return t < 16 ? t ^ 1 : 0; });
}
TEST(PtxVotes, values) {
  expect_words(run("redux.sync.add.s32 %r2, %r1, -1;\n" + kStore), [](u32) { return 496u; });
  expect_words(run("sub.s32 %r3, %r1, 5;\nredux.sync.min.s32 %r2, %r3, -1;\n" + kStore),
               [](u32) { return u32(-5); });
  expect_words(run("sub.s32 %r3, %r1, 5;\nredux.sync.min.u32 %r2, %r3, -1;\n" + kStore),
               [](u32) { return 0u; });
  expect_words(run("redux.sync.xor.b32 %r2, %r1, -1;\n" + kStore), [](u32) { return 0u; });
  expect_words(run("setp.lt.u32 %p1, %r1, 3;\nvote.sync.ballot.b32 %r2, %p1, -1;\n" + kStore),
               [](u32) { return 7u; });
  expect_words(run("setp.lt.u32 %p1, %r1, 3;\nvote.sync.any.pred %p2, %p1, -1;\n"
                   "vote.sync.all.pred %p3, %p1, -1;\nselp.u32 %r2, 1, 0, %p2;\n"
                   "selp.u32 %r3, 2, 0, %p3;\nadd.s32 %r2, %r2, %r3;\n" +
                   kStore),
               [](u32) { return 1u; });
  expect_words(run("and.b32 %r3, %r1, 3;\nmatch.any.sync.b32 %r2, %r3, -1;\n" + kStore),
               [](u32 t) { return 0x11111111u << t % 4; });
}

TEST(PtxMatrix, ldmatrix) {
  // word k of row r holds elements 2k and 2k + 1 of the row: 8 r + 2 k, 8 r + 2 k + 1
  const std::string fill =
      "mov.u32 %r5, dynamic;\nmov.u32 %r6, 0;\nL:\nmad.lo.s32 %r7, %r1, 16, %r5;\n"
      "shl.b32 %r8, %r6, 2;\nadd.s32 %r7, %r7, %r8;\nshl.b32 %r9, %r1, 3;\nshl.b32 %r10, %r6, 1;\n"
      "add.s32 %r9, %r9, %r10;\nadd.s32 %r10, %r9, 1;\nshl.b32 %r10, %r10, 16;\n"
      "or.b32 %r9, %r9, %r10;\nst.shared.u32 [%r7], %r9;\nadd.s32 %r6, %r6, 1;\n"
      "setp.lt.u32 %p1, %r6, 4;\n@%p1 bra L;\nbar.warp.sync -1;\nmad.lo.s32 %r7, %r1, 16, %r5;\n";
  const auto element = [](u32 matrix, u32 row, u32 column) {
    return 64 * matrix + 8 * row + column;
  };
  expect_words(
      run(fill + "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20, %r21, %r2, %r23}, [%r7];\n" +
          kStore),
      [&](u32 t) { return element(2, t / 4, t % 4 * 2) | element(2, t / 4, t % 4 * 2 + 1) << 16; });
  expect_words(
      run(fill +
          "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r20, %r2, %r22, %r23}, [%r7];\n" +
          kStore),
      [&](u32 t) { return element(1, t % 4 * 2, t / 4) | element(1, t % 4 * 2 + 1, t / 4) << 16; });
  expect_fault(
      run(fill + "add.s32 %r7, %r7, 8;\n"
                 "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20, %r21, %r2, %r23}, [%r7];"),
      "not aligned to 16");
}
TEST(PtxMatrix, a_product_with_the_identity_puts_rows_where_they_belong) {
  expect_words(
      run("shr.u32 %r2, %r1, 2;\nand.b32 %r3, %r1, 3;\n"               // group, part
          "cvt.rn.f32.u32 %f1, %r2;\nadd.f32 %f2, %f1, 0f41000000;\n"  // rows group, group + 8
          "cvt.rn.bf16x2.f32 %r10, %f1, %f1;\ncvt.rn.bf16x2.f32 %r11, %f2, %f2;\n"
          "mov.f32 %f5, 0f3F800000;\nmov.f32 %f6, 0f00000000;\nshl.b32 %r4, %r3, 1;\n"
          "setp.eq.s32 %p1, %r4, %r2;\nselp.f32 %f7, %f5, %f6, %p1;\nadd.s32 %r5, %r4, 1;\n"
          "setp.eq.s32 %p2, %r5, %r2;\nselp.f32 %f8, %f5, %f6, %p2;\n"
          "cvt.rn.bf16x2.f32 %r12, %f8, %f7;\nmov.u32 %r13, 0;\n"
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f10,%f11,%f12,%f13}, "
          "{%r10,%r11,%r10,%r11}, {%r12,%r13}, {%f6,%f6,%f6,%f6};\n"
          "mul.f32 %f12, %f12, 0f42800000;\nadd.f32 %f10, %f10, %f12;\ncvt.rzi.u32.f32 %r2, "
          "%f10;\n" +
          kStore),
      [](u32 t) { return t / 4 + 64 * (t / 4 + 8); });
  expect_fault(
      run("setp.lt.u32 %p1, %r1, 9;\n@%p1 mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%f10,%f11,%f12,%f13}, {%r10,%r11,%r10,%r11}, {%r12,%r13}, {%f6,%f6,%f6,%f6};"),
      "by a part of the warp");
}
}  // namespace
}  // namespace retort::ptx
