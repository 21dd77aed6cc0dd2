#include "engine/speculation.h"

#include <algorithm>

namespace temper::engine {

namespace {

constexpr double kPrior = 0.7, kPriorDrafts = 32;
constexpr double kMemory = 2048;  // drafts remembered at full weight
// Multiply-adds that two CPU threads do while one byte comes from memory: 70 G/s against 24 GB/s.
constexpr double kFmaPerByte = 3;
constexpr double kMargin = 1.03;
constexpr double kCacheBytes = 32 << 20;  // smaller models never wait for memory

double AttentionWeights(const ModelConfig& c) {
  const double h = c.hidden_size;
  const double q = double(c.heads) * c.qk_dim();
  const double queries = c.q_lora_rank == 0 ? h * q : c.q_lora_rank * (h + q);
  return queries + h * c.latent_dim() +
         double(c.heads) * c.kv_lora_rank * (c.qk_nope_dim + c.v_dim) + h * c.heads * c.v_dim;
}

}  // namespace

double WeightsPerToken(const ModelConfig& c) {
  const double h = c.hidden_size, moe = c.moe_layers();
  return c.num_layers * AttentionWeights(c) + (c.num_layers - moe) * 3 * h * c.intermediate_size +
         moe * ((c.top_k + c.shared_experts) * 3 * h * c.moe_intermediate_size + h * c.experts) +
         h * c.vocab_size;
}

double AttentionPerToken(const ModelConfig& c, double keys) {
  return c.num_layers * double(c.heads) * (c.latent_dim() + c.kv_lora_rank) * keys;
}

SpeculationRule::SpeculationRule(const ModelConfig& c, double bytes_per_weight)
    : bytes_(bytes_per_weight), counts_(std::size_t(std::max(1, c.mtp_layers))) {
  const double h = c.hidden_size;
  moe_layers_ = c.moe_layers();
  experts_ = std::max(1, c.experts);
  top_k_ = c.top_k;
  expert_ = 3 * h * c.moe_intermediate_size;
  head_ = h * c.vocab_size;
  const double moe_dense = c.shared_experts * expert_ + h * c.experts;
  dense_ = c.num_layers * AttentionWeights(c) +
           (c.num_layers - moe_layers_) * 3 * h * c.intermediate_size + moe_layers_ * moe_dense;
  draft_dense_ = AttentionWeights(c) + moe_dense + 2 * h * h;
}

double SpeculationRule::Cost(double rows) const { return Time(rows, dense_ + head_, moe_layers_); }

double SpeculationRule::DraftCost(double rows) const { return Time(rows, draft_dense_ + head_, 1); }

double SpeculationRule::Time(double rows, double dense, double moe_layers) const {
  double missed = 1;
  for (int i = 0; i < int(rows + 0.5); ++i) missed *= 1 - top_k_ / experts_;
  const double read = bytes_ * (dense + moe_layers * experts_ * (1 - missed) * expert_);
  return std::max(read, rows * (dense + moe_layers * top_k_ * expert_) / kFmaPerByte);
}

double SpeculationRule::acceptance(int depth) const {
  const Counts& c = counts_[std::size_t(depth)];
  return (kPrior * kPriorDrafts + c.accepted) / (kPriorDrafts + c.drafted);
}

int SpeculationRule::Drafts(int samples) const {
  const double all = bytes_ * (dense_ + head_ + moe_layers_ * experts_ * expert_);
  if (samples < 1 || all < kCacheBytes) return 0;
  int best = 0;
  double tokens = 1, held = 1, least = Cost(samples) / kMargin;  // time of a token
  for (int n = 1; n <= int(counts_.size()); ++n) {
    held *= acceptance(n - 1);
    tokens += held;
    double drafting = Cost((1.0 + n) * samples);
    // All layers follow the tokens; layer j sees j drafts as well.
    for (int j = 0; j < int(counts_.size()); ++j)
      drafting += DraftCost((tokens + std::min(j, n - 1)) * samples);
    if (drafting / tokens >= least) continue;
    least = drafting / tokens;
    best = n;
  }
  return best;
}

void SpeculationRule::Count(int drafted, int accepted, int depth) {
  Counts& c = counts_[std::size_t(depth)];
  c.drafted += drafted;
  c.accepted += accepted;
  if (c.drafted > kMemory) {
    c.accepted *= kMemory / c.drafted;
    c.drafted = kMemory;
  }
}

void SpeculationRule::Reset() { std::fill(counts_.begin(), counts_.end(), Counts{}); }

}  // namespace temper::engine
