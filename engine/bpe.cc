#include "engine/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>
#include <utility>

#include "configs/error.h"
#include "engine/utf8.h"

namespace temper::engine {
namespace {

using configs::Brief;
using configs::Quote;

constexpr std::int64_t kMaxId = (1 << 20) - 1;
constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();
// Up to here a scan for the best pair is faster than a heap.
constexpr std::size_t kShortPiece = 24;

// GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up.
std::array<std::uint32_t, 256> MakeByteTable() {
  std::array<std::uint32_t, 256> table{};
  std::uint32_t next = 256;
  for (std::uint32_t b = 0; b < 256; ++b) {
    const bool self = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    table[b] = self ? b : next++;
  }
  return table;
}
const std::array<std::uint32_t, 256> kByteTable = MakeByteTable();

std::array<std::int16_t, 324> MakeSymbolTable() {
  std::array<std::int16_t, 324> table;
  table.fill(-1);
  for (int b = 0; b < 256; ++b) table[kByteTable[b]] = static_cast<std::int16_t>(b);
  return table;
}
const std::array<std::int16_t, 324> kSymbolTable = MakeSymbolTable();

// Bits of the table of joints: 128 KiB, for the 2^17 merges of a large vocabulary.
constexpr std::size_t kJoints = std::size_t{1} << 20;
// Longer pieces are cut where no merge can join.
constexpr std::size_t kLongPiece = 64;

bool IsContinuation(char c) { return (static_cast<std::uint8_t>(c) & 0xC0) == 0x80; }

// Up to four bytes as a number.
std::uint32_t PackBytes(std::string_view bytes) {
  std::uint32_t packed = 0;
  for (const char c : bytes) packed = packed << 8 | static_cast<std::uint8_t>(c);
  return packed;
}

// The last character of a token's bytes, or all of it where it is the end of a character; empty
// where it can't end one.
std::string_view LastCharacter(std::string_view bytes) {
  std::size_t start = bytes.size() - 1;
  while (start > 0 && IsContinuation(bytes[start])) --start;
  const std::string_view last = bytes.substr(start);
  if (last.size() > 4) return {};
  if (IsContinuation(last[0])) return last;
  return static_cast<std::size_t>(Utf8Length(last)) == last.size() ? last : std::string_view();
}

// The first character, or all of it where it is the start of one.
std::string_view FirstCharacter(std::string_view bytes) {
  if (IsContinuation(bytes[0])) return {};
  std::size_t end = 1;
  while (end < bytes.size() && end < 4 && IsContinuation(bytes[end])) ++end;
  return bytes.substr(0, end);
}

std::size_t Hash(std::uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15u;
  return static_cast<std::size_t>(pair ^ pair >> 32);
}

}  // namespace

std::string ByteSymbol(std::uint8_t byte) {
  std::string out;
  AppendUtf8(kByteTable[byte], &out);
  return out;
}

std::string SymbolBytes(std::string_view token) {
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    int length = 0;
    const std::uint32_t c = DecodeUtf8(rest, &length);
    if (c >= kSymbolTable.size() || kSymbolTable[c] < 0) return std::string(token);
    bytes.push_back(static_cast<char>(kSymbolTable[c]));
    rest.remove_prefix(static_cast<std::size_t>(length));
  }
  return bytes;
}

Bpe::Bpe(const Json& json, const std::string& where) {
  if (!json.is_object()) throw UserError(where + ": model must be an object");
  ReadOptions(json, where);
  if (!json.contains("vocab")) throw UserError(where + ": vocab is missing");
  ReadVocab(json.at("vocab"), where + ": vocab");
  if (!json.contains("merges")) throw UserError(where + ": merges is missing");
  ReadMerges(json.at("merges"), where + ": merges");
}

