#pragma once
// The engine's steps on a device: rows in by one copy, a graph of launches, tokens out by one copy.
#include <map>
#include <optional>

#include "engine/cuda/forward.h"
#include "engine/cuda/key_table.h"
#include "engine/decoder.h"

namespace temper::engine::cuda {

class CudaDecoder : public Decoder {
 public:
  CudaDecoder(std::shared_ptr<const Weights> weights, const EngineOptions& options,
              DeviceRange devices);
  ~CudaDecoder() override;

  std::int64_t CacheBytes(int layers) const override;
  CacheMemory TakeCache(std::int64_t page_bytes, std::int64_t max_pages) override;
  void Run(const ForwardRows& rows, std::span<const int> heads,
           const Forward::Experts& experts) override;
  std::vector<Drawn> Sample(std::span<const Draw> draws) override;
  std::vector<Drawn> SampleFrom(std::span<const Draw> draws, const float* logits) override;
  const float* states() const override { return nullptr; }
  Forward* forward() override { return nullptr; }
  void WeightsChanged() override;

 private:
  /// A piece of memory on both sides: the host writes or reads its pinned half.
  struct Mailbox {
    std::shared_ptr<std::byte> host, device;
    std::size_t bytes = 0;
  };
  void Grow(Mailbox* box, std::size_t bytes, const char* what);
  void ReserveRows(int rows, int heads);
  void Fill(const ForwardRows& rows, int padded, std::span<const int> heads);
  void TellExperts(int m, const Forward::Experts& experts);
  void Launch(int m, int splits);
  void DropGraphs();
  void CopyKept(std::span<const Draw> draws, std::vector<Drawn>* drawn);

  std::shared_ptr<const Weights> host_;
  const EngineOptions options_;
  int valid_;
  /// Whether short steps are graphs. Not over several devices unless asked for: NVIDIA warns of
  /// deadlocks where one thread captures NCCL's calls on many, and it has not run on two yet.
  const bool captures_;
  Device device_;
  std::unique_ptr<ExpertDevices> others_;
  DeviceWeights weights_;
  DeviceForward forward_;
  std::optional<KeyTable> keys_;
  std::shared_ptr<std::byte> cache_;
  int longest_ = 0;  // most keys that a row of this step sees
  Mailbox rows_, draws_;
  int row_room_ = 0, head_room_ = 0, heads_ = 0;
  DeviceRows at_{};
  std::int32_t* picked_ = nullptr;
  cudaEvent_t rows_taken_ = nullptr;  // the last step's rows have left the host
  struct Shape {
    int rows, splits;
    auto operator<=>(const Shape&) const = default;
  };
  std::map<Shape, cudaGraphExec_t> graphs_;
};

}  // namespace temper::engine::cuda
