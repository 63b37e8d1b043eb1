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

Blocks timings(std::uint64_t seed, double scale, std::size_t blocks = 1, std::uint32_t n = 60) {
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
  std::string write(const char* name, std::vector<Record> records) {
    Report report;
    report.environment =
        Json::object().set("processor", "a <processor> & \"more\"").set("threads", 2);
    report.cpu = {50, 400, 800, 500, 1000};
    report.records = std::move(records);
    write_report(report, folder_ / name);
    return folder_ / name;
  }
  test::TemporaryFolder folder_;
};

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

TEST_F(Commands, ShareIsOfTheRightCeiling) {
  const Ceilings c{50, 400, 800, 500, 1000};
  Record r = record("op", {{1}});  // 1 MB and 3 MFLOP in 1 ms: 1 GB/s, 3 GFLOP/s
  EXPECT_DOUBLE_EQ(r.share(c), 1.0 / 50);
  r.matrix = true;
  EXPECT_DOUBLE_EQ(r.share(c), 3.0 / 400);
  r.dtype = "bf16";
  EXPECT_DOUBLE_EQ(r.share(c), 3.0 / 800);
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

// One slow stretch of the machine, as long as a block: not enough to call the program slower.
TEST_F(Commands, CompareSeesDriftBetweenBlocks) {
  Blocks before = timings(1, 1, 4), after = timings(2, 1, 4);
  for (const std::size_t block : {1u, 2u})
    for (double& v : after[block]) v *= 1.3;
  const std::string a = write("a.json", {record("x", before)}),
                    b = write("b.json", {record("x", after)});
  EXPECT_EQ(compare_command({a, b, "--threshold", "0.02"}), 0);
  const std::string flat_a = write("c.json", {record("x", {joined(before)})}),
                    flat_b = write("d.json", {record("x", {joined(after)})});
  EXPECT_EQ(compare_command({flat_a, flat_b, "--threshold", "0.02"}),
            1);  // what it would say without blocks
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

TEST_F(Commands, RooflineRefusesAFileWithoutPoints) {
  Record r = record("x", {{1}});
  r.flops = 0;
  EXPECT_THROW(roofline_command({write("a.json", {r}), "--out", folder_ / "a.svg"}), Error);
  EXPECT_THROW(roofline_command({write("b.json", {record("x", {{1}})}), "--out", folder_ / "b.svg",
                                 "--device", "cuda"}),
               Error);
}

}  // namespace
}  // namespace retort::bench