void Bpe::ReadOptions(const Json& json, const std::string& where) {
  // Old files leave the type out.
  if (json.contains("type") && json.at("type") != "BPE") {
    throw UserError(where + ": type " + Brief(json.at("type")) +
                    " is not supported: it must be \"BPE\"");
  }
  for (const char* name : {"dropout", "unk_token"}) {
    if (json.contains(name) && !json.at(name).is_null()) {
      throw UserError(where + ": " + name + " is not supported: it must be null");
    }
  }
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (json.contains(name) && !json.at(name).is_null() && json.at(name) != "") {
      throw UserError(where + ": " + name + " is not supported: it must be null");
    }
  }
  if (json.contains("byte_fallback") && json.at("byte_fallback") != false) {
    throw UserError(where + ": byte_fallback is not supported: it must be false");
  }
  if (json.contains("ignore_merges")) {
    const Json& value = json.at("ignore_merges");
    if (!value.is_boolean()) throw UserError(where + ": ignore_merges must be true or false");
    ignore_merges_ = value.get<bool>();
  }
}

void Bpe::ReadVocab(const Json& json, const std::string& where) {
  if (!json.is_object() || json.empty()) {
    throw UserError(where + ": must map tokens to ids");
  }
  std::vector<bool> taken;
  vocab_.reserve(json.size());
  for (const auto& [token, value] : json.items()) {
    const auto id = static_cast<std::size_t>(configs::GetInt(value, where, 0, kMaxId));
    if (token.empty()) throw UserError(where + ": an empty token");
    if (id >= taken.size()) taken.resize(std::max(id + 1, taken.size() * 2));
    if (taken[id]) {
      throw UserError(where + ": id " + std::to_string(id) + " stands twice, the second time for " +
                      Quote(token));
    }
    taken[id] = true;
    vocab_.emplace(token, static_cast<std::int32_t>(id));
  }
  for (int b = 0; b < 256; ++b) byte_ids_[b] = Find(ByteSymbol(static_cast<std::uint8_t>(b)));
}

