#include "actor/weight_client.h"

#include <algorithm>
#include <cstring>

#include "configs/error.h"
#include "configs/sha256.h"

namespace temper::actor {
namespace {

std::size_t BytesOf(const std::string& dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "BF16") return 2;
  return 0;
}

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

}  // namespace

WeightClient::WeightClient(std::shared_ptr<engine::Weights> weights)
    : weights_(std::move(weights)), specs_(engine::RequiredTensors(weights_->config())) {}

void WeightClient::Start(const wire::WeightsManifest& manifest) {
  const std::string where = "weights v" + std::to_string(manifest.version) + ": ";
  if (manifest_ && manifest_->session == manifest.session &&
      manifest_->version == manifest.version) {
    requested_ = received_;  // pulls under way were lost with the connection
    return;
  }
  Stop();
  if (manifest.tensors.size() != specs_.size()) {
    throw UserError(where + std::to_string(manifest.tensors.size()) +
                    " tensors, the model's config.json wants " + std::to_string(specs_.size()));
  }
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const auto& t = manifest.tensors[i];
    const engine::TensorSpec& spec = specs_[i];
    if (t.name != spec.name || t.shape != spec.shape) {
      throw UserError(where + t.name + " " + ShapeText(t.shape) +
                      " where the model's config.json wants " + spec.name + " " +
                      ShapeText(spec.shape));
    }
    const std::size_t size = BytesOf(t.dtype);
    if (size == 0)
      throw UserError(where + t.name + " is " + t.dtype + "; this actor reads F32 and BF16");
    if (t.end - t.begin != static_cast<std::uint64_t>(spec.count()) * size) {
      throw UserError(where + t.name + " has " + std::to_string(t.end - t.begin) +
                      " bytes, its shape needs " +
                      std::to_string(static_cast<std::uint64_t>(spec.count()) * size));
    }
  }
  manifest_ = manifest;
  bytes_.resize(manifest.bytes);
}

void WeightClient::Stop() {
  manifest_.reset();
  requested_ = received_ = 0;
  verified_ = applied_ = 0;
}

std::vector<wire::WeightsPull> WeightClient::Pulls() {
  std::vector<wire::WeightsPull> pulls;
  if (!manifest_) return pulls;
  while (requested_ < manifest_->bytes && requested_ - received_ < kWindow * kChunk) {
    const auto length =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunk, manifest_->bytes - requested_));
    pulls.push_back({manifest_->version, requested_, length});
    requested_ += length;
  }
  return pulls;
}

void WeightClient::Take(const wire::WeightsChunk& chunk, bool apply_now) {
  const std::uint64_t size = chunk.data.view.size();
  if (!manifest_ || chunk.version != manifest_->version || chunk.offset != received_ ||
      size > requested_ - received_) {
    return;
  }
  if (size > 0) std::memcpy(bytes_.data() + received_, chunk.data.view.data(), size);
  received_ += size;
  const std::span<const std::byte> all(bytes_);
  for (; verified_ < manifest_->tensors.size() && manifest_->tensors[verified_].end <= received_;
       ++verified_) {
    const auto& t = manifest_->tensors[verified_];
    if (configs::Sha256Hex(all.subspan(t.begin, t.end - t.begin)) != t.sha256) {
      const std::string name = t.name;
      const std::uint32_t version = manifest_->version;
      Stop();
      throw MachineError("weights v" + std::to_string(version) + ": " + name +
                         " arrived with another SHA-256 than the learner published");
    }
  }
  while (apply_now && applied_ < verified_) Set(applied_++);
}

std::uint32_t WeightClient::Apply() {
  if (!complete()) throw std::logic_error("WeightClient::Apply: not complete");
  while (applied_ < verified_) Set(applied_++);
  const std::uint32_t version = manifest_->version;
  Stop();
  return version;
}

void WeightClient::Set(std::size_t tensor) {
  const auto& t = manifest_->tensors[tensor];
  const std::byte* from = bytes_.data() + t.begin;
  values_.resize(static_cast<std::size_t>(specs_[tensor].count()));
  if (t.dtype == "F32") {
    if (!values_.empty()) std::memcpy(values_.data(), from, values_.size() * sizeof(float));
  } else {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      std::uint16_t high;
      std::memcpy(&high, from + 2 * i, 2);
      const std::uint32_t bits = std::uint32_t{high} << 16;
      std::memcpy(&values_[i], &bits, 4);
    }
  }
  weights_->Set(t.name, values_);
}

}  // namespace temper::actor
