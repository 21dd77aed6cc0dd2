// NcclFabric with an NCCL of host memory, ranks as threads, and members that stop where they like.
#include "engine/cuda/fabric.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "configs/error.h"
#include "tests/simt/host_runtime.h"

namespace temper::engine::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRemoteError = 6;

/// What the members of one id share. A broadcast runs at a member as on a device: when all have
/// called it, and at a receiver not before the sender's has run.
struct Room {
  int ranks = 0, joined = 0;
  struct Call {
    int entered = 0;
    bool sent = false;
    std::vector<std::byte> bytes;
  };
  std::map<int, Call> calls;
  bool broken = false;  // a member aborted, and its peers notice (tells)
};

struct World {
  std::mutex mutex;
  std::map<std::string, Room> rooms;
  int ids = 0, aborts = 0, live = 0;
  bool tells = false;  // whether a member's end is an error for the others, or a silence
  std::map<cudaStream_t, std::vector<std::pair<Room*, std::pair<int, int>>>> queued;  // call, rank
};
World* world = nullptr;

/// What a communicator is here.
struct Member {
  Room* room;
  int rank, next = 0;
};
Member* Of(NcclComm comm) { return reinterpret_cast<Member*>(comm); }

int GetVersion(int* version) {
  *version = 22707;
  return kNcclSuccess;
}
const char* GetErrorString(int result) { return result == kRemoteError ? "remote" : "some error"; }
int GetUniqueId(NcclId* id) {
  const std::lock_guard lock(world->mutex);
  std::memset(id->bytes, 0, sizeof id->bytes);
  id->bytes[0] = static_cast<char>(++world->ids);
  return kNcclSuccess;
}
int CommInitRankConfig(NcclComm* comm, int ranks, NcclId id, int rank, NcclConfig* config) {
  EXPECT_EQ(config->blocking, 0);
  EXPECT_EQ(config->size, sizeof(NcclConfig));
  const std::lock_guard lock(world->mutex);
  Room& room = world->rooms[{id.bytes, sizeof id.bytes}];
  room.ranks = ranks;
  ++room.joined;
  ++world->live;
  *comm = reinterpret_cast<NcclComm>(new Member{&room, rank});
  return kNcclInProgress;
}
int CommGetAsyncError(NcclComm comm, int* result) {
  const std::lock_guard lock(world->mutex);
  const Room& room = *Of(comm)->room;
  *result = room.broken ? kRemoteError : room.joined < room.ranks ? kNcclInProgress : kNcclSuccess;
  return kNcclSuccess;
}
int CommAbort(NcclComm comm) {
  const std::lock_guard lock(world->mutex);
  Room* const room = Of(comm)->room;
  room->broken = room->broken || world->tells;
  for (auto& [stream, calls] : world->queued) {
    std::erase_if(
        calls, [&](const auto& c) { return c.first == room && c.second.second == Of(comm)->rank; });
  }
  ++world->aborts;
  --world->live;
  delete Of(comm);
  return kNcclSuccess;
}
int Broadcast(const void* from, void* to, std::size_t count, int type, int root, NcclComm comm,
              cudaStream_t stream) {
  EXPECT_EQ(type, kNcclUint8);
  EXPECT_EQ(root, 0);
  const std::lock_guard lock(world->mutex);
  Room* const room = Of(comm)->room;
  const int call = Of(comm)->next++, rank = Of(comm)->rank;
  ++room->calls[call].entered;
  world->queued[stream].push_back({room, {call, rank}});
  simt::Enqueue(stream, [=] {
    const std::lock_guard again(world->mutex);
    Room::Call& c = room->calls[call];
    if (rank == 0) {
      const auto* bytes = static_cast<const std::byte*>(from);
      c.bytes.assign(bytes, bytes + count);
      c.sent = true;
    } else if (c.sent && c.bytes.size() == count) {  // neither: it was aborted
      std::memcpy(to, c.bytes.data(), count);
    }
  });
  return kNcclSuccess;
}
bool Ready(cudaStream_t stream) {
  const std::lock_guard lock(world->mutex);
  auto& queued = world->queued[stream];
  for (const auto& [room, place] : queued) {
    const Room::Call& call = room->calls[place.first];
    if (call.entered < room->ranks || (place.second != 0 && !call.sent)) return false;
  }
  queued.clear();
  return true;
}

