#pragma once
// A whole run in one process and in virtual time: inbox, database, actors and reward workers over a
// network that loses, repeats, reorders and cuts.
#include <cstdint>
#include <string>

namespace temper::bench {

struct LossyOptions {
  std::uint64_t rollouts = 100'000;
  int actors = 8, workers = 2;
  int group_size = 8, groups_per_step = 125, max_lag = 0;
  double drop = 0.1, repeat = 0.1;  // of messages
  double cuts_per_minute = 2;       // connections that break, a peer
  double actor_kills_per_minute = 0.5;
  int learner_kills = 10;  // in the whole run, evenly
  std::uint64_t seed = 1;
  // Controls: each breaks one promise.
  bool acknowledge_early = false;  // before the commit
  bool never_repeat = false;       // an actor sends each rollout once
};

struct LossyReport {
  std::uint64_t rows = 0, extra = 0, missing = 0;  // of trained (group, sample)
  std::uint64_t acknowledged = 0, lost = 0;        // rollouts acknowledged; of those without a row
  std::uint64_t received = 0;                      // rollout messages that reached the learner
  std::uint64_t dropped_rows = 0;                  // stored, with their reason
  std::uint64_t messages = 0, drops = 0, repeats = 0, cuts = 0, actor_kills = 0, learner_kills = 0;
  double virtual_seconds = 0, seconds = 0;
  std::string hash;   // SHA-256 over all trained rows: group, sample, version, ids, log-probs
  std::string stuck;  // why the run could not go on, "" = it ended
};

/// Real: wire encoding and decoding, actor::Actor with its engine, learner::Inbox and Recorder, the
/// SQLite database in `folder` (which must be empty). Stand-ins: the network, the clock, the reward
/// workers' scoring, and training, which publishes seeded weights.
LossyReport LossyRun(const LossyOptions& options, const std::string& folder);

}  // namespace temper::bench
