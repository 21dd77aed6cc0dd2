#pragma once
// An inbox with actors and reward workers that are only names: what they say, what they are told.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "learner/core/inbox.h"

namespace temper::learner {

constexpr std::uint64_t kSession = 77;
constexpr Micros kSecond = 1'000'000;

inline configs::Config SmallConfig(int groups = 2, int samples = 3, int max_lag = 0) {
  configs::Config config;
  config.name = "test";
  config.seed = 7;
  config.grpo.groups_per_step = groups;
  config.grpo.num_generations = samples;
  config.grpo.max_lag = max_lag;
  config.grpo.max_steps = 1000;
  config.grpo.max_completion_length = 8;
  config.wire.peer_timeout_s = 30;
  return config;
}

inline std::shared_ptr<const WeightSet> WeightsOf(std::uint32_t version, std::size_t bytes = 16) {
  auto set = std::make_shared<WeightSet>();
  set->version = version;
  set->bytes.resize(bytes);
  std::fill(set->bytes.begin(), set->bytes.end(), std::byte{static_cast<unsigned char>(version)});
  set->tensors = {
      {"w", "F32", {static_cast<std::int64_t>(bytes / 4)}, 0, bytes, std::string(64, '0')}};
  return set;
}

class InboxTest : public ::testing::Test {
 protected:
  void Use(const configs::Config& config, const ExpertShape& experts = {}) {
    config_ = config;
    Inbox::Options options;
    options.config = config;
    options.welcome.session = kSession;
    options.welcome.numerics = "canon-1/fp32/cache-fp32";
    options.welcome.valid_ids = 100;
    options.stop_ids = {1};
    options.experts = experts;
    options.fabric = fabric_;
    options.detokenize = [](std::span<const std::int32_t> ids) {
      return "t" + std::to_string(ids.size());
    };
    inbox_ = std::make_unique<Inbox>(options, now_);
    next_group_ = 0;
    cursor_.reset();
  }
  Batch Take(std::int64_t batch) {
    Batch taken = inbox_->Take(batch);
    cursor_ = taken.next_group;
    return taken;
  }
  void SetUp() override { Use(SmallConfig()); }

  /// Messages of the last call, by receiver.
  std::vector<wire::Message> To(const std::string& peer) const {
    std::vector<wire::Message> messages;
    for (const auto& [to, message] : effects_.send) {
      if (to == peer) messages.push_back(message);
    }
    return messages;
  }
  std::vector<wire::Message> To(const std::string& peer, wire::Kind kind) const {
    std::vector<wire::Message> messages = To(peer);
    std::erase_if(messages, [&](const wire::Message& m) {
      return m.kind != static_cast<std::uint16_t>(kind);
    });
    return messages;
  }
  template <class T>
  std::vector<T> To(const std::string& peer, wire::Kind kind) const {
    std::vector<T> found;
    for (const wire::Message& m : To(peer)) {
      if (m.kind == static_cast<std::uint16_t>(kind)) found.push_back(T::Decode(m));
    }
    return found;
  }
  std::vector<wire::Grant> GrantsTo(const std::string& peer) const {
    return To<wire::Grant>(peer, wire::Kind::kGrant);
  }
  /// "41x3.a1 42x3" of the last call.
  std::string Granted(const std::string& peer) const {
    std::string text;
    for (const wire::Grant& grant : GrantsTo(peer)) {
      for (const wire::GrantedGroup& g : grant.groups) {
        text += (text.empty() ? "" : " ") + std::to_string(g.grp) + "x" +
                std::to_string(g.samples.size());
        if (g.attempt > 0) text += ".a" + std::to_string(g.attempt);
      }
    }
    return text;
  }
  std::vector<wire::ScoreRequest> RequestsTo(const std::string& peer) const {
    return To<wire::ScoreRequest>(peer, wire::Kind::kScoreRequest);
  }
  std::string RefusalTo(const std::string& peer) const {
    const auto refusals = To<wire::Refuse>(peer, wire::Kind::kRefuse);
    return refusals.empty() ? "" : refusals.front().code;
  }
  std::string FailureText() const {
    if (!effects_.failure) return "";
    try {
      std::rethrow_exception(effects_.failure);
    } catch (const UserError& e) {
      return std::string("user: ") + e.what();
    } catch (const MachineError& e) {
      return std::string("machine: ") + e.what();
    }
  }

