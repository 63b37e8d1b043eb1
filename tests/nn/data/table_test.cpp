// Tables against values written out by hand, and what is wrong with a file told by its place.
#include "nn/data/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lzma.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/fuzz/table_fuzz.cpp"
#include "tests/support/mutate.h"

namespace retort::nn {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A .npy file of version 1, as NumPy writes it.
template <class T>
std::string npy(const std::string& type, const std::string& shape, const std::vector<T>& values) {
  std::string header =
      "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string file = "\x93NUMPY";
  file +=
      {'\1', '\0', static_cast<char>(header.size() % 256), static_cast<char>(header.size() / 256)};
  file += header;
  file.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  return file;
}

std::string message(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}
std::string csv_message(const std::string& text, const CsvOptions& options = {}) {
  return message([&] { parse_csv(text, options, "a.csv"); });
}

TEST(Table, csv_is_what_it_says) {
  const Table t = parse_csv(
      "\xef\xbb\xbfwidth,label,\"height, \"\"cm\"\"\"\r\n0.5,1,-2\r\n\r\n\"1e3\",0, +0.25 \r\n", {},
      "a.csv");
  EXPECT_EQ(t.columns, 2);
  EXPECT_THAT(t.names, ElementsAre("width", "height, \"cm\""));
  EXPECT_THAT(t.values, ElementsAre(0.5f, -2.0f, 1000.0f, 0.25f));
  EXPECT_THAT(t.labels, ElementsAre(1, 0));
  const Table bare = parse_csv("7;1;2\n8;3;4", {';', false, "0"}, "a.csv");
  EXPECT_THAT(bare.labels, ElementsAre(7, 8));
  EXPECT_THAT(bare.values, ElementsAre(1.0f, 2.0f, 3.0f, 4.0f));
  // Beside a header a label is a name first, and a number if there is no such name.
  EXPECT_THAT(parse_csv("a,b,0\n1.5,2,3\n", {',', true, "0"}, "a.csv").labels, ElementsAre(3));
  EXPECT_THAT(parse_csv("a,b,c\n1.5,2,3\n", {',', true, "1"}, "a.csv").labels, ElementsAre(2));
}

TEST(Table, a_wrong_cell_is_told_by_its_place) {
  const std::string head = "x,label,y\n";
  EXPECT_THAT(csv_message(head + "1,0,2\n1,0,abc\n"),
              HasSubstr("a.csv:3: column 3 (y): expected a finite number, got 'abc'"));
  EXPECT_THAT(csv_message(head + "\n1,0,\n"), HasSubstr("a.csv:3: column 3 (y)"));
  EXPECT_THAT(csv_message(head + "nan,0,1\n"), HasSubstr("column 1 (x): expected a finite number"));
  EXPECT_THAT(csv_message(head + "1e39,0,1\n"), HasSubstr("got '1e39'"));
  EXPECT_THAT(csv_message(head + "1,0.5,1\n"), HasSubstr("a.csv:2: column 2 (label): expected a"));
  EXPECT_THAT(csv_message(head + "1,-1,1\n"),
              HasSubstr("expected a label in [0, 65536), got '-1'"));
  EXPECT_THAT(csv_message(head + "1,65536,1\n"), HasSubstr("got '65536'"));
  EXPECT_THAT(csv_message(head + "1,0\n"), HasSubstr("a.csv:2: expected 3 cells, got 2"));
  EXPECT_THAT(csv_message(head + "1,0,\"2\n"), HasSubstr("the quote is not closed"));
  EXPECT_THAT(csv_message(head), HasSubstr("expected at least one row"));
  EXPECT_THAT(csv_message(""), HasSubstr("expected at least one row"));
  EXPECT_THAT(csv_message("a,b\n1,2\n"), HasSubstr("a.csv:1: expected a column 'label' of labels"));
  EXPECT_THAT(csv_message("1,2\n", {',', false, "2"}), HasSubstr("among 2 columns"));
}

TEST(Table, npy_pairs_are_what_they_say) {
  const std::string y = npy<std::int64_t>("<i8", "2,", {3, 0});
  for (const Table& t : {parse_npy_pair(npy<float>("<f4", "2, 2", {1.5f, -2, 0, 4}), "x", y, "y"),
                         parse_npy_pair(npy<double>("<f8", "2, 2", {1.5, -2, 0, 4}), "x",
                                        npy<std::uint8_t>("|u1", "2,", {3, 0}), "y")}) {
    EXPECT_EQ(t.columns, 2);
    EXPECT_THAT(t.values, ElementsAre(1.5f, -2.0f, 0.0f, 4.0f));
    EXPECT_THAT(t.labels, ElementsAre(3, 0));
  }
  const auto told = [&](const std::string& x, const std::string& labels) {
    return message([&] { parse_npy_pair(x, "x.npy", labels, "y.npy"); });
  };
  const std::string x = npy<float>("<f4", "2, 2", {1, 2, 3, 4});
  EXPECT_THAT(told(x.substr(0, x.size() - 1), y), HasSubstr("x.npy: expected 16 bytes"));
  EXPECT_THAT(told(x + "1", y), HasSubstr("got 17"));
  EXPECT_THAT(told(npy<float>("<f4", "2, 2", {1, 2, NAN, 4}), y),
              HasSubstr("x.npy: row 1, column 0: expected a finite number"));
  EXPECT_THAT(told(npy<float>(">f4", "2, 2", {1, 2, 3, 4}), y), HasSubstr("little-endian"));
  EXPECT_THAT(told(x, npy<std::int64_t>("<i8", "2,", {0, -1})), HasSubstr("y.npy: row 1"));
  EXPECT_THAT(told(x, npy<std::int64_t>("<i8", "3,", {0, 1, 2})), HasSubstr("expected 2 labels"));
  EXPECT_THAT(told(y, y), HasSubstr("x.npy: expected an array (N, n)"));
  EXPECT_THAT(told(x, x), HasSubstr("y.npy: expected an array (N) of integers"));
  EXPECT_THAT(told("1,2\n", y), HasSubstr("expected a .npy file"));
  EXPECT_THAT(told(npy<float>("<f4", "4294967296, 4294967297", {1}), y), HasSubstr("larger"));
}

// Files in a folder, through the registry.
class TableFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("retort_table_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    write("train.csv", "a,b,label\n1,7,0\n3,7,2\n");
    write("test.csv", "a,b,label\n4,8,1\n");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::shared_ptr<const Dataset> open(const std::string& split, const Options& more = {}) const {
    Options options{{"root", folder_.string()},
                    {"train_files", Strings{"train.csv"}},
                    {"test_files", Strings{"test.csv"}}};
    for (const auto& [key, value] : more) options.set(key, value);
    return open_data({"table", split, options});
  }
  static std::vector<float> values(const Dataset& data) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(data.size()));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    return data.source({})->make(all).inputs[0].values.to_vector<float>();
  }

  fs::path folder_;
};

