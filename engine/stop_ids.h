#pragma once
// The ids that end a sample: config.json's eos_token_id and the tokenizer's EOS.
#include <cstdint>
#include <vector>

#include "engine/model_config.h"
#include "engine/tokenizer.h"

namespace temper::engine {

/// Ascending, each once; empty when neither names one.
std::vector<std::int32_t> StopIds(const ModelConfig& config, const Tokenizer& tokenizer);

}  // namespace temper::engine
