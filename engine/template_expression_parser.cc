#include "engine/template_expression_parser.h"

#include <algorithm>
#include <utility>

#include "configs/json.h"

namespace temper::engine::jinja {
namespace {

using Kind = Expr::Kind;

constexpr int kMaxNesting = 60;  // brackets in brackets
constexpr int kMaxDepth = 250;   // of a tree: chains of operators are deep too

std::vector<ExprPtr> Args(ExprPtr a, ExprPtr b = nullptr) {
  std::vector<ExprPtr> args;
  args.push_back(std::move(a));
  if (b) args.push_back(std::move(b));
  return args;
}

}  // namespace

class ExpressionParser::Nesting {
 public:
  explicit Nesting(ExpressionParser* parser) : parser_(parser) {
    if (++parser_->nesting_ > kMaxNesting) parser_->Fail("an expression nested too deeply");
  }
  ~Nesting() { --parser_->nesting_; }

 private:
  ExpressionParser* parser_;
};

Token ExpressionParser::Take() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::Skip(std::string_view op) {
  if (!Now().IsOperator(op)) return false;
  Take();
  return true;
}

bool ExpressionParser::SkipName(std::string_view name) {
  if (!Now().IsName(name)) return false;
  Take();
  return true;
}

void ExpressionParser::Expect(std::string_view op) {
  if (!Skip(op)) Unexpected();
}

std::string ExpressionParser::ExpectName(const char* what) {
  if (Now().kind != Token::Kind::kName) Fail(std::string("the name of ") + what + " is missing");
  return Take().text;
}

void ExpressionParser::Fail(const std::string& what) const { FailAt(Now().line, what); }
void ExpressionParser::FailAt(int line, const std::string& what) const {
  throw SyntaxError(line, what);
}

void ExpressionParser::Unexpected() const {
  switch (Now().kind) {
    case Token::Kind::kCloseBlock:
      Fail("unexpected \"%}\"");
    case Token::Kind::kCloseOutput:
      Fail("unexpected \"}}\"");
    case Token::Kind::kEnd:
      Fail("unexpected end of the template");
    default:
      Fail("unexpected " + configs::Quote(Now().text));
  }
}

ExprPtr ExpressionParser::Make(Kind kind, int line, std::vector<ExprPtr> args, std::string name) {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  node->name = std::move(name);
  node->args = std::move(args);
  for (const ExprPtr& arg : node->args) {
    if (arg) node->depth = std::max(node->depth, arg->depth + 1);
  }
  if (node->depth > kMaxDepth) FailAt(line, "an expression nested too deeply");
  return node;
}

ExprPtr ExpressionParser::TupleOf(ExprPtr (ExpressionParser::*item)()) {
  const int line = Now().line;
  ExprPtr first = (this->*item)();
  if (!Now().IsOperator(",")) return first;
  std::vector<ExprPtr> items = Args(std::move(first));
  while (Skip(",")) {
    const Token& next = Now();
    if (next.kind == Token::Kind::kCloseBlock || next.kind == Token::Kind::kCloseOutput ||
        next.IsOperator(")") || next.IsOperator("]") || next.IsOperator("=") || next.IsName("in")) {
      break;
    }
    items.push_back((this->*item)());
  }
  return Make(Kind::kTuple, line, std::move(items));
}

ExprPtr ExpressionParser::Tuple() { return TupleOf(&ExpressionParser::Expression); }
ExprPtr ExpressionParser::OrTuple() { return TupleOf(&ExpressionParser::Or); }

ExprPtr ExpressionParser::Expression() {
  const Nesting nesting(this);
  ExprPtr node = Or();
  while (Now().IsName("if")) {
    const int line = Take().line;
    std::vector<ExprPtr> args = Args(std::move(node), Or());
    args.push_back(SkipName("else") ? Expression() : nullptr);
    node = Make(Kind::kIf, line, std::move(args));
  }
  return node;
}

ExprPtr ExpressionParser::Or() {
  ExprPtr node = And();
  while (Now().IsName("or")) {
    const int line = Take().line;
    node = Make(Kind::kOr, line, Args(std::move(node), And()));
  }
  return node;
}

ExprPtr ExpressionParser::And() {
  ExprPtr node = Not();
  while (Now().IsName("and")) {
    const int line = Take().line;
    node = Make(Kind::kAnd, line, Args(std::move(node), Not()));
  }
  return node;
}

ExprPtr ExpressionParser::Not() {
  if (!Now().IsName("not")) return Compare();
  const Nesting nesting(this);
  const int line = Take().line;
  return Make(Kind::kNot, line, Args(Not()));
}

ExprPtr ExpressionParser::Compare() {
  const int line = Now().line;
  ExprPtr first = Sum();
  std::vector<ExprPtr> args;
  std::vector<std::string> names;
  while (true) {
    std::string op;
    for (const char* sign : {"==", "!=", "<", "<=", ">", ">="}) {
      if (Now().IsOperator(sign)) op = sign;
    }
    if (!op.empty()) {
      Take();
    } else if (SkipName("in")) {
      op = "in";
    } else if (Now().IsName("not") && Ahead(1).IsName("in")) {
      Take();
      Take();
      op = "not in";
    } else {
      break;
    }
    names.push_back(op);
    args.push_back(Sum());
  }
  if (names.empty()) return first;
  args.insert(args.begin(), std::move(first));
  ExprPtr node = Make(Kind::kCompare, line, std::move(args));
  node->names = std::move(names);
  return node;
}

ExprPtr ExpressionParser::Sum() {
  ExprPtr node = Concat();
  while (Now().IsOperator("+") || Now().IsOperator("-")) {
    const Token op = Take();
    node = Make(Kind::kBinary, op.line, Args(std::move(node), Concat()), op.text);
  }
  return node;
}

ExprPtr ExpressionParser::Concat() {
  ExprPtr first = Product();
  if (!Now().IsOperator("~")) return first;
  const int line = Now().line;
  std::vector<ExprPtr> args = Args(std::move(first));
  while (Skip("~")) args.push_back(Product());
  return Make(Kind::kConcat, line, std::move(args));
}

ExprPtr ExpressionParser::Product() {
  ExprPtr node = Power();
  while (Now().IsOperator("*") || Now().IsOperator("/") || Now().IsOperator("//") ||
         Now().IsOperator("%")) {
    const Token op = Take();
    node = Make(Kind::kBinary, op.line, Args(std::move(node), Power()), op.text);
  }
  return node;
}

ExprPtr ExpressionParser::Power() {
  ExprPtr node = Unary(true);
  while (Now().IsOperator("**")) {
    const Token op = Take();
    node = Make(Kind::kBinary, op.line, Args(std::move(node), Unary(true)), op.text);
  }
  return node;
}

ExprPtr ExpressionParser::Unary(bool with_filter) {
  ExprPtr node;
  if (Now().IsOperator("-") || Now().IsOperator("+")) {
    const Nesting nesting(this);
    const Token op = Take();
    node = Make(op.text == "-" ? Kind::kNegate : Kind::kPlus, op.line, Args(Unary(false)));
  } else {
    node = Primary();
  }
  node = Postfix(std::move(node));
  return with_filter ? FiltersAndTests(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::Primary() {
  const Nesting nesting(this);
  if (Now().kind == Token::Kind::kName) return Name();
  if (Now().IsOperator("[")) return Brackets();
  if (Now().IsOperator("{")) return Braces();
  const Token token = Now();
  if (Skip("(")) {
    if (Skip(")")) return Make(Kind::kTuple, token.line);
    ExprPtr inside = Tuple();
    Expect(")");
    return inside;
  }
  ExprPtr node = Make(Kind::kConst, token.line);
  if (token.kind == Token::Kind::kString) {
    std::string text;
    while (Now().kind == Token::Kind::kString) text += Take().text;
    node->value = Value::Text(std::move(text), nullptr);
  } else if (token.kind == Token::Kind::kInteger) {
    node->value = Value::Int(Take().integer);
  } else if (token.kind == Token::Kind::kFloat) {
    node->value = Value::Float(Take().number);
  } else {
    Unexpected();
  }
  return node;
}

ExprPtr ExpressionParser::Name() {
  const Token token = Take();
  const std::string& name = token.text;
  ExprPtr node = Make(Kind::kConst, token.line);
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->value = Value::Bool(name == "true" || name == "True");
  } else if (name == "none" || name == "None") {
    node->value = Value::None();
  } else {
    if (in_macro && (name == "varargs" || name == "kwargs" || name == "caller")) {
      FailAt(token.line, "\"" + name + "\" of a macro is not supported");
    }
    if (name == "self" || name == "lipsum" || name == "cycler" || name == "joiner") {
      FailAt(token.line, "\"" + name + "\" is not supported");
    }
    node->kind = Kind::kName;
    node->name = name;
  }
  return node;
}

ExprPtr ExpressionParser::Brackets() {
  const int line = Take().line;
  std::vector<ExprPtr> items;
  while (!Now().IsOperator("]")) {
    if (!items.empty()) Expect(",");
    if (Now().IsOperator("]")) break;
    items.push_back(Expression());
  }
  Expect("]");
  return Make(Kind::kList, line, std::move(items));
}

ExprPtr ExpressionParser::Braces() {
  const int line = Take().line;
  std::vector<ExprPtr> items;
  while (!Now().IsOperator("}")) {
    if (!items.empty()) Expect(",");
    if (Now().IsOperator("}")) break;
    items.push_back(Expression());
    Expect(":");
    items.push_back(Expression());
  }
  Expect("}");
  return Make(Kind::kDict, line, std::move(items));
}

ExprPtr ExpressionParser::Postfix(ExprPtr node) {
  while (true) {
    if (Now().IsOperator(".") || Now().IsOperator("[")) {
      node = Subscript(std::move(node));
    } else if (Now().IsOperator("(")) {
      ExprPtr call = Make(Kind::kCall, Now().line, Args(std::move(node)));
      Arguments(call.get());
      node = std::move(call);
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::Subscript(ExprPtr node) {
  const Token open = Take();
  if (open.text == ".") {
    if (Now().kind == Token::Kind::kName) {
      return Make(Kind::kAttr, open.line, Args(std::move(node)), Take().text);
    }
    if (Now().kind != Token::Kind::kInteger) Unexpected();
    ExprPtr index = Make(Kind::kConst, open.line);
    index->value = Value::Int(Take().integer);
    return Make(Kind::kItem, open.line, Args(std::move(node), std::move(index)));
  }
  ExprPtr parts[3];
  bool slice = false;
  for (int i = 0; i < 3; ++i) {
    if (!Now().IsOperator(":") && !Now().IsOperator("]")) parts[i] = Expression();
    if (!Skip(":")) break;
    slice = true;
  }
  if (!slice && !parts[0]) Unexpected();
  if (Now().IsOperator(",")) Fail("a subscript of several values is not supported");
  Expect("]");
  if (!slice) return Make(Kind::kItem, open.line, Args(std::move(node), std::move(parts[0])));
  std::vector<ExprPtr> args = Args(std::move(node));
  for (ExprPtr& part : parts) args.push_back(std::move(part));
  return Make(Kind::kSlice, open.line, std::move(args));
}

void ExpressionParser::Arguments(Expr* call) {
  Expect("(");
  bool first = true;
  while (!Now().IsOperator(")")) {
    if (!first) Expect(",");
    first = false;
    if (Now().IsOperator(")")) break;
    if (Now().IsOperator("*") || Now().IsOperator("**")) {
      Fail("\"" + Now().text + "\" before an argument is not supported");
    }
    if (Now().kind == Token::Kind::kName && Ahead(1).IsOperator("=")) {
      call->names.push_back(Take().text);
      Take();
    } else if (!call->names.empty()) {
      Fail("an argument without name behind a named one");
    }
    call->args.push_back(Expression());
    call->depth = std::max(call->depth, call->args.back()->depth + 1);
  }
  Expect(")");
  if (call->depth > kMaxDepth) FailAt(call->line, "an expression nested too deeply");
}

ExprPtr ExpressionParser::Filters(ExprPtr subject) {
  while (Now().IsOperator("|")) {
    const int line = Take().line;
    std::vector<ExprPtr> args;
    args.push_back(std::move(subject));
    subject = Make(Kind::kFilter, line, std::move(args), ExpectName("a filter"));
    if (Now().IsOperator("(")) Arguments(subject.get());
  }
  return subject;
}

ExprPtr ExpressionParser::FiltersAndTests(ExprPtr node) {
  while (true) {
    if (Now().IsOperator("|")) {
      node = Filters(std::move(node));
    } else if (SkipName("is")) {
      node = Test(std::move(node));
    } else if (Now().IsOperator("(")) {
      ExprPtr call = Make(Kind::kCall, Now().line, Args(std::move(node)));
      Arguments(call.get());
      node = std::move(call);
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::Test(ExprPtr subject) {
  const bool negated = SkipName("not");
  const int line = Now().line;
  const std::string name = ExpectName("a test");
  ExprPtr node = Make(Kind::kTest, line, Args(std::move(subject)), name);
  node->negated = negated;
  if (Now().IsOperator("(")) {
    Arguments(node.get());
    return node;
  }
  const Token& next = Now();
  const bool word = next.kind == Token::Kind::kName && next.text != "else" && next.text != "or" &&
                    next.text != "and";
  if (word && next.text == "is") Fail("tests cannot be chained with \"is\"");
  // Behind a test a name begins its argument, but for the words that go on with the expression.
  if (word || next.kind == Token::Kind::kString || next.kind == Token::Kind::kInteger ||
      next.kind == Token::Kind::kFloat || next.IsOperator("[") || next.IsOperator("{")) {
    node->args.push_back(Postfix(Primary()));
    node->depth = std::max(node->depth, node->args.back()->depth + 1);
  }
  return node;
}

}  // namespace temper::engine::jinja
