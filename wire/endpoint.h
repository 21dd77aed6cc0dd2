#pragma once
// Where a socket may bind or connect: ipc on this machine, tcp on loopback; anything wider needs
// keys.
#include <string>

namespace temper::wire {

/// A checked endpoint to bind. An ipc path over 100 bytes (the kernel's limit is 107) moves to a
/// socket in a private temporary folder, removed with the object.
class BindEndpoint {
 public:
  /// `bind` as configured: ipc://PATH or tcp://HOST:PORT (port * = any free one).
  /// Throws UserError for another transport or a host beyond loopback without keys; MachineError
  /// when the socket file is in use by a living process or a folder can't be made.
  BindEndpoint(const std::string& bind, const std::string& keys);
  ~BindEndpoint();
  BindEndpoint(const BindEndpoint&) = delete;
  BindEndpoint& operator=(const BindEndpoint&) = delete;

  const std::string& address() const { return address_; }  // what zmq_bind gets

 private:
  std::string address_;
  std::string temp_folder_;  // "" = none
};

/// The address zmq_connect gets. Throws UserError as BindEndpoint does.
std::string CheckConnect(const std::string& endpoint, const std::string& keys);

}  // namespace temper::wire
