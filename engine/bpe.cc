#include "engine/bpe.h"

#include <bit>
#include <random>

#include "configs/error.h"
#include "engine/short_texts.h"
#include "engine/utf8.h"

namespace temper::engine {
namespace {

using configs::Brief;
using configs::Quote;

constexpr std::int64_t kMaxId = (1 << 20) - 1;

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

namespace {

const Json& Part(const Json& json, const char* name, const std::string& where) {
  if (!json.contains(name)) throw UserError(where + ": " + name + " is missing");
  return json.at(name);
}

}  // namespace

Bpe::Bpe(const Json& json, const std::string& where)
    : owner_(NextOwner()),
      ignore_merges_(ReadOptions(json, where)),
      vocabulary_(Part(json, "vocab", where), kMaxId, where + ": vocab"),
      multiplier_((std::uint64_t{std::random_device()()} << 32 | std::random_device()()) | 1) {
  bytes_.resize(static_cast<std::size_t>(vocabulary_.size()));
  for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
    bytes_[static_cast<std::size_t>(id)] = SymbolBytes(vocabulary_.Text(id));
  }
  for (int b = 0; b < 256; ++b) {
    byte_ids_[b] = vocabulary_.Find(ByteSymbol(static_cast<std::uint8_t>(b)));
  }
  ReadMerges(Part(json, "merges", where), where + ": merges");
}

bool Bpe::ReadOptions(const Json& json, const std::string& where) {
  if (!json.is_object()) throw UserError(where + ": model must be an object");
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
  if (!json.contains("ignore_merges")) return false;
  const Json& value = json.at("ignore_merges");
  if (!value.is_boolean()) throw UserError(where + ": ignore_merges must be true or false");
  return value.get<bool>();
}

void Bpe::ReadMerges(const Json& json, const std::string& where) {
  if (!json.is_array()) throw UserError(where + ": must be a list");
  if (json.size() > static_cast<std::size_t>(kMaxId)) {
    throw UserError(where + ": " + std::to_string(json.size()) + " merges: at most " +
                    std::to_string(kMaxId));
  }
  merges_.assign(std::bit_ceil(json.size() * 2 + 2), Merge{kNoPair, 0, 0});
  for (std::vector<bool>* bits : {&pairs_, &joints_, &ends_, &starts_}) bits->assign(kBits, false);
  std::int32_t rank = 0;
  for (const Json& merge : json) {
    std::string_view left, right;
    if (merge.is_string()) {
      const std::string_view text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != text.npos && text.find(' ', space + 1) == text.npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    if (left.empty() || right.empty()) {
      throw UserError(where + "[" + std::to_string(rank) + "]: " + Brief(merge) +
                      " must be \"LEFT RIGHT\" or [LEFT, RIGHT]");
    }
    AddMerge(left, right, rank, where);
    ++rank;
  }
}

void Bpe::AddMerge(std::string_view left, std::string_view right, std::int32_t rank,
                   const std::string& where) {
  std::int32_t ids[3];
  const std::string both = std::string(left).append(right);
  const std::string_view tokens[] = {left, right, both};
  for (int i = 0; i < 3; ++i) {
    ids[i] = vocabulary_.Find(tokens[i]);
    if (ids[i] < 0) {
      throw UserError(where + "[" + std::to_string(rank) + "]: " + Quote(tokens[i]) +
                      " is not in the vocabulary");
    }
  }
  const auto pair = static_cast<std::uint64_t>(ids[0]) << 32 | static_cast<std::uint64_t>(ids[1]);
  InsertMerge({pair, rank, ids[2]});
  NoteJoint(bytes_[static_cast<std::size_t>(ids[0])], bytes_[static_cast<std::size_t>(ids[1])]);
}

void Bpe::NoteJoint(std::string_view left, std::string_view right) {
  const std::string_view end = LastCharacter(left), start = FirstCharacter(right);
  if (end.empty() || start.empty()) return;
  const std::uint64_t a = PackBytes(end), b = PackBytes(start);
  ends_[Hash(a) % kBits] = true;
  starts_[Hash(b) % kBits] = true;
  joints_[Hash(a << 32 | b) % kBits] = true;
}

// Whether some merge may cross the border of two characters. A left side ends with the whole
// character before it or with its last bytes alone, a right side starts likewise.
bool Bpe::MayJoin(std::string_view before, std::string_view after) const {
  std::uint64_t starts[4];
  int count = 0;
  for (std::size_t n = 1; n <= after.size(); ++n) {
    const std::uint64_t b = PackBytes(after.substr(0, n));
    if (starts_[Hash(b) % kBits]) starts[count++] = b;
  }
  for (std::size_t from = 0; count > 0 && from < before.size(); ++from) {
    const std::uint64_t a = PackBytes(before.substr(from));
    if (!ends_[Hash(a) % kBits]) continue;
    for (int i = 0; i < count; ++i) {
      if (joints_[Hash(a << 32 | starts[i]) % kBits]) return true;
    }
  }
  return false;
}

// A pair that stands twice takes the later rank, as Hugging Face's map does.
void Bpe::InsertMerge(Merge merge) {
  pairs_[Hash(merge.pair) % kBits] = true;
  const std::size_t mask = merges_.size() - 1;
  std::size_t at = Hash(merge.pair) & mask;
  while (merges_[at].pair != kNoPair && merges_[at].pair != merge.pair) at = (at + 1) & mask;
  merges_[at] = merge;
}

}  // namespace temper::engine
