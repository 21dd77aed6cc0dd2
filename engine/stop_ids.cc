#include "engine/stop_ids.h"

#include <set>

namespace temper::engine {

std::vector<std::int32_t> StopIds(const ModelConfig& config, const Tokenizer& tokenizer) {
  std::set<std::int32_t> ids(config.eos_ids.begin(), config.eos_ids.end());
  if (tokenizer.eos_id() >= 0) ids.insert(tokenizer.eos_id());
  return {ids.begin(), ids.end()};
}

}  // namespace temper::engine
