#include "configs/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "configs/error.h"

namespace temper::configs {
namespace {

std::string Refusal(std::string_view text, const JsonLimits& limits = {}) {
  try {
    ParseJson(text, "f", limits);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Json, ReadsEveryKindOfValueAndKeepsTheOrderOfKeys) {
  const Json j = ParseJson(
      R"( {"z": null, "a": [true, false, -1, 18446744073709551615, 1.5e3], "m": {"k": "é\u0041\n"}} )",
      "f");
  EXPECT_EQ(j.dump(),
            R"({"z":null,"a":[true,false,-1,18446744073709551615,1500.0],"m":{"k":"éA\n"}})");
  EXPECT_EQ(ParseJson("3", "f"), 3);
  EXPECT_EQ(ParseJson("{}", "f"), Json::object());
  EXPECT_EQ(ParseJson("[[],{}]", "f").dump(), "[[],{}]");
}

TEST(Json, RefusesBrokenTextAndSaysWhere) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"",
       "f:1:1: syntax error while parsing value - unexpected end of input; expected "
       "'[', '{', or a literal"},
      {"\xEF\xBB\xBF{}",
       "f:1:1: starts with a byte-order mark: JSON has none; save it as plain UTF-8"},
      {"{\"a\": 1}\n x", "f:2:2: syntax error while parsing value - invalid literal"},
      {"{} {}", "f:1:4: syntax error while parsing value - unexpected '{'; expected end of input"},
      {"{\"a\":1,}",
       "f:1:8: syntax error while parsing object key - unexpected '}'; expected "
       "string literal"},
      {std::string("{}\0{", 4), "f:1:3: a NUL byte"},
      {std::string("[\"a\0\"]", 6), "f:1:4: a NUL byte"},
      {"{\"a\": 1, \"b\": {\"c\": 1, \"\\u0063\": 2}}", "f:1:31: duplicate key \"c\""},
      {"{\"\": 1, \"\": 2}", "f:1:10: duplicate key \"\""},
      {"NaN", "f:1:1: syntax error while parsing value - invalid literal"},
      {"[1, Infinity]", "f:1:5: syntax error while parsing value - invalid literal"},
      {"-Infinity",
       "f:1:2: syntax error while parsing value - invalid number; expected digit "
       "after '-'"},
      {"1e999", "f:1:5: a number is too large for a double"},
      {"01",
       "f:1:2: syntax error while parsing value - unexpected number literal; expected end "
       "of input"},
      {"\"\xC3\x28\"",
       "f:1:3: syntax error while parsing value - invalid string: ill-formed UTF-8 "
       "byte"},
      {"\"\xED\xA0\x80\"",
       "f:1:3: syntax error while parsing value - invalid string: ill-formed "
       "UTF-8 byte"},
      {"\"\\ud800\"",
       "f:1:8: syntax error while parsing value - invalid string: surrogate "
       "U+D800..U+DBFF must be followed by U+DC00..U+DFFF"},
      {"\"a\nb\"",
       "f:1:3: syntax error while parsing value - invalid string: control character "
       "U+000A (LF) must be escaped to \\u000A or \\n"},
      {"[1 /* no */]", "f:1:4: syntax error while parsing array - invalid literal"},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(Refusal(text), want) << text;
}

TEST(Json, HoldsItsLimits) {
  JsonLimits limits;
  limits.max_depth = 3;
  EXPECT_EQ(Refusal("[[[1]]]", limits), "");
  EXPECT_EQ(Refusal("[{\"a\":[[1]]}]", limits), "f:1:8: nested deeper than 3 levels");
  limits = {};
  limits.max_values = 4;
  EXPECT_EQ(Refusal("[1,2,3]", limits), "");
  EXPECT_EQ(Refusal("{\"a\":1,\"b\":2}", limits), "f:1:11: more than 4 values");
  limits = {};
  limits.max_bytes = 2;
  EXPECT_EQ(Refusal("{}", limits), "");
  EXPECT_EQ(Refusal("{} ", limits), "f:1:1: 3 bytes of JSON: at most 2 are read");
}

TEST(Json, StopsAtABombOfBracketsWithoutRecursing) {
  const std::string bomb(1'000'000, '[');
  EXPECT_EQ(Refusal(bomb), "f:1:65: nested deeper than 64 levels");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(Refusal(objects).find("nested deeper than 64 levels"), std::string::npos);
}

TEST(Json, ReadsAnObjectOfManyKeysInLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i)
    text += "\"k" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  const Json j = ParseJson(text + "\"last\":0}", "f");
  EXPECT_EQ(j.size(), 300'001u);
  EXPECT_EQ(std::prev(j.end()).key(), "last");
  EXPECT_NE(Refusal(text + "\"k5\":0}").find("duplicate key \"k5\""), std::string::npos);
}

TEST(Json, LongTextInAnErrorIsCutToOneLine) {
  const std::string error = Refusal("[\"" + std::string(100'000, 'x') + "\n");
  EXPECT_LT(error.size(), 250u);
  EXPECT_EQ(error.find('\n'), std::string::npos);
  EXPECT_EQ(Quote("a\n\"\x80"), "\"a\\n\\\"\xEF\xBF\xBD\"");
  EXPECT_LT(Quote(std::string(1'000'000, 'x')).size(), 150u);
}

std::string IntRefusal(const std::string& text, std::int64_t lo, std::int64_t hi) {
  try {
    GetInt(ParseJson(text, "f"), "f: n", lo, hi);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Json, IntegersAreCheckedNotConverted) {
  EXPECT_EQ(GetInt(ParseJson("5", "f"), "f: n", 0, 5), 5);
  EXPECT_EQ(GetInt(ParseJson("-5", "f"), "f: n", -5, 5), -5);
  EXPECT_EQ(GetInt(ParseJson("9223372036854775807", "f"), "f: n", 0,
                   std::numeric_limits<std::int64_t>::max()),
            std::numeric_limits<std::int64_t>::max());
  for (const char* bad : {"6", "-1", "1.0", "1e0", "\"1\"", "true", "null", "[1]",
                          "9223372036854775808", "18446744073709551616", "-9223372036854775809"}) {
    EXPECT_NE(IntRefusal(bad, 0, 5).find(" must be an integer in [0, 5]"), std::string::npos)
        << bad;
  }
  EXPECT_EQ(IntRefusal("1.5", 0, 5), "f: n: 1.5 must be an integer in [0, 5]");
  EXPECT_NE(IntRefusal("18446744073709551615", -9, -1), "");
}

TEST(Json, NumbersAreFiniteAndInRange) {
  EXPECT_EQ(GetNumber(Json(2), "n", 0, 2), 2.0);
  for (const Json& bad : {Json(2.5), Json(-1), Json("1"), Json(nullptr), Json(std::nan("")),
                          Json(std::numeric_limits<double>::infinity())}) {
    EXPECT_THROW(GetNumber(bad, "n", 0, 2), UserError) << bad.dump();
  }
}

TEST(Json, FilesThatAreNoFilesAreRefused) {
  EXPECT_THROW(ReadJsonFile("/nonexistent/x.json"), UserError);
  EXPECT_THROW(ReadJsonFile("/tmp"), UserError);
  EXPECT_THROW(ReadJsonFile("/dev/zero"), UserError);
  EXPECT_THROW(ReadJsonFile(std::string("/tmp\0x", 6)), UserError);
}

}  // namespace
}  // namespace temper::configs
