#pragma once
// What an engine generated, by group and sample.
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace temper::engine {

using Results = std::map<std::pair<std::uint64_t, std::uint32_t>, FinishedSample>;

/// Steps until nothing is left. `done`: what earlier steps gave.
inline Results Finish(Engine& engine, std::vector<FinishedSample> done = {}) {
  while (engine.Step(&done)) {
  }
  Results results;
  for (FinishedSample& s : done) {
    const auto key = std::pair(s.group, s.sample);
    results[key] = std::move(s);
  }
  return results;
}

}  // namespace temper::engine
