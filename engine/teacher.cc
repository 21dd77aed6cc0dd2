#include "engine/teacher.h"

#include <algorithm>
#include <numeric>

#include "configs/error.h"
#include "engine/latent_cache.h"
#include "engine/row_batch.h"
#include "kernels/sampling.h"

namespace temper::engine {

namespace {

constexpr int kChunk = 256;

TopIds Largest(const float* logits, int vocab, int k, float temperature, float lse) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min(k, vocab);
  std::partial_sort(order.begin(), end, order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  TopIds top;
  top.ids.assign(order.begin(), end);
  for (std::int32_t id : top.ids) top.logp.push_back(logits[id] / temperature - lse);
  return top;
}

}  // namespace

Teacher::Teacher(std::shared_ptr<const Weights> weights, int threads)
    : weights_(std::move(weights)), pool_(threads), forward_(*weights_, pool_) {}

std::vector<TopIds> Teacher::Judge(std::span<const std::int32_t> ids, int from, int k, float temperature) {
  const ModelConfig& c = weights_->config();
  if (int(ids.size()) > c.max_positions)
    throw UserError(std::to_string(ids.size()) + " tokens; the teacher has " + std::to_string(c.max_positions) + " positions");
  for (std::int32_t id : ids) {
    if (id < 0 || id >= c.vocab_size)
      throw UserError("token " + std::to_string(id) + " is past the teacher's vocabulary of " + std::to_string(c.vocab_size));
  }
  LatentCache cache(forward_.CacheBytes(c.num_layers));
  LatentRows rows(&cache);
  std::vector<TopIds> tops;
  std::vector<float> hidden, logits, lse;
  // Token t is judged by the row of token t - 1.
  for (std::size_t first = 0; first + 1 < ids.size(); first += kChunk) {
    const int m = int(std::min<std::size_t>(kChunk, ids.size() - 1 - first));
    RowBatch batch;
    for (int i = 0; i < m; ++i) batch.Add(rows, ids[first + std::size_t(i)]);
    hidden.resize(std::size_t(m) * std::size_t(c.hidden_size));
    forward_.Hidden(batch.View(), hidden.data());
    const int skipped = std::clamp(from - 1 - int(first), 0, m), judged = m - skipped;
    if (judged == 0) continue;
    logits.resize(std::size_t(judged) * std::size_t(c.vocab_size));
    lse.resize(std::size_t(judged));
    forward_.Logits(hidden.data() + std::int64_t(skipped) * c.hidden_size, judged, logits.data());
    kernels::LogSumExp(logits.data(), c.vocab_size, judged, c.vocab_size, temperature, lse.data(), pool_);
    const std::size_t at = tops.size();
    tops.resize(at + std::size_t(judged));
    pool_.Run(judged, [&](int i) {
      tops[at + std::size_t(i)] = Largest(logits.data() + std::int64_t(i) * c.vocab_size, c.vocab_size, k, temperature, lse[std::size_t(i)]);
    });
  }
  return tops;
}

}  // namespace temper::engine
