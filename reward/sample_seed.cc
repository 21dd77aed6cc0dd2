#include "reward/sample_seed.h"

#include <string_view>

namespace temper::reward {
namespace {

std::uint64_t Fnv1a(std::uint64_t hash, std::string_view text) {
  for (const char byte : text) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3u;
  }
  return hash;
}

}  // namespace

std::uint64_t SeedOf(std::span<const SampleInput> samples) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const SampleInput& sample : samples) {
    hash = Fnv1a(Fnv1a(hash, sample.prompt_json), sample.completion);
  }
  return hash;
}

}  // namespace temper::reward
