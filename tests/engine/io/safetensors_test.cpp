#include "engine/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "tests/fuzz/safetensors_fuzz.cpp"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;

// A file with this header and so many zero bytes of data.
std::string file_bytes(const std::string& header, std::size_t data_bytes) {
  std::uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  return bytes + header + std::string(data_bytes, '\0');
}

std::string error_of(const std::string& path) {
  try {
    const SafetensorsReader reader(path);
    return "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput) << e.what();
    return e.what();
  }
}

NamedTensors every_dtype() {
  NamedTensors tensors;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16, DType::kF16, DType::kI64,
                            DType::kI32, DType::kU8}) {
    const Tensor values =
        is_floating(dtype) ? randn({3, 5}, 1, dtype) : randint({3, 5}, 2, 200).to(dtype);
    tensors.emplace_back(std::string("t.") + name_of(dtype), values);
  }
  tensors.emplace_back("scalar", Tensor::scalar(2.5));
  tensors.emplace_back("empty", Tensor::empty({0, 4}));
  tensors.emplace_back("name with \"quotes\", \\ and \xc3\xa9", Tensor::zeros({1}));
  return tensors;
}

TEST(Safetensors, round_trip_of_all_dtypes) {
  const TemporaryFolder folder;
  const NamedTensors tensors = every_dtype();
  write_safetensors(folder / "a.safetensors", tensors, {{"arch", "resnet20"}});
  const SafetensorsReader reader(folder / "a.safetensors");
  EXPECT_EQ(reader.header().entries.size(), tensors.size());
  EXPECT_EQ(reader.header().metadata.at("format"), "pt");
  EXPECT_EQ(reader.header().metadata.at("arch"), "resnet20");
  for (const auto& [name, tensor] : tensors) {
    const Tensor back = reader.read(name);
    EXPECT_EQ(back.dtype(), tensor.dtype());
    EXPECT_TRUE(same_bytes(back, tensor)) << name;
  }
  EXPECT_THROW(reader.read("other"), Error);
}

TEST(Safetensors, layout_by_hand) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", {{"b", Tensor::from<float>({1, 2}, {2})},
                                   {"a", Tensor::from<float>({3}, {1})},
                                   {"z", Tensor::from<std::int64_t>({4}, {})},
                                   {"c", Tensor::from<std::uint8_t>({5}, {1})}});
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"z":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},)"
      R"("c":{"dtype":"U8","shape":[1],"data_offsets":[20,21]}})";
  const std::string bytes = slurp(folder / "a");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(length, (header.size() + 7) / 8 * 8);
  EXPECT_EQ(bytes.substr(8, header.size()), header);
  EXPECT_EQ(bytes.size(), 8 + length + 21);
  float b0 = 0;
  std::memcpy(&b0, bytes.data() + 8 + length + 12, 4);
  EXPECT_EQ(b0, 1);
}

TEST(Safetensors, device_and_pitched_tensors_are_written_by_value) {
  const TemporaryFolder folder;
  for (const Device device : devices()) {
    const Tensor plain = randn({3, 5}, 4), pitched = Tensor::empty_pitched({3, 5}, 8);
    pitched.copy_from(plain);
    const std::string path = folder / name_of(device);
    write_safetensors(path, {{"p", pitched}, {"d", plain.to(device)}});
    EXPECT_TRUE(same_bytes(SafetensorsReader(path).read("p"), plain));
    EXPECT_TRUE(same_bytes(SafetensorsReader(path).read("d"), plain));
  }
}

TEST(Safetensors, every_proper_prefix_is_refused) {
  const TemporaryFolder folder;
  write_safetensors(folder / "whole", every_dtype());
  const std::string bytes = slurp(folder / "whole");
  spill(folder / "cut", bytes);
  for (std::size_t n = bytes.size(); n-- > 0;) {
    std::filesystem::resize_file(folder / "cut", n);
    ASSERT_NE(error_of(folder / "cut"), "accepted") << n << " of " << bytes.size() << " bytes";
  }
  spill(folder / "cut", bytes + '\0');
  EXPECT_THAT(error_of(folder / "cut"), HasSubstr("the tensors cover"));
}

