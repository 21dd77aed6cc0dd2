#pragma once
// How the typed messages read and write their fields; used by protocol*.cc only.
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "wire/protocol.h"

namespace temper::wire {

inline constexpr std::int64_t kMaxI64 = std::numeric_limits<std::int64_t>::max();
inline constexpr std::int64_t kMaxU32 = std::numeric_limits<std::uint32_t>::max();
inline constexpr std::int64_t kMaxI32 = std::numeric_limits<std::int32_t>::max();
inline constexpr std::size_t kMaxName = 256;

Message Start(Kind kind);
/// Fields of a message that must be of `kind`.
Fields Open(const Message& message, Kind kind, const char* name);

/// 16 hex digits: random 64-bit numbers travel as text because JSON integers end at 2^63 for some
/// readers.
std::string Hex(std::uint64_t value);
std::uint64_t U64FromHex(const Fields& fields, const char* name);
/// Two digits a byte, and exactly so many bytes.
std::string HexBytes(const std::string& bytes);
std::string BytesFromHex(const Fields& fields, const char* name, std::size_t bytes);
/// At most 256 bytes.
std::string ShortText(const Fields& fields, const char* name);
std::string Finish(const Fields& fields, const std::string& text);

/// A JSON list that travels as an array because it may exceed a header. Invalid UTF-8 is replaced
/// when written.
Json ParseList(const Fields& fields, std::size_t index, const char* what);
/// The same of text that several arrays make together.
Json ParseListText(const Fields& fields, std::string_view text, const char* what);
std::string DumpLossy(const Json& json);
/// A list inside a header or an entry.
const Json& List(const Fields& fields, const Json& object, const char* name);

/// Fields of one object inside a list: the same checked access as a header.
class Entry {
 public:
  Entry(const Json& json, const char* what);
  Entry(const Entry&) = delete;
  const Fields& fields() const { return fields_; }
  const Json& json() const { return message_.header; }

 private:
  Message message_;
  Fields fields_;
};

/// Splits `flat` by `counts`; both come from a peer.
template <class T>
std::vector<std::vector<T>> Split(const Fields& fields, const std::vector<T>& flat,
                                  const std::vector<std::uint32_t>& counts) {
  std::uint64_t total = 0;
  for (const std::uint32_t n : counts) total += n;
  if (total != flat.size()) {
    fields.Fail("counts add up to " + std::to_string(total) + ", but " +
                std::to_string(flat.size()) + " values follow");
  }
  std::vector<std::vector<T>> parts;
  parts.reserve(counts.size());
  auto at = flat.begin();
  for (const std::uint32_t n : counts) {
    parts.emplace_back(at, at + n);
    at += n;
  }
  return parts;
}

}  // namespace temper::wire
