#pragma once
// The functions behind the rules' names; docs/rewards.md says what each does.
#include "reward/rules.h"

namespace temper::reward {

// reward/answer_rules.cc: does the completion say the answer?
std::optional<double> Accuracy(const RuleInput& input);
std::optional<double> Boxed(const RuleInput& input);
std::optional<double> Exact(const RuleInput& input);
std::optional<double> Gsm8k(const RuleInput& input);
std::optional<double> LastNumberRule(const RuleInput& input);
std::optional<double> LcsRatio(const RuleInput& input);
std::optional<double> MultipleChoice(const RuleInput& input);

// reward/countdown.cc
std::optional<double> Countdown(const RuleInput& input);

// reward/format_rules.cc: does it have the wanted form?
std::optional<double> JsonRule(const RuleInput& input);
std::optional<double> Regex(const RuleInput& input);
std::optional<double> Tags(const RuleInput& input);
std::optional<double> ThinkFormat(const RuleInput& input);

// reward/style_rules.cc: language and length
std::optional<double> CosineScaled(const RuleInput& input);
std::optional<double> Language(const RuleInput& input);
std::optional<double> RepetitionPenalty(const RuleInput& input);
std::optional<double> SoftOverlong(const RuleInput& input);

}  // namespace temper::reward
