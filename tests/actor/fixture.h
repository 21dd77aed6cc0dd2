#pragma once
// A small model as a learner publishes it: config text, manifest and bytes.
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "configs/sha256.h"
#include "engine/weights.h"
#include "tests/engine/tiny_model.h"
#include "wire/protocol.h"

namespace temper::actor {

struct Published {
  wire::WeightsManifest manifest;
  std::vector<std::byte> bytes;

  wire::WeightsChunk Chunk(const wire::WeightsPull& pull) const {
    return {pull.version, pull.offset,
            wire::Bytes::Copy(std::span<const std::byte>(bytes).subspan(pull.offset, pull.length))};
  }
};

inline Published Publish(const engine::ModelConfig& config, std::uint64_t session,
                         std::uint32_t version, const std::string& dtype = "F32") {
  Published published;
  wire::WeightsManifest& manifest = published.manifest;
  manifest.session = session;
  manifest.version = version;
  std::mt19937_64 random(version + 1);
  std::normal_distribution<float> normal;
  for (const engine::TensorSpec& spec : engine::RequiredTensors(config)) {
    wire::WeightsManifest::Tensor t;
    t.name = spec.name;
    t.dtype = dtype;
    t.shape = spec.shape;
    t.begin = published.bytes.size();
    for (std::int64_t i = 0; i < spec.count(); ++i) {
      const bool norm = spec.kind == engine::TensorSpec::Kind::kNorm;
      const float value = norm ? 1.0f : 0.15f * normal(random);
      std::uint32_t bits;
      std::memcpy(&bits, &value, 4);
      if (dtype == "BF16") bits >>= 16;
      const auto* from = reinterpret_cast<const std::byte*>(&bits);
      published.bytes.insert(published.bytes.end(), from, from + (dtype == "BF16" ? 2 : 4));
    }
    t.end = published.bytes.size();
    t.sha256 = configs::Sha256Hex(
        std::span<const std::byte>(published.bytes).subspan(t.begin, t.end - t.begin));
    manifest.tensors.push_back(t);
  }
  manifest.bytes = published.bytes.size();
  return published;
}

}  // namespace temper::actor
