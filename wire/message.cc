#include "wire/message.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <stdexcept>

#include "configs/crc32c.h"

namespace temper::wire {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays travel as they lie in memory");

constexpr std::size_t kPreambleBytes = 16;
constexpr std::size_t kCrcOffset = 12;
constexpr char kMagic[4] = {'T', 'M', 'P', 'R'};

struct TypeInfo {
  ArrayType type;
  const char* name;
  std::size_t bytes;
};
constexpr std::array<TypeInfo, 7> kTypes = {{{ArrayType::kU8, "u8", 1},
                                             {ArrayType::kU16, "u16", 2},
                                             {ArrayType::kI32, "i32", 4},
                                             {ArrayType::kU32, "u32", 4},
                                             {ArrayType::kF32, "f32", 4},
                                             {ArrayType::kU64, "u64", 8},
                                             {ArrayType::kF64, "f64", 8}}};

const TypeInfo& Info(ArrayType type) { return kTypes[static_cast<std::size_t>(type)]; }

template <class T>
T Load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <class T>
void Store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Json ParseHeader(std::span<const std::byte> bytes) {
  configs::JsonLimits limits;
  limits.max_bytes = kMaxHeaderBytes;
  limits.max_depth = 8;
  limits.max_values = kMaxHeaderBytes;
  try {
    Json header = configs::ParseJson(AsText(bytes), "wire header", limits);
    if (!header.is_object()) throw ProtocolError("wire header: not a JSON object");
    return header;
  } catch (const UserError& error) {
    throw ProtocolError(error.what());
  }
}

std::vector<Array> DescribeArrays(const Json& header, std::span<const Bytes> frames) {
  const auto found = header.find("arrays");
  const std::size_t declared = found == header.end() ? 0 : found->size();
  if (found != header.end() && !found->is_array()) {
    throw ProtocolError("wire header: \"arrays\" is not a list");
  }
  if (declared != frames.size()) {
    throw ProtocolError("wire message: " + std::to_string(declared) + " arrays declared, but " +
                        std::to_string(frames.size()) + " frames follow");
  }
  std::vector<Array> arrays;
  arrays.reserve(declared);
  for (std::size_t i = 0; i < declared; ++i) {
    const Json& entry = (*found)[i];
    const std::string where = "wire array " + std::to_string(i);
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() ||
        !entry[1].is_number_integer() || entry[1] < 0) {
      throw ProtocolError(where + ": must be declared as [dtype, count]");
    }
    const auto& name = entry[0].get_ref<const std::string&>();
    const auto type = std::find_if(kTypes.begin(), kTypes.end(),
                                   [&](const TypeInfo& t) { return name == t.name; });
    if (type == kTypes.end()) throw ProtocolError(where + ": unknown dtype");
    const auto count = entry[1].get<std::uint64_t>();
    const std::size_t bytes = frames[i].view.size();
    if (bytes % type->bytes != 0 || bytes / type->bytes != count) {
      throw ProtocolError(where + ": " + std::to_string(count) + " " + type->name +
                          " declared, but " + std::to_string(bytes) + " bytes follow");
    }
    arrays.push_back({type->type, frames[i]});
  }
  return arrays;
}

}  // namespace

Bytes Bytes::Copy(std::span<const std::byte> from) {
  auto owner = std::make_shared<std::vector<std::byte>>(from.begin(), from.end());
  return {std::span<const std::byte>(*owner), owner};
}

Bytes Bytes::Copy(std::string_view from) {
  return Copy(std::as_bytes(std::span(from.data(), from.size())));
}

std::vector<Bytes> Encode(const Message& message) {
  Json header = message.header;
  if (!message.arrays.empty()) {
    Json& table = header["arrays"] = Json::array();
    for (const Array& array : message.arrays) {
      const TypeInfo& info = Info(array.type);
      if (array.bytes.view.size() > kMaxFrameBytes) {
        throw std::logic_error("wire::Encode: an array of " +
                               std::to_string(array.bytes.view.size()) + " bytes; the limit is " +
                               std::to_string(kMaxFrameBytes));
      }
      table.push_back(Json::array({info.name, array.bytes.view.size() / info.bytes}));
    }
  }
  // Names and reasons may hold any bytes a user typed; a replacement character beats an exception
  // here.
  const std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMaxHeaderBytes) {
    throw std::logic_error("wire::Encode: a header of " + std::to_string(text.size()) +
                           " bytes; the limit is " + std::to_string(kMaxHeaderBytes));
  }
  std::array<std::byte, kPreambleBytes> preamble;
  std::memcpy(preamble.data(), kMagic, 4);
  Store(preamble.data() + 4, kWireVersion);
  Store(preamble.data() + 6, message.kind);
  Store(preamble.data() + 8, static_cast<std::uint32_t>(text.size()));
  std::uint32_t crc = configs::Crc32c(std::span<const std::byte>(preamble).first(kCrcOffset));
  crc = configs::Crc32c(text, crc);
  for (const Array& array : message.arrays) crc = configs::Crc32c(array.bytes.view, crc);
  Store(preamble.data() + kCrcOffset, crc);

  std::vector<Bytes> frames;
  frames.reserve(2 + message.arrays.size());
  frames.push_back(Bytes::Copy(preamble));
  frames.push_back(Bytes::Copy(text));
  for (const Array& array : message.arrays) frames.push_back(array.bytes);
  return frames;
}

