#include "learner/core/weight_delta.h"

#include <cstring>
#include <span>

#include "wire/patch.h"

namespace temper::learner {

namespace {

/// A look at one place in 4 KiB: in most steps of FP32 weights everything has changed, and no delta
/// is worth its making.
bool MostHasChanged(const WeightSet& base, const WeightSet& next) {
  constexpr std::size_t kStride = 4096, kWidth = 4;
  std::size_t seen = 0, changed = 0;
  for (std::size_t at = 0; at + kWidth <= next.bytes.size(); at += kStride, ++seen)
    changed += std::memcmp(base.bytes.data() + at, next.bytes.data() + at, kWidth) != 0;
  constexpr std::size_t kEnough = 64;  // a small set costs nothing to compare whole
  return seen >= kEnough && changed * 10 > seen * 9;
}

}  // namespace

std::shared_ptr<const WeightDelta> MakeDelta(const WeightSet& base, const WeightSet& next) {
  if (base.tensors.size() != next.tensors.size() || base.bytes.size() != next.bytes.size())
    return nullptr;
  if (MostHasChanged(base, next)) return nullptr;
  const std::size_t most = next.bytes.size() / 4 * 3;
  auto delta = std::make_shared<WeightDelta>();
  delta->base = base.version;
  for (std::size_t i = 0; i < next.tensors.size(); ++i) {
    const WeightSet::Tensor &a = base.tensors[i], &b = next.tensors[i];
    if (a.name != b.name || a.dtype != b.dtype || a.begin != b.begin || a.end != b.end) {
      return nullptr;
    }
    WeightDelta::Piece piece;
    piece.begin = piece.end = delta->bytes.size();
    if (a.sha256 != b.sha256) {
      const std::size_t size = b.end - b.begin;
      const std::size_t width = b.dtype == "F32" ? 4 : b.dtype == "BF16" ? 2 : 1;
      const auto before = std::span(base.bytes).subspan(b.begin, size);
      const auto after = std::span(next.bytes).subspan(b.begin, size);
      const auto patch = wire::MakePatch(before, after, width, size / 2);
      piece.form = patch ? wire::DeltaForm::kPatch : wire::DeltaForm::kFull;
      const auto from = patch ? std::span<const std::byte>(*patch) : after;
      delta->bytes.insert(delta->bytes.end(), from.begin(), from.end());
      piece.end = delta->bytes.size();
      if (piece.end >= most) return nullptr;
    }
    delta->pieces.push_back(piece);
  }
  return delta;
}

}  // namespace temper::learner
