#pragma once
// What was computed for short texts before, kept for when they come again.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace temper::engine {

/// A number that no other object of the process has, for the owners of kept values.
inline std::uint64_t NextOwner() {
  static std::atomic<std::uint64_t> made{0};
  return ++made;
}

/// One slot a hash; the newest text of a hash stays. Not for several threads.
template <typename Value>
class ShortTexts {
 public:
  static constexpr std::size_t kBytes = 22;  // of the longest text
  struct Slot {
    std::uint64_t owner = 0;
    std::uint8_t bytes = 0;
    char text[kBytes];
    Value value;

    bool Holds(std::uint64_t for_owner, std::string_view t) const {
      return owner == for_owner && t == std::string_view(text, bytes);
    }
    void Keep(std::uint64_t for_owner, std::string_view t) {
      owner = for_owner;
      bytes = static_cast<std::uint8_t>(t.copy(text, kBytes));
    }
  };

  /// `slots` is a power of two.
  explicit ShortTexts(std::size_t slots) : slots_(slots) {}

  /// The slot of a text of at most kBytes bytes, whatever it holds.
  Slot& At(std::uint64_t owner, std::string_view text) {
    std::uint64_t words[3] = {};
    std::memcpy(words, text.data(), text.size());
    std::uint64_t hash = owner ^ text.size() << 56;
    for (const std::uint64_t word : words) hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return slots_[(hash ^ hash >> 32) & (slots_.size() - 1)];
  }

 private:
  std::vector<Slot> slots_;
};

}  // namespace temper::engine
