#include "wire/protocol_fields.h"

#include <algorithm>

namespace temper::wire {

Message Start(Kind kind) {
  Message message;
  message.kind = static_cast<std::uint16_t>(kind);
  return message;
}

Fields Open(const Message& message, Kind kind, const char* name) {
  Fields fields(message, name);
  if (message.kind != static_cast<std::uint16_t>(kind)) {
    fields.Fail("this is a " + KindName(message.kind));
  }
  return fields;
}

std::string Hex(std::uint64_t value) {
  std::string bytes(sizeof value, '\0');
  for (int i = 7; i >= 0; --i, value >>= 8) bytes[i] = static_cast<char>(value & 255);
  return HexBytes(bytes);
}

std::string HexBytes(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

std::string BytesFromHex(const Fields& fields, const char* name, std::size_t bytes) {
  const std::string text = fields.Text(name);
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  bool good = text.size() == 2 * bytes;
  for (const char c : text) good = good && digit(c) >= 0;
  if (!good)
    fields.Fail(std::string(name) + " must be " + std::to_string(2 * bytes) + " hex digits");
  std::string value;
  for (std::size_t i = 0; i < text.size(); i += 2)
    value += static_cast<char>(digit(text[i]) << 4 | digit(text[i + 1]));
  return value;
}

std::uint64_t U64FromHex(const Fields& fields, const char* name) {
  std::uint64_t value = 0;
  for (const char byte : BytesFromHex(fields, name, sizeof value))
    value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

std::string ShortText(const Fields& fields, const char* name) {
  std::string text = fields.Text(name);
  if (text.size() > kMaxName) fields.Fail(std::string(name) + " is longer than 256 bytes");
  return text;
}

std::string Finish(const Fields& fields, const std::string& text) {
  if (text != "stop" && text != "length" && text != "cancelled" && text != "error") {
    fields.Fail("finish must be stop, length, cancelled or error");
  }
  return text;
}

Json ParseList(const Fields& fields, std::size_t index, const char* what) {
  const Bytes& raw = fields.Raw(index);
  return ParseListText(fields, {reinterpret_cast<const char*>(raw.view.data()), raw.view.size()},
                       what);
}

Json ParseListText(const Fields& fields, std::string_view text, const char* what) {
  configs::JsonLimits limits;
  limits.max_bytes = std::max(kMaxFrameBytes, text.size());  // frames were limited as they came
  limits.max_depth = 8;
  limits.max_values = std::size_t{4} << 20;
  try {
    Json json = configs::ParseJson(text, what, limits);
    if (!json.is_array()) fields.Fail(std::string(what) + " must be a list");
    return json;
  } catch (const UserError& error) {
    throw ProtocolError(error.what());
  }
}

std::string DumpLossy(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const Json& List(const Fields& fields, const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_array()) {
    fields.Fail(std::string(name) + " must be a list");
  }
  return *found;
}

Entry::Entry(const Json& json, const char* what) : fields_(message_, what) {
  if (!json.is_object()) fields_.Fail("every entry must be an object");
  message_.header = json;
}

}  // namespace temper::wire
