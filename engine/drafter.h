#pragma once
// What the MTP layers guess: they follow each sequence and propose its next tokens.
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/decoder.h"
#include "engine/sequence.h"

namespace temper::engine {

/// Layer j reads token p beside what the layer before gave for token p - 1 (the first: the main
/// model's state of token p - 1), stands at position p - 1 - j, and guesses token p + 1. So all
/// layers go from token to token together, and drafts chain: layer 0 on the newest token gives the
/// first, layer 1 on the first draft the second (DeepSeek-V3, section 2.2). Row p of a sequence's
/// cache holds all layers' latent rows of token p. Drafts are guesses: where layers missed tokens
/// they guess worse, and no token depends on it.
class Drafter {
 public:
  using Sequences = std::span<const std::unique_ptr<Sequence>>;
  using Sampler =
      std::function<std::vector<Drawn>(const std::vector<Target>&, const float* logits)>;

  /// `layers` MTP layers; 0: never drafts, forward may be null then. Both must outlive it.
  Drafter(Forward* forward, const ModelConfig& config, int layers);

  int layers() const { return layers_; }
  /// Takes up what a prefix of `tokens` tokens left in the cache; `states` as StatesAfter gave them
  /// (empty: nothing).
  void Restore(Sequence& s, int tokens, std::span<const float> states) const;
  /// The layers on all tokens of prompts or samples whose states this step gave.
  void Follow(Sequences running, bool prompts);
  /// What each layer takes with token position + 1: [layers][H]; empty where a layer missed a token
  /// or this step did not give it. Valid until the next call.
  std::span<const float> StatesAfter(const Sequence& s, int position);
  /// Follows the samples, then gives each up to `depth` drafts: what `sample` picks from the
  /// layers' logits, since the best guess of what a position's own uniform picks is what it picks
  /// here.
  void Draft(Sequences running, int depth, const Sampler& sample);

 private:
  struct Row {
    Sequence* sequence;
    int token;
    std::int32_t id;
    int run;             // tokens before it, without a gap, that had their turn
    const float* state;  // the main model's of token - 1; null for a draft
    const float* given;  // by layers 0 .. layers - 2 for token - 1, if that is not the row before
  };
  /// Layers from `first` on, on rows_: results in out_. A sequence's rows are consecutive.
  void Pass(int first);
  /// The pass's last row of a sequence becomes what layers take next.
  void Carry(int first, std::size_t row, std::vector<float>* given) const;
  float* Out(int layer, std::size_t row) { return out_[layer].data() + row * hidden_; }
  const float* Out(int layer, std::size_t row) const { return out_[layer].data() + row * hidden_; }
  /// Where a token's row holds a layer's part, in bytes.
  std::int64_t Offset(int layer) const { return forward_->CacheBytes(main_layers_ + layer); }

  Forward* forward_;
  const int layers_, main_layers_, vocab_;
  const std::size_t hidden_;
  std::vector<Row> rows_;
  std::vector<std::vector<float>> out_;  // [layers][rows][H]
  std::vector<std::int32_t> ids_, positions_;
  std::vector<std::byte*> latent_;
  std::vector<kernels::AttentionRow> attention_;
  std::vector<std::size_t> taken_;  // rows that a layer takes
  std::vector<float> in_, given_, logits_, states_;
};

}  // namespace temper::engine
