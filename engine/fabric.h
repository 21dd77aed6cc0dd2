#pragma once
// One process's bytes to others from device to device, beside the sockets: quick where it works,
// and nothing depends on it.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

namespace temper::engine {

/// Who takes part, and as what: rank 0 sends, all others receive.
struct FabricGroup {
  std::string id;  // kFabricId bytes, of rank 0's NewGroup
  int rank = 0, ranks = 1;
};
inline constexpr std::size_t kFabricId = 128;

class Fabric {
 public:
  virtual ~Fabric() = default;
  /// Those of one kind understand each other: "nccl-22703".
  virtual std::string kind() const = 0;
  /// The device's name among those of all machines; a group holds each once.
  virtual std::string place() const = 0;
  /// Throws MachineError.
  virtual std::string NewGroup() = 0;

  /// The same number of bytes at every member, who all call it; from one thread at a time. The
  /// group stays for further calls until one fails or another group's comes. Throws MachineError
  /// that says what was waited for: where a member does not come or nothing moves for the
  /// fabric's patience, where something fails, and soon after `stop` is set. What was received
  /// until then lies in front; nothing says that it is right.
  virtual void Send(const FabricGroup& group, std::span<const std::byte> bytes,
                    const std::atomic<bool>& stop) = 0;
  virtual void Receive(const FabricGroup& group, std::span<std::byte> bytes,
                       const std::atomic<bool>& stop) = 0;
};

/// NCCL on "cuda:N", of several devices on the first. Throws MachineError where the device or
/// NCCL's library is missing, and always in builds without CUDA (engine/no_cuda.cc).
std::unique_ptr<Fabric> OpenFabric(const std::string& device);

/// Sends and receives, one at a time, while its owner goes on and looks now and then. A call that
/// never comes back (a driver that hangs) is left alone with what it holds.
class FabricThread {
 public:
  explicit FabricThread(std::shared_ptr<Fabric> fabric) : fabric_(std::move(fabric)) {}
  ~FabricThread();  // stops what runs and waits at most kParting for it
  FabricThread(const FabricThread&) = delete;

  Fabric& fabric() const { return *fabric_; }
  bool busy() const { return run_ != nullptr; }
  /// `owner` keeps the bytes alive. Nothing is under way, else std::logic_error.
  void Send(const FabricGroup& group, std::span<const std::byte> bytes,
            std::shared_ptr<const void> owner);
  void Receive(const FabricGroup& group, std::span<std::byte> bytes,
               std::shared_ptr<const void> owner);
  void Stop();
  /// Once behind the end: "" or why it failed. None: nothing ended.
  std::optional<std::string> Ended();

  static constexpr double kParting = 2;  // seconds

 private:
  struct Run {
    std::atomic<bool> stop{false};
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<std::string> ended;  // mutex
  };
  void Begin(std::function<void(const std::atomic<bool>&)> call);

  std::shared_ptr<Fabric> fabric_;
  std::shared_ptr<Run> run_;  // null: nothing is under way
  std::thread thread_;
};

}  // namespace temper::engine
