#include "store/rows.h"

#include <bit>
#include <cstring>
#include <span>

#include "configs/crc32c.h"
#include "configs/error.h"

namespace temper::store {

static_assert(std::endian::native == std::endian::little, "blobs are copied as they lie in memory");

template <typename T>
std::string ToBlob(const std::vector<T>& values) {
  if (values.empty()) return {};
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
std::vector<T> FromBlob(std::string_view bytes, const std::string& where) {
  if (bytes.size() % sizeof(T) != 0) {
    throw MachineError(where + ": an array of " + std::to_string(bytes.size()) +
                       " bytes is no multiple of " + std::to_string(sizeof(T)) +
                       "; the database is damaged");
  }
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

template std::string ToBlob(const std::vector<std::int32_t>&);
template std::string ToBlob(const std::vector<float>&);
template std::string ToBlob(const std::vector<std::uint32_t>&);
template std::string ToBlob(const std::vector<std::uint8_t>&);
template std::string ToBlob(const std::vector<std::uint16_t>&);
template std::vector<std::int32_t> FromBlob(std::string_view, const std::string&);
template std::vector<float> FromBlob(std::string_view, const std::string&);
template std::vector<std::uint32_t> FromBlob(std::string_view, const std::string&);
template std::vector<std::uint8_t> FromBlob(std::string_view, const std::string&);
template std::vector<std::uint16_t> FromBlob(std::string_view, const std::string&);

std::uint32_t RowCrc(const RolloutRow& row) {
  std::uint32_t crc = 0;
  const auto scalar = [&](auto value) {
    crc = configs::Crc32c(std::as_bytes(std::span(&value, 1)), crc);
  };
  const auto bytes = [&](const void* data, std::size_t size) {
    scalar(static_cast<std::uint64_t>(size));
    crc = configs::Crc32c(std::span(static_cast<const std::byte*>(data), size), crc);
  };
  scalar(row.grp);
  scalar(row.sample);
  scalar(static_cast<std::int32_t>(row.attempt));
  scalar(row.version);
  scalar(row.version_last);
  scalar(row.seed);
  bytes(row.ids.data(), row.ids.size() * sizeof(std::int32_t));
  bytes(row.logp.data(), row.logp.size() * sizeof(float));
  bytes(row.versions.data(), row.versions.size() * sizeof(std::uint32_t));
  bytes(row.loss_mask.data(), row.loss_mask.size());
  bytes(row.text.data(), row.text.size());
  // Rows without them keep the checksum that they had before there were such columns.
  if (!row.experts.empty()) bytes(row.experts.data(), row.experts.size() * sizeof(std::uint16_t));
  if (!row.kept.empty()) bytes(row.kept.data(), row.kept.size() * sizeof(std::int32_t));
  return crc;
}

}  // namespace temper::store
