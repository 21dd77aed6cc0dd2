#pragma once
// The probes of the inference side: let anyone hold this engine against another implementation.
#include <cstdint>
#include <string>
#include <vector>

namespace temper::engine {

using Sequences = std::vector<std::vector<std::int32_t>>;

/// Reads [[ids...], ...]; every id in [0, vocab), no empty sequence. Throws UserError naming the
/// sequence and the place.
Sequences ReadSequences(const std::string& path, int vocab);

struct ProbeOptions {
  std::string model;
  std::string ids;  // path of the sequences
  std::string out;  // safetensors
  std::string dtype = "fp32";
  std::string cache_dtype = "fp32";
  std::string fp8_scale = "pow2";
  int batch = 1;    // logprobs: sequences decoded together
  int chunk = 512;  // prompt tokens a forward
  int threads = 1;
  std::vector<int> prompt_lens;  // logprobs: one a sequence; empty = 1 each
};

/// logits.i F32 [T, V], experts.i I32 [moe layers, T, k] ascending ids, mtp_logits.i F32 [T-1, V]
/// where there is an MTP layer; mtp2_logits.i [T-2, V] of the second, fed with the first one's states after its norm, and so on.
void ProbeLogits(const ProbeOptions& options);

/// The actor's side: logp.i F32 [T-1] (temperature 1) and experts.i. The prompt is prefilled in
/// chunks, every later token is fed one by one through the paged cache, `batch` sequences together.
void ProbeLogprobs(const ProbeOptions& options);

/// Writes logp.i and experts.i as both sides of the logprobs probe do. experts[i] is [moe
/// layers][T][k].
struct LogprobsResult {
  std::vector<std::vector<float>> logp;
  std::vector<std::vector<std::int32_t>> experts;
};
void WriteLogprobs(const std::string& path, const Sequences& sequences, int moe_layers, int top_k,
                   const LogprobsResult& result);

/// "3" for every sequence or "[3, 1, 8]", one a sequence; "" gives none.
std::vector<int> ParsePromptLens(const std::string& text);

/// One prompt length a sequence: the default 1, one for all, or the list; each in [1, T].
std::vector<int> PromptLengths(const std::vector<int>& given, const Sequences& sequences);

}  // namespace temper::engine
