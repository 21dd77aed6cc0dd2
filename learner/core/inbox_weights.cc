// The published set: offered to every actor, pulled in chunks, held against its canary.
#include <algorithm>

#include "learner/core/inbox.h"

namespace temper::learner {
namespace {

constexpr int kBadWeights = 2;  // then the actor computes something else

}  // namespace

void Inbox::Publish(std::shared_ptr<const WeightSet> weights, Effects* out,
                    std::shared_ptr<const WeightDelta> delta) {
  const bool follows = delta && weights_ && weights_->version == delta->base;
  weights_ = std::move(weights);
  delta_ = follows ? std::move(delta) : nullptr;
  canary_ = weights_->canary;
  someone_loaded_ = false;
  wire::WeightsManifest manifest;
  manifest.session = options_.welcome.session;
  manifest.version = weights_->version;
  manifest.bytes = weights_->bytes.size();
  manifest.shared = weights_->bytes.path();
  for (const WeightSet::Tensor& t : weights_->tensors) {
    manifest.tensors.push_back({t.name, t.dtype, t.shape, t.begin, t.end, t.sha256});
  }
  if (delta_) {
    manifest.base = delta_->base;
    manifest.delta_bytes = delta_->bytes.size();
    for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
      const WeightDelta::Piece& piece = delta_->pieces[i];
      manifest.tensors[i].form = piece.form;
      manifest.tensors[i].delta_begin = piece.begin;
      manifest.tensors[i].delta_end = piece.end;
    }
  }
  manifest_ = manifest.Encode();
  const std::vector<std::string> members = FormGroup(out);
  for (auto& [id, peer] : peers_) {
    peer.bad_weights = 0;
    if (!peer.is_actor()) continue;
    Offer(id, out);
    const auto member = std::find(members.begin(), members.end(), id);
    if (member == members.end()) continue;
    wire::WeightsManifest::Fabric{fabric_.id, static_cast<int>(member - members.begin()) + 1,
                                  static_cast<int>(members.size()) + 1}
        .AddTo(&out->send.back().second);
  }
}

void Inbox::Offer(const std::string& id, Effects* out) {
  peers_.at(id).offered = now_;
  out->send.emplace_back(id, manifest_);
}

void Inbox::OfferAgain(Micros now, Effects* out) {
  if (!weights_) return;
  for (auto& [id, peer] : peers_) {
    // The manifest, a pull or a chunk was lost, or the confirmation.
    if (peer.is_actor() && peer.loaded != weights_->version && now - peer.offered >= kGrace) {
      Offer(id, out);
    }
  }
}

void Inbox::OnPull(const std::string& id, const wire::WeightsPull& pull, Effects* out) {
  if (!weights_ || pull.version != weights_->version || (pull.delta && !delta_)) {
    return Refuse(id, wire::kVersionGone,
                  "version " + std::to_string(pull.version) + " is no longer served", out);
  }
  const std::span<const std::byte> all = pull.delta ? std::span<const std::byte>(delta_->bytes)
                                                    : std::span<const std::byte>(weights_->bytes);
  if (pull.offset > all.size() || pull.length > all.size() - pull.offset) {
    return Refuse(id, wire::kBadMessage,
                  "weights_pull past the end of version " + std::to_string(pull.version), out);
  }
  wire::Bytes data{all.subspan(pull.offset, pull.length), weights_};
  if (pull.delta) data.owner = delta_;
  if (!pull.delta && fabric_.version == pull.version) LeaveGroup(id, /*gone=*/false, out);
  peers_.at(id).offered = now_;
  stats_.published_bytes += pull.length;
  out->send.emplace_back(id,
                         wire::WeightsChunk{pull.version, pull.offset, data, pull.delta}.Encode());
}

void Inbox::OnLoaded(const std::string& id, const wire::WeightsLoaded& loaded, Effects* out) {
  if (loaded.session != options_.welcome.session) return;
  Peer& peer = peers_.at(id);
  if (loaded.canary && !peer.mixed && weights_ && loaded.version == weights_->version) {
    if (!canary_) canary_ = loaded.canary;
    if (*canary_ != *loaded.canary) {
      const std::string what = "v" + std::to_string(loaded.version) +
                               " gives other numbers than published: its weights or its "
                               "arithmetic differ";
      refusals_.Add("bad_weights", peer.hello.name + ": " + what, now_);
      peer.loaded.reset();
      if (++peer.bad_weights >= kBadWeights) return Refuse(id, wire::kNotWelcome, what, out);
      Refuse(id, wire::kBadWeights, what, out);
      return Offer(id, out);
    }
  }
  peer.loaded = loaded.version;
  if (weights_ && loaded.version == weights_->version && !someone_loaded_) {
    someone_loaded_ = true;
    stats_.loaded_at = now_;
  }
  GrantWaiting(out);
}

}  // namespace temper::learner
