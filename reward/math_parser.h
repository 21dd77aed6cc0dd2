#pragma once
// The grammar of answers: a recursive descent over tokens; private to math_parse.cc and
// math_atoms.cc.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "reward/math_parse.h"
#include "reward/math_tokens.h"

namespace temper::reward {

/// What cannot be read; caught in ParseMath, never seen outside.
struct NoFormula {};

MathNode MakeMath(MathNode::Kind kind, std::vector<MathNode> kids = {}, std::string text = "");
/// Digits with at most one point. NoFormula for more than 34.
MathNode MathNumber(const std::string& digits);
/// sin, min, gcd, ...
bool IsMathFunction(const std::string& word);

/// Is `word` in the list?
template <typename List>
bool IsOneOf(const std::string& word, const List& list) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

/// Throws NoFormula where the tokens are none, and past 40 levels or 800 tokens.
class MathParser {
 public:
  explicit MathParser(std::vector<MathToken> tokens) : tokens_(std::move(tokens)) {}

  /// All of it: a relation, or a list of them.
  MathNode Whole();

 private:
  using TokenKind = MathToken::Kind;
  static constexpr int kMaxDepth = 40;
  static constexpr std::size_t kMaxTokens = 800;

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

  bool Separator();
  /// "5 cm", "5\text{ square meters}", "5 meters per second": a quantity's unit says nothing.
  void Units();

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

}  // namespace temper::reward
