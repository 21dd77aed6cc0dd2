#include "learner/rollout_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>

#include "configs/error.h"
#include "learner/core/rollout_arrays.h"

namespace temper::learner {

LossInput RolloutBatch::Input() const {
  LossInput in;
  in.n = n;
  in.t = t;
  in.logp = logp;
  // One optimizer step a batch: the policy at its start is the policy of this forward.
  in.old_logp = old_logp.empty() ? logp : old_logp;
  in.rollout_logp = rollout_logp;
  in.ref_logp = ref_logp;
  in.mask = mask;
  return in;
}

namespace {

/// DAPO (arXiv 2503.14476) eq. 13: 0 up to max_length - buffer, then down to -1 at max_length.
double OverlongPenalty(const configs::Grpo& config, double length) {
  if (!config.soft_overlong) return 0;
  const double most = (*config.soft_overlong)["max_length"].get<double>(),
               buffer = (*config.soft_overlong)["buffer"].get<double>();
  return -std::clamp((length - (most - buffer)) / buffer, 0.0, 1.0);
}

}  // namespace

RolloutBatch MakeBatch(const configs::Grpo& config, const std::vector<ScoredGroup>& groups,
                       const ExpertShape& replayed) {
  RolloutBatch batch;
  for (const ScoredGroup& group : groups) {
    if (int(group.samples.size()) != config.num_generations) {
      throw std::logic_error("batch: g" + std::to_string(group.grp) + " has " +
                             std::to_string(group.samples.size()) + " samples");
    }
    for (const store::RolloutRow& row : group.samples) {
      batch.group.push_back(&group);
      batch.row.push_back(&row);
      batch.t = std::max(batch.t, int(row.ids.size()));
    }
  }
  batch.n = int(batch.row.size());
  const std::size_t cells = std::size_t(batch.n) * batch.t;
  batch.mask.assign(cells, 0.0f);
  batch.rollout_logp.assign(cells, 0.0f);
  batch.logp.assign(cells, 0.0f);
  batch.entropy.assign(cells, 0.0f);
  for (int i = 0; i < batch.n; ++i) {
    const store::RolloutRow& row = *batch.row[i];
    const bool live = batch.Live(i);
    batch.rewards.push_back(live && row.score
                                ? *row.score + OverlongPenalty(config, double(row.ids.size()))
                                : std::numeric_limits<double>::quiet_NaN());
    if (!live) continue;
    const std::size_t at = std::size_t(i) * batch.t;
    if (row.logp.size() != row.ids.size() ||
        (!row.loss_mask.empty() && row.loss_mask.size() != row.ids.size())) {
      throw std::logic_error("batch: " + row.Name() + " has arrays of different lengths");
    }
    const bool masked = config.mask_truncated_completions && row.finish_reason == "length";
    for (std::size_t j = 0; j < row.ids.size(); ++j) {
      batch.mask[at + j] = !masked && (row.loss_mask.empty() || row.loss_mask[j]) ? 1.0f : 0.0f;
      batch.rollout_logp[at + j] = row.logp[j];
    }
    if (replayed.moe_layers > 0) {
      const std::string why =
          WhyNotExperts(row.experts, batch.group[i]->prompt_ids.size() + row.ids.size(), replayed);
      if (!why.empty()) throw UserError(row.Name() + ": " + why);
      batch.experts.resize(std::size_t(batch.n));
      batch.experts[std::size_t(i)] = row.experts;
    }
    if (!config.truncates()) continue;
    batch.kept.resize(std::size_t(batch.n));
    batch.kept[std::size_t(i)] = UnpackKept(row.kept);
    if (batch.kept[std::size_t(i)].size() != row.ids.size())
      throw UserError(row.Name() + ": the ids it was sampled from were not recorded");
  }
  return batch;
}

RolloutBatch Slice(const RolloutBatch& batch, int first, int count) {
  RolloutBatch part;
  part.n = count;
  part.t = batch.t;
  const auto cut = [&](const auto& from, auto* to, std::int64_t width) {
    if (from.empty()) return;
    to->assign(from.begin() + first * width, from.begin() + (first + count) * width);
  };
  cut(batch.group, &part.group, 1);
  cut(batch.row, &part.row, 1);
  cut(batch.rewards, &part.rewards, 1);
  cut(batch.advantages, &part.advantages, 1);
  for (auto member : {&RolloutBatch::mask, &RolloutBatch::rollout_logp, &RolloutBatch::logp,
                      &RolloutBatch::ref_logp, &RolloutBatch::entropy, &RolloutBatch::old_logp})
    cut(batch.*member, &(part.*member), batch.t);
  cut(batch.kept, &part.kept, 1);
  cut(batch.experts, &part.experts, 1);
  return part;
}

namespace {

/// The rank of each row: its middle token's part of all tokens, prompts counted once a group.
std::vector<int> Deal(const RolloutBatch& batch, const std::vector<int>& rows, int ranks) {
  std::vector<std::int64_t> tokens;
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const bool shares = k > 0 && batch.group[rows[k - 1]] == batch.group[rows[k]];
    tokens.push_back(batch.length(rows[k]) +
                     (shares ? 0 : std::int64_t(batch.group[rows[k]]->prompt_ids.size())));
  }
  const std::int64_t total = std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0});
  std::vector<int> dealt;
  std::int64_t before = 0;
  for (const std::int64_t own : tokens) {
    dealt.push_back(int((2 * before + own) * ranks / (2 * total)));
    before += own;
  }
  return dealt;
}

}  // namespace

