#pragma once
// Answer checks in C++: `rules.NAME(completion, answer)` in a script, {"rule": NAME} in a config.
#include <optional>
#include <string_view>
#include <vector>

namespace temper::reward {

struct Rule {
  const char* name;
  /// A number in [0, 1]; none = not applicable. Any bytes are allowed.
  std::optional<double> (*score)(std::string_view completion, std::string_view answer);
};

/// exact        completion and answer are equal but for white space around them
/// last_number  the last number in the completion is the answer's number; not applicable if the
/// answer is none boxed        the content of the last \boxed{...} equals the answer as text or
/// number accuracy     the same for the last <answer>...</answer>, else \boxed{...}, else what
/// follows the last `####`,
///              else the last number
/// lcs_ratio    2 * (longest common subsequence in bytes) / (both lengths); 1 for two empty texts
const std::vector<Rule>& Rules();

/// Null if there is none of that name.
const Rule* FindRule(std::string_view name);

}  // namespace temper::reward
