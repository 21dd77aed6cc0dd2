#include "cli/learner_ranks.h"

#include <signal.h>
#include <stdlib.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "configs/error.h"
#include "learner/core/rank_place.h"

namespace temper::cli {

LearnerRanks::LearnerRanks(int count, const Arguments& args) {
  learner::RankPlace place;
  place.size = place.local_size = count;
  if (count > 1) {
    place.address = "127.0.0.1";
    place.port = learner::FreePort();
    folder_ = (std::filesystem::temp_directory_path() / "temper-ranks-XXXXXX").string();
    if (!mkdtemp(folder_.data())) throw MachineError(folder_ + ": " + std::strerror(errno));
  }
  for (int r = 0; r < count; ++r) {
    place.rank = place.local_rank = r;
    const std::string log = r == 0 ? "" : LogOf(std::size_t(r));
    ranks_.emplace_back("learner", LearnerProgram(), args, log, log, learner::EnvironmentOf(place));
  }
}

LearnerRanks::~LearnerRanks() {
  ranks_.clear();
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

std::string LearnerRanks::LogOf(std::size_t rank) const {
  return folder_ + "/rank-" + std::to_string(rank) + ".log";
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
  if (all && first_bad_.value_or(0) > 0 && !told_) {
    told_ = true;
    // What the user did wrong is the same on all ranks, and rank 0's words go to the terminal.
    const bool said = ranks_[0].Ended() == 2 && ranks_[*first_bad_].Ended() == 2;
    const std::string words = said ? "" : LastLine(LogOf(*first_bad_));
    if (!words.empty()) std::fprintf(stderr, "%s: %s\n", culprit().c_str(), words.c_str());
  }
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
