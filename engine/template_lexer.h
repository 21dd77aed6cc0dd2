#pragma once
// A chat template as tokens, with white space already controlled.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/template_value.h"

namespace temper::engine::jinja {

struct Token {
  enum class Kind : std::uint8_t {
    kText,  // outside of tags
    kOpenBlock,
    kCloseBlock,
    kOpenOutput,
    kCloseOutput,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  int line = 1;
  std::string text;  // name, operator, or the text itself, unescaped
  std::int64_t integer = 0;
  double number = 0;

  bool IsOperator(std::string_view op) const { return kind == Kind::kOperator && text == op; }
  bool IsName(std::string_view name) const { return kind == Kind::kName && text == name; }
};

/// A rejected template: Failure with its line.
struct SyntaxError : Failure {
  SyntaxError(int where, const std::string& what) : Failure(what), line(where) {}
  int line;
};

/// Ends with a kEnd token. As Jinja with trim_blocks and lstrip_blocks: the line feed behind a
/// block or comment goes, so does white space before it on its line; one line feed at the end goes.
std::vector<Token> Tokenize(std::string_view source);

}  // namespace temper::engine::jinja
