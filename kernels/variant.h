#pragma once
// The table of one instruction set's kernels: serial pieces that the public functions cut work
// into.
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/linear.h"

namespace temper::kernels {

inline constexpr int kSplit = 256;   // keys a softmax split of attention
inline constexpr int kChunk = 1024;  // entries a chunk of log-sum-exp

/// A block of a linear layer: rows [0, m) of x and y, outputs of panels [panel, panel_end).
struct LinearBlock {
  LinearWeight w;  // the whole packed matrix
  int panel, panel_end;
  const float* x;
  std::int64_t ldx;
  int m;
  float* y;  // column 0 of the layer, whatever the panels
  std::int64_t ldy;
  const float* x_scale = nullptr;
  std::int64_t ld_x_scale = 0;
};

/// Neighbouring rows of one sequence: rows[0 .. m) share `keys`. q and o start at the first of
/// them.
struct AttentionBlock {
  const float* q;
  const AttentionRow* rows;
  int m, heads, latent, rope;
  float scale;
  CacheType type;
  std::int64_t offset;  // bytes
  float* o;
  float* scratch;  // AttentionScratch() floats, 64-byte aligned
};
/// Upper bound of the scratch for m rows whose largest count is `keys`.
std::int64_t AttentionScratch(int m, int heads, int latent, int rope, int keys);

/// Maximum and sum of Exp(x - max) of one chunk, or of its merge with others.
struct MaxSum {
  float max, sum;
};

struct Variant {
  void (*linear)(const LinearBlock& block);
  void (*attention)(const AttentionBlock& block);
  void (*rms_norm)(const float* x, const float* weight, float eps, int d, float* y);
  void (*rope)(float* x, int heads, std::int64_t ldh, int dim, const float* cos_sin);
  void (*swiglu)(const float* gate, const float* up, int d, float* y);
  void (*sigmoid)(const float* x, int n, float* y);
  /// n <= kChunk entries of logits, divided by the temperature.
  MaxSum (*chunk_max_sum)(const float* logits, int n, float temperature);
  /// Sum of p (x - lse) over a chunk, x = logits / temperature, p = Exp(x - lse).
  float (*chunk_p_log_p)(const float* logits, int n, float temperature, float lse);
  /// x = logits / temperature (x may be null), p = Exp(x - lse).
  void (*probabilities)(const float* logits, int n, float temperature, float lse, float* x,
                        float* p);
};

extern const Variant kScalarVariant;
extern const Variant kAvx2Variant;
extern const Variant kAvx512Variant;
extern const Variant kAvx512VbmiVariant;  // where the processor has VBMI

const Variant& ActiveVariant();

}  // namespace temper::kernels
