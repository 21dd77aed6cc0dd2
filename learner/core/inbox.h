#pragma once
// The serving protocol as a pure state machine: messages, time and commands in; replies and
// database writes out.
//
//   group    waiting -> granted (leased to one actor) -> received -> asked (leased to one reward
//   worker) -> done
//            a lease returns when its holder says goodbye, is gone, is silent for kSilence, or no
//            longer lists it in its heartbeats; attempt + 1 with each new grant
//   poison   a group whose holders died twice is granted alone; after kQuarantine different dead
//            holders, the last of which held nothing else, its samples are dropped as `quarantined`
//   batch    the first G groups, in order, from where the former batch ended; with dynamic_sampling
//            the first G whose rewards differ (groups without a spread are passed over), but at
//            most max_gen_batches * G are looked at: then it is filled with some of those
//   window   what the open batch may still need, and max_lag batches more. Groups are granted with
//            the newest published version only and consumed in order, so with one publication a
//            batch every trained rollout has lag <= max_lag
//   evaluation   groups of one greedy sample, numbered from kFirstEval: never stored, never trained
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/fabric.h"
#include "learner/core/service.h"
#include "learner/core/weight_delta.h"
#include "wire/protocol.h"
#include "wire/refusals.h"

namespace temper::learner {

using Micros = std::int64_t;  // of a steady clock

struct RolloutWrite {
  store::RolloutRow row;
  std::string drop_reason;  // not "": it is stored, but never trained
};
struct ScoreWrite {
  wire::RolloutId id;
  std::optional<double> score;
  std::string status;
  std::vector<store::RewardPart> parts;
  std::string drop_reason;
};
/// A stored rollout that will not be trained.
struct DropWrite {
  wire::RolloutId id;
  std::string reason;
};
using StoreWrite = std::variant<store::GroupRow, RolloutWrite, ScoreWrite, DropWrite>;

/// What the caller must do, each list in order.
struct Effects {
  std::vector<std::pair<std::string, wire::Message>> send;  // now
  std::vector<StoreWrite> writes;                           // then
  std::vector<std::pair<std::string, wire::RolloutId>>
      acks;                        // after the commit of all writes so far
  std::vector<std::string> notes;  // lines for the log
  /// The full set from device to device, beside everything; Inbox::BroadcastEnded is told the end.
  struct Broadcast {
    engine::FabricGroup group;
    std::shared_ptr<const WeightSet> weights;
  };
  std::optional<Broadcast> broadcast;
  bool stop_broadcast = false;     // the one under way
  std::exception_ptr failure;      // the run ends: UserError or MachineError
};

/// Groups below it may be needed while `batch` (from 1), which begins with group `first`, is open.
std::uint64_t WindowEnd(const configs::Config& config, std::int64_t batch, std::uint64_t first);

class Inbox {
 public:
  struct Options {
    configs::Config config;
    wire::Welcome welcome;  // what peers are told
    std::vector<std::int32_t> stop_ids;
    ExpertShape experts;  // that rollouts must carry
    std::shared_ptr<engine::Fabric> fabric;  // null: weights are pulled; only asked for names here
    std::function<std::string(std::span<const std::int32_t>)> detokenize;
  };
  Inbox(Options options, Micros now);

  static constexpr Micros kSilence = 10'000'000;  // without a message, a peer's leases return
  static constexpr Micros kQuiet = 4'000'000;     // without a message, an actor is granted nothing
  static constexpr Micros kHeartbeat = 1'000'000;
  static constexpr Micros kGrace = 5'000'000;  // for what was sent to reach its receiver
  static constexpr int kQuarantine = 5;
  static constexpr int kSuspect = 2;
  static constexpr int kMaxAttempts = 20;      // grants of one group before the run ends
  static constexpr int kFabricTries = 3;       // broadcasts that fail in a row, then none is tried
  static constexpr int kMaxScoreAttempts = 5;  // then the group's status is `unavailable`

  // From the wire.
  void Handle(const std::string& peer, const wire::Message& message, Micros now, Effects* out);
  void HandleInvalid(const std::string& peer, const std::string& error, Effects* out);
  void PeerGone(const std::string& peer, Effects* out);
  void Tick(Micros now, Effects* out);

