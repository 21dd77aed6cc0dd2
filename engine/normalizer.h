#pragma once
// The normalizer part of tokenizer.json: what becomes of text before it is cut.
#include <string>
#include <string_view>
#include <vector>

#include "configs/json.h"

namespace temper::engine {

/// NFC, NFD, Replace, Prepend and Strip, alone or in (nested) Sequences.
class Normalizer {
 public:
  /// `json` null: nothing is done. Throws UserError "<where>: ..." naming the unsupported part.
  Normalizer(const Json* json, const std::string& where);
  ~Normalizer();
  Normalizer(Normalizer&&) noexcept;

  bool empty() const { return steps_.empty(); }
  /// Valid UTF-8 to valid UTF-8. Throws UserError where it would grow beyond all reason.
  std::string Apply(std::string_view text) const;

 private:
  struct Step;
  void Add(const Json& json, const std::string& where);
  void AddReplace(const Json& json, const std::string& where);

  std::string where_;
  std::vector<Step> steps_;
};

}  // namespace temper::engine
