#include "engine/io/json_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace retort::test {
namespace {

TEST(JsonView, what_fits_is_given) {
  const Json tree = Json::parse(R"({"a":[1,{"b/c~":"x"}],"t":true,"n":null})", "f.json");
  const JsonView root(tree, "f.json");
  EXPECT_EQ(root.at("a").size(), 2u);
  EXPECT_EQ(root.at("a").item(0).integer(1), 1u);
  EXPECT_EQ(root.at("a").item(1).at("b/c~").string(), "x");
  EXPECT_EQ(root.at("a").item(1).member(0).pointer(), "/a/1/b~1c~0");
  EXPECT_TRUE(root.at("t").boolean());
  EXPECT_TRUE(root.at("n").is_null());
  EXPECT_FALSE(root.find("z"));
  EXPECT_NO_THROW(root.only({"a", "t", "n", "more"}));
  EXPECT_NO_THROW(root.at("a").item(1).at("b/c~").is("x"));
}

TEST(JsonView, what_does_not_fit_is_named_by_file_and_pointer) {
  const Json tree = Json::parse(R"({"a":[1,{"b/c~":"x"}],"t":true})", "f.json");
  const JsonView root(tree, "f.json");
  const std::pair<std::function<void()>, const char*> cases[] = {
      {[&] { root.at("z"); }, "f.json: expected the key 'z'"},
      {[&] { root.size(); }, "f.json: expected an array, got an object"},
      {[&] { root.at("a").find("x"); }, "f.json: /a: expected an object, got an array"},
      {[&] { root.at("a").item(2); }, "f.json: /a: expected more than 2 items, got 2"},
      {[&] { root.at("a").item(0).integer(0); },
       "f.json: /a/0: expected an integer from 0 to 0, got 1"},
      {[&] { root.at("a").item(0).string(); }, "f.json: /a/0: expected a string, got 1"},
      {[&] { root.at("a").item(1).at("b/c~").is("y"); },
       "f.json: /a/1/b~1c~0: expected \"y\", got \"x\""},
      {[&] { root.at("a").boolean(); }, "f.json: /a: expected true or false, got an array"},
      {[&] { root.only({"a"}); }, "f.json: /t: a key that this version does not know"},
  };
  for (const auto& [act, says] : cases) try {
      act();
      FAIL() << says;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadInput);
      EXPECT_STREQ(e.what(), says);
    }
}

}  // namespace
}  // namespace retort::test