  // From training.
  /// `delta`: from the set published before, if it is shorter than the full one.
  void Publish(std::shared_ptr<const WeightSet> weights, Effects* out,
               std::shared_ptr<const WeightDelta> delta = nullptr);
  /// `problem`: "" or why the broadcast failed.
  void BroadcastEnded(const std::string& problem, Effects* out);
  /// What the database already has of a group (resume).
  struct Stored {
    store::GroupRow row;
    std::vector<store::RolloutRow> live;                // by sample
    std::vector<std::vector<store::RewardPart>> parts;  // of each
  };
  /// A group of the window. In ascending order, without gaps.
  void AddGroup(store::GroupRow row, std::optional<std::string> answer,
                std::optional<Stored> stored);
  /// Reward scripts that changed: groups that are asked for from now on are scored by them.
  void UseScripts(std::vector<std::pair<std::string, std::string>> files, Effects* out);
  /// Training waits for `batch` from now on; the window's groups are there.
  void Open(std::int64_t batch, Micros now, Effects* out);
  std::uint64_t next_group() const { return next_group_; }
  bool Complete(std::int64_t batch) const;
  Batch Take(std::int64_t batch);

  static constexpr std::uint64_t kFirstEval = std::uint64_t{1} << 62;
  /// A row to be evaluated on the newest weights, row.grp from kFirstEval on.
  void AddEval(store::GroupRow row, std::optional<std::string> answer);
  void GrantEvals(Micros now, Effects* out);
  /// Rows of AddEval that are not scored yet.
  int unfinished_evals() const;
  std::vector<ScoredGroup> TakeEvals();
  std::vector<std::string> peers() const;
  void SayGoodbye(const std::string& reason, bool failed, Effects* out);

  /// Counters since the last call; wait_seconds is not known here.
  ServiceStats TakeStats();

 private:
  struct Peer {
    wire::Hello hello;
    Micros heard = 0;
    std::optional<std::uint32_t> loaded;  // weights confirmed by an actor
    Micros offered = 0;                   // its last manifest or chunk
    int bad_weights = 0;                  // canaries that were not the published weights'
    bool mixed = false;                   // of another numerics id: its canary says nothing
    std::set<std::uint64_t> groups;       // leased: to generate or to score
    int samples = 0;                      // an actor's samples in flight
    bool is_actor() const { return hello.role == wire::Role::kActor; }
  };
  struct Group {
    store::GroupRow row;
    std::optional<std::string> answer;
    std::vector<store::RolloutRow> samples;             // state "" = missing
    std::vector<std::vector<store::RewardPart>> parts;  // a sample
    int missing = 0;
    bool granted_before = false;
    int grants = 0;                    // of this process
    std::string actor;                 // lease; "" = none
    std::uint64_t actor_instance = 0;  // of the last lease
    Micros granted = 0;
    int unlisted = 0;                   // heartbeats in a row that lacked it
    std::set<std::uint64_t> died_with;  // instances of holders that died
    bool done = false;
    Micros complete = 0;        // when the last rollout came
    std::uint64_t request = 0;  // of the score request under way, 0 = none
    std::string worker;
    Micros asked = 0;
    int score_attempts = 0;
  };

  // inbox.cc: messages
  void OnHello(const std::string& id, const wire::Hello& hello, Micros now, Effects* out);
  std::string WhyNotWelcome(const wire::Hello& hello, bool* mixed) const;
  void Refuse(const std::string& id, const char* code, const std::string& reason, Effects* out,
              std::optional<wire::RolloutId> rollout = std::nullopt);
  void Starve(Micros now, Effects* out);
  int CountPeers(wire::Role role) const;

  // inbox_weights.cc: the published set
  void Offer(const std::string& id, Effects* out);
  void OfferAgain(Micros now, Effects* out);
  void OnPull(const std::string& id, const wire::WeightsPull& pull, Effects* out);
  void OnLoaded(const std::string& id, const wire::WeightsLoaded& loaded, Effects* out);

  // inbox_fabric.cc: the published set from device to device
  std::vector<std::string> FormGroup(Effects* out);
  void LeaveGroup(const std::string& id, bool gone, Effects* out);

