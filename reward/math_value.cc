#include "reward/math_value.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace temper::reward {
namespace {

using Kind = MathNode::Kind;
using Complex = std::complex<double>;
using Value = std::optional<Complex>;
using Exact = std::optional<Rational>;

Exact Whole(double x) {
  if (!(std::fabs(x) < 9e15)) return std::nullopt;
  return Rational{static_cast<__int128>(x), 1};
}

Exact ExactFunction(const MathNode& node) {
  const Exact first = ExactValue(node.kids[0]);
  if (!first) return std::nullopt;
  if (node.text == "abs") return Rational{first->top < 0 ? -first->top : first->top, first->bottom};
  if (node.text == "floor") return Whole(std::floor(first->Value()));
  if (node.text == "ceil") return Whole(std::ceil(first->Value()));
  if (node.text == "root") {
    const Exact degree = ExactValue(node.kids[1]);
    if (!degree || !degree->IsInteger() || degree->top > 64) return std::nullopt;
    return ExactRoot(*first, static_cast<int>(degree->top));
  }
  if (node.text == "factorial") {
    if (!first->IsInteger() || first->top < 0 || first->top > 30) return std::nullopt;
    Exact product = Rational{1, 1};
    for (__int128 k = 2; k <= first->top && product; ++k) product = Multiply(*product, {k, 1});
    return product;
  }
  if (node.text == "binom") {
    const Exact second = ExactValue(node.kids[1]);
    if (!second || !first->IsInteger() || !second->IsInteger() || second->top < 0 ||
        second->top > 200) {
      return std::nullopt;
    }
    Exact product = Rational{1, 1};
    for (__int128 k = 1; k <= second->top && product; ++k) {
      product = Multiply(*product, {first->top - k + 1, 1});
      if (product) product = Divide(*product, {k, 1});
    }
    return product;
  }
  return std::nullopt;
}

double SymbolValue(const std::string& name, int trial) {
  std::uint64_t hash =
      0xCBF29CE484222325u + static_cast<std::uint64_t>(trial) * 0x9E3779B97F4A7C15u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  hash ^= hash >> 29;
  hash *= 0xBF58476D1CE4E5B9u;
  return 0.5 + static_cast<double>(hash >> 11) * 0x1p-52;  // in [0.5, 2.5)
}

Value Finite(Complex x) {
  if (!std::isfinite(x.real()) || !std::isfinite(x.imag())) return std::nullopt;
  return x;
}

Value Root(Complex x, Complex degree) {
  if (degree == 0.0) return std::nullopt;
  const bool odd = degree.imag() == 0 && std::fmod(degree.real(), 2) == 1;
  if (odd && x.imag() == 0 && x.real() < 0) {  // the real one
    return Finite(-std::pow(-x.real(), 1.0 / degree.real()));
  }
  return Finite(std::pow(x, 1.0 / degree));
}

Value OfMany(const MathNode& node, int trial) {
  std::vector<double> values;
  for (const MathNode& kid : node.kids) {
    const Value value = NumericValue(kid, trial);
    if (!value || value->imag() != 0) return std::nullopt;
    values.push_back(value->real());
  }
  if (node.text == "min") return *std::min_element(values.begin(), values.end());
  if (node.text == "max") return *std::max_element(values.begin(), values.end());
  long long all = 0;
  for (const double x : values) {
    if (x != std::floor(x) || std::fabs(x) > 1e15 || x == 0) return std::nullopt;
    const auto whole = static_cast<long long>(std::fabs(x));
    if (all == 0) {
      all = whole;
    } else {
      const long long common = std::__gcd(all, whole);
      all = node.text == "gcd" ? common : all / common * whole;
    }
  }
  return Complex(static_cast<double>(all));
}

Value NumericFunction(const MathNode& node, int trial) {
  const std::string& name = node.text;
  if (name == "min" || name == "max" || name == "gcd" || name == "lcm") return OfMany(node, trial);
  const Value first = NumericValue(node.kids[0], trial);
  if (!first) return std::nullopt;
  const Complex x = *first;
  if (name == "root" || (name == "log" && node.kids.size() > 1)) {
    const Value second = NumericValue(node.kids[1], trial);
    if (!second) return std::nullopt;
    return name == "root" ? Root(x, *second) : Finite(std::log(x) / std::log(*second));
  }
  if (name == "abs") return Finite(std::abs(x));
  if (name == "sin") return Finite(std::sin(x));
  if (name == "cos") return Finite(std::cos(x));
  if (name == "tan") return Finite(std::tan(x));
  if (name == "cot") return Finite(1.0 / std::tan(x));
  if (name == "sec") return Finite(1.0 / std::cos(x));
  if (name == "csc") return Finite(1.0 / std::sin(x));
  if (name == "sinh") return Finite(std::sinh(x));
  if (name == "cosh") return Finite(std::cosh(x));
  if (name == "tanh") return Finite(std::tanh(x));
  if (name == "arcsin") return Finite(std::asin(x));
  if (name == "arccos") return Finite(std::acos(x));
  if (name == "arctan") return Finite(std::atan(x));
  if (name == "ln" || name == "log") return Finite(std::log(x));
  if (name == "lg") return Finite(std::log10(x));
  if (name == "exp") return Finite(std::exp(x));
  if (x.imag() != 0) return std::nullopt;
  if (name == "floor") return Complex(std::floor(x.real()));
  if (name == "ceil") return Complex(std::ceil(x.real()));
  if (name == "factorial") return Finite(std::tgamma(x.real() + 1));
  if (name == "binom") {
    const Value k = NumericValue(node.kids[1], trial);
    if (!k || k->imag() != 0) return std::nullopt;
    return Finite(std::tgamma(x.real() + 1) /
                  (std::tgamma(k->real() + 1) * std::tgamma(x.real() - k->real() + 1)));
  }
  return std::nullopt;
}

Value Sum(const MathNode& node, int trial) {
  Complex sum = 0;
  for (const MathNode& kid : node.kids) {
    const Value value = NumericValue(kid, trial);
    if (!value) return std::nullopt;
    sum += *value;
  }
  return Finite(sum);
}

Value OfTwo(const MathNode& node, int trial) {
  const Value a = NumericValue(node.kids[0], trial), b = NumericValue(node.kids[1], trial);
  if (!a || !b) return std::nullopt;
  switch (node.kind) {
    case Kind::kMultiply:
      return Finite(*a * *b);
    case Kind::kDivide:
      return *b == 0.0 ? std::nullopt : Finite(*a / *b);
    default:
      if (a->imag() == 0 && b->imag() == 0 &&
          (a->real() >= 0 || b->real() == std::floor(b->real()))) {
        return Finite(std::pow(a->real(), b->real()));
      }
      return Finite(std::pow(*a, *b));
  }
}

Value Constant(const std::string& name) {
  if (name == "pi") return Complex(std::numbers::pi);
  if (name == "e") return Complex(std::numbers::e);
  if (name == "i") return Complex(0, 1);
  return std::nullopt;
}

}  // namespace