TEST_F(TableFiles, columns_and_classes_are_those_of_training) {
  const auto train = open("train"), test = open("test");
  EXPECT_EQ(train->classes(), 3);
  EXPECT_EQ(test->classes(), 3);
  EXPECT_EQ(train->facts().input, (Shape{2}));
  EXPECT_THAT(values(*test), ElementsAre(4.0f, 8.0f));
  EXPECT_EQ(open("validation"), nullptr);
  // Mean 2 and deviation 1 of column a; b does not change, so that 8 is 1 above its mean.
  const Options scaled{{"standardize", true}};
  EXPECT_THAT(values(*open("train", scaled)), ElementsAre(-1.0f, 0.0f, 1.0f, 0.0f));
  EXPECT_THAT(values(*open("test", scaled)), ElementsAre(2.0f, 1.0f));
  EXPECT_NE(open("test", scaled)->hash(), test->hash());
  EXPECT_EQ(open("test")->hash(), test->hash());
  // Limits count for neither.
  const auto first = open("train", {{"standardize", true}, {"train_limit", std::int64_t{1}}});
  EXPECT_EQ(first->classes(), 3);
  EXPECT_THAT(values(*first), ElementsAre(-1.0f, 0.0f));
  const auto other = open("train", {{"standardize", true},
                                    {"train_files", Strings{"test.csv"}},
                                    {"columns_from", Strings{"train.csv"}}});
  EXPECT_THAT(values(*other), ElementsAre(2.0f, 1.0f));
  write("test.csv", "a,b,label\n4,8,3\n");
  EXPECT_THAT(
      message([&] { open("test"); }),
      HasSubstr("test.csv:2: column 3 (label): expected a label in [0, 3), as data.classes or "
                "the labels of the training files say, got '3'"));
  EXPECT_EQ(open("test", {{"classes", std::int64_t{5}}})->classes(), 5);
  write("test.csv", "b,a,label\n4,8,1\n");
  EXPECT_THAT(message([&] { open("test"); }), HasSubstr("not named like those"));
}

