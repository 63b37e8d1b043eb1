#include "nn/data/cifar.h"

#include <gtest/gtest.h>
#include <lzma.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/io/file.h"
#include "nn/data/image_source.h"
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
    EXPECT_EQ(data->facts().gives, Reads::kImages);
    EXPECT_EQ(data->facts().input, (Shape{32, 32, 3}));
    EXPECT_EQ(data->facts().epoch_size, 7);
    EXPECT_EQ(data->labels(), (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6}));
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
  DataRequest request{"cifar10", "train", {{"root", folder.path.string()}}};
  EXPECT_EQ(open_data(request)->labels(),
            (std::vector<std::int32_t>{0, 1, 0, 1, 0, 1, 0, 1, 0, 1}));
  request.split = "test";
  EXPECT_EQ(code_of([&] { open_data(request); }), ErrorCode::kIo);
}

TEST(Cifar, splits_are_named_files_and_their_first_samples) {
  const Folder folder;
  fs::create_directory(folder.path / "cifar10");  // a folder called like the format
  for (const std::string& name : cifar_standard_files(CifarFormat::kCifar10, true))
    folder.write("cifar10/" + name, records(CifarFormat::kCifar10, 3));
  folder.write("cifar10/test_batch.bin", records(CifarFormat::kCifar10, 6));
  const std::string root = folder.path.string();
  const auto labels = [&](const std::string& split, Options options) {
    options.set("root", root);
    return open_data({"cifar10", split, std::move(options)})->labels();
  };
  using Labels = std::vector<std::int32_t>;
  EXPECT_EQ(labels("train", {}).size(), 15u);
  EXPECT_EQ(labels("train", {{"train_per_file", std::int64_t{2}}}),
            (Labels{0, 1, 0, 1, 0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(labels("train", {{"train_limit", std::int64_t{4}}}), (Labels{0, 1, 2, 0}));
  EXPECT_EQ(
      labels("train", {{"train_per_file", std::int64_t{1}}, {"train_limit", std::int64_t{2}}}),
      (Labels{0, 0}));
  EXPECT_EQ(labels("train", {{"train_files", Strings{"data_batch_2.bin"}}}), (Labels{0, 1, 2}));
  EXPECT_EQ(labels("train", {{"train_limit", std::int64_t{1000}}}).size(), 15u);  // all there are
  // The limits of one split are not those of another.
  EXPECT_EQ(labels("test", {{"train_limit", std::int64_t{1}}, {"train_per_file", std::int64_t{1}}}),
            (Labels{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(labels("test", {{"test_limit", std::int64_t{2}}}), (Labels{0, 1}));
  // Nobody named a validation set, and it has no standard name.
  EXPECT_EQ(open_data({"cifar10", "validation", {{"root", root}}}), nullptr);
  EXPECT_EQ(labels("validation", {{"validation_files", Strings{"test_batch.bin"}},
                                  {"validation_limit", std::int64_t{3}}}),
            (Labels{0, 1, 2}));
}

TEST(Cifar, messages_about_folders_name_what_was_tried) {
  const Folder folder;
  const auto open = [](const Options& options, std::string* text) {
    return code_of([&] { open_data({"cifar10", "train", options}); }, text);
  };
  std::string text;
  EXPECT_EQ(open({}, &text), ErrorCode::kUsage);
  EXPECT_NE(text.find("expected data.root=DIR"), std::string::npos) << text;
  EXPECT_EQ(open({{"root", (folder.path / "gone").string()}}, &text), ErrorCode::kIo);
  EXPECT_NE(text.find("there is no folder " + (folder.path / "gone").string()), std::string::npos)
      << text;
  const std::string root = folder.path.string();
  EXPECT_EQ(open({{"root", root}}, &text), ErrorCode::kIo);
  EXPECT_NE(text.find("no file data_batch_1.bin nor data_batch_1.bin.xz in " + root + ", " + root +
                      "/cifar10 or a folder cifar-10-batches-bin there"),
            std::string::npos)
      << text;
  EXPECT_EQ(open({{"root", root}, {"train_file", Strings{}}}, &text), ErrorCode::kUsage);
  EXPECT_NE(text.find("did you mean 'train_files'?"), std::string::npos) << text;
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
    SourceOptions options{.device = device};
    options.readings = {Reading{DType::kF32, {{"normalize", "cifar"}}},
                        Reading{DType::kF32, {{"normalize", "imagenet"}}}};
    const std::vector<std::int64_t> samples{2, 0};
    const Batch batch = data->source(options)->make(samples);
    EXPECT_EQ(batch.inputs[0].values.shape(), (Shape{2, 32, 32, 3}));
    EXPECT_EQ(batch.targets.to_vector<std::int32_t>(), (std::vector<std::int32_t>{2, 0}));
    EXPECT_EQ(batch.sample, samples);
    EXPECT_EQ(batch.variant, (std::vector<std::uint32_t>{0, 0}));
    const auto x = batch.inputs[0].values.to_vector<float>(),
               t = batch.inputs[1].values.to_vector<float>();
    // Row 0 is sample 2: its pixel (h, w) = (5, 9) of channel 1.
    const double pixel = ((2 * 31 + (1024 + 169) * 7 + 1) & 255) / 255.0;
    const std::size_t at = (5 * 32 + 9) * 3 + 1;
    EXPECT_FLOAT_EQ(x[at], static_cast<float>((pixel - 0.4822) / 0.2435));
    EXPECT_FLOAT_EQ(t[at], static_cast<float>((pixel - 0.456) / 0.224));
    options.readings[1] = options.readings[0];
    const Batch shared = data->source(options)->make(samples);
    EXPECT_EQ(shared.inputs[0].values.raw(), shared.inputs[1].values.raw());
  }
}

TEST(ImageDataset, augmentation_is_keyed_by_seed_epoch_and_sample_alone) {
  const auto data = parse_cifar(records(CifarFormat::kCifar10, 6), CifarFormat::kCifar10, "x");
  const auto source = data->source({.seed = 5, .treatment = {{"augment", "crop_flip"}}});
  const std::vector<std::int64_t> some{4, 1}, others{1, 2, 3, 4};
  const Batch a = source->make(some, 3), b = source->make(others, 3);
  EXPECT_EQ(a.variant[0], b.variant[3]);
  EXPECT_TRUE(same_bytes(a.inputs[0].values.slice(0, 1), b.inputs[0].values.slice(3, 4)));
  EXPECT_TRUE(same_bytes(a.inputs[0].values.slice(1, 2), b.inputs[0].values.slice(0, 1)));
  EXPECT_EQ(source->variants(others, 3), b.variant);
  const Batch c = source->make(others, 4);
  EXPECT_NE(b.variant, c.variant);
  const auto other = data->source({.seed = 6, .treatment = {{"augment", "crop_flip"}}});
  EXPECT_NE(other->make(others, 3).variant, b.variant);
}

TEST(ImageDataset, subsets_are_renumbered_copies_with_their_own_hash) {
  const auto data = parse_cifar(records(CifarFormat::kCifar10, 6), CifarFormat::kCifar10, "x");
  const std::vector<std::int64_t> picked{5, 2};
  const auto part = data->subset(picked);
  EXPECT_EQ(part->size(), 2);
  EXPECT_EQ(part->labels(), (std::vector<std::int32_t>{5, 2}));
  EXPECT_NE(part->hash(), data->hash());
  const std::vector<std::int64_t> first{0};
  const std::vector<std::int64_t> fifth{5};
  const auto whole = data->source({});
  EXPECT_TRUE(same_bytes(part->source({})->make(first).inputs[0].values,
                         whole->make(fifth).inputs[0].values));
  for (const std::int64_t outside : {6, -1}) {
    EXPECT_THROW(data->subset(std::span(&outside, 1)), Error);
    EXPECT_THROW(whole->make(std::span(&outside, 1)), Error);
  }
  EXPECT_THROW(data->subset({}), Error);
  EXPECT_EQ(first_samples(*whole, 2).sample, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(first_samples(*whole, 100).size(), 6);
}

TEST(ImageDataset, options_that_images_do_not_have_are_refused) {
  const auto data = parse_cifar(records(CifarFormat::kCifar10, 1), CifarFormat::kCifar10, "x");
  std::string text;
  EXPECT_EQ(code_of(
                [&] {
                  data->source({.treatment = {{"augmnt", "none"}}});
                },
                &text),
            ErrorCode::kUsage);
  EXPECT_NE(text.find("did you mean 'augment'?"), std::string::npos) << text;
  EXPECT_THROW(data->source({.treatment = {{"augment", "cutout"}}}), Error);
  EXPECT_THROW(data->source({.readings = {Reading{DType::kF32, {{"normalize", "cifar10"}}}}}),
               Error);
  EXPECT_THROW(data->source({.readings = {}}), Error);
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

TEST(ImageDataset, normalisations_of_options) {
  EXPECT_EQ(Normalize::of("imagenet", 3), Normalize::named("imagenet"));
  EXPECT_EQ(Normalize::of(Floats{0.5, 0.25}, 2), Normalize::custom({0.5, 0.5}, {0.25, 0.25}));
  EXPECT_EQ(Normalize::of(Floats{0.1, 0.2, 0.3, 1, 2, 3}, 3),
            Normalize::custom({0.1, 0.2, 0.3}, {1, 2, 3}));
  for (const OptionValue& bad :
       {OptionValue("cifar10"), OptionValue(Floats{}), OptionValue(Floats{1, 2, 3}),
        OptionValue(Floats{0.5, 0}), OptionValue(true)})
    EXPECT_EQ(code_of([&] { Normalize::of(bad, 1); }), ErrorCode::kUsage) << to_toml(bad);
}

TEST(ImageDataset, a_normalisation_comes_back_from_its_text) {
  const retort::test::CommaLocale locale;
  for (const Normalize& n : {Normalize::named("cifar"), Normalize::named("imagenet"), Normalize{},
                             Normalize::custom({0.1, 1.0 / 3, -2}, {1e-7, 0.3, 123456789.5})})
    EXPECT_EQ(Normalize::of(Normalize::parse(n.str()), 3), n) << n.str();
  EXPECT_EQ(Normalize::parse("cifar"), OptionValue("cifar"));
  EXPECT_EQ(Normalize::parse("[0.5, 0.25]"), OptionValue(Floats{0.5, 0.25}));
  for (const char* bad : {"", "cifar10", "0.5", "[0.5]", "[[0.5], [0]]", "[[0.5, 1], [1]]", "[",
                          "[[0.5], [\"x\"]]", "{}"})
    EXPECT_EQ(code_of([&] { Normalize::parse(bad); }), ErrorCode::kBadInput) << bad;
}

TEST(RealCifar, labels_means_and_bytes_are_those_published) {
  const char* const root = std::getenv("RETORT_DATA");
  if (root == nullptr) GTEST_SKIP() << "RETORT_DATA (a folder with cifar10/) is not set";
  const auto data = read_cifar(CifarFormat::kCifar10, std::string(root) + "/cifar10",
                               {"test_batch_first1017_exact.bin"});
  ASSERT_EQ(data->size(), 1017);
  std::array<int, 10> histogram{};
  for (const std::int32_t label : data->labels()) ++histogram[static_cast<std::size_t>(label)];
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
