#pragma once
// The one strict JSON reader: bounded depth and size, no duplicate keys, checked integers.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace temper {

/// Objects keep the order of the text.
using Json = nlohmann::ordered_json;

namespace configs {

struct JsonLimits {
  std::size_t max_bytes = std::size_t{256} << 20;
  int max_depth = 64;
  std::size_t max_values = std::size_t{64} << 20;  // values and keys together
};

/// Parses one JSON text. `where` names it in errors (a path, or "path:line" for a JSONL line).
/// Refuses: a byte-order mark, invalid UTF-8, duplicate keys, NaN and Infinity, trailing bytes,
/// depth or size over the limits. Integers that fit neither i64 nor u64 become doubles, never wrap.
/// Throws UserError "<where>:<line>:<column>: <what>".
Json ParseJson(std::string_view text, const std::string& where, const JsonLimits& limits = {});

/// Reads a whole file (pread) and parses it. Throws UserError if it cannot be opened, MachineError
/// on EIO.
Json ReadJsonFile(const std::string& path, const JsonLimits& limits = {});
/// The file `name` of a model's folder, which it must not leave (configs/files.h).
Json ReadJsonFile(const std::string& folder, const std::string& name, const JsonLimits& limits);

/// Checked integer: refuses floats, strings, negatives where lo >= 0. `where` e.g. "config.json:
/// hidden_size". Throws UserError "<where>: <found> must be an integer in [lo, hi]".
std::int64_t GetInt(const Json& value, const std::string& where, std::int64_t lo, std::int64_t hi);

/// Checked finite number in [lo, hi].
double GetNumber(const Json& value, const std::string& where, double lo, double hi);

/// Untrusted text for an error message: in double quotes, escaped to one line of valid UTF-8, cut
/// after about 100 bytes.
std::string Quote(std::string_view text);

/// A value as JSON on one line, cut after about 100 bytes.
std::string Brief(const Json& value);

}  // namespace configs
}  // namespace temper
