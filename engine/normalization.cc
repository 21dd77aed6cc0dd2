#include "engine/normalization.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/utf8.h"

namespace temper::engine {
namespace {

// Hangul syllables are composed by arithmetic (Unicode 3.12).
constexpr std::uint32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr std::uint32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28;
constexpr std::uint32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

std::uint64_t Key(std::uint32_t first, std::uint32_t second) {
  return std::uint64_t{first} << 32 | second;
}

struct Tables {
  // Second is 0 where a character is one other.
  std::unordered_map<std::uint32_t, std::pair<std::uint32_t, std::uint32_t>> parts;
  std::unordered_map<std::uint64_t, std::uint32_t> composed;
  std::unordered_map<std::uint32_t, std::uint8_t> classes;

  Tables() {
    const CompositionTables& t = UnicodeCompositions();
    for (std::size_t i = 0; i + 2 < t.pairs.size(); i += 3) {
      parts[t.pairs[i]] = {t.pairs[i + 1], t.pairs[i + 2]};
      if (!std::binary_search(t.excluded.begin(), t.excluded.end(), t.pairs[i])) {
        composed[Key(t.pairs[i + 1], t.pairs[i + 2])] = t.pairs[i];
      }
    }
    for (std::size_t i = 0; i + 1 < t.singles.size(); i += 2 + t.singles[i + 1]) {
      for (std::uint32_t j = 0; j < t.singles[i + 1]; ++j) {
        parts[t.singles[i] + j] = {t.singles[i + 2 + j], 0};
      }
    }
    for (std::size_t i = 0; i + 2 < t.classes.size(); i += 3) {
      for (std::uint32_t c = t.classes[i]; c <= t.classes[i + 1]; ++c) {
        classes[c] = static_cast<std::uint8_t>(t.classes[i + 2]);
      }
    }
  }
};

const Tables& Known() {
  static const Tables& tables = *new Tables;
  return tables;
}

std::uint8_t Class(std::uint32_t c) {
  if (c < 0x300) return 0;
  const auto it = Known().classes.find(c);
  return it == Known().classes.end() ? 0 : it->second;
}

void Decompose(std::uint32_t c, std::vector<std::uint32_t>* out) {
  if (c < 0xC0) {
    out->push_back(c);
  } else if (c - kSyllables < kSyllableCount) {
    const std::uint32_t index = c - kSyllables, tail = index % kTailCount;
    out->push_back(kLeads + index / (kVowelCount * kTailCount));
    out->push_back(kVowels + index / kTailCount % kVowelCount);
    if (tail > 0) out->push_back(kTails + tail);
  } else if (const auto it = Known().parts.find(c); it != Known().parts.end()) {
    Decompose(it->second.first, out);
    if (it->second.second != 0) Decompose(it->second.second, out);
  } else {
    out->push_back(c);
  }
}

// Decomposed; each run of marks in the order of their classes.
std::vector<std::uint32_t> Decomposed(std::string_view text) {
  std::vector<std::uint32_t> out;
  out.reserve(text.size());
  while (!text.empty()) {
    int length = 0;
    Decompose(DecodeUtf8(text, &length), &out);
    text.remove_prefix(static_cast<std::size_t>(length));
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (Class(out[i]) == 0) continue;
    std::size_t end = i;
    while (end < out.size() && Class(out[end]) != 0) ++end;
    std::stable_sort(out.begin() + std::ptrdiff_t(i), out.begin() + std::ptrdiff_t(end),
                     [](std::uint32_t a, std::uint32_t b) { return Class(a) < Class(b); });
    i = end;
  }
  return out;
}

/// What two characters compose to; 0: nothing.
std::uint32_t Composed(std::uint32_t first, std::uint32_t second) {
  if (first - kLeads < kLeadCount && second - kVowels < kVowelCount) {
    return kSyllables + ((first - kLeads) * kVowelCount + second - kVowels) * kTailCount;
  }
  const bool open = first - kSyllables < kSyllableCount && (first - kSyllables) % kTailCount == 0;
  if (open && second > kTails && second < kTails + kTailCount) return first + second - kTails;
  const auto it = Known().composed.find(Key(first, second));
  return it == Known().composed.end() ? 0 : it->second;
}

// In place: each mark joins the last starter unless a mark of its class or a higher one is between.
void Compose(std::vector<std::uint32_t>* text) {
  constexpr std::size_t kNone = ~std::size_t{0};
  std::size_t kept = 0, starter = kNone;
  int last = -1;  // class of the last character kept behind the starter; -1: none
  for (const std::uint32_t c : *text) {
    const int k = Class(c);
    if (starter != kNone && last < k) {
      const std::uint32_t joined = Composed((*text)[starter], c);
      if (joined != 0) {
        (*text)[starter] = joined;
        continue;
      }
    }
    if (k == 0) {
      starter = kept;
      last = -1;
    } else {
      last = k;
    }
    (*text)[kept++] = c;
  }
  text->resize(kept);
}

std::string Encode(const std::vector<std::uint32_t>& characters, std::size_t bytes) {
  std::string out;
  out.reserve(bytes);
  for (const std::uint32_t c : characters) AppendUtf8(c, &out);
  return out;
}

// Characters below U+00C0 are never decomposed; those below U+0300 are composed where marks follow,
// which lie above.
bool AllBelow(std::string_view text, std::uint8_t lead) {
  return std::all_of(text.begin(), text.end(),
                     [lead](char c) { return static_cast<std::uint8_t>(c) < lead; });
}

}  // namespace

std::string Nfd(std::string_view text) {
  if (AllBelow(text, 0xC3)) return std::string(text);
  return Encode(Decomposed(text), text.size());
}

std::string Nfc(std::string_view text) {
  if (AllBelow(text, 0xCC)) return std::string(text);
  std::vector<std::uint32_t> characters = Decomposed(text);
  Compose(&characters);
  return Encode(characters, text.size());
}

}  // namespace temper::engine
