#pragma once
// The difference of two equally long arrays: where elements changed, and what they are now.
//
//   patch  := change*
//   change := gap value      ascending; gap is the count of unchanged elements in front of it
//   gap    := LEB128 u64     7 bits a byte, low first, high bit: more follow
//   value  := the element's bytes
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace temper::wire {

/// Elements of `width` bytes; both arrays are whole elements and equally long. Nothing where the
/// patch would be longer than `most` bytes; empty where nothing changed.
std::optional<std::vector<std::byte>> MakePatch(std::span<const std::byte> before,
                                                std::span<const std::byte> after, std::size_t width,
                                                std::size_t most);

/// Total: false for a patch that leaves the array or ends in the middle; then `bytes` may have
/// changed in part.
bool ApplyPatch(std::span<const std::byte> patch, std::size_t width, std::span<std::byte> bytes);

}  // namespace temper::wire
