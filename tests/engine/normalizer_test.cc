#include "engine/normalizer.h"

#include <gtest/gtest.h>

#include "configs/json.h"
#include "engine/normalization.h"
#include "engine/tokenizer.h"
#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

const std::string kGoldens = TEMPER_SOURCE_DIR "/tests/engine/goldens/";

Json SmallJson() { return configs::ReadJsonFile(kGoldens + "tokenizer/tokenizer.json"); }

Tokenizer Load(const Json& json) {
  const TempDir dir;
  dir.Write("tokenizer.json", json.dump());
  return Tokenizer(dir.path());
}

std::string RefusedWith(const std::string& normalizer) {
  const Json json = Json::parse(normalizer);
  return Refusal([&] { Normalizer(&json, "normalizer"); });
}

TEST(Normalizer, IdsAndTextsAreHuggingFaces) {
  const Json golden = configs::ReadJsonFile(kGoldens + "normalizers.json");
  for (const Json& variant : golden.at("variants")) {
    Json json = SmallJson();
    json["normalizer"] = variant.at("normalizer");
    for (const Json& token : golden.at("added")) json["added_tokens"].push_back(token);
    const Tokenizer tokenizer = Load(json);
    for (const Json& c : variant.at("cases")) {
      const auto ids = c.at("ids").get<std::vector<std::int32_t>>();
      EXPECT_EQ(tokenizer.Encode(c.at("text").get<std::string>()), ids)
          << variant.at("name") << c.at("text");
      EXPECT_EQ(tokenizer.Decode(ids, false), c.at("decoded").get<std::string>())
          << variant.at("name") << c.at("text");
    }
  }
}

TEST(Normalizer, NormalFormsAreUnicodes) {
  EXPECT_EQ(Nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(Nfd("\u00e9"), "e\u0301");
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(Nfc("a\u0301\u0323"), "\u1ea1\u0301");
  EXPECT_EQ(Nfd("\ud55c"), "\u1112\u1161\u11ab");
  EXPECT_EQ(Nfc("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(Nfc("\u1112\u0301\u1161"), "\u1112\u0301\u1161");  // a mark between
  EXPECT_EQ(Nfc("\u0301"), "\u0301");
  std::string text;  // stays what it is when it is normalised once more
  for (char32_t c = 0xA0; c < 0x3000; ++c) {
    for (int shift = 12; shift >= 0; shift -= 6) {
      if (c < 0x800 && shift == 12) continue;
      const bool first = shift == (c < 0x800 ? 6 : 12);
      text += static_cast<char>(first ? (c < 0x800 ? 0xC0 : 0xE0) | c >> shift
                                      : 0x80 | (c >> shift & 0x3F));
    }
  }
  EXPECT_NE(Nfc(text), text);
  EXPECT_EQ(Nfc(Nfc(text)), Nfc(text));
  EXPECT_EQ(Nfd(Nfc(text)), Nfd(text));
  EXPECT_EQ(Nfc(Nfd(text)), Nfc(text));
}

TEST(Normalizer, OthersAreRefusedByName) {
  for (const char* name : {"NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Nmt",
                           "Precompiled", "ByteLevel"}) {
    EXPECT_EQ(RefusedWith(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": ")" +
                          std::string(name) + "\"}]}"),
              "normalizer[1]: \"" + std::string(name) +
                  "\" is not supported: NFC, NFD, Replace, Prepend, Strip and Sequence are");
  }
}

TEST(Normalizer, BrokenPartsAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "normalizer: type is missing"},
      {R"("NFC")", "normalizer: type is missing"},
      {R"({"type": 1})", "normalizer: type is missing"},
      {R"({"type": "Sequence"})", "normalizer: normalizers is missing"},
      {R"({"type": "Prepend"})", "normalizer: prepend must be a string"},
      {R"({"type": "Strip", "strip_left": true})", "normalizer: strip_right must be true or false"},
      {R"({"type": "Replace", "content": ""})",
       "normalizer: pattern must be {\"String\": text} or {\"Regex\": text}"},
      {R"({"type": "Replace", "pattern": {"String": "a", "Regex": "b"}, "content": ""})",
       "normalizer: pattern must be {\"String\": text} or {\"Regex\": text}"},
      {R"({"type": "Replace", "pattern": {"String": "a"}})",
       "normalizer: content must be a string"},
      {R"({"type": "Replace", "pattern": {"String": ""}, "content": ""})",
       "normalizer: pattern: an empty String"},
      {R"({"type": "Replace", "pattern": {"Regex": "a*"}, "content": ""})",
       "normalizer: pattern {\"Regex\":\"a*\"} may match nothing: that is not supported"},
      {R"({"type": "Replace", "pattern": {"Regex": "^a"}, "content": ""})",
       "normalizer: pattern \"^a\": ^ is not supported"},
  };
  for (const auto& [json, want] : cases) EXPECT_EQ(RefusedWith(json), want);
  Json long_one = {{"type", "Prepend"}, {"prepend", std::string(513, 'a')}};
  EXPECT_EQ(RefusedWith(long_one.dump()),
            "normalizer: prepend of 513 bytes: at most 512 are supported");
  Json steps = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  for (int i = 0; i < 65; ++i) steps["normalizers"].push_back({{"type", "NFC"}});
  EXPECT_EQ(RefusedWith(steps.dump()), "normalizer[64]: more than 64 steps are not supported");
}

TEST(Normalizer, ATextThatGrowsWithoutEndIsRefused) {
  Json steps = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  const Json twice = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(512, 'a')}};
  for (int i = 0; i < 60; ++i) steps["normalizers"].push_back(twice);
  const Normalizer normalizer(&steps, "normalizer");
  EXPECT_EQ(Refusal([&] { normalizer.Apply("abc"); }),
            "normalizer: makes more than 4144 bytes of a text of 3");
  EXPECT_EQ(normalizer.Apply("bc"), "bc");
}

TEST(Normalizer, AddedTokensThatItMakesOneAreRefused) {
  Json json = SmallJson();
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"].push_back({{"id", 700}, {"content", "\u00e9z"}, {"normalized", true}});
  json["added_tokens"].push_back({{"id", 701}, {"content", "e\u0301z"}, {"normalized", true}});
  const std::string what = Refusal([&] { Load(json); });
  EXPECT_NE(
      what.find("added_tokens[4]: \"e\u0301z\": the normalizer makes it \"\u00e9z\", as another "
                "added token"),
      what.npos)
      << what;
}

// tokenizers would number such a token itself.
TEST(Tokenizer, AddedTokensFollowTheVocabulary) {
  Json json = SmallJson();
  json["added_tokens"].push_back({{"id", 702}, {"content", "zzz"}});
  const std::string what = Refusal([&] { Load(json); });
  EXPECT_NE(what.find("added_tokens[3]: \"zzz\" with id 702: the ids of added tokens must follow "
                      "the vocabulary's one by one: 700"),
            what.npos)
      << what;
}

}  // namespace
}  // namespace temper::engine
