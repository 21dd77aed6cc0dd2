#pragma once
// One message between processes: a kind, a small JSON header and typed arrays, framed so that
// decoding is total.
//
//   message := frame0 frame1 array*                               one ZeroMQ frame each
//   frame0  := "TMPR" version:u16 kind:u16 header_bytes:u32 crc:u32           little-endian, 16
//   bytes frame1  := a JSON object of header_bytes <= 65536 bytes; "arrays": [[dtype, count], ...]
//   describes the rest array   := count little-endian values crc     := CRC-32C of the first 12
//   bytes of frame0, then frame1, then the arrays
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "configs/error.h"
#include "configs/json.h"

namespace temper::wire {

inline constexpr std::uint16_t kWireVersion = 2;
inline constexpr std::size_t kMaxHeaderBytes = 64 << 10;
inline constexpr std::size_t kMaxFrameBytes = 16
                                              << 20;  // ZMQ_MAXMSGSIZE; checked before a send too

/// A peer's bytes are not what the protocol says.
struct ProtocolError : MachineError {
  using MachineError::MachineError;
};

/// Bytes and who keeps them alive: a received frame or a published weight set is never copied.
struct Bytes {
  std::span<const std::byte> view;
  std::shared_ptr<const void> owner;

  static Bytes Copy(std::span<const std::byte> from);
  static Bytes Copy(std::string_view from);
};

enum class ArrayType : std::uint8_t { kU8, kU16, kI32, kU32, kF32, kU64, kF64 };

template <class T>
constexpr ArrayType ArrayTypeOf();
template <>
constexpr ArrayType ArrayTypeOf<std::uint8_t>() {
  return ArrayType::kU8;
}
template <>
constexpr ArrayType ArrayTypeOf<std::uint16_t>() {
  return ArrayType::kU16;
}
template <>
constexpr ArrayType ArrayTypeOf<std::int32_t>() {
  return ArrayType::kI32;
}
template <>
constexpr ArrayType ArrayTypeOf<std::uint32_t>() {
  return ArrayType::kU32;
}
template <>
constexpr ArrayType ArrayTypeOf<float>() {
  return ArrayType::kF32;
}
template <>
constexpr ArrayType ArrayTypeOf<std::uint64_t>() {
  return ArrayType::kU64;
}
template <>
constexpr ArrayType ArrayTypeOf<double>() {
  return ArrayType::kF64;
}

struct Array {
  ArrayType type = ArrayType::kU8;
  Bytes bytes;  // a multiple of the type's size
};

struct Message {
  std::uint16_t kind = 0;
  Json header = Json::object();  // without "arrays"
  std::vector<Array> arrays;

  template <class T>
  void Add(std::span<const T> values) {
    arrays.push_back({ArrayTypeOf<T>(), Bytes::Copy(std::as_bytes(values))});
  }
  template <class T>
  void Add(const std::vector<T>& values) {
    Add(std::span<const T>(values));
  }
  void AddText(std::string_view text) { arrays.push_back({ArrayType::kU8, Bytes::Copy(text)}); }
};

/// The frames to send. Throws std::logic_error if the header or an array is over its limit.
std::vector<Bytes> Encode(const Message& message);

/// Total: any frames give a message or a ProtocolError that says what was found and the rule,
/// nothing else; allocates no more than a small multiple of the header. The arrays share the
/// frames' bytes.
Message Decode(std::span<const Bytes> frames);

/// Checked access to a decoded message; every function throws ProtocolError naming the kind and the
/// field.
class Fields {
 public:
  Fields(const Message& message, std::string_view kind_name)
      : message_(message), kind_(kind_name) {}

  bool Has(const char* name) const;  // present and not null
  std::int64_t Int(const char* name, std::int64_t lo, std::int64_t hi) const;
  double Number(const char* name) const;  // finite
  bool Bool(const char* name) const;
  std::string Text(const char* name) const;

  void ExpectArrays(std::size_t count) const;
  template <class T>
  std::vector<T> Values(std::size_t index) const {
    const Array& array = At(index, ArrayTypeOf<T>());
    std::vector<T> values(array.bytes.view.size() / sizeof(T));
    if (!values.empty())
      std::memcpy(values.data(), array.bytes.view.data(), values.size() * sizeof(T));
    return values;
  }
  std::string Chars(std::size_t index) const;  // a u8 array as text
  const Bytes& Raw(std::size_t index) const;   // a u8 array, shared
  [[noreturn]] void Fail(const std::string& what) const;

 private:
  const Json& At(const char* name) const;
  const Array& At(std::size_t index, ArrayType type) const;

  const Message& message_;
  std::string_view kind_;
};

}  // namespace temper::wire
