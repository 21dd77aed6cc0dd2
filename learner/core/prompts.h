#pragma once
// The prompts of a run: group g is always the same dataset row.
#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
#include "engine/data/rows.h"
#include "engine/model_config.h"
#include "engine/tokenizer.h"
#include "learner/core/service.h"
#include "reward/task.h"

namespace temper::learner {

/// Group g takes row order(epoch)[g % n] with epoch = g / n; the order is engine::Shuffled(n, seed,
/// epoch), or the file's.
class DatasetPrompts : public PromptSource {
 public:
  /// Reads and tokenises every row of data.train. Throws UserError naming the line: over
  /// data.max_prompt_length, no room for grpo.max_completion_length in the model's positions, an id
  /// past its vocabulary.
  DatasetPrompts(const configs::Config& config, const engine::Tokenizer& tokenizer,
                 const engine::ModelConfig& model);

  store::GroupRow Prompt(std::uint64_t grp) const override;
  std::string Answer(std::uint64_t grp, bool* has) const override;
  std::uint64_t rows() const override { return rows_.size(); }

 private:
  std::size_t RowOf(std::uint64_t grp) const;

  bool shuffle_;
  std::uint64_t seed_;
  std::vector<engine::Row> rows_;
  std::vector<std::vector<std::int32_t>> ids_;
  mutable std::uint64_t epoch_ = 0;  // of order_
  mutable std::vector<std::int64_t> order_;
};

/// Group g takes training row g of data.task, whose stream is a function of the seed; none of its
/// prompts is among the task's first data.heldout held-out rows.
class TaskPrompts : public PromptSource {
 public:
  /// Starts a sandbox by `zygote_argv`. Throws UserError where the script makes no rows.
  TaskPrompts(const configs::Config& config, const engine::Tokenizer& tokenizer,
              const engine::ModelConfig& model, std::vector<std::string> zygote_argv);

  /// Throws UserError naming the row as DatasetPrompts does its line. Cheap for ascending groups.
  store::GroupRow Prompt(std::uint64_t grp) const override;
  std::string Answer(std::uint64_t grp, bool* has) const override;

 private:
  const engine::Row& RowOf(std::uint64_t grp) const;

  const configs::Config config_;
  const engine::Tokenizer& tokenizer_;
  const engine::ModelConfig& model_;
  reward::TaskOptions options_;
  mutable reward::TaskRows stream_;
  mutable std::uint64_t next_ = 0;  // of stream_
  mutable engine::Row row_;         // of next_ - 1
};

/// By data.task or data.train.
std::shared_ptr<const PromptSource> MakePrompts(const configs::Config& config,
                                                const engine::Tokenizer& tokenizer,
                                                const engine::ModelConfig& model,
                                                std::vector<std::string> zygote_argv);

}  // namespace temper::learner
