#pragma once
// An answer as people and models write it, LaTeX or plain, read into a tree.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reward/rational.h"

namespace temper::reward {

struct MathNode {
  enum class Kind {
    kNumber,     // value; decimal: written with a point
    kConstant,   // text: pi, e, i, inf
    kSymbol,     // text
    kAdd,        // kids
    kMultiply,   // kids
    kDivide,     // two kids
    kPower,      // base, exponent
    kNegate,     // one kid
    kPlusMinus,  // two kids; one: a sign in front
    kFunction,   // text, kids
    kPercent,    // one kid
    kSubscript,  // number, base: 1011_2
    kList,       // text: the brackets "()", "[)", "{}", "" (bare)
    kMatrix,     // rows: kList nodes
    kRelation,   // text: = < > <= >= != in; kids one more than operators; ops in `text`, one char
                 // each
    kUnion,      // kids
    kText,       // text, normalised
  };
  Kind kind = Kind::kNumber;
  Rational value;
  bool decimal = false;
  std::string text;
  std::vector<MathNode> kids;
};

/// None for what is no formula (then it is a text); units at the end are dropped. Total: any bytes,
/// bounded depth.
std::optional<MathNode> ParseMath(std::string_view text);

/// Lower case, no spaces, LaTeX dress and outer punctuation: how answers in words are compared.
std::string NormalText(std::string_view text);

constexpr std::size_t kMaxMathText = 2000;

}  // namespace temper::reward
