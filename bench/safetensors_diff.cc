// Which of many mutated safetensors files does our reader take? The other half of
// safetensors_diff.py.
//   safetensors_diff FILE: FILE holds files one behind the other, each after its length (u32);
//   prints 1 (taken) or 0 (refused) for each; the reasons of refusals, a line each, go to stderr.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "configs/error.h"
#include "configs/files.h"
#include "engine/safetensors.h"

int main(int argc, char** argv) {
  using namespace temper;
  if (argc != 2) {
    std::fprintf(stderr, "usage: safetensors_diff FILE\n");
    return 2;
  }
  const std::string all = configs::ReadWholeFile(argv[1], std::uint64_t{4} << 30);
  const int fd = ::memfd_create("diff", MFD_CLOEXEC);
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  std::string answers;
  for (std::size_t at = 0; at + 4 <= all.size();) {
    std::uint32_t size = 0;
    std::memcpy(&size, all.data() + at, 4);
    at += 4;
    if (::ftruncate(fd, 0) != 0 ||
        ::pwrite(fd, all.data() + at, size, 0) != static_cast<ssize_t>(size)) {
      std::perror("memfd");
      return 3;
    }
    at += size;
    try {
      const engine::SafetensorsFile file(path);
      answers += '1';
    } catch (const UserError& error) {
      answers += '0';
      std::fprintf(stderr, "%s\n", error.what());
    }
  }
  std::puts(answers.c_str());
  return 0;
}
