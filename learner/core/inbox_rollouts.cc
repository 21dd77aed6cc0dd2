// Grants, their leases, and the rollouts that come back.
#include <algorithm>

#include "learner/core/inbox.h"

namespace temper::learner {
namespace {

// Actors of one machine join within a second of each other: the first one leaves the others their
// share until then.
constexpr Micros kGathering = 3'000'000;

constexpr std::size_t kMaxGrantIds = wire::kMaxFrameBytes / sizeof(std::int32_t) / 2;

std::string NameOf(const wire::RolloutId& id) {
  return "g" + std::to_string(id.grp) + ".s" + std::to_string(id.sample);
}

}  // namespace

void Inbox::AddGroup(store::GroupRow row, std::optional<std::string> answer,
                     std::optional<Stored> stored) {
  const std::uint64_t grp = row.grp;
  if (next_group_ == 0) cursor_ = examined_ = grp;
  Group& group = groups_[grp];
  group.row = std::move(row);
  group.answer = std::move(answer);
  group.samples.resize(group_size_);
  group.parts.resize(group_size_);
  if (stored) {
    group.granted_before = true;
    group.row.attempt = stored->row.attempt;
    group.row.granted_version = stored->row.granted_version;
    group.row.granted_step = stored->row.granted_step;
    for (std::size_t i = 0; i < stored->live.size(); ++i) {
      const std::uint32_t sample = stored->live[i].sample;
      if (sample >= group_size_) continue;
      group.samples[sample] = std::move(stored->live[i]);
      if (i < stored->parts.size()) group.parts[sample] = std::move(stored->parts[i]);
    }
  }
  group.missing = static_cast<int>(std::count_if(group.samples.begin(), group.samples.end(),
                                                 [](const auto& s) { return s.state.empty(); }));
  if (group.missing > 0) {
    waiting_.insert(grp);
  } else {
    group.done = std::none_of(group.samples.begin(), group.samples.end(),
                              [](const auto& s) { return s.state == "received"; });
    if (!group.done) to_score_.push_back(grp);
  }
  next_group_ = grp + 1;
}

Inbox::Peer* Inbox::FreestActor(const Group& group, std::size_t share, std::string* id) {
  Peer* best = nullptr;
  for (auto& [name, peer] : peers_) {
    if (!peer.is_actor() || peer.loaded != weights_->version) continue;
    if (now_ - peer.heard > kQuiet) continue;  // perhaps gone, and others with it
    // A group for the first free row: those of its samples that find none wait there.
    if (peer.samples >= peer.hello.rows || peer.groups.size() >= share) continue;
    const bool alone = std::any_of(peer.groups.begin(), peer.groups.end(),
                                   [&](std::uint64_t grp) { return Suspect(groups_.at(grp)); });
    if (alone || (Suspect(group) && !peer.groups.empty())) continue;
    if (best != nullptr && best->samples <= peer.samples) continue;
    best = &peer;
    *id = name;
  }
  return best;
}

bool Inbox::Grant(Group& group, std::size_t share, std::map<std::string, wire::Grant>* grants,
                  Effects* out) {
  std::string id;
  Peer* peer = FreestActor(group, share, &id);
  if (peer == nullptr) return false;
  const std::uint64_t grp = group.row.grp;
  waiting_.erase(grp);
  if (group.granted_before) ++group.row.attempt;
  if (++group.grants > kMaxAttempts) {
    out->failure = std::make_exception_ptr(MachineError(
        "g" + std::to_string(grp) + ": handed out " + std::to_string(group.grants) +
        " times and never finished; the last actor was " + last_actor_ + "; its log says why"));
    return false;
  }
  group.granted_before = true;
  group.row.granted_version = weights_->version;
  group.row.granted_step = StepOf(grp);
  group.actor = id;
  group.actor_instance = peer->hello.instance;
  group.granted = now_;
  group.unlisted = 0;
  peer->groups.insert(grp);
  peer->samples += group.missing;
  last_actor_ = peer->hello.name;
  if (grp < kFirstEval) out->writes.emplace_back(group.row);
  wire::GrantedGroup granted{grp, group.row.attempt, group.row.prompt_ids, {}};
  for (std::uint32_t s = 0; s < group.samples.size(); ++s) {
    if (group.samples[s].state.empty()) granted.samples.push_back(s);
  }
  (*grants)[id].groups.push_back(std::move(granted));
  return true;
}

void Inbox::GrantWaiting(Effects* out) {
  if (!weights_ || waiting_.empty()) return;
  const std::uint64_t end = last_batch_ == 0 ? 0 : GrantEnd();
  const auto allowed = [&](std::uint64_t grp) { return grp < end || grp >= kFirstEval; };
  const auto unfinished =
      static_cast<std::size_t>(std::count_if(groups_.begin(), groups_.end(), [&](const auto& g) {
        return g.second.missing > 0 && allowed(g.first);
      }));
  const int expected = now_ - started_ < kGathering ? options_.config.actors.count : 1;
  const auto actors =
      static_cast<std::size_t>(std::max({CountPeers(wire::Role::kActor), expected, 1}));
  const std::size_t share = (unfinished + actors - 1) / actors;
  // Their sampling differs, so that they travel apart.
  std::map<std::string, wire::Grant> train, eval;
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    const std::uint64_t grp = *next++;
    if (allowed(grp) && !Grant(groups_.at(grp), share, grp < kFirstEval ? &train : &eval, out))
      break;
  }
  for (auto& [id, grant] : train) SendGrant(id, std::move(grant), out);
  for (auto& [id, grant] : eval) SendGrant(id, std::move(grant), out);
}

