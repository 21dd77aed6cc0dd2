#pragma once
// Where a completion says its answer, and what number a text is.
#include <optional>
#include <string_view>

namespace temper::reward {

bool IsDigit(char c);
bool IsSpace(char c);
bool IsLetter(char c);  // ASCII
std::string_view Trim(std::string_view text);

/// The end of the number at `begin`: digits, commas between digits, one fraction. `begin` if there
/// is none.
std::size_t NumberEnd(std::string_view text, std::size_t begin);
/// The last number of a text; a minus between two terms is an operator, not a sign.
std::optional<std::string_view> LastNumber(std::string_view text);
/// The value of a text that is one number, with commas, a currency or percent sign and a full stop
/// allowed.
std::optional<double> AsNumber(std::string_view text);
/// Equal numbers, or the same text but for white space around it.
bool SameAnswer(std::string_view found, std::string_view answer);

/// What is in the last <name>...</name>.
std::optional<std::string_view> LastTag(std::string_view text, std::string_view name);
/// What is in the last \boxed{...} or \fbox{...}, braces balanced; "\boxed 5" gives 5.
std::optional<std::string_view> LastBoxed(std::string_view text);
/// The rest of the line after the last ####.
std::optional<std::string_view> LastHashes(std::string_view text);

/// <answer>, else \boxed, else ####, else nothing.
std::optional<std::string_view> MarkedAnswer(std::string_view text);

}  // namespace temper::reward