TEST_F(TableFiles, packed_and_in_pairs) {
  const std::string x = npy<float>("<f4", "2, 2", {1, 7, 3, 7});
  std::string packed(1024, '\0');
  std::size_t size = 0;
  ASSERT_EQ(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, nullptr,
                                    reinterpret_cast<const std::uint8_t*>(x.data()), x.size(),
                                    reinterpret_cast<std::uint8_t*>(packed.data()), &size, 1024),
            LZMA_OK);
  write("x.npy.xz", packed.substr(0, size));
  write("y.npy", npy<std::int32_t>("<i4", "2,", {0, 2}));
  write("test.csv", "4,8,1\n");
  const Options pair{{"train_files", Strings{"x.npy", "y.npy"}}};
  const auto train = open("train", pair);
  EXPECT_EQ(train->hash(), open("train")->hash());  // the content counts, not the file
  EXPECT_EQ(train->labels(), (std::vector<std::int32_t>{0, 2}));
  EXPECT_THAT(message([&] {
                open("train", {{"train_files", Strings{"x.npy"}}});
              }),
              HasSubstr("expected pairs of .npy files"));
}

TEST_F(TableFiles, batches_and_parts) {
  const auto train = open("train");
  const std::vector<std::int64_t> samples{1, 0, 1};
  SourceOptions options;
  options.readings = {Reading{DType::kF32}, Reading{DType::kBF16}, Reading{DType::kF32}};
  const Batch batch = train->source(options)->make(samples);
  batch.check();
  EXPECT_THAT(batch.inputs[0].values.to_vector<float>(), ElementsAre(3, 7, 1, 7, 3, 7));
  EXPECT_EQ(batch.inputs[1].values.dtype(), DType::kBF16);
  EXPECT_EQ(batch.inputs[2].values.data<float>(), batch.inputs[0].values.data<float>());
  EXPECT_THAT(batch.targets.to_vector<std::int32_t>(), ElementsAre(2, 0, 2));
  const auto part = train->subset(std::vector<std::int64_t>{1});
  EXPECT_EQ(part->classes(), 3);
  EXPECT_THAT(values(*part), ElementsAre(3.0f, 7.0f));
  EXPECT_NE(part->hash(), train->hash());
  EXPECT_THROW(train->source({})->make(std::vector<std::int64_t>{2}), Error);
}

TEST(Table, mutations_are_tables_or_told) {
  const std::string corpus[] = {"cx,label,y\n1,0,2.5\n-3,1,\"4\"\n",
                                "n" + npy<float>("<f4", "2, 2", {1, 2, 3, 4}) + "|y|" +
                                    npy<std::int8_t>("|i1", "2,", {0, 1})};
  int read = 0, told = 0;
  for (std::uint32_t round = 0; round < 3000; ++round)
    for (const std::string& text : corpus)
      (fuzz_table(text.substr(0, 1) +
                  test::mutated(text.substr(1), 23, round, "0123456789,.-+einfa\"\n\r'|()<u\x80"))
           ? read
           : told)++;
  EXPECT_GT(read, 100);
  EXPECT_GT(told, 1000);
}

}  // namespace
}  // namespace retort::nn
