#include "wire/message.h"

#include <gtest/gtest.h>

#include <random>

namespace temper::wire {
namespace {

Message Sample() {
  Message message;
  message.kind = 21;
  message.header = {{"grp", 41}, {"finish", "stop"}, {"x", 0.1}, {"nothing", nullptr}};
  message.Add(std::vector<std::int32_t>{1, -2, 3});
  message.Add(std::vector<float>{0.5f, -0.25f});
  message.Add(std::vector<std::uint64_t>{~0ull});
  message.Add(std::vector<double>{});
  message.AddText("any bytes \xff");
  return message;
}

/// Bytes of the frames, changed freely by a test.
std::vector<std::string> Raw(const std::vector<Bytes>& frames) {
  std::vector<std::string> raw;
  for (const Bytes& f : frames) {
    raw.emplace_back(reinterpret_cast<const char*>(f.view.data()), f.view.size());
  }
  return raw;
}

std::vector<Bytes> Frames(const std::vector<std::string>& raw) {
  std::vector<Bytes> frames;
  for (const std::string& r : raw) frames.push_back(Bytes::Copy(std::string_view(r)));
  return frames;
}

std::string ErrorOf(const std::vector<std::string>& raw) {
  try {
    Decode(Frames(raw));
  } catch (const ProtocolError& error) {
    return error.what();
  }
  return "";
}

/// Frames with a right checksum around any header and arrays.
std::vector<std::string> Sealed(const std::string& header, const std::vector<std::string>& arrays) {
  Message empty;
  auto raw = Raw(Encode(empty));
  raw[1] = header;
  raw.insert(raw.end(), arrays.begin(), arrays.end());
  const auto n = static_cast<std::uint32_t>(header.size());
  std::memcpy(raw[0].data() + 8, &n, 4);
  std::uint32_t crc = 0xffffffffu;  // bit by bit, independent of configs/crc32c
  std::string covered = raw[0].substr(0, 12) + header;
  for (const auto& a : arrays) covered += a;
  for (const char c : covered) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
  }
  crc = ~crc;
  std::memcpy(raw[0].data() + 12, &crc, 4);
  return raw;
}

TEST(MessageTest, GivesBackWhatWasSent) {
  const Message sent = Sample();
  const auto frames = Encode(sent);
  ASSERT_EQ(frames.size(), 7u);
  EXPECT_EQ(frames[0].view.size(), 16u);
  const Message got = Decode(frames);
  EXPECT_EQ(got.kind, sent.kind);
  EXPECT_EQ(got.header, sent.header);
  const Fields fields(got, "test");
  EXPECT_EQ(fields.Values<std::int32_t>(0), (std::vector<std::int32_t>{1, -2, 3}));
  EXPECT_EQ(fields.Values<float>(1), (std::vector<float>{0.5f, -0.25f}));
  EXPECT_EQ(fields.Values<std::uint64_t>(2), (std::vector<std::uint64_t>{~0ull}));
  EXPECT_TRUE(fields.Values<double>(3).empty());
  EXPECT_EQ(fields.Chars(4), "any bytes \xff");
  EXPECT_EQ(fields.Number("x"), 0.1);
  EXPECT_FALSE(fields.Has("nothing"));
}

TEST(MessageTest, KeepsItsBytesOnTheWire) {
  // The grammar at the head of message.h, byte by byte: other programs may speak it.
  Message message;
  message.kind = 0x0102;
  message.header = {{"a", 1}};
  message.Add(std::vector<std::uint32_t>{0x01020304});
  const auto raw = Raw(Encode(message));
  EXPECT_EQ(raw[0].substr(0, 12), std::string("TMPR\x02\x00\x02\x01\x1c\x00\x00\x00", 12));
  EXPECT_EQ(raw[1], R"({"a":1,"arrays":[["u32",1]]})");
  EXPECT_EQ(raw[2], std::string("\x04\x03\x02\x01", 4));
}

TEST(MessageTest, RefusesEveryTruncation) {
  const auto raw = Raw(Encode(Sample()));
  for (std::size_t f = 0; f < raw.size(); ++f) {
    for (std::size_t cut = 0; cut < raw[f].size(); ++cut) {
      auto changed = raw;
      changed[f].resize(cut);
      EXPECT_NE(ErrorOf(changed), "") << "frame " << f << " cut to " << cut;
    }
    auto missing = raw;
    missing.erase(missing.begin() + static_cast<std::ptrdiff_t>(f));
    EXPECT_NE(ErrorOf(missing), "") << "without frame " << f;
    EXPECT_NE(ErrorOf({raw.begin(), raw.begin() + static_cast<std::ptrdiff_t>(f)}), "");
  }
  auto longer = raw;
  longer.push_back("");
  EXPECT_NE(ErrorOf(longer), "");
}

TEST(MessageTest, DetectsEveryFlippedBit) {
  const auto raw = Raw(Encode(Sample()));
  int flips = 0;
  for (std::size_t f = 0; f < raw.size(); ++f) {
    for (std::size_t bit = 0; bit < raw[f].size() * 8; ++bit, ++flips) {
      auto changed = raw;
      changed[f][bit / 8] = static_cast<char>(changed[f][bit / 8] ^ 1 << bit % 8);
      EXPECT_NE(ErrorOf(changed), "") << "frame " << f << " bit " << bit;
    }
  }
  EXPECT_GT(flips, 1000);
}

TEST(MessageTest, RefusesHugeDeclaredLengthsWithoutAllocating) {
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[["f32",1000000000000000]]})", {"1234"})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[["u64",2305843009213693952]]})", {""})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[["f32",4611686018427387905]]})", {"1234"})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[["f32",18446744073709551616]]})", {""})), "");
  auto raw = Raw(Encode(Sample()));
  const std::uint32_t huge = 0xffffffffu;
  std::memcpy(raw[0].data() + 8, &huge, 4);
  EXPECT_NE(ErrorOf(raw).find("4294967295 declared"), std::string::npos) << ErrorOf(raw);
}

