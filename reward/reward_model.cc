#include "reward/reward_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>

#include "configs/error.h"
#include "engine/data/row_ids.h"
#include "engine/model_config.h"
#include "engine/row_batch.h"
#include "engine/tokenizer.h"
#include "engine/utf8.h"

namespace temper::reward {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr int kRows = 512;  // tokens a forward

/// Tokens that all sequences begin with; each keeps one of its own.
std::size_t CommonPrefix(const std::vector<Ids>& sequences) {
  std::size_t common = sequences[0].size() - 1;
  for (const Ids& ids : sequences) {
    common = std::min(common, ids.size() - 1);
    const auto end = std::mismatch(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(common),
                                   sequences[0].begin());
    common = static_cast<std::size_t>(end.first - ids.begin());
  }
  return common;
}

}  // namespace

struct RewardModel::State {
  State(const std::string& folder, const std::string& dtype, int threads)
      : dir(folder),
        config(engine::ReadModelConfig(folder, /*scalar_head=*/true)),
        tokenizer(folder),
        weights(engine::Weights::Load(
            folder, config,
            engine::ParseNumerics(dtype, dtype == "fp32" ? "fp32" : "bf16", "pow2"))),
        pool(threads),
        forward(weights, pool) {}

  Ids IdsOf(const SampleInput& sample) const;

  const std::string dir;
  const engine::ModelConfig config;
  const engine::Tokenizer tokenizer;
  const engine::Weights weights;
  kernels::ThreadPool pool;
  engine::Forward forward;
};

Ids RewardModel::State::IdsOf(const SampleInput& sample) const {
  const Json prompt = configs::ParseJson(sample.prompt_json, "the prompt");
  const bool of_ids = prompt.is_array() && !prompt.empty() && prompt[0].is_number_integer();
  Ids ids;
  if (of_ids) {
    ids = prompt.get<Ids>();
    ids.insert(ids.end(), sample.completion_ids.begin(), sample.completion_ids.end());
  } else {
    const Json text = engine::LossyUtf8(sample.completion);
    const Json turn = {{"role", "assistant"}, {"content", text}};
    ids = engine::JudgedIds(prompt, prompt.is_array() ? Json::array({turn}) : text, tokenizer);
  }
  if (ids.empty()) throw UserError("prompt and completion have no token");
  if (static_cast<int>(ids.size()) > config.max_positions) {
    throw UserError("prompt and completion have " + std::to_string(ids.size()) + " tokens; " + dir +
                    " has " + std::to_string(config.max_positions) + " positions");
  }
  for (const std::int32_t id : ids) {
    if (id >= 0 && id < config.vocab_size) continue;
    throw UserError("token " + std::to_string(id) + " is past the vocabulary of " + dir + ", " +
                    std::to_string(config.vocab_size));
  }
  return ids;
}

RewardModel::RewardModel(const std::string& dir, const std::string& dtype, int threads)
    : state_(std::make_unique<State>(dir, dtype, threads)) {}
RewardModel::~RewardModel() = default;

std::vector<float> RewardModel::ScoreIds(const std::vector<Ids>& sequences) {
  State& s = *state_;
  std::vector<float> scores(sequences.size());
  if (sequences.empty()) return scores;
  const std::size_t h = static_cast<std::size_t>(s.config.hidden_size);
  engine::LatentCache cache(s.forward.CacheBytes(s.config.num_layers));
  // The prompt of a group is computed once.
  engine::LatentRows shared(&cache);
  const std::size_t common = CommonPrefix(sequences);
  engine::RowBatch batch;
  std::vector<std::size_t> last;  // rows of the batch that end a sequence
  std::vector<std::size_t> whose;
  std::vector<float> hidden, ends;
  const auto flush = [&] {
    if (batch.size() == 0) return;
    hidden.resize(static_cast<std::size_t>(batch.size()) * h);
    s.forward.Hidden(batch.View(), hidden.data());
    ends.resize(last.size() * h);
    for (std::size_t i = 0; i < last.size(); ++i) {
      std::copy_n(hidden.data() + last[i] * h, h, ends.data() + i * h);
    }
    std::vector<float> values(last.size());
    if (!last.empty()) s.forward.Logits(ends.data(), static_cast<int>(last.size()), values.data());
    for (std::size_t i = 0; i < last.size(); ++i) scores[whose[i]] = values[i];
    batch = {};
    last.clear();
    whose.clear();
  };
  for (std::size_t t = 0; t < common; ++t) {
    batch.Add(shared, sequences[0][t]);
    if (batch.size() == kRows) flush();
  }
  flush();
  std::vector<engine::LatentRows> rows;
  for (std::size_t i = 0; i < sequences.size(); ++i) rows.push_back(shared.Fork());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    for (std::size_t t = common; t < sequences[i].size(); ++t) {
      batch.Add(rows[i], sequences[i][t]);
      if (t + 1 == sequences[i].size()) {
        last.push_back(static_cast<std::size_t>(batch.size()) - 1);
        whose.push_back(i);
      }
      if (batch.size() == kRows) flush();
    }
  }
  flush();
  return scores;
}

std::vector<Outcome> RewardModel::Score(std::span<const SampleInput> samples) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Outcome> outcomes(samples.size());
  std::vector<Ids> sequences;
  std::vector<std::size_t> whose;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    try {
      sequences.push_back(state_->IdsOf(samples[i]));
      whose.push_back(i);
    } catch (const UserError& error) {
      outcomes[i] = Failed(Status::kScriptError, error.what());
    }
  }
  try {
    const std::vector<float> scores = ScoreIds(sequences);
    for (std::size_t k = 0; k < scores.size(); ++k) {
      if (std::isfinite(scores[k])) {
        outcomes[whose[k]].score = scores[k];
      } else {
        outcomes[whose[k]] = Failed(Status::kInvalidReturn, "the model's score is not finite");
      }
    }
  } catch (const std::bad_alloc&) {
    for (const std::size_t i : whose) {
      outcomes[i] = Failed(Status::kMemory, "no memory for the model's cache");
    }
  }
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(
                          std::chrono::steady_clock::now() - begin)
                          .count();
  for (Outcome& outcome : outcomes) {
    outcome.micros = micros / static_cast<std::int64_t>(std::max<std::size_t>(1, samples.size()));
  }
  return outcomes;
}

Outcome RewardModel::Check() {
  Outcome outcome;
  outcome.score = 0.0;  // ok always carries one
  return outcome;
}

}  // namespace temper::reward
