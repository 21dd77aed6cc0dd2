#include "cli/learner_ranks.h"

#include <signal.h>

#include <algorithm>

#include "learner/core/rank_place.h"

namespace temper::cli {

LearnerRanks::LearnerRanks(int count, const Arguments& args) {
  learner::RankPlace place;
  place.size = place.local_size = count;
  if (count > 1) {
    place.address = "127.0.0.1";
    place.port = learner::FreePort();
  }
  for (int r = 0; r < count; ++r) {
    place.rank = place.local_rank = r;
    ranks_.emplace_back("learner", LearnerProgram(), args, "", "", learner::EnvironmentOf(place));
  }
}

std::optional<int> LearnerRanks::Ended() {
  bool all = true, any = false;
  std::optional<std::size_t> killed, bad;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    const std::optional<int> code = ranks_[r].Ended();
    all = all && code;
    any = any || code;
    if (code.value_or(0) != 0 && !bad) bad = r;
    if (code.value_or(0) > 128 && !killed) killed = r;
  }
  // Between two looks several may have ended: the one that was killed is why.
  if (!first_bad_) first_bad_ = killed ? killed : bad;
  const auto now = std::chrono::steady_clock::now();
  if (any && !first_end_) first_end_ = now;
  if (all) return first_bad_ ? ranks_[*first_bad_].Ended() : 0;
  if (first_bad_ && now - *first_end_ > kPatience) Signal(SIGKILL);
  return std::nullopt;
}

void LearnerRanks::Signal(int signal) const {
  for (const Child& rank : ranks_) rank.Signal(signal);
}

std::string LearnerRanks::culprit() const {
  if (ranks_.size() == 1) return "the learner";
  return "rank " + std::to_string(first_bad_.value_or(0)) + " of the learner";
}

}  // namespace temper::cli
