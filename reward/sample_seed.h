#pragma once
// The random numbers that scoring a sample begins with.
#include <cstdint>
#include <span>

#include "reward/sample.h"

namespace temper::reward {

/// The same samples draw the same numbers in any process: FNV-1a of their prompts and completions.
std::uint64_t SeedOf(std::span<const SampleInput> samples);

}  // namespace temper::reward
