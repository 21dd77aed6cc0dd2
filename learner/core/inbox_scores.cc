// Complete groups to reward workers, and what comes back to their rows.
#include <algorithm>

#include "learner/core/inbox.h"

namespace temper::learner {
namespace {

store::RewardPart ToPart(const wire::ScorePart& part) {
  return {part.name,    part.value, part.weight,        part.status,
          part.message, part.line,  part.script_sha256, part.micros};
}

bool Failed(const std::string& status) { return status != "ok" && status != "not_applicable"; }

/// Bytes of what a score request joins to one array.
std::size_t LargestArray(const std::vector<store::RolloutRow>& samples) {
  std::size_t text = 0, ids = 0;
  for (const store::RolloutRow& s : samples) {
    text += s.text.size();
    ids += s.ids.size() * sizeof(std::int32_t);
  }
  return std::max(text, ids);
}

/// "x.lua:3: message" of the first failing part.
std::string Explain(const wire::ScoreResult::Sample& score) {
  for (const wire::ScorePart& part : score.parts) {
    if (!Failed(part.status)) continue;
    const std::string line = part.line > 0 ? ":" + std::to_string(part.line) : "";
    return part.name + line + ": " + (part.message.empty() ? part.status : part.message);
  }
  return score.status;
}

}  // namespace

wire::ScoreRequest Inbox::RequestFor(const Group& group) const {
  wire::ScoreRequest request;
  request.id = group.request;
  request.grp = group.row.grp;
  request.step = StepOf(group.row.grp);
  request.prompt = group.row.prompt_json;
  request.row = group.row.row_json;
  request.answer = group.answer;
  for (const store::RolloutRow& s : group.samples) {
    request.samples.push_back({s.sample, s.version, s.finish_reason, s.text, s.ids});
  }
  return request;
}

void Inbox::UseScripts(std::vector<std::pair<std::string, std::string>> files, Effects* out) {
  options_.welcome.files = std::move(files);
  const wire::Message scripts = wire::Scripts{options_.welcome.files}.Encode();
  for (const auto& [id, peer] : peers_) {
    if (!peer.is_actor()) out->send.emplace_back(id, scripts);
  }
}

void Inbox::AskForScores(Effects* out) {
  while (!to_score_.empty()) {
    auto best = peers_.end();
    for (auto it = peers_.begin(); it != peers_.end(); ++it) {
      const Peer& peer = it->second;
      if (peer.is_actor() || static_cast<std::int64_t>(peer.groups.size()) >= peer.hello.rows)
        continue;
      if (best == peers_.end() || peer.groups.size() < best->second.groups.size()) best = it;
    }
    if (best == peers_.end()) return;
    Group& group = groups_.at(to_score_.front());
    to_score_.pop_front();
    const std::size_t bytes =
        std::max({LargestArray(group.samples), group.row.prompt_json.size(),
                  group.row.row_json.size(), group.answer ? group.answer->size() : 0});
    if (bytes > wire::kMaxFrameBytes) {
      GiveUpScoring(group,
                    "the texts of the group or its row are " + std::to_string(bytes) +
                        " bytes; a message carries " + std::to_string(wire::kMaxFrameBytes),
                    out);
      continue;
    }
    group.asked = now_;
    group.unlisted = 0;
    group.request = next_request_++;
    group.worker = best->first;
    ++group.score_attempts;
    requests_[group.request] = group.row.grp;
    best->second.groups.insert(group.row.grp);
    last_worker_ = best->second.hello.name;
    out->send.emplace_back(best->first, RequestFor(group).Encode());
  }
}

void Inbox::ReturnRequest(Group& group, Effects* out) {
  const auto worker = peers_.find(group.worker);
  if (worker != peers_.end()) worker->second.groups.erase(group.row.grp);
  requests_.erase(group.request);
  group.request = 0;
  group.worker.clear();
  if (group.score_attempts < kMaxScoreAttempts) {
    to_score_.push_front(group.row.grp);
    return;
  }
  GiveUpScoring(group,
                std::to_string(group.score_attempts) +
                    " reward workers were lost with this group; the last was " + last_worker_,
                out);
}

void Inbox::GiveUpScoring(Group& group, const std::string& why, Effects* out) {
  std::vector<wire::ScoreResult::Sample> scores;
  for (std::uint32_t s = 0; s < group.samples.size(); ++s) {
    wire::ScorePart part;
    part.name = "reward";
    part.status = "unavailable";
    part.message = why;
    scores.push_back({s, std::nullopt, "unavailable", {part}});
  }
  Settle(group, scores, out);
}

void Inbox::ReturnLateRequests(Micros now, Effects* out) {
  // A host stops its scripts by the clock; one that is far behind that answers nothing any more.
  const double scripts = static_cast<double>(options_.config.rewards.size() * group_size_);
  double seconds = 60 + 4 * options_.config.reward.timeout_s * scripts;
  for (const configs::RewardFunction& reward : options_.config.rewards) {
    if (!reward.remote.empty()) seconds += 2 * (reward.timeout_s + 10) * (reward.retries + 1);
    if (!reward.model.empty()) seconds += 600;
  }
  std::vector<std::string> late;
  for (const auto& [request, grp] : requests_) {
    const Group& group = groups_.at(grp);
    if (static_cast<double>(now - group.asked) > seconds * 1e6) late.push_back(group.worker);
  }
  for (const std::string& id : late) {
    const auto worker = peers_.find(id);
    if (worker == peers_.end()) continue;
    out->notes.push_back(worker->second.hello.name + " has not answered for " +
                         std::to_string(static_cast<int>(seconds)) + " s");
    PeerGone(id, out);
  }
}

void Inbox::OnScoreResult(const std::string& id, const wire::ScoreResult& result, Effects* out) {
  const auto request = requests_.find(result.id);
  // An answer to a request that was handed to somebody else in the meantime.
  if (request == requests_.end()) return;
  Group& group = groups_.at(request->second);
  if (group.worker != id) return;
  bool matches = result.grp == group.row.grp && result.samples.size() == group.samples.size();
  for (std::size_t s = 0; matches && s < group.samples.size(); ++s)
    matches = result.samples[s].sample == s;
  if (!matches) {
    ReturnRequest(group, out);
    HandleInvalid(
        id,
        "score_result: not the samples of g" + std::to_string(group.row.grp) + " in their order",
        out);
    return AskForScores(out);
  }
  peers_.at(id).groups.erase(group.row.grp);
  requests_.erase(request);
  group.request = 0;
  group.worker.clear();
  Settle(group, result.samples, out);
  AskForScores(out);
}

void Inbox::Settle(Group& group, const std::vector<wire::ScoreResult::Sample>& scores,
                   Effects* out) {
  const configs::Reward& policy = options_.config.reward;
  const bool eval = group.row.grp >= kFirstEval;
  for (std::size_t s = 0; s < group.samples.size(); ++s) {
    store::RolloutRow& row = group.samples[s];
    if (row.state != "received") continue;  // scored before a resume: the first score stands
    const wire::ScoreResult::Sample& score = scores[s];
    const bool failed = Failed(score.status);
    for (const wire::ScorePart& part : score.parts) {
      stats_.reward_seconds += static_cast<double>(part.micros) * 1e-6;
      group.parts[s].push_back(ToPart(part));
    }
    if (failed) ++failures_[score.status];
    if (failed && policy.on_error == "stop" && !eval) {
      const std::string what = row.Name() + ": reward " + score.status + ": " + Explain(score) +
                               " (reward.on_error is \"stop\")";
      out->failure = score.status == "unavailable" ? std::make_exception_ptr(MachineError(what))
                                                   : std::make_exception_ptr(UserError(what));
      return;
    }
    row.status = score.status;
    row.state = "scored";
    row.score = failed ? std::nullopt : score.score;
    if (failed && policy.on_error == "score") row.score = policy.on_error_score;
    ScoreWrite write{{row.grp, row.sample, row.attempt}, row.score, row.status, group.parts[s], ""};
    if (failed && policy.on_error == "drop") {
      row.state = "dropped";
      row.reason = write.drop_reason = score.status;
    }
    if (!eval) out->writes.emplace_back(std::move(write));
  }
  group.done = true;
  Examine();
  if (!eval && Complete(open_batch_)) {
    Micros generated = opened_;
    for (const std::uint64_t grp : kept_) generated = std::max(generated, groups_.at(grp).complete);
    stats_.reward_wait_seconds += static_cast<double>(now_ - generated) * 1e-6;
  }
  GrantWaiting(out);  // a group that was passed over makes room for another
}

}  // namespace temper::learner
