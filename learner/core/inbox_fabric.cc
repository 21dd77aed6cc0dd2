// Full sets from the learner's device to those of the actors that are there when it is published.
#include <algorithm>
#include <set>
#include <utility>

#include "configs/error.h"
#include "learner/core/inbox.h"

namespace temper::learner {

/// Those who are sent the set just published, by rank. The group stays as long as its members do.
std::vector<std::string> Inbox::FormGroup(Effects* out) {
  auto& f = fabric_;
  engine::Fabric* const fabric = options_.fabric.get();
  if (!fabric || delta_ || f.sending || f.failures >= kFabricTries) return {};
  std::vector<std::string> members;
  std::set<std::string> places = {fabric->place()};
  for (const auto& [id, peer] : peers_) {
    if (!peer.is_actor() || peer.hello.fabric != fabric->kind()) continue;
    if (places.insert(peer.hello.device).second) members.push_back(id);
  }
  if (members.empty()) return {};
  if (f.id.empty() || members != f.members) {
    try {
      f.id = fabric->NewGroup();
    } catch (const MachineError& error) {
      f.id.clear();
      ++f.failures;
      out->notes.push_back(std::string("weights are pulled: ") + error.what());
      return {};
    }
    f.members = members;
  }
  f.version = weights_->version;
  f.sending = true;
  out->broadcast = Effects::Broadcast{{f.id, 0, static_cast<int>(members.size()) + 1}, weights_};
  return members;
}

/// A member that is no longer one, or whose part did not end well. The others don't wait for it.
void Inbox::LeaveGroup(const std::string& id, bool gone, Effects* out) {
  auto& f = fabric_;
  if (f.id.empty() || std::count(f.members.begin(), f.members.end(), id) == 0) return;
  f.id.clear();
  if (!f.sending) return;
  f.broken = peers_.at(id).hello.name + (gone ? " is gone" : " pulls it");
  f.excused = gone;
  out->stop_broadcast = true;
}

void Inbox::BroadcastEnded(const std::string& problem, Effects* out) {
  auto& f = fabric_;
  const std::string broken = std::exchange(f.broken, "");
  const bool excused = std::exchange(f.excused, false);
  f.sending = false;
  if (problem.empty()) {
    f.failures = 0;
    if (weights_ && weights_->version == f.version)
      stats_.published_bytes += weights_->bytes.size() * f.members.size();
    return;
  }
  f.id.clear();
  std::string names;
  for (const std::string& id : f.members) {
    const auto peer = peers_.find(id);
    if (peer != peers_.end()) names += (names.empty() ? "" : ", ") + peer->second.hello.name;
  }
  if (!excused) ++f.failures;
  out->notes.push_back("weights v" + std::to_string(f.version) + " to the devices of " +
                       (names.empty() ? "nobody" : names) + ": " +
                       (broken.empty() ? problem : broken) + "; they are pulled" +
                       (f.failures >= kFabricTries ? ", and all that follow" : ""));
}

}  // namespace temper::learner
