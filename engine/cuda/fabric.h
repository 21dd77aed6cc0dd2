#pragma once
// Fabric by NCCL's broadcast: host memory through a device's at one end, back at the others.
#include <cuda_runtime.h>

#include <memory>
#include <string>

#include "engine/cuda/memory.h"
#include "engine/cuda/nccl.h"
#include "engine/fabric.h"

namespace temper::engine::cuda {

/// Why it can't hang: the communicator is made with blocking = 0, so NCCL's calls come back at once
/// and ncclCommGetAsyncError says how they fare; streams are asked, never waited for; and each
/// joining and each piece has `patience_s`. Then ncclCommAbort ends the device's part. It is the
/// one call here that NCCL lets block: FabricThread leaves a thread behind that never comes back
/// from it.
class NcclFabric : public Fabric {
 public:
  NcclFabric(const Nccl& nccl, int device, double patience_s = 20,
             std::size_t piece = std::size_t{64} << 20);
  ~NcclFabric() override;

  std::string kind() const override;
  std::string place() const override { return place_; }
  std::string NewGroup() override;
  void Send(const FabricGroup& group, std::span<const std::byte> bytes,
            const std::atomic<bool>& stop) override;
  void Receive(const FabricGroup& group, std::span<std::byte> bytes,
               const std::atomic<bool>& stop) override;

 private:
  /// `from` of rank 0, `to` of the others.
  void Travel(const FabricGroup& group, const std::byte* from, std::byte* to, std::size_t bytes,
              const std::atomic<bool>& stop);
  void Join(const FabricGroup& group, const std::atomic<bool>& stop);
  void Pass(const std::byte* from, std::byte* to, std::size_t bytes, const std::atomic<bool>& stop);
  void Leave();
  /// Until NCCL is done with its call and both streams are idle.
  void Wait(const std::string& what, const std::atomic<bool>& stop) const;
  bool Idle() const;
  void Check(int result, const std::string& doing) const;
  std::string Others() const;

  const Nccl& nccl_;
  const double patience_s_;
  const std::size_t piece_;
  const Device wire_, copy_;  // one device, a stream for NCCL and one for copies
  std::string place_;
  std::shared_ptr<std::byte> pinned_[2], staged_[2];
  FabricGroup group_;
  NcclComm comm_ = nullptr;
};

}  // namespace temper::engine::cuda
