// What a formula is made of: numbers, letters, brackets, commands, functions, matrices.
#include "reward/math_parser.h"

namespace temper::reward {

using Kind = MathNode::Kind;

MathNode MathParser::Atom() {
  const Deeper deeper(&depth_);
  const MathToken token = Here();
  switch (token.kind) {
    case TokenKind::kNumber:
      ++at_;
      return MathNumber(token.text);
    case TokenKind::kLetter:
      ++at_;
      if (token.text == "e" || token.text == "i") return MakeMath(Kind::kConstant, {}, token.text);
      return MakeMath(Kind::kSymbol, {}, token.text);
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

MathNode MathParser::WordAtom(const std::string& word) {
  ++at_;
  if (word == "pi") return MakeMath(Kind::kConstant, {}, "pi");
  if (word == "inf" || word == "infinity" || word == "oo")
    return MakeMath(Kind::kConstant, {}, "inf");
  if (word == "sqrt") return Root();
  if (IsMathFunction(word)) return Function(word);
  throw NoFormula();
}

MathNode MathParser::CommandAtom() {
  const std::string name = Here().text;
  ++at_;
  if (name == "frac" || name == "binom" || name == "dbinom") {
    std::vector<MathNode> kids;
    kids.push_back(Argument());
    kids.push_back(Argument());
    if (name == "frac") return MakeMath(Kind::kDivide, std::move(kids));
    return MakeMath(Kind::kFunction, std::move(kids), "binom");
  }
  if (name == "sqrt") return Root();
  if (name == "pi") return MakeMath(Kind::kConstant, {}, "pi");
  if (name == "infty") return MakeMath(Kind::kConstant, {}, "inf");
  if (name == "emptyset" || name == "varnothing") return MakeMath(Kind::kList, {}, "{}");
  if (name == "boxed" || name == "overline" || name == "vec" || name == "hat" || name == "mathbb" ||
      name == "bar") {
    return Argument();
  }
  if (name == "{") {
    std::vector<MathNode> items;
    if (TakeCommand("}")) return MakeMath(Kind::kList, {}, "{}");
    do {
      items.push_back(Relation());
      Units();
    } while (Separator());
    if (!TakeCommand("}")) throw NoFormula();
    return MakeMath(Kind::kList, std::move(items), "{}");
  }
  if (name == "begin") return Matrix();
  if (name == "langle") {
    std::vector<MathNode> items;
    do {
      items.push_back(Relation());
    } while (Separator());
    if (!TakeCommand("rangle")) throw NoFormula();
    return MakeMath(Kind::kList, std::move(items), "()");
  }
  if (name == "lfloor" || name == "lceil") {
    std::vector<MathNode> kids;
    kids.push_back(Sum());
    if (!TakeCommand(name == "lfloor" ? "rfloor" : "rceil")) throw NoFormula();
    return MakeMath(Kind::kFunction, std::move(kids), name == "lfloor" ? "floor" : "ceil");
  }
  if (IsMathFunction(name)) return Function(name);
  static constexpr std::string_view kGreek[] = {
      "alpha", "beta", "gamma", "delta",  "theta",   "lambda", "mu",  "phi",   "omega", "rho",
      "sigma", "tau",  "ell",   "varphi", "epsilon", "psi",    "eta", "Delta", "Omega"};
  if (IsOneOf(name, kGreek)) return MakeMath(Kind::kSymbol, {}, "\\" + name);
  throw NoFormula();
}

/// "{...}" as one thing, else one token: \frac12, x^2.
MathNode MathParser::Argument() {
  const Deeper deeper(&depth_);
  if (IsSign("{")) return Braced();
  if (Here().kind == TokenKind::kNumber && Here().text.size() > 1 &&
      Here().text.find('.') == std::string::npos) {
    // \frac12: only the first digit belongs here.
    const std::string digits = Here().text;
    tokens_[at_].text = digits.substr(1);
    return MathNumber(digits.substr(0, 1));
  }
  if (IsSign("-")) {
    ++at_;
    std::vector<MathNode> kids;
    kids.push_back(Atom());
    return MakeMath(Kind::kNegate, std::move(kids));
  }
  return Atom();
}

MathNode MathParser::Braced() {
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
  return MakeMath(Kind::kList, std::move(items), "{}");  // a set in plain braces
}

MathNode MathParser::Bracketed() {
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
  return MakeMath(Kind::kList, std::move(items), std::string(1, open) + close);
}

MathNode MathParser::Absolute() {
  ++at_;
  ++bars_;
  std::vector<MathNode> kids;
  kids.push_back(Sum());
  --bars_;
  if (!TakeSign("|")) throw NoFormula();
  return MakeMath(Kind::kFunction, std::move(kids), "abs");
}

MathNode MathParser::Root() {
  std::vector<MathNode> kids;
  MathNode degree = MathNumber("2");
  if (TakeSign("[")) {
    degree = Sum();
    if (!TakeSign("]")) throw NoFormula();
  }
  kids.push_back(Argument());
  kids.push_back(std::move(degree));
  return MakeMath(Kind::kFunction, std::move(kids), "root");
}

MathNode MathParser::Function(const std::string& name) {
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
  MathNode call = MakeMath(Kind::kFunction, std::move(kids), name);
  if (!power) return call;
  std::vector<MathNode> parts;
  parts.push_back(std::move(call));
  parts.push_back(std::move(*power));
  return MakeMath(Kind::kPower, std::move(parts));
}

MathNode MathParser::Matrix() {
  static constexpr std::string_view kMatrices[] = {"pmatrix", "bmatrix",     "vmatrix", "matrix",
                                                   "Bmatrix", "smallmatrix", "array"};
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
    rows.push_back(MakeMath(Kind::kList, std::move(row), "row"));
    row.clear();
    TakeCommand("\\");
  }
  if (!row.empty() || rows.empty()) throw NoFormula();
  ++at_;
  if (!TakeSign("{")) throw NoFormula();
  while (!AtEnd() && !TakeSign("}")) ++at_;
  return MakeMath(Kind::kMatrix, std::move(rows));
}

}  // namespace temper::reward
