#include "nn/data/cifar.h"

#include <gtest/gtest.h>
#include <lzma.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/io/file.h"
#include "nn/data/open.h"
#include "nn/data/packed_file.h"
#include "tests/fuzz/cifar_fuzz.cpp"
#include "tests/support/close.h"
#include "tests/support/locale.h"
#include "tests/support/random.h"

namespace retort::nn::test {
namespace {

using namespace std::string_literals;
using retort::test::same_bytes;
namespace fs = std::filesystem;

// A folder that goes when the test ends.
struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "retort_cifar_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
  std::string write(const std::string& name, std::string_view content) const {
    std::ofstream(path / name, std::ios::binary) << content;
    return (path / name).string();
  }
};

// Record i: label i % classes, pixels a function of (i, offset).
std::string records(CifarFormat format, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) {
    if (format == CifarFormat::kCifar100) out += static_cast<char>(i % 20);
    out += static_cast<char>(i % (format == CifarFormat::kCifar10 ? 10 : 100));
    for (int j = 0; j < 3072; ++j) out += static_cast<char>((i * 31 + j * 7 + j / 1024) & 255);
  }
  return out;
}

std::string pack(const std::string& content, std::uint32_t delta_distance = 0) {
  lzma_options_lzma lzma{};
  lzma_lzma_preset(&lzma, 1);
  lzma_options_delta delta{};
  delta.type = LZMA_DELTA_TYPE_BYTE;
  delta.dist = delta_distance;
  std::vector<lzma_filter> filters;
  if (delta_distance > 0) filters.push_back({LZMA_FILTER_DELTA, &delta});
  filters.push_back({LZMA_FILTER_LZMA2, &lzma});
  filters.push_back({LZMA_VLI_UNKNOWN, nullptr});
  std::string out(lzma_stream_buffer_bound(content.size()), '\0');
  std::size_t used = 0;
  EXPECT_EQ(lzma_stream_buffer_encode(filters.data(), LZMA_CHECK_CRC64, nullptr,
                                      reinterpret_cast<const std::uint8_t*>(content.data()),
                                      content.size(), reinterpret_cast<std::uint8_t*>(out.data()),
                                      &used, out.size()),
            LZMA_OK);
  out.resize(used);
  return out;
}

ErrorCode code_of(auto&& f, std::string* text = nullptr) {
  try {
    f();
  } catch (const Error& e) {
    if (text != nullptr) *text = e.what();
    return e.code();
  }
  return ErrorCode::kOk;
}

TEST(Cifar, reads_both_formats_in_file_order) {
  for (const CifarFormat format : {CifarFormat::kCifar10, CifarFormat::kCifar100}) {
    const Folder folder;
    const std::string all = records(format, 7);
    const std::size_t size = all.size() / 7;
    folder.write("a.bin", std::string_view(all).substr(0, 3 * size));
    folder.write("b.bin", std::string_view(all).substr(3 * size));
    const auto data = read_cifar(format, folder.path.string(), {"a.bin", "b.bin"});
    ASSERT_EQ(data->size(), 7);
    EXPECT_EQ(data->classes(), format == CifarFormat::kCifar10 ? 10 : 100);
    EXPECT_EQ(data->input_shape(), (Shape{32, 32, 3}));
    for (int i = 0; i < 7; ++i) EXPECT_EQ(data->label(i), i);
    EXPECT_EQ(data->images().data<std::uint8_t>()[6 * 3072 + 2100],
              static_cast<std::uint8_t>(6 * 31 + 2100 * 7 + 2));
    EXPECT_EQ(data->hash(), parse_cifar(all, format, "all")->hash());
    EXPECT_NE(data->hash(), read_cifar(format, folder.path.string(), {"b.bin", "a.bin"})->hash());
  }
}

TEST(Cifar, reads_xz_with_and_without_the_delta_filter) {
  const Folder folder;
  const std::string all = records(CifarFormat::kCifar10, 4);
  folder.write("plain.bin", all);
  folder.write("lzma.bin.xz", pack(all));
  folder.write("delta.bin.xz", pack(all, 1));
  folder.write("two.bin.xz", pack(all.substr(0, 5000)) + pack(all.substr(5000), 3));
  const auto want = read_cifar(CifarFormat::kCifar10, folder.path.string(), {"plain.bin"});
  for (const char* name : {"lzma.bin", "delta.bin", "delta.bin.xz", "two.bin"})
    EXPECT_EQ(read_cifar(CifarFormat::kCifar10, folder.path.string(), {name})->hash(), want->hash())
        << name;
}

