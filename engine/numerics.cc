#include "engine/numerics.h"

#include <iterator>

#include "configs/error.h"

namespace temper::engine {

namespace {

constexpr const char* kModes[] = {"fp32", "bf16", "fp8", "fp8-w8a8"};
constexpr const char* kCaches[] = {"fp32", "bf16", "fp8"};
constexpr const char* kScales[] = {"fp32", "pow2"};  // as ScaleRecipe

template <std::size_t N>
int Find(const char* const (&names)[N], const std::string& key, const std::string& value) {
  std::string known;
  for (std::size_t i = 0; i < N; ++i) {
    if (value == names[i]) return int(i);
    known += (i > 0 ? ", " : "") + std::string(names[i]);
  }
  throw UserError(key + ": \"" + value + "\" is none of " + known);
}

}  // namespace

std::string Numerics::id() const {
  return std::string(tensor ? "cuda-1/" : "canon-1/") + kModes[int(mode)] + "/cache-" + kCaches[int(cache)];
}

std::vector<std::string> AllNumericsIds(bool tensor) {
  std::vector<std::string> ids;
  for (int mode = tensor ? 1 : 0; mode < int(std::size(kModes)); ++mode) {
    for (int cache = 0; cache < int(std::size(kCaches)); ++cache)
      ids.push_back(
          Numerics{Mode(mode), kernels::CacheType(cache), kernels::ScaleRecipe::kPow2, tensor}.id());
  }
  return ids;
}

Numerics ParseNumerics(const std::string& dtype, const std::string& cache_dtype,
                       const std::string& fp8_scale) {
  return {Mode(Find(kModes, "dtype", dtype)),
          kernels::CacheType(Find(kCaches, "cache_dtype", cache_dtype)),
          kernels::ScaleRecipe(Find(kScales, "fp8_scale", fp8_scale)), false};
}

Numerics WithArithmetic(Numerics numerics, const std::string& arithmetic) {
  constexpr const char* kArithmetics[] = {"canon-1", "cuda-1"};
  numerics.tensor = Find(kArithmetics, "arithmetic", arithmetic) == 1;
  if (numerics.tensor && numerics.mode == Mode::kFp32) {
    throw UserError("arithmetic: cuda-1 has no dtype fp32; choose bf16, fp8 or fp8-w8a8");
  }
  return numerics;
}

}  // namespace temper::engine
