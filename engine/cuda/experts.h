#pragma once
// Expert parallelism: the routed experts of a model spread over devices of one machine.
#include <memory>
#include <vector>

#include "engine/cuda/linear.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/nccl.h"
#include "engine/cuda/weights.h"

namespace temper::engine::cuda {

/// Device memory for an MLP's intermediate results: 2 m width and m width floats, and the widest of
/// its linear layers' inputs.
struct MlpRoom {
  float *gate_up, *gated;
  LinearRoom linear;
};

/// Rows [m][H] through an MLP; `offset` as in kernels::cuda::Groups (null: one MLP, all rows).
void RunMlp(const Numerics& numerics, const DeviceMlp& w, const float* in,
            const std::int32_t* offset, int m, MlpRoom room, float* out, cudaStream_t stream);

/// The devices behind a first one, which computes all else. For each MoE layer the first sends them
/// the rows and where each goes; each computes its experts' rows in a block of zeros, and the first
/// adds up the blocks' bits as integers: a row comes from one device alone, so what arrives is what
/// one device would have computed. Nothing waits: a pass with all its devices may be captured.
/// While the first waits, a device that failed, or none that answers for kPatience, ends the wait.
class ExpertDevices {
 public:
  /// Devices [number of first + 1, ... + count). Part 0 of the experts is the first's. Throws
  /// UserError where the model has fewer experts than devices, MachineError. All must outlive it.
  ExpertDevices(const Weights& weights, Device* first, int count);
  ~ExpertDevices();

  /// Scratch memory for steps of `rows` rows, at other addresses where there was less.
  void Reserve(int rows);
  /// As DeviceWeights::Update().
  bool Update();

  /// Their streams go on where the first's is, and the first's where theirs are.
  void Fork();
  void Join();
  /// `layer`'s other experts take rows normed [m][H] of the first device; its source [m top_k] and
  /// offset [experts + 1] are SortByExpert's.
  void Begin(int layer, const float* normed, const std::int32_t* source, const std::int32_t* offset,
             int m);
  /// Adds their rows to `out` [m top_k][H] on the first device, which holds zeros there.
  void End(float* out, int m);

 private:
  struct Other;
  static constexpr double kPatience = 120;  // seconds; a step takes at most some

  void Lay(Other* other, int rows);
  void Meet();
  /// Ends all devices' exchanges and throws where one has failed or `waited` is too long.
  void Look(double waited);
  /// call(rank, stream) for each device, as one group of NCCL's calls.
  template <typename Call>
  void Together(const char* doing, const Call& call);

  const ModelConfig& c_;
  const Numerics numerics_;
  Device& first_;
  std::string name_;  // "cuda:0-3"
  std::vector<std::unique_ptr<Other>> others_;
  std::vector<NcclComm> comms_;  // the first's is the first
  cudaEvent_t forked_ = nullptr;
  int rows_ = 0;
  bool ended_ = false;  // the communicators are gone
};

}  // namespace temper::engine::cuda
