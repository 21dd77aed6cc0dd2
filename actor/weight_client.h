#pragma once
// Pulls one published weight set, or what changed since the last one, in chunks; verifies every
// tensor and puts it in place.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "wire/protocol.h"

namespace temper::actor {

/// No socket, no clock: manifests and chunks in, pulls out.
///   idle --Start--> pulling --last chunk--> complete --Apply--> idle
/// A delta is pulled aside and applied when it is whole, so that the bytes of the version in use
/// stay until then; a full set overwrites them, and until it is whole only full sets can follow.
class WeightClient {
 public:
  /// Hashes and packs on the threads of `pool`, which outlives this; null: on the caller's.
  explicit WeightClient(std::shared_ptr<engine::Weights> weights,
                        kernels::ThreadPool* pool = nullptr);

  /// Begins with a manifest, or goes on where the same version (and session) stopped. Throws
  /// UserError naming the tensor where the manifest is not of this model: then nothing was
  /// allocated.
  void Start(const wire::WeightsManifest& manifest);
  /// Copies a full set that has to be pulled from memory that the learner shares on this machine.
  /// What is not the manifest's there is left to pull.
  void Fetch(const std::string& path, bool apply_now);
  /// The memory of a full set of which nothing came yet, for somebody else to fill; until it is
  /// given back nothing is pulled. None: no such set is to come.
  std::optional<std::vector<std::byte>> Lend();
  /// Whatever lies in it: what is not the manifest's is left to pull. Without effect where another
  /// set was begun since.
  void GiveBack(std::vector<std::byte> bytes, bool apply_now);
  /// Forgets what was pulled.
  void Stop();
  /// Forgets the version in use too: the next set is a full one.
  void Distrust() { base_.reset(); }
  /// Pulls to send now: at most kWindow are under way.
  std::vector<wire::WeightsPull> Pulls();
  /// Takes the next chunk; others are ignored. Bytes whose SHA-256 is not the manifest's are pulled
  /// again (a full set's from that tensor on, instead of a delta the full set): kMaxCorrupt times a
  /// version, then MachineError. `apply_now`: nothing runs on the weights, so a verified tensor is
  /// put in place at once, while others travel.
  void Take(const wire::WeightsChunk& chunk, bool apply_now);
  bool pulling() const { return manifest_.has_value() && !complete(); }
  bool complete() const { return manifest_ && verified_ == manifest_->tensors.size(); }
  /// Puts what is left in place, between two engine steps; gives the version. Only when complete.
  std::uint32_t Apply();

  std::uint64_t corrupt() const { return corrupt_; }      // tensors caught, ever
  std::uint64_t bytes_pulled() const { return pulled_; }  // ever

  static constexpr std::uint32_t kChunk = 1 << 20;
  static constexpr std::uint64_t kWindow = 4;  // pulls under way
  static constexpr int kMaxCorrupt = 3;

 private:
  /// What one tensor of the model travels as.
  struct Piece {
    const engine::TensorSpec* spec;
    std::size_t tensor;  // in the manifest
    bool coded;          // E4M3; the next tensor is its multipliers
    std::size_t last() const { return tensor + (coded ? 1 : 0); }
  };
  struct Base {
    std::uint64_t session;
    std::uint32_t version;
    struct Tensor {
      std::uint64_t end;
      std::string sha256;
    };
    std::vector<Tensor> tensors;
  };
  std::vector<Piece> Plan(const wire::WeightsManifest& manifest) const;
  bool MayPatch(const wire::WeightsManifest& manifest) const;
  void TakeAll(const std::byte* from, bool apply_now);
  void TakeFull();
  void TakeDelta();
  bool Patch(std::size_t tensor);
  /// `from`: where their bytes are copied from first.
  std::optional<std::size_t> FirstBad(const std::vector<std::size_t>& tensors,
                                      const std::byte* from = nullptr);
  void Run(std::size_t count, const std::function<void(std::size_t)>& part) const;
  void Corrupt(std::size_t tensor);
  void Set(const Piece& piece) const;
  void SetVerified();

  std::shared_ptr<engine::Weights> weights_;
  kernels::ThreadPool* pool_;
  std::vector<engine::TensorSpec> specs_;
  std::optional<wire::WeightsManifest> manifest_;
  std::optional<Base> base_;      // what bytes_ hold; not while a full set overwrites them
  std::vector<std::byte> bytes_;  // the full set
  bool delta_ = false;            // what is pulled
  bool lent_ = false;             // bytes_
  std::vector<std::byte> changes_;
  std::uint64_t requested_ = 0, received_ = 0;
  std::vector<Piece> pieces_;
  std::size_t verified_ = 0, applied_ = 0;  // tensors; pieces
  int corrupt_here_ = 0;                    // of this version
  std::uint64_t corrupt_ = 0, pulled_ = 0;
};

}  // namespace temper::actor
