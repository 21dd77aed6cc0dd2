// Settings that need or exclude one another.
#include <regex>
#include <set>

#include "configs/error.h"
#include "configs/fields.h"

namespace temper::configs {
namespace {

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw UserError(where + ": " + what);
}

/// Where actors and learner compute, and in which order of sums.
void CheckDevices(const Config& config, Job job, const std::string& where) {
  const auto on_device = [&](const std::string& key, const std::string& device, bool several) {
    const std::string form = several ? "cuda(:[0-9]{1,3}(-[0-9]{1,3})?)?" : "cuda(:[0-9]{1,3})?";
    const bool cuda = std::regex_match(device, std::regex(form));
    if (!cuda && device != "cpu")
      Refuse(where, key + ": \"" + device + "\" must be cpu" +
                        (several ? ", cuda:N or cuda:N-M" : " or cuda:N") + ", e.g. cuda:0");
    return cuda;
  };
  const bool learner = on_device("device", config.device, false),
             actors = on_device("actors.device", config.actors.device, true);
  if (config.learner.weights_fabric == "nccl" && (job != Job::kGrpo || !learner)) {
    Refuse(where,
           job == Job::kGrpo
               ? "learner.weights_fabric: nccl goes from the learner's device; set device to cuda:N"
               : "learner.weights_fabric: nccl takes weights to actors, which sft has none of");
  }
  if (config.arithmetic == "canon-1") return;
  if (config.dtype == "fp32")
    Refuse(where, "arithmetic: cuda-1 has no dtype fp32; choose bf16, fp8 or fp8-w8a8");
  if (!learner) Refuse(where, "arithmetic: cuda-1 runs on a device alone; set device to cuda:N");
  if (job == Job::kGrpo && config.actors.count > 0 && !actors && config.numerics != "mixed") {
    Refuse(where,
           "arithmetic: cuda-1 is that of actors too; set actors.device to cuda:N, or numerics to "
           "\"mixed\" with a rollout_correction");
  }
}

/// How a batch is cut into optimizer steps.
void CheckUpdates(const Grpo& grpo, const std::string& where) {
  if (grpo.groups_per_step % grpo.mini_batches != 0) {
    Refuse(where,
           "grpo.mini_batches: " + std::to_string(grpo.mini_batches) +
               " must divide grpo.groups_per_step = " + std::to_string(grpo.groups_per_step));
  }
  if (grpo.max_steps % grpo.updates() != 0) {
    Refuse(where, "grpo.max_steps: " + std::to_string(grpo.max_steps) +
                      " optimizer steps must be whole batches of num_iterations * mini_batches = " +
                      std::to_string(grpo.updates()));
  }
}

void CheckSampling(const Config& config, const std::string& where) {
  const Grpo& grpo = config.grpo;
  if (grpo.sync_ref_model && grpo.beta == 0) {
    Refuse(where, "grpo.sync_ref_model: true without a reference; set grpo.beta above 0");
  }
  if (grpo.ignore_eos && grpo.mask_truncated_completions) {
    Refuse(
        where,
        "grpo.mask_truncated_completions: with grpo.ignore_eos every completion is truncated, so "
        "that nothing would be trained; unset one");
  }
  if (grpo.routing_replay == "rollout" && config.learner.forward != "kernels") {
    Refuse(where,
           "grpo.routing_replay: experts are replayed by the kernels' forward; set "
           "learner.forward to \"kernels\"");
  }
}

void CheckRewards(const Config& config, const std::string& where) {
  if (config.rewards.empty()) {
    Refuse(where,
           "rewards: none is given; grpo needs at least one of {\"script\": FILE.lua}, "
           "{\"rule\": NAME}, {\"model\": DIR} and {\"remote\": ENDPOINT}");
  }
  std::set<std::string> names;
  for (const RewardFunction& reward : config.rewards) {
    if (!names.insert(reward.name).second) {
      Refuse(where, "rewards: two are named \"" + reward.name +
                        "\"; give each its own \"name\" (metrics are kept by name)");
    }
  }
  // Scores that are normalised inside the group have nothing left to divide by there.
  if (config.reward.aggregation == "normalize_then_sum" && config.grpo.scale_rewards == "group") {
    Refuse(where,
           "reward.aggregation: normalize_then_sum divides in the group already; set "
           "grpo.scale_rewards to \"batch\" (GDPO) or \"none\"");
  }
}

/// What changes a router's gradient or its tokens.
void CheckExperts(const Config& config, Job job, const std::string& where) {
  const std::string section = job == Job::kSft ? "sft" : "grpo";
  const Optimizer& optimizer = job == Job::kSft ? static_cast<const Optimizer&>(config.sft)
                                                : static_cast<const Optimizer&>(config.grpo);
  const auto refuse = [&](double value, const std::string& name) {
    if (value == 0) return;
    const std::string key = section + "." + name;
    if (config.learner.forward != "kernels") {
      Refuse(where, key +
                        ": is part of the kernels' forward and backward; set learner.forward to "
                        "\"kernels\"");
    }
    if (job == Job::kSft && config.sft.loss_type != "nll")
      Refuse(where, key + ": belongs to next-token training; sft.loss_type is \"" +
                        config.sft.loss_type + "\": set it to 0");
    if (config.lora.r > 0 && name != "token_drop_capacity")
      Refuse(where, key + ": trains the router, which lora leaves as it is; set it to 0");
  };
  refuse(optimizer.expert_balance_loss, "expert_balance_loss");
  refuse(optimizer.device_balance_loss, "device_balance_loss");
  refuse(optimizer.communication_balance_loss, "communication_balance_loss");
  if (job == Job::kSft) refuse(config.sft.token_drop_capacity, "token_drop_capacity");
  if (job == Job::kSft && config.sft.token_drop_capacity > 0 && config.learner.ranks > 1) {
    Refuse(where,
           "sft.token_drop_capacity: drops tokens of a pack by what else lies in it, so that ranks "
           "would train another loss; set it to 0, or learner.ranks to 1");
  }
}

void CheckLora(const Config& config, Job job, const std::string& where) {
  const Lora& lora = config.lora;
  if (lora.r == 0) {
    if (!lora.adapter.empty())
      Refuse(where, "lora.adapter: is given, but lora.r is 0; set lora.r to the adapter's rank");
    return;
  }
  const std::string section = job == Job::kSft ? "sft" : "grpo";
  const Optimizer& optimizer = job == Job::kSft ? static_cast<const Optimizer&>(config.sft)
                                                : static_cast<const Optimizer&>(config.grpo);
  const auto refuse = [&](bool holds, const std::string& key, const std::string& what) {
    if (holds) Refuse(where, key + ": " + what + ", which an adapter does not hold; set it to 0");
  };
  refuse(optimizer.router_bias_update_speed > 0, section + ".router_bias_update_speed",
         "moves the router's bias");
  refuse(optimizer.mtp_loss_scale > 0, section + ".mtp_loss_scale", "trains the MTP layers");
  if (job == Job::kSft && config.sft.loss_type == "pairwise")
    Refuse(where, "lora.r: a reward model's scalar head is no adapter; set it to 0");
}

void CheckData(const Config& config, Job job, const std::string& where) {
  const Data& data = config.data;
  const int eval_steps = job == Job::kSft ? config.sft.eval_steps : config.grpo.eval_steps;
  if (eval_steps > 0 && data.eval.empty()) {
    Refuse(where, std::string(job == Job::kSft ? "sft" : "grpo") +
                      ".eval_steps: " + std::to_string(eval_steps) +
                      "; data.eval names no file to evaluate on: set it, or eval_steps to 0");
  }
  if (job == Job::kSft && !data.task.empty()) {
    Refuse(where, "data.task: a task makes prompts, not completions; sft needs data.train");
  }
  if (!data.task.empty() && !data.train.empty()) {
    Refuse(where, "data.task: the prompts come from data.train or from data.task; unset one");
  }
  if (data.task.empty() && data.train.empty()) {
    Refuse(where, std::string("data.train: not set; a JSONL file of rows is required") +
                      (job == Job::kGrpo ? ", or data.task, a Lua file that makes them" : ""));
  }
}

}  // namespace