TEST(Cifar, finds_the_folder_of_the_official_archive) {
  const Folder folder;
  fs::create_directory(folder.path / "cifar-10-batches-bin");
  for (const std::string& name : cifar_standard_files(CifarFormat::kCifar10, true))
    folder.write("cifar-10-batches-bin/" + name, records(CifarFormat::kCifar10, 2));
  DataConfig config;
  config.format = "cifar10";
  config.root = folder.path.string();
  config.train_range = "1:3,9";
  const auto data = open_dataset(config, true);
  EXPECT_EQ(data->size(), 3);
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->label(1), 0);
  EXPECT_EQ(code_of([&] { open_dataset(config, false); }), ErrorCode::kIo);
}

TEST(Cifar, hostile_files_are_clear_errors) {
  const Folder folder;
  const std::string good = records(CifarFormat::kCifar10, 3), root = folder.path.string();
  const auto code = [&](const std::string& name, std::string* text = nullptr) {
    return code_of([&] { read_cifar(CifarFormat::kCifar10, root, {name}); }, text);
  };
  std::string text;
  EXPECT_EQ(code("missing.bin", &text), ErrorCode::kIo);
  EXPECT_NE(text.find("missing.bin"), std::string::npos) << text;

  folder.write("empty.bin", "");
  EXPECT_EQ(code("empty.bin"), ErrorCode::kBadInput);

  folder.write("cut.bin", std::string_view(good).substr(0, 2 * 3073 + 100));
  EXPECT_EQ(code("cut.bin", &text), ErrorCode::kBadInput);
  EXPECT_NE(text.find("record 2 at offset 6146 is cut after 100 bytes"), std::string::npos) << text;

  std::string wrong = good;
  wrong[3073] = 10;
  folder.write("label.bin", wrong);
  EXPECT_EQ(code("label.bin", &text), ErrorCode::kBadInput);
  EXPECT_NE(text.find("got 10 in record 1 at offset 3073"), std::string::npos) << text;

  fs::create_directory(folder.path / "folder.bin");
  EXPECT_EQ(code("folder.bin"), ErrorCode::kIo);

  folder.write("garbage.bin.xz", "this is not an archive");
  EXPECT_EQ(code("garbage.bin", &text), ErrorCode::kBadInput);
  EXPECT_NE(text.find("not an xz archive"), std::string::npos) << text;

  const std::string packed = pack(good);
  folder.write("short.bin.xz", std::string_view(packed).substr(0, packed.size() / 2));
  EXPECT_EQ(code("short.bin", &text), ErrorCode::kBadInput);
  EXPECT_NE(text.find("ends too early"), std::string::npos) << text;

  std::string damaged = packed;
  damaged[damaged.size() / 2] ^= 0x55;
  folder.write("damaged.bin.xz", damaged);
  EXPECT_EQ(code("damaged.bin"), ErrorCode::kBadInput);

  EXPECT_EQ(code_of([&] { read_cifar(CifarFormat::kCifar10, root, {}); }), ErrorCode::kUsage);
  // 100 classes need two label bytes: the sizes do not fit.
  folder.write("ten.bin", good);
  EXPECT_EQ(code_of([&] { read_cifar(CifarFormat::kCifar100, root, {"ten.bin"}); }),
            ErrorCode::kBadInput);
  std::string coarse = records(CifarFormat::kCifar100, 2);
  coarse[3074] = 20;
  EXPECT_EQ(code_of([&] { parse_cifar(coarse, CifarFormat::kCifar100, "x"); }, &text),
            ErrorCode::kBadInput);
  EXPECT_NE(text.find("coarse label"), std::string::npos) << text;
}

