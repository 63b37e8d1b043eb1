// Registers share places, and no value is lost by it.
#include "tests/ptx/ptx_run.h"

namespace retort::ptx {
namespace {
TEST(PtxRegisters, a_chain_needs_few_places) {
  std::string body = "mov.u32 %r2, 1;\n";
  for (int k = 3; k < 39; ++k)
    body += "add.u32 %r" + std::to_string(k) + ", %r" + std::to_string(k - 1) + ", 1;\n";
  const auto module = parse(kernel_text(body + "st.global.u32 [%rd3], %r38;"));
  Function& f = *module->functions.at("k");
  place_registers(f);
  EXPECT_LE(f.slots, 32u * 3 + 64u * 4);  // not 38 and 3
  expect_words(run(body + "st.global.u32 [%rd3], %r38;"), [](u32) { return 37u; });
}
// %r12 gets its value in the first turn only, and is read in the others and behind the loop; what
// comes and goes meanwhile must leave it alone.
TEST(PtxRegisters, loops_keep_what_earlier_turns_left) {
  const std::string body =
      "mov.u32 %r10, 5;\nmov.u32 %r11, 0;\nloop:\nmov.u32 %r20, 1;\nadd.u32 %r21, %r20, %r11;\n"
      "add.u32 %r22, %r21, 1;\nsetp.eq.u32 %p1, %r11, 0;\n@%p1 mov.u32 %r12, 7;\n"
      "add.u32 %r10, %r10, %r12;\nadd.u32 %r23, %r22, 1;\nadd.u32 %r11, %r11, 1;\n"
      "setp.lt.u32 %p2, %r11, 3;\n@%p2 bra loop;\nadd.u32 %r9, %r10, %r12;\n"
      "add.u32 %r9, %r9, %r23;\n";
  EXPECT_EQ(value32(body), 5u + 3 * 7 + 7 + 5);
}
// A loop that is entered in its middle reads at its top what its end has written.
TEST(PtxRegisters, loops_that_are_entered_in_the_middle) {
  const std::string body =
      "mov.u32 %r11, 0;\nmov.u32 %r9, 0;\nbra middle;\ntop:\nadd.u32 %r9, %r9, %r12;\nmov.u32 "
      "%r13, 9;\n"
      "add.u32 %r14, %r13, %r13;\nmiddle:\nmov.u32 %r15, 100;\nadd.u32 %r12, %r15, %r11;\n"
      "add.u32 %r11, %r11, 1;\nmov.u32 %r16, 3;\nadd.u32 %r17, %r16, 1;\n"
      "setp.lt.u32 %p2, %r11, %r17;\n@%p2 bra top;\n";
  EXPECT_EQ(value32(body), 100u + 101 + 102);
}
// Lanes that take the other way keep their own values.
TEST(PtxRegisters, lanes_that_part) {
  const std::string body =
      "and.b32 %r2, %r1, 1;\nsetp.eq.u32 %p1, %r2, 0;\nmov.u32 %r3, 11;\n@%p1 bra even;\n"
      "mov.u32 %r4, 22;\nadd.u32 %r5, %r4, %r3;\nbra join;\neven:\nmov.u32 %r6, 33;\n"
      "add.u32 %r5, %r6, 1;\njoin:\nst.global.u32 [%rd3], %r5;\n";
  expect_words(run(body), [](u32 t) { return t % 2 ? 33u : 34u; });
}
}  // namespace
}  // namespace retort::ptx
