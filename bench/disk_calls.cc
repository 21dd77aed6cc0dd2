#include "bench/disk_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstring>
#include <optional>
#include <utility>

namespace temper::bench {
namespace {

struct Watch {
  DiskPlan plan;
  bool on = false;
  std::int64_t calls = 0;
  std::string failure;
  std::vector<DiskCall> record;
};

Watch& Now() {
  static Watch* const watch = new Watch;  // outlives everything that closes files at exit
  return *watch;
}

/// Relative to the watched folder; nothing for other files and for SQLite's shared memory, which no
/// restart finds again.
std::optional<std::string> Watched(const std::string& path) {
  const Watch& watch = Now();
  if (!watch.on || path.size() < watch.plan.root.size() || !path.starts_with(watch.plan.root))
    return {};
  const std::string rest = path.substr(watch.plan.root.size());
  if (!rest.empty() && rest[0] != '/') return {};
  if (rest.ends_with("-shm") || rest.ends_with(" (deleted)")) return {};
  return rest.empty() ? "." : rest.substr(1);
}

std::string PathOf(int fd) {
  char link[64], path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path);
  return n > 0 ? std::string(path, std::size_t(n)) : std::string();
}

std::string PathAt(int folder, const char* path) {
  if (path[0] == '/') return path;
  if (folder != AT_FDCWD) return PathOf(folder) + "/" + path;
  char here[4096];
  const long n = syscall(SYS_getcwd, here, sizeof here);
  return n > 0 ? std::string(here) + "/" + path : std::string(path);
}

std::optional<std::string> WatchedFd(int fd) {
  if (!Now().on) return {};
  const int kept = errno;
  auto path = Watched(PathOf(fd));
  errno = kept;
  return path;
}

/// A full disk takes no new bytes, a read-only one no change, a dead one nothing at all.
bool Concerns(int error, DiskCall::Kind kind) {
  if (error == EROFS) return kind != DiskCall::kSync;
  if (error != ENOSPC) return true;
  return kind == DiskCall::kCreate || kind == DiskCall::kWrite || kind == DiskCall::kMakeFolder ||
         kind == DiskCall::kLink;
}

enum class Do { kIt, kHalf, kHalfAndDie, kFail };

/// Called before each call that changes something.
Do Meet(DiskCall::Kind kind, const std::string& path) {
  Watch& watch = Now();
  const std::int64_t number = watch.calls++;
  const DiskPlan& plan = watch.plan;
  const bool later = plan.what == DiskPlan::kFailOn && number > plan.at;
  if (number != plan.at && !later) return Do::kIt;
  switch (plan.what) {
    case DiskPlan::kNothing:
      return Do::kIt;
    case DiskPlan::kKillTorn:
      if (kind == DiskCall::kWrite) return Do::kHalfAndDie;
      [[fallthrough]];
    case DiskPlan::kKill:
      kill(getpid(), SIGKILL);
      return Do::kIt;
    case DiskPlan::kShort:
      return kind == DiskCall::kWrite ? Do::kHalf : Do::kIt;
    case DiskPlan::kInterrupt:
      if (kind != DiskCall::kWrite) return Do::kIt;
      errno = EINTR;
      return Do::kFail;
    case DiskPlan::kFail:
    case DiskPlan::kFailOn:
      if (!Concerns(plan.error, kind)) return Do::kIt;
      if (watch.failure.empty()) watch.failure = std::string(NameOf(kind)) + " " + path;
      errno = plan.error;
      return Do::kFail;
  }
  return Do::kIt;
}

void Record(DiskCall call) { Now().record.push_back(std::move(call)); }

int Open(int folder, const char* name, int flags, mode_t mode) {
  const bool writes = (flags & (O_CREAT | O_TRUNC)) != 0;
  const auto path = Now().on && writes ? Watched(PathAt(folder, name)) : std::nullopt;
  if (!path) return static_cast<int>(syscall(SYS_openat, folder, name, flags, mode));
  struct stat before;
  const bool there = fstatat(folder, name, &before, 0) == 0;
  const bool cuts = there && (flags & O_TRUNC) != 0 && before.st_size > 0;
  const auto kind = there ? DiskCall::kTruncate : DiskCall::kCreate;
  if ((!there || cuts) && Meet(kind, *path) == Do::kFail) return -1;
  const int fd = static_cast<int>(syscall(SYS_openat, folder, name, flags, mode));
  if (fd >= 0 && (!there || cuts)) Record({kind, *path, 0, {}, {}});
  return fd;
}

ssize_t Write(int fd, const void* data, std::size_t size, std::optional<off_t> at) {
  const auto raw = [&](std::size_t n) {
    return at ? syscall(SYS_pwrite64, fd, data, n, *at) : syscall(SYS_write, fd, data, n);
  };
  const auto path = WatchedFd(fd);
  if (!path) return raw(size);
  const Do now = Meet(DiskCall::kWrite, *path);
  if (now == Do::kFail) return -1;
  if (now != Do::kIt) size = std::max<std::size_t>(1, size / 2);
  off_t offset = at.value_or(0);
  if (!at) {
    struct stat status;
    offset = (fcntl(fd, F_GETFL) & O_APPEND) != 0 && fstat(fd, &status) == 0
                 ? status.st_size
                 : lseek(fd, 0, SEEK_CUR);
  }
  const ssize_t n = raw(size);
  if (now == Do::kHalfAndDie) kill(getpid(), SIGKILL);
  if (n > 0) {
    Record({DiskCall::kWrite,
            *path,
            static_cast<std::uint64_t>(offset),
            std::string(static_cast<const char*>(data), static_cast<std::size_t>(n)),
            {}});
  }
  return n;
}

int Sync(int fd, long number) {
  const auto path = WatchedFd(fd);
  if (!path) return static_cast<int>(syscall(number, fd));
  const DiskPlan& plan = Now().plan;
  if (!plan.never_synced.empty() && path->find(plan.never_synced) != path->npos) return 0;
  if (Meet(DiskCall::kSync, *path) == Do::kFail) return -1;
  const int result = plan.fast ? 0 : static_cast<int>(syscall(number, fd));
  if (result == 0) Record({DiskCall::kSync, *path, 0, {}, {}});
  return result;
}

int Truncate(int fd, off_t size) {
  const auto path = WatchedFd(fd);
  if (path && Meet(DiskCall::kTruncate, *path) == Do::kFail) return -1;
  const int result = static_cast<int>(syscall(SYS_ftruncate, fd, size));
  if (path && result == 0)
    Record({DiskCall::kTruncate, *path, static_cast<std::uint64_t>(size), {}, {}});
  return result;
}

int Rename(int from_folder, const char* from, int to_folder, const char* to) {
  const auto path = Now().on ? Watched(PathAt(from_folder, from)) : std::nullopt;
  if (path && Meet(DiskCall::kRename, *path) == Do::kFail) return -1;
  const int result = static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, 0));
  if (path && result == 0)
    Record({DiskCall::kRename, *path, 0, {}, Watched(PathAt(to_folder, to)).value_or("")});
  return result;
}

