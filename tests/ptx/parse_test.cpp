// The parser: what it keeps, what it refuses, and that no bytes break it.
#include "tests/fuzz/ptx_fuzz.cpp"
#include "tests/ptx/ptx_run.h"
#include "tests/support/mutate.h"

namespace retort::ptx {
namespace {
TEST(PtxParse, a_kernel) {
  const auto module = parse(
      ".version 9.0\n.target sm_80, debug\n.address_size 64\n"
      ".global .align 4 .b8 table[4] = {1, 2, 0x3, 4};\n"
      ".visible .entry k(.param .u32 a, .param .align 8 .b8 b[24], .param .u64 .ptr .align 1 c)\n"
      ".maxntid 128, 2, 1\n.minnctapersm 2\n{\n.reg .b32 %r<3>;\n.shared .align 16 .b8 s[40];\n"
      "/* two\nlines */ .pragma \"nounroll\";\nmov.u32 %r1, %tid.x; // the rest\nret;\n}\n");
  EXPECT_EQ(module->target, "sm_80");
  const Function& f = *module->functions.at("k");
  EXPECT_EQ(f.param_size, 40u);
  EXPECT_EQ(f.params[1].offset, 8u);
  EXPECT_EQ(f.params[2].offset, 32u);
  EXPECT_EQ(f.max_threads, 256u);
  EXPECT_EQ(f.shared.at(0).offset, kSharedBase);
  EXPECT_EQ(f.shared_size, kSharedBase + 48);  // as the dynamic part would be aligned
  ASSERT_EQ(f.statements.size(), 2u);
  EXPECT_EQ(f.statements[0].line, 13u);
  EXPECT_EQ(memory().find(module->globals.at("table"))->host[2], 3);
}
TEST(PtxParse, tables_go_with_their_module) {
  u64 address = 0;
  {
    const auto module = parse(".global .align 1 .b8 t[8];");
    address = module->globals.at("t");
    EXPECT_NE(memory().find(address), nullptr);
  }
  EXPECT_EQ(memory().find(address), nullptr);
}
TEST(PtxParse, refusals) {
  const auto says = [](const std::string& text, const std::string& what) {
    try {
      parse(text);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Fault& e) {
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
    }
  };
  const std::string start = ".visible .entry k()\n{\n";
  says(".func f()", "not supported");
  says(".bogus", "unexpected");
  says(".visible .entry k(.param .u33 a)\n{\n}", "unknown type");
  says(".visible .entry k(.param .align 3 .b8 a[4])\n{\n}", "expected an alignment");
  says(".visible .entry k() .maxntid 2000\n{\n}", "at most 1024");
  says(".global .b8 t[2] = {1, 2, 3};", "more bytes");
  says(".global .b8 t[2] = {300};", "at most 255");
  says(".global .b8 t[99999999999];", "at most");
  says(start, "ends inside a function");
  says(start + "mov.u32 %r1", "ends inside a statement");
  says(start + "ret;\n@%p ret;\n}", "unknown predicate");
  says(start + ".reg .b128 %r<2>;\n}", "unknown type");
  says(start + ".reg .b32 %r<9999999>;\n}", "at most");
  says(start + "mov.b64 %r, {{1}};\n}", "a vector in a vector");
  says(".section .debug {", "ends too early");
}
TEST(PtxParse, mutations_are_refused_or_taken) {
  const std::vector<std::string> corpus = {
      kernel_text("mov.u32 %r5, dynamic;\nld.shared.v2.u32 {%r6, %r7}, [%r5+8];\n"
                  "@!%p1 bra L;\nfma.rn.f32 %f1, %f2, 0f3F800000, %f3;\nL:\nsetp.lt.s32 %p1|%p2, "
                  "%r1, -7;\n{\n.reg .pred q;\nmul.f32 %f4, %f1, %f1;\nadd.f32 %f5, %f4, %f1;\n}"),
      kernel_text("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f10,%f11,%f12,%f13}, "
                  "{%r10,%r11,%r10,%r11}, {%r12,%r13}, {%f6,%f6,%f6,%f6};\n"
                  "cp.async.cg.shared.global [%r3], [%rd1], 16, %r4;\nbar.sync 1, 64;\n"
                  "shfl.sync.bfly.b32 %r2|%p1, %r1, 5, 31, -1;\nwgmma.wait_group.sync.aligned 1;"),
      ".global .align 4 .b8 table[4] = {1, 2, 0x3, 4};\n.file 1 \"a.cu\", 5, 6\n.section .d { x }"};
  for (const std::string& text : corpus) fuzz_ptx(text);
  for (std::uint32_t i = 0; i < 3000; ++i)
    fuzz_ptx(
        test::mutated(corpus[i % corpus.size()], 6, i, "{}[]<>,;:@!|+-._%0123456789abrf\n\"/*"));
}
}  // namespace
}  // namespace retort::ptx
