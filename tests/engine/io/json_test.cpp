#include "engine/io/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/fuzz/json_fuzz.cpp"
#include "tests/support/mutate.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;

TEST(Json, reads_what_it_writes) {
  Json value = Json::object();
  value.set("seed", std::uint64_t{18446744073709551615u}).set("n", -3).set("x", 0.1);
  value.set("text", "a\"b\\c\n\x01\xc3\xa9").set("yes", true).set("none", Json());
  value.set("list", Json::array().push(1).push("two").push(Json::object()));
  value.set("whole", 2.0).set("nan", NAN).set("inf", -INFINITY);
  const std::string text = value.dump();
  EXPECT_EQ(text,
            "{\"seed\":18446744073709551615,\"n\":-3,\"x\":0.1,"
            "\"text\":\"a\\\"b\\\\c\\u000a\\u0001\xc3\xa9\",\"yes\":true,\"none\":null,"
            "\"list\":[1,\"two\",{}],\"whole\":2.0,\"nan\":\"nan\",\"inf\":\"-inf\"}");
  const Json back = Json::parse(text, "text");
  EXPECT_EQ(back.dump(), text);
  EXPECT_EQ(back.at("seed").as_unsigned(), 18446744073709551615u);
  EXPECT_EQ(back.at("n").as_integer(), -3);
  EXPECT_EQ(back.at("text").as_string(), "a\"b\\c\n\x01\xc3\xa9");
  EXPECT_TRUE(std::isnan(back.at("nan").as_number()));
  EXPECT_EQ(back.at("inf").as_number(), -INFINITY);
}

TEST(Json, doubles_survive_exactly) {
  for (const double x : {1.0 / 3, 1e308, 5e-324, -0.0, 123456789012345680.0}) {
    const double back = Json::parse(Json(x).dump(), "x").as_number();
    EXPECT_EQ(std::signbit(back), std::signbit(x));
    EXPECT_EQ(back, x);
  }
}

TEST(Json, errors_name_file_and_byte) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "f.json: byte 0: not valid JSON"},
      {"{\"a\":1,}", "f.json: byte 8: not valid JSON"},
      {"{\"a\":1,\"a\":2}", "f.json: byte 10: the key 'a' appears twice"},
      {"[1] 2", "not valid JSON"},
      {"\"\xff\"", "not valid JSON"},
      {"[1", "not valid JSON"},
      {"01", "not valid JSON"},
      {"nan", "not valid JSON"},
  };
  for (const auto& [text, says] : cases) try {
      Json::parse(text, "f.json");
      FAIL() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadInput);
      EXPECT_THAT(e.what(), HasSubstr(says));
    }
}

// The parser underneath takes a NUL for the end, so that anything could hide behind it.
TEST(Json, nothing_hides_behind_a_nul) {
  const std::string_view texts[] = {
      {"{}\0", 3}, {"{}\0garbage", 10}, {"\0{}", 3}, {"{\0\"a\":1}", 8}, {"\"a\0b\"", 5}};
  for (const std::string_view text : texts) try {
      Json::parse(text, "f.json");
      ADD_FAILURE() << text.size();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadInput);
      EXPECT_THAT(e.what(), HasSubstr("f.json: byte " + std::to_string(text.find('\0')) +
                                      ": not valid JSON: a NUL byte"));
    }
}

TEST(Json, survives_mutated_texts) {
  const std::vector<std::string> corpus{
      R"({"format":1,"step":12,"files":{"a.safetensors":{"bytes":18446744073709551615}}})",
      R"([null,true,-3,0.1e-7,"\u00e9\ud83d\ude00\n",{"x":[[]]},"nan"])"};
  for (const std::string& text : corpus) fuzz_json(text);
  for (std::uint32_t i = 0; i < 3000; ++i)
    fuzz_json(mutated(corpus[i % corpus.size()], 6, i, "{}[]\",:0123456789-.eE\\u\x80"));
}

TEST(Json, depth_is_bounded) {
  const auto nested = [](int n) {
    return std::string(static_cast<std::size_t>(n), '[') +
           std::string(static_cast<std::size_t>(n), ']');
  };
  EXPECT_NO_THROW(Json::parse(nested(64), "x"));
  EXPECT_THROW(Json::parse(nested(65), "x"), Error);
  EXPECT_THROW(Json::parse(nested(1000000), "x"), Error);
}

TEST(Json, wrong_kinds_and_missing_keys_are_bad_input) {
  const Json value = Json::parse("{\"a\":\"x\",\"b\":-1,\"c\":1.5}", "x");
  EXPECT_THROW(value.at("a").as_number(), Error);
  EXPECT_THROW(value.at("b").as_unsigned(), Error);
  EXPECT_THROW(value.at("c").as_integer(), Error);
  EXPECT_THROW(value.at("d"), Error);
  EXPECT_EQ(value.find("d"), nullptr);
  EXPECT_THROW(value.items(), Error);
}

TEST(Json, invalid_utf8_is_replaced_when_written) {
  EXPECT_EQ(json_quote("a\xff"
                       "b\xe2\x82"),
            "\"a\xef\xbf\xbd"
            "b\xef\xbf\xbd\xef\xbf\xbd\"");
}

}  // namespace
}  // namespace retort::test
