// What an actor runs: a published set, put in place between two engine steps.
#include "actor/actor.h"
#include "engine/canary.h"

namespace temper::actor {

void Actor::OnManifest(const wire::WeightsManifest& manifest) {
  if (!welcomed_ || manifest.session != session_) return;
  EndReceive();
  if (loaded_ == manifest.version) return SayLoaded();  // it was lost on the way
  client_->Start(manifest);
  if (endpoint_.starts_with("ipc://") && !manifest.shared.empty())
    client_->Fetch(manifest.shared, WeightsIdle());
  if (manifest.fabric && fabric_) Receive(manifest);
  Pull();
  if (client_->complete()) ApplyWeights();  // nothing changed
}

/// Nothing runs on the weights; from the first tensor in place on, grants wait.
bool Actor::WeightsIdle() {
  const bool idle = engine_->live() == 0;
  if (idle && client_->pulling()) loaded_.reset();
  return idle;
}

void Actor::Receive(const wire::WeightsManifest& manifest) {
  // A former one is of no use any more. This set is pulled, by which the learner knows.
  if (fabric_->busy()) return fabric_->Stop();
  std::optional<std::vector<std::byte>> bytes = client_->Lend();
  if (!bytes) return;
  arriving_ = std::make_shared<std::vector<std::byte>>(std::move(*bytes));
  fabric_->Receive({manifest.fabric->group, manifest.fabric->rank, manifest.fabric->ranks},
                   *arriving_, arriving_);
}

void Actor::EndReceive() {
  if (!fabric_ || !welcomed_) return;
  const std::optional<std::string> problem = fabric_->Ended();
  if (!problem) return;
  if (!problem->empty()) Say("weights are pulled instead: " + *problem);
  client_->GiveBack(std::move(*arriving_), WeightsIdle());
  arriving_.reset();
  Pull();
  if (client_->complete()) ApplyWeights();
}

void Actor::Pull() {
  for (const wire::WeightsPull& pull : client_->Pulls()) out_.push_back(pull.Encode());
}

void Actor::OnChunk(const wire::WeightsChunk& chunk) {
  if (!welcomed_) return;
  const std::uint64_t corrupt = client_->corrupt();
  client_->Take(chunk, WeightsIdle());
  if (client_->corrupt() > corrupt) Say("weights arrived damaged; they are pulled again");
  Pull();
  if (client_->complete()) ApplyWeights();
}

void Actor::ApplyWeights() {
  // Handle is called between two engine steps: this is a token boundary.
  loaded_ = client_->Apply();
  weights_->CheckComplete();
  engine_->SetVersion(*loaded_);
  canary_ = engine::Canary(*weights_, valid_ids_, *pool_);
  SayLoaded();
  std::deque<wire::Grant> early = std::exchange(early_, {});
  for (wire::Grant& grant : early) OnGrant(std::move(grant));
}

void Actor::SayLoaded() {
  out_.push_back(wire::WeightsLoaded{session_, *loaded_, canary_}.Encode());
}

}  // namespace temper::actor