std::optional<Rational> ExactValue(const MathNode& node) {
  switch (node.kind) {
    case Kind::kNumber:
      return node.value;
    case Kind::kAdd: {
      Exact sum = Rational{};
      for (const MathNode& kid : node.kids) {
        const Exact value = ExactValue(kid);
        sum = sum && value ? Add(*sum, *value) : std::nullopt;
      }
      return sum;
    }
    case Kind::kNegate: {
      const Exact value = ExactValue(node.kids[0]);
      return value ? Exact(Rational{-value->top, value->bottom}) : std::nullopt;
    }
    case Kind::kPercent: {
      const Exact value = ExactValue(node.kids[0]);
      return value ? Divide(*value, {100, 1}) : std::nullopt;
    }
    case Kind::kMultiply:
    case Kind::kDivide:
    case Kind::kPower: {
      const Exact a = ExactValue(node.kids[0]);
      const Exact b = a ? ExactValue(node.kids[1]) : std::nullopt;
      if (!b) return std::nullopt;
      if (node.kind == Kind::kMultiply) return Multiply(*a, *b);
      if (node.kind == Kind::kDivide) return Divide(*a, *b);
      if (b->IsInteger()) return Power(*a, *b);
      if (b->bottom > 64) return std::nullopt;
      const Exact root = ExactRoot(*a, static_cast<int>(b->bottom));
      return root ? Power(*root, {b->top, 1}) : std::nullopt;
    }
    case Kind::kFunction:
      return ExactFunction(node);
    default:
      return std::nullopt;
  }
}

std::optional<std::complex<double>> NumericValue(const MathNode& node, int trial) {
  switch (node.kind) {
    case Kind::kNumber:
      return Complex(node.value.Value());
    case Kind::kConstant:
      return Constant(node.text);
    case Kind::kSymbol:
      return Complex(SymbolValue(node.text, trial));
    case Kind::kAdd:
      return Sum(node, trial);
    case Kind::kMultiply:
    case Kind::kDivide:
    case Kind::kPower:
      return OfTwo(node, trial);
    case Kind::kNegate:
    case Kind::kPercent: {
      const Value value = NumericValue(node.kids[0], trial);
      if (!value) return std::nullopt;
      return node.kind == Kind::kNegate ? -*value : *value / 100.0;
    }
    case Kind::kFunction:
      return NumericFunction(node, trial);
    default:
      return std::nullopt;
  }
}

bool HasSymbol(const MathNode& node) {
  return node.kind == Kind::kSymbol || std::any_of(node.kids.begin(), node.kids.end(), HasSymbol);
}

bool HasDecimal(const MathNode& node) {
  return node.decimal || std::any_of(node.kids.begin(), node.kids.end(), HasDecimal);
}

int InfinitySign(const MathNode& node) {
  if (node.kind == Kind::kConstant && node.text == "inf") return 1;
  return node.kind == Kind::kNegate ? -InfinitySign(node.kids[0]) : 0;
}

}  // namespace temper::reward