TEST(Safetensors, hostile_headers_are_refused_by_name) {
  const TemporaryFolder folder;
  const std::string path = folder / "bad";
  const struct {
    std::string header;
    std::size_t data;
    const char* says;
  } cases[] = {
      {"", 0, "starts with '{'"},
      {"[]", 0, "starts with '{'"},
      {" {}", 0, "starts with '{'"},
      {"{", 0, "not valid JSON"},
      {"{}x", 0, "not valid JSON"},
      {std::string("{}\0", 3), 0, "byte 10: not valid JSON: a NUL byte"},
      {std::string("{}\0{\"w\":1}", 10), 0, "byte 10: not valid JSON: a NUL byte"},
      {"{}\xff", 0, "not valid JSON"},
      {"{\"\xff\":{}}", 0, "not valid JSON"},
      {"{}", 1, "cover 0 of 1"},
      {R"({"w":1})", 0, "tensor 'w': unexpected a number"},
      {R"({"w":[]})", 0, "unexpected an array"},
      {R"({"w":null})", 0, "unexpected null"},
      {R"({"w":{}})", 0, "has no dtype"},
      {R"({"w":{"dtype":"F32"}})", 0, "has no shape"},
      {R"({"w":{"dtype":"F32","shape":[1]}})", 0, "two data_offsets, got 0"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "two data_offsets, got 1"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", 4, "got more"},
      {R"({"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, "unknown dtype 'F33'"},
      {R"({"w":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", 4, "unexpected a number"},
      {R"({"w":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", 4, "unexpected a string"},
      {R"({"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "not a plain integer"},
      {R"({"w":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}})", 4, "not a plain integer"},
      {R"({"w":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}})", 0, "a negative number"},
      {R"({"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "a negative number"},
      {R"({"w":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "unexpected an array"},
      {R"({"w":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}})", 4, "a boolean"},
      {R"({"w":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", 4,
       "too large"},
      {R"({"w":{"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,4]}})", 4,
       "not a plain integer"},
      {R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
       "too large"},
      {R"({"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0,
       "too large"},
      {R"({"w":{"dtype":"U8","shape":[1000000000000],"data_offsets":[0,1000000000000]}})", 4,
       "the file holds 4 bytes"},
      {R"({"w":{"dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4,
       "at most 6 dimensions"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "expected 8 bytes"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "expected 4 bytes"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "at offset 0"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,0]}})", 4,
       "expected 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "'b': its data begin at offset 0, but those of 'a' end at 4"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
       12, "no holes"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "'w' appears twice"},
      {R"({"w":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4,
       "'dtype' appears twice"},
      {R"({"__metadata__":{"a":1}})", 0, "metadata 'a': expected a string"},
      {R"({"__metadata__":{"a":{}}})", 0, "metadata 'a': expected a string"},
      {R"({"__metadata__":"x"})", 0, "unexpected a string"},
      {R"({"__metadata__":{"a":"x","a":"y"}})", 0, "'a' appears twice"},
      {R"({"__metadata__":{"a":"x"},"__metadata__":{"b":"y"}})", 0, "'__metadata__' appears twice"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("\u0077":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "'w' appears twice"},
      {R"({"w\n\u0000":{"dtype":"F32"}})", 0, "tensor 'w\\x0a\\x00': has no shape"},
      {"{\"w\":" + std::string(100000, '['), 0, "unexpected an array"},
      {"{\"w\":{\"x\":" + std::string(100000, '['), 0, "64 levels"},
      {"{\"" + std::string(1000, 'n') + "\":{}}", 0, ""},
  };
  for (const auto& c : cases) {
    spill(path, file_bytes(c.header, c.data));
    const std::string error = error_of(path);
    EXPECT_THAT(error, HasSubstr(c.says)) << c.header.substr(0, 200);
    EXPECT_THAT(error, HasSubstr(path));
    EXPECT_LT(error.size(), 500u);
  }
  spill(path, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  EXPECT_THAT(error_of(path), HasSubstr("at most 100000000 bytes"));
  spill(path, std::string("\x00\xe1\xf5\x05\x00\x00\x00\x00{}", 10));
  EXPECT_THAT(error_of(path), HasSubstr("does not fit a file of 10"));
}

#if !defined(RETORT_SANITIZED)
// Bytes that malloc has given and not got back.
std::size_t heap_bytes() {
  const struct mallinfo2 now = mallinfo2();
  return now.uordblks + now.hblkhd;
}
#endif

