#include "engine/cuda/fabric.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>

#include "engine/decoder.h"

namespace temper::engine::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::microseconds(50);  // a piece takes milliseconds

/// The bus tells devices of a machine apart, whatever CUDA_VISIBLE_DEVICES calls them; the kernel's
/// boot tells machines apart.
std::string PlaceOf(int device, const Device& checks) {
  char bus[32] = {};
  checks.Check(cudaDeviceGetPCIBusId(bus, sizeof bus, device), "asking for its bus");
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return boot + "/" + bus;
}

}  // namespace

NcclFabric::NcclFabric(const Nccl& nccl, int device, double patience_s, std::size_t piece)
    : nccl_(nccl),
      patience_s_(patience_s),
      piece_(piece),
      wire_(device),
      copy_(device),
      place_(PlaceOf(device, wire_)) {}

NcclFabric::~NcclFabric() { Leave(); }

std::string NcclFabric::kind() const {
  int version = 0;
  Check(nccl_.GetVersion(&version), "asking for its version");
  return "nccl-" + std::to_string(version);
}

std::string NcclFabric::NewGroup() {
  NcclId id;
  static_assert(sizeof id.bytes == kFabricId);
  Check(nccl_.GetUniqueId(&id), "opening a group");
  return {id.bytes, sizeof id.bytes};
}

void NcclFabric::Send(const FabricGroup& group, std::span<const std::byte> bytes,
                      const std::atomic<bool>& stop) {
  Travel(group, bytes.data(), nullptr, bytes.size(), stop);
}

void NcclFabric::Receive(const FabricGroup& group, std::span<std::byte> bytes,
                         const std::atomic<bool>& stop) {
  Travel(group, nullptr, bytes.data(), bytes.size(), stop);
}

void NcclFabric::Travel(const FabricGroup& group, const std::byte* from, std::byte* to,
                        std::size_t bytes, const std::atomic<bool>& stop) {
  wire_.Use();
  try {
    if (comm_ == nullptr || group.id != group_.id) Join(group, stop);
    Pass(from, to, bytes, stop);
  } catch (...) {
    Leave();
    throw;
  }
}

void NcclFabric::Join(const FabricGroup& group, const std::atomic<bool>& stop) {
  Leave();
  group_ = group;
  for (int i = 0; i < 2 && !staged_[1]; ++i) {
    staged_[i] = wire_.Allocate(piece_, "weights on their way");
    pinned_[i] = wire_.AllocateHost(piece_);
  }
  NcclId id;
  std::copy_n(group.id.data(), std::min(group.id.size(), sizeof id.bytes), id.bytes);
  NcclConfig config;
  Check(nccl_.CommInitRankConfig(&comm_, group.ranks, id, group.rank, &config), "joining a group");
  Wait("to join", stop);
}

/// In round r rank 0 reads piece r from host memory, copies r - 1 to the device and broadcasts
/// r - 2; the others receive r, copy r - 1 to the host and write r - 2. The three touch different
/// halves of the staging memory.
void NcclFabric::Pass(const std::byte* from, std::byte* to, std::size_t bytes,
                      const std::atomic<bool>& stop) {
  const std::size_t pieces = (bytes + piece_ - 1) / piece_;
  const auto size = [&](std::size_t piece) { return std::min(piece_, bytes - piece * piece_); };
  for (std::size_t round = 0; pieces > 0 && round < pieces + 2; ++round) {
    const std::size_t received = from != nullptr ? round - 2 : round,
                      copied = round - 1,  // below 0 it wraps past `pieces`
        touched = from != nullptr ? round : round - 2;
    if (received < pieces) {
      std::byte* const at = staged_[received % 2].get();
      Check(nccl_.Broadcast(at, at, size(received), kNcclUint8, 0, comm_, wire_.stream()),
            "sending a piece");
    }
    if (copied < pieces) {
      std::byte *const host = pinned_[copied % 2].get(), *const device = staged_[copied % 2].get();
      if (from != nullptr) {
        copy_.Copy(device, host, size(copied), cudaMemcpyHostToDevice);
      } else {
        copy_.Copy(host, device, size(copied), cudaMemcpyDeviceToHost);
      }
    }
    if (touched < pieces) {
      std::byte* const host = pinned_[touched % 2].get();
      if (from != nullptr) {
        std::memcpy(host, from + touched * piece_, size(touched));
      } else {
        std::memcpy(to + touched * piece_, host, size(touched));
      }
    }
    Wait("with piece " + std::to_string(received < pieces ? received + 1 : pieces) + " of " +
             std::to_string(pieces),
         stop);
  }
}

/// Not ncclCommDestroy, which waits for the other members.
void NcclFabric::Leave() {
  if (comm_ != nullptr) nccl_.CommAbort(std::exchange(comm_, nullptr));
}

void NcclFabric::Wait(const std::string& what, const std::atomic<bool>& stop) const {
  const auto deadline = Clock::now() + std::chrono::duration<double>(patience_s_);
  for (;;) {
    int state = kNcclSuccess;
    Check(nccl_.CommGetAsyncError(comm_, &state), "asking " + Others());
    Check(state, Others());
    if (stop) throw MachineError(wire_.name() + ": NCCL: stopped");
    // While a call is in progress, what it puts on the stream is not there yet.
    if (state == kNcclSuccess && Idle()) return;
    if (Clock::now() > deadline) {
      throw MachineError(wire_.name() + ": NCCL: waited " + std::to_string(int(patience_s_)) +
                         " s for " + Others() + " " + what);
    }
    std::this_thread::sleep_for(kPoll);
  }
}

bool NcclFabric::Idle() const {
  for (const Device* device : {&wire_, &copy_}) {
    const cudaError_t status = cudaStreamQuery(device->stream());
    if (status == cudaErrorNotReady) return false;
    device->Check(status, "moving a piece");
  }
  return true;
}

void NcclFabric::Check(int result, const std::string& doing) const {
  CheckNccl(nccl_, result, wire_.name(), doing);
}

std::string NcclFabric::Others() const {
  if (group_.rank == 0) return std::to_string(group_.ranks - 1) + " receivers";
  return "the sender and " + std::to_string(group_.ranks - 2) + " other receivers";
}

}  // namespace temper::engine::cuda

namespace temper::engine {

std::unique_ptr<Fabric> OpenFabric(const std::string& device) {
  return std::make_unique<cuda::NcclFabric>(cuda::LoadNccl(), ParseDevices(device).first);
}

}  // namespace temper::engine
