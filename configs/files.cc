#include "configs/files.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "configs/error.h"

namespace temper::configs {
namespace {

std::string ErrnoText(int error) { return std::generic_category().message(error); }

bool MachineFault(int error) {
  return error == EIO || error == EMFILE || error == ENFILE || error == ENOMEM;
}

[[noreturn]] void ThrowOpen(const std::string& path, int error) {
  const std::string message = path + ": cannot be opened: " + ErrnoText(error);
  if (MachineFault(error)) throw MachineError(message);
  throw UserError(message);
}

// Owns a descriptor that is written to; Close reports what the destructor must swallow.
class OutputFd {
 public:
  OutputFd(std::string path, int flags)
      : path_(std::move(path)), fd_(::open(path_.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0) Fail("cannot be opened", errno);
  }
  ~OutputFd() {
    if (fd_ >= 0) ::close(fd_);
  }
  OutputFd(const OutputFd&) = delete;
  OutputFd& operator=(const OutputFd&) = delete;

  void Write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), 1u << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) Fail("write failed", errno);
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  void SyncAndClose() {
    if (::fsync(fd_) != 0) Fail("fsync failed", errno);
    if (::close(std::exchange(fd_, -1)) != 0) Fail("close failed", errno);
  }

 private:
  [[noreturn]] void Fail(const char* what, int error) const {
    throw MachineError(path_ + ": " + what + ": " + ErrnoText(error));
  }
  std::string path_;
  int fd_;
};

// O_NONBLOCK: opening a FIFO nobody writes to must not hang.
constexpr int kOpenFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

void RefuseNul(const std::string& path) {
  if (path.find('\0') == std::string::npos) return;
  throw UserError("a path of " + std::to_string(path.size()) + " bytes contains a NUL byte");
}

// The canonical path of an open file or folder; "" where it has none.
std::string PathOf(int fd) {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), error).string();
}

// For kernels and sandboxes without openat2: what was opened is asked for its place. Sets EXDEV.
int OpenAndCheck(int root, const std::string& name) {
  const std::string inside = PathOf(root) + "/";
  const int fd = ::openat(root, name.c_str(), kOpenFlags);
  if (fd < 0 || (inside.size() > 1 && PathOf(fd).compare(0, inside.size(), inside) == 0)) return fd;
  ::close(fd);
  errno = EXDEV;
  return -1;
}

// A descriptor, or -1 with errno: EXDEV where the name leads out of the folder.
int OpenBeneath(const std::string& folder, const std::string& name) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path whole = fs::canonical(folder, error);
  if (error) {
    errno = error.value();
    return -1;
  }
  const bool snapshot = whole.parent_path().filename() == "snapshots";
  const fs::path root = snapshot ? whole.parent_path().parent_path() : whole;
  const fs::path inner = (snapshot ? fs::path("snapshots") / whole.filename() : fs::path()) / name;
  const int root_fd = ::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root_fd < 0) return -1;
  open_how how{};
  how.flags = kOpenFlags;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  int fd = -1;
  do {
    fd = static_cast<int>(::syscall(SYS_openat2, root_fd, inner.c_str(), &how, sizeof how));
  } while (fd < 0 && errno == EAGAIN);  // a rename raced with the walk
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) fd = OpenAndCheck(root_fd, inner.string());
  const int kept = errno;
  ::close(root_fd);
  errno = kept;
  return fd;
}

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
  RefuseNul(path);
  Take(::open(path.c_str(), kOpenFlags));
}

InputFile::InputFile(const std::string& folder, const std::string& name)
    : path_(folder + "/" + name) {
  RefuseNul(path_);
  Take(OpenBeneath(folder, name));
}

void InputFile::Take(int fd) {
  if (fd < 0 && errno == EXDEV) {
    throw UserError(path_ + ": leaves the model's folder: all files of a model must lie in it");
  }
  if (fd < 0) ThrowOpen(path_, errno);
  struct stat status;
  if (::fstat(fd, &status) != 0) {
    const int error = errno;
    ::close(fd);
    ThrowOpen(path_, error);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd);
    throw UserError(path_ + ": is not a regular file");
  }
  fd_ = fd;
  size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

void InputFile::ReadAt(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const std::size_t want = std::min<std::size_t>(out.size(), 1u << 30);
    const ssize_t n = ::pread(fd_, out.data(), want, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw MachineError(path_ + ": read failed: " + ErrnoText(errno));
    if (n == 0) {
      throw UserError(path_ + ": ends at byte " + std::to_string(offset) + " of " +
                      std::to_string(size_) + ": the file shrank while it was read");
    }
    offset += static_cast<std::uint64_t>(n);
    out = out.subspan(static_cast<std::size_t>(n));
  }
}

std::string ReadWholeFile(const std::string& path, std::uint64_t max_bytes) {
  return ReadWholeFile(InputFile(path), max_bytes);
}

std::string ReadWholeFile(const InputFile& file, std::uint64_t max_bytes) {
  if (file.size() > max_bytes) {
    throw UserError(file.path() + ": " + std::to_string(file.size()) + " bytes: at most " +
                    std::to_string(max_bytes) + " are read");
  }
  std::string text(file.size(), '\0');
  file.ReadAt(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void RemoveHalfWritten(const std::string& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode)) ::unlink(path.c_str());
}

void WriteWholeFile(const std::string& path, std::string_view bytes) {
  OutputFd file(path, O_WRONLY | O_CREAT | O_TRUNC);
  try {
    file.Write(bytes);
    file.SyncAndClose();
  } catch (const MachineError&) {
    RemoveHalfWritten(path);
    throw;
  }
}

void MakeFolders(const std::string& path) {
  namespace fs = std::filesystem;
  std::vector<fs::path> made;  // the innermost first
  std::error_code error;
  for (fs::path at = fs::absolute(path).lexically_normal(); !fs::exists(at, error);
       at = at.parent_path()) {
    if (at.has_filename()) made.push_back(at);
  }
  fs::create_directories(path, error);
  if (error) throw MachineError(path + ": cannot be made: " + error.message());
  for (const fs::path& folder : made) SyncFolder(folder.parent_path().string());
}

void SyncFolder(const std::string& path) {
  OutputFd folder(path, O_RDONLY | O_DIRECTORY);
  folder.SyncAndClose();
}

bool Exists(const std::string& path) {
  struct stat status;
  return ::lstat(path.c_str(), &status) == 0;
}

}  // namespace temper::configs