  // inbox_leases.cc: who holds what, and what became of holders
  enum class Leaving { kInOrder, kDied };
  void Leave(const std::string& id, Leaving how, Effects* out);
  /// Leave, but what it held waits until somebody grants.
  void Remove(const std::string& id, Leaving how, Effects* out);
  void ReturnGrant(Group& group);
  void Restore(const std::string& id, const wire::Hello& hello);
  void OnHeartbeat(const std::string& id, const wire::Heartbeat& heartbeat, Effects* out);
  bool Missed(Group& group, Micros since, bool listed) const;
  void Blame(Group& group, std::uint64_t instance, bool alone, Effects* out);
  void Forgive(std::uint64_t instance);
  bool Suspect(const Group& group) const;

  // inbox_batches.cc: which groups are needed, and which make the batch
  std::uint64_t NeededEnd() const;
  std::uint64_t GrantEnd() const;
  std::int64_t StepOf(std::uint64_t grp) const;
  void Examine();

  // inbox_rollouts.cc: grants, leases, rollouts
  void GrantWaiting(Effects* out);
  bool Grant(Group& group, std::size_t share, std::map<std::string, wire::Grant>* grants,
             Effects* out);
  void SendGrant(const std::string& id, wire::Grant grant, Effects* out) const;
  Peer* FreestActor(const Group& group, std::size_t share, std::string* id);
  void OnRollout(const std::string& id, wire::Rollout rollout, Effects* out);
  std::string WhyUnknown(const wire::Rollout& rollout, const Group* group) const;
  std::string WhyBroken(const wire::Rollout& rollout, const Group* group) const;
  void Accept(Group& group, store::RolloutRow row, Effects* out);
  store::RolloutRow ToRow(wire::Rollout rollout, const std::string& actor) const;

  // inbox_scores.cc: score requests and results
  void AskForScores(Effects* out);
  void ReturnRequest(Group& group, Effects* out);
  void ReturnLateRequests(Micros now, Effects* out);
  void GiveUpScoring(Group& group, const std::string& why, Effects* out);
  wire::ScoreRequest RequestFor(const Group& group) const;
  void OnScoreResult(const std::string& id, const wire::ScoreResult& result, Effects* out);
  void Settle(Group& group, const std::vector<wire::ScoreResult::Sample>& scores, Effects* out);

  Options options_;
  std::size_t group_size_, groups_per_step_;
  std::map<std::string, Peer> peers_;
  std::shared_ptr<const WeightSet> weights_;
  std::shared_ptr<const WeightDelta> delta_;
  std::optional<std::uint32_t> canary_;  // of weights_
  bool someone_loaded_ = false;  // the newest weights
  wire::Message manifest_;
  struct {
    std::string id;                    // "": none; a new one comes with the next full set
    std::vector<std::string> members;  // connections; member i has rank i + 1
    std::uint32_t version = 0;         // last sent
    bool sending = false;
    std::string broken;  // why the broadcast under way can't end well
    bool excused = false;  // ... which is no fault of the fabric
    int failures = 0;      // in a row
  } fabric_;
  std::map<std::uint64_t, Group> groups_;
  std::uint64_t next_group_ = 0;     // of AddGroup
  std::set<std::uint64_t> waiting_;  // to be granted
  std::deque<std::uint64_t> to_score_;
  std::map<std::uint64_t, std::uint64_t> requests_;  // id -> grp
  std::uint64_t next_request_ = 1;
  std::int64_t open_batch_ = 0;  // training waits for it, 0 = nothing
  std::int64_t last_batch_ = 0;  // the highest opened
  std::uint64_t cursor_ = 0;     // first group of the open batch, or of the next one
  std::uint64_t examined_ = 0;   // groups below it are kept for the open batch or passed over
  std::vector<std::uint64_t> kept_, passed_over_;
  Micros started_, now_, opened_ = 0, next_heartbeat_ = 0;
  Micros actor_heard_, worker_heard_;  // any of the role
  std::string last_actor_, last_worker_;
  ServiceStats stats_;
  std::map<std::string, int> failures_;
  wire::Refusals refusals_;
};

}  // namespace temper::learner
