#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "reward/extract.h"
#include "reward/rational.h"
#include "reward/rule_functions.h"

namespace temper::reward {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxExpression = 1000;

/// sums of products of numbers and brackets; its value is exact or none.
class Expression {
 public:
  Expression(std::string_view text, std::vector<std::int64_t>* used) : text_(text), used_(used) {}

  std::optional<Rational> Value() {
    const auto value = Sum();
    Spaces();
    return at_ == text_.size() ? value : std::nullopt;
  }

 private:
  void Spaces() {
    while (at_ < text_.size() && IsSpace(text_[at_])) ++at_;
  }
  bool Take(std::string_view sign) {
    Spaces();
    if (text_.compare(at_, sign.size(), sign) != 0) return false;
    at_ += sign.size();
    return true;
  }
  std::optional<Rational> Sum() {
    std::optional<Rational> value = Product();
    while (value) {
      if (Take("+")) {
        const auto next = Product();
        value = next ? Add(*value, *next) : std::nullopt;
      } else if (Take("-") || Take("\u2212")) {
        const auto next = Product();
        value = next ? Subtract(*value, *next) : std::nullopt;
      } else {
        break;
      }
    }
    return value;
  }
  std::optional<Rational> Product() {
    std::optional<Rational> value = Atom();
    while (value) {
      if (Take("*") || Take("\u00d7") || Take("\\times") || Take("\\cdot")) {
        const auto next = Atom();
        value = next ? Multiply(*value, *next) : std::nullopt;
      } else if (Take("/") || Take("\u00f7") || Take("\\div")) {
        const auto next = Atom();
        value = next ? Divide(*value, *next) : std::nullopt;
      } else {
        break;
      }
    }
    return value;
  }
  std::optional<Rational> Atom() {
    if (Take("(")) {
      if (++depth_ > kMaxDepth) return std::nullopt;
      const auto value = Sum();
      --depth_;
      return value && Take(")") ? value : std::nullopt;
    }
    if (Take("-")) {  // a sign: -2 + 5
      if (++depth_ > kMaxDepth) return std::nullopt;
      const auto value = Atom();
      --depth_;
      return value ? Subtract({0, 1}, *value) : std::nullopt;
    }
    Spaces();
    std::int64_t number = 0;
    const std::size_t begin = at_;
    while (at_ < text_.size() && IsDigit(text_[at_])) {
      if (at_ - begin > 15) return std::nullopt;
      number = number * 10 + (text_[at_++] - '0');
    }
    if (at_ == begin) return std::nullopt;
    used_->push_back(number);
    return Rational{number, 1};
  }

  std::string_view text_;
  std::vector<std::int64_t>* used_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

std::vector<std::int64_t> Numbers(const RuleInput& input) {
  std::vector<std::int64_t> numbers;
  if (input.options == nullptr || !input.options->contains("numbers")) {
    throw std::invalid_argument("option numbers is required");
  }
  const Json& list = (*input.options)["numbers"];
  if (!list.is_array()) throw std::invalid_argument("option numbers: must be a list of integers");
  for (const Json& number : list) {
    if (!number.is_number_integer()) {
      throw std::invalid_argument("option numbers: must be a list of integers");
    }
    numbers.push_back(number.get<std::int64_t>());
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

/// The marked answer, else the last line that has a digit; without "= 24" at its end.
std::string_view Formula(std::string_view completion) {
  std::string_view text;
  if (const auto marked = MarkedAnswer(completion)) {
    text = *marked;
  } else {
    std::size_t end = completion.find_last_of("0123456789");
    if (end == std::string_view::npos) return {};
    end = std::min(completion.find('\n', end), completion.size());
    const std::size_t begin = completion.substr(0, end).rfind('\n');
    text = completion.substr(begin == std::string_view::npos ? 0 : begin + 1, end);
    text = text.substr(0, end - (begin == std::string_view::npos ? 0 : begin + 1));
  }
  return Trim(text.substr(0, text.find('=')));
}

}  // namespace

std::optional<double> Countdown(const RuleInput& input) {
  const std::vector<std::int64_t> numbers = Numbers(input);
  const bool all = FlagOption(input, "use_all", true);
  std::optional<std::int64_t> target;
  if (input.options->contains("target")) {
    target = IntegerOption(input, "target", 0, INT64_MIN / 2, INT64_MAX / 2);
  } else if (input.answer) {
    const auto value = AsNumber(*input.answer);
    if (value && *value == static_cast<double>(static_cast<std::int64_t>(*value))) {
      target = static_cast<std::int64_t>(*value);
    }
  }
  if (!target) return std::nullopt;
  const std::string_view formula = Formula(input.completion);
  if (formula.empty() || formula.size() > kMaxExpression) return 0.0;
  std::vector<std::int64_t> used;
  const auto value = Expression(formula, &used).Value();
  if (!value || *value != Rational{*target, 1}) return 0.0;
  std::sort(used.begin(), used.end());
  const bool allowed =
      all ? used == numbers
          : std::includes(numbers.begin(), numbers.end(), used.begin(), used.end());
  return allowed ? 1.0 : 0.0;
}

}  // namespace temper::reward
