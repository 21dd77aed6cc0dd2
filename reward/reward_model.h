#pragma once
// A reward model: a checkpoint with a scalar head scores prompt and completion in the engine.
#include <memory>
#include <string>
#include <vector>

#include "reward/backend.h"

namespace temper::reward {

/// The layout of transformers' DeepseekV{2,3}ForSequenceClassification with one label: the score is
/// score.weight times the last token's hidden state after the final norm. A prompt of text is
/// joined with the completion (BOS as the tokenizer adds it), a conversation gets the completion as
/// the assistant's turn in the folder's chat template, a prompt of ids takes the completion's ids:
/// what TRL gives a reward model. A score depends on its own text alone, never on its company.
class RewardModel : public Backend {
 public:
  /// dtype: fp32, bf16, fp8, fp8-w8a8. Reads the whole checkpoint. UserError for a folder that is
  /// no reward model's.
  RewardModel(const std::string& dir, const std::string& dtype, int threads);
  ~RewardModel() override;

  /// `script_error` for a text that the tokenizer or the template refuses and one longer than the
  /// model's positions, `memory`, `invalid_return` for a score that is not finite.
  std::vector<Outcome> Score(std::span<const SampleInput> samples) override;
  Outcome Check() override;

  /// Scores of token ids, none empty or longer than the model's positions.
  std::vector<float> ScoreIds(const std::vector<std::vector<std::int32_t>>& sequences);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::reward
