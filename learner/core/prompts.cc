#include "learner/core/prompts.h"

#include "configs/error.h"
#include "engine/data/row_ids.h"

namespace temper::learner {

namespace {

std::vector<std::int32_t> CheckedIds(const engine::Row& row, const configs::Config& config,
                                     const engine::Tokenizer& tokenizer,
                                     const engine::ModelConfig& model) {
  const std::string where = row.where + ": ";
  std::vector<std::int32_t> ids = engine::PromptIds(row, tokenizer);
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
                    std::to_string(config.grpo.max_completion_length) + " don't fit the model's " +
                    std::to_string(model.max_positions) + " positions");
  }
  for (std::int32_t id : ids) {
    if (id < 0 || id >= model.vocab_size) {
      throw UserError(where + "token " + std::to_string(id) +
                      " is past the model's vocabulary of " + std::to_string(model.vocab_size));
    }
  }
  return ids;
}

store::GroupRow ToGroup(std::uint64_t grp, const engine::Row& row, std::vector<std::int32_t> ids) {
  store::GroupRow group;
  group.grp = grp;
  group.prompt_json = engine::PromptJson(row).dump();
  group.row_json = row.json.dump();
  group.prompt_ids = std::move(ids);
  return group;
}

reward::TaskOptions OptionsOf(const configs::Config& config, std::vector<std::string> zygote_argv) {
  reward::TaskOptions options;
  options.seed = config.seed;
  options.heldout = config.data.heldout;
  options.limits = {config.reward.timeout_s, config.reward.max_instructions,
                    config.reward.memory_mib};
  options.zygote_argv = std::move(zygote_argv);
  return options;
}

}  // namespace

DatasetPrompts::DatasetPrompts(const configs::Config& config, const engine::Tokenizer& tokenizer,
                               const engine::ModelConfig& model)
    : shuffle_(config.data.shuffle),
      seed_(config.seed),
      rows_(engine::ReadRows(config.data.train, engine::RowUse::kPrompt, config.data.prompt_column,
                             config.data.answer_column)) {
  for (const engine::Row& row : rows_) ids_.push_back(CheckedIds(row, config, tokenizer, model));
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
  return ToGroup(grp, rows_[i], ids_[i]);
}

std::string DatasetPrompts::Answer(std::uint64_t grp, bool* has) const {
  const engine::Row& row = rows_[RowOf(grp)];
  *has = row.has_answer;
  return row.answer;
}

TaskPrompts::TaskPrompts(const configs::Config& config, const engine::Tokenizer& tokenizer,
                         const engine::ModelConfig& model, std::vector<std::string> zygote_argv)
    : config_(config),
      tokenizer_(tokenizer),
      model_(model),
      options_(OptionsOf(config, std::move(zygote_argv))),
      stream_(config.data.task, options_) {
  Prompt(0);  // a prompt that cannot be is told before the run begins
}

const engine::Row& TaskPrompts::RowOf(std::uint64_t grp) const {
  if (grp + 1 == next_) return row_;
  if (grp < next_) {
    stream_ = reward::TaskRows(config_.data.task, options_);
    next_ = 0;
  }
  std::string text;
  for (; next_ <= grp; ++next_) text = stream_.Next();
  const std::string where = config_.data.task + ": row " + std::to_string(grp);
  row_ = engine::ReadRow(configs::ParseJson(text, where), where, std::int64_t(grp),
                         engine::RowUse::kPrompt, config_.data.prompt_column,
                         config_.data.answer_column);
  return row_;
}

store::GroupRow TaskPrompts::Prompt(std::uint64_t grp) const {
  const engine::Row& row = RowOf(grp);
  return ToGroup(grp, row, CheckedIds(row, config_, tokenizer_, model_));
}

std::string TaskPrompts::Answer(std::uint64_t grp, bool* has) const {
  const engine::Row& row = RowOf(grp);
  *has = row.has_answer;
  return row.answer;
}

std::shared_ptr<const PromptSource> MakePrompts(const configs::Config& config,
                                                const engine::Tokenizer& tokenizer,
                                                const engine::ModelConfig& model,
                                                std::vector<std::string> zygote_argv) {
  if (config.data.task.empty()) return std::make_shared<DatasetPrompts>(config, tokenizer, model);
  return std::make_shared<TaskPrompts>(config, tokenizer, model, std::move(zygote_argv));
}

}  // namespace temper::learner
