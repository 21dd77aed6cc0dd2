#pragma once
// Where a step's rows go through the model and its tokens are drawn: the CPU, or a device.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/forward.h"

namespace temper::engine {

/// A token to draw: its place in the stream, and the row of the last Run's logits.
struct Draw {
  std::uint64_t seed = 0, group = 0;
  std::uint32_t sample = 0, position = 0;
  const kernels::SampleParams* params = nullptr;
  int row = 0;
  bool kept = false;  // report the ids that sampling chose from
};

struct Drawn {
  kernels::SampledToken token;
  std::vector<std::int32_t> kept;
};

/// Memory of the cache's pages where the decoder computes; null: pages lie in the host's memory and
/// come as they are needed.
struct CacheMemory {
  std::shared_ptr<std::byte> data;
  std::int64_t pages = 0;
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  /// Bytes of the cache rows of so many layers of one token.
  virtual std::int64_t CacheBytes(int layers) const = 0;
  /// Room for max_pages pages (0: as many as there is memory for) of `page_bytes`. Called once.
  virtual CacheMemory TakeCache(std::int64_t page_bytes, std::int64_t max_pages) = 0;
  /// The rows through the model, and the logits of those whose numbers `heads` holds. `experts` may
  /// be null.
  virtual void Run(const ForwardRows& rows, std::span<const int> heads,
                   const Forward::Experts& experts) = 0;
  /// A token each, from the last Run's logits. Waits for them.
  virtual std::vector<Drawn> Sample(std::span<const Draw> draws) = 0;
  /// [m, H] states of the last Run after the final norm; null where they aren't in the host's
  /// memory. Valid until the next Run.
  virtual const float* states() const = 0;
  /// What the MTP layers run on; null: no drafts here.
  virtual Forward* forward() = 0;
  /// Tokens from logits [rows, V] in the host's memory, as Sample.
  virtual std::vector<Drawn> SampleFrom(std::span<const Draw> draws, const float* logits) = 0;
  /// The caller has changed the weights; nothing runs.
  virtual void WeightsChanged() = 0;
};

/// By options.device: "cpu", "cuda:N", or "cuda:N-M" with the experts spread over devices N to M.
/// Throws UserError for a name that is none of these or a model the devices don't take,
/// MachineError where this machine or this build lacks a device. `pool` must outlive it.
std::unique_ptr<Decoder> MakeDecoder(std::shared_ptr<const Weights> weights,
                                     const EngineOptions& options, kernels::ThreadPool& pool);

/// "cuda:2-5" is {2, 4}, "cuda:2" {2, 1}, "cuda" {0, 1}, "cpu" {-1, 1}. Throws UserError.
struct DeviceRange {
  int first, count;
};
DeviceRange ParseDevices(const std::string& devices);
/// The N of "cuda:N", -1 for "cpu". Throws UserError, for several devices too.
int DeviceNumber(const std::string& device);

/// Throws what MakeDecoder would throw for the devices themselves.
void CheckDevice(const std::string& device);

/// Both in engine/cuda; in builds without TEMPER_CUDA they throw MachineError (engine/no_cuda.cc).
void CheckCudaDevice(int device);
std::unique_ptr<Decoder> MakeCudaDecoder(std::shared_ptr<const Weights> weights,
                                         const EngineOptions& options, DeviceRange devices);

}  // namespace temper::engine
