#include "learner/core/recorder.h"

#include <algorithm>

namespace temper::learner {

void Recorder::Write(StoreWrite&& write, Micros now, std::int64_t wall_ms) {
  if (!in_transaction_) {
    store_.Begin();
    in_transaction_ = true;
    oldest_row_ = now;
  }
  ++rows_;
  if (const auto* group = std::get_if<store::GroupRow>(&write)) {
    store_.PutGroup(*group);
  } else if (auto* rollout = std::get_if<RolloutWrite>(&write)) {
    store::RolloutRow& row = rollout->row;
    row.received_ms = wall_ms;
    // Its state is what the second statement makes it.
    row.state = "received";
    row.reason.clear();
    const bool live = store_.PutRollout(row);
    if (live && !rollout->drop_reason.empty())
      store_.Drop(row.grp, row.sample, row.attempt, rollout->drop_reason);
  } else if (const auto* score = std::get_if<ScoreWrite>(&write)) {
    const wire::RolloutId& id = score->id;
    store_.PutScore(id.grp, id.sample, id.attempt, score->score, score->status, score->parts);
    if (!score->drop_reason.empty()) store_.Drop(id.grp, id.sample, id.attempt, score->drop_reason);
  } else if (const auto* drop = std::get_if<DropWrite>(&write)) {
    store_.Drop(drop->id.grp, drop->id.sample, drop->id.attempt, drop->reason);
  }
}

void Recorder::Acknowledge(const std::vector<std::pair<std::string, wire::RolloutId>>& acks) {
  acks_.insert(acks_.end(), acks.begin(), acks.end());
}

bool Recorder::Due(Micros now) const {
  return in_transaction_ ? rows_ >= kCommitRows || now - oldest_row_ >= kCommitMicros
                         : !acks_.empty();
}

Micros Recorder::DueIn(Micros now, Micros otherwise) const {
  if (!in_transaction_) return otherwise;
  return std::max<Micros>(0, kCommitMicros - (now - oldest_row_));
}

std::map<std::string, wire::Ack> Recorder::Commit() {
  if (in_transaction_) {
    store_.Commit();
    in_transaction_ = false;
    rows_ = 0;
  }
  std::map<std::string, wire::Ack> acks;
  for (const auto& [peer, id] : std::exchange(acks_, {})) acks[peer].rollouts.push_back(id);
  return acks;
}

}  // namespace temper::learner
