#include "wire/patch.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace temper::wire {

std::optional<std::vector<std::byte>> MakePatch(std::span<const std::byte> before,
                                                std::span<const std::byte> after, std::size_t width,
                                                std::size_t most) {
  if (before.size() != after.size() || width == 0 || after.size() % width != 0) {
    throw std::logic_error("MakePatch: arrays of different shapes");
  }
  // Equal runs are most of what is read: they are compared a page at a time.
  const std::size_t page = 4096 / width * width;
  std::vector<std::byte> patch;
  std::uint64_t gap = 0;
  for (std::size_t begin = 0; begin < after.size(); begin += page) {
    const std::size_t end = std::min(begin + page, after.size());
    if (std::memcmp(before.data() + begin, after.data() + begin, end - begin) == 0) {
      gap += (end - begin) / width;
      continue;
    }
    for (std::size_t at = begin; at < end; at += width) {
      if (std::memcmp(before.data() + at, after.data() + at, width) == 0) {
        ++gap;
        continue;
      }
      for (; gap >= 0x80; gap >>= 7) patch.push_back(static_cast<std::byte>(gap | 0x80));
      patch.push_back(static_cast<std::byte>(gap));
      patch.insert(patch.end(), after.begin() + static_cast<std::ptrdiff_t>(at),
                   after.begin() + static_cast<std::ptrdiff_t>(at + width));
      gap = 0;
    }
    if (patch.size() > most) return std::nullopt;
  }
  return patch;
}

bool ApplyPatch(std::span<const std::byte> patch, std::size_t width, std::span<std::byte> bytes) {
  const std::uint64_t count = width == 0 ? 0 : bytes.size() / width;
  std::uint64_t next = 0;
  for (std::size_t at = 0; at < patch.size();) {
    std::uint64_t gap = 0;
    bool more = true;
    for (int shift = 0; more; shift += 7) {
      if (at == patch.size() || shift > 56) return false;
      const auto byte = std::to_integer<std::uint64_t>(patch[at++]);
      gap |= (byte & 0x7F) << shift;
      more = (byte & 0x80) != 0;
    }
    if (next >= count || gap >= count - next || patch.size() - at < width) return false;
    next += gap;
    std::memcpy(bytes.data() + next * width, patch.data() + at, width);
    ++next;
    at += width;
  }
  return true;
}

}  // namespace temper::wire
