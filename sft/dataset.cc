#include "sft/dataset.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "configs/error.h"
#include "engine/data/row_ids.h"
#include "sft/teacher.h"

namespace temper::sft {

std::vector<Example> LoadExamples(const std::string& path, const configs::Config& config,
                                  const engine::Tokenizer& tokenizer,
                                  const engine::ModelConfig& model) {
  if (tokenizer.eos_id() < 0)
    throw UserError(config.model + ": the tokenizer has no eos_token; every row must end with one");
  std::vector<Example> examples;
  for (const engine::Row& row :
       engine::ReadRows(path, engine::RowUse::kCompletion, config.data.prompt_column,
                        config.data.answer_column)) {
    const std::string where = path + ":" + std::to_string(row.line);
    Example example;
    engine::TrainingIds ids = engine::CompletionIds(row, tokenizer, config.sft.assistant_only_loss);
    example.ids = std::move(ids.ids);
    example.prompt = ids.prompt;
    example.assistant = std::move(ids.assistant);
    example.teacher = TeacherTargets(row.json, where, row.completion_ids, model.vocab_size,
                                     config.sft.distillation_alpha);
    if (TrainedTokens(example, config.sft).empty()) {
      throw UserError(where + ": no token of the row is trained" +
                      (config.sft.assistant_only_loss ? " (sft.assistant_only_loss)" : "") +
                      ": remove the row");
    }
    if (int(example.ids.size()) > model.max_positions) {
      throw UserError(where + ": " + std::to_string(example.ids.size()) +
                      " tokens; the model has " + std::to_string(model.max_positions) +
                      " positions: shorten the row");
    }
    if (int(example.ids.size()) > config.sft.max_length) {
      throw UserError(where + ": " + std::to_string(example.ids.size()) +
                      " tokens; sft.max_length is " + std::to_string(config.sft.max_length) +
                      ": raise it or shorten the row");
    }
    for (std::int32_t id : example.ids) {
      if (id < 0 || id >= model.vocab_size) {
        throw UserError(where + ": token " + std::to_string(id) +
                        " is past the model's vocabulary of " + std::to_string(model.vocab_size));
      }
    }
    examples.push_back(std::move(example));
    if (config.sft.num_train_rows > 0 && path == config.data.train &&
        int(examples.size()) == config.sft.num_train_rows) {
      break;
    }
  }
  return examples;
}

std::vector<std::int32_t> TrainedTokens(const Example& row, const configs::Sft& config) {
  std::vector<std::int32_t> tokens;
  const int from = config.completion_only_loss ? std::max(1, row.prompt) : 1;
  for (int t = from; t < int(row.ids.size()); ++t) {
    if (row.assistant.empty() || row.assistant[std::size_t(t)]) tokens.push_back(t);
  }
  return tokens;
}

std::int64_t MicroTokens(const configs::Sft& config) {
  const std::int64_t parts = config.gradient_accumulation_steps;
  return (config.tokens_per_step + parts - 1) / parts;
}

namespace {

std::vector<std::int64_t> LongestFirst(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return lengths[a] > lengths[b]; });
  return order;
}

}  // namespace

std::vector<std::vector<std::int64_t>> Deal(const std::vector<std::int64_t>& lengths, int ranks) {
  std::vector<std::vector<std::int64_t>> dealt(static_cast<std::size_t>(ranks));
  std::vector<std::int64_t> tokens(dealt.size());
  for (const std::int64_t row : LongestFirst(lengths)) {
    const auto least = std::min_element(tokens.begin(), tokens.end());
    *least += lengths[row];
    dealt[std::size_t(least - tokens.begin())].push_back(row);
  }
  for (auto& rows : dealt) std::sort(rows.begin(), rows.end());
  return dealt;
}

std::vector<std::vector<std::int64_t>> BestFit(const std::vector<std::int64_t>& lengths,
                                               std::int64_t capacity) {
  std::vector<std::vector<std::int64_t>> packs;
  std::multimap<std::int64_t, std::size_t> room;  // tokens left, pack
  for (const std::int64_t row : LongestFirst(lengths)) {
    const auto best = room.lower_bound(lengths[row]);
    std::size_t pack = packs.size();
    std::int64_t left = std::max<std::int64_t>(0, capacity - lengths[row]);
    if (best == room.end()) {
      packs.emplace_back();
    } else {
      pack = best->second;
      left = best->first - lengths[row];
      room.erase(best);
    }
    packs[pack].push_back(row);
    room.emplace(left, pack);
  }
  for (auto& pack : packs) std::sort(pack.begin(), pack.end());
  return packs;
}

Cursor::Cursor(std::int64_t rows, bool shuffle, std::uint64_t seed, std::uint64_t epoch,
               std::uint64_t position)
    : rows_(rows), shuffle_(shuffle), seed_(seed), epoch_(epoch), position_(position) {
  if (position > std::uint64_t(rows)) {
    throw UserError("data.train: " + std::to_string(rows) +
                    " rows, but the checkpoint stands at row " + std::to_string(position) +
                    "; resume with the run's own data");
  }
  Order();
}

void Cursor::Order() {
  if (shuffle_) {
    order_ = engine::Shuffled(rows_, seed_, epoch_);
  } else if (order_.empty()) {
    order_.resize(rows_);
    std::iota(order_.begin(), order_.end(), 0);
  }
}

std::vector<std::int64_t> Cursor::Take(const std::vector<std::int64_t>& lengths,
                                       std::int64_t tokens) {
  std::vector<std::int64_t> taken;
  std::int64_t sum = 0;
  while (true) {
    if (position_ == std::uint64_t(rows_)) {
      ++epoch_;
      position_ = 0;
      Order();
    }
    const std::int64_t row = order_[position_];
    const std::int64_t length = lengths[row];
    if (!taken.empty() && sum + length > tokens) return taken;
    taken.push_back(row);
    sum += length;
    ++position_;
  }
}

}  // namespace temper::sft
