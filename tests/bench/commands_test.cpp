// compare and roofline on files made here; the report format there and back.
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "bench/harness/commands.h"
#include "bench/harness/record.h"
#include "kernels/common/philox.h"
#include "tests/support/temporary_folder.h"

namespace retort::bench {
namespace {

Blocks timings(std::uint64_t seed, double scale, std::size_t blocks = 5, std::uint32_t n = 60) {
  Blocks all(blocks);
  for (std::uint32_t k = 0; k < blocks; ++k)
    for (std::uint32_t i = 0; i < n; ++i) {
      const double u = static_cast<double>(uniform01(philox(seed, i, k, 0, 0).v[0]));
      all[k].push_back(scale * (1 - 0.05 * std::log(1 - u)));
    }
  return all;
}

Record record(const std::string& name, const Blocks& samples) {
  Record r;
  r.name = name;
  r.device = "cpu";
  r.dtype = "f32";
  r.samples_ms = samples;
  r.bytes = 1e6;
  r.flops = 3e6;
  r.hash = "00";
  return r;
}

class Commands : public testing::Test {
 protected:
  std::string write(const char* name, std::vector<Record> records, const char* key = "threads",
                    const Json& value = 2) {
    Report report;
    report.environment = Json::object()
                             .set("processor", "a <processor> & \"more\"")
                             .set("threads", 2)
                             .set("gpu", "a <gpu>")
                             .set("date", std::string(name));
    report.environment.set(key, value);
    report.cpu = report.cuda = {50, 400, 800, 500, 1000};
    report.records = std::move(records);
    write_report(report, folder_ / name);
    return folder_ / name;
  }
  // What compare prints and returns.
  std::string compare(const Arguments& arguments, int status) {
    testing::internal::CaptureStdout();
    int got = -1;
    std::string error;
    try {
      got = compare_command(arguments);
    } catch (const Error& e) {
      error = e.what();
    }
    const std::string said = testing::internal::GetCapturedStdout() + error;
    EXPECT_EQ(got, status) << said;
    return said;
  }
  test::TemporaryFolder folder_;
};

// Which of memory and arithmetic bounds a case depends on its shape and the machine.
TEST(Bound, is_the_larger_of_bytes_and_operations_at_the_rates_of_the_run) {
  Record r = record("op", {{1}});  // 1 GB/s, 3 GFLOP/s
  r.matrix = true;
  Ceilings c{.copy_gb_per_s = 2, .gemm_f32_gflop_per_s = 30, .gemm_bf16_gflop_per_s = 4};
  EXPECT_FALSE(r.bound(c).gemm);
  EXPECT_EQ(r.bound(c).share, 0.5);
  r.dtype = "bf16";
  EXPECT_TRUE(r.bound(c).gemm);
  EXPECT_EQ(r.share(c), 0.75);
  r.matrix = false;  // plain loops compute bf16 in float
  EXPECT_FALSE(r.bound(c).gemm);
  r.bytes = 0;
  EXPECT_TRUE(r.bound(c).gemm);
  EXPECT_EQ(r.share(c), 0.1);
  r.flops = 0;
  EXPECT_TRUE(std::isnan(r.share(c)));
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(Commands, ReportComesBackAsWritten) {
  Record r = record("op/3x4", {{1.5, 2.25}, {0.1}});
  r.composed_ms = {{7, 9}};
  r.calls_per_sample = 12;
  r.works = 3;
  r.cold = false;
  r.matrix = true;
  r.workspace_bytes = 4096;
  r.launches = 2;
  r.max_error = 1e-7;
  r.hash_equal = false;
  Record plain = record("other", {{1}});
  const Report back = read_report(write("a.json", {r, plain}));
  ASSERT_EQ(back.records.size(), 2u);
  const Record& b = back.records[0];
  EXPECT_EQ(b.full_name(), "cpu/op/3x4/f32");
  EXPECT_EQ(b.samples_ms, r.samples_ms);
  EXPECT_EQ(b.composed_ms, r.composed_ms);
  EXPECT_EQ(b.calls_per_sample, 12);
  EXPECT_EQ(b.works, 3);
  EXPECT_EQ(b.cold, false);
  EXPECT_EQ(b.matrix, true);
  EXPECT_EQ(b.workspace_bytes, 4096);
  EXPECT_EQ(b.launches, 2);
  EXPECT_EQ(b.max_error, 1e-7);
  EXPECT_EQ(b.hash_equal, false);
  EXPECT_EQ(back.records[1].max_error, std::nullopt);
  EXPECT_TRUE(std::isnan(back.records[1].launches));
  EXPECT_EQ(back.cpu.copy_gb_per_s, 50);
  EXPECT_EQ(back.cpu.dot_bf16_gflop_per_s, 1000);
}

TEST_F(Commands, CompareOfEqualFilesPasses) {
  const std::string a = write("a.json", {record("x", timings(1, 1)), record("y", timings(2, 1))});
  EXPECT_EQ(compare_command({a, a}), 0);
}

TEST_F(Commands, CompareFindsAPlantedRegression) {
  const std::string a = write("a.json", {record("x", timings(1, 1)), record("y", timings(2, 1))}),
                    b = write("b.json",
                              {record("x", timings(3, 1)), record("y", timings(4, 1.15))});
  EXPECT_EQ(compare_command({a, b}), 1);
  EXPECT_EQ(compare_command({b, a}), 0);                         // the other way it is faster
  EXPECT_EQ(compare_command({a, b, "--threshold", "0.25"}), 0);  // and less than was asked about
}

// 40 pairs of files that differ by noise alone.
TEST_F(Commands, CompareDoesNotCallNoiseARegression) {
  for (std::uint64_t seed = 100; seed < 140; ++seed) {
    const std::string a = write("a.json", {record("x", timings(seed, 1))}),
                      b = write("b.json", {record("x", timings(seed + 1000, 1))});
    EXPECT_EQ(compare_command({a, b, "--threshold", "0.01"}), 0) << seed;
  }
}

// One slow stretch of the machine, as long as two blocks: not enough to call the program slower.
TEST_F(Commands, CompareSeesDriftBetweenBlocks) {
  Blocks before = timings(1, 1, 4), after = timings(2, 1, 4);
  for (const std::size_t block : {1u, 2u})
    for (double& v : after[block]) v *= 1.3;
  const std::string a = write("a.json", {record("x", before)}),
                    b = write("b.json", {record("x", after)});
  EXPECT_EQ(compare_command({a, b, "--threshold", "0.02"}), 0);
}

TEST_F(Commands, CompareOfOneBlockIsUndecidedAndSaysHowToGetMore) {
  const std::string a = write("a.json", {record("x", timings(1, 1, 1))}),
                    b = write("b.json", {record("x", timings(2, 3, 1))});
  const std::string said = compare({a, b}, 0);
  EXPECT_TRUE(has(said, "undecided: 1 block\n")) << said;
  EXPECT_TRUE(has(said, "--benchmark_repetitions=5 --benchmark_enable_random_interleaving=true"))
      << said;
  EXPECT_FALSE(has(said, "SLOWER")) << said;
}

TEST_F(Commands, CompareFindsWrongResultsInB) {
  const std::string a = write("a.json", {record("x", timings(1, 1)), record("y", timings(2, 1))});
  Record off = record("x", timings(1, 1)), wanders = record("y", timings(2, 1));
  off.max_error = 0.9;
  off.error_bound = 1e-5;
  wanders.hash_equal = false;
  const std::string said = compare({a, write("b.json", {off, wanders})}, 1);
  EXPECT_TRUE(has(said, "WRONG in B: cpu/x/f32: error 0.9")) << said;
  EXPECT_TRUE(has(said, "WRONG in B: cpu/y/f32: two runs left different bits")) << said;
  off.max_error = std::nan("");
  EXPECT_TRUE(has(compare({a, write("b.json", {off, record("y", timings(2, 1))})}, 1),
                  "cpu/x/f32: error nan"));
  off.max_error = 1e-6;
  compare({a, write("b.json", {off, record("y", timings(2, 1))})}, 0);
  // A file of before there were bounds is held to a wide one.
  off.max_error = 0.9;
  off.error_bound = 7;
  std::string old = test::slurp(write("b.json", {off, record("y", timings(2, 1))}));
  compare({a, folder_ / "b.json"}, 0);
  const std::string bound = ",\"error_bound\":7.0";
  old.erase(old.find(bound), bound.size());
  test::spill(folder_ / "b.json", old);
  compare({a, folder_ / "b.json"}, 1);
}

TEST_F(Commands, CompareNamesMissingCases) {
  const std::string both =
                        write("a.json", {record("x", timings(1, 1)), record("y", timings(2, 1))}),
                    one = write("b.json", {record("x", timings(1, 1))});
  EXPECT_TRUE(has(compare({both, one}, 1), "missing from B: cpu/y/f32"));
  EXPECT_TRUE(has(compare({both, one, "--allow-missing"}, 0), "missing from B: cpu/y/f32"));
  EXPECT_TRUE(has(compare({one, both}, 0), "only in B: cpu/y/f32"));
}

TEST_F(Commands, CompareNotesEveryDifferenceOfTheEnvironments) {
  const std::vector<Record> x{record("x", timings(1, 1))};
  const std::string a = write("a.json", x, "build", "Release");
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, Json>>{{"processor", "another"},
                                                 {"threads", 3},
                                                 {"gpu", "another"},
                                                 {"driver", 13},
                                                 {"emulated", true},
                                                 {"libraries", Json::array().push("libx.so")},
                                                 {"commit", "c"}})
    EXPECT_TRUE(
        has(compare({a, write("b.json", x, key, value)}, 0), join("note: ", key, " differs: ")))
        << key;
  EXPECT_TRUE(has(compare({a, write("b.json", x, "build", "Debug")}, 0),
                  "note: build differs: \"Release\", \"Debug\""));
  EXPECT_TRUE(
      has(compare({write("b.json", x), a}, 0), "note: build differs: not recorded, \"Release\""));
  // The date always does.
  EXPECT_FALSE(has(compare({a, write("b.json", x, "build", "Release")}, 0), "note:"));
}

TEST_F(Commands, CompareChecksItsThreshold) {
  const std::string a = write("a.json", {record("x", timings(1, 1))});
  for (const char* value : {"-0.1", "much", "nan", ""}) try {
      compare_command({a, a, "--threshold", value});
      EXPECT_STREQ(value, "");  // no text: the default
    } catch (const Error& e) {
      EXPECT_TRUE(has(e.what(), "--threshold expects")) << e.what();
    }
}

// Times that no clock gives, and cases that were never timed.
TEST_F(Commands, ReportsWithImpossibleSamplesAreRefused) {
  for (const Blocks& samples : {Blocks{}, Blocks{{}}, Blocks{{1, 2}, {}}, Blocks{{1, 0}},
                                Blocks{{-1}}, Blocks{{std::nan("")}}, Blocks{{HUGE_VAL}}}) {
    const std::string path = write("bad.json", {record("good", {{1}}), record("x", samples)});
    try {
      read_report(path);
      ADD_FAILURE() << "accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadInput);
      EXPECT_EQ(std::string(e.what()).rfind(path + ": record 2 \"x\": samples_ms: ", 0), 0u)
          << e.what();
    }
  }
}

TEST_F(Commands, ErrorsOfAReportNameItsFile) {
  for (const char* text : {"{\"program\":\"distill_bench\",\"format\":2}", "{", "[]",
                           "{\"program\":\"distill_bench\",\"format\":7}"}) {
    test::spill(folder_ / "c.json", text);
    try {
      read_report(folder_ / "c.json");
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& e) {
      EXPECT_TRUE(has(e.what(), folder_ / "c.json")) << e.what();
    }
  }
}

TEST_F(Commands, CompareRefusesWhatItCannotCompare) {
  const std::string a = write("a.json", {record("x", timings(1, 1))}),
                    b = write("b.json", {record("y", timings(1, 1))});
  EXPECT_THROW(compare_command({a, b}), Error);
  EXPECT_THROW(compare_command({a}), Error);
  test::spill(folder_ / "c.json", "{\"program\": \"other\"}");
  EXPECT_THROW(compare_command({a, folder_ / "c.json"}), Error);
}

// Tags nest, attributes are quoted, and no bare & or < is left in text.
void expect_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  const std::regex tag(R"re(<(/?)([a-z]+)((?: [a-zA-Z0-9-]+="[^"<]*")*) ?(/?)>)re");
  std::size_t at = 0;
  for (std::sregex_iterator i(xml.begin(), xml.end(), tag), end; i != end; ++i) {
    const std::string between = xml.substr(at, static_cast<std::size_t>(i->position()) - at);
    EXPECT_EQ(between.find_first_of("<>"), std::string::npos) << between;
    EXPECT_FALSE(std::regex_search(between, std::regex("&(?!(amp|lt|gt|quot);)"))) << between;
    at = static_cast<std::size_t>(i->position() + i->length());
    if ((*i)[1].length() > 0) {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), (*i)[2].str());
      open.pop_back();
    } else if ((*i)[4].length() == 0) {
      open.push_back((*i)[2].str());
    }
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(xml.substr(at), "\n");
}

