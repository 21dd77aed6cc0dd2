#pragma once
// SHA-256 of weights, checkpoints and scripts; with the processor's SHA instructions where it has
// them.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace temper::configs {

/// FIPS 180-4, fed in pieces of any size.
class Sha256 {
 public:
  enum class Path { kFastest, kPortable };  // the tests hold one against the other
  explicit Sha256(Path path = Path::kFastest);

  void Add(std::span<const std::byte> data);
  void Add(std::string_view text);
  /// So many blocks of 64 bytes to each, at one and a half times the rate of one after the other.
  static void AddBoth(Sha256* a, const std::byte* from_a, Sha256* b, const std::byte* from_b,
                      std::size_t blocks);
  /// 64 hex digits of everything added; ends the object's use.
  std::string Hex();

 private:
  void Blocks(const std::uint8_t* data, std::size_t count);

  std::array<std::uint32_t, 8> state_;
  std::array<std::uint8_t, 64> tail_;
  std::size_t tail_bytes_ = 0;
  std::uint64_t total_ = 0;  // bytes
  bool hardware_ = false;
};

std::string Sha256Hex(std::span<const std::byte> data);
std::string Sha256Hex(std::string_view text);
/// Of each text, two at a time.
std::vector<std::string> Sha256Hex(std::span<const std::span<const std::byte>> texts);

}  // namespace temper::configs