void Inbox::SendGrant(const std::string& id, wire::Grant grant, Effects* out) const {
  const configs::Grpo& grpo = options_.config.grpo;
  grant.session = options_.welcome.session;
  grant.version = weights_->version;
  grant.sampling = {
      options_.config.seed, grpo.max_completion_length, grpo.temperature, grpo.top_p, grpo.min_p,
      grpo.top_k,           options_.stop_ids};
  if (grpo.ignore_eos) grant.sampling.stop_ids.clear();
  grant.sampling.experts = options_.experts.moe_layers > 0;
  grant.sampling.kept = grpo.truncates();
  if (grant.groups.front().grp >= kFirstEval) {
    grant.sampling.experts = grant.sampling.kept = false;
    grant.sampling.temperature = 0;
    grant.sampling.top_p = 1;
    grant.sampling.min_p = 0;
    grant.sampling.top_k = 0;
  }
  // The prompts of one message share an array: many long ones take several messages.
  std::vector<wire::GrantedGroup> groups = std::exchange(grant.groups, {});
  std::size_t ids = 0;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    ids += groups[i].prompt_ids.size();
    grant.groups.push_back(std::move(groups[i]));
    const bool last = i + 1 == groups.size();
    if (!last && ids + groups[i + 1].prompt_ids.size() <= kMaxGrantIds) continue;
    out->send.emplace_back(id, grant.Encode());
    grant.groups.clear();
    ids = 0;
  }
}

std::string Inbox::WhyUnknown(const wire::Rollout& rollout, const Group* group) const {
  const wire::RolloutId& r = rollout.id;
  const std::string name = NameOf(r);
  if (rollout.session != options_.welcome.session)
    return name + " belongs to an earlier learner process";
  const bool eval = r.grp >= kFirstEval;
  if ((r.grp >= next_group_ && !(eval && group != nullptr)) ||
      r.sample >= (eval ? 1 : group_size_)) {
    return name + " was never granted";
  }
  if (group != nullptr && (!group->granted_before || r.attempt > group->row.attempt)) {
    return name + ": attempt " + std::to_string(r.attempt) + " was never granted";
  }
  return "";
}

std::string Inbox::WhyBroken(const wire::Rollout& rollout, const Group* group) const {
  const std::string name = NameOf(rollout.id);
  if (rollout.finish == "error" || rollout.finish == "cancelled")
    return name + " ended as " + rollout.finish;
  if (rollout.ids.empty()) return name + " has no tokens";
  if (rollout.ids.size() > static_cast<std::size_t>(options_.config.grpo.max_completion_length)) {
    return name + " has " + std::to_string(rollout.ids.size()) +
           " tokens, the limit is grpo.max_completion_length";
  }
  for (const std::int32_t token : rollout.ids) {
    if (token < 0 || (options_.welcome.valid_ids > 0 && token >= options_.welcome.valid_ids)) {
      return name + " has id " + std::to_string(token) + ", the tokenizer's are [0, " +
             std::to_string(options_.welcome.valid_ids) + ")";
    }
  }
  if (!rollout.versions.empty() && rollout.versions.front() != rollout.version) {
    return name + ": its first token's version is not its version";
  }
  if (rollout.id.grp >= kFirstEval || group == nullptr) return "";
  std::string why;
  if (options_.experts.moe_layers > 0) {
    why = WhyNotExperts(rollout.experts, group->row.prompt_ids.size() + rollout.ids.size(),
                        options_.experts);
  }
  if (why.empty() && options_.config.grpo.truncates())
    why = WhyNotKept(rollout.kept, rollout.ids, options_.welcome.valid_ids);
  return why.empty() ? "" : name + ": " + why;
}