std::vector<RowPack> PackRows(const RolloutBatch& batch, const std::vector<int>& rows, int tokens,
                              int ranks) {
  const std::vector<int> dealt = Deal(batch, rows, ranks);
  std::vector<RowPack> packs;
  int prompt = 0;  // the newest pack's newest prompt
  // A row's experts, of its prompt or of what follows it.
  const auto experts = [&](int i, bool of_prompt) {
    if (batch.experts.empty()) return std::span<const std::uint16_t>();
    const std::span<const std::uint16_t> all = batch.experts[std::size_t(i)];
    const std::size_t prompt = batch.group[i]->prompt_ids.size(),
                      own = all.size() / (prompt + std::size_t(batch.length(i)) - 1) * prompt;
    return of_prompt ? all.first(own) : all.subspan(own);
  };
  // Samples of one group may have run on different weights: then their prompts chose other experts.
  const auto same_experts = [&](int a, int b) {
    return std::ranges::equal(experts(a, true), experts(b, true));
  };
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const int i = rows[k];
    const std::vector<std::int32_t>& prompt_ids = batch.group[i]->prompt_ids;
    const std::span<const std::int32_t> ids = batch.row[i]->ids;
    const int length = batch.length(i);
    bool shares = !packs.empty() && batch.group[packs.back().rows.back()] == batch.group[i] &&
                  same_experts(packs.back().rows.back(), i);
    const int wanted = length - 1 + (shares ? 0 : int(prompt_ids.size()));
    if (packs.empty() || packs.back().pack->tokens() + wanted > tokens ||
        packs.back().rank != dealt[k]) {
      packs.emplace_back();
      packs.back().rank = dealt[k];
      if (shares) packs.back().repeated = int(prompt_ids.size());
      shares = false;
    }
    RowPack& pack = packs.back();
    const auto add = [&](std::span<const std::uint16_t> ids) {
      pack.pack->experts.insert(pack.pack->experts.end(), ids.begin(), ids.end());
    };
    if (!shares) add(experts(i, true));
    add(experts(i, false));
    if (!shares) prompt = pack.pack->Add(prompt_ids);
    pack.targets.row.push_back(pack.pack->start[prompt + 1] - 1);
    for (int j = 0; j + 1 < length; ++j) pack.targets.row.push_back(pack.pack->tokens() + j);
    pack.targets.target.insert(pack.targets.target.end(), ids.begin(), ids.end());
    pack.pack->AddBranch(prompt, ids.first(std::size_t(length - 1)));
    pack.rows.push_back(i);
  }
  return packs;
}

