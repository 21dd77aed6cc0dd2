#include "engine/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>

#include "configs/json.h"
#include "engine/bpe.h"
#include "engine/normalization.h"
#include "engine/pre_tokenizer.h"
#include "engine/tokenizer_stream.h"
#include "engine/utf8.h"
#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

const std::string kGoldens = TEMPER_SOURCE_DIR "/tests/engine/goldens";
const std::string kBytes = TEMPER_SOURCE_DIR "/configs/tokenizers/bytes";

Json SmallJson() { return configs::ReadJsonFile(kGoldens + "/tokenizer/tokenizer.json"); }

// A folder with this tokenizer.json, read at once.
Tokenizer Load(const Json& json, const std::string& config = "{}") {
  const TempDir dir;
  dir.Write("tokenizer.json", json.dump());
  dir.Write("tokenizer_config.json", config);
  return Tokenizer(dir.path());
}

TEST(Tokenizer, IdsAreHuggingFacesForEveryPreTokenizer) {
  const Json golden = configs::ReadJsonFile(kGoldens + "/tokens.json");
  for (const auto& [name, variant] : golden.at("variants").items()) {
    Json json = SmallJson();
    json.update(variant.at("change"));
    json["model"]["ignore_merges"] = name == "ignore_merges";
    Json& merges = json["model"]["merges"];
    if (name == "pairs") {
      for (Json& merge : merges) {
        const std::string text = merge;
        const std::size_t space = text.find(' ');
        merge = Json::array({text.substr(0, space), text.substr(space + 1)});
      }
    } else if (name == "ignore_merges") {
      merges.get_ref<Json::array_t&>().resize(40);
    }
    const Tokenizer tokenizer = Load(json);
    for (const Json& c : variant.at("cases")) {
      const std::string text = c.at("text");
      const auto want = c.at("ids").get<std::vector<std::int32_t>>();
      EXPECT_EQ(tokenizer.Encode(text), want) << name << ": " << text;
      EXPECT_TRUE(name == "added" || tokenizer.Decode(want, false) == text) << name << ": " << text;
    }
  }
}

TEST(Tokenizer, DecodingIsHuggingFaces) {
  const Json golden = configs::ReadJsonFile(kGoldens + "/tokens.json");
  const Tokenizer tokenizer(kGoldens + "/tokenizer");
  for (const Json& c : golden.at("decode")) {
    EXPECT_EQ(tokenizer.Decode(c.at("ids").get<std::vector<std::int32_t>>(), c.at("skip")),
              c.at("text").get<std::string>())
        << c.at("ids").dump();
  }
}

TEST(Tokenizer, ReadsItsConfig) {
  const Tokenizer t(kGoldens + "/tokenizer");
  EXPECT_TRUE(t.add_bos());
  EXPECT_EQ(t.bos_id(), 0);
  EXPECT_EQ(t.eos_id(), 1);
  EXPECT_EQ(t.pad_id(), -1);
  EXPECT_EQ(t.size(), 700);
  EXPECT_TRUE(t.IsSpecial(1));
  EXPECT_FALSE(t.IsSpecial(3));
  EXPECT_FALSE(t.IsSpecial(-1));
  EXPECT_FALSE(t.IsSpecial(700));
  EXPECT_EQ(t.EncodePrompt("!"), (std::vector<std::int32_t>{0, 3}));
  EXPECT_EQ(t.Encode("!"), std::vector<std::int32_t>{3});
  EXPECT_EQ(t.TokenBytes(0), "");
  EXPECT_EQ(t.TokenBytes(3), "!");
  const Tokenizer bare = Load(SmallJson());
  EXPECT_FALSE(bare.add_bos());
  EXPECT_EQ(bare.bos_id(), -1);
  EXPECT_EQ(bare.EncodePrompt(""), std::vector<std::int32_t>{});
}

