#include "reward/math_parse.h"

#include <algorithm>

#include "reward/extract.h"
#include "reward/math_tokens.h"

namespace temper::reward {
namespace {

using Kind = MathNode::Kind;
using TokenKind = MathToken::Kind;

constexpr int kMaxDepth = 40;
constexpr std::size_t kMaxTokens = 800;

/// What cannot be read; caught in ParseMath, never seen outside.
struct NoFormula {};

MathNode Node(Kind kind, std::vector<MathNode> kids = {}, std::string text = "") {
  MathNode node;
  node.kind = kind;
  node.kids = std::move(kids);
  node.text = std::move(text);
  return node;
}

MathNode Number(const std::string& digits) {
  MathNode node;
  __int128 top = 0, bottom = 1;
  bool point = false;
  if (digits.size() > 34) throw NoFormula();
  for (const char c : digits) {
    if (c == '.') {
      point = true;
      continue;
    }
    top = top * 10 + (c - '0');
    if (point) bottom *= 10;
  }
  const auto value = MakeRational(top, bottom);
  if (!value) throw NoFormula();
  node.value = *value;
  node.decimal = point;
  return node;
}

template <typename List>
bool IsOneOf(const std::string& word, const List& list) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

constexpr std::string_view kFunctions[] = {
    "sin",    "cos",    "tan",  "cot",  "sec",  "csc", "log", "ln",  "exp", "lg", "arcsin",
    "arccos", "arctan", "sinh", "cosh", "tanh", "min", "max", "gcd", "lcm", "abs"};
constexpr std::string_view kMatrices[] = {"pmatrix", "bmatrix",     "vmatrix", "matrix",
                                          "Bmatrix", "smallmatrix", "array"};

class Parser {
 public:
  explicit Parser(std::vector<MathToken> tokens) : tokens_(std::move(tokens)) {}

  MathNode Whole() {
    if (tokens_.size() > kMaxTokens) throw NoFormula();
    std::vector<MathNode> items;
    do {
      if (AtEnd() && !items.empty()) break;  // "1, 2,"
      items.push_back(Relation());
      Units();
    } while (Separator());
    if (!AtEnd()) throw NoFormula();
    return items.size() == 1 ? std::move(items[0]) : Node(Kind::kList, std::move(items));
  }

