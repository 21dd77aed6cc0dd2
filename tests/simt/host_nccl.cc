// NCCL for the machine of simt.h: the communicators of one process, each call a meeting of their
// streams. A call that some rank does not make in the same group hangs on a device; here it is
// refused.
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "engine/cuda/nccl.h"
#include "tests/simt/host_runtime.h"

namespace temper::engine::cuda {

struct NcclCommOpaque {
  std::shared_ptr<std::vector<NcclComm>> all;
  int rank, device;
};

namespace {

constexpr int kInvalidArgument = 4, kInvalidUsage = 5;

struct Call {
  bool reduces;
  const void* from;
  void* to;
  std::size_t count;
  int type, root;
  NcclComm comm;
  cudaStream_t stream;
};
thread_local int depth = 0;
thread_local std::vector<Call> calls;

std::size_t Bytes(const Call& c) { return c.count * (c.type == kNcclUint32 ? 4 : 1); }

void Do(const std::vector<Call>& ranks) {
  const Call& root = ranks[std::size_t(ranks[0].root)];
  if (!root.reduces) {
    for (const Call& c : ranks) std::memmove(c.to, root.from, Bytes(root));
    return;
  }
  std::vector<std::uint32_t> sum(root.count), part(root.count);
  for (const Call& c : ranks) {
    std::memcpy(part.data(), c.from, Bytes(c));
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  std::memcpy(root.to, sum.data(), Bytes(root));
}

/// The n-th call of each rank belongs to the n-th of the others.
int Together() {
  while (!calls.empty()) {
    const Call first = calls[0];
    std::vector<Call> ranks;
    std::vector<cudaStream_t> streams;
    for (NcclComm comm : *first.comm->all) {
      auto at = calls.begin();
      while (at != calls.end() && at->comm != comm) ++at;
      if (at == calls.end()) return kInvalidUsage;
      if (at->reduces != first.reduces || at->count != first.count || at->type != first.type ||
          at->root != first.root)
        return kInvalidUsage;
      ranks.push_back(*at);
      streams.push_back(at->stream);
      calls.erase(at);
    }
    ++simt::Host().collectives;
    simt::EnqueueTogether(streams, [ranks] { Do(ranks); });
  }
  return kNcclSuccess;
}

int GroupEnd() {
  if (--depth > 0) return kNcclSuccess;
  const int result = Together();
  calls.clear();
  return result;
}

int Add(const Call& call) {
  if (call.from == nullptr || call.stream == nullptr) return kInvalidArgument;
  ++depth;
  calls.push_back(call);
  return GroupEnd();
}

int CommInitAll(NcclComm* comms, int count, const int* devices) {
  if (std::set<int>(devices, devices + count).size() != std::size_t(count)) return kInvalidUsage;
  const auto all = std::make_shared<std::vector<NcclComm>>();
  for (int i = 0; i < count; ++i) {
    comms[i] = new NcclCommOpaque{all, i, devices[i]};
    all->push_back(comms[i]);
  }
  return kNcclSuccess;
}

int CommDestroy(NcclComm comm) {
  delete comm;
  return kNcclSuccess;
}

}  // namespace

const Nccl& LoadNccl() {
  static const Nccl nccl = [] {
    Nccl n{};
    n.GetErrorString = [](int result) {
      return result == kInvalidUsage ? "invalid usage" : "invalid argument";
    };
    n.GetVersion = [](int* version) { return *version = kNcclSuccess; };
    // Other processes can't be reached.
    n.GetUniqueId = [](NcclId*) { return kInvalidUsage; };
    n.CommInitRankConfig = [](NcclComm*, int, NcclId, int, NcclConfig*) { return kInvalidUsage; };
    n.CommInitAll = CommInitAll;
    n.CommGetAsyncError = [](NcclComm, int* result) { return *result = kNcclSuccess; };
    n.CommDestroy = CommDestroy;
    n.CommAbort = [](NcclComm comm) {
      ++simt::Host().aborts;
      return CommDestroy(comm);
    };
    n.GroupStart = [] {
      ++depth;
      return int(kNcclSuccess);
    };
    n.GroupEnd = GroupEnd;
    n.Broadcast = [](const void* from, void* to, std::size_t count, int type, int root,
                     NcclComm comm, cudaStream_t stream) {
      return Add({false, from, to, count, type, root, comm, stream});
    };
    n.Reduce = [](const void* from, void* to, std::size_t count, int type, int, int root,
                  NcclComm comm, cudaStream_t stream) {
      return Add({true, from, to, count, type, root, comm, stream});
    };
    return n;
  }();
  return nccl;
}

}  // namespace temper::engine::cuda
