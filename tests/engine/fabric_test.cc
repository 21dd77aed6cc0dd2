#include "engine/fabric.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/engine/memory_fabric.h"
#include "tests/error_of.h"

namespace temper::engine {
namespace {

using Clock = std::chrono::steady_clock;

std::string EndOf(FabricThread& thread) {
  for (int i = 0; i < 10'000; ++i) {
    if (const auto ended = thread.Ended()) return *ended;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return "it never ended";
}

TEST(FabricThreadTest, BytesTravelWhileItsOwnersGoOn) {
  const auto hall = std::make_shared<MemoryHall>();
  FabricThread sender(std::make_shared<MemoryFabric>(hall, "a")),
      receiver(std::make_shared<MemoryFabric>(hall, "b"));
  EXPECT_FALSE(sender.Ended().has_value());
  const std::string id = sender.fabric().NewGroup();
  const auto bytes = std::make_shared<std::vector<std::byte>>(1001, std::byte{7});
  auto got = std::make_shared<std::vector<std::byte>>(1001);
  sender.Send({id, 0, 2}, *bytes, bytes);
  EXPECT_TRUE(sender.busy());
  EXPECT_THROW(sender.Send({id, 0, 2}, *bytes, bytes), std::logic_error);
  EXPECT_FALSE(sender.Ended().has_value());  // nobody is there yet
  receiver.Receive({id, 1, 2}, *got, got);
  EXPECT_EQ(EndOf(receiver), "");
  EXPECT_EQ(EndOf(sender), "");
  EXPECT_EQ(*got, *bytes);
  EXPECT_EQ(got.use_count(), 1);
  EXPECT_FALSE(sender.busy());
  EXPECT_FALSE(sender.Ended().has_value());  // once
}

TEST(FabricThreadTest, AStopEndsTheWaitAndSoDoesItsEnd) {
  const auto hall = std::make_shared<MemoryHall>();
  const auto bytes = std::make_shared<std::vector<std::byte>>(10);
  const auto start = Clock::now();
  {
    FabricThread sender(std::make_shared<MemoryFabric>(hall, "a", 60));
    sender.Send({std::string(kFabricId, 'x'), 0, 2}, *bytes, bytes);
    sender.Stop();
    EXPECT_EQ(EndOf(sender), "stopped");
    sender.Send({std::string(kFabricId, 'y'), 0, 2}, *bytes, bytes);
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
}

/// A driver that hangs: no stop reaches it.
struct Deaf : MemoryFabric {
  using MemoryFabric::MemoryFabric;
  void Send(const FabricGroup&, std::span<const std::byte>, const std::atomic<bool>&) override {
    while (!released) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    gone = true;
  }
  std::atomic<bool> released{false}, gone{false};
};

TEST(FabricThreadTest, ACallThatNeverComesBackIsLeftAloneWithWhatItHolds) {
  const auto deaf = std::make_shared<Deaf>(std::make_shared<MemoryHall>(), "a");
  std::weak_ptr<std::vector<std::byte>> held;
  const auto start = Clock::now();
  {
    FabricThread sender(deaf);
    const auto bytes = std::make_shared<std::vector<std::byte>>(10);
    held = bytes;
    sender.Send({std::string(kFabricId, 'x'), 0, 2}, *bytes, bytes);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  EXPECT_GE(seconds, FabricThread::kParting * 0.9);
  EXPECT_LT(seconds, FabricThread::kParting + 5);
  EXPECT_FALSE(held.expired());
  deaf->released = true;
  for (int i = 0; i < 5000 && !held.expired(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(held.expired());
  EXPECT_TRUE(deaf->gone);
}

TEST(FabricTest, OfADeviceThatIsNotThereIsRefused) {
  EXPECT_NE(ErrorOf<MachineError>([] { OpenFabric("cuda:1000"); }), "");
}

}  // namespace
}  // namespace temper::engine