 private:
  const MathToken& Here(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  bool AtEnd() const { return Here().kind == TokenKind::kEnd; }
  bool Is(TokenKind kind, std::string_view text) const {
    return Here().kind == kind && Here().text == text;
  }
  bool IsSign(std::string_view text) const { return Is(TokenKind::kSign, text); }
  bool Take(TokenKind kind, std::string_view text) {
    if (!Is(kind, text)) return false;
    ++at_;
    return true;
  }
  bool TakeSign(std::string_view text) { return Take(TokenKind::kSign, text); }
  bool TakeCommand(std::string_view text) { return Take(TokenKind::kCommand, text); }
  bool TakeWord(std::string_view text) { return Take(TokenKind::kWord, text); }

  bool Separator() {
    if (TakeSign(",") || TakeSign(";")) {
      TakeWord("and");
      TakeWord("or");
      return true;
    }
    return TakeWord("or") || TakeWord("and");
  }
  /// "5 cm", "5\text{ square meters}", "5 meters per second": a quantity's unit says nothing.
  void Units() {
    while (Here().kind == TokenKind::kText ||
           (Here().kind == TokenKind::kWord && !Is(TokenKind::kWord, "or") &&
            !Is(TokenKind::kWord, "and"))) {
      ++at_;
      if (TakeSign("^") && !TakeSign("{")) ++at_;  // cm^2
      if (at_ > 1 && tokens_[at_ - 1].text == "{") {
        while (!AtEnd() && !TakeSign("}")) ++at_;
      }
      if (IsSign("/") && (Here(1).kind == TokenKind::kText || Here(1).kind == TokenKind::kWord ||
                          (Here(1).kind == TokenKind::kLetter))) {
        at_ += 2;
      }
      TakeSign(".");
    }
    TakeSign(".");
  }

  class Deeper {
   public:
    explicit Deeper(int* depth) : depth_(depth) {
      if (++*depth_ > kMaxDepth) throw NoFormula();
    }
    ~Deeper() { --*depth_; }

   private:
    int* depth_;
  };

  MathNode Relation();
  MathNode Union();
  MathNode Sum();
  MathNode Product();
  MathNode Signed();
  MathNode Postfix();
  MathNode Atom();
  MathNode CommandAtom();
  MathNode WordAtom(const std::string& word);
  MathNode Bracketed();
  MathNode Argument();
  MathNode Braced();
  MathNode Root();
  MathNode Function(const std::string& name);
  MathNode Matrix();
  MathNode Absolute();
  bool StartsFactor() const;
  char RelationSign();

  std::vector<MathToken> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0, bars_ = 0;
};

char Parser::RelationSign() {
  if (TakeSign("=") || TakeCommand("equiv")) return '=';
  if (TakeSign("<=")) return 'l';
  if (TakeSign(">=")) return 'g';
  if (TakeSign("!=")) return '!';
  if (TakeSign("<")) return '<';
  if (TakeSign(">")) return '>';
  if (TakeCommand("in")) return 'e';
  if (TakeCommand("approx") || TakeCommand("sim") || TakeCommand("to") ||
      TakeCommand("rightarrow")) {
    return '=';
  }
  if (TakeSign(":")) return ':';  // a ratio
  return 0;
}

MathNode Parser::Relation() {
  const Deeper deeper(&depth_);
  std::vector<MathNode> sides;
  sides.push_back(Union());
  std::string signs;
  while (const char sign = RelationSign()) {
    signs += sign;
    sides.push_back(Union());
  }
  if (signs.empty()) return std::move(sides[0]);
  return Node(Kind::kRelation, std::move(sides), signs);
}

MathNode Parser::Union() {
  std::vector<MathNode> parts;
  do {
    parts.push_back(Sum());
  } while (TakeCommand("cup") || TakeWord("cup"));
  return parts.size() == 1 ? std::move(parts[0]) : Node(Kind::kUnion, std::move(parts));
}

MathNode Parser::Sum() {
  const Deeper deeper(&depth_);
  std::vector<MathNode> terms;
  terms.push_back(Product());
  while (true) {
    if (TakeSign("+")) {
      terms.push_back(Product());
    } else if (TakeSign("-")) {
      std::vector<MathNode> kids;
      kids.push_back(Product());
      terms.push_back(Node(Kind::kNegate, std::move(kids)));
    } else if (TakeCommand("pm") || TakeCommand("mp")) {
      MathNode left = terms.size() == 1 ? std::move(terms[0]) : Node(Kind::kAdd, std::move(terms));
      terms.clear();
      std::vector<MathNode> kids;
      kids.push_back(std::move(left));
      kids.push_back(Product());
      terms.push_back(Node(Kind::kPlusMinus, std::move(kids)));
    } else {
      break;
    }
  }
  return terms.size() == 1 ? std::move(terms[0]) : Node(Kind::kAdd, std::move(terms));
}

bool Parser::StartsFactor() const {
  const MathToken& token = Here();
  switch (token.kind) {
    case TokenKind::kNumber:
    case TokenKind::kLetter:
      return true;
    case TokenKind::kSign:
      return token.text == "(" || token.text == "{" || (token.text == "|" && bars_ == 0);
    case TokenKind::kWord:
      return token.text == "pi" || token.text == "sqrt" || IsOneOf(token.text, kFunctions);
    case TokenKind::kCommand: {
      static constexpr std::string_view kNoFactor[] = {
          "\\",  "}",   "|",     "cup", "in",  "pm",  "mp",     "cdot",       "times", "div",
          "end", "cap", "equiv", "to",  "sim", "mid", "approx", "rightarrow", "ast"};
      return !IsOneOf(token.text, kNoFactor);
    }
    default:
      return false;
  }
}

MathNode Parser::Product() {
  const Deeper deeper(&depth_);
  MathNode value = Signed();
  while (true) {
    std::vector<MathNode> kids;
    if (TakeSign("*") || TakeCommand("cdot") || TakeCommand("times") || TakeCommand("ast")) {
      kids.push_back(std::move(value));
      kids.push_back(Signed());
      value = Node(Kind::kMultiply, std::move(kids));
    } else if ((IsSign("/") && Here(1).kind != TokenKind::kText &&
                !(Here(1).kind == TokenKind::kWord && !IsOneOf(Here(1).text, kFunctions) &&
                  Here(1).text != "pi" && Here(1).text != "sqrt")) ||
               Is(TokenKind::kCommand, "div")) {
      ++at_;
      kids.push_back(std::move(value));
      kids.push_back(Signed());
      value = Node(Kind::kDivide, std::move(kids));
    } else if (StartsFactor()) {
      const bool whole = value.kind == Kind::kNumber && !value.decimal && value.value.IsInteger();
      const bool mixed = whole && Is(TokenKind::kCommand, "frac");
      if (whole && Here().kind == TokenKind::kNumber) {
        // "3 1/2" is a mixed number; other numbers side by side are no formula.
        if (!(Here(1).kind == TokenKind::kSign && Here(1).text == "/" &&
              Here(2).kind == TokenKind::kNumber)) {
          throw NoFormula();
        }
        MathNode top = Number(Here().text), bottom = Number(Here(2).text);
        at_ += 3;
        kids.push_back(std::move(value));
        std::vector<MathNode> parts;
        parts.push_back(std::move(top));
        parts.push_back(std::move(bottom));
        kids.push_back(Node(Kind::kDivide, std::move(parts)));
        value = Node(Kind::kAdd, std::move(kids));
        continue;
      }
      MathNode next = Postfix();
      const bool fraction = mixed && next.kind == Kind::kDivide &&
                            next.kids[0].kind == Kind::kNumber &&
                            next.kids[1].kind == Kind::kNumber;
      kids.push_back(std::move(value));
      kids.push_back(std::move(next));
      value = Node(fraction ? Kind::kAdd : Kind::kMultiply, std::move(kids));
    } else {
      return value;
    }
  }
}

MathNode Parser::Signed() {
  const Deeper deeper(&depth_);
  std::vector<MathNode> kids;
  if (TakeSign("+")) return Signed();
  if (TakeSign("-")) {
    kids.push_back(Product());
    return Node(Kind::kNegate, std::move(kids));
  }
  if (TakeCommand("pm") || TakeCommand("mp")) {
    kids.push_back(Product());
    return Node(Kind::kPlusMinus, std::move(kids));
  }
  return Postfix();
}

MathNode Parser::Postfix() {
  MathNode value = Atom();
  while (true) {
    std::vector<MathNode> kids;
    if (TakeSign("^")) {
      kids.push_back(std::move(value));
      kids.push_back(Argument());
      value = Node(Kind::kPower, std::move(kids));
    } else if (IsSign("_")) {
      ++at_;
      MathNode index = Argument();
      if (value.kind == Kind::kSymbol) {
        value.text += "_" + (index.kind == Kind::kNumber
                                 ? std::to_string(static_cast<long long>(index.value.top))
                                 : index.text);
        continue;
      }
      kids.push_back(std::move(value));
      kids.push_back(std::move(index));
      value = Node(Kind::kSubscript, std::move(kids));
    } else if (TakeSign("!")) {
      kids.push_back(std::move(value));
      value = Node(Kind::kFunction, std::move(kids), "factorial");
    } else if (TakeSign("%")) {
      kids.push_back(std::move(value));
      value = Node(Kind::kPercent, std::move(kids));
    } else if (TakeSign("'")) {
      if (value.kind == Kind::kSymbol) value.text += "'";
    } else {
      return value;
    }
  }
}

MathNode Parser::Atom() {
  const Deeper deeper(&depth_);
  const MathToken token = Here();
  switch (token.kind) {
    case TokenKind::kNumber:
      ++at_;
      return Number(token.text);
    case TokenKind::kLetter:
      ++at_;
      if (token.text == "e" || token.text == "i") return Node(Kind::kConstant, {}, token.text);
      return Node(Kind::kSymbol, {}, token.text);
    case TokenKind::kWord:
      return WordAtom(token.text);
    case TokenKind::kCommand:
      return CommandAtom();
    case TokenKind::kSign:
      if (token.text == "(" || token.text == "[") return Bracketed();
      if (token.text == "{") return Braced();
      if (token.text == "|") return Absolute();
      throw NoFormula();
    default:
      throw NoFormula();
  }
}

MathNode Parser::WordAtom(const std::string& word) {
  ++at_;
  if (word == "pi") return Node(Kind::kConstant, {}, "pi");
  if (word == "inf" || word == "infinity" || word == "oo") return Node(Kind::kConstant, {}, "inf");
  if (word == "sqrt") return Root();
  if (IsOneOf(word, kFunctions)) return Function(word);
  throw NoFormula();
}

MathNode Parser::CommandAtom() {
  const std::string name = Here().text;
  ++at_;
  if (name == "frac" || name == "binom" || name == "dbinom") {
    std::vector<MathNode> kids;
    kids.push_back(Argument());
    kids.push_back(Argument());
    if (name == "frac") return Node(Kind::kDivide, std::move(kids));
    return Node(Kind::kFunction, std::move(kids), "binom");
  }
  if (name == "sqrt") return Root();
  if (name == "pi") return Node(Kind::kConstant, {}, "pi");
  if (name == "infty") return Node(Kind::kConstant, {}, "inf");
  if (name == "emptyset" || name == "varnothing") return Node(Kind::kList, {}, "{}");
  if (name == "boxed" || name == "overline" || name == "vec" || name == "hat" || name == "mathbb" ||
      name == "bar") {
    return Argument();
  }
  if (name == "{") {
    std::vector<MathNode> items;
    if (TakeCommand("}")) return Node(Kind::kList, {}, "{}");
    do {
      items.push_back(Relation());
      Units();
    } while (Separator());
    if (!TakeCommand("}")) throw NoFormula();
    return Node(Kind::kList, std::move(items), "{}");
  }
  if (name == "begin") return Matrix();
  if (name == "langle") {
    std::vector<MathNode> items;
    do {
      items.push_back(Relation());
    } while (Separator());
    if (!TakeCommand("rangle")) throw NoFormula();
    return Node(Kind::kList, std::move(items), "()");
  }
  if (name == "lfloor" || name == "lceil") {
    std::vector<MathNode> kids;
    kids.push_back(Sum());
    if (!TakeCommand(name == "lfloor" ? "rfloor" : "rceil")) throw NoFormula();
    return Node(Kind::kFunction, std::move(kids), name == "lfloor" ? "floor" : "ceil");
  }
  if (IsOneOf(name, kFunctions)) return Function(name);
  static constexpr std::string_view kGreek[] = {
      "alpha", "beta", "gamma", "delta",  "theta",   "lambda", "mu",  "phi",   "omega", "rho",
      "sigma", "tau",  "ell",   "varphi", "epsilon", "psi",    "eta", "Delta", "Omega"};
  if (IsOneOf(name, kGreek)) return Node(Kind::kSymbol, {}, "\\" + name);
  throw NoFormula();
}

/// "{...}" as one thing, else one token: \frac12, x^2.
MathNode Parser::Argument() {
  const Deeper deeper(&depth_);
  if (IsSign("{")) return Braced();
  if (Here().kind == TokenKind::kNumber && Here().text.size() > 1 &&
      Here().text.find('.') == std::string::npos) {
    // \frac12: only the first digit belongs here.
    const std::string digits = Here().text;
    tokens_[at_].text = digits.substr(1);
    return Number(digits.substr(0, 1));
  }
  if (IsSign("-")) {
    ++at_;
    std::vector<MathNode> kids;
    kids.push_back(Atom());
    return Node(Kind::kNegate, std::move(kids));
  }
  return Atom();
}

MathNode Parser::Braced() {
  ++at_;
  const int bars = bars_;
  bars_ = 0;
  std::vector<MathNode> items;
  if (TakeSign("}")) throw NoFormula();
  do {
    items.push_back(Relation());
    Units();
  } while (Separator());
  if (!TakeSign("}")) throw NoFormula();
  bars_ = bars;
  if (items.size() == 1) return std::move(items[0]);
  return Node(Kind::kList, std::move(items), "{}");  // a set in plain braces
}

MathNode Parser::Bracketed() {
  const char open = Here().text[0];
  ++at_;
  const int bars = bars_;
  bars_ = 0;
  std::vector<MathNode> items;
  do {
    items.push_back(Relation());
    Units();
  } while (TakeSign(",") || TakeSign(";"));
  bars_ = bars;
  const char close = IsSign(")") ? ')' : IsSign("]") ? ']' : '\0';
  if (close == 0) throw NoFormula();
  ++at_;
  const bool group = items.size() == 1 && ((open == '(') == (close == ')'));
  if (group) return std::move(items[0]);
  return Node(Kind::kList, std::move(items), std::string(1, open) + close);
}

MathNode Parser::Absolute() {
  ++at_;
  ++bars_;
  std::vector<MathNode> kids;
  kids.push_back(Sum());
  --bars_;
  if (!TakeSign("|")) throw NoFormula();
  return Node(Kind::kFunction, std::move(kids), "abs");
}

MathNode Parser::Root() {
  std::vector<MathNode> kids;
  MathNode degree = Number("2");
  if (TakeSign("[")) {
    degree = Sum();
    if (!TakeSign("]")) throw NoFormula();
  }
  kids.push_back(Argument());
  kids.push_back(std::move(degree));
  return Node(Kind::kFunction, std::move(kids), "root");
}

MathNode Parser::Function(const std::string& name) {
  std::vector<MathNode> kids;
  std::optional<MathNode> base, power;
  if (TakeSign("_")) base = Argument();
  if (TakeSign("^")) power = Argument();
  if (IsSign("(")) {
    MathNode inner = Bracketed();
    if (inner.kind == Kind::kList) {
      kids = std::move(inner.kids);
    } else {
      kids.push_back(std::move(inner));
    }
  } else {
    kids.push_back(Product());
  }
  const bool many = name == "min" || name == "max" || name == "gcd" || name == "lcm";
  if (!many && kids.size() != 1) throw NoFormula();
  if (name == "log" && base) kids.push_back(std::move(*base));
  MathNode call = Node(Kind::kFunction, std::move(kids), name);
  if (!power) return call;
  std::vector<MathNode> parts;
  parts.push_back(std::move(call));
  parts.push_back(std::move(*power));
  return Node(Kind::kPower, std::move(parts));
}

MathNode Parser::Matrix() {
  std::string name;
  if (!TakeSign("{")) throw NoFormula();
  while (!AtEnd() && !IsSign("}")) name += tokens_[at_++].text;
  if (!TakeSign("}") || !IsOneOf(name, kMatrices)) throw NoFormula();
  if (name == "array" && TakeSign("{")) {
    while (!AtEnd() && !TakeSign("}")) ++at_;
  }
  std::vector<MathNode> rows, row;
  while (!Is(TokenKind::kCommand, "end")) {
    if (AtEnd()) throw NoFormula();
    row.push_back(Relation());
    if (TakeSign("&")) continue;
    rows.push_back(Node(Kind::kList, std::move(row), "row"));
    row.clear();
    TakeCommand("\\");
  }
  if (!row.empty() || rows.empty()) throw NoFormula();
  ++at_;
  if (!TakeSign("{")) throw NoFormula();
  while (!AtEnd() && !TakeSign("}")) ++at_;
  return Node(Kind::kMatrix, std::move(rows));
}

}  // namespace

std::optional<MathNode> ParseMath(std::string_view text) {
  if (text.size() > kMaxMathText || Trim(text).empty()) return std::nullopt;
  try {
    return Parser(MathTokens(text)).Whole();
  } catch (const NoFormula&) {
    return std::nullopt;
  }
}

std::string NormalText(std::string_view text) {
  std::string normal;
  for (const MathToken& token : MathTokens(text.substr(0, kMaxMathText))) {
    for (const char c : token.text) {
      if (IsSpace(c)) continue;
      normal += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  while (!normal.empty() &&
         std::string_view(".,;:").find(normal.back()) != std::string_view::npos) {
    normal.pop_back();
  }
  if (normal.size() > 2 && normal.front() == '(' && normal.back() == ')') {
    normal = normal.substr(1, normal.size() - 2);
  }
  return normal;
}

}  // namespace temper::reward
