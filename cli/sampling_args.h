#pragma once
// The sampling options that generate and eval share.
#include "cli/args.h"
#include "cli/model.h"

namespace temper::cli {

struct SamplingArgs {
  double temperature = 1, top_p = 1, min_p = 0;
  int top_k = 0, max_new_tokens = 128, threads = 0;
  std::int64_t seed = 0;
  std::vector<std::string> stops;
  std::string dtype = "fp32", cache_dtype = "fp32", device = "cpu", arithmetic = "canon-1";

  void Declare(Args* args);
  /// Checks stop strings and gives what SampleAll takes.
  Sampling Resolve(const Args& args, int n) const;
};

}  // namespace temper::cli
