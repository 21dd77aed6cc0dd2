#pragma once
// UTF-8: validation, decoding one character, and Rust's lossy repair.
#include <cstdint>
#include <string>
#include <string_view>

namespace temper::engine {

/// Bytes of the well-formed character at the start of `text` (1 to 4), or 0 if there is none. No
/// surrogates, no overlongs.
int Utf8Length(std::string_view text);

/// Offset of the first byte that is not part of well-formed UTF-8; npos if all is well.
std::size_t FindInvalidUtf8(std::string_view text);

/// The character at the start of `text`, which is well-formed and not empty; `length` gets its
/// bytes.
std::uint32_t DecodeUtf8(std::string_view text, int* length);

void AppendUtf8(std::uint32_t code_point, std::string* out);

/// Each maximal ill-formed part becomes one U+FFFD (Unicode 3.9, as String::from_utf8_lossy).
std::string LossyUtf8(std::string_view bytes);

/// Bytes at the end (0 to 3) that are the beginning of a character whose rest is missing.
std::size_t UnfinishedBytes(std::string_view bytes);

/// Unicode White_Space.
bool IsWhiteSpace(std::uint32_t code_point);

}  // namespace temper::engine