const Nccl& HostNccl() {
  static const Nccl nccl = [] {
    Nccl n{};
    n.GetVersion = GetVersion;
    n.GetErrorString = GetErrorString;
    n.GetUniqueId = GetUniqueId;
    n.CommInitRankConfig = CommInitRankConfig;
    n.CommGetAsyncError = CommGetAsyncError;
    n.CommAbort = CommAbort;
    n.Broadcast = Broadcast;
    return n;
  }();
  return nccl;
}

std::vector<std::byte> Noise(std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::uint32_t state = std::uint32_t(size) + 1;
  for (std::byte& b : bytes) b = std::byte((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

constexpr std::size_t kPiece = 1000;

class NcclFabricTest : public ::testing::Test {
 protected:
  NcclFabricTest() {
    world = &world_;
    simt::Ready() = Ready;
    simt::Host() = {};
    simt::Host().isolated = false;  // ranks are threads
  }
  ~NcclFabricTest() override {
    members_.clear();
    EXPECT_EQ(world_.live, 0);  // every communicator was ended
    simt::Ready() = nullptr;
    simt::Host() = {};
  }
  /// Rank 0 is members_[0]. Each takes its staging memory here: the machine has one heap.
  void Members(int ranks, double patience_s = 20) {
    for (int i = 0; i < ranks; ++i) {
      members_.push_back(std::make_unique<NcclFabric>(HostNccl(), i % 2, patience_s, kPiece));
      const std::vector<std::byte> one(1);
      members_.back()->Send({members_.back()->NewGroup(), 0, 1}, one, never_);
    }
  }
  /// What each member's part ended with, "" = well.
  std::vector<std::string> Run(const std::string& id, const std::vector<std::byte>& bytes,
                               std::vector<bool> takes_part = {}) {
    const int ranks = int(members_.size());
    takes_part.resize(members_.size(), true);
    std::vector<std::string> ends(members_.size());
    got_.assign(members_.size(), std::vector<std::byte>(bytes.size()));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      if (!takes_part[std::size_t(rank)]) continue;
      threads.emplace_back([&, rank] {
        NcclFabric& member = *members_[std::size_t(rank)];
        try {
          if (rank == 0) {
            member.Send({id, rank, ranks}, bytes, stop_[0]);
          } else {
            member.Receive({id, rank, ranks}, got_[std::size_t(rank)], stop_[rank]);
          }
        } catch (const MachineError& error) {
          ends[std::size_t(rank)] = error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return ends;
  }
  std::string NewGroup() { return members_[0]->NewGroup(); }

  World world_;
  std::vector<std::unique_ptr<NcclFabric>> members_;
  std::vector<std::vector<std::byte>> got_;
  const std::atomic<bool> never_{false};
  std::atomic<bool> stop_[8] = {};
};

TEST_F(NcclFabricTest, BytesOfAnySizeArriveAtAllReceivers) {
  for (const int ranks : {2, 3, 5}) {
    members_.clear();
    Members(ranks);
    const std::string id = NewGroup();
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kPiece - 1, kPiece, kPiece + 1,
                                   2 * kPiece, 3 * kPiece + 7, 10 * kPiece + 333}) {
      const std::vector<std::byte> bytes = Noise(size);
      for (const std::string& end : Run(id, bytes)) EXPECT_EQ(end, "");
      for (int rank = 1; rank < ranks; ++rank)
        EXPECT_EQ(got_[std::size_t(rank)], bytes) << ranks << " ranks, " << size << " bytes";
    }
    EXPECT_EQ(world_.rooms.at(id).joined, ranks);  // once for all sizes
  }
}

TEST_F(NcclFabricTest, AReceiverThatNeverComesEndsTheWaitOfAllAndTheNextGroupWorks) {
  Members(3, 1);
  const std::vector<std::byte> bytes = Noise(5 * kPiece);
  const auto start = Clock::now();
  const auto ends = Run(NewGroup(), bytes, {true, true, false});
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  EXPECT_EQ(ends[0], "cuda:0: NCCL: waited 1 s for 2 receivers to join");
  EXPECT_EQ(ends[1], "cuda:1: NCCL: waited 1 s for the sender and 1 other receivers to join");
  for (const std::string& end : Run(NewGroup(), bytes)) EXPECT_EQ(end, "");
  EXPECT_EQ(got_[2], bytes);
}

TEST_F(NcclFabricTest, AMemberThatStopsBetweenPiecesEndsTheOthersByTheirPatience) {
  for (const int who : {0, 2}) {  // the sender, a receiver
    members_.clear();
    Members(3, 1);
    const std::vector<std::byte> bytes = Noise(4000 * kPiece);
    const std::string id = NewGroup();
    std::thread killer([&] {
      for (;;) {
        {
          const std::lock_guard lock(world_.mutex);
          if (world_.rooms[id].calls.size() > 20) break;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
      stop_[who] = true;
    });
    const auto ends = Run(id, bytes);
    killer.join();
    stop_[who] = false;
    for (int rank = 0; rank < 3; ++rank) {
      const std::string& end = ends[std::size_t(rank)];
      if (rank == who) {
        EXPECT_NE(end.find("stopped"), std::string::npos) << end;
      } else {
        EXPECT_NE(end.find("with piece "), std::string::npos) << end;
        EXPECT_NE(end.find(" of 4000"), std::string::npos) << end;
      }
    }
    // What came lies in front, and is right.
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.begin() + 5 * kPiece, got_[1].begin()));
    EXPECT_NE(got_[1], bytes);
    for (const std::string& end : Run(NewGroup(), Noise(3 * kPiece))) EXPECT_EQ(end, "");
  }
}

TEST_F(NcclFabricTest, AnErrorThatNcclTellsEndsTheOthersAtOnce) {
  Members(3, 60);
  world_.tells = true;
  stop_[1] = true;
  const auto start = Clock::now();
  const auto ends = Run(NewGroup(), Noise(500 * kPiece));
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(20));
  EXPECT_EQ(ends[0], "cuda:0: NCCL: 2 receivers: remote; NCCL_DEBUG=WARN says more");
  EXPECT_EQ(ends[2],
            "cuda:0: NCCL: the sender and 1 other receivers: remote; NCCL_DEBUG=WARN says more");
}

TEST_F(NcclFabricTest, WithoutMemoryForThePiecesNothingIsJoined) {
  members_.push_back(std::make_unique<NcclFabric>(HostNccl(), 0, 1, std::size_t{2} << 30));
  EXPECT_THROW(members_[0]->Send({NewGroup(), 0, 1}, Noise(10), never_), MachineError);
  EXPECT_TRUE(world_.rooms.empty());
}

TEST_F(NcclFabricTest, ItsDeviceIsNamedByMachineAndBus) {
  Members(2);
  EXPECT_EQ(members_[0]->kind(), "nccl-22707");
  EXPECT_NE(members_[0]->place(), members_[1]->place());
  EXPECT_EQ(NcclFabric(HostNccl(), 1).place(), members_[1]->place());
  EXPECT_NE(members_[0]->place().find("/0000:00:00.0"), std::string::npos);
  EXPECT_THROW(NcclFabric(HostNccl(), 9), MachineError);
}

}  // namespace
}  // namespace temper::engine::cuda
