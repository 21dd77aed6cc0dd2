#include "engine/canary.h"

#include <algorithm>
#include <span>
#include <vector>

#include "configs/crc32c.h"
#include "engine/forward.h"

namespace temper::engine {

std::uint32_t Canary(const Weights& weights, int valid_ids, kernels::ThreadPool& pool) {
  const ModelConfig& config = weights.config();
  const int count = std::min(8, config.max_positions);
  const int ids = valid_ids > 0 ? std::min(valid_ids, config.vocab_size) : config.vocab_size;
  Forward forward(weights, pool);
  const auto row = static_cast<std::size_t>(forward.CacheBytes(config.num_layers));
  std::vector<std::byte> cache(row * static_cast<std::size_t>(count));
  std::vector<std::int32_t> tokens, positions;
  std::vector<std::byte*> latent;
  std::vector<const void*> keys;
  std::vector<kernels::AttentionRow> attention;
  for (int t = 0; t < count; ++t) {
    tokens.push_back((t * 7919 + 11) % ids);
    positions.push_back(t);
    latent.push_back(cache.data() + row * static_cast<std::size_t>(t));
    keys.push_back(latent.back());
  }
  for (int t = 0; t < count; ++t) attention.push_back({keys.data(), t + 1});
  std::vector<float> hidden(static_cast<std::size_t>(count) * config.hidden_size);
  forward.Hidden({count, tokens.data(), positions.data(), latent.data(), attention.data()},
                 hidden.data());
  std::vector<float> logits(static_cast<std::size_t>(count) * config.vocab_size);
  forward.Logits(hidden.data(), count, logits.data());
  return configs::Crc32c(std::as_bytes(std::span(logits)));
}

}  // namespace temper::engine
