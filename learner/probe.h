#pragma once
// What the training side computes, in files that other implementations can be held against
// (design.md 4).
#include <cstdint>
#include <string>
#include <vector>

namespace temper::learner {

struct ProbeOptions {
  std::string model_dir;
  std::vector<std::vector<std::int32_t>>
      ids;                       // sequences as given, each of 1 .. max_position_embeddings ids
  std::vector<int> prompt_lens;  // one a sequence; neighbours with the same prompt share it
  std::string out;               // safetensors file to write
  int threads = 1;
  std::string dtype = "fp32";
  std::string cache_dtype = "fp32";
  std::string fp8_scale = "pow2";
};

/// `probe logprobs --side learner`: one packed forward over all sequences. Writes for sequence i
/// `logp.i` F32 [T-1] and `experts.i` I32 [moe layers, T, k] (main layers only). Throws UserError
/// for ids out of range or an empty sequence.
void ProbeLogprobs(const ProbeOptions& options);

/// `probe grad`: mask[i][t] = 1 counts -log p(ids[i][t] given 0 .. t-1); mask[i][0] is 0. Writes
/// `loss` F32 [1] = sum / number of ones, and one F32 gradient a weight with the checkpoint's names
/// and shapes: experts without a token zeros; router bias and MTP layers left out. Throws UserError
/// for masks that don't fit the ids or have no one.
void ProbeGrad(const ProbeOptions& options, const std::vector<std::vector<std::int32_t>>& mask);

}  // namespace temper::learner
