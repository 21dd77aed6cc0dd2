#pragma once
// The added tokens of a tokenizer.json: found in raw text before anything else is done with it.
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace temper::engine {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false, lstrip = false, rstrip = false;
  bool single_word = false;  // counts only where no word character is beside it
};

/// Finds the leftmost, then longest token at each place (as Hugging Face's Aho-Corasick matcher).
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);
  /// Gives the parts of `text` in order: tokens with their id, the text between with id -1. lstrip
  /// and rstrip tokens swallow the white space beside them.
  void Cut(std::string_view text,
           const std::function<void(std::string_view, std::int32_t)>& give) const;

 private:
  struct Node {
    std::vector<std::pair<std::uint8_t, std::int32_t>> children;
    std::int32_t token = -1;
  };
  std::int32_t Child(std::int32_t node, std::uint8_t byte) const;
  /// Index of the longest token at the start of `text`; -1: none.
  std::int32_t Longest(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<std::int32_t, 256> roots_;
};

}  // namespace temper::engine
