#pragma once
// The expressions of a chat template, read from its tokens.
#include <string>
#include <vector>

#include "engine/template_lexer.h"
#include "engine/template_parser.h"

namespace temper::engine::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead(std::size_t n) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  int LastLine() const { return tokens_[at_ > 0 ? at_ - 1 : 0].line; }
  Token Take();
  bool Skip(std::string_view op);  // an operator
  bool SkipName(std::string_view name);
  void Expect(std::string_view op);
  std::string ExpectName(const char* what);
  [[noreturn]] void Fail(const std::string& what) const;
  [[noreturn]] void FailAt(int line, const std::string& what) const;
  [[noreturn]] void Unexpected() const;

  /// One expression; a tuple without brackets where commas follow.
  ExprPtr Tuple();
  ExprPtr Expression();
  /// Without a conditional: what stands behind `in` of a for.
  ExprPtr Or();
  ExprPtr OrTuple();
  /// "| name(...)" as often as it stands there, around `subject` (null: filled in later).
  ExprPtr Filters(ExprPtr subject);

  bool in_macro = false;

 private:
  class Nesting;
  ExprPtr Make(Expr::Kind kind, int line, std::vector<ExprPtr> args = {}, std::string name = {});
  ExprPtr And();
  ExprPtr Not();
  ExprPtr Compare();
  ExprPtr Sum();
  ExprPtr Concat();
  ExprPtr Product();
  ExprPtr Power();
  ExprPtr Unary(bool with_filter);
  ExprPtr Primary();
  ExprPtr Name();
  ExprPtr Brackets();
  ExprPtr Braces();
  ExprPtr Postfix(ExprPtr node);
  ExprPtr FiltersAndTests(ExprPtr node);
  ExprPtr Subscript(ExprPtr node);
  ExprPtr Test(ExprPtr subject);
  void Arguments(Expr* call);
  ExprPtr TupleOf(ExprPtr (ExpressionParser::*item)());

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace temper::engine::jinja
