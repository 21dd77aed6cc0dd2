#include "bench/lone_learner.h"

#include "configs/files.h"

namespace temper::bench {
namespace {

using learner::Inbox;

Inbox::Options InboxOptions(const LoneLearner::Options& options) {
  Inbox::Options inbox;
  inbox.config = options.config;
  inbox.welcome.session = options.session;
  inbox.welcome.run = options.config.name;
  inbox.welcome.peer_timeout_s = options.config.wire.peer_timeout_s;
  inbox.welcome.numerics = "canon-1/fp32/cache-fp32";
  inbox.welcome.config = "{}";
  inbox.welcome.model_dir = "/m";
  inbox.welcome.model_config = options.model_config;
  inbox.welcome.valid_ids = 90;
  inbox.stop_ids = {1};
  inbox.detokenize = [](std::span<const std::int32_t>) { return std::string(); };
  return inbox;
}

store::Trajectories OpenStore(const LoneLearner::Options& options) {
  if (configs::Exists(options.database)) return store::Trajectories::Open(options.database);
  return store::Trajectories::Create(options.database, {options.config.name, "0", "id", "{}", 0});
}

}  // namespace

LoneLearner::LoneLearner(Options options, std::int64_t step, std::uint64_t cursor,
                         std::uint32_t version, Micros now)
    : options_(std::move(options)),
      inbox_(InboxOptions(options_), now),
      recorder_(OpenStore(options_)),
      next_group_(cursor),
      cursor_(cursor),
      now_(now) {
  last_stored_ = store().LastGroup();
  if (step == 0 && !last_stored_) return;
  const bool asynchronous = options_.config.grpo.max_lag > 0;
  store().Resume(step, asynchronous ? std::optional(version) : std::nullopt, cursor);
}

void LoneLearner::Publish(std::shared_ptr<const learner::WeightSet> weights) {
  learner::Effects effects;
  inbox_.Publish(std::move(weights), &effects);
  Perform(std::move(effects));
}

std::optional<Inbox::Stored> LoneLearner::StoredOf(std::uint64_t grp) {
  if (!last_stored_ || grp > *last_stored_) return std::nullopt;
  auto before = store().Group(grp);
  if (!before) return std::nullopt;
  Inbox::Stored stored{std::move(*before), store().LiveRollouts(grp), {}};
  for (const auto& row : stored.live) stored.parts.push_back(store().Parts(row));
  return stored;
}

void LoneLearner::Open(std::int64_t batch, Micros now) {
  now_ = now;
  for (; next_group_ < learner::WindowEnd(options_.config, batch, cursor_); ++next_group_) {
    store::GroupRow row;
    row.grp = next_group_;
    row.prompt_json = "\"p\"";
    row.row_json = "{}";
    row.prompt_ids = {static_cast<std::int32_t>(next_group_ % 80) + 2, 3};
    inbox_.AddGroup(row, std::nullopt, StoredOf(next_group_));
  }
  learner::Effects effects;
  inbox_.Open(batch, now, &effects);
  Perform(std::move(effects));
}

void LoneLearner::Handle(const std::string& peer, const wire::Message& message, Micros now) {
  now_ = now;
  learner::Effects effects;
  inbox_.Handle(peer, message, now, &effects);
  Perform(std::move(effects));
}

void LoneLearner::PeerGone(const std::string& peer) {
  learner::Effects effects;
  inbox_.PeerGone(peer, &effects);
  Perform(std::move(effects));
}

void LoneLearner::Tick(Micros now) {
  now_ = now;
  learner::Effects effects;
  inbox_.Tick(now, &effects);
  Perform(std::move(effects));
  if (recorder_.Due(now)) Commit();
}

void LoneLearner::Commit() {
  for (const auto& [peer, ack] : recorder_.Commit()) {
    if (!options_.acknowledge_early) options_.send(peer, ack.Encode());
  }
}

learner::Batch LoneLearner::Take(std::int64_t batch) {
  learner::Batch taken = inbox_.Take(batch);
  cursor_ = taken.next_group;
  return taken;
}

void LoneLearner::Perform(learner::Effects effects) {
  for (learner::StoreWrite& write : effects.writes) {
    recorder_.Write(std::move(write), now_, now_ / 1000);
  }
  recorder_.Acknowledge(effects.acks);
  if (options_.acknowledge_early) {
    for (const auto& [peer, id] : effects.acks) options_.send(peer, wire::Ack{{id}}.Encode());
  }
  for (const auto& [peer, message] : effects.send) options_.send(peer, message);
  if (effects.failure) std::rethrow_exception(effects.failure);
}

}  // namespace temper::bench
