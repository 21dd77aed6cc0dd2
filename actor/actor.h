#pragma once
// Turns granted groups into rollouts: joins a learner, runs its weights, delivers every sample
// until it is acknowledged.
//
//   loop     takes            gives                  waits for                        woken by
//   actor    grants, weights  rollouts               a frame, only when nothing runs  the learner
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actor/weight_client.h"
#include "engine/engine.h"
#include "engine/fabric.h"
#include "engine/numerics.h"
#include "wire/protocol.h"

namespace temper::actor {

using Micros = std::int64_t;  // of a steady clock

struct Options {
  std::string name;                // "" = host-pid
  std::string keys;                // CURVE key file; "" = none
  int threads = 0;                 // 0 = actors.threads of the run, or all cores
  int max_rows = 512;              // samples decoded together
  double connect_timeout_s = 300;  // until the first welcome; then the run's wire.peer_timeout_s
  std::string device = "cpu";      // or cuda:N
  std::shared_ptr<engine::Fabric> fabric;  // null: weights come by pulls alone
  std::string no_fabric;                   // why it is null, if that is worth a line
  const std::atomic<bool>* stop = nullptr;  // set by a signal handler: say goodbye and return
};

/// The state machine: messages and time in, messages out, one engine step at a time. No socket, no
/// clock.
class Actor {
 public:
  Actor(Options options, std::string endpoint, Micros now);

  /// Throws UserError (not welcome, a model this build can't run) or MachineError (the run failed,
  /// corrupt weights).
  void Handle(const wire::Message& message, Micros now);
  /// A frame that was no message.
  void HandleInvalid(const std::string& error);
  /// Hello, heartbeats, repeated rollouts. Throws MachineError when the learner was silent for too
  /// long.
  void Tick(Micros now);
  /// One engine step. False: nothing runs.
  bool Work(Micros now);
  /// From now on nothing is generated: what runs is given up, what is finished is still delivered.
  void Drain();
  /// Nothing waits for an acknowledgement.
  bool delivered() const { return outbox_.empty(); }
  /// Messages to send, in order; the caller pops what the socket took.
  std::deque<wire::Message>& out() { return out_; }
  bool done() const { return done_; }
  /// Weights come beside the socket: Tick sees the end.
  bool receiving() const { return fabric_ && fabric_->busy(); }
  const std::string& name() const { return hello_.name; }
  /// A line for the log.
  void Say(const std::string& what) const;

  static constexpr Micros kHeartbeat = 1'000'000;
  static constexpr Micros kRepeat = 5'000'000;    // an unacknowledged rollout is sent again
  static constexpr Micros kSilent = 3'000'000;    // a learner away: nothing is repeated
  static constexpr Micros kWorrying = 6'000'000;  // the log says so
  static constexpr int kHelloRefusals = 5;        // then this learner speaks another protocol

 private:
  struct Unacknowledged {
    wire::Message message;
    Micros sent = 0;
  };
  struct Running {
    std::int32_t attempt = 0;
    int samples = 0;         // not finished
    bool truncated = false;  // its log-probs are those of the kept tokens
  };

  void SayHello(Micros now);
  void OnWelcome(const wire::Welcome& welcome, Micros now);
  void BuildEngine(const wire::Welcome& welcome);
  void OnManifest(const wire::WeightsManifest& manifest);
  void Receive(const wire::WeightsManifest& manifest);
  void EndReceive();
  bool WeightsIdle();
  void OnChunk(const wire::WeightsChunk& chunk);
  void OnGrant(wire::Grant grant);
  void OnRefuse(const wire::Refuse& refuse, Micros now);
  void Pull();
  void ApplyWeights();
  void SayLoaded();
  wire::Held HeldNow() const;
  void NoticeSilence(Micros now);
  void Deliver(engine::FinishedSample&& sample, Micros now);

  const Options options_;
  const std::string endpoint_;
  wire::Hello hello_;
  std::deque<wire::Message> out_;
  bool welcomed_ = false, done_ = false, draining_ = false, worried_ = false;
  int hello_refusals_ = 0;  // in a row
  std::uint64_t session_ = 0;
  std::string model_config_;
  double peer_timeout_s_;
  Micros heard_, hello_sent_ = 0, next_heartbeat_ = 0;
  std::optional<std::uint32_t> loaded_;
  std::uint32_t canary_ = 0;  // of the loaded weights
  int valid_ids_ = 0;
  std::unique_ptr<kernels::ThreadPool> pool_;  // of new weights, between engine steps
  std::shared_ptr<engine::Weights> weights_;
  std::unique_ptr<WeightClient> client_;
  std::unique_ptr<engine::FabricThread> fabric_;  // null: none
  std::shared_ptr<std::vector<std::byte>> arriving_;  // of client_, while it is lent
  std::unique_ptr<engine::Engine> engine_;
  std::deque<wire::Grant> early_;  // grants that name weights not yet here
  std::map<std::uint64_t, Running> running_;
  std::map<wire::RolloutId, Unacknowledged> outbox_;
};

/// Runs until the learner says goodbye or `stop` is set: 0. Throws UserError or MachineError, see
/// Actor.
int RunActor(const std::string& endpoint, Options options);

}  // namespace temper::actor
