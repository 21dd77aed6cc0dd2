#include "configs/sha256.h"

#include <gtest/gtest.h>

namespace temper::configs {
namespace {

TEST(Sha256Test, GivesThePublishedDigests) {  // FIPS 180-4 examples
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, IsTheSameInAnyPiecesOnAnyProcessor) {
  std::string text;
  for (int i = 0; i < 700; ++i) text.push_back(static_cast<char>(i * 131 + i / 7));
  for (std::size_t n = 0; n <= text.size(); n += 1 + n / 9) {
    Sha256 portable(Sha256::Path::kPortable), pieces;
    portable.Add(std::string_view(text).substr(0, n));
    for (std::size_t at = 0, step = 1; at < n; at += step, step = step % 67 + 1) {
      pieces.Add(std::string_view(text).substr(at, std::min(step, n - at)));
    }
    EXPECT_EQ(portable.Hex(), pieces.Hex()) << n;
  }
}

TEST(Sha256Test, ManyTextsHaveTheirOwnDigests) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text.push_back(static_cast<char>(i * 37 + i / 5));
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  for (const std::vector<std::size_t>& sizes :
       {std::vector<std::size_t>{}, {0}, {64}, {1000, 10, 0, 64, 128, 2999}, {63, 64, 65, 3000}}) {
    std::vector<std::span<const std::byte>> texts;
    for (std::size_t size : sizes) texts.push_back(bytes.subspan(bytes.size() - size));
    const std::vector<std::string> hex = Sha256Hex(texts);
    ASSERT_EQ(hex.size(), sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      Sha256 alone(Sha256::Path::kPortable);
      alone.Add(texts[i]);
      EXPECT_EQ(hex[i], alone.Hex()) << i;
    }
  }
}

}  // namespace
}  // namespace temper::configs
