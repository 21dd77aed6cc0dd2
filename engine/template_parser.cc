#include "engine/template_parser.h"

#include <algorithm>
#include <initializer_list>

#include "configs/json.h"
#include "engine/template_expression_parser.h"

namespace temper::engine::jinja {
namespace {

using Kind = Statement::Kind;

constexpr int kMaxNesting = 50;  // blocks in blocks

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens) : e_(std::move(tokens)) {}

  Body Run() {
    Body body = Until({});
    if (e_.Now().kind != Token::Kind::kEnd) e_.Unexpected();
    return body;
  }

 private:
  // What the parser is inside of.
  struct Place {
    bool loop = false;   // break and continue may stand here
    bool inner = false;  // not at the top: macros may not stand here
  };

  // Statements up to a block that begins with one of `ends`; that name is not taken yet.
  Body Until(std::initializer_list<std::string_view> ends) {
    if (++nesting_ > kMaxNesting) e_.Fail("blocks nested too deeply");
    Body body;
    const int opened = e_.LastLine();
    while (true) {
      const Token& token = e_.Now();
      if (token.kind == Token::Kind::kEnd) {
        if (ends.size() > 0) {
          e_.FailAt(opened, "a block without its \"" + std::string(*(ends.end() - 1)) + "\"");
        }
        break;
      }
      if (token.kind == Token::Kind::kText) {
        body.push_back(New(Kind::kText));
        body.back().text = e_.Take().text;
      } else if (token.kind == Token::Kind::kOpenOutput) {
        body.push_back(New(Kind::kOutput));
        e_.Take();
        body.back().exprs.push_back(e_.Tuple());
        if (e_.Now().kind != Token::Kind::kCloseOutput) e_.Unexpected();
        e_.Take();
      } else {
        e_.Take();  // {%
        if (e_.Now().kind != Token::Kind::kName) e_.Unexpected();
        if (std::find(ends.begin(), ends.end(), e_.Now().text) != ends.end()) break;
        Block(&body);
      }
    }
    --nesting_;
    return body;
  }

  Body Inside(std::initializer_list<std::string_view> ends, Place place) {
    std::swap(place_, place);
    Body body = Until(ends);
    place_ = place;
    return body;
  }
  Body Inside(std::initializer_list<std::string_view> ends) {
    return Inside(ends, {place_.loop, true});
  }

  Statement New(Kind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = e_.Now().line;
    return statement;
  }

  void Close() {
    if (e_.Now().kind != Token::Kind::kCloseBlock) e_.Unexpected();
    e_.Take();
  }
  void End() {  // endif and the like
    e_.Take();
    Close();
  }

  void Block(Body* body) {
    const Token name = e_.Take();
    if (name.text == "if") {
      body->push_back(If(name.line));
    } else if (name.text == "for") {
      body->push_back(For(name.line));
    } else if (name.text == "set") {
      body->push_back(Set());
    } else if (name.text == "macro") {
      body->push_back(Macro(name.line));
    } else if (name.text == "with") {
      body->push_back(With());
    } else if (name.text == "generation") {
      body->push_back(New(Kind::kGeneration));
      Close();
      body->back().bodies.push_back(Inside({"endgeneration"}, {false, true}));
      End();
    } else if (name.text == "break" || name.text == "continue") {
      if (!place_.loop) e_.FailAt(name.line, "\"" + name.text + "\" outside of a loop");
      body->push_back(New(name.text == "break" ? Kind::kBreak : Kind::kContinue));
      Close();
    } else {
      e_.FailAt(name.line, "the block " + configs::Quote(name.text) + " is not supported");
    }
  }

  Statement If(int line) {
    Statement out = New(Kind::kIf);
    out.line = line;
    bool more = true;
    while (more) {
      out.exprs.push_back(e_.OrTuple());
      Close();
      // An if is no scope: what stands in it stands where the if stands.
      out.bodies.push_back(Inside({"elif", "else", "endif"}, place_));
      more = e_.SkipName("elif");
    }
    if (e_.SkipName("else")) {
      Close();
      out.bodies.push_back(Inside({"endif"}, place_));
    }
    End();
    return out;
  }

  std::vector<std::string> Targets() {
    std::vector<std::string> names;
    const bool brackets = e_.Skip("(");
    do {
      if (!names.empty() && (e_.Now().IsName("in") || e_.Now().IsOperator("="))) break;
      if (e_.Now().IsOperator("(")) e_.Fail("names in brackets are not supported as targets");
      names.push_back(e_.ExpectName("a variable"));
    } while (e_.Skip(","));
    if (brackets) e_.Expect(")");
    return names;
  }

  Statement For(int line) {
    Statement out = New(Kind::kFor);
    out.line = line;
    out.names = Targets();
    if (!e_.SkipName("in")) e_.Unexpected();
    out.exprs.push_back(e_.OrTuple());
    out.exprs.push_back(e_.SkipName("if") ? e_.Expression() : nullptr);
    if (e_.Now().IsName("recursive")) e_.Fail("a recursive loop is not supported");
    Close();
    out.bodies.push_back(Inside({"else", "endfor"}, {true, true}));
    if (e_.SkipName("else")) {
      Close();
      out.bodies.push_back(Inside({"endfor"}));
    }
    End();
    return out;
  }

  Statement Set() {
    Statement out = New(Kind::kSet);
    out.names = Targets();
    if (out.names.size() == 1 && e_.Skip(".")) {
      out.kind = Kind::kSetAttr;
      out.names.push_back(e_.ExpectName("an attribute"));
    }
    if (e_.Skip("=")) {
      out.exprs.push_back(e_.Tuple());
      Close();
      return out;
    }
    if (out.names.size() != 1) e_.Unexpected();
    out.kind = Kind::kSetBlock;
    out.exprs.push_back(e_.Filters(nullptr));
    Close();
    out.bodies.push_back(Inside({"endset"}));
    End();
    return out;
  }

  Statement Macro(int line) {
    if (place_.inner) e_.FailAt(line, "a macro inside of another block is not supported");
    Statement out = New(Kind::kMacro);
    out.line = line;
    out.text = e_.ExpectName("a macro");
    e_.Expect("(");
    while (!e_.Now().IsOperator(")")) {
      if (!out.names.empty()) e_.Expect(",");
      out.names.push_back(e_.ExpectName("a parameter"));
      if (e_.Skip("=")) {
        out.exprs.push_back(e_.Expression());
      } else if (!out.exprs.empty()) {
        e_.Fail("a parameter without default behind one that has one");
      }
    }
    e_.Expect(")");
    Close();
    e_.in_macro = true;
    out.bodies.push_back(Inside({"endmacro"}, {false, true}));
    e_.in_macro = false;
    End();
    return out;
  }

  Statement With() {
    Statement out = New(Kind::kWith);
    while (e_.Now().kind != Token::Kind::kCloseBlock) {
      if (!out.names.empty()) e_.Expect(",");
      out.names.push_back(e_.ExpectName("a variable"));
      e_.Expect("=");
      out.exprs.push_back(e_.Expression());
    }
    Close();
    out.bodies.push_back(Inside({"endwith"}));
    End();
    return out;
  }

  ExpressionParser e_;
  Place place_;
  int nesting_ = 0;
};

}  // namespace

Body Parse(std::string_view source) { return StatementParser(Tokenize(source)).Run(); }

}  // namespace temper::engine::jinja
