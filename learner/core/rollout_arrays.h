#pragma once
// What travels with a rollout beside ids and log-probs, judged against the model.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace temper::learner {

/// A model's routers; moe_layers 0: nobody asked for experts.
struct ExpertShape {
  int moe_layers = 0, top_k = 0, experts = 0;
};

/// What is wrong with `experts` of a rollout whose prompt and completion have so many tokens: they
/// must be [tokens - 1][MoE layers][top_k], ascending ids of the model. "": nothing.
std::string WhyNotExperts(std::span<const std::uint16_t> experts, std::size_t tokens,
                          const ExpertShape& shape);

/// The ids that each token was sampled from, out of their packed form (of each token a count, then
/// so many ids).
std::vector<std::vector<std::int32_t>> UnpackKept(std::span<const std::int32_t> kept);

/// What is wrong with `kept` of a completion: a list for each id, ascending in [0, valid_ids), the
/// id itself in it. "": nothing.
std::string WhyNotKept(std::span<const std::int32_t> kept, std::span<const std::int32_t> ids,
                       std::int64_t valid_ids);

}  // namespace temper::learner
