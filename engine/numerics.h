#pragma once
// The numeric mode of a model: what its weights and its cache are rounded to.
#include <string>
#include <vector>

#include "kernels/cache_row.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"

namespace temper::engine {

/// kFp32: nothing is rounded. kBf16: weights, and what every attention and feed-forward block adds to
/// the residual stream, are BF16.
/// kFp8: the same with E4M3 blocks for the attention's and the feed-forward's matrices; kFp8W8a8
/// quantises their inputs too. docs/formats.md has the table.
enum class Mode { kFp32, kBf16, kFp8, kFp8W8a8 };

struct Numerics {
  Mode mode = Mode::kFp32;
  kernels::CacheType cache = kernels::CacheType::kF32;
  kernels::ScaleRecipe scale = kernels::ScaleRecipe::kPow2;  // of weights quantised here
  bool tensor = false;  // arithmetic cuda-1: tensor cores' sums, on a device alone; else canon-1

  bool rounds() const { return mode != Mode::kFp32; }
  bool fp8() const { return mode == Mode::kFp8 || mode == Mode::kFp8W8a8; }
  bool quantizes_inputs() const { return mode == Mode::kFp8W8a8; }
  /// Bytes of most weights: 4, 2 or 1.
  int weight_bytes() const { return mode == Mode::kFp32 ? 4 : mode == Mode::kBf16 ? 2 : 1; }
  /// "canon-1/fp8/cache-bf16", "cuda-1/fp8/cache-bf16".
  std::string id() const;
};

/// The ids of all modes and caches of an arithmetic.
std::vector<std::string> AllNumericsIds(bool tensor = false);

/// From the names of settings: fp32 | bf16 | fp8 | fp8-w8a8, fp32 | bf16 | fp8, pow2 | fp32. Throws
/// UserError naming the setting.
Numerics ParseNumerics(const std::string& dtype, const std::string& cache_dtype,
                       const std::string& fp8_scale);

/// canon-1 | cuda-1; cuda-1 has no fp32 mode. Throws UserError.
Numerics WithArithmetic(Numerics numerics, const std::string& arithmetic);

}  // namespace temper::engine
