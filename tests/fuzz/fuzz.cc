#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "configs/error.h"

namespace temper::fuzz {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

std::string FileOf(std::string_view bytes) {
  static const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  Require(fd >= 0 && ::ftruncate(fd, 0) == 0, "no file in memory");
  Require(::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
          "a short write");
  return "/proc/self/fd/" + std::to_string(fd);
}

const std::string& Folder() {
  struct Temporary {
    Temporary() {
      path = (std::filesystem::temp_directory_path() / "temper-fuzz-XXXXXX").string();
      Require(::mkdtemp(path.data()) != nullptr, "no folder");
    }
    ~Temporary() { std::filesystem::remove_all(path); }
    std::string path;
  };
  static const Temporary folder;
  return folder.path;
}

void Write(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

void Refusing(const std::function<void()>& read) {
  try {
    read();
  } catch (const UserError& error) {
    const std::string_view what = error.what();
    Require(!what.empty() && what.find('\n') == what.npos, "an error of several lines");
    Require(what.size() < 4000, "an error without end");
  }
}

}  // namespace temper::fuzz
