#include "actor/actor.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <thread>

#include "configs/error.h"
#include "configs/version.h"

namespace temper::actor {
namespace {

using wire::Kind;

constexpr Micros kSecond = 1'000'000;

std::string DefaultName() {
  char host[65] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return std::string(host) + "-" + std::to_string(getpid());
}

/// Threads of the run's configuration, if it names any.
int ThreadsOf(const Options& options, const std::string& config) {
  if (options.threads > 0) return options.threads;
  const Json json = configs::ParseJson(config, "welcome: config");
  const auto actors = json.find("actors");
  if (actors != json.end() && actors->is_object() && actors->contains("threads")) {
    const auto n = configs::GetInt((*actors)["threads"], "welcome: actors.threads", 0, 4096);
    if (n > 0) return static_cast<int>(n);
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// The mode of the run: what the learner trains is what is sampled from.
/// Of the run; on the CPU alone it has one arithmetic.
engine::Numerics NumericsOf(const std::string& config, const std::string& device) {
  const Json json = configs::ParseJson(config, "welcome: config");
  const auto text = [&](const char* key, const std::string& otherwise) {
    const auto value = json.find(key);
    return value != json.end() && value->is_string() ? value->get<std::string>() : otherwise;
  };
  return engine::WithArithmetic(
      engine::ParseNumerics(text("dtype", "fp32"), text("cache_dtype", "fp32"),
                            text("fp8_scale", "pow2")),
      device == "cpu" ? "canon-1" : text("arithmetic", "canon-1"));
}

bool WantsFabric(const std::string& config) {
  const Json json = configs::ParseJson(config, "welcome: config");
  const auto learner = json.find("learner");
  return learner != json.end() && learner->is_object() &&
         learner->value("weights_fabric", Json()) == "nccl";
}

}  // namespace

Actor::Actor(Options options, std::string endpoint, Micros now)
    : options_(std::move(options)),
      endpoint_(std::move(endpoint)),
      peer_timeout_s_(options_.connect_timeout_s),
      heard_(now) {
  std::random_device random;
  hello_.role = wire::Role::kActor;
  hello_.name = options_.name.empty() ? DefaultName() : options_.name;
  hello_.instance = static_cast<std::uint64_t>(random()) << 32 | random();
  hello_.pid = getpid();
  hello_.temper_version = kVersion;
  hello_.numerics = engine::AllNumericsIds();
  if (options_.device != "cpu") {
    const std::vector<std::string> tensor = engine::AllNumericsIds(/*tensor=*/true);
    hello_.numerics.insert(hello_.numerics.end(), tensor.begin(), tensor.end());
  }
  hello_.rows = options_.max_rows;
  if (options_.fabric) {
    hello_.fabric = options_.fabric->kind();
    hello_.device = options_.fabric->place();
    fabric_ = std::make_unique<engine::FabricThread>(options_.fabric);
  }
  SayHello(now);
}

void Actor::Say(const std::string& what) const {
  std::fprintf(stderr, "actor %s: %s\n", hello_.name.c_str(), what.c_str());
}

void Actor::SayHello(Micros now) {
  welcomed_ = false;
  hello_sent_ = now;
  hello_.session = session_;
  hello_.held = HeldNow();
  out_.push_back(hello_.Encode());
}

wire::Held Actor::HeldNow() const {
  std::map<std::uint64_t, std::int32_t> held;
  for (const wire::Grant& grant : early_) {
    for (const wire::GrantedGroup& group : grant.groups) held[group.grp] = group.attempt;
  }
  for (const auto& [grp, running] : running_) held[grp] = running.attempt;
  for (const auto& [id, rollout] : outbox_) held[id.grp] = std::max(held[id.grp], id.attempt);
  return {held.begin(), held.end()};
}

void Actor::HandleInvalid(const std::string& error) { Say("from the learner: " + error); }

void Actor::Handle(const wire::Message& message, Micros now) {
  if (worried_) Say("the learner is back after " + std::to_string((now - heard_) / kSecond) + " s");
  worried_ = false;
  heard_ = now;
  try {
    switch (static_cast<Kind>(message.kind)) {
      case Kind::kHeartbeat:
        return;
      case Kind::kWelcome:
        return OnWelcome(wire::Welcome::Decode(message), now);
      case Kind::kWeightsManifest:
        return OnManifest(wire::WeightsManifest::Decode(message));
      case Kind::kWeightsChunk:
        return OnChunk(wire::WeightsChunk::Decode(message));
      case Kind::kGrant:
        return OnGrant(wire::Grant::Decode(message));
      case Kind::kAck:
        for (const wire::RolloutId& id : wire::Ack::Decode(message).rollouts) outbox_.erase(id);
        return;
      case Kind::kRefuse:
        return OnRefuse(wire::Refuse::Decode(message), now);
      case Kind::kGoodbye: {
        const wire::Goodbye goodbye = wire::Goodbye::Decode(message);
        if (goodbye.failed)
          throw MachineError("actor " + hello_.name + ": the learner ended: " + goodbye.reason);
        Say("goodbye: " + goodbye.reason);
        done_ = true;
        return;
      }
      default:
        Say("an actor takes no " + wire::KindName(message.kind));
    }
  } catch (const wire::ProtocolError& error) {
    HandleInvalid(error.what());
  }
}

void Actor::OnWelcome(const wire::Welcome& welcome, Micros now) {
  if (!engine_) {
    BuildEngine(welcome);
  } else if (welcome.model_config != model_config_) {
    throw UserError("actor " + hello_.name + ": the learner at " + endpoint_ +
                    " came back with another model");
  }
  if (welcome.session != session_) {
    // Another learner process: what the former one granted is void, and its version numbers may
    // mean other weights.
    for (const auto& [grp, running] : running_) engine_->Cancel(grp);
    running_.clear();
    outbox_.clear();
    early_.clear();
    client_->Stop();
    if (fabric_) fabric_->Stop();
    loaded_.reset();
    session_ = welcome.session;
    if (!options_.no_fabric.empty() && WantsFabric(welcome.config))
      Say("weights come by pulls: " + options_.no_fabric);
    Say("joined run " + welcome.run + " at " + endpoint_);
  }
  welcomed_ = true;
  hello_refusals_ = 0;
  hello_.run = welcome.run;
  peer_timeout_s_ = welcome.peer_timeout_s;
  if (loaded_) SayLoaded();
  for (auto& [id, rollout] : outbox_) {
    out_.push_back(rollout.message);
    rollout.sent = now;
  }
}

void Actor::BuildEngine(const wire::Welcome& welcome) {
  const Json json = configs::ParseJson(welcome.model_config, welcome.model_dir + "/config.json");
  weights_ = std::make_shared<engine::Weights>(
      engine::ParseModelConfig(json, welcome.model_dir + "/config.json"),
      NumericsOf(welcome.config, options_.device));
  engine::EngineOptions options;
  options.threads = ThreadsOf(options_, welcome.config);
  pool_ = std::make_unique<kernels::ThreadPool>(options.threads);
  client_ = std::make_unique<WeightClient>(weights_, pool_.get());
  options.max_rows = options_.max_rows;
  options.device = options_.device;
  options.valid_ids = valid_ids_ = static_cast<int>(welcome.valid_ids);
  engine_ = std::make_unique<engine::Engine>(weights_, options);
  model_config_ = welcome.model_config;
}

void Actor::OnGrant(wire::Grant grant) {
  if (grant.session != session_ || draining_) return;
  if (!loaded_ || *loaded_ < grant.version) {
    early_.push_back(std::move(grant));
    return;
  }
  for (wire::GrantedGroup& group : grant.groups) {
    if (running_.erase(group.grp) > 0) engine_->Cancel(group.grp);
    engine::GroupRequest request;
    request.group = group.grp;
    request.prompt = std::move(group.prompt_ids);
    request.samples = std::move(group.samples);
    request.seed = grant.sampling.seed;
    request.max_new_tokens = grant.sampling.max_new_tokens;
    request.params = {static_cast<float>(grant.sampling.temperature), grant.sampling.top_k,
                      static_cast<float>(grant.sampling.top_p),
                      static_cast<float>(grant.sampling.min_p)};
    request.stop_ids = grant.sampling.stop_ids;
    request.experts = grant.sampling.experts;
    request.kept = grant.sampling.kept;
    const wire::Sampling& s = grant.sampling;
    running_[group.grp] = {group.attempt, static_cast<int>(request.samples.size()),
                           s.top_p < 1 || s.top_k > 0 || s.min_p > 0};
    engine_->Add(std::move(request));
  }
}

void Actor::OnRefuse(const wire::Refuse& refuse, Micros now) {
  if (refuse.code == wire::kHelloFirst) {
    // Several messages may have met the same refusal.
    if (welcomed_ || now - hello_sent_ > kHeartbeat / 2) SayHello(now);
    return;
  }
  // A learner that cannot read a hello will not read the next one either.
  const bool foreign =
      !welcomed_ && refuse.code == wire::kBadMessage && ++hello_refusals_ >= kHelloRefusals;
  if (refuse.code == wire::kNotWelcome || foreign)
    throw UserError("actor " + hello_.name + ": refused: " + refuse.reason);
  if (refuse.code == wire::kBadWeights && client_) {
    client_->Distrust();
    loaded_.reset();
    // What runs went on with them; the learner hands it out again.
    for (const auto& [grp, running] : running_) engine_->Cancel(grp);
    running_.clear();
  }
  if (refuse.code == wire::kVersionGone) return;  // the newer manifest came before this
  if (refuse.code == wire::kNotTaken && refuse.rollout) outbox_.erase(*refuse.rollout);
  Say("refused: " + refuse.reason);
}

void Actor::Tick(Micros now) {
  const Micros silent = now - heard_;
  if (silent > static_cast<Micros>(peer_timeout_s_ * 1e6)) {
    throw MachineError("actor " + hello_.name + ": no word from the learner at " + endpoint_ +
                       " for " + std::to_string(silent / kSecond) + " s (" +
                       (session_ == 0 ? "it never answered" : "wire.peer_timeout_s") + "); " +
                       std::to_string(outbox_.size()) +
                       " rollouts are not acknowledged; giving up");
  }
  NoticeSilence(now);
  EndReceive();
  if (now < next_heartbeat_) return;
  next_heartbeat_ = now + kHeartbeat;
  // While nobody reads, one hello or heartbeat waiting is enough.
  if (!out_.empty() && silent > kSilent) return;
  if (!welcomed_) {
    if (now - hello_sent_ >= kHeartbeat) SayHello(now);
    return;
  }
  out_.push_back(wire::Heartbeat{HeldNow()}.Encode());
  if (silent > kSilent) return;
  for (auto& [id, rollout] : outbox_) {
    if (now - rollout.sent < kRepeat) continue;
    out_.push_back(rollout.message);
    rollout.sent = now;
  }
}

void Actor::NoticeSilence(Micros now) {
  if (worried_ || session_ == 0 || now - heard_ < kWorrying) return;
  worried_ = true;
  Say("no word from the learner at " + endpoint_ + " for " +
      std::to_string((now - heard_) / kSecond) + " s; " + std::to_string(outbox_.size()) +
      " rollouts wait for its acknowledgement");
}

void Actor::Drain() {
  draining_ = true;
  for (const auto& [grp, running] : running_) engine_->Cancel(grp);
  running_.clear();
  early_.clear();
}

bool Actor::Work(Micros now) {
  if (!engine_ || engine_->live() == 0) return false;
  std::vector<engine::FinishedSample> finished;
  engine_->Step(&finished);
  for (engine::FinishedSample& sample : finished) Deliver(std::move(sample), now);
  return true;
}

void Actor::Deliver(engine::FinishedSample&& sample, Micros now) {
  const auto running = running_.find(sample.group);
  if (running == running_.end()) return;
  wire::Rollout rollout;
  rollout.session = session_;
  rollout.id = {sample.group, sample.sample, running->second.attempt};
  rollout.finish = engine::FinishReasonName(sample.finish);
  rollout.version = sample.versions.empty() ? loaded_.value_or(0) : sample.versions.front();
  rollout.ids = std::move(sample.ids);
  // Of the distribution that was sampled from.
  rollout.logp = std::move(running->second.truncated ? sample.logp_processed : sample.logp);
  const bool mixed = std::any_of(sample.versions.begin(), sample.versions.end(),
                                 [&](std::uint32_t v) { return v != rollout.version; });
  if (mixed) rollout.versions = std::move(sample.versions);
  rollout.experts = std::move(sample.experts);
  rollout.kept = std::move(sample.kept);
  if (--running->second.samples == 0) running_.erase(running);
  Unacknowledged& kept = outbox_[rollout.id];
  kept = {rollout.Encode(), now};
  if (welcomed_) out_.push_back(kept.message);
}

}  // namespace temper::actor