void Bpe::ReadMerges(const Json& json, const std::string& where) {
  if (!json.is_array()) throw UserError(where + ": must be a list");
  if (json.size() > static_cast<std::size_t>(kMaxId)) {
    throw UserError(where + ": " + std::to_string(json.size()) + " merges: at most " +
                    std::to_string(kMaxId));
  }
  merges_.assign(std::bit_ceil(json.size() * 2 + 2), Merge{kNoPair, 0, 0});
  for (std::vector<bool>* bits : {&joints_, &ends_, &starts_}) bits->assign(kJoints, false);
  std::int32_t rank = 0;
  for (const Json& merge : json) {
    std::string left, right;
    if (merge.is_string()) {
      const std::string& text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != text.npos && text.find(' ', space + 1) == text.npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    if (left.empty() || right.empty()) {
      throw UserError(where + "[" + std::to_string(rank) + "]: " + Brief(merge) +
                      " must be \"LEFT RIGHT\" or [LEFT, RIGHT]");
    }
    AddMerge(left, right, rank, where);
    ++rank;
  }
}

void Bpe::AddMerge(const std::string& left, const std::string& right, std::int32_t rank,
                   const std::string& where) {
  std::int32_t ids[3];
  int i = 0;
  for (const std::string& token : {left, right, left + right}) {
    ids[i] = Find(token);
    if (ids[i++] < 0) {
      throw UserError(where + "[" + std::to_string(rank) + "]: " + Quote(token) +
                      " is not in the vocabulary");
    }
  }
  const auto pair = static_cast<std::uint64_t>(ids[0]) << 32 | static_cast<std::uint64_t>(ids[1]);
  InsertMerge({pair, rank, ids[2]});
  NoteJoint(SymbolBytes(left), SymbolBytes(right));
}

void Bpe::NoteJoint(std::string_view left, std::string_view right) {
  const std::string_view end = LastCharacter(left), start = FirstCharacter(right);
  if (end.empty() || start.empty()) return;
  const std::uint64_t a = PackBytes(end), b = PackBytes(start);
  ends_[Hash(a) % kJoints] = true;
  starts_[Hash(b) % kJoints] = true;
  joints_[Hash(a << 32 | b) % kJoints] = true;
}

// Whether some merge may cross the border of two characters. A left side ends with the whole
// character before it or with its last bytes alone, a right side starts likewise.
bool Bpe::MayJoin(std::string_view before, std::string_view after) const {
  std::uint64_t starts[4];
  int count = 0;
  for (std::size_t n = 1; n <= after.size(); ++n) {
    const std::uint64_t b = PackBytes(after.substr(0, n));
    if (starts_[Hash(b) % kJoints]) starts[count++] = b;
  }
  for (std::size_t from = 0; count > 0 && from < before.size(); ++from) {
    const std::uint64_t a = PackBytes(before.substr(from));
    if (!ends_[Hash(a) % kJoints]) continue;
    for (int i = 0; i < count; ++i) {
      if (joints_[Hash(a << 32 | starts[i]) % kJoints]) return true;
    }
  }
  return false;
}

// A pair that stands twice takes the later rank, as Hugging Face's map does.
void Bpe::InsertMerge(Merge merge) {
  const std::size_t mask = merges_.size() - 1;
  std::size_t at = Hash(merge.pair) & mask;
  while (merges_[at].pair != kNoPair && merges_[at].pair != merge.pair) at = (at + 1) & mask;
  merges_[at] = merge;
}

const Bpe::Merge* Bpe::FindMerge(std::int32_t left, std::int32_t right) const {
  const auto pair = static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
  const std::size_t mask = merges_.size() - 1;
  for (std::size_t at = Hash(pair) & mask;; at = (at + 1) & mask) {
    if (merges_[at].pair == pair) return &merges_[at];
    if (merges_[at].pair == kNoPair) return nullptr;
  }
}

std::int32_t Bpe::Find(const std::string& token) const {
  const auto it = vocab_.find(token);
  return it == vocab_.end() ? -1 : it->second;
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
  using Entry = std::pair<std::int32_t, std::int32_t>;  // rank, place: the leftmost of equals first
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    if (symbols[i].rank != kNoRank) {
      entries.emplace_back(symbols[i].rank, static_cast<std::int32_t>(i));
    }
  }
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue(std::greater<>{},
                                                                       std::move(entries));
  while (!queue.empty()) {
    const auto [rank, at] = queue.top();
    queue.pop();
    // Stale: the pair has changed since. A rank names its pair, so an equal rank is the same pair.
    if (symbols[at].id < 0 || symbols[at].rank != rank) continue;
    const bool left = Join(symbols, at);
    if (symbols[at].rank != kNoRank) queue.emplace(symbols[at].rank, at);
    if (left && symbols[symbols[at].previous].rank != kNoRank) {
      queue.emplace(symbols[symbols[at].previous].rank, symbols[at].previous);
    }
  }
}

void Bpe::Encode(std::string_view piece, std::vector<std::int32_t>* ids) const {
  if (piece.empty()) return;
  if (ignore_merges_) {
    std::string symbols;
    for (const char c : piece) symbols += ByteSymbol(static_cast<std::uint8_t>(c));
    const std::int32_t id = Find(symbols);
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

void Bpe::EncodePart(std::string_view piece, std::vector<std::int32_t>* ids) const {
  thread_local std::vector<Symbol> symbols;
  symbols.resize(piece.size());
  const auto count = static_cast<std::int32_t>(piece.size());
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(piece[i])];
    if (id < 0) {
      std::size_t start = static_cast<std::size_t>(i);
      while (start > 0 && (static_cast<std::uint8_t>(piece[start]) & 0xC0) == 0x80) --start;
      const int length = std::max(Utf8Length(piece.substr(start)), 1);
      throw UserError("the tokenizer has no token for byte " +
                      std::to_string(static_cast<std::uint8_t>(piece[i])) + " of character " +
                      Quote(piece.substr(start, static_cast<std::size_t>(length))));
    }
    symbols[i] = {id, i - 1, i + 1 < count ? i + 1 : -1, kNoRank, -1};
  }
  for (std::int32_t i = 0; i < count; ++i) SetRank(symbols, i);
  if (piece.size() <= kShortPiece) {
    MergeShort(symbols);
  } else {
    MergeLong(symbols);
  }
  for (std::int32_t i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace temper::engine
