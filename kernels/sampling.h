#pragma once
// From logits to a token: log-softmax of the whole vocabulary, filters, counter-based sampler.
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/thread_pool.h"

namespace temper::kernels {

/// Log-sum-exp of each row of logits / temperature (IEEE division), temperature > 0.
///
///   logits [m, v], row stride ld    lse [m]
///
/// Order  chunks of 1024 entries ascending. In a chunk: m = max, s = sum of Exp(x - m) in 16
///        strided lanes and the fixed tree; the first is taken as is, the others merged as in
///        MlaAttention: M' = max(M, m), S = fma(s, Exp(m - M'), S * Exp(M - M')).
///        lse = M + Log(S). Any number of threads gives the same bits.
void LogSumExp(const float* logits, std::int64_t ld, int m, int v, float temperature, float* lse,
               ThreadPool& pool);

/// logp[r] = logits[r, target[r]] / temperature - lse[r].
void TokenLogProbs(const float* logits, std::int64_t ld, int m, int v, float temperature,
                   const std::int32_t* target, float* logp, ThreadPool& pool);

/// entropy[r] = -sum p log p of softmax(logits / temperature), the same chunk order; for metrics.
void Entropy(const float* logits, std::int64_t ld, int m, int v, float temperature, float* entropy,
             ThreadPool& pool);

/// Philox4x32-10 (Salmon et al., SC 2011). Philox({0,0,0,0}, {0,0})[0] == 0x6627e8d5.
std::array<std::uint32_t, 4> Philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key);

/// The uniform of one generated token: key = seed (low u32 first), counter = (position, sample,
/// group low, group high), u = (x0 >> 8) * 2^-24. position = index of the generated token from 0.
float SampleUniform(std::uint64_t seed, std::uint64_t group, std::uint32_t sample,
                    std::uint32_t position);

struct SampleParams {
  float temperature = 1.0f;  // 0: greedy (first id of the largest logit)
  int top_k = 0;             // 0: off
  float top_p = 1.0f;        // 1: off; smallest set with mass >= top_p of what top_k left
  float min_p = 0.0f;        // 0: off; relative to the largest
};

struct SampledToken {
  std::int32_t id = 0;
  float logp = 0;            // log-softmax(logits / temperature) over all v entries
  float logp_processed = 0;  // after the filters: logp - log_kept_mass
  float log_kept_mass = 0;
};

/// Picks one token of a row. Entries at or past `valid` (ids past the tokenizer) can't be picked;
/// their mass counts as not kept.
///
/// Order  temperature, top_k, top_p, min_p; ties to the lower id. With p_i = Exp(x_i - lse) and the
///        row's LogSumExp: token = first id in ascending order inside the kept set whose running
///        FP32 sum of p exceeds u * kept mass (the last value of the same running sum). top_p adds
///        p from the largest logit down until the sum reaches top_p * (running sum, ascending ids,
///        of the set that top_k left). min_p keeps p_i >= min_p * largest p.
/// Temperature 0 takes the first of the largest; every number is then that of temperature 1. Where
/// all kept p underflow to 0: the largest too. Logits are finite, 0 <= u < 1.
/// Throws std::logic_error on parameters out of range and unless 1 <= valid <= v.
SampledToken SampleToken(const float* logits, int v, int valid, const SampleParams& params,
                         float u);

/// The ids that SampleToken keeps, ascending (at least one).
void KeptIds(const float* logits, int v, int valid, const SampleParams& params,
             std::vector<std::int32_t>* kept);

/// log_kept_mass of SampleToken where `kept` are its ids: the log of the running FP32 sum of
/// Exp(logits / temperature - lse) over them, ascending.
float LogKeptMass(const float* logits, float temperature, float lse,
                  const std::vector<std::int32_t>& kept);

}  // namespace temper::kernels
