#include "engine/cuda/nccl.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "configs/error.h"

// Where the header is, the numbers that are written out here are held against it.
#if __has_include(<nccl.h>)
#include <nccl.h>
namespace temper::engine::cuda {
static_assert(sizeof(ncclUniqueId) == sizeof(NcclId));
static_assert(int(ncclSuccess) == kNcclSuccess && int(ncclInProgress) == kNcclInProgress);
static_assert(int(ncclUint8) == kNcclUint8 && int(ncclUint32) == kNcclUint32);
static_assert(int(ncclSum) == kNcclSum);
static_assert(offsetof(ncclConfig_t, blocking) == offsetof(NcclConfig, blocking));
static_assert(offsetof(ncclConfig_t, netName) == offsetof(NcclConfig, net));
static_assert(offsetof(ncclConfig_t, splitShare) == offsetof(NcclConfig, split_share));
}  // namespace temper::engine::cuda
#endif

namespace temper::engine::cuda {
namespace {

constexpr int kOldest = 21800;  // whose ncclConfig_t NcclConfig is

template <typename F>
void Find(void* library, const char* name, F* to) {
  *to = reinterpret_cast<F>(dlsym(library, name));
  if (*to == nullptr) throw MachineError(std::string("NCCL: the library has no ") + name);
}

Nccl Load() {
  const char* const named = std::getenv("TEMPER_NCCL");
  const std::string file = named != nullptr && *named != '\0' ? named : "libnccl.so.2";
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw MachineError("NCCL: " + file + " can't be loaded (" + dlerror() +
                       "); several devices need it: install NCCL 2, or name its libnccl.so.2 in "
                       "TEMPER_NCCL");
  }
  Nccl n{};
  Find(library, "ncclGetVersion", &n.GetVersion);
  Find(library, "ncclGetErrorString", &n.GetErrorString);
  Find(library, "ncclGetUniqueId", &n.GetUniqueId);
  Find(library, "ncclCommInitAll", &n.CommInitAll);
  Find(library, "ncclCommInitRankConfig", &n.CommInitRankConfig);
  Find(library, "ncclCommGetAsyncError", &n.CommGetAsyncError);
  Find(library, "ncclCommAbort", &n.CommAbort);
  Find(library, "ncclCommDestroy", &n.CommDestroy);
  Find(library, "ncclGroupStart", &n.GroupStart);
  Find(library, "ncclGroupEnd", &n.GroupEnd);
  Find(library, "ncclBroadcast", &n.Broadcast);
  Find(library, "ncclReduce", &n.Reduce);
  int version = 0;
  n.GetVersion(&version);
  if (version < kOldest) {
    throw MachineError("NCCL: " + file + " is of version " + std::to_string(version) + "; 2.18 (" +
                       std::to_string(kOldest) + ") or newer is needed");
  }
  return n;
}

}  // namespace

const Nccl& LoadNccl() {
  static const Nccl nccl = Load();
  return nccl;
}

}  // namespace temper::engine::cuda
