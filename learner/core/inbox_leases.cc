// Who holds what: peers that leave, come back, lose messages or die with a group.
#include <algorithm>

#include "learner/core/inbox.h"

namespace temper::learner {

void Inbox::PeerGone(const std::string& id, Effects* out) { Leave(id, Leaving::kDied, out); }

void Inbox::Leave(const std::string& id, Leaving how, Effects* out) {
  Remove(id, how, out);
  GrantWaiting(out);
  AskForScores(out);
}

void Inbox::Remove(const std::string& id, Leaving how, Effects* out) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  LeaveGroup(id, /*gone=*/true, out);
  const Peer peer = std::move(found->second);
  peers_.erase(found);
  for (const std::uint64_t grp : peer.groups) {
    Group& group = groups_.at(grp);
    if (!peer.is_actor()) {
      ReturnRequest(group, out);
      continue;
    }
    ReturnGrant(group);
    // What was granted at this very moment never reached it: actors of one machine may go together.
    if (how == Leaving::kDied && group.granted < now_)
      Blame(group, peer.hello.instance, peer.groups.size() == 1, out);
  }
  if (how == Leaving::kDied || !peer.groups.empty()) {
    out->notes.push_back(peer.hello.name + " is gone; " +
                         (peer.groups.empty()
                              ? "it held nothing"
                              : std::to_string(peer.groups.size()) + " groups from g" +
                                    std::to_string(*peer.groups.begin()) +
                                    " on are handed out again"));
  }
}

void Inbox::ReturnGrant(Group& group) {
  const auto holder = peers_.find(group.actor);
  if (holder != peers_.end()) {
    holder->second.groups.erase(group.row.grp);
    holder->second.samples -= group.missing;
  }
  group.actor.clear();
  if (group.missing > 0) waiting_.insert(group.row.grp);
}

void Inbox::Restore(const std::string& id, const wire::Hello& hello) {
  Peer& peer = peers_.at(id);
  for (const auto& [grp, attempt] : hello.held) {
    const auto found = groups_.find(grp);
    if (found == groups_.end()) continue;
    Group& group = found->second;
    if (!waiting_.contains(grp) || !group.granted_before || group.row.attempt != attempt ||
        group.actor_instance != hello.instance) {
      continue;
    }
    waiting_.erase(grp);
    group.actor = id;
    group.unlisted = 0;
    peer.groups.insert(grp);
    peer.samples += group.missing;
  }
}

bool Inbox::Missed(Group& group, Micros since, bool listed) const {
  if (listed || now_ - since < kGrace) {
    group.unlisted = 0;
    return false;
  }
  // One heartbeat may have been under way for long: a learner that pauses reads it much later.
  return ++group.unlisted >= 2;
}

void Inbox::OnHeartbeat(const std::string& id, const wire::Heartbeat& heartbeat, Effects* out) {
  if (!heartbeat.held) return;
  Peer& peer = peers_.at(id);
  const std::set<std::pair<std::uint64_t, std::int32_t>> held(heartbeat.held->begin(),
                                                              heartbeat.held->end());
  std::vector<std::uint64_t> lost;
  for (const std::uint64_t grp : peer.groups) {
    Group& group = groups_.at(grp);
    const bool missed = peer.is_actor()
                            ? Missed(group, group.granted, held.contains({grp, group.row.attempt}))
                            : Missed(group, group.asked, held.contains({group.request, 0}));
    if (missed) lost.push_back(grp);
  }
  if (lost.empty()) return;
  refusals_.Add("lost_on_the_way",
                peer.hello.name + " has no g" + std::to_string(lost.front()) +
                    (lost.size() > 1 ? " and others" : "") + ": lost on the way, sent again",
                now_);
  const bool actor = peer.is_actor();
  for (const std::uint64_t grp : lost) {
    Group& group = groups_.at(grp);
    if (actor) {
      ReturnGrant(group);
    } else {
      --group.score_attempts;  // the worker is well
      ReturnRequest(group, out);
    }
  }
  if (actor) {
    GrantWaiting(out);
  } else {
    AskForScores(out);
  }
}

bool Inbox::Suspect(const Group& group) const {
  return group.died_with.size() >= static_cast<std::size_t>(kSuspect);
}

void Inbox::Forgive(std::uint64_t instance) {
  for (auto& [grp, group] : groups_) group.died_with.erase(instance);
}

void Inbox::Blame(Group& group, std::uint64_t instance, bool alone, Effects* out) {
  if (group.missing == 0) return;
  group.died_with.insert(instance);
  if (!alone || group.died_with.size() < static_cast<std::size_t>(kQuarantine)) return;
  const std::uint64_t grp = group.row.grp;
  refusals_.Add("quarantined",
                "g" + std::to_string(grp) + ": " + std::to_string(group.died_with.size()) +
                    " actors died with it, the last with nothing else; its samples are dropped",
                now_);
  waiting_.erase(grp);
  for (std::uint32_t s = 0; s < group.samples.size(); ++s) {
    store::RolloutRow& row = group.samples[s];
    const bool missing = row.state.empty();
    if (missing) {
      row.grp = grp;
      row.sample = s;
      row.attempt = group.row.attempt;
      row.version = row.version_last = group.row.granted_version;
      row.seed = options_.config.seed;
      row.actor = last_actor_;
      row.finish_reason = "error";
    }
    if (row.state == "dropped") continue;
    row.state = "dropped";
    row.reason = "quarantined";
    if (grp >= kFirstEval) continue;
    if (missing) {
      out->writes.emplace_back(RolloutWrite{row, row.reason});
    } else {
      out->writes.emplace_back(DropWrite{{grp, s, row.attempt}, row.reason});
    }
  }
  group.missing = 0;
  group.done = true;
  Examine();
}

}  // namespace temper::learner
