#include "learner/core/rollout_arrays.h"

#include <algorithm>

namespace temper::learner {

std::string WhyNotExperts(std::span<const std::uint16_t> experts, std::size_t tokens,
                          const ExpertShape& shape) {
  const std::size_t k = std::size_t(shape.top_k);
  const std::size_t wanted = (tokens - 1) * std::size_t(shape.moe_layers) * k;
  if (experts.size() != wanted) {
    return std::to_string(experts.size()) + " expert ids, must be " + std::to_string(wanted) +
           ": top_k of each MoE layer for every token but the last";
  }
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const bool ascends = i % k == 0 || experts[i - 1] < experts[i];
    if (experts[i] < shape.experts && ascends) continue;
    return "expert id " + std::to_string(experts[i]) + " of token " +
           std::to_string(i / (std::size_t(shape.moe_layers) * k)) + ", must be ascending in [0, " +
           std::to_string(shape.experts) + ")";
  }
  return "";
}

std::vector<std::vector<std::int32_t>> UnpackKept(std::span<const std::int32_t> kept) {
  std::vector<std::vector<std::int32_t>> lists;
  for (std::size_t at = 0; at < kept.size();) {
    const std::size_t count = std::size_t(std::max(0, kept[at++]));
    const auto ids = kept.subspan(at, std::min(count, kept.size() - at));
    lists.emplace_back(ids.begin(), ids.end());
    at += ids.size();
  }
  return lists;
}

std::string WhyNotKept(std::span<const std::int32_t> kept, std::span<const std::int32_t> ids,
                       std::int64_t valid_ids) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string where = "kept ids of token " + std::to_string(i);
    if (at >= kept.size() || kept[at] < 1 || std::size_t(kept[at]) > kept.size() - at - 1)
      return where + " are missing or cut off";
    const auto list = kept.subspan(at + 1, std::size_t(kept[at]));
    at += 1 + list.size();
    for (std::size_t j = 0; j < list.size(); ++j) {
      if (list[j] < 0 || list[j] >= valid_ids || (j > 0 && list[j - 1] >= list[j]))
        return where + " must be ascending in [0, " + std::to_string(valid_ids) + ")";
    }
    if (!std::binary_search(list.begin(), list.end(), ids[i]))
      return where + " have not the token's own id " + std::to_string(ids[i]);
  }
  return at == kept.size() ? "" : "more lists of kept ids than tokens";
}

}  // namespace temper::learner
