#include "reward/rules.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "reward/rule_functions.h"

namespace temper::reward {
namespace {

[[noreturn]] void Refuse(const char* name, const Json& value, const std::string& rule) {
  throw std::invalid_argument(std::string("option ") + name + ": " + configs::Brief(value) +
                              " must be " + rule);
}

const Json* Option(const RuleInput& input, const char* name) {
  if (input.options == nullptr) return nullptr;
  const auto found = input.options->find(name);
  return found == input.options->end() || found->is_null() ? nullptr : &*found;
}

std::string Known(const Rule& rule) {
  std::string names;
  for (const char* name : rule.options) names += (names.empty() ? "" : ", ") + std::string(name);
  return names.empty() ? "it has none" : "known are " + names;
}

void CheckNames(const Rule& rule, const Json& options) {
  if (!options.is_object()) throw std::invalid_argument("options must be an object");
  for (const auto& [key, value] : options.items()) {
    bool known = false;
    for (const char* name : rule.options) known = known || key == name;
    if (!known) {
      throw std::invalid_argument("unknown option " + configs::Quote(key) + "; " + Known(rule));
    }
  }
}

}  // namespace

const std::vector<Rule>& Rules() {
  static const std::vector<Rule> kRules = {
      {"accuracy", true, {}, Accuracy},
      {"boxed", true, {}, Boxed},
      {"cosine_scaled",
       true,
       {"max_length", "length", "min_wrong", "max_wrong", "min_correct", "max_correct", "correct"},
       CosineScaled},
      {"countdown", false, {"numbers", "target", "use_all"}, Countdown},
      {"exact", true, {"ignore_case"}, Exact},
      {"gsm8k", true, {"method"}, Gsm8k},
      {"json", false, {"schema", "whole"}, JsonRule},
      {"language", false, {"language", "min"}, Language},
      {"last_number", true, {}, LastNumberRule},
      {"lcs_ratio", true, {}, LcsRatio},
      {"multiple_choice", true, {"choices"}, MultipleChoice},
      {"regex", false, {"pattern", "full", "group"}, Regex},
      {"repetition_penalty", false, {"ngram_size", "max_penalty"}, RepetitionPenalty},
      {"soft_overlong", false, {"max_length", "buffer", "length"}, SoftOverlong},
      {"tags", false, {"tags", "order"}, Tags},
      {"think_format", false, {"answer", "prefilled"}, ThinkFormat},
  };
  return kRules;
}

const Rule* FindRule(std::string_view name) {
  for (const Rule& rule : Rules()) {
    if (name == rule.name) return &rule;
  }
  return nullptr;
}

std::string RuleNames() {
  std::string names;
  for (const Rule& rule : Rules()) names += (names.empty() ? "" : ", ") + std::string(rule.name);
  return names;
}

std::optional<double> RunRule(const Rule& rule, const RuleInput& input) {
  if (input.options != nullptr && !input.options->empty()) CheckNames(rule, *input.options);
  if (rule.needs_answer && !input.answer) return std::nullopt;
  return rule.score(input);
}

std::optional<double> RunRule(const Rule& rule, std::string_view completion,
                              std::string_view answer) {
  RuleInput input;
  input.completion = completion;
  input.answer = answer;
  return RunRule(rule, input);
}

void CheckRuleOptions(const Rule& rule, const Json& options) {
  CheckNames(rule, options);
  RuleInput input;
  input.answer = "";
  input.options = &options;
  rule.score(input);
}

std::int64_t RuleCost(const Rule& rule, const RuleInput& input) {
  const auto completion = static_cast<std::int64_t>(input.completion.size());
  const auto answer = static_cast<std::int64_t>(input.answer ? input.answer->size() : 0);
  const std::int64_t linear = 10 + (completion + answer) / 16;
  // Words of bits times bytes, a word step in less than a nanosecond.
  if (rule.score == LcsRatio) return linear + (completion / 64 + 1) * answer / 8;
  return linear;
}

double NumberOption(const RuleInput& input, const char* name, double otherwise, double lo,
                    double hi) {
  const Json* const value = Option(input, name);
  if (value == nullptr) return otherwise;
  const double x = value->is_number() ? value->get<double>() : std::nan("");
  if (!(x >= lo && x <= hi)) {
    Refuse(name, *value, "a number from " + Json(lo).dump() + " to " + Json(hi).dump());
  }
  return x;
}

std::int64_t IntegerOption(const RuleInput& input, const char* name,
                           std::optional<std::int64_t> otherwise, std::int64_t lo,
                           std::int64_t hi) {
  const Json* const value = Option(input, name);
  if (value == nullptr) {
    if (!otherwise) throw std::invalid_argument(std::string("option ") + name + " is required");
    return *otherwise;
  }
  const bool good = value->is_number_integer() && value->get<double>() >= static_cast<double>(lo) &&
                    value->get<double>() <= static_cast<double>(hi);
  if (!good) {
    Refuse(name, *value, "an integer from " + std::to_string(lo) + " to " + std::to_string(hi));
  }
  return value->get<std::int64_t>();
}

std::string TextOption(const RuleInput& input, const char* name, const std::string& otherwise) {
  const Json* const value = Option(input, name);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) Refuse(name, *value, "a string");
  return value->get<std::string>();
}

bool FlagOption(const RuleInput& input, const char* name, bool otherwise) {
  const Json* const value = Option(input, name);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) Refuse(name, *value, "true or false");
  return value->get<bool>();
}

}  // namespace temper::reward
