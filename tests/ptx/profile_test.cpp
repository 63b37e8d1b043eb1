// The profile of a kernel: what it counts, by what line, and what the two reports say.
#include "tools/ptx/profile.h"

#include <sstream>

#include "tests/ptx/ptx_run.h"

namespace retort::ptx {
namespace {
// Thread x writes and reads word `stride` x of shared memory, as line 7 and line 9 of mine.cu; line
// 11 is for threads that there are none of. With `barrier` as line 8.
std::string text_of(u32 stride, bool barrier) {
  std::string text = kernel_text(
      ".loc 1 7 3\nmul.lo.u32 %r2, %r1, " + std::to_string(4 * stride) +
      ";\nmov.u32 %r3, dynamic;\nadd.u32 %r4, %r3, %r2;\nst.shared.u32 [%r4], %r1;\n" +
      (barrier ? ".loc 1 8 1\nbar.sync 0;\n" : "") +
      ".loc 1 9 3\n.loc 2 30 5, function_name $L__info, inlined_at 1 9 3\n"
      "xor.b32 %r5, %r1, 1;\nmul.lo.u32 %r5, %r5, " +
      std::to_string(4 * stride) +
      ";\nadd.u32 %r5, %r3, %r5;\nld.shared.u32 %r6, [%r5];\n"
      ".loc 1 10 1\nst.global.u32 [%rd3], %r6;\n"
      ".loc 1 11 1\nsetp.lt.u32 %p1, %r1, 99;\n@%p1 bra done;\nadd.f32 %f1, %f1, %f1;\ndone:");
  return text +
         ".file 1 \"/home/me/kernels/mine/mine.cu\"\n.file 2 \"/home/me/kernels/mine/less.cuh\"\n"
         ".section .debug_str\n{\n$L__info:\n.b8 95,0\n}\n";
}

struct Ran {
  std::vector<u32> out;
  std::string fault;
  std::vector<KernelProfile> kernels;
};
Ran profiled(const std::string& text, u32 threads, bool tell = false) {
  Ran ran;
  ran.out.assign(threads, 0);
  std::vector<u8> room(std::size_t{threads} * 4 + 512);
  u8* const at = room.data() + (256 - reinterpret_cast<u64>(room.data()) % 256);
  const u64 begin = reinterpret_cast<u64>(at) + kDeviceBias;
  memory().add(begin, std::size_t{threads} * 4, at);
  const auto module = parse(text);
  Machine machine;
  machine.options.traffic = true;
  machine.options.tell = tell;
  Launch launch;
  launch.block.x = threads;
  launch.dynamic_shared = 16384;
  launch.params.resize(8);
  std::memcpy(launch.params.data(), &begin, 8);
  try {
    machine.run(*module, *module->functions.at("k"), launch);
  } catch (const Fault& e) {
    ran.fault = e.what();
  }
  std::memcpy(ran.out.data(), at, std::size_t{threads} * 4);
  memory().remove(begin);
  ran.kernels = profile(machine, *module);
  return ran;
}
const AccessProfile& access(const KernelProfile& k, Class kind) {
  for (const AccessProfile& a : k.accesses)
    if (a.kind == kind) return a;
  throw Fault("no such access");
}
std::string text_report(const Ran& ran) {
  std::ostringstream out;
  write_text(out, "title", ran.kernels);
  return out.str();
}

TEST(PtxProfile, lines_classes_and_coverage) {
  const Ran ran = profiled(text_of(1, true), 64);
  ASSERT_EQ(ran.fault, "");
  for (u32 t = 0; t < 64; ++t) ASSERT_EQ(ran.out[t], t ^ 1);
  ASSERT_EQ(ran.kernels.size(), 1u);
  const KernelProfile& k = ran.kernels[0];
  EXPECT_EQ(k.launches, 1u);
  EXPECT_EQ(k.instructions, 18u);  // 4 of kernel_text, 13 here, its ret
  EXPECT_EQ(k.ran, 17u);           // not the sum of floats
  EXPECT_EQ(k.warp_instructions, 34u);
  EXPECT_EQ(k.lanes(), 32.0);
  EXPECT_EQ(k.by_class[static_cast<u32>(Class::kSharedLoad)], 2u);
  EXPECT_EQ(k.by_class[static_cast<u32>(Class::kBarrier)], 2u);
  EXPECT_EQ(k.by_class[static_cast<u32>(Class::kF32)], 0u);
  EXPECT_EQ(k.by_class[static_cast<u32>(Class::kChoose)], 2u);
  EXPECT_TRUE(k.hazards.empty());
  EXPECT_EQ(access(k, Class::kSharedLoad).source,
            "kernels/mine/less.cuh:30, inlined at kernels/mine/mine.cu:9");
  EXPECT_EQ(access(k, Class::kSharedStore).source, "kernels/mine/mine.cu:7");
  const std::string text = text_report(ran);
  EXPECT_NE(text.find("17 of 18 instructions"), std::string::npos) << text;
  EXPECT_NE(text.find("hazards       none"), std::string::npos) << text;
}

TEST(PtxProfile, sectors_and_passes) {
  // one word a bank: a pass; every second: two; a column of 32 words: 32
  for (const u32 stride : {1u, 2u, 32u}) {
    const Ran ran = profiled(text_of(stride, true), 64);
    ASSERT_EQ(ran.fault, "");
    for (const Class kind : {Class::kSharedLoad, Class::kSharedStore}) {
      const AccessProfile& a = access(ran.kernels[0], kind);
      EXPECT_EQ(a.traffic.requests, 2u);
      EXPECT_EQ(a.traffic.units, 2u * stride);
      EXPECT_EQ(a.excess(), stride);
    }
    const AccessProfile& store = access(ran.kernels[0], Class::kGlobalStore);
    EXPECT_EQ(store.traffic.units, 8u);  // two warps of 128 bytes
    EXPECT_EQ(store.excess(), 1.0);
  }
  const std::string text = text_report(profiled(text_of(32, true), 64));
  EXPECT_NE(text.find("32.00x passes   kernels/mine/mine.cu:7  st.shared.u32"), std::string::npos)
      << text;
}

TEST(PtxProfile, hazards_are_kept_and_the_launch_goes_on) {
  const Ran ran = profiled(text_of(1, false), 32, true);
  EXPECT_EQ(ran.fault, "");
  for (u32 t = 0; t < 32; ++t) ASSERT_EQ(ran.out[t], t ^ 1);
  ASSERT_EQ(ran.kernels[0].hazards.size(), 1u);
  const std::string& hazard = ran.kernels[0].hazards[0];
  EXPECT_NE(hazard.find("race: this read"), std::string::npos) << hazard;
  EXPECT_NE(hazard.find("kernels/mine/less.cuh:30"), std::string::npos) << hazard;
  EXPECT_NE(hazard.find("times)"), std::string::npos) << hazard;
  EXPECT_NE(text_report(ran).find("HAZARD"), std::string::npos);
}

TEST(PtxProfile, a_fault_names_its_line_and_is_in_the_report) {
  const Ran ran = profiled(text_of(1, false), 32);
  EXPECT_NE(ran.fault.find("kernels/mine/less.cuh:30, inlined at kernels/mine/mine.cu:9: race"),
            std::string::npos)
      << ran.fault;
  ASSERT_EQ(ran.kernels[0].hazards.size(), 1u);
  EXPECT_NE(ran.kernels[0].hazards[0].find("the launch failed: "), std::string::npos);
}

TEST(PtxProfile, page) {
  const Ran ran = profiled(text_of(32, true), 64);
  std::ostringstream out;
  write_html(out, "a < b", ran.kernels);
  const std::string page = out.str();
  EXPECT_NE(page.find("<h1>a &lt; b</h1>"), std::string::npos);
  EXPECT_NE(page.find("<td class=bad>32.00"), std::string::npos);
  EXPECT_NE(page.find("kernels/mine/mine.cu"), std::string::npos);
  EXPECT_EQ(page.find("src="), std::string::npos);  // nothing from elsewhere
  EXPECT_NE(page.find("</html>"), std::string::npos);
}
}  // namespace
}  // namespace retort::ptx
