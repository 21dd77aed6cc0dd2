#include "reward/math_parse.h"

#include "reward/extract.h"
#include "reward/math_parser.h"

namespace temper::reward {

using Kind = MathNode::Kind;

MathNode MakeMath(Kind kind, std::vector<MathNode> kids, std::string text) {
  MathNode node;
  node.kind = kind;
  node.kids = std::move(kids);
  node.text = std::move(text);
  return node;
}

MathNode MathNumber(const std::string& digits) {
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

bool IsMathFunction(const std::string& word) {
  static constexpr std::string_view kFunctions[] = {
      "sin",    "cos",    "tan",  "cot",  "sec",  "csc", "log", "ln",  "exp", "lg", "arcsin",
      "arccos", "arctan", "sinh", "cosh", "tanh", "min", "max", "gcd", "lcm", "abs"};
  return IsOneOf(word, kFunctions);
}

MathNode MathParser::Whole() {
  if (tokens_.size() > kMaxTokens) throw NoFormula();
  std::vector<MathNode> items;
  do {
    if (AtEnd() && !items.empty()) break;  // "1, 2,"
    items.push_back(Relation());
    Units();
  } while (Separator());
  if (!AtEnd()) throw NoFormula();
  return items.size() == 1 ? std::move(items[0]) : MakeMath(Kind::kList, std::move(items));
}

bool MathParser::Separator() {
  if (TakeSign(",") || TakeSign(";")) {
    TakeWord("and");
    TakeWord("or");
    return true;
  }
  return TakeWord("or") || TakeWord("and");
}

void MathParser::Units() {
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

char MathParser::RelationSign() {
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

MathNode MathParser::Relation() {
  const Deeper deeper(&depth_);
  std::vector<MathNode> sides;
  sides.push_back(Union());
  std::string signs;
  while (const char sign = RelationSign()) {
    signs += sign;
    sides.push_back(Union());
  }
  if (signs.empty()) return std::move(sides[0]);
  return MakeMath(Kind::kRelation, std::move(sides), signs);
}

MathNode MathParser::Union() {
  std::vector<MathNode> parts;
  do {
    parts.push_back(Sum());
  } while (TakeCommand("cup") || TakeWord("cup"));
  return parts.size() == 1 ? std::move(parts[0]) : MakeMath(Kind::kUnion, std::move(parts));
}

MathNode MathParser::Sum() {
  const Deeper deeper(&depth_);
  std::vector<MathNode> terms;
  terms.push_back(Product());
  while (true) {
    if (TakeSign("+")) {
      terms.push_back(Product());
    } else if (TakeSign("-")) {
      std::vector<MathNode> kids;
      kids.push_back(Product());
      terms.push_back(MakeMath(Kind::kNegate, std::move(kids)));
    } else if (TakeCommand("pm") || TakeCommand("mp")) {
      MathNode left =
          terms.size() == 1 ? std::move(terms[0]) : MakeMath(Kind::kAdd, std::move(terms));
      terms.clear();
      std::vector<MathNode> kids;
      kids.push_back(std::move(left));
      kids.push_back(Product());
      terms.push_back(MakeMath(Kind::kPlusMinus, std::move(kids)));
    } else {
      break;
    }
  }
  return terms.size() == 1 ? std::move(terms[0]) : MakeMath(Kind::kAdd, std::move(terms));
}

bool MathParser::StartsFactor() const {
  const MathToken& token = Here();
  switch (token.kind) {
    case TokenKind::kNumber:
    case TokenKind::kLetter:
      return true;
    case TokenKind::kSign:
      return token.text == "(" || token.text == "{" || (token.text == "|" && bars_ == 0);
    case TokenKind::kWord:
      return token.text == "pi" || token.text == "sqrt" || IsMathFunction(token.text);
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

MathNode MathParser::Product() {
  const Deeper deeper(&depth_);
  MathNode value = Signed();
  while (true) {
    std::vector<MathNode> kids;
    if (TakeSign("*") || TakeCommand("cdot") || TakeCommand("times") || TakeCommand("ast")) {
      kids.push_back(std::move(value));
      kids.push_back(Signed());
      value = MakeMath(Kind::kMultiply, std::move(kids));
    } else if ((IsSign("/") && Here(1).kind != TokenKind::kText &&
                !(Here(1).kind == TokenKind::kWord && !IsMathFunction(Here(1).text) &&
                  Here(1).text != "pi" && Here(1).text != "sqrt")) ||
               Is(TokenKind::kCommand, "div")) {
      ++at_;
      kids.push_back(std::move(value));
      kids.push_back(Signed());
      value = MakeMath(Kind::kDivide, std::move(kids));
    } else if (StartsFactor()) {
      const bool whole = value.kind == Kind::kNumber && !value.decimal && value.value.IsInteger();
      const bool mixed = whole && Is(TokenKind::kCommand, "frac");
      if (whole && Here().kind == TokenKind::kNumber) {
        // "3 1/2" is a mixed number; other numbers side by side are no formula.
        if (!(Here(1).kind == TokenKind::kSign && Here(1).text == "/" &&
              Here(2).kind == TokenKind::kNumber)) {
          throw NoFormula();
        }
        MathNode top = MathNumber(Here().text), bottom = MathNumber(Here(2).text);
        at_ += 3;
        kids.push_back(std::move(value));
        std::vector<MathNode> parts;
        parts.push_back(std::move(top));
        parts.push_back(std::move(bottom));
        kids.push_back(MakeMath(Kind::kDivide, std::move(parts)));
        value = MakeMath(Kind::kAdd, std::move(kids));
        continue;
      }
      MathNode next = Postfix();
      const bool fraction = mixed && next.kind == Kind::kDivide &&
                            next.kids[0].kind == Kind::kNumber &&
                            next.kids[1].kind == Kind::kNumber;
      kids.push_back(std::move(value));
      kids.push_back(std::move(next));
      value = MakeMath(fraction ? Kind::kAdd : Kind::kMultiply, std::move(kids));
    } else {
      return value;
    }
  }
}

MathNode MathParser::Signed() {
  const Deeper deeper(&depth_);
  std::vector<MathNode> kids;
  if (TakeSign("+")) return Signed();
  if (TakeSign("-")) {
    kids.push_back(Product());
    return MakeMath(Kind::kNegate, std::move(kids));
  }
  if (TakeCommand("pm") || TakeCommand("mp")) {
    kids.push_back(Product());
    return MakeMath(Kind::kPlusMinus, std::move(kids));
  }
  return Postfix();
}

MathNode MathParser::Postfix() {
  MathNode value = Atom();
  while (true) {
    std::vector<MathNode> kids;
    if (TakeSign("^")) {
      kids.push_back(std::move(value));
      kids.push_back(Argument());
      value = MakeMath(Kind::kPower, std::move(kids));
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
      value = MakeMath(Kind::kSubscript, std::move(kids));
    } else if (TakeSign("!")) {
      kids.push_back(std::move(value));
      value = MakeMath(Kind::kFunction, std::move(kids), "factorial");
    } else if (TakeSign("%")) {
      kids.push_back(std::move(value));
      value = MakeMath(Kind::kPercent, std::move(kids));
    } else if (TakeSign("'")) {
      if (value.kind == Kind::kSymbol) value.text += "'";
    } else {
      return value;
    }
  }
}

std::optional<MathNode> ParseMath(std::string_view text) {
  if (text.size() > kMaxMathText || Trim(text).empty()) return std::nullopt;
  try {
    return MathParser(MathTokens(text)).Whole();
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
