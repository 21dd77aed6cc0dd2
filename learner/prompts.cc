#include "learner/prompts.h"

#include "configs/error.h"
#include "engine/data/row_ids.h"

namespace temper::learner {

DatasetPrompts::DatasetPrompts(const configs::Config& config, const engine::Tokenizer& tokenizer,
                               const engine::ModelConfig& model)
    : shuffle_(config.data.shuffle),
      seed_(config.seed),
      rows_(engine::ReadRows(config.data.train, engine::RowUse::kPrompt, config.data.prompt_column,
                             config.data.answer_column)) {
  for (const engine::Row& row : rows_) {
    const std::string where = config.data.train + ":" + std::to_string(row.line) + ": ";
    ids_.push_back(engine::PromptIds(row, tokenizer));
    const std::vector<std::int32_t>& ids = ids_.back();
    const int length = int(ids.size());
    if (ids.empty()) throw UserError(where + "the prompt has no token; a prompt needs one");
    if (length > config.data.max_prompt_length) {
      throw UserError(where + "a prompt of " + std::to_string(length) +
                      " tokens; data.max_prompt_length is " +
                      std::to_string(config.data.max_prompt_length));
    }
    if (length + config.grpo.max_completion_length > model.max_positions) {
      throw UserError(where + "a prompt of " + std::to_string(length) +
                      " tokens and grpo.max_completion_length " +
                      std::to_string(config.grpo.max_completion_length) +
                      " don't fit the model's " + std::to_string(model.max_positions) +
                      " positions");
    }
    for (std::int32_t id : ids) {
      if (id < 0 || id >= model.vocab_size) {
        throw UserError(where + "token " + std::to_string(id) +
                        " is past the model's vocabulary of " + std::to_string(model.vocab_size));
      }
    }
  }
}

std::size_t DatasetPrompts::RowOf(std::uint64_t grp) const {
  const std::uint64_t n = rows_.size(), epoch = grp / n;
  if (!shuffle_) return grp % n;
  if (order_.empty() || epoch != epoch_) {
    order_ = engine::Shuffled(std::int64_t(n), seed_, epoch);
    epoch_ = epoch;
  }
  return std::size_t(order_[grp % n]);
}

store::GroupRow DatasetPrompts::Prompt(std::uint64_t grp) const {
  const std::size_t i = RowOf(grp);
  store::GroupRow group;
  group.grp = grp;
  group.prompt_json = engine::PromptJson(rows_[i]).dump();
  group.row_json = rows_[i].json.dump();
  group.prompt_ids = ids_[i];
  return group;
}

std::string DatasetPrompts::Answer(std::uint64_t grp, bool* has) const {
  const engine::Row& row = rows_[RowOf(grp)];
  *has = row.has_answer;
  return row.answer;
}

}  // namespace temper::learner
