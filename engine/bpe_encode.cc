// Encoding by the merges of a vocabulary.
#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "configs/error.h"
#include "engine/bpe.h"
#include "engine/short_texts.h"
#include "engine/utf8.h"

namespace temper::engine {
namespace {

constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();
// Up to here a scan for the best pair is faster than a heap.
constexpr std::size_t kShortPart = 24;
// Longer pieces are cut where no merge can join.
constexpr std::size_t kLongPiece = 64;
// Longer parts are encoded a window after the other: its symbols stay in the first-level cache.
constexpr std::size_t kWindow = 128;

// The ids of a part that this thread encoded before: words come again. 256 KiB a thread.
struct PartIds {
  static constexpr std::size_t kIds = 8;
  std::uint8_t count = 0;
  std::int32_t ids[kIds];
};
using KnownParts = ShortTexts<PartIds>;
constexpr std::size_t kKnownParts = 4096;

}  // namespace

const Bpe::Merge* Bpe::FindMerge(std::int32_t left, std::int32_t right) const {
  const auto pair = static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
  const std::size_t mask = merges_.size() - 1, hash = Hash(pair);
  if (!pairs_[hash % kBits]) return nullptr;
  for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
    if (merges_[at].pair == pair) return &merges_[at];
    if (merges_[at].pair == kNoPair) return nullptr;
  }
}

void Bpe::SetRank(std::vector<Symbol>& symbols, std::int32_t at) const {
  Symbol& s = symbols[at];
  s.rank = kNoRank;
  if (s.next < 0) return;
  if (const Merge* merge = FindMerge(s.id, symbols[s.next].id)) {
    s.rank = merge->rank;
    s.merged = merge->id;
  }
}

// Merges a symbol with the next one and looks the two new pairs up.
bool Bpe::Join(std::vector<Symbol>& symbols, std::int32_t at) const {
  Symbol& s = symbols[at];
  const std::int32_t gone = s.next;
  s.id = s.merged;
  s.next = symbols[gone].next;
  symbols[gone].id = -1;
  symbols[gone].rank = kNoRank;
  if (s.next >= 0) symbols[s.next].previous = at;
  SetRank(symbols, at);
  if (s.previous < 0) return false;
  SetRank(symbols, s.previous);
  return true;
}

void Bpe::MergeShort(std::vector<Symbol>& symbols) const {
  while (true) {
    std::int32_t best = 0;
    for (std::int32_t i = symbols[0].next; i >= 0; i = symbols[i].next) {
      if (symbols[i].rank < symbols[best].rank) best = i;
    }
    if (symbols[best].rank == kNoRank) return;
    Join(symbols, best);
  }
}

void Bpe::MergeLong(std::vector<Symbol>& symbols) const {
  // Rank, then place: of equals the leftmost first.
  const auto entry = [&symbols](std::int32_t at) {
    return std::uint64_t(symbols[at].rank) << 32 | std::uint32_t(at);
  };
  std::vector<std::uint64_t> entries;
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    if (symbols[i].rank != kNoRank) entries.push_back(entry(std::int32_t(i)));
  }
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> queue(
      std::greater<>{}, std::move(entries));
  while (!queue.empty()) {
    const auto rank = std::int32_t(queue.top() >> 32),
               at = std::int32_t(std::uint32_t(queue.top()));
    queue.pop();
    // Stale: the pair has changed since. A rank names its pair, so an equal rank is the same pair.
    if (symbols[at].id < 0 || symbols[at].rank != rank) continue;
    const bool left = Join(symbols, at);
    if (symbols[at].rank != kNoRank) queue.push(entry(at));
    if (left && symbols[symbols[at].previous].rank != kNoRank) {
      queue.push(entry(symbols[at].previous));
    }
  }
}

const std::vector<Bpe::Symbol>& Bpe::Merged(std::string_view part) const {
  thread_local std::vector<Symbol> symbols;
  symbols.resize(part.size());
  const auto count = static_cast<std::int32_t>(part.size());
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(part[i])];
    if (id < 0) {
      std::size_t start = static_cast<std::size_t>(i);
      while (start > 0 && (static_cast<std::uint8_t>(part[start]) & 0xC0) == 0x80) --start;
      const int length = std::max(Utf8Length(part.substr(start)), 1);
      throw UserError("the tokenizer has no token for byte " +
                      std::to_string(static_cast<std::uint8_t>(part[i])) + " of character " +
                      configs::Quote(part.substr(start, static_cast<std::size_t>(length))));
    }
    symbols[i] = {id, i - 1, i + 1 < count ? i + 1 : -1, kNoRank, -1};
  }
  for (std::int32_t i = 0; i < count; ++i) SetRank(symbols, i);
  if (part.size() <= kShortPart) {
    MergeShort(symbols);
  } else {
    MergeLong(symbols);
  }
  return symbols;
}

