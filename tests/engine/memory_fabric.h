#pragma once
// A fabric inside one process, with members that fail as they are told.
#include <chrono>
#include <cstring>
#include <map>

#include "configs/error.h"
#include "engine/fabric.h"

namespace temper::engine {

/// Where the members meet.
struct MemoryHall {
  struct Room {
    std::span<const std::byte> bytes;
    bool open = false;
    int taken = 0;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, Room> rooms;
  int groups = 0;
};

class MemoryFabric : public Fabric {
 public:
  enum class Fault {
    kNone,
    kAbsent,     // never takes part, and waits for its patience
    kHalf,       // half of the bytes arrive, then it fails
    kWrongByte,  // one byte in the middle is another; nobody is told
  };

  MemoryFabric(std::shared_ptr<MemoryHall> hall, std::string place, double patience_s = 10,
               Fault fault = Fault::kNone)
      : fault(fault), hall_(std::move(hall)), place_(std::move(place)), patience_s_(patience_s) {}

  std::string kind() const override { return "memory"; }
  std::string place() const override { return place_; }
  std::string NewGroup() override {
    if (fault == Fault::kAbsent) throw MachineError("no group to be had");
    const std::lock_guard lock(hall_->mutex);
    std::string id(kFabricId, '\0');
    id[0] = static_cast<char>(++hall_->groups);
    id[1] = '\xff';
    return id;
  }

  void Send(const FabricGroup& group, std::span<const std::byte> bytes,
            const std::atomic<bool>& stop) override {
    std::unique_lock lock(hall_->mutex);
    MemoryHall::Room& room = RoomOf(group);
    room.bytes = bytes;
    room.open = true;
    hall_->changed.notify_all();
    try {
      Await(lock, stop, [&] { return room.taken == group.ranks - 1; });
    } catch (...) {
      room.open = false;
      throw;
    }
    ++sent;
  }

  void Receive(const FabricGroup& group, std::span<std::byte> bytes,
               const std::atomic<bool>& stop) override {
    std::unique_lock lock(hall_->mutex);
    MemoryHall::Room& room = RoomOf(group);
    Await(lock, stop, [&] { return room.open && fault != Fault::kAbsent; });
    if (room.bytes.size() != bytes.size()) throw MachineError("members of different sizes");
    if (fault == Fault::kHalf) {
      std::memcpy(bytes.data(), room.bytes.data(), bytes.size() / 2);
      throw MachineError("half of it came");
    }
    std::memcpy(bytes.data(), room.bytes.data(), bytes.size());
    if (fault == Fault::kWrongByte) bytes[bytes.size() / 2] ^= std::byte{1};
    ++room.taken;
    hall_->changed.notify_all();
    ++received;
  }

  std::atomic<int> sent{0}, received{0};
  std::atomic<Fault> fault;

 private:
  /// A group's n-th call at each member belongs to one room.
  MemoryHall::Room& RoomOf(const FabricGroup& group) {
    return hall_->rooms[group.id + std::to_string(calls_[group.id]++)];
  }
  template <typename Ready>
  void Await(std::unique_lock<std::mutex>& lock, const std::atomic<bool>& stop, Ready ready) {
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_s_);
    while (!ready()) {
      if (stop) throw MachineError("stopped");
      if (std::chrono::steady_clock::now() > deadline) throw MachineError("nobody came in time");
      hall_->changed.wait_for(lock, std::chrono::milliseconds(1));
    }
  }

  std::shared_ptr<MemoryHall> hall_;
  const std::string place_;
  const double patience_s_;
  std::map<std::string, int> calls_;
};

}  // namespace temper::engine