TEST(Tokenizer, TheBytesTokenizerGivesEveryByteItsId) {
  const Tokenizer t(kBytes);
  EXPECT_EQ(t.size(), 259);
  EXPECT_TRUE(t.add_bos());
  EXPECT_EQ(t.bos_id(), 0);
  EXPECT_EQ(t.eos_id(), 1);
  EXPECT_EQ(t.pad_id(), 2);
  for (int b = 0; b < 256; ++b) {
    EXPECT_EQ(t.TokenBytes(3 + b), std::string(1, static_cast<char>(b)));
  }
  const std::string text = "1 + 1 = 2\n\xC3\xA9\xF0\x9F\x98\x80";
  std::vector<std::int32_t> want;
  for (const char c : text) want.push_back(3 + static_cast<unsigned char>(c));
  EXPECT_EQ(t.Encode(text), want);
  EXPECT_EQ(t.Decode(want, true), text);
  want.insert(want.begin(), 0);
  want.push_back(1);
  EXPECT_EQ(t.Decode(want, true), text);
  EXPECT_EQ(t.Encode("<\xEF\xBD\x9C"
                     "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>x"),
            (std::vector<std::int32_t>{1, 3 + 'x'}));
}

TEST(Tokenizer, TextThatIsNotUtf8IsRefused) {
  const Tokenizer t(kBytes);
  for (const char* bad :
       {"a\x80", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE4\xBD", "\xFF"}) {
    EXPECT_NE(Refusal([&] { t.Encode(bad); }).find("is not valid UTF-8"), std::string::npos);
  }
  EXPECT_EQ(Refusal([&] { t.Encode("abcdefgh\xC3\x28"); }),
            "text to tokenize: byte 8 is not valid UTF-8");
}

TEST(Tokenizer, ACharacterWithoutATokenIsNamed) {
  Json json = configs::ReadJsonFile(kBytes + "/tokenizer.json");
  json["model"]["vocab"].erase(ByteSymbol(0xA9));
  const Tokenizer t = Load(json);
  EXPECT_EQ(t.Encode("ab").size(), 2u);
  EXPECT_EQ(Refusal([&] { t.Encode("x\xC3\xA9"); }),
            "the tokenizer has no token for byte 169 of character \"\xC3\xA9\"");
}

// Writes JSON text at a place of a good tokenizer.json and says how the file is then refused.
std::string RefusedWith(const std::string& at, const std::string& value) {
  Json json = SmallJson();
  json[Json::json_pointer(at)] = Json::parse(value);
  const std::string what = Refusal([&] { Load(json); });
  const std::size_t file = what.find("tokenizer.json: ");
  return file == what.npos ? what : what.substr(file + 16);
}

struct Case {
  const char* at;
  const char* value;
  const char* want;
};

TEST(Tokenizer, PartsItCannotDoExactlyAreRefusedByName) {
  const Case cases[] = {
      {"/normalizer", R"({"type": "NFKC"})",
       "normalizer: \"NFKC\" is not supported: NFC, NFD, Replace, Prepend, Strip and Sequence are"},
      {"/decoder", "null", "decoder: only ByteLevel is supported"},
      {"/decoder", R"({"type": "Metaspace"})", "decoder: only ByteLevel is supported"},
      {"/pre_tokenizer", "null", "pre_tokenizer is missing: ByteLevel is needed"},
      {"/pre_tokenizer", R"({"type": "Metaspace"})",
       "pre_tokenizer: \"Metaspace\" is not supported"},
      {"/pre_tokenizer", R"({"type": "Digits"})",
       "pre_tokenizer: only byte-level tokenizers are supported"},
      {"/pre_tokenizer", R"({"type": "ByteLevel"})",
       "pre_tokenizer: add_prefix_space true is not supported"},
      {"/pre_tokenizer", R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": "no"})",
       "pre_tokenizer: use_regex: \"no\" must be true or false"},
      {"/pre_tokenizer/pretokenizers/0", R"({"type": "ByteLevel", "add_prefix_space": false})",
       "pre_tokenizer[1]: Split after ByteLevel is not supported"},
      {"/pre_tokenizer/pretokenizers/0/behavior", R"("Removed")",
       "pre_tokenizer[0]: only Split with behavior Isolated, not inverted, is supported"},
      {"/pre_tokenizer/pretokenizers/0/invert", "true",
       "pre_tokenizer[0]: only Split with behavior Isolated, not inverted, is supported"},
      {"/pre_tokenizer/pretokenizers/0/pattern", R"({"String": "x"})",
       "pre_tokenizer[0]: only Split by {\"Regex\": string} is supported"},
      {"/model/type", R"("Unigram")",
       "model: type \"Unigram\" is not supported: it must be \"BPE\""},
      {"/model/dropout", "0.1", "model: dropout is not supported: it must be null"},
      {"/model/unk_token", R"("<unk>")", "model: unk_token is not supported: it must be null"},
      {"/model/continuing_subword_prefix", R"("##")",
       "model: continuing_subword_prefix is not supported: it must be null"},
      {"/model/byte_fallback", "true", "model: byte_fallback is not supported: it must be false"},
  };
  for (const Case& c : cases) EXPECT_EQ(RefusedWith(c.at, c.value), c.want) << c.at;
}

TEST(Tokenizer, PatternsWithoutAnExactTranslationAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"\\w+", "\\w is not supported"},
      {"^a", "^ is not supported"},
      {"[a[b]]", "a class inside a class is not supported"},
      {"[a&&b]", "a class inside a class is not supported"},
      {"[\\S]", "\\S is not supported"},
      {"[\\P{L}]", "\\P{L} inside a class is not supported"},
      {"[a", "a class without end is not supported"},
      {"[]", "an empty class is not supported"},
      {"\\p{Han}", "\\p{Han} is not supported"},
      {"\\p{Mn}", "\\p{Mn} is not supported"},
      {"\\pL", "\\p without {...} is not supported"},
      {"\\u12", "\\u without four hexadecimal digits is not supported"},
      {"a{2}+", "{...}+ is not supported"},
      {"a{,2}", "{,2} is not supported"},
      {"(?<n>a)", "this kind of group is not supported"},
      {"(?m)a", "this kind of group is not supported"},
      {"a\\", "\\ is not supported"},
      {"(a", "missing closing parenthesis"},
  };
  for (const auto& [pattern, want] : cases) {
    EXPECT_EQ(RefusedWith("/pre_tokenizer/pretokenizers/0/pattern/Regex", Json(pattern).dump()),
              "pre_tokenizer[0]: pattern " + Json(pattern).dump() + ": " + want);
  }
}