void CheckGrpo(const Grpo& grpo, const std::string& where) {
  if (grpo.truncates() && !grpo.truncated_sampling) {
    const std::string key = grpo.top_p < 1 ? "top_p" : grpo.top_k > 0 ? "top_k" : "min_p";
    Refuse(where, "grpo." + key +
                      ": truncates the distribution that is trained; set "
                      "grpo.truncated_sampling to \"renormalise\" or leave it off");
  }
  if (grpo.loss_type == "cispo" && !grpo.cispo_relative && !grpo.epsilon_high) {
    Refuse(where,
           "grpo.epsilon_high: null; cispo caps the ratio at it, so it is required (5.0 is "
           "a usual value)");
  }
  const double ceiling = 1 + grpo.epsilon_high.value_or(grpo.epsilon);
  if (grpo.delta && grpo.loss_type != "cispo" && *grpo.delta <= ceiling) {
    Refuse(where, "grpo.delta: " + Brief(*grpo.delta) +
                      " must be > 1 + epsilon_high = " + Brief(ceiling) + ", the ratio's ceiling");
  }
  const RolloutCorrection& correction = grpo.rollout_correction;
  if (correction.mode != "none" && !correction.clip_max && !correction.clip_min) {
    Refuse(where, "grpo.rollout_correction.mode: \"" + correction.mode +
                      "\" needs rollout_correction.clip_max or clip_min");
  }
  if (correction.clip_max && correction.clip_min && *correction.clip_min > *correction.clip_max) {
    Refuse(where, "grpo.rollout_correction.clip_min: " + Brief(*correction.clip_min) +
                      " must be <= clip_max = " + Brief(*correction.clip_max));
  }
}

void CheckJob(const Config& config, Job job, const std::string& where) {
  const auto require = [&](const std::string& value, const std::string& key,
                           const std::string& what) {
    if (value.empty()) Refuse(where, key + ": not set; " + what + " is required");
  };
  CheckDevices(config, job, where);
  require(config.model, "model", "a model folder");
  require(config.output_dir, "output_dir", "a folder for the run");
  CheckData(config, job, where);
  CheckExperts(config, job, where);
  CheckLora(config, job, where);
  if (job == Job::kGrpo) {
    if (config.learner.forward != "kernels" && config.numerics != "mixed") {
      Refuse(
          where,
          "learner.forward: \"libtorch\" sums in another order than the actors; use \"kernels\", "
          "or numerics \"mixed\" with a rollout_correction");
    }
    CheckRewards(config, where);
    CheckGrpo(config.grpo, where);
    CheckUpdates(config.grpo, where);
    CheckSampling(config, where);
  }
}

}  // namespace temper::configs
