#pragma once
// The generation engine: groups of samples in, finished samples out, one decode step at a time.
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model_config.h"
#include "engine/weights.h"
#include "kernels/sampling.h"
#include "kernels/thread_pool.h"

namespace temper::engine {

enum class FinishReason { kStop, kLength, kCancelled, kError };
std::string FinishReasonName(FinishReason reason);  // stop | length | cancelled | error

/// One prompt and n samples of it. The prompt is computed once and shared.
struct GroupRequest {
  std::uint64_t group = 0;                 // Philox group; also the handle for Cancel
  std::vector<std::int32_t> prompt;        // not empty, ids in [0, vocab)
  std::vector<std::uint32_t> samples;      // sample numbers, e.g. 0..n-1
  std::uint64_t seed = 0;
  int max_new_tokens = 128;                // >= 1
  kernels::SampleParams params;
  std::vector<std::int32_t> stop_ids;      // end the sample; the id stays in the output
};

struct FinishedSample {
  std::uint64_t group = 0;
  std::uint32_t sample = 0;
  std::vector<std::int32_t> ids;           // generated, stop id included
  std::vector<float> logp, logp_processed, log_kept_mass;  // one a generated id
  std::vector<std::uint32_t> versions;     // weights version of each id
  FinishReason finish = FinishReason::kLength;
};

struct EngineOptions {
  int threads = 1;
  int max_rows = 512;        // sequences decoded together
  int chunk = 512;           // prompt tokens a step
  int valid_ids = 0;         // ids past it are never sampled (tokenizer's size); 0 = all
};

class Engine {
 public:
  Engine(std::shared_ptr<Weights> weights, const EngineOptions& options);
  ~Engine();

  /// Throws UserError naming what is out of range: empty prompt, id, prompt + max_new_tokens > max_positions.
  void Add(GroupRequest request);
  /// One step: prompts by chunks, then one token for every live sample. Appends what finished. False when nothing is left.
  bool Step(std::vector<FinishedSample>* finished);
  /// Called after each sampled token when set: (group, sample, ids so far) -> true to stop (stop strings).
  void OnToken(std::function<bool(std::uint64_t, std::uint32_t, const std::vector<std::int32_t>&)> stop);
  /// Frees at once; cancelled samples are not reported.
  void Cancel(std::uint64_t group);
  /// The version stamped on the next tokens; the caller has changed the weights between steps.
  void SetVersion(std::uint32_t version);
  std::uint32_t version() const;
  int live() const;  // samples waiting or running
  std::uint64_t tokens_generated() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::engine
