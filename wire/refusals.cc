#include "wire/refusals.h"

#include <utility>

namespace temper::wire {

void Refusals::Add(const std::string& reason, const std::string& line, std::int64_t now_us) {
  const std::uint64_t count = ++counts_[reason];
  const auto quiet = quiet_until_.find(reason);
  if (quiet != quiet_until_.end() && now_us < quiet->second) return;
  quiet_until_[reason] = now_us + kPause;
  notes_.push_back(count == 1 ? line
                              : line + " (" + reason + ": " + std::to_string(count) + " times)");
}

std::vector<std::string> Refusals::TakeNotes() { return std::exchange(notes_, {}); }

}  // namespace temper::wire
