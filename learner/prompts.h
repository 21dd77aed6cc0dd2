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
  std::uint64_t rows() const { return rows_.size(); }

 private:
  std::size_t RowOf(std::uint64_t grp) const;

  bool shuffle_;
  std::uint64_t seed_;
  std::vector<engine::Row> rows_;
  std::vector<std::vector<std::int32_t>> ids_;
  mutable std::uint64_t epoch_ = 0;  // of order_
  mutable std::vector<std::int64_t> order_;
};

}  // namespace temper::learner