int Unlink(int folder, const char* name, int flags) {
  const auto path = Now().on ? Watched(PathAt(folder, name)) : std::nullopt;
  const auto kind = (flags & AT_REMOVEDIR) != 0 ? DiskCall::kRemoveFolder : DiskCall::kUnlink;
  struct stat status;
  const bool there = path && fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
  if (there && Meet(kind, *path) == Do::kFail) return -1;
  const int result = static_cast<int>(syscall(SYS_unlinkat, folder, name, flags));
  if (there && result == 0) Record({kind, *path, 0, {}, {}});
  return result;
}

int MakeFolder(int folder, const char* name, mode_t mode) {
  const auto path = Now().on ? Watched(PathAt(folder, name)) : std::nullopt;
  struct stat status;
  const bool there = path && fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
  if (path && !there && Meet(DiskCall::kMakeFolder, *path) == Do::kFail) return -1;
  const int result = static_cast<int>(syscall(SYS_mkdirat, folder, name, mode));
  if (path && result == 0) Record({DiskCall::kMakeFolder, *path, 0, {}, {}});
  return result;
}

int Link(const char* target, int folder, const char* name) {
  const auto path = Now().on ? Watched(PathAt(folder, name)) : std::nullopt;
  if (path && Meet(DiskCall::kLink, *path) == Do::kFail) return -1;
  const int result = static_cast<int>(syscall(SYS_symlinkat, target, folder, name));
  if (path && result == 0) Record({DiskCall::kLink, *path, 0, {}, target});
  return result;
}

}  // namespace