  template <class T>
  void Hear(const std::string& peer, const T& message) {
    effects_ = {};
    inbox_->Handle(peer, message.Encode(), now_, &effects_);
  }
  wire::Hello HelloOf(const std::string& name, wire::Role role, int rows) {
    wire::Hello hello;
    hello.role = role;
    hello.name = name;
    hello.instance = std::hash<std::string>()(name);
    hello.numerics = {"canon-1/fp32/cache-fp32"};
    hello.rows = rows;
    return hello;
  }
  void Join(const std::string& actor, int rows = 64) {
    Hear(actor, HelloOf(actor, wire::Role::kActor, rows));
  }
  void JoinWorker(const std::string& worker, int groups = 4) {
    Hear(worker, HelloOf(worker, wire::Role::kRewardWorker, groups));
  }
  void Loaded(const std::string& actor, std::uint32_t version) {
    Hear(actor, wire::WeightsLoaded{kSession, version});
  }
  void Publish(std::uint32_t version) {
    effects_ = {};
    inbox_->Publish(WeightsOf(version), &effects_);
  }
  /// Actor a1 and worker w1 are there, the first window is open, a1 has the version.
  void Start(std::uint32_t version = 0) {
    Publish(version);
    Join("a1");
    JoinWorker("w1");
    Open(1);
    Loaded("a1", version);
  }
  store::GroupRow RowOf(std::uint64_t grp) const {
    store::GroupRow row;
    row.grp = grp;
    row.prompt_json = "\"p" + std::to_string(grp) + "\"";
    row.row_json = "{}";
    row.prompt_ids = {static_cast<std::int32_t>(grp % 50) + 2};
    return row;
  }
  void Open(std::int64_t step) {
    if (!cursor_) {
      cursor_ = static_cast<std::uint64_t>(step - 1) *
                static_cast<std::uint64_t>(config_.grpo.groups_per_step);
    }
    for (next_group_ = std::max(next_group_, *cursor_);
         next_group_ < WindowEnd(config_, step, *cursor_); ++next_group_) {
      inbox_->AddGroup(RowOf(next_group_), std::nullopt, std::nullopt);
    }
    effects_ = {};
    inbox_->Open(step, now_, &effects_);
  }
  wire::Rollout RolloutOf(std::uint64_t grp, std::uint32_t sample, std::uint32_t version,
                          int attempt = 0) const {
    wire::Rollout rollout;
    rollout.session = kSession;
    rollout.id = {grp, sample, attempt};
    rollout.finish = "stop";
    rollout.version = version;
    rollout.ids = {5, 1};
    rollout.logp = {-1.0f, -0.5f};
    return rollout;
  }
  void Deliver(const std::string& actor, std::uint64_t grp, std::uint32_t sample,
               std::uint32_t version, int attempt = 0) {
    Hear(actor, RolloutOf(grp, sample, version, attempt));
  }
  /// All three samples of a group, from a1.
  void DeliverGroup(std::uint64_t grp, std::uint32_t version) {
    for (std::uint32_t s = 0; s < 3; ++s) Deliver("a1", grp, s, version);
  }
  wire::ScoreResult ResultOf(const wire::ScoreRequest& request, double score = 1.0) const {
    wire::ScoreResult result;
    result.id = request.id;
    result.grp = request.grp;
    for (const auto& s : request.samples) {
      result.samples.push_back({s.sample, score, "ok", {{"r", score, 1.0, "ok", "", 0, "", 10}}});
    }
    return result;
  }
  std::size_t Writes() const { return effects_.writes.size(); }
  template <class T>
  std::vector<T> WritesOf() const {
    std::vector<T> found;
    for (const StoreWrite& w : effects_.writes) {
      if (const T* t = std::get_if<T>(&w)) found.push_back(*t);
    }
    return found;
  }
  void Tick(Micros later) {
    now_ += later;
    effects_ = {};
    inbox_->Tick(now_, &effects_);
  }
  /// Heartbeats of these peers every second.
  void Pass(Micros duration, const std::vector<std::string>& alive) {
    for (Micros t = 0; t < duration && !effects_.failure; t += kSecond) {
      for (const std::string& peer : alive) Hear(peer, wire::Heartbeat());
      Tick(kSecond);
    }
  }

  configs::Config config_;
  std::shared_ptr<engine::Fabric> fabric_;  // of the next Use
  Micros now_ = 1000 * kSecond;
  std::unique_ptr<Inbox> inbox_;
  std::uint64_t next_group_ = 0;
  std::optional<std::uint64_t> cursor_;  // where the next batch begins
  Effects effects_;
};

}  // namespace temper::learner
