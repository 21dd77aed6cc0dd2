#pragma once
// The serving half of a learner without threads, sockets and clock: inbox, recorder and database by
// hand.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "learner/core/recorder.h"

namespace temper::bench {

using learner::Micros;

/// What learner::Serving and learner::Service do, one call at a time. Prompts are a function of the
/// group's number. Every call may throw what ends a run.
class LoneLearner {
 public:
  struct Options {
    configs::Config config;
    std::string model_config = "{}";  // config.json's text
    std::string database;             // made where it is not there
    std::uint64_t session = 1;
    bool acknowledge_early = false;  // the control: before the commit
    std::function<void(const std::string& peer, const wire::Message&)> send;
  };
  /// `step` > 0, or a database that is there: a resumed run.
  LoneLearner(Options options, std::int64_t step, std::uint64_t cursor, std::uint32_t version,
              Micros now);

  void Publish(std::shared_ptr<const learner::WeightSet> weights);
  /// Adds the groups that `batch` may need and opens it.
  void Open(std::int64_t batch, Micros now);
  void Handle(const std::string& peer, const wire::Message& message, Micros now);
  void PeerGone(const std::string& peer);
  /// Heartbeats, and the commit where it is due.
  void Tick(Micros now);
  void Commit();
  bool Complete(std::int64_t batch) const { return inbox_.Complete(batch); }
  learner::Batch Take(std::int64_t batch);
  store::Trajectories& store() { return recorder_.store(); }

 private:
  void Perform(learner::Effects effects);
  std::optional<learner::Inbox::Stored> StoredOf(std::uint64_t grp);

  Options options_;
  learner::Inbox inbox_;
  learner::Recorder recorder_;
  std::optional<std::uint64_t> last_stored_;
  std::uint64_t next_group_, cursor_;
  Micros now_;
};

}  // namespace temper::bench