store::RolloutRow Inbox::ToRow(wire::Rollout rollout, const std::string& actor) const {
  store::RolloutRow row;
  row.grp = rollout.id.grp;
  row.sample = rollout.id.sample;
  row.attempt = rollout.id.attempt;
  row.version = rollout.version;
  row.version_last = rollout.versions.empty() ? rollout.version : rollout.versions.back();
  const bool mixed = std::any_of(rollout.versions.begin(), rollout.versions.end(),
                                 [&](std::uint32_t v) { return v != rollout.version; });
  if (mixed) row.versions = std::move(rollout.versions);
  row.seed = options_.config.seed;
  row.state = "received";
  row.actor = actor;
  row.text = options_.detokenize(rollout.ids);
  row.loss_mask.assign(rollout.ids.size(), 1);
  row.ids = std::move(rollout.ids);
  row.logp = std::move(rollout.logp);
  // What nobody asked for is not kept.
  if (options_.experts.moe_layers > 0) row.experts = std::move(rollout.experts);
  if (options_.config.grpo.truncates()) row.kept = std::move(rollout.kept);
  row.finish_reason = rollout.finish;
  return row;
}

void Inbox::OnRollout(const std::string& id, wire::Rollout rollout, Effects* out) {
  const auto found = groups_.find(rollout.id.grp);
  Group* group = found == groups_.end() ? nullptr : &found->second;
  const Peer& peer = peers_.at(id);
  const std::string unknown = WhyUnknown(rollout, group);
  const std::string why = unknown.empty() ? WhyBroken(rollout, group) : unknown;
  if (!why.empty()) {
    refusals_.Add("not_taken", peer.hello.name + ": " + why, now_);
    Refuse(id, wire::kNotTaken, why, out, rollout.id);
    // Whoever holds the group will not deliver this sample: hand it out again.
    const wire::RolloutId& r = rollout.id;
    if (unknown.empty() && group != nullptr && group->actor == id &&
        group->row.attempt == r.attempt && group->samples[r.sample].state.empty()) {
      ReturnGrant(*group);
      GrantWaiting(out);
    }
    return;
  }
  const wire::RolloutId rollout_id = rollout.id;
  store::RolloutRow row = ToRow(std::move(rollout), peer.hello.name);
  // The acknowledgement of a repeated rollout waits for the same commit as the first one.
  out->acks.emplace_back(id, rollout_id);
  if (group == nullptr) {
    out->writes.emplace_back(RolloutWrite{std::move(row), "late"});
    return;
  }
  const store::RolloutRow& have = group->samples[row.sample];
  if (!have.state.empty()) {
    // Also where the first one was dropped for its reward: one attempt of a sample counts.
    if (have.attempt != row.attempt && row.grp < kFirstEval) {
      out->writes.emplace_back(RolloutWrite{std::move(row), "duplicate"});
    }
    return;
  }
  const bool one_version = row.versions.empty() && row.version == group->row.granted_version;
  // Groups of evaluations have numbers of former ones.
  if ((options_.config.grpo.max_lag == 0 || row.grp >= kFirstEval) && !one_version) {
    out->notes.push_back(row.Name() + ": not of one version; wanted is v" +
                         std::to_string(group->row.granted_version));
    if (row.grp < kFirstEval)
      out->writes.emplace_back(RolloutWrite{std::move(row), "wrong_version"});
    if (group->actor == id) ReturnGrant(*group);
    return GrantWaiting(out);
  }
  Accept(*group, std::move(row), out);
}

void Inbox::Accept(Group& group, store::RolloutRow row, Effects* out) {
  stats_.completion_tokens += row.ids.size();
  if (row.grp < kFirstEval) out->writes.emplace_back(RolloutWrite{row, ""});
  const std::uint32_t sample = row.sample;
  group.samples[sample] = std::move(row);
  --group.missing;
  const auto holder = peers_.find(group.actor);
  if (holder != peers_.end()) --holder->second.samples;
  if (group.missing > 0) {
    if (!group.actor.empty() || waiting_.contains(group.row.grp)) return;
    waiting_.insert(group.row.grp);
    return GrantWaiting(out);
  }
  if (holder != peers_.end()) holder->second.groups.erase(group.row.grp);
  group.actor.clear();
  waiting_.erase(group.row.grp);
  group.complete = now_;
  to_score_.push_back(group.row.grp);
  AskForScores(out);
  GrantWaiting(out);
}

}  // namespace temper::learner
