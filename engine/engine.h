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
  bool experts = false;                    // report the experts of every token
  bool kept = false;                       // report the ids that sampling chose from
  std::uint32_t begun = 0;                 // generated tokens that the prompt ends with: their positions are taken
};

struct FinishedSample {
  std::uint64_t group = 0;
  std::uint32_t sample = 0;
  std::vector<std::int32_t> ids;           // generated, stop id included
  std::vector<float> logp, logp_processed, log_kept_mass;  // one a generated id
  std::vector<std::uint32_t> versions;     // weights version of each id
  FinishReason finish = FinishReason::kLength;
  /// If asked for: [prompt + ids - 1][MoE layers][top_k], ascending ids. A token's experts are those
  /// of the weights that computed it first.
  std::vector<std::uint16_t> experts;
  /// If asked for: of each generated id the number of ids that top_k, top_p and min_p kept, then those, ascending.
  std::vector<std::int32_t> kept;
};

enum class Speculation { kOff, kAuto, kAlways };
/// What an update of the weights does to sequences in flight: they go on with rows of the former
/// weights, have their rows computed again, or end as cancelled with what they have.
enum class CachePolicy { kKeep, kRecompute, kDrop };

struct EngineOptions {
  int threads = 1;
  int max_rows = 512;        // sequences decoded together
  int chunk = 512;           // prompt tokens a step
  int valid_ids = 0;         // ids past it are never sampled (tokenizer's size); 0 = all
  std::int64_t cache_tokens = 0;       // tokens the cache may hold; 0 = as many as memory has
  std::int64_t prefix_tokens = 16384;  // prompt tokens kept for later prompts that begin alike, 512 MiB at most
  Speculation speculation = Speculation::kAuto;  // drafts by the MTP layer, if the model has one
  std::string device = "cpu";  // or cuda:N; the weights' numerics say in which arithmetic
};

/// Counts since the engine began.
struct EngineStats {
  std::uint64_t generated = 0;    // sampled tokens
  std::uint64_t computed = 0;     // token rows through the model, drafts included
  std::uint64_t prefix_hits = 0;  // prompt tokens found in the cache
  std::uint64_t preempted = 0;    // sequences that gave their pages up for a while
  std::uint64_t drafted = 0, accepted = 0;
  std::uint64_t cache_tokens = 0;  // most rows of the cache taken at once, by whole pages
};

class Engine {
 public:
  Engine(std::shared_ptr<Weights> weights, const EngineOptions& options);
  ~Engine();

  /// Throws UserError naming what is out of range: empty prompt, id, prompt + max_new_tokens > max_positions or more than
  /// the cache holds.
  void Add(GroupRequest request);
  /// One step: a token for every running sample (one more for each draft that holds), prompts by chunks. Appends what finished; false
  /// when nothing is left. A sample's bits depend on weights, prompt, seed, group and sample number alone: never on its
  /// company, chunks, threads, preemption, prefix hits or drafts.
  bool Step(std::vector<FinishedSample>* finished);
  /// Called after each sampled token when set: (group, sample, ids so far) -> true to stop (stop strings).
  void OnToken(std::function<bool(std::uint64_t, std::uint32_t, const std::vector<std::int32_t>&)> stop);
  /// Frees its pages at once; cancelled samples are not reported.
  void Cancel(std::uint64_t group);
  /// The version stamped on the next tokens; the caller has changed the weights between steps.
  void SetVersion(std::uint32_t version, CachePolicy policy = CachePolicy::kRecompute);
  std::uint32_t version() const;
  int live() const;  // samples waiting or running
  const EngineStats& stats() const;
  /// Bytes of the cache's pages in use, and of a token's row.
  std::int64_t cache_bytes() const;
  std::int64_t cache_row_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::engine