TEST_F(Commands, RooflineIsWellFormedAndHoldsEveryCase) {
  Record gemm = record("gemm/nt/8x8x8", {{0.5}});
  gemm.matrix = true;
  gemm.dtype = "bf16";
  Record without = record("fill/9", {{1}});
  without.flops = 0;  // has no place on the picture
  const std::string a =
      write("a.json", {record("distill_loss/<&>/3x4", timings(1, 1)), gemm, without});
  ASSERT_EQ(roofline_command({a, "--out", folder_ / "a.svg"}), 0);
  const std::string svg = test::slurp(folder_ / "a.svg");
  expect_well_formed(svg);
  EXPECT_NE(svg.find("<svg xmlns=\"http://www.w3.org/2000/svg\""), std::string::npos);
  EXPECT_NE(svg.find("distill_loss/&lt;&amp;&gt;/3x4/f32: "), std::string::npos);
  EXPECT_NE(svg.find("gemm/nt/8x8x8/bf16: "), std::string::npos);
  EXPECT_EQ(svg.find("fill/9"), std::string::npos);
  EXPECT_NE(svg.find("copy 50.0 GB/s"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf\""), std::string::npos);
}

TEST_F(Commands, RooflineOfAGpuIsTitledByItsName) {
  Record r = record("x", {{1}});
  r.device = "cuda";
  ASSERT_EQ(
      roofline_command({write("a.json", {r}), "--out", folder_ / "a.svg", "--device", "cuda"}), 0);
  EXPECT_TRUE(has(test::slurp(folder_ / "a.svg"), "Roofline: a &lt;gpu&gt;</text>"));
}

TEST_F(Commands, RooflineRefusesAFileWithoutPoints) {
  Record r = record("x", {{1}});
  r.flops = 0;  // neither on the CPU nor on a GPU
  EXPECT_THROW(roofline_command({write("a.json", {r}), "--out", folder_ / "a.svg"}), Error);
  EXPECT_THROW(roofline_command({write("b.json", {record("x", {{1}})}), "--out", folder_ / "b.svg",
                                 "--device", "cuda"}),
               Error);
}

}  // namespace
}  // namespace retort::bench
