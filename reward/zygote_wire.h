#pragma once
// The fixed-size talk between a host and its zygote.
#include <cstdint>

namespace temper::reward {

struct ZygoteRequest {
  enum Op : std::int32_t { kSpawn = 1, kReap = 2 };
  std::int32_t op = 0;
  std::int32_t value =
      0;  // kSpawn: memory_mib, with the sandbox's descriptor as ancillary data; kReap: pid
};

struct ZygoteReply {
  std::int32_t value = 0;  // kSpawn: pid, -1 = failed; kReap: the status of waitpid, -1 = failed
  std::int32_t error = 0;  // errno
};

}  // namespace temper::reward
