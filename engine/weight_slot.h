#pragma once
// What a tensor's name sets in the packed weights.
#include <functional>

#include "engine/weights.h"

namespace temper::engine {

/// Matrices [rows, k] that the mode keeps in FP8 take codes, all others values; rows come in
/// ascending runs.
struct Weights::Slot {
  int rows = 0, k = 0;
  bool set = false;
  bool whole = false;  // all rows at once
  std::function<void(Weights&, int first, int rows, const float*)> put;
  std::function<void(Weights&, int first, int rows, const std::uint16_t*)>
      put_bf16;  // null: by put
  /// Where the mode keeps FP8; scales of the blocks of these rows.
  std::function<void(Weights&, int first, int rows, const std::uint8_t*, const float*)> put_codes;
  std::size_t count() const { return std::size_t(rows) * k; }
};

}  // namespace temper::engine
