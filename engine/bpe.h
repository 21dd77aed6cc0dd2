#pragma once
// Byte-level BPE: the model part of tokenizer.json.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "configs/json.h"

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

  /// Id of a token by its text in the file; -1: none.
  std::int32_t Find(const std::string& token) const;
  const std::unordered_map<std::string, std::int32_t>& vocab() const { return vocab_; }

 private:
  struct Merge {
    std::uint64_t pair;  // left << 32 | right; kNoPair: free
    std::int32_t rank, id;
  };
  struct Symbol {
    std::int32_t id, previous, next, rank, merged;  // rank and result of merging with the next
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

  void ReadOptions(const Json& json, const std::string& where);
  void ReadVocab(const Json& json, const std::string& where);
  void ReadMerges(const Json& json, const std::string& where);
  void AddMerge(const std::string& left, const std::string& right, std::int32_t rank,
                const std::string& where);
  void InsertMerge(Merge merge);
  const Merge* FindMerge(std::int32_t left, std::int32_t right) const;
  void SetRank(std::vector<Symbol>& symbols, std::int32_t at) const;
  void MergeShort(std::vector<Symbol>& symbols) const;
  void MergeLong(std::vector<Symbol>& symbols) const;
  bool Join(std::vector<Symbol>& symbols, std::int32_t at) const;
  void EncodePart(std::string_view part, std::vector<std::int32_t>* ids) const;
  void NoteJoint(std::string_view left, std::string_view right);
  bool MayJoin(std::string_view before, std::string_view after) const;

  std::unordered_map<std::string, std::int32_t> vocab_;
  std::array<std::int32_t, 256> byte_ids_;
  std::vector<Merge> merges_;  // open addressing, a power of two
  // Hashes of what merges join at the border of two characters: the end of a left side and the start of a right side. A bit that is
  // not set says for certain that nothing is ever merged across.
  std::vector<bool> joints_, ends_, starts_;
  bool ignore_merges_ = false;
};

}  // namespace temper::engine
