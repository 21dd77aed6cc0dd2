#include "cli/sampling_args.h"

#include <climits>

#include "engine/decoder.h"

namespace temper::cli {

void SamplingArgs::Declare(Args* args) {
  args->Integer("--max-new-tokens", "tokens a sample at most", 1, INT_MAX, &max_new_tokens);
  args->Number("--temperature", "0 is greedy", 0, 1e6, &temperature);
  args->Number("--top-p", "keep the most likely tokens of this mass", 0, 1, &top_p);
  args->Integer("--top-k", "keep so many tokens; 0 = all", 0, INT_MAX, &top_k);
  args->Number("--min-p", "keep tokens of this share of the likeliest", 0, 1, &min_p);
  args->Integer("--seed", "of sampling", std::int64_t{0}, INT64_MAX, &seed);
  args->List("--stop", "TEXT", "ends a sample; the text leaves it out", &stops);
  args->Text("--dtype", "M", "fp32, bf16, fp8 or fp8-w8a8", &dtype);
  args->Text("--cache-dtype", "C", "fp32, bf16 or fp8", &cache_dtype);
  args->Integer("--threads", "0 = all cores", 0, 4096, &threads);
  args->Text("--device", "D",
             "cpu, or in a build with CUDA cuda:N, or cuda:N-M: experts over all of these",
             &device);
  args->Text("--arithmetic", "A", "canon-1, or cuda-1 on a device: tensor cores' sums",
             &arithmetic);
}

Sampling SamplingArgs::Resolve(const Args& args, int n) const {
  if (top_p == 0) args.Fail("--top-p: 0 must be in (0, 1]");
  if (min_p == 1) args.Fail("--min-p: 1 must be in [0, 1)");
  for (const std::string& stop : stops) {
    if (stop.empty()) args.Fail("--stop: the text is empty; every sample would end at once");
  }
  engine::CheckDevice(device);
  return {n,
          max_new_tokens,
          {static_cast<float>(temperature), top_k, static_cast<float>(top_p),
           static_cast<float>(min_p)},
          static_cast<std::uint64_t>(seed),
          stops,
          threads,
          engine::WithArithmetic(engine::ParseNumerics(dtype, cache_dtype, "pow2"), arithmetic),
          device};
}

}  // namespace temper::cli