Message Decode(std::span<const Bytes> frames) {
  if (frames.size() < 2) {
    throw ProtocolError("wire message: " + std::to_string(frames.size()) +
                        " frames; a preamble and a header must be there");
  }
  const auto preamble = frames[0].view;
  const auto header_bytes = frames[1].view;
  if (preamble.size() != kPreambleBytes || std::memcmp(preamble.data(), kMagic, 4) != 0) {
    throw ProtocolError("wire message: no TMPR preamble of 16 bytes");
  }
  const auto version = Load<std::uint16_t>(preamble, 4);
  if (version != kWireVersion) {
    throw ProtocolError("wire message: protocol version " + std::to_string(version) +
                        ", this side speaks " + std::to_string(kWireVersion) +
                        "; run one release of temper on all machines");
  }
  if (Load<std::uint32_t>(preamble, 8) != header_bytes.size() ||
      header_bytes.size() > kMaxHeaderBytes) {
    throw ProtocolError("wire message: header of " + std::to_string(header_bytes.size()) +
                        " bytes, " + std::to_string(Load<std::uint32_t>(preamble, 8)) +
                        " declared; at most " + std::to_string(kMaxHeaderBytes));
  }
  std::uint32_t crc = configs::Crc32c(preamble.first(kCrcOffset));
  for (const Bytes& frame : frames.subspan(1)) crc = configs::Crc32c(frame.view, crc);
  if (crc != Load<std::uint32_t>(preamble, kCrcOffset)) {
    throw ProtocolError("wire message: checksum differs; the bytes changed on the way");
  }
  Message message;
  message.kind = Load<std::uint16_t>(preamble, 6);
  message.header = ParseHeader(header_bytes);
  message.arrays = DescribeArrays(message.header, frames.subspan(2));
  message.header.erase("arrays");
  return message;
}

void Fields::Fail(const std::string& what) const {
  throw ProtocolError(std::string(kind_) + ": " + what);
}

bool Fields::Has(const char* name) const {
  const auto found = message_.header.find(name);
  return found != message_.header.end() && !found->is_null();
}

const Json& Fields::At(const char* name) const {
  const auto found = message_.header.find(name);
  if (found == message_.header.end()) Fail(std::string("field ") + name + " is missing");
  return *found;
}

std::int64_t Fields::Int(const char* name, std::int64_t lo, std::int64_t hi) const {
  try {
    return configs::GetInt(At(name), std::string(kind_) + ": " + name, lo, hi);
  } catch (const UserError& error) {
    throw ProtocolError(error.what());
  }
}

double Fields::Number(const char* name) const {
  const Json& value = At(name);
  if (!value.is_number()) Fail(std::string("field ") + name + " must be a number");
  const auto number = value.get<double>();
  if (!std::isfinite(number)) Fail(std::string("field ") + name + " must be finite");
  return number;
}

bool Fields::Bool(const char* name) const {
  const Json& value = At(name);
  if (!value.is_boolean()) Fail(std::string("field ") + name + " must be true or false");
  return value.get<bool>();
}

std::string Fields::Text(const char* name) const {
  const Json& value = At(name);
  if (!value.is_string()) Fail(std::string("field ") + name + " must be a string");
  return value.get<std::string>();
}

void Fields::ExpectArrays(std::size_t count) const {
  if (message_.arrays.size() != count) {
    Fail(std::to_string(message_.arrays.size()) + " arrays; " + std::to_string(count) +
         " belong to it");
  }
}

const Array& Fields::At(std::size_t index, ArrayType type) const {
  if (index >= message_.arrays.size()) Fail("array " + std::to_string(index) + " is missing");
  const Array& array = message_.arrays[index];
  if (array.type != type) {
    Fail("array " + std::to_string(index) + " is " + Info(array.type).name + ", must be " +
         Info(type).name);
  }
  return array;
}

std::string Fields::Chars(std::size_t index) const {
  return std::string(AsText(At(index, ArrayType::kU8).bytes.view));
}

const Bytes& Fields::Raw(std::size_t index) const { return At(index, ArrayType::kU8).bytes; }

}  // namespace temper::wire
