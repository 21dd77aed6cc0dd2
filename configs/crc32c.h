#pragma once
// CRC-32C (Castagnoli), the checksum of wire messages and stored rows.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace temper::configs {

/// The CRC-32C of `data` appended to what `crc` already covers (0: nothing). Crc32c("123456789") ==
/// 0xe3069283. Polynomial 0x1edc6f41 reflected, initial value and final xor 0xffffffff (RFC 3720,
/// B.4).
std::uint32_t Crc32c(std::span<const std::byte> data, std::uint32_t crc = 0);
std::uint32_t Crc32c(std::string_view data, std::uint32_t crc = 0);

}  // namespace temper::configs