TEST(Tokenizer, BrokenVocabulariesMergesAndAddedTokensAreRefusedByName) {
  const std::string bos =
      "<\xEF\xBD\x9C"
      "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>";
  const std::string taken = ": the token or the id already stands for another";
  const std::string twice = "added_tokens[1]: \"" + bos + "\" with id 0" + taken;
  const std::string moved = "added_tokens[0]: \"" + bos + "\" with id 5" + taken;
  const std::string again = R"({"id": 0, "content": ")" + bos + "\"}";
  const Case cases[] = {
      {"/model/vocab", "{}", "model: vocab: must map tokens to ids"},
      {"/model/vocab/!", "4", "model: vocab: id 4 stands twice, the second time for \"\\\"\""},
      {"/model/vocab/!", "-1", "model: vocab: -1 must be an integer in [0, 1048575]"},
      {"/model/vocab/!", "1e30", "model: vocab: 1e+30 must be an integer in [0, 1048575]"},
      {"/model/vocab/!", R"("3")", "model: vocab: \"3\" must be an integer in [0, 1048575]"},
      {"/model/merges", R"("a b")", "model: merges: must be a list"},
      {"/model/merges/0", R"("ab")",
       "model: merges[0]: \"ab\" must be \"LEFT RIGHT\" or [LEFT, RIGHT]"},
      {"/model/merges/0", R"("a b c")",
       "model: merges[0]: \"a b c\" must be \"LEFT RIGHT\" or [LEFT, RIGHT]"},
      {"/model/merges/0", R"(["a", 1])",
       "model: merges[0]: [\"a\",1] must be \"LEFT RIGHT\" or [LEFT, RIGHT]"},
      {"/model/merges/0", R"("qq b")", "model: merges[0]: \"qq\" is not in the vocabulary"},
      {"/model/merges/0", R"("q q")", "model: merges[0]: \"qq\" is not in the vocabulary"},
      {"/added_tokens", "3", "added_tokens: must be a list"},
      {"/added_tokens/0/content", R"("")", "added_tokens[0]: content must be a non-empty string"},
      {"/added_tokens/0/single_word", "1", "added_tokens[0]: single_word: 1 must be true or false"},
      {"/added_tokens/0/id", "5", moved.c_str()},
      {"/added_tokens/0/content", R"("other")",
       "added_tokens[0]: \"other\" with id 0: the token or the id already stands for another"},
      {"/added_tokens/1", again.c_str(), twice.c_str()},
  };
  for (const Case& c : cases) EXPECT_EQ(RefusedWith(c.at, c.value), c.want) << c.at;
}

