// Address spaces, their checks, and what may not race.
#include "tests/ptx/ptx_run.h"

namespace retort::ptx {
namespace {
// every thread's tid in its own word of shared memory, at [%r3]; %r5 is the start
const std::string kExchange =
    "mov.u32 %r5, dynamic;\nshl.b32 %r2, %r1, 2;\nadd.s32 %r3, %r5, %r2;\n"
    "st.shared.u32 [%r3], %r1;\n";
const std::string kReadOther =
    "xor.b32 %r6, %r1, 33;\nshl.b32 %r6, %r6, 2;\nadd.s32 %r6, %r5, %r6;\n"
    "ld.shared.u32 %r7, [%r6];\nst.global.u32 [%rd3], %r7;\n";

TEST(PtxGlobal, stores_and_loads) {
  expect_words(run("st.global.u32 [%rd3], %r1;"), [](u32 t) { return t; });
  expect_words(run("st.global.u16 [%rd3+2], 0x1234;\nld.global.u8 %r2, [%rd3+3];\n"
                   "st.global.u32 [%rd3], %r2;"),
               [](u32) { return 0x12u; });
  expect_words(run("st.global.u8 [%rd3], 0x80;\nld.global.s8 %r2, [%rd3];\n"
                   "st.global.u32 [%rd3], %r2;"),
               [](u32) { return 0xffffff80u; });
  expect_words(run("setp.lt.u32 %p1, %r1, 8;\nshl.b32 %r2, %r1, 4;\ncvt.u64.u32 %rd4, %r2;\n"
                   "add.s64 %rd5, %rd1, %rd4;\nadd.s32 %r3, %r1, 100;\n"
                   "@%p1 st.global.v4.u32 [%rd5], {%r1, %r3, %r1, %r3};"),
               [](u32 t) { return t / 4 + (t % 2 ? 100 : 0); });
}
TEST(PtxGlobal, refusals) {
  expect_fault(run("add.s64 %rd3, %rd3, 4;\nst.global.u32 [%rd3], %r1;"),
               "is in no allocation (0 bytes behind one of 128)");
  expect_fault(run("st.global.v2.u32 [%rd1+128], {%r1, %r1};", 33), "runs past an allocation");
  expect_fault(run("ld.global.u32 %r2, [%rd1+1048576];"), "is in no allocation");
  expect_fault(run("add.s64 %rd3, %rd1, 2;\nst.global.u32 [%rd3], %r1;"), "not aligned");
  expect_fault(run("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd3];"), "not aligned");
}
TEST(PtxGlobal, atomics) {
  expect_words(run("atom.global.add.u32 %r2, [%rd1], 1;\nmov.u32 %r3, 0;\n"
                   "setp.eq.u32 %p1, %r1, 0;\n@!%p1 st.global.u32 [%rd3], %r3;"),
               [](u32 t) { return t == 0 ? 32u : 0u; });
  expect_words(run("atom.global.max.u32 %r2, [%rd1], %r1;\n"),
               [](u32 t) { return t == 0 ? 31u : 0u; });
  expect_words(run("atom.global.inc.u32 %r2, [%rd1], 9;\n"),
               [](u32 t) { return t == 0 ? 2u : 0u; });  // 32 increments modulo 10
  expect_words(run("atom.global.cas.b32 %r2, [%rd3], 0, %r1;\n"), [](u32 t) { return t; });
  expect_words(run("red.global.add.u32 [%rd1], 2;\n"), [](u32 t) { return t == 0 ? 64u : 0u; });
}

TEST(PtxShared, an_exchange_needs_its_barrier) {
  expect_words(run(kExchange + "bar.sync 0;\n" + kReadOther, 64), [](u32 t) { return t ^ 33; });
  expect_fault(run(kExchange + "bar.sync 0;\n" + kReadOther + "st.shared.u32 [%r3], %r7;\n", 64),
               "race");
  for (const Schedule schedule : {Schedule::kForward, Schedule::kReverse, Schedule::kShuffle}) {
    testing::internal::CaptureStderr();
    expect_fault(run(kExchange + kReadOther, 64, 1,
                     [&](Options& o) { o.schedule = schedule, o.strict = false; }),
                 "race");
    testing::internal::GetCapturedStderr();  // the first reads what is not yet written
  }
}
TEST(PtxShared, a_warp_needs_its_own_barrier) {
  const std::string neighbour =
      "xor.b32 %r6, %r1, 1;\nshl.b32 %r6, %r6, 2;\nadd.s32 %r6, %r5, %r6;\n"
      "ld.shared.u32 %r7, [%r6];\nst.global.u32 [%rd3], %r7;\n";
  expect_words(run(kExchange + "bar.warp.sync -1;\n" + neighbour), [](u32 t) { return t ^ 1; });
  expect_fault(run(kExchange + neighbour), "race");
}
// A word that all count in: threads of two warps.
TEST(PtxShared, counters_need_a_value_and_barriers) {
  const std::string address = "mov.u32 %r5, dynamic;\nsetp.ne.u32 %p1, %r1, 0;\n",
                    zero = "@!%p1 st.shared.u32 [%r5], 0;\n",
                    exchange = "@!%p1 atom.shared.exch.b32 %r6, [%r5], 0;\n",
                    count = "atom.shared.add.u32 %r6, [%r5], 1;\n", barrier = "bar.sync 0;\n",
                    read = "ld.shared.u32 %r7, [%r5];\nst.global.u32 [%rd3], %r7;\n";
  const auto all = [](u32) { return 64u; };
  expect_words(run(address + zero + barrier + count + barrier + read, 64), all);
  expect_words(run(address + exchange + barrier + count + barrier + read, 64), all);
  for (const Schedule schedule : {Schedule::kForward, Schedule::kReverse, Schedule::kShuffle}) {
    const auto set = [&](Options& o) { o.schedule = schedule; };
    expect_fault(run(address + count + barrier + read, 64, 1, set),
                 "an atomic access reads shared memory at 0x400 before it was written");
    expect_fault(run(address + zero + barrier + count + read, 64, 1, set),
                 "race: this read of shared memory at 0x400 and an atomic access by");
  }
  expect_fault(run(address + zero + count + barrier + read, 64),
               "race: this atomic access to shared memory at 0x400 and a write by thread 0");
  expect_fault(run(address + zero + barrier + "ld.shared.u32 %r7, [%r5];\n" + count, 64),
               "race: this atomic access to shared memory at 0x400 and a read by");
  // A warp's own barrier is enough for a warp's own counter, and a thread needs none for its own.
  expect_words(run(address + zero + "bar.warp.sync -1;\n" + count + "bar.warp.sync -1;\n" + read),
               [](u32) { return 32u; });
  expect_words(run(address +
                       "shl.b32 %r8, %r1, 2;\nadd.u32 %r5, %r5, %r8;\n"
                       "st.shared.u32 [%r5], 7;\n" +
                       count + read,
                   64),
               [](u32) { return 8u; });
  // Generic addresses and bytes beside them are the same memory.
  expect_fault(run("mov.u64 %rd4, dynamic;\ncvta.shared.u64 %rd5, %rd4;\n" + address + zero +
                       barrier + "atom.add.u32 %r6, [%rd5], 1;\nld.shared.u8 %rs1, [%r5+3];\n",
                   64),
               "race: this read of shared memory at 0x402 and an atomic access by");
}
TEST(PtxShared, what_was_not_written_is_refused_or_told) {
  const std::string text =
      "mov.u32 %r5, dynamic;\nld.shared.u32 %r7, [%r5];\n"
      "st.global.u32 [%rd3], %r7;\n";
  expect_fault(run(text), "read before it was written");
  testing::internal::CaptureStderr();
  expect_words(run(text, 32, 1, [](Options& o) { o.strict = false; }), [](u32) { return ~0u; });
  EXPECT_NE(testing::internal::GetCapturedStderr().find("note:"), std::string::npos);
}
// Four blocks of 32 threads on one word, or each on its own: by %ctaid.
std::string blocks_text(const std::string& body) {
  return ".version 9.0\n.target sm_90a\n.address_size 64\n"
         ".visible .entry k(.param .u64 out)\n{\n"
         ".reg .pred %p<9>; .reg .b32 %r<40>; .reg .b64 %rd<20>;\n"
         "ld.param.u64 %rd1, [out];\nmov.u32 %r1, %ctaid.x;\nmul.wide.u32 %rd2, %r1, 4;\n"
         "add.s64 %rd3, %rd1, %rd2;\nmov.u32 %r2, %tid.x;\nsetp.ne.u32 %p1, %r2, 0;\n"
         "@%p1 bra done;\n" +
         body + "\ndone:\nret;\n}\n";
}
Result run_blocks(const std::string& body) {
  Result r;
  std::vector<u8> room(1024);
  u8* const at = room.data() + (256 - reinterpret_cast<u64>(room.data()) % 256);
  const u64 begin = reinterpret_cast<u64>(at) + kDeviceBias;
  memory().add(begin, 64, at);
  try {
    const auto module = parse(blocks_text(body));
    Machine machine;
    machine.options.global = true;
    Launch launch;
    launch.grid.x = 4;
    launch.block.x = 32;
    launch.params.resize(8);
    std::memcpy(launch.params.data(), &begin, 8);
    for (int twice = 0; twice < 2; ++twice) {  // launches do not race with each other
      std::memset(at, 0, 64);
      machine.run(*module, *module->functions.at("k"), launch);
    }
  } catch (const Fault& e) {
    r.fault = e.what();
  }
  r.out.resize(16);
  std::memcpy(r.out.data(), at, 64);
  memory().remove(begin);
  return r;
}
TEST(PtxGlobal, blocks_must_not_touch_what_another_writes) {
  EXPECT_EQ(run_blocks("st.global.u32 [%rd3], %r1;").fault, "");
  EXPECT_EQ(run_blocks("ld.global.u32 %r3, [%rd1+32];\nst.global.u32 [%rd3], %r3;").fault, "");
  expect_fault(run_blocks("st.global.u32 [%rd1], %r1;"), "race between blocks: this write");
  expect_fault(run_blocks("st.global.u32 [%rd3], %r1;\nld.global.u32 %r3, [%rd1];"),
               "race between blocks: this read");
  expect_fault(run_blocks("ld.global.u32 %r3, [%rd1+12];\nst.global.u32 [%rd3], %r1;"),
               "a read by several blocks");
  EXPECT_EQ(run_blocks("atom.global.add.u32 %r3, [%rd1], 1;").out[0], 4u);
  EXPECT_EQ(run_blocks("add.s64 %rd3, %rd1, %rd2;\nst.global.u8 [%rd3], %r1;").fault, "");
}
TEST(PtxGlobal, threads_of_a_block_need_their_barrier) {
  const auto global = [](Options& o) { o.global = true; };
  const std::string write = "st.global.u32 [%rd3], %r1;\n",
                    neighbour =
                        "xor.b32 %r6, %r1, 1;\nmul.wide.u32 %rd4, %r6, 4;\nadd.s64 %rd4, %rd1, "
                        "%rd4;\nld.global.u32 %r7, [%rd4];\n",
                    back = "st.global.u32 [%rd3], %r7;\n";
  expect_fault(run(write + neighbour, 32, 1, global), "race: this read of global memory");
  expect_fault(run(write + "bar.sync 0;\n" + neighbour + back, 64, 1, global),
               "race: this write of global memory");
  expect_words(run(write + "bar.sync 0;\n" + neighbour + "bar.sync 0;\n" + back, 64, 1, global),
               [](u32 t) { return t ^ 1; });
  expect_words(
      run(write + "bar.warp.sync -1;\n" + neighbour + "bar.warp.sync -1;\n" + back, 32, 1, global),
      [](u32 t) { return t ^ 1; });
}
// The block that counts last adds up what the others wrote and published.
TEST(PtxGlobal, the_last_block_idiom_needs_its_fence_and_its_count) {
  const std::string write = "add.u32 %r4, %r1, 5;\nst.global.u32 [%rd3], %r4;\n",
                    count =
                        "atom.global.add.u32 %r3, [%rd1+32], 1;\nsetp.ne.u32 %p2, %r3, 3;\n@%p2 "
                        "bra done;\n",
                    sum =
                        "ld.global.u32 %r5, [%rd1];\nld.global.u32 %r6, [%rd1+4];\nadd.u32 %r5, "
                        "%r5, %r6;\nst.global.u32 [%rd1+48], %r5;\n";
  const Result right = run_blocks(write + "membar.gl;\n" + count + sum);
  EXPECT_EQ(right.fault, "");
  EXPECT_EQ(right.out[12], 11u);
  expect_fault(run_blocks(write + count + sum), "race between blocks");
  expect_fault(run_blocks(write + "membar.cta;\n" + count + sum), "race between blocks");
  expect_fault(run_blocks(write + "membar.gl;\n" + sum), "race between blocks");
}
TEST(PtxShared, bounds) {
  expect_fault(run("mov.u32 %r5, 64;\nst.shared.u32 [%r5], %r1;"), "the block has");
  expect_fault(run("mov.u32 %r5, dynamic;\nst.shared.u32 [%r5+16384], %r1;"), "the block has");
  expect_fault(run("mov.u32 %r5, 0x1000400;\nst.shared.u32 [%r5], %r1;"), "no block 1");
}
TEST(PtxShared, generic_addresses) {
  expect_words(
      run("mov.u64 %rd4, dynamic;\ncvta.shared.u64 %rd5, %rd4;\nadd.s64 %rd5, %rd5, %rd2;\n"
          "st.u32 [%rd5], %r1;\nld.u32 %r4, [%rd5];\nst.u32 [%rd3], %r4;"),
      [](u32 t) { return t; });
  expect_fault(run("cvta.to.shared.u64 %rd4, %rd1;"), "not in shared memory");
}
TEST(PtxLocal, a_frame_per_thread) {
  expect_words(run("mov.u64 %rd4, frame;\ncvta.local.u64 %rd5, %rd4;\nst.u32 [%rd5+8], %r1;\n"
                   "ld.local.u32 %r2, [frame+8];\nst.global.u32 [%rd3], %r2;"),
               [](u32 t) { return t; });
  expect_fault(run("st.local.u32 [frame+16], %r1;"), "local address");
}

// Sectors and passes of the second-last instruction of the body.
Traffic traffic_of(const std::string& body, const char* opcode) {
  std::vector<u8> room(8192 + 512);
  u8* const at = room.data() + (256 - reinterpret_cast<u64>(room.data()) % 256);
  const u64 begin = reinterpret_cast<u64>(at) + kDeviceBias;
  memory().add(begin, 8192, at);
  const auto module = parse(kernel_text(body));
  Machine machine;
  machine.options.traffic = true;
  Launch launch;
  launch.block.x = 32;
  launch.dynamic_shared = 16384;
  launch.params.resize(8);
  std::memcpy(launch.params.data(), &begin, 8);
  Function& f = *module->functions.at("k");
  machine.run(*module, f, launch);
  memory().remove(begin);
  for (std::size_t k = 0; k < f.code.size(); ++k)
    if (module->lines[f.code[k].line].find(opcode) != std::string::npos) return f.traffic[k];
  return {};
}
TEST(PtxTraffic, sectors_of_global_memory) {
  const Traffic all = traffic_of("st.global.u32 [%rd3], %r1;", "st.global");
  EXPECT_EQ(all.requests, 1u);
  EXPECT_EQ(all.units, 4u);
  EXPECT_EQ(all.least, 4u);
  const Traffic strided = traffic_of(
      "mul.wide.u32 %rd2, %r1, 64;\nadd.s64 %rd3, %rd1, %rd2;\nst.global.u32 [%rd3], %r1;",
      "st.global");
  EXPECT_EQ(strided.units, 32u);
  EXPECT_EQ(strided.least, 4u);
}
TEST(PtxTraffic, passes_over_the_banks) {
  const auto passes = [](u32 stride) {
    return traffic_of("mov.u32 %r5, dynamic;\nmad.lo.s32 %r6, %r1, " + std::to_string(stride) +
                          ", %r5;\nst.shared.u32 [%r6], %r1;",
                      "st.shared")
        .units;
  };
  EXPECT_EQ(passes(4), 1u);
  EXPECT_EQ(passes(8), 2u);
  EXPECT_EQ(passes(128), 32u);
  EXPECT_EQ(passes(132), 1u);
  EXPECT_EQ(traffic_of("mov.u32 %r5, dynamic;\nmad.lo.s32 %r6, %r1, 16, %r5;\n"
                       "st.shared.v4.u32 [%r6], {%r1, %r1, %r1, %r1};",
                       "st.shared")
                .units,
            4u);
}
}  // namespace
}  // namespace retort::ptx
