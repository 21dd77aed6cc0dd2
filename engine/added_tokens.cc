#include "engine/added_tokens.h"

#include <algorithm>

#include "engine/unicode.h"
#include "engine/utf8.h"

namespace temper::engine {
namespace {

// Bytes of white space at the end of valid UTF-8.
std::size_t SpaceAtEnd(std::string_view text) {
  std::size_t at = text.size();
  while (at > 0) {
    std::size_t start = at - 1;
    while (start > 0 && (static_cast<std::uint8_t>(text[start]) & 0xC0) == 0x80) --start;
    int length = 0;
    if (!IsWhiteSpace(DecodeUtf8(text.substr(start), &length))) break;
    at = start;
  }
  return text.size() - at;
}

std::size_t SpaceAtStart(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    int length = 0;
    if (!IsWhiteSpace(DecodeUtf8(text.substr(at), &length))) break;
    at += static_cast<std::size_t>(length);
  }
  return at;
}

bool WordAtEnd(std::string_view text) {
  if (text.empty()) return false;
  std::size_t start = text.size() - 1;
  while (start > 0 && (static_cast<std::uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  int length = 0;
  return IsWordCharacter(DecodeUtf8(text.substr(start), &length));
}

bool WordAtStart(std::string_view text) {
  int length = 0;
  return !text.empty() && IsWordCharacter(DecodeUtf8(text, &length));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  roots_.fill(-1);
  for (std::size_t t = 0; t < tokens_.size(); ++t) {
    std::int32_t node = -1;
    for (const char c : tokens_[t].content) {
      const auto byte = static_cast<std::uint8_t>(c);
      std::int32_t child = node < 0 ? roots_[byte] : Child(node, byte);
      if (child < 0) {
        child = static_cast<std::int32_t>(nodes_.size());
        nodes_.emplace_back();
        if (node < 0) {
          roots_[byte] = child;
        } else {
          nodes_[node].children.emplace_back(byte, child);
        }
      }
      node = child;
    }
    nodes_[node].token = static_cast<std::int32_t>(t);
  }
}

std::int32_t AddedTokenFinder::Child(std::int32_t node, std::uint8_t byte) const {
  for (const auto& [b, child] : nodes_[node].children) {
    if (b == byte) return child;
  }
  return -1;
}

std::int32_t AddedTokenFinder::Longest(std::string_view text) const {
  std::int32_t node = roots_[static_cast<std::uint8_t>(text[0])];
  std::int32_t best = -1;
  for (std::size_t i = 1; node >= 0; ++i) {
    if (nodes_[node].token >= 0) best = nodes_[node].token;
    if (i >= text.size()) break;
    node = Child(node, static_cast<std::uint8_t>(text[i]));
  }
  return best;
}

void AddedTokenFinder::Cut(std::string_view text,
                           const std::function<void(std::string_view, std::int32_t)>& give) const {
  std::size_t done = 0;  // given up to here
  for (std::size_t at = 0; at < text.size();) {
    const std::int32_t found = Longest(text.substr(at));
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[found];
    std::size_t begin = at;
    at += token.content.size();
    std::size_t end = at;
    if (token.single_word && (WordAtEnd(text.substr(0, begin)) || WordAtStart(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin -= SpaceAtEnd(text.substr(0, begin));
    if (token.rstrip) end += SpaceAtStart(text.substr(end));
    begin = std::max(begin, done);
    if (end <= done) continue;
    if (begin > done) give(text.substr(done, begin - done), -1);
    give(text.substr(begin, end - begin), token.id);
    done = end;
  }
  if (done < text.size()) give(text.substr(done), -1);
}

}  // namespace temper::engine