TEST(Safetensors, a_million_tensors_take_little_memory_beside_the_header) {
  constexpr std::size_t kTensors = 1'000'000;
  std::string json = "{";
  for (std::size_t i = 0; i < kTensors; ++i) {
    const std::string at = std::to_string(i), next = std::to_string(i + 1);
    json += (i ? ",\"t" : "\"t") + at + R"(":{"dtype":"U8","shape":[1,1],"data_offsets":[)" + at +
            "," + next + "]}";
  }
  json += "}";
  ASSERT_LE(json.size(), kMaxSafetensorsHeader);
#if defined(RETORT_SANITIZED)
  const SafetensorsHeader header = parse_safetensors_header(json, kTensors, "million");
#else
  const std::size_t text = json.size(), before = heap_bytes();
  const SafetensorsHeader header = parse_safetensors_header(std::move(json), kTensors, "million");
  EXPECT_LT(heap_bytes(), before + (std::size_t{64} << 20)) << text;
#endif
  EXPECT_EQ(header.entries.size(), kTensors);
  for (const std::size_t i : {std::size_t{0}, std::size_t{77'777}, kTensors - 1}) {
    const auto entry = header.find("t" + std::to_string(i));
    ASSERT_TRUE(entry.has_value());
    EXPECT_EQ(entry->begin, i);
    EXPECT_EQ(entry->end, i + 1);
    EXPECT_EQ(entry->shape, Shape({1, 1}));
    EXPECT_EQ(header.entries[i].name, entry->name);
  }
  EXPECT_FALSE(header.find("t").has_value());
  EXPECT_FALSE(header.find("u").has_value());
}

TEST(Safetensors, metadata_is_bounded) {
  std::string json = "{\"__metadata__\":{";
  for (std::size_t i = 0; i <= kMaxSafetensorsMetadata; ++i)
    json += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  EXPECT_THROW(parse_safetensors_header(json + "}}", 0, "x"), Error);
}

TEST(Safetensors, hashes_of_tensors_are_of_their_bytes) {
  const TemporaryFolder folder;
  FileWriter writer(folder / "a");
  std::vector<std::pair<std::string, std::string>> hashes;
  write_safetensors(writer, {{"b", Tensor::from<float>({1, 2}, {2})}, {"a", Tensor::empty({0})}},
                    {}, &hashes);
  writer.finish();
  const float values[] = {1, 2};
  const std::string_view bytes(reinterpret_cast<const char*>(values), sizeof values);
  const std::vector<std::pair<std::string, std::string>> want{{"a", hash_bytes("")},
                                                              {"b", hash_bytes(bytes)}};
  EXPECT_EQ(hashes, want);
}

TEST(Safetensors, others_fields_dtypes_and_padding_are_accepted) {
  const TemporaryFolder folder;
  const std::string header =
      R"({"w":{"note":{"a":[1,{"shape":[2]}]},"dtype":"F32","x":1.5,"shape":[1],"y":[null],)"
      R"("data_offsets":[0,4]},"m":{"dtype":"BOOL","shape":[2],"data_offsets":[4,6]}}   )";
  spill(folder / "a", file_bytes(header, 6));
  const SafetensorsReader reader(folder / "a");
  EXPECT_EQ(reader.read("w").item(), 0);
  EXPECT_FALSE(reader.header().find("m")->dtype.has_value());
  EXPECT_THROW(reader.read("m"), Error);
}

TEST(Safetensors, a_failed_write_leaves_the_old_file) {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  write_safetensors(path, {{"w", Tensor::scalar(1)}});
  const std::string before = slurp(path);
  EXPECT_THROW(write_safetensors(path, {{"w", Tensor::scalar(2)}, {"w", Tensor::scalar(3)}}),
               Error);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", Tensor::scalar(2)}}), Error);
  EXPECT_EQ(slurp(path), before);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    files += entry.path().filename() == "a" ? 1 : 100;
  EXPECT_EQ(files, 1);  // and nothing temporary
}

TEST(Safetensors, missing_files_and_folders_are_io_errors) {
  const TemporaryFolder folder;
  try {
    const SafetensorsReader reader(folder / "none");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kIo);
    EXPECT_THAT(e.what(), HasSubstr("No such file"));
  }
  EXPECT_THROW(SafetensorsReader reader(folder.path()), Error);
  EXPECT_THROW(write_safetensors(folder / "no/such/folder", {}), Error);
}

// Replays the fuzz target on files with a few bytes changed, cut or repeated.
TEST(Safetensors, mutated_files_never_crash) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", every_dtype(), {{"k", "v"}});
  write_safetensors(folder / "b", {{"w", randn({2, 3}, 1)}});
  const std::string seeds[] = {slurp(folder / "a"), slurp(folder / "b"), file_bytes("{}", 0)};
  for (std::uint32_t round = 0; round < 1500; ++round) {
    std::string bytes = seeds[round % 3];
    const std::uint32_t changes = 1 + philox(9, round, 0, 0, 0).v[0] % 4;
    for (std::uint32_t k = 0; k < changes && !bytes.empty(); ++k) {
      const Philox4 r = philox(9, round, k, 1, 0);
      const std::size_t header = std::min<std::size_t>(bytes.size(), 8 + 900);
      const std::size_t at = r.v[0] % header;
      static constexpr char kTokens[] = "{}[]\",:0123456789-.eE\\\x80\xff";
      switch (r.v[1] % 4) {
        case 0: bytes[at] = kTokens[r.v[2] % (sizeof kTokens - 1)]; break;
        case 1: bytes[at] = static_cast<char>(r.v[2]); break;
        case 2: bytes.erase(at, 1 + r.v[2] % 8); break;
        case 3: bytes.insert(at, bytes.substr(at, 1 + r.v[2] % 40)); break;
      }
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
}

}  // namespace
}  // namespace retort::test
