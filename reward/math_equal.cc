#include "reward/math_equal.h"

#include <algorithm>
#include <cmath>

#include "reward/extract.h"
#include "reward/math_value.h"

namespace temper::reward {
namespace {

using Kind = MathNode::Kind;
using Complex = std::complex<double>;

constexpr std::size_t kMaxUnordered = 64;  // items compared in any order

class Comparison {
 public:
  explicit Comparison(int decimals) : scale_(std::pow(10.0, decimals)) {}

  bool Same(const MathNode& a, const MathNode& b) const;

 private:
  bool SameScalar(const MathNode& a, const MathNode& b) const;
  bool SameInOrder(const std::vector<MathNode>& a, const std::vector<MathNode>& b) const;
  bool SameInAnyOrder(const std::vector<MathNode>& a, const std::vector<MathNode>& b) const;
  bool SameLists(const MathNode& a, const MathNode& b) const;
  bool SameRelations(const MathNode& a, const MathNode& b) const;
  bool RoundAlike(double a, double b) const {
    return std::round(a * scale_) == std::round(b * scale_);
  }

  double scale_;
};

bool IsList(const MathNode& node) { return node.kind == Kind::kList; }

/// Sets and enumerations without brackets have no order.
bool IsSet(const MathNode& node) {
  return IsList(node) && (node.text.empty() || node.text == "{}");
}

bool Close(Complex a, Complex b) {
  const double size = std::max({1.0, std::abs(a), std::abs(b)});
  return std::abs(a - b) <= 1e-9 * size;
}

bool IsEquation(const MathNode& node) { return node.kind == Kind::kRelation && node.text == "="; }

/// "x" or "f(x)": what an answer may be called.
bool IsName(const MathNode& node) {
  if (node.kind == Kind::kSymbol) return true;
  return node.kind == Kind::kMultiply && node.kids[0].kind == Kind::kSymbol &&
         node.kids[1].kind == Kind::kSymbol;
}

/// With every plus-minus as plus or as minus.
MathNode WithSign(const MathNode& node, bool plus) {
  MathNode copy = node;
  for (MathNode& kid : copy.kids) kid = WithSign(kid, plus);
  if (copy.kind != Kind::kPlusMinus) return copy;
  MathNode last = std::move(copy.kids.back());
  if (!plus) {
    MathNode negative;
    negative.kind = Kind::kNegate;
    negative.kids.push_back(std::move(last));
    last = std::move(negative);
  }
  if (copy.kids.size() == 1) return last;
  copy.kind = Kind::kAdd;
  copy.kids.back() = std::move(last);
  return copy;
}

bool HasPlusMinus(const MathNode& node) {
  return node.kind == Kind::kPlusMinus ||
         std::any_of(node.kids.begin(), node.kids.end(), HasPlusMinus);
}

MathNode Interval(const MathNode* low, const MathNode* high, char open, char close) {
  MathNode infinity;
  infinity.kind = Kind::kConstant;
  infinity.text = "inf";
  MathNode negative;
  negative.kind = Kind::kNegate;
  negative.kids.push_back(infinity);
  MathNode interval;
  interval.kind = Kind::kList;
  interval.text = std::string(1, low == nullptr ? '(' : open) + (high == nullptr ? ')' : close);
  interval.kids.push_back(low == nullptr ? std::move(negative) : *low);
  interval.kids.push_back(high == nullptr ? std::move(infinity) : *high);
  return interval;
}

/// "x > 5", "2 <= x < 3", "x \in [1, 2]" as an interval; others as they are.
MathNode AsSet(const MathNode& node) {
  if (node.kind != Kind::kRelation) return node;
  const auto& kids = node.kids;
  const std::string& signs = node.text;
  if (signs == "e") return kids[1];
  const auto is_below = [](char sign) { return sign == '<' || sign == 'l'; };
  const auto is_above = [](char sign) { return sign == '>' || sign == 'g'; };
  const auto bracket = [](char sign, bool low) {
    const bool closed = sign == 'l' || sign == 'g';
    return low ? (closed ? '[' : '(') : (closed ? ']' : ')');
  };
  if (signs.size() == 1 && (is_below(signs[0]) || is_above(signs[0]))) {
    const bool named_left = IsName(kids[0]);
    if (!named_left && !IsName(kids[1])) return node;
    const MathNode* const bound = named_left ? &kids[1] : &kids[0];
    if (named_left == is_above(signs[0])) {
      return Interval(bound, nullptr, bracket(signs[0], true), ')');
    }
    return Interval(nullptr, bound, '(', bracket(signs[0], false));
  }
  if (signs.size() == 2 && IsName(kids[1])) {
    if (is_below(signs[0]) && is_below(signs[1])) {
      return Interval(&kids[0], &kids[2], bracket(signs[0], true), bracket(signs[1], false));
    }
    if (is_above(signs[0]) && is_above(signs[1])) {
      return Interval(&kids[2], &kids[0], bracket(signs[1], true), bracket(signs[0], false));
    }
  }
  return node;
}

/// A list of one is that one; an enumeration of equations the list of what they say.
const MathNode& Unwrap(const MathNode& node) {
  if (IsSet(node) && node.kids.size() == 1) return Unwrap(node.kids[0]);
  return node;
}

bool Comparison::SameScalar(const MathNode& a, const MathNode& b) const {
  const int sign_a = InfinitySign(a), sign_b = InfinitySign(b);
  if (sign_a != 0 || sign_b != 0) return sign_a == sign_b;
  const auto exact_a = ExactValue(a), exact_b = ExactValue(b);
  const bool decimal = HasDecimal(a) || HasDecimal(b);
  if (exact_a && exact_b) {
    return *exact_a == *exact_b || (decimal && RoundAlike(exact_a->Value(), exact_b->Value()));
  }
  const int trials = HasSymbol(a) || HasSymbol(b) ? 3 : 1;
  for (int trial = 0; trial < trials; ++trial) {
    const auto x = NumericValue(a, trial), y = NumericValue(b, trial);
    if (!x || !y) return false;
    const bool rounded = decimal && trials == 1 && RoundAlike(x->real(), y->real()) &&
                         RoundAlike(x->imag(), y->imag());
    if (!Close(*x, *y) && !rounded) return false;
  }
  return true;
}

bool Comparison::SameInOrder(const std::vector<MathNode>& a, const std::vector<MathNode>& b) const {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(),
                    [&](const auto& x, const auto& y) { return Same(x, y); });
}

bool Comparison::SameInAnyOrder(const std::vector<MathNode>& a,
                                const std::vector<MathNode>& b) const {
  if (a.size() > kMaxUnordered || b.size() > kMaxUnordered) return false;
  // Sets: what is there twice counts once.
  const auto inside = [&](const MathNode& item, const std::vector<MathNode>& list) {
    return std::any_of(list.begin(), list.end(), [&](const auto& x) { return Same(item, x); });
  };
  return std::all_of(a.begin(), a.end(), [&](const auto& x) { return inside(x, b); }) &&
         std::all_of(b.begin(), b.end(), [&](const auto& x) { return inside(x, a); });
}

bool Comparison::SameLists(const MathNode& a, const MathNode& b) const {
  if (IsSet(a) && IsSet(b)) return SameInAnyOrder(a.kids, b.kids);
  // An enumeration without brackets may stand for any list of that order.
  if (a.text != b.text && !a.text.empty() && !b.text.empty()) return false;
  return SameInOrder(a.kids, b.kids);
}

/// Two equations say the same if one is a multiple of the other.
bool Comparison::SameRelations(const MathNode& a, const MathNode& b) const {
  if (a.text != b.text || a.kids.size() != b.kids.size()) return false;
  if (SameInOrder(a.kids, b.kids)) return true;
  if (a.text != "=") return false;
  Complex factor = 0;
  for (int trial = 0; trial < 3; ++trial) {
    Complex side[2];
    for (int k = 0; k < 2; ++k) {
      const MathNode& node = k == 0 ? a : b;
      const auto left = NumericValue(node.kids[0], trial),
                 right = NumericValue(node.kids[1], trial);
      if (!left || !right) return false;
      side[k] = *left - *right;
    }
    if (std::abs(side[1]) < 1e-9) return false;
    const Complex ratio = side[0] / side[1];
    if (trial == 0) factor = ratio;
    if (std::abs(ratio) < 1e-9 || !Close(ratio, factor)) return false;
  }
  return true;
}

bool Comparison::Same(const MathNode& raw_a, const MathNode& raw_b) const {
  if (raw_a.kind == Kind::kRelation && raw_b.kind == Kind::kRelation &&
      SameRelations(raw_a, raw_b)) {
    return true;
  }
  const MathNode *a = &Unwrap(raw_a), *b = &Unwrap(raw_b);
  // "x = 5" answers "5".
  if (IsEquation(*a) && !IsEquation(*b) && IsName(a->kids[0])) return Same(a->kids[1], *b);
  if (IsEquation(*b) && !IsEquation(*a) && IsName(b->kids[0])) return Same(*a, b->kids[1]);
  if (a->kind == Kind::kRelation || b->kind == Kind::kRelation) {
    const MathNode set_a = AsSet(*a), set_b = AsSet(*b);
    if (set_a.kind == Kind::kRelation || set_b.kind == Kind::kRelation) return false;
    return Same(set_a, set_b);
  }
  if (HasPlusMinus(*a) || HasPlusMinus(*b)) {
    const auto expand = [](const MathNode& node) {
      if (!HasPlusMinus(node)) return IsSet(node) ? node.kids : std::vector<MathNode>{node};
      return std::vector<MathNode>{WithSign(node, true), WithSign(node, false)};
    };
    return SameInAnyOrder(expand(*a), expand(*b));
  }
  if (a->kind == Kind::kUnion || b->kind == Kind::kUnion) {
    return a->kind == b->kind && SameInAnyOrder(a->kids, b->kids);
  }
  if (IsList(*a) || IsList(*b)) return IsList(*a) && IsList(*b) && SameLists(*a, *b);
  if (a->kind == Kind::kMatrix || b->kind == Kind::kMatrix || a->kind == Kind::kSubscript ||
      b->kind == Kind::kSubscript) {
    return a->kind == b->kind && SameInOrder(a->kids, b->kids);
  }
  // "50%" answers "50" and "0.5" alike: questions ask for either.
  if ((a->kind == Kind::kPercent) != (b->kind == Kind::kPercent)) {
    const MathNode& percent = a->kind == Kind::kPercent ? *a : *b;
    const MathNode& other = a->kind == Kind::kPercent ? *b : *a;
    if (SameScalar(percent.kids[0], other)) return true;
  }
  return SameScalar(*a, *b);
}

}  // namespace

MathAnswer ReadAnswer(std::string_view text) {
  MathAnswer answer;
  answer.text = std::string(Trim(text));
  answer.normal = NormalText(answer.text);
  answer.formula = ParseMath(answer.text);
  return answer;
}

bool SameMath(const MathAnswer& found, const MathAnswer& wanted, int decimals) {
  if (found.text == wanted.text) return true;
  if (!found.formula || !wanted.formula) {
    return !found.normal.empty() && found.normal == wanted.normal;
  }
  return Comparison(decimals).Same(*found.formula, *wanted.formula);
}

}  // namespace temper::reward
