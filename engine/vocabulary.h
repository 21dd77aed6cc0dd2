#pragma once
// The tokens of a vocabulary by their text.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "configs/json.h"

namespace temper::engine {

class Vocabulary {
 public:
  /// Reads {"token": id, ...}. Throws UserError "<where>: ..." for empty tokens, ids twice or past
  /// `max_id`.
  Vocabulary(const Json& json, std::int64_t max_id, const std::string& where);

  /// Id of a token; -1: none.
  std::int32_t Find(std::string_view token) const;
  /// How many tokens there are.
  std::int32_t count() const { return count_; }
  /// One more than the largest id.
  std::int32_t size() const { return static_cast<std::int32_t>(by_id_.size()); }
  /// Text of a token; empty for ids without one.
  std::string_view Text(std::int32_t id) const;

 private:
  struct Entry {
    std::uint32_t hash;
    std::int32_t id;  // -1: free
  };
  struct Place {
    std::uint32_t begin = 0, size = 0;  // in text_
  };
  std::uint64_t Hash(std::string_view token) const;

  std::uint64_t seed_;  // drawn for each table: no file can be made whose tokens all collide
  std::string text_;    // of all tokens
  std::vector<Place> by_id_;
  std::int32_t count_ = 0;
  std::vector<Entry> entries_;  // open addressing, a power of two
};

}  // namespace temper::engine
