#pragma once
// Supervised rows as token ids with a loss mask, and the order in which steps take them.
#include <cstdint>
#include <string>
#include <vector>

#include "configs/config.h"
#include "engine/model_config.h"
#include "engine/tokenizer.h"
#include "learner/core/soft_target.h"

namespace temper::sft {

struct Example {
  std::vector<std::int32_t> ids;        // as engine::CompletionIds gives them
  int prompt = 0;                       // tokens before the completion; 0: whole conversations
  std::vector<std::uint8_t> assistant;  // with assistant_only_loss: one an id, 1 in its turns
  std::vector<learner::WeightedIds> teacher;  // one an id of the completion; empty: no teacher
};

/// Tokens of a row that are trained: their positions, ascending.
std::vector<std::int32_t> TrainedTokens(const Example& row, const configs::Sft& config);

/// Tokens of a micro-batch.
std::int64_t MicroTokens(const configs::Sft& config);

/// Rows into packs of at most `capacity` tokens (a longer row alone): longest first, each into the
/// fullest pack that has room. Gives the numbers of each pack's rows, ascending.
std::vector<std::vector<std::int64_t>> BestFit(const std::vector<std::int64_t>& lengths,
                                               std::int64_t capacity);

/// The numbers of each rank's rows, ascending: longest first, each to the rank that has the fewest
/// tokens.
std::vector<std::vector<std::int64_t>> Deal(const std::vector<std::int64_t>& lengths, int ranks);

/// Rows of `path` (prompt + completion, text, or messages). Throws UserError naming the line of a
/// row over max_length tokens or the model's positions, of an id past its vocabulary, of a row
/// without a trained token, and where the tokenizer has no EOS.
std::vector<Example> LoadExamples(const std::string& path, const configs::Config& config,
                                  const engine::Tokenizer& tokenizer,
                                  const engine::ModelConfig& model);

/// Walks the rows epoch by epoch in the order that (seed, epoch) gives.
class Cursor {
 public:
  Cursor(std::int64_t rows, bool shuffle, std::uint64_t seed, std::uint64_t epoch,
         std::uint64_t position);
  /// Row numbers of the next step: at least one, then more until the next would exceed `tokens`.
  std::vector<std::int64_t> Take(const std::vector<std::int64_t>& lengths, std::int64_t tokens);
  std::uint64_t epoch() const { return epoch_; }
  std::uint64_t position() const { return position_; }

 private:
  void Order();

  std::int64_t rows_;
  bool shuffle_;
  std::uint64_t seed_, epoch_, position_;
  std::vector<std::int64_t> order_;
};

}  // namespace temper::sft