// Hugging Face's Digits and Split know different versions of Unicode: U+11DE0 is a digit since 17.
TEST(Tokenizer, DigitsKnowsTheNumbersOfUnicode17) {
  Json json = SmallJson();
  const auto pieces = [&](const char* parts) {
    json["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {Json::parse(parts),
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    std::vector<std::string> out;
    PreTokenizer(json["pre_tokenizer"], "p")
        .Cut("a\U00011DE0\U00016FF4\U00011DE9b",
             [&](std::string_view piece) { out.emplace_back(piece); });
    return out;
  };
  EXPECT_EQ(pieces(R"({"type": "Digits", "individual_digits": false})"),
            (std::vector<std::string>{"a", "\U00011DE0\U00016FF4\U00011DE9", "b"}));
  EXPECT_EQ(pieces(R"({"type": "Digits", "individual_digits": true})").size(), 5u);
  EXPECT_EQ(
      pieces(R"({"type": "Split", "pattern": {"Regex": "\\p{N}"}, "behavior": "Isolated"})").size(),
      1u);
}

// Ids from Hugging Face's tokenizers with the same three tokens added.
TEST(Tokenizer, ASingleWordTokenStandsAlone) {
  Json json = SmallJson();
  for (const auto& [id, content] : {std::pair(700, "the"), {701, "<x>"}, {702, "né"}}) {
    json["added_tokens"].push_back(
        {{"id", id}, {"content", content}, {"single_word", true}, {"normalized", false}});
  }
  json["added_tokens"].back()["lstrip"] = json["added_tokens"].back()["rstrip"] = true;
  const Tokenizer tokenizer = Load(json);
  const std::vector<std::pair<std::string, std::vector<std::int32_t>>> cases = {
      {R"(the)", {700}},
      {R"(in the end)", {261, 223, 700, 223, 523}},
      {R"(other theme the)", {347, 414, 270, 79, 71, 223, 700}},
      {R"(_the the_ -the- thethe)", {65, 86, 263, 270, 65, 565, 700, 15, 270, 86, 263}},
      {R"(a<x>b <x> (<x>))", {67, 30, 90, 32, 68, 223, 701, 343, 701, 11}},
      {R"(é the é)", {619, 223, 700, 223, 619}},
      {R"(thé ́the)", {86, 263, 139, 226, 223, 139, 226, 86, 263}},
      {R"(1the the1)", {19, 86, 263, 270, 19}},
      {R"(né  né ‍né né‍ x)", {702, 702, 300, 238, 80, 619, 313, 619, 300, 238, 223, 90}},
      {R"(‿the the‿ ٣the 漢the the漢)", {300, 126, 86,  263, 270, 300, 126, 223, 152, 99,  86,
                                         263, 223, 165, 123, 98,  86,  263, 270, 165, 123, 98}},
      {R"(athe the)", {268, 263, 223, 700}},
  };
  for (const auto& [text, ids] : cases) EXPECT_EQ(tokenizer.Encode(text), ids) << text;
}

TEST(TextStream, GivesTheDecodedTextCharacterByCharacter) {
  const Tokenizer tokenizer(kBytes);
  const std::string text = "aé漢😀z";
  TextStream stream(tokenizer, true);
  std::vector<std::string> parts;
  for (const std::int32_t id : tokenizer.Encode(text)) {
    std::string part = stream.Add(id);
    if (!part.empty()) parts.push_back(std::move(part));
  }
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "é", "漢", "😀", "z"}));
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStream, AnyTokensGiveTogetherWhatDecodeGives) {
  const Tokenizer tokenizer(kGoldens + "/tokenizer");
  std::uint32_t state = 1;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < round % 40; ++i) {
      state = state * 1664525 + 1013904223;
      // Mostly single bytes, so that characters are broken in every way; some ids unknown.
      ids.push_back(static_cast<std::int32_t>(state >> 16) %
                    (i % 5 == 0 ? tokenizer.size() + 9 : 260));
    }
    const bool skip = round % 2 == 0;
    TextStream stream(tokenizer, skip);
    std::string text;
    for (const std::int32_t id : ids) {
      const std::string part = stream.Add(id);
      ASSERT_EQ(FindInvalidUtf8(part), part.npos);
      text += part;
    }
    ASSERT_EQ(text + stream.Finish(), tokenizer.Decode(ids, skip));
  }
}