void Bpe::EncodePart(std::string_view part, std::vector<std::int32_t>* ids) const {
  if (part.size() > 2 * kWindow) return EncodeWindows(part, ids);
  thread_local KnownParts known(kKnownParts);
  KnownParts::Slot* slot = part.size() <= KnownParts::kBytes ? &known.At(owner_, part) : nullptr;
  if (slot && slot->Holds(owner_, part)) {
    ids->insert(ids->end(), slot->value.ids, slot->value.ids + slot->value.count);
    return;
  }
  const std::size_t before = ids->size();
  const std::vector<Symbol>& symbols = Merged(part);
  for (std::int32_t i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
  const std::size_t count = ids->size() - before;
  if (!slot || count > PartIds::kIds) return;
  slot->Keep(owner_, part);
  slot->value.count = static_cast<std::uint8_t>(count);
  std::copy(ids->begin() + static_cast<std::ptrdiff_t>(before), ids->end(), slot->value.ids);
}

// Which tokens a text gets is decided by neighbours alone: a sequence of tokens is the encoding of
// its text exactly if each two that stand beside each other are the encoding of theirs. (The first
// merge across a border would be made in the text of the two alone as well: until then both sides
// have seen the same merges in the same order.) So a window's tokens are right but for those that
// its end cut off, and a later window fits if the two tokens at the border do. Where they don't,
// windows grow until they do: a window that is the whole rest always fits.
void Bpe::EncodeWindows(std::string_view part, std::vector<std::int32_t>* ids) const {
  std::vector<std::size_t> starts;  // of the tokens that are kept
  std::vector<std::pair<std::size_t, std::int32_t>> tokens;
  std::size_t at = 0, window = kWindow;
  while (true) {
    const std::size_t size = std::min(window, part.size() - at);
    const std::vector<Symbol>& symbols = Merged(part.substr(at, size));
    tokens.clear();
    for (std::int32_t i = 0; i >= 0; i = symbols[i].next) {
      tokens.emplace_back(at + static_cast<std::size_t>(i), symbols[i].id);
    }
    const std::size_t end = at + size;
    if (!starts.empty()) {
      const std::size_t second = tokens.size() > 1 ? tokens[1].first : end;
      const std::vector<Symbol>& two = Merged(part.substr(starts.back(), second - starts.back()));
      const std::int32_t border = two[0].next;
      if (border < 0 || two[border].next >= 0 ||
          starts.back() + static_cast<std::size_t>(border) != at) {
        at = starts.back();
        starts.pop_back();
        ids->pop_back();
        window *= 2;
        continue;
      }
    }
    const bool last = end == part.size();
    std::size_t kept = tokens.size();
    while (!last && kept > 0 &&
           (kept == tokens.size() ? end : tokens[kept].first) > at + size / 4 * 3) {
      --kept;
    }
    for (std::size_t i = 0; i < kept; ++i) {
      starts.push_back(tokens[i].first);
      ids->push_back(tokens[i].second);
    }
    if (last) return;
    at = kept == tokens.size() ? end : tokens[kept].first;
    if (kept == 0) window *= 2;
  }
}

void Bpe::Encode(std::string_view piece, std::vector<std::int32_t>* ids) const {
  if (piece.empty()) return;
  if (ignore_merges_) {
    std::string symbols;
    for (const char c : piece) symbols += ByteSymbol(static_cast<std::uint8_t>(c));
    const std::int32_t id = vocabulary_.Find(symbols);
    if (id >= 0) {
      ids->push_back(id);
      return;
    }
  }
  if (piece.size() <= kLongPiece) return EncodePart(piece, ids);
  // Parts that no merge joins are encoded each for itself: short ones stay in the cache.
  std::size_t begin = 0, last = 0;
  for (std::size_t at = static_cast<std::size_t>(std::max(Utf8Length(piece), 1));
       at < piece.size();) {
    const auto length = static_cast<std::size_t>(std::max(Utf8Length(piece.substr(at)), 1));
    if (!MayJoin(piece.substr(last, at - last), piece.substr(at, length))) {
      EncodePart(piece.substr(begin, at - begin), ids);
      begin = at;
    }
    last = at;
    at += length;
  }
  EncodePart(piece.substr(begin), ids);
}

}  // namespace temper::engine
