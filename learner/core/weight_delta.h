#pragma once
// What changed from one published set to the next.
#include <cstdint>
#include <memory>
#include <vector>

#include "learner/core/service.h"
#include "wire/protocol.h"

namespace temper::learner {

struct WeightDelta {
  struct Piece {
    wire::DeltaForm form = wire::DeltaForm::kSame;
    std::uint64_t begin = 0, end = 0;  // in bytes
  };
  std::uint32_t base = 0;
  std::vector<Piece> pieces;  // one a tensor, contiguous
  std::vector<std::byte> bytes;
};

/// A tensor travels as a patch where that is at most half as long as its bytes, else whole. Null
/// where the sets have other tensors, or where the whole is no shorter than three quarters of the
/// full set: then the full set is simpler.
std::shared_ptr<const WeightDelta> MakeDelta(const WeightSet& base, const WeightSet& next);

}  // namespace temper::learner
