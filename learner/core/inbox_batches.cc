// Which groups the open batch needs, which make it, and the groups of an evaluation.
#include <algorithm>
#include <cmath>

#include "learner/core/inbox.h"

namespace temper::learner {
namespace {

/// Batches that follow `batch` in this run and may be generated ahead.
std::uint64_t Ahead(const configs::Grpo& grpo, std::int64_t batch) {
  const std::int64_t left = grpo.max_steps / grpo.updates() - batch;
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::min<std::int64_t>(grpo.max_lag, left)));
}

/// Groups that one batch may look at, in batches.
std::uint64_t Limit(const configs::Grpo& grpo) {
  return grpo.dynamic_sampling ? static_cast<std::uint64_t>(grpo.max_gen_batches) : 1;
}

/// Whether two scored samples differ: what a group-relative advantage needs.
bool HasSpread(const std::vector<store::RolloutRow>& samples) {
  std::optional<double> first;
  for (const store::RolloutRow& sample : samples) {
    if (sample.state == "dropped" || !sample.score || std::isnan(*sample.score)) continue;
    if (first && *first != *sample.score) return true;
    first = sample.score;
  }
  return false;
}

}  // namespace

std::uint64_t WindowEnd(const configs::Config& config, std::int64_t batch, std::uint64_t first) {
  const std::uint64_t groups = static_cast<std::uint64_t>(config.grpo.groups_per_step);
  return first + (Limit(config.grpo) + Ahead(config.grpo, batch)) * groups;
}

std::uint64_t Inbox::NeededEnd() const {
  if (open_batch_ == 0) return cursor_;
  const std::uint64_t most = cursor_ + Limit(options_.config.grpo) * groups_per_step_;
  return std::min<std::uint64_t>(most, examined_ + (groups_per_step_ - kept_.size()));
}

std::uint64_t Inbox::GrantEnd() const {
  return NeededEnd() + Ahead(options_.config.grpo, last_batch_) * groups_per_step_;
}

std::int64_t Inbox::StepOf(std::uint64_t grp) const {
  if (grp >= kFirstEval) return (last_batch_ + 1) * options_.config.grpo.updates();
  const std::uint64_t end = NeededEnd();
  std::int64_t batch = open_batch_ != 0 ? open_batch_ : last_batch_ + 1;
  if (grp >= end) {
    const auto later = static_cast<std::int64_t>((grp - end) / groups_per_step_);
    batch += open_batch_ != 0 ? later + 1 : later;
  }
  return (batch - 1) * options_.config.grpo.updates() + 1;
}

void Inbox::Examine() {
  if (open_batch_ == 0) return;
  const configs::Grpo& grpo = options_.config.grpo;
  const std::uint64_t most = cursor_ + Limit(grpo) * groups_per_step_;
  while (kept_.size() < groups_per_step_ && examined_ < most) {
    const auto found = groups_.find(examined_);
    if (found == groups_.end() || !found->second.done) return;
    const bool keep = !grpo.dynamic_sampling || HasSpread(found->second.samples);
    (keep ? kept_ : passed_over_).push_back(examined_++);
  }
  if (kept_.size() == groups_per_step_) return;
  // The limit: the batch keeps its size with groups that pull nothing.
  const auto fill = static_cast<std::ptrdiff_t>(groups_per_step_ - kept_.size());
  kept_.insert(kept_.end(), passed_over_.begin(), passed_over_.begin() + fill);
  passed_over_.erase(passed_over_.begin(), passed_over_.begin() + fill);
  std::sort(kept_.begin(), kept_.end());
}

void Inbox::Open(std::int64_t batch, Micros now, Effects* out) {
  now_ = now;
  open_batch_ = last_batch_ = batch;
  opened_ = now;
  Examine();
  GrantWaiting(out);
  AskForScores(out);
}

bool Inbox::Complete(std::int64_t batch) const {
  return open_batch_ == batch && kept_.size() == groups_per_step_;
}

Batch Inbox::Take(std::int64_t batch) {
  if (!Complete(batch))
    throw std::logic_error("Inbox::Take: batch " + std::to_string(batch) + " is not complete");
  Batch taken;
  const auto move = [&](const std::vector<std::uint64_t>& from, std::vector<ScoredGroup>* to) {
    for (const std::uint64_t grp : from) {
      Group& group = groups_.at(grp);
      to->push_back(
          {grp, std::move(group.row.prompt_ids), std::move(group.samples), std::move(group.parts)});
    }
  };
  move(kept_, &taken.groups);
  move(passed_over_, &taken.passed_over);
  kept_.clear();
  passed_over_.clear();
  groups_.erase(groups_.begin(), groups_.lower_bound(examined_));
  taken.next_group = cursor_ = examined_;
  open_batch_ = 0;
  return taken;
}

void Inbox::AddEval(store::GroupRow row, std::optional<std::string> answer) {
  const std::uint64_t grp = row.grp;
  Group& group = groups_[grp];
  group.row = std::move(row);
  group.answer = std::move(answer);
  group.samples.resize(1);
  group.parts.resize(1);
  group.missing = 1;
  waiting_.insert(grp);
}

void Inbox::GrantEvals(Micros now, Effects* out) {
  now_ = opened_ = now;
  GrantWaiting(out);
}

int Inbox::unfinished_evals() const {
  return static_cast<int>(std::count_if(groups_.lower_bound(kFirstEval), groups_.end(),
                                        [](const auto& g) { return !g.second.done; }));
}

std::vector<ScoredGroup> Inbox::TakeEvals() {
  std::vector<ScoredGroup> taken;
  const auto first = groups_.lower_bound(kFirstEval);
  for (auto it = first; it != groups_.end(); ++it) {
    Group& group = it->second;
    taken.push_back({it->first, std::move(group.row.prompt_ids), std::move(group.samples),
                     std::move(group.parts)});
  }
  groups_.erase(first, groups_.end());
  return taken;
}

}  // namespace temper::learner
