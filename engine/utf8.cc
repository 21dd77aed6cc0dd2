#include "engine/utf8.h"

#include <algorithm>
#include <cstring>

namespace temper::engine {
namespace {

struct Lead {
  int length;            // 0: not a lead byte
  unsigned char lo, hi;  // allowed second bytes
};

Lead LeadOf(unsigned char b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// Bytes of the longest well-formed beginning of a character; `whole` tells whether it is complete.
int Prefix(std::string_view text, bool* whole) {
  const Lead lead = LeadOf(static_cast<unsigned char>(text[0]));
  *whole = false;
  if (lead.length == 0) return 1;
  for (int i = 1; i < lead.length; ++i) {
    if (static_cast<std::size_t>(i) >= text.size()) return i;
    const auto b = static_cast<unsigned char>(text[i]);
    const bool good = i == 1 ? b >= lead.lo && b <= lead.hi : (b & 0xC0) == 0x80;
    if (!good) return i;
  }
  *whole = true;
  return lead.length;
}

}  // namespace

int Utf8Length(std::string_view text) {
  if (text.empty()) return 0;
  bool whole = false;
  const int length = Prefix(text, &whole);
  return whole ? length : 0;
}

std::size_t FindInvalidUtf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    // Eight ASCII bytes at a time: most text is nothing else.
    if (at + 8 <= text.size()) {
      std::uint64_t word;
      std::memcpy(&word, text.data() + at, 8);
      if ((word & 0x8080808080808080u) == 0) {
        at += 8;
        continue;
      }
    }
    const int length = Utf8Length(text.substr(at, 4));
    if (length == 0) return at;
    at += static_cast<std::size_t>(length);
  }
  return text.npos;
}

std::uint32_t DecodeUtf8(std::string_view text, int* length) {
  const auto lead = static_cast<unsigned char>(text[0]);
  *length = LeadOf(lead).length;
  if (*length == 1) return lead;
  std::uint32_t code_point = lead & (0xFFu >> (*length + 1));
  for (int i = 1; i < *length; ++i) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[i]) & 0x3Fu);
  }
  return code_point;
}

void AppendUtf8(std::uint32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  const int tail = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  out->push_back(static_cast<char>((0xFF00u >> (tail + 1) & 0xFFu) | c >> (6 * tail)));
  for (int i = tail - 1; i >= 0; --i) {
    out->push_back(static_cast<char>(0x80u | (c >> (6 * i) & 0x3Fu)));
  }
}

std::string LossyUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const std::size_t good = std::min(FindInvalidUtf8(bytes), bytes.size());
    out.append(bytes.substr(0, good));
    bytes.remove_prefix(good);
    if (bytes.empty()) break;
    bool whole = false;
    bytes.remove_prefix(static_cast<std::size_t>(Prefix(bytes, &whole)));
    out += "\xEF\xBF\xBD";
  }
  return out;
}

std::size_t UnfinishedBytes(std::string_view bytes) {
  for (std::size_t n = 1; n <= 3 && n <= bytes.size(); ++n) {
    const std::string_view tail = bytes.substr(bytes.size() - n);
    const Lead lead = LeadOf(static_cast<unsigned char>(tail[0]));
    if (lead.length == 0) continue;
    bool whole = false;
    const auto good = static_cast<std::size_t>(Prefix(tail, &whole));
    return !whole && good == n && static_cast<std::size_t>(lead.length) > n ? n : 0;
  }
  return 0;
}

bool IsWhiteSpace(std::uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace temper::engine
