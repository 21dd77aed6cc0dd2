#pragma once
// Pulls one published weight set in chunks, verifies every tensor and puts it in place.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "wire/protocol.h"

namespace temper::actor {

/// No socket, no clock: manifests and chunks in, pulls out.
///   idle --Start--> pulling --last chunk--> complete --Apply--> idle
class WeightClient {
 public:
  explicit WeightClient(std::shared_ptr<engine::Weights> weights);

  /// Begins with a manifest, or goes on where the same version (and session) stopped. Throws
  /// UserError naming the tensor where the manifest is not of this model: then nothing was
  /// allocated.
  void Start(const wire::WeightsManifest& manifest);
  /// Forgets what was pulled.
  void Stop();
  /// Pulls to send now: at most kWindow are under way.
  std::vector<wire::WeightsPull> Pulls();
  /// Takes the next chunk; others are ignored. Throws MachineError for bytes whose SHA-256 is not
  /// the manifest's. `apply_now`: nothing runs on the weights, so a verified tensor is put in place
  /// at once, while others travel.
  void Take(const wire::WeightsChunk& chunk, bool apply_now);
  bool pulling() const { return manifest_.has_value() && !complete(); }
  bool complete() const { return manifest_ && verified_ == manifest_->tensors.size(); }
  /// Puts what is left in place, between two engine steps; gives the version. Only when complete.
  std::uint32_t Apply();

  static constexpr std::uint32_t kChunk = 1 << 20;
  static constexpr std::uint64_t kWindow = 4;  // pulls under way

 private:
  /// What one tensor of the model travels as.
  struct Piece {
    const engine::TensorSpec* spec;
    std::size_t tensor;  // in the manifest
    bool coded;          // E4M3; the next tensor is its multipliers
    std::size_t last() const { return tensor + (coded ? 1 : 0); }
  };
  void Plan(const wire::WeightsManifest& manifest);
  void Set(const Piece& piece);
  void SetVerified();

  std::shared_ptr<engine::Weights> weights_;
  std::vector<engine::TensorSpec> specs_;
  std::optional<wire::WeightsManifest> manifest_;
  std::vector<std::byte> bytes_;
  std::uint64_t requested_ = 0, received_ = 0;
  std::vector<Piece> pieces_;
  std::size_t verified_ = 0, applied_ = 0;  // tensors; pieces
  std::vector<float> values_;
};

}  // namespace temper::actor