const char* NameOf(DiskCall::Kind kind) {
  constexpr const char* kNames[] = {"create", "write", "truncate", "fsync",   "rename",
                                    "unlink", "mkdir", "rmdir",    "symlink", "mark"};
  return kNames[kind];
}

void WatchDisk(const DiskPlan& plan) { Now() = {plan, true, 0, {}, {}}; }

std::vector<DiskCall> DiskRecord() {
  Now().on = false;
  return std::exchange(Now().record, {});
}

void MarkDisk(const std::string& what) { Record({DiskCall::kMark, {}, 0, what, {}}); }
std::int64_t DiskCalls() { return Now().calls; }
std::string DiskFailure() { return Now().failure; }

}  // namespace temper::bench

// The C library's names: the program's own definition is the one that everybody finds.
namespace b = temper::bench;

#define OPEN_MODE                             \
  mode_t mode = 0;                            \
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) { \
    va_list rest;                             \
    va_start(rest, flags);                    \
    mode = va_arg(rest, mode_t);              \
    va_end(rest);                             \
  }

extern "C" {
int open(const char* name, int flags, ...) {
  OPEN_MODE
  return b::Open(AT_FDCWD, name, flags, mode);
}
int open64(const char* name, int flags, ...) {
  OPEN_MODE
  return b::Open(AT_FDCWD, name, flags | O_LARGEFILE, mode);
}
int openat(int folder, const char* name, int flags, ...) {
  OPEN_MODE
  return b::Open(folder, name, flags, mode);
}
int openat64(int folder, const char* name, int flags, ...) {
  OPEN_MODE
  return b::Open(folder, name, flags | O_LARGEFILE, mode);
}
ssize_t write(int fd, const void* data, size_t size) { return b::Write(fd, data, size, {}); }
ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return b::Write(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  return b::Write(fd, data, size, at);
}
int fsync(int fd) { return b::Sync(fd, SYS_fsync); }
int fdatasync(int fd) { return b::Sync(fd, SYS_fdatasync); }
int ftruncate(int fd, off_t size) noexcept { return b::Truncate(fd, size); }
int ftruncate64(int fd, off64_t size) noexcept { return b::Truncate(fd, size); }
int rename(const char* from, const char* to) noexcept {
  return b::Rename(AT_FDCWD, from, AT_FDCWD, to);
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  return b::Rename(from_folder, from, to_folder, to);
}
int unlink(const char* name) noexcept { return b::Unlink(AT_FDCWD, name, 0); }
int unlinkat(int folder, const char* name, int flags) noexcept {
  return b::Unlink(folder, name, flags);
}
int rmdir(const char* name) noexcept { return b::Unlink(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char* name) noexcept {
  if (b::Unlink(AT_FDCWD, name, 0) == 0) return 0;
  return errno == EISDIR ? b::Unlink(AT_FDCWD, name, AT_REMOVEDIR) : -1;
}
int mkdir(const char* name, mode_t mode) noexcept { return b::MakeFolder(AT_FDCWD, name, mode); }
int symlink(const char* target, const char* name) noexcept {
  return b::Link(target, AT_FDCWD, name);
}
}
