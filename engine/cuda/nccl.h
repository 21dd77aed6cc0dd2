#pragma once
// NCCL's calls that Temper makes, by NCCL's C interface (2.18 and newer; NVIDIA's nccl.h). The
// library is loaded when something is to travel between devices, so that neither a build nor a run
// on one device needs it.
#include <cuda_runtime.h>

#include <climits>
#include <cstddef>
#include <string>

#include "configs/error.h"

namespace temper::engine::cuda {

using NcclComm = struct NcclCommOpaque*;
struct NcclId {
  char bytes[128];
};

enum NcclResult : int { kNcclSuccess = 0, kNcclInProgress = 7 };
enum NcclType : int { kNcclUint8 = 1, kNcclUint32 = 3 };
enum NcclOp : int { kNcclSum = 0 };

/// ncclConfig_t as 2.18 has it; newer libraries read as much of it as `size` says.
struct NcclConfig {
  std::size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef, version = 21800;
  int blocking = 0;
  int cga_cluster = INT_MIN, min_ctas = INT_MIN, max_ctas = INT_MIN;  // NCCL chooses
  const char* net = nullptr;
  int split_share = INT_MIN;
};

struct Nccl {
  int (*GetVersion)(int* version);  // 21805: 2.18.5
  const char* (*GetErrorString)(int result);
  int (*GetUniqueId)(NcclId* id);
  int (*CommInitAll)(NcclComm* comms, int count, const int* devices);
  int (*CommInitRankConfig)(NcclComm* comm, int ranks, NcclId id, int rank, NcclConfig* config);
  int (*CommGetAsyncError)(NcclComm comm, int* result);
  int (*CommAbort)(NcclComm comm);
  int (*CommDestroy)(NcclComm comm);
  int (*GroupStart)();
  int (*GroupEnd)();
  int (*Broadcast)(const void* from, void* to, std::size_t count, int type, int root, NcclComm comm,
                   cudaStream_t stream);
  int (*Reduce)(const void* from, void* to, std::size_t count, int type, int op, int root,
                NcclComm comm, cudaStream_t stream);
};

/// Loaded once: libnccl.so.2, or what TEMPER_NCCL names. Throws MachineError where it can't be had
/// or is too old. (tests/simt has its own, of host memory.)
const Nccl& LoadNccl();

/// Throws MachineError unless the call succeeded, or goes on where the communicator doesn't block.
inline void CheckNccl(const Nccl& nccl, int result, const std::string& where,
                      const std::string& doing) {
  if (result == kNcclSuccess || result == kNcclInProgress) return;
  throw MachineError(where + ": NCCL: " + doing + ": " + nccl.GetErrorString(result) +
                     "; NCCL_DEBUG=WARN says more");
}

}  // namespace temper::engine::cuda
