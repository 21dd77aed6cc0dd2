#include "learner/grpo_metrics.h"

#include <cstdio>
#include <limits>
#include <string_view>

#include "learner/mtp_loss.h"

namespace temper::learner {

double RewardOf(const Json& line) {
  const Json reward = line.value("reward", Json());
  return reward.is_number() ? reward.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

std::string NoteOf(const Json& line) {
  char note[96];
  std::snprintf(note, sizeof note, "reward %.3f, loss %.4f", RewardOf(line),
                line["loss"].get<double>());
  std::string text = note;
  constexpr std::string_view kFailures = "reward_failures/";
  for (const auto& [key, value] : line.items()) {
    if (key.rfind(kFailures, 0) != 0) continue;
    text += ", " + value.dump() + " " + key.substr(kFailures.size());
  }
  return text;
}

Json StepMetrics(const engine::ModelConfig& config, const BatchGradient& gradient,
                 const UpdateReport& update, std::int64_t step, std::uint32_t version) {
  Json line = {{"step", step}, {"version", version}, {"loss", gradient.loss.loss}};
  for (const auto& [name, value] : gradient.loss.metrics.items()) {
    // Of all tokens, older versions' too: how far the policy has moved since they were sampled. The
    // mismatch proper, of the learner's own version, is the batch's.
    const bool moved = name.starts_with("mismatch/");
    line[moved ? "off_policy/" + name.substr(9) : name] = value;
  }
  line["grad_norm"] = update.gradient_norm;
  line["learning_rate"] = update.learning_rate;
  if (gradient.mtp_loss != 0) line["mtp_loss"] = gradient.mtp_loss;
  AddAcceptance(gradient.mtp_acceptance, &line);
  if (gradient.balance_loss != 0) line["balance_loss"] = gradient.balance_loss;
  line.update(gradient.loads.Metrics(config));
  line["timing_s/forward"] = gradient.forward_seconds;
  line["timing_s/backward"] = gradient.backward_seconds;
  return line;
}

Json ServingMetrics(const Batch& taken, const ServiceStats& stats, bool dynamic) {
  Json line = Json::object();
  for (const auto& [status, count] : stats.reward_failures)
    line["reward_failures/" + status] = count;
  if (dynamic) {
    line["dynamic_sampling/groups"] = taken.groups.size() + taken.passed_over.size();
    line["dynamic_sampling/passed_over"] = taken.passed_over.size();
  }
  std::uint64_t refused = 0;
  for (const auto& [reason, count] : stats.refused) refused += count;
  line["wire/refused"] = refused;
  line["wire/weights_bytes"] = stats.published_bytes;
  line["timing_s/gen"] = stats.wait_seconds;
  line["timing_s/weights"] = stats.weights_seconds;
  line["timing_s/reward"] = stats.reward_seconds;
  line["timing_s/reward_wait"] = stats.reward_wait_seconds;
  return line;
}

}  // namespace temper::learner