TEST(MessageTest, SaysWhatIsWrongWithAHeader) {
  EXPECT_EQ(ErrorOf(Sealed("{}", {})), "");
  EXPECT_EQ(ErrorOf(Sealed(R"({"arrays":[["f32",1]]})", {"1234"})), "");
  EXPECT_NE(ErrorOf(Sealed("[]", {})), "");
  EXPECT_NE(ErrorOf(Sealed("{", {})), "");
  EXPECT_NE(ErrorOf(Sealed("", {})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":7})", {})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[7]})", {"1234"})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[["f32",-1]]})", {"1234"})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[["f32",1.0]]})", {"1234"})), "");
  EXPECT_NE(ErrorOf(Sealed(R"({"arrays":[["f16",2]]})", {"1234"})), "");
  EXPECT_EQ(ErrorOf(Sealed(R"({"arrays":[["f32",2]]})", {"1234"})),
            "wire array 0: 2 f32 declared, but 4 bytes follow");
  EXPECT_EQ(ErrorOf(Sealed("{}", {"1234"})),
            "wire message: 0 arrays declared, but 1 frames follow");
}

TEST(MessageTest, RefusesAHeaderOverItsLimitOnBothSides) {
  EXPECT_NE(ErrorOf(Sealed("{\"a\":\"" + std::string(kMaxHeaderBytes, 'a') + "\"}", {})), "");
  Message message;
  message.header["a"] = std::string(kMaxHeaderBytes, 'a');
  EXPECT_THROW(Encode(message), std::logic_error);
  message.header = Json::object();
  message.AddText(std::string(kMaxFrameBytes + 1, 'a'));
  EXPECT_THROW(Encode(message), std::logic_error);
}

TEST(MessageTest, RefusesNestingThatWouldEndTheStack) {
  std::string deep = "{\"a\":";
  for (int i = 0; i < 30000; ++i) deep += '[';
  EXPECT_NE(ErrorOf(Sealed(deep, {})), "");
}

TEST(MessageTest, FieldsAreChecked) {
  Message message = Sample();
  message.header = {{"big", 1e300}, {"n", -1}, {"f", 1.5}, {"s", "x"}, {"b", true}};
  const Fields fields(message, "test");
  EXPECT_THROW(fields.Int("absent", 0, 9), ProtocolError);
  EXPECT_THROW(fields.Int("n", 0, 9), ProtocolError);
  EXPECT_THROW(fields.Int("f", 0, 9), ProtocolError);
  EXPECT_THROW(fields.Int("big", 0, 9), ProtocolError);
  EXPECT_THROW(fields.Text("b"), ProtocolError);
  EXPECT_THROW(fields.Bool("s"), ProtocolError);
  EXPECT_THROW(fields.Number("s"), ProtocolError);
  EXPECT_THROW(fields.Values<float>(0), ProtocolError);
  EXPECT_THROW(fields.Values<float>(9), ProtocolError);
  EXPECT_THROW(fields.ExpectArrays(4), ProtocolError);
}

TEST(MessageTest, SurvivesMutatedFrames) {
  std::mt19937_64 random(7);
  const auto raw = Raw(Encode(Sample()));
  int decoded = 0;
  for (int round = 0; round < 60000; ++round) {
    // Half of the rounds reseal the checksum so that the header's reader is reached.
    auto changed = raw;
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      std::string& frame = changed[random() % changed.size()];
      const auto at = frame.empty() ? 0 : random() % frame.size();
      switch (random() % 4) {
        case 0:
          if (!frame.empty()) frame[at] = static_cast<char>(random());
          break;
        case 1:
          frame.insert(at, 1, "{}[]\",:019ae-."[random() % 14]);
          break;
        case 2:
          if (!frame.empty()) frame.erase(at, 1 + random() % 3);
          break;
        default:
          changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(random() % changed.size()));
      }
      if (changed.empty()) break;
    }
    if (round % 2 == 0 && changed.size() >= 2) {
      changed = Sealed(changed[1], {changed.begin() + 2, changed.end()});
    }
    decoded += ErrorOf(changed).empty();  // anything but a ProtocolError ends the test program
  }
  EXPECT_GT(decoded, 100);
}

}  // namespace
}  // namespace temper::wire