std::int64_t Lag(const RolloutBatch& batch, int i, std::uint32_t version) {
  const std::vector<std::uint32_t>& versions = batch.row[i]->versions;
  const std::uint32_t oldest = versions.empty()
                                   ? batch.row[i]->version
                                   : *std::min_element(versions.begin(), versions.end());
  return std::int64_t(version) - std::int64_t(oldest);
}

namespace {

struct Mean {
  double sum = 0, count = 0;
  void Add(double x) {
    sum += x;
    ++count;
  }
  double Value() const { return count == 0 ? 0 : sum / count; }
};

void AddMismatch(const RolloutBatch& batch, std::uint32_t version, Json* out) {
  Mean k1, k3, difference, error, entropy;
  double worst = 0;
  for (int i = 0; i < batch.n; ++i) {
    if (!batch.Live(i) || (!batch.measured.empty() && !batch.measured[i])) continue;
    for (int j = 0; j < batch.length(i); ++j) {
      const std::size_t at = std::size_t(i) * batch.t + j;
      if (batch.mask[at] != 0) entropy.Add(batch.entropy[at]);
      if (batch.Version(i, j) != version || std::isnan(batch.rollout_logp[at])) continue;
      const double d = double(batch.logp[at]) - double(batch.rollout_logp[at]);
      k1.Add(-d);
      k3.Add(std::exp(d) - 1 - d);
      difference.Add(std::abs(d));
      error.Add(std::exp(std::abs(d)));
      worst = std::max(worst, std::abs(d));
    }
  }
  (*out)["entropy"] = entropy.Value();
  if (difference.count == 0) return;  // every rollout is of an older version: nothing to compare
  (*out)["mismatch/k1"] = k1.Value();
  (*out)["mismatch/k3"] = k3.Value();
  (*out)["mismatch/logp_abs_diff_mean"] = difference.Value();
  (*out)["mismatch/logp_abs_diff_max"] = worst;
  (*out)["mismatch/token_mult_prob_error"] = error.Value();
}

}  // namespace

Json BatchMetrics(const configs::Grpo& config, const std::vector<ScoredGroup>& groups,
                  const RolloutBatch& batch, std::uint32_t version) {
  Json out = RewardMetrics(config, batch.rewards);
  std::map<std::string, Mean> parts;
  for (const ScoredGroup& group : groups) {
    for (const auto& sample : group.parts) {
      for (const store::RewardPart& part : sample) {
        if (part.value) parts[part.name].Add(*part.value);
      }
    }
  }
  for (const auto& [name, mean] : parts) out["rewards/" + name + "/mean"] = mean.Value();

  Mean length, clipped, lag;
  int shortest = 0, longest = 0, dropped = 0;
  std::int64_t oldest = 0;
  for (int i = 0; i < batch.n; ++i) {
    if (!batch.Live(i)) {
      ++dropped;
      continue;
    }
    const int n = batch.length(i);
    shortest = length.count == 0 ? n : std::min(shortest, n);
    longest = std::max(longest, n);
    length.Add(n);
    clipped.Add(batch.row[i]->finish_reason == "length");
    lag.Add(double(Lag(batch, i, version)));
    oldest = std::max(oldest, Lag(batch, i, version));
  }
  out["completions/mean_length"] = length.Value();
  out["completions/min_length"] = shortest;
  out["completions/max_length"] = longest;
  out["completions/clipped_ratio"] = clipped.Value();
  if (dropped > 0) out["completions/dropped"] = dropped;
  out["lag/mean"] = lag.Value();
  out["lag/max"] = oldest;
  AddMismatch(batch, version, &out);
  return out;
}

}  // namespace temper::learner
