#pragma once
// The model's forward pass over packed weights: what actor, learner and probes all run.
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/weights.h"
#include "kernels/attention.h"
#include "kernels/thread_pool.h"

namespace temper::engine {

class LatentRows;

/// Token rows of any sequences in any mixture: a prefill chunk, one token each of many samples,
/// whole packed sequences.
struct ForwardRows {
  int m = 0;
  const std::int32_t* ids = nullptr;        // [m]
  const std::int32_t* positions = nullptr;  // [m]
  /// [m] where a row's own latent rows go: [layers] of CacheRowBytes. Must be what
  /// the last of attention[r].keys points at.
  std::byte* const* latent = nullptr;
  /// [m] keys: base pointers of the sequence's rows by position, as `latent`; count = position + 1.
  const kernels::AttentionRow* attention = nullptr;
  /// [m] the rows' sequences, for decoders that keep their places elsewhere; the CPU's doesn't ask.
  const LatentRows* const* sequences = nullptr;
};

class Forward {
 public:
  /// Both must outlive this object. Not thread-safe: one caller, `pool` inside.
  Forward(const Weights& weights, kernels::ThreadPool& pool);

  /// Bytes of the cache rows of so many layers of one token.
  std::int64_t CacheBytes(int layers) const;

  /// Receives the chosen experts of a MoE layer (index among MoE layers): ids [m, top_k] ascending.
  using Experts = std::function<void(int moe_layer, const std::int32_t* ids)>;

  /// hidden [m, H]: states after the final norm.
  void Hidden(const ForwardRows& rows, float* hidden, const Experts& experts = nullptr);

  /// logits [m, V] of hidden states after the final norm; of a reward model [m, 1].
  void Logits(const float* hidden, int m, float* logits);

  /// MTP layer j on rows whose `ids` are the tokens t+1 and `hidden` [m, H] the main model's states
  /// h_t after the final norm; positions, latent and attention describe the MTP layer's own cache:
  /// [1][L + R] a token. out [m, H] is normed for Logits.
  void Mtp(int j, const ForwardRows& rows, const float* hidden, float* out);

 private:
  void Layer(int index, int cache_layer, const ForwardRows& rows, float* x, const Experts& experts);
  void Attention(const LayerWeights& w, int cache_layer, const ForwardRows& rows, float* x);
  /// Rows of a linear layer's input, quantised where mode and weights say so.
  struct Input {
    const float* x = nullptr;
    std::int64_t ldx = 0;
    const float* scale = nullptr;  // [m][ceil(K/128)], or null
    std::int64_t ld_scale = 0;
  };
  /// x [m, K] as W takes it. Of the two buffers each holds one quantised input at a time.
  Input Prepare(const PackedLinear& w, const float* x, std::int64_t ldx, int m, int buffer = 0);
  /// y = W x for m rows from `first` on joins the layers of the next Run().
  void Push(const PackedLinear& w, const Input& input, std::int64_t first, int m, float* y,
            std::int64_t ldy);
  /// Both halves of a gated MLP: out [m, 2 I], the gate first.
  void PushGateUp(const MlpWeights& w, const Input& input, std::int64_t first, int m, float* out);
  /// All layers pushed, in one parallel region.
  void Run();
  void Linear(const PackedLinear& w, const float* x, std::int64_t ldx, int m, float* y,
              std::int64_t ldy);
  /// Rounds a block's output as the mode says and adds it to the residual stream.
  void AddBlock(float* out, int m, float* x);
  void Mlp(const MlpWeights& w, const float* in, int m, float* out);
  void Moe(const LayerWeights& w, int m, float* x, const Experts& experts, int moe_layer);
  /// Rows sorted by expert, stable by token (counts_, slots_): out [m * top_k, H].
  void Gather(const float* rows, int m, float* out);
  void Embed(const std::int32_t* ids, int m, float* out) const;
  /// Rotary table long enough for `position`.
  const float* Table(int position);
  /// A scratch buffer by number, grown on demand.
  float* Scratch(int which, std::size_t floats);

  const Weights& weights_;
  kernels::ThreadPool& pool_;
  std::vector<float> rope_table_;
  int rope_positions_ = 0;
  std::vector<AlignedFloats> scratch_;
  std::vector<std::int32_t> expert_ids_, slots_, order_, counts_;
  std::vector<kernels::LinearItem> items_;
};

}  // namespace temper::engine
