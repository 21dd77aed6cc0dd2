#include "wire/endpoint.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "configs/error.h"

namespace temper::wire {
namespace {

constexpr std::size_t kMaxIpcPath = 100;
constexpr char kIpc[] = "ipc://";
constexpr char kTcp[] = "tcp://";

bool StartsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

/// Host of tcp://HOST:PORT, brackets of IPv6 kept.
std::string TcpHost(const std::string& endpoint) {
  const std::size_t colon = endpoint.rfind(':');
  const std::size_t start = std::strlen(kTcp);
  if (colon < start || colon + 1 == endpoint.size()) {
    throw UserError(endpoint + ": no port; an endpoint is tcp://HOST:PORT or ipc://PATH");
  }
  return endpoint.substr(start, colon - start);
}

bool IsLoopback(const std::string& host) {
  if (host == "localhost" || host == "[::1]") return true;
  // Digits and dots only: a name such as 127.0.0.1.example would be looked up.
  return StartsWith(host, "127.") && host.find_first_not_of("0123456789.") == std::string::npos;
}

/// Checks the rules both sides share. Gives the endpoint with a host that needs no resolver.
std::string Checked(const std::string& endpoint, const std::string& keys, const char* verb) {
  if (StartsWith(endpoint, kIpc)) {
    const std::string path = endpoint.substr(std::strlen(kIpc));
    if (path.empty() || path[0] == '@' || path[0] == '*') {
      throw UserError(endpoint + ": an ipc endpoint needs the path of a socket file");
    }
    return endpoint;
  }
  if (!StartsWith(endpoint, kTcp)) {
    throw UserError(endpoint + ": unknown transport; an endpoint is tcp://HOST:PORT or ipc://PATH");
  }
  const std::string host = TcpHost(endpoint);
  if (keys.empty() && !IsLoopback(host)) {
    throw UserError(endpoint + ": cannot " + verb +
                    " beyond loopback without CURVE keys (wire.keys), because anybody could join; "
                    "temper keys new makes them, or use tcp://127.0.0.1:PORT or ipc://PATH");
  }
  if (host == "localhost")
    return kTcp + ("127.0.0.1" + endpoint.substr(std::strlen(kTcp) + host.size()));
  return endpoint;
}

/// Whether a living process listens on the socket file. ZeroMQ would unlink it and take its peers
/// over.
bool IsServed(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw MachineError(std::string("socket: ") + std::strerror(errno));
  const bool served =
      connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN;
  close(fd);
  return served;
}

std::string PrivateFolder() {
  const char* base = std::getenv("TMPDIR");
  std::string folder = base != nullptr && *base != '\0' ? base : "/tmp";
  if (folder.size() > kMaxIpcPath - 32) folder = "/tmp";
  folder += "/temper-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) throw MachineError(folder + ": " + std::strerror(errno));
  return folder;
}

}  // namespace

BindEndpoint::BindEndpoint(const std::string& bind, const std::string& keys)
    : address_(Checked(bind, keys, "bind")) {
  if (!StartsWith(address_, kIpc)) return;
  const std::string path = address_.substr(std::strlen(kIpc));
  if (path.size() > kMaxIpcPath) {
    temp_folder_ = PrivateFolder();
    address_ = kIpc + temp_folder_ + "/wire";
  } else if (IsServed(path)) {
    throw MachineError(bind +
                       ": in use by another process; end that run or take another output_dir");
  }
}

BindEndpoint::~BindEndpoint() {
  if (temp_folder_.empty()) return;
  unlink((temp_folder_ + "/wire").c_str());
  rmdir(temp_folder_.c_str());
}

std::string CheckConnect(const std::string& endpoint, const std::string& keys) {
  return Checked(endpoint, keys, "connect");
}

}  // namespace temper::wire
