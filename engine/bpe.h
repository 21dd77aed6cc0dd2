#pragma once
// Byte-level BPE: the model part of tokenizer.json.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/json.h"
#include "engine/vocabulary.h"

namespace temper::engine {

/// The character that stands for a byte in a byte-level vocabulary (GPT-2's table), and back.
std::string ByteSymbol(std::uint8_t byte);
/// The bytes a token's text stands for; a text with any character outside the table stands for
/// itself.
std::string SymbolBytes(std::string_view token);

class Bpe {
 public:
  /// Throws UserError "<where>: ..." naming what is unsupported or broken: ids twice, merges of
  /// unknown tokens, ...
  Bpe(const Json& json, const std::string& where);

  /// Appends the ids of one piece. Throws UserError naming a character without a token.
  void Encode(std::string_view piece, std::vector<std::int32_t>* ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// The bytes of each token by its id, empty for ids without one; given away once.
  std::vector<std::string> TakeBytes() { return std::move(bytes_); }

 private:
  struct Merge {
    std::uint64_t pair;  // left << 32 | right; kNoPair: free
    std::int32_t rank, id;
  };
  struct Symbol {
    std::int32_t id, previous, next, rank, merged;  // rank and result of merging with the next
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};
  // Bits of each table of hashes: 128 KiB, for the 2^17 merges of a large vocabulary.
  static constexpr std::size_t kBits = std::size_t{1} << 20;

  /// Whether merges are ignored for whole tokens.
  static bool ReadOptions(const Json& json, const std::string& where);
  void ReadMerges(const Json& json, const std::string& where);
  void AddMerge(std::string_view left, std::string_view right, std::int32_t rank,
                const std::string& where);
  void InsertMerge(Merge merge);
  std::size_t Hash(std::uint64_t pair) const {
    pair *= multiplier_;
    return static_cast<std::size_t>(pair ^ pair >> 32);
  }
  const Merge* FindMerge(std::int32_t left, std::int32_t right) const;
  void SetRank(std::vector<Symbol>& symbols, std::int32_t at) const;
  void MergeShort(std::vector<Symbol>& symbols) const;
  void MergeLong(std::vector<Symbol>& symbols) const;
  bool Join(std::vector<Symbol>& symbols, std::int32_t at) const;
  /// The symbols of a part after all merges; the first is the list's head.
  const std::vector<Symbol>& Merged(std::string_view part) const;
  void EncodePart(std::string_view part, std::vector<std::int32_t>* ids) const;
  void EncodeWindows(std::string_view part, std::vector<std::int32_t>* ids) const;
  void NoteJoint(std::string_view left, std::string_view right);
  bool MayJoin(std::string_view before, std::string_view after) const;

  std::uint64_t owner_;  // of what threads keep
  bool ignore_merges_;
  Vocabulary vocabulary_;
  std::vector<std::string> bytes_;
  std::array<std::int32_t, 256> byte_ids_;
  std::uint64_t multiplier_;   // of hashes, drawn: no file can be made whose merges all collide
  std::vector<Merge> merges_;  // open addressing, a power of two
  std::vector<bool> pairs_;  // by hash: most pairs of a text are no merge, and this table fits the
                             // second-level cache
  // Hashes of what merges join at the border of two characters: the end of a left side and the
  // start of a right side. A bit that is not set says for certain that nothing is ever merged
  // across.
  std::vector<bool> joints_, ends_, starts_;
};

}  // namespace temper::engine