TEST(Tokenizer, ATokenThatTheConfigNamesMustExist) {
  const auto refused = [&](const std::string& config) {
    const std::string what = Refusal([&] { Load(SmallJson(), config); });
    return what.substr(std::min(what.find("_config.json: "), what.size()));
  };
  EXPECT_EQ(refused("{\"bos_token\": \"<s>\"}"),
            "_config.json: bos_token \"<s>\" is not in tokenizer.json");
  EXPECT_EQ(refused("{\"eos_token\": 3}"), "_config.json: eos_token: 3 must name a token");
  EXPECT_EQ(refused("{\"add_bos_token\": true}"),
            "_config.json: add_bos_token is true without bos_token");
  EXPECT_EQ(refused("{\"add_bos_token\": 1}"),
            "_config.json: add_bos_token: 1 must be true or false");
  EXPECT_EQ(refused("{}"), "");
}

TEST(Tokenizer, ARegexBombEndsInAnErrorSoon) {
  Json json = SmallJson();
  json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a+)+$";
  const Tokenizer t = Load(json);
  const auto start = std::chrono::steady_clock::now();
  const std::string what = Refusal([&] { t.Encode(std::string(5000, 'a') + "b"); });
  EXPECT_NE(what.find("gave up on a text of 5001 bytes: match limit exceeded"), std::string::npos)
      << what;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(Tokenizer, LongRunsOfOneCharacterStayFast) {
  const Tokenizer t(kGoldens + "/tokenizer");
  const auto start = std::chrono::steady_clock::now();
  for (const char c : {' ', 'a', '\n', '1', '<', '-'}) {
    const std::string text(1 << 20, c);
    EXPECT_EQ(t.Decode(t.Encode(text), false), text);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(Utf8, RepairsAsRustDoes) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(LossyUtf8("a\x80z"), "a" + r + "z");
  EXPECT_EQ(LossyUtf8("\xE4\xBD"), r);  // a cut character is one
  EXPECT_EQ(LossyUtf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(LossyUtf8("\xED\xA0\x80"), r + r + r);  // a surrogate is three
  EXPECT_EQ(LossyUtf8("\xC0\x80"), r + r);
  EXPECT_EQ(LossyUtf8("\xF4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(LossyUtf8("\xE4\xC3\xA9"), r + "\xC3\xA9");
  EXPECT_EQ(LossyUtf8(""), "");
}

TEST(Utf8, EncodesAndDecodesEveryCharacter) {
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    int length = 0;
    ASSERT_EQ(DecodeUtf8(text, &length), c);
    ASSERT_EQ(static_cast<std::size_t>(length), text.size());
    ASSERT_EQ(Utf8Length(text), length);
    ASSERT_EQ(FindInvalidUtf8(text), std::string::npos);
  }
}

}  // namespace
}  // namespace temper::engine
