#pragma once
// Continuous batching: which tokens of which sequences go through the model next.
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "engine/decoder.h"
#include "engine/drafter.h"
#include "engine/engine.h"
#include "engine/latent_cache.h"
#include "engine/prefix_tree.h"
#include "engine/sequence.h"
#include "engine/speculation.h"

namespace temper::engine {

/// A step admits what fits, plans rows (one for a sample, one more for each draft, a chunk of
/// prompts), takes pages for them, runs the model, samples, and drafts. When pages run out, the
/// sequence admitted last gives its own up and is computed again later: every row has the same bits
/// then.
class Scheduler {
 public:
  using StopFunction =
      std::function<bool(std::uint64_t, std::uint32_t, const std::vector<std::int32_t>&)>;

  Scheduler(std::shared_ptr<Weights> weights, const EngineOptions& options);

  const ModelConfig& config() const { return weights_->config(); }
  /// Whether a sample of the request, alone, fits into the cache.
  bool Fits(const GroupRequest& request) const;
  void Add(GroupRequest request);
  bool Step(std::vector<FinishedSample>* finished);
  void OnToken(StopFunction stop) { stop_ = std::move(stop); }
  void Cancel(std::uint64_t group);
  void SetVersion(std::uint32_t version, CachePolicy policy);
  std::uint32_t version() const { return version_; }
  int live() const;
  const EngineStats& stats() const { return stats_; }
  const LatentCache& cache() const { return cache_; }

 private:
  using Owned = std::unique_ptr<Sequence>;

  void Admit();
  bool HasRoom(int pages) const;
  int RunningSamples() const;
  void Plan();
  /// Pages for the planned tokens of running_[i]; may preempt it or others.
  void Reserve(std::size_t i);
  void Preempt(std::size_t i);
  void BuildRows();
  void RunModel();
  void FileExperts(int layer, const std::int32_t* ids);
  /// Counts the planned tokens as computed; prompts that are complete become their samples.
  std::vector<Target> Advance();
  Owned Fork(const Sequence& prompt, std::uint32_t sample) const;
  void KeepPrefix(const Sequence& prompt);
  std::vector<Draw> DrawsOf(const std::vector<Target>& targets) const;
  void File(const std::vector<Target>& targets, const std::vector<Drawn>& tokens);
  void Accept(Sequence& s, const Drawn& drawn);
  bool Ended(Sequence& s) const;
  void Collect(std::vector<FinishedSample>* finished);
  void KeepStates();

  std::shared_ptr<Weights> weights_;
  const EngineOptions options_;
  kernels::ThreadPool pool_;
  std::unique_ptr<Decoder> decoder_;
  LatentCache cache_;
  PrefixTree prefixes_;
  SpeculationRule rule_;
  Drafter drafter_;
  int drafts_ = 0;  // of this step, for each sample; 0: the MTP layers rest
  std::deque<GroupRequest> waiting_;
  std::deque<Owned> preempted_;  // oldest first; before any that wait
  std::vector<Owned> running_;   // in the order of admission
  StopFunction stop_;
  std::uint32_t version_ = 0;
  EngineStats stats_;
  std::vector<FinishedSample> dropped_;  // by an update, reported with the next step
  // Of one step.
  std::vector<std::int32_t> ids_, positions_;
  std::vector<std::byte*> latent_;
  std::vector<kernels::AttentionRow> attention_;
  std::vector<Sequence*> owners_;          // of the rows
  std::vector<const LatentRows*> places_;  // theirs
  std::vector<int> head_rows_;             // rows whose logits are needed, ascending
};

}  // namespace temper::engine
