#pragma once
// Questions about one character that Unicode's tables answer.
#include <cstdint>

namespace temper::engine {

/// Python's str.isprintable: neither a control, format, private, unassigned character nor a
/// separator other than the space.
bool IsPrintable(std::uint32_t code_point);

/// Python's str.isspace: White_Space and the four information separators U+001C to U+001F.
bool IsPythonSpace(std::uint32_t code_point);

/// \w of Rust's regex crate: alphabetic, marks, decimal digits, connectors, joiners.
bool IsWordCharacter(std::uint32_t code_point);

}  // namespace temper::engine
