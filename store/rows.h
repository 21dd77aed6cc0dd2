#pragma once
// How the arrays of a row become bytes: little-endian, unpadded, checked by one CRC.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/trajectories.h"

namespace temper::store {

/// T is std::int32_t, float, std::uint32_t, std::uint16_t or std::uint8_t.
template <typename T>
std::string ToBlob(const std::vector<T>& values);

/// MachineError, with `where` in front, when the bytes are no whole number of T.
template <typename T>
std::vector<T> FromBlob(std::string_view bytes, const std::string& where);

/// CRC-32C of what never changes in a rollout: grp u64, sample u32, attempt i32, version u32,
/// version_last u32, seed u64, then ids, logp, versions, loss_mask and text, and experts and kept
/// where they are not empty, each with its byte count as u64 in front; all little-endian.
std::uint32_t RowCrc(const RolloutRow& row);

}  // namespace temper::store
