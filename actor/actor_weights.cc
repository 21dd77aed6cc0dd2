// What an actor runs: a published set, put in place between two engine steps.
#include "actor/actor.h"
#include "engine/canary.h"

namespace temper::actor {

void Actor::OnManifest(const wire::WeightsManifest& manifest) {
  if (!welcomed_ || manifest.session != session_) return;
  if (loaded_ == manifest.version) return SayLoaded();  // it was lost on the way
  client_->Start(manifest);
  if (endpoint_.starts_with("ipc://") && !manifest.shared.empty()) {
    const bool idle = engine_->live() == 0;
    if (idle && client_->pulling()) loaded_.reset();
    client_->Fetch(manifest.shared, idle);
  }
  Pull();
  if (client_->complete()) ApplyWeights();  // nothing changed
}

void Actor::Pull() {
  for (const wire::WeightsPull& pull : client_->Pulls()) out_.push_back(pull.Encode());
}

void Actor::OnChunk(const wire::WeightsChunk& chunk) {
  if (!welcomed_) return;
  const bool idle = engine_->live() == 0;
  if (idle && client_->pulling())
    loaded_.reset();  // from the first tensor in place on, grants wait
  const std::uint64_t corrupt = client_->corrupt();
  client_->Take(chunk, idle);
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