TEST(Cifar, unpacking_stops_at_the_cap) {
  const std::string bomb = pack(std::string(8 << 20, '\0'));
  EXPECT_LT(bomb.size(), 64u << 10);
  std::string text;
  EXPECT_EQ(code_of([&] { unpack_xz(bomb, "bomb.xz", 1 << 20); }, &text), ErrorCode::kBadInput);
  EXPECT_NE(text.find("at most 1048576 bytes when unpacked, and it holds 8388608"),
            std::string::npos)
      << text;
  // Several archives in a row are one content.
  const std::string half = pack(std::string(600'000, 'x'));
  EXPECT_EQ(unpack_xz(half + half, "two.xz", 1'200'000).size(), 1'200'000u);
  EXPECT_EQ(code_of([&] { unpack_xz(half + half, "two.xz", 1'199'999); }), ErrorCode::kBadInput);
  // Without its end there is no promise, and the cap stops what comes out.
  EXPECT_EQ(code_of([&] { unpack_xz(bomb.substr(0, bomb.size() - 12), "cut.xz", 1 << 20); }, &text),
            ErrorCode::kBadInput);
  EXPECT_NE(text.find("at most 1048576 bytes"), std::string::npos) << text;
}

TEST(Cifar, unpacking_takes_the_memory_of_the_content_and_no_more) {
  const std::string content(20 << 20, 'x');
  EXPECT_EQ(unpack_xz(pack(content), "x.xz", std::uint64_t{1} << 30).capacity(),
            content.size() + 1);
}

TEST(Cifar, a_stop_ends_unpacking) {
  const std::string archive = pack(std::string(8 << 20, 'x'));
  static int calls;
  calls = 0;
  stop_wanted = []() noexcept { return ++calls > 3; };
  std::string text;
  EXPECT_EQ(code_of([&] { unpack_xz(archive, "a.xz", 1 << 30); }, &text), kStopped);
  stop_wanted = nullptr;
  EXPECT_EQ(calls, 4);
  EXPECT_NE(text.find("a.xz: stopped while reading"), std::string::npos) << text;
}

// Replays the fuzz target on a small corpus: good files, each cut and changed in many places.
TEST(Cifar, fuzz_corpus) {
  const auto run = [](const std::string& input) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  };
  const std::string ten = records(CifarFormat::kCifar10, 2);
  const std::string hundred = records(CifarFormat::kCifar100, 2);
  for (const std::string& good :
       {"\0"s + ten, "\1"s + hundred, "\2"s + pack(ten, 1), "\3"s + pack(hundred)}) {
    run(good);
    for (std::uint32_t i = 0; i < 60; ++i) {
      const Philox4 r = philox(1, i, 0, 0, path_hash("fuzz"));
      std::string bad = good;
      const std::size_t at = r.v[0] % bad.size();
      // Archives are small at both ends: hit their headers and footers more often.
      const std::size_t near = i % 2 ? r.v[2] % 40 : bad.size() - 1 - r.v[2] % 40;
      bad[i % 3 ? near : at] = static_cast<char>(r.v[1]);
      run(bad);
      run(good.substr(0, at));
      run(good + good.substr(at));
    }
  }
}

TEST(ImageDataset, normalises_to_nhwc_for_student_and_teacher) {
  const auto data = parse_cifar(records(CifarFormat::kCifar10, 3), CifarFormat::kCifar10, "x");
  for (const Device device : retort::test::devices()) {
    BatchOptions options;
    options.device = device;
    options.normalize = Normalize::named("cifar");
    options.teacher_normalize = Normalize::named("imagenet");
    const std::vector<std::int64_t> samples{2, 0};
    const Batch batch = data->make_batch(samples, options);
    EXPECT_EQ(batch.inputs.shape(), (Shape{2, 32, 32, 3}));
    EXPECT_EQ(batch.targets.to_vector<std::int32_t>(), (std::vector<std::int32_t>{2, 0}));
    EXPECT_EQ(batch.sample, samples);
    EXPECT_EQ(batch.augment, (std::vector<std::uint32_t>{0, 0}));
    const auto x = batch.inputs.to_vector<float>(), t = batch.teacher_inputs.to_vector<float>();
    // Row 0 is sample 2: its pixel (h, w) = (5, 9) of channel 1.
    const double pixel = ((2 * 31 + (1024 + 169) * 7 + 1) & 255) / 255.0;
    const std::size_t at = (5 * 32 + 9) * 3 + 1;
    EXPECT_FLOAT_EQ(x[at], static_cast<float>((pixel - 0.4822) / 0.2435));
    EXPECT_FLOAT_EQ(t[at], static_cast<float>((pixel - 0.456) / 0.224));
    options.teacher_normalize = options.normalize;
    const Batch shared = data->make_batch(samples, options);
    EXPECT_EQ(shared.inputs.raw(), shared.teacher_inputs.raw());
  }
}

TEST(ImageDataset, augmentation_is_keyed_by_seed_epoch_and_sample_alone) {
  const auto data = parse_cifar(records(CifarFormat::kCifar10, 6), CifarFormat::kCifar10, "x");
  BatchOptions options;
  options.augment = Augment::kCropFlip;
  options.seed = 5, options.epoch = 3;
  const std::vector<std::int64_t> some{4, 1}, others{1, 2, 3, 4};
  const Batch a = data->make_batch(some, options), b = data->make_batch(others, options);
  EXPECT_EQ(a.augment[0], b.augment[3]);
  EXPECT_TRUE(same_bytes(a.inputs.slice(0, 1), b.inputs.slice(3, 4)));
  EXPECT_TRUE(same_bytes(a.inputs.slice(1, 2), b.inputs.slice(0, 1)));
  options.epoch = 4;
  const Batch c = data->make_batch(others, options);
  EXPECT_NE(b.augment, c.augment);
}

TEST(ImageDataset, subsets_are_renumbered_copies_with_their_own_hash) {
  const auto data = parse_cifar(records(CifarFormat::kCifar10, 6), CifarFormat::kCifar10, "x");
  const std::vector<std::int64_t> picked{5, 2};
  const auto part = data->subset(picked);
  EXPECT_EQ(part->size(), 2);
  EXPECT_EQ(part->label(0), 5);
  EXPECT_NE(part->hash(), data->hash());
  const std::vector<std::int64_t> first{0};
  const std::vector<std::int64_t> fifth{5};
  EXPECT_TRUE(same_bytes(part->make_batch(first, {}).inputs, data->make_batch(fifth, {}).inputs));
  const std::vector<std::int64_t> outside{6};
  EXPECT_THROW(data->subset(outside), Error);
  EXPECT_THROW(data->make_batch(outside, {}), Error);
  EXPECT_THROW(data->label(-1), Error);
}

TEST(ImageDataset, index_ranges) {
  EXPECT_EQ(parse_index_ranges("", 3), (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(parse_index_ranges("3:, 0:2", 5), (std::vector<std::int64_t>{3, 4, 0, 1}));
  EXPECT_EQ(parse_index_ranges("4", 5), (std::vector<std::int64_t>{4}));
  for (const char* bad : {"5", "0:6", "2:2", "3:1", "a", "0:2,", "0:2,1", "-1:2", "0:2:3", "1.5",
                          "99999999999999999999"})
    EXPECT_THROW(parse_index_ranges(bad, 5), Error) << bad;
}

TEST(ImageDataset, normalisations_by_name_and_number) {
  EXPECT_EQ(Normalize::named("imagenet").str(), "imagenet");
  EXPECT_EQ(Normalize::custom({0.5}, {0.25}).str(), "[[0.5], [0.25]]");
  EXPECT_THROW(Normalize::named("cifar10"), Error);
  EXPECT_THROW(Normalize::custom({0.5}, {0}), Error);
  EXPECT_THROW(Normalize::custom({0.5, 0.5}, {1}), Error);
  EXPECT_THROW((Normalize{{0.5, 0.5, 0.5}, {1}}).table(3), Error);
  EXPECT_THROW((Normalize{{}, {1, 1, 1}}).table(3), Error);
  const retort::test::CommaLocale locale;
  EXPECT_EQ(Normalize::custom({0.5}, {0.25}).str(), "[[0.5], [0.25]]");
  EXPECT_THROW(Normalize::custom({NAN}, {1}), Error);
  EXPECT_THROW(Normalize::named("cifar").table(1), Error);
  EXPECT_EQ(Normalize{}.table(2).to_vector<float>()[256 + 51], 0.2f);
}

TEST(RealCifar, labels_means_and_bytes_are_those_published) {
  const char* const root = std::getenv("RETORT_DATA");
  if (root == nullptr) GTEST_SKIP() << "RETORT_DATA (a folder with cifar10/) is not set";
  const auto data = read_cifar(CifarFormat::kCifar10, std::string(root) + "/cifar10",
                               {"test_batch_first1017_exact.bin"});
  ASSERT_EQ(data->size(), 1017);
  std::array<int, 10> histogram{};
  for (std::int64_t i = 0; i < data->size(); ++i)
    ++histogram[static_cast<std::size_t>(data->label(i))];
  EXPECT_EQ(histogram, (std::array<int, 10>{105, 93, 100, 104, 92, 87, 114, 102, 110, 110}));
  const std::uint8_t* const p = data->images().data<std::uint8_t>();
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < data->images().numel(); ++i) sum += p[i];
  EXPECT_EQ(sum, 380676608u);
  // Caches of teacher outputs are keyed by this: a change makes old ones useless.
  EXPECT_EQ(hex(data->hash()), "5f0428198380c532");
}

}  // namespace
}  // namespace retort::nn::test
