#include "learner/core/inbox.h"

#include <algorithm>

namespace temper::learner {

using wire::Kind;

Inbox::Inbox(Options options, Micros now)
    : options_(std::move(options)),
      group_size_(static_cast<std::size_t>(options_.config.grpo.num_generations)),
      groups_per_step_(static_cast<std::size_t>(options_.config.grpo.groups_per_step)),
      started_(now),
      now_(now),
      next_heartbeat_(now + kHeartbeat),
      actor_heard_(now),
      worker_heard_(now) {}

void Inbox::Handle(const std::string& id, const wire::Message& message, Micros now, Effects* out) {
  now_ = now;
  const auto found = peers_.find(id);
  Peer* peer = found == peers_.end() ? nullptr : &found->second;
  if (peer != nullptr) {
    peer->heard = now;
    (peer->is_actor() ? actor_heard_ : worker_heard_) = now;
  }
  const Kind kind = static_cast<Kind>(message.kind);
  try {
    if (kind == Kind::kHello) return OnHello(id, wire::Hello::Decode(message), now, out);
    if (peer == nullptr) {
      if (kind == Kind::kGoodbye) return;
      return Refuse(id, wire::kHelloFirst, "this connection has not said hello", out);
    }
    if (kind == Kind::kHeartbeat) return OnHeartbeat(id, wire::Heartbeat::Decode(message), out);
    if (kind == Kind::kGoodbye) {
      const wire::Goodbye goodbye = wire::Goodbye::Decode(message);
      out->notes.push_back(peer->hello.name + " leaves: " + goodbye.reason);
      return Leave(id, goodbye.failed ? Leaving::kDied : Leaving::kInOrder, out);
    }
    if (kind == Kind::kRefuse) {
      const wire::Refuse refuse = wire::Refuse::Decode(message);
      out->notes.push_back(peer->hello.name + " refused a message: " + refuse.reason);
      // Whatever it was, this peer will not do it: what it has goes to others.
      return Leave(id, Leaving::kInOrder, out);
    }
    if (peer->is_actor()) {
      if (kind == Kind::kRollout) return OnRollout(id, wire::Rollout::Decode(message), out);
      if (kind == Kind::kWeightsPull) return OnPull(id, wire::WeightsPull::Decode(message), out);
      if (kind == Kind::kWeightsLoaded)
        return OnLoaded(id, wire::WeightsLoaded::Decode(message), out);
    } else if (kind == Kind::kScoreResult) {
      return OnScoreResult(id, wire::ScoreResult::Decode(message), out);
    }
    Refuse(id, wire::kBadMessage,
           "a learner takes no " + wire::KindName(message.kind) + " from " + peer->hello.name, out);
  } catch (const wire::ProtocolError& error) {
    HandleInvalid(id, error.what(), out);
  }
}

void Inbox::HandleInvalid(const std::string& id, const std::string& error, Effects* out) {
  const auto peer = peers_.find(id);
  const std::string name = peer == peers_.end() ? "an unknown peer" : peer->second.hello.name;
  refusals_.Add("bad_message from " + name, name + ": " + error, now_);
  Refuse(id, wire::kBadMessage, error, out);
}

void Inbox::Refuse(const std::string& id, const char* code, const std::string& reason, Effects* out,
                   std::optional<wire::RolloutId> rollout) {
  out->send.emplace_back(id, wire::Refuse{code, reason, rollout}.Encode());
}

std::string Inbox::WhyNotWelcome(const wire::Hello& hello, bool* mixed) const {
  const wire::Welcome& welcome = options_.welcome;
  if (!hello.run.empty() && hello.run != welcome.run) {
    return hello.name + " belongs to run " + hello.run + ", this is run " + welcome.run;
  }
  const bool same = std::find(hello.numerics.begin(), hello.numerics.end(), welcome.numerics) !=
                    hello.numerics.end();
  if (hello.role != wire::Role::kActor || same) return "";
  const std::string theirs = hello.numerics.empty() ? "none" : hello.numerics.front();
  const std::string what =
      "actor " + hello.name + " computes as " + theirs + ", this run as " + welcome.numerics;
  *mixed = options_.config.numerics == "mixed";
  return *mixed ? ""
                : what + "; use the same build, or numerics: \"mixed\" with rollout_correction";
}

void Inbox::OnHello(const std::string& id, const wire::Hello& hello, Micros now, Effects* out) {
  const bool actor = hello.role == wire::Role::kActor;
  bool mixed = false;
  if (const std::string why = WhyNotWelcome(hello, &mixed); !why.empty()) {
    refusals_.Add("not_welcome", why + "; refused", now);
    return Refuse(id, wire::kNotWelcome, why, out);
  }
  if (!peers_.contains(id)) {
    // The same process on another connection: what it no longer holds is free.
    const auto old = std::find_if(peers_.begin(), peers_.end(), [&](const auto& p) {
      return p.second.hello.instance == hello.instance;
    });
    if (old == peers_.end()) {
      out->notes.push_back(
          (actor ? "actor " : "reward worker ") + hello.name + " joined" +
          (mixed ? "; of another numerics id, as numerics: \"mixed\" allows" : ""));
    } else {
      Remove(std::string(old->first), Leaving::kInOrder, out);
    }
    Peer& peer = peers_[id];
    peer.hello = hello;
    peer.heard = now;
    peer.mixed = mixed;
    (actor ? last_actor_ : last_worker_) = hello.name;
    (actor ? actor_heard_ : worker_heard_) = now;
    Forgive(hello.instance);
    if (actor && hello.session == options_.welcome.session) Restore(id, hello);
  }
  out->send.emplace_back(id, options_.welcome.Encode());
  if (actor && weights_) Offer(id, out);
  GrantWaiting(out);
  if (!actor) AskForScores(out);
}

int Inbox::CountPeers(wire::Role role) const {
  return static_cast<int>(std::count_if(
      peers_.begin(), peers_.end(), [&](const auto& p) { return p.second.hello.role == role; }));
}

void Inbox::Tick(Micros now, Effects* out) {
  now_ = now;
  for (std::string& note : refusals_.TakeNotes()) out->notes.push_back(std::move(note));
  if (now < next_heartbeat_) return;
  next_heartbeat_ = now + kHeartbeat;
  std::vector<std::string> silent;
  for (const auto& [id, peer] : peers_) {
    if (now - peer.heard > kSilence) {
      silent.push_back(id);
    } else {
      out->send.emplace_back(id, wire::Heartbeat().Encode());
    }
  }
  for (const std::string& id : silent) {
    out->notes.push_back(peers_.at(id).hello.name + " was silent for " +
                         std::to_string(kSilence / 1'000'000) + " s");
    Remove(id, Leaving::kDied, out);  // all of them, before one gets what another held
  }
  OfferAgain(now, out);
  GrantWaiting(out);  // the share of an actor changes with time
  if (!silent.empty()) AskForScores(out);
  ReturnLateRequests(now, out);
  Starve(now, out);
}

void Inbox::Starve(Micros now, Effects* out) {
  const bool evaluating = unfinished_evals() > 0;
  if ((open_batch_ == 0 && !evaluating) || out->failure) return;
  int samples = 0, groups = 0;
  const std::uint64_t end = NeededEnd();
  for (const auto& [grp, group] : groups_) {
    if (grp >= end && grp < kFirstEval) continue;
    samples += group.missing;
    groups += group.missing == 0 && !group.done;
  }
  const auto limit = static_cast<Micros>(options_.config.wire.peer_timeout_s * 1e6);
  const auto check = [&](bool needed, wire::Role role, Micros heard, const char* whom,
                         const std::string& last, const std::string& lacking) {
    const Micros waited = now - std::max(heard, opened_);
    if (!needed || CountPeers(role) > 0 || waited <= limit || out->failure) return;
    out->failure = std::make_exception_ptr(MachineError(
        (evaluating ? std::string("evaluation") : "step " + std::to_string(StepOf(cursor_))) +
        ": waited " + std::to_string(waited / 1'000'000) + " s (wire.peer_timeout_s) for " + whom +
        "; " + lacking + "; " + (last.empty() ? "none ever joined" : "the last one was " + last)));
  };
  check(samples > 0, wire::Role::kActor, actor_heard_, "an actor", last_actor_,
        std::to_string(samples) + " samples are not generated");
  check(groups > 0, wire::Role::kRewardWorker, worker_heard_, "a reward worker", last_worker_,
        std::to_string(groups) + " groups are not scored");
}

std::vector<std::string> Inbox::peers() const {
  std::vector<std::string> ids;
  for (const auto& [id, peer] : peers_) ids.push_back(id);
  return ids;
}

void Inbox::SayGoodbye(const std::string& reason, bool failed, Effects* out) {
  for (const auto& [id, peer] : peers_)
    out->send.emplace_back(id, wire::Goodbye{reason, failed}.Encode());
}

ServiceStats Inbox::TakeStats() {
  ServiceStats stats = std::exchange(stats_, {});
  stats.actors = CountPeers(wire::Role::kActor);
  stats.reward_workers = CountPeers(wire::Role::kRewardWorker);
  stats.reward_failures.assign(failures_.begin(), failures_.end());
  failures_.clear();
  stats.refused.assign(refusals_.counts().begin(), refusals_.counts().end());
  return stats;
}

}  // namespace temper::learner
