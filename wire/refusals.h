#pragma once
// What was refused, counted by reason; few lines for the log however often it happens.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace temper::wire {

/// No clock: whoever adds says when.
class Refusals {
 public:
  /// `reason` is a short fixed word, `line` the sentence for the log.
  void Add(const std::string& reason, const std::string& line, std::int64_t now_us);
  /// Lines since the last call: a reason's first, then at most one in kPause with the count.
  std::vector<std::string> TakeNotes();
  /// How often each reason came, since the beginning.
  const std::map<std::string, std::uint64_t>& counts() const { return counts_; }

  static constexpr std::int64_t kPause = 10'000'000;

 private:
  std::map<std::string, std::uint64_t> counts_;
  std::map<std::string, std::int64_t> quiet_until_;
  std::vector<std::string> notes_;
};

}  // namespace temper::wire
