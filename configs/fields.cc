#include "configs/fields.h"

#include <cmath>
#include <limits>
#include <sstream>

#include "configs/reward_entries.h"

namespace temper::configs {
namespace {

/// An interval; infinity is an open end.
struct Range {
  double lo, hi;
  bool open_lo = false, open_hi = false;

  bool Holds(double x) const {
    return (open_lo ? x > lo : x >= lo) && (open_hi ? x < hi : x <= hi);
  }
  std::string Text() const {
    std::ostringstream out;
    out.precision(17);
    if (std::isinf(lo)) return "a finite number";
    if (std::isinf(hi)) {
      out << (open_lo ? "> " : ">= ") << lo;
    } else {
      out << "in " << (open_lo ? "(" : "[") << lo << ", " << hi << (open_hi ? ")" : "]");
    }
    return out.str();
  }
};

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr Range kPositive{0, kInf, true};
constexpr Range kNotNegative{0, kInf};
constexpr Range kRatio{0, 1};

const Config& Defaults() {
  static const Config config;
  return config;
}

std::string Must(const Json& value, const std::string& rule) {
  return Brief(value) + " must be " + rule;
}

std::string Join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ", ") + part;
  return out;
}

std::string ReadNumber(const Json& value, const Range& range, double* out) {
  if (!value.is_number()) return Must(value, "a number");
  const double x = value.get<double>();
  if (!std::isfinite(x) || !range.Holds(x)) return Must(value, range.Text());
  *out = x;
  return "";
}

/// `at` gives the member, for a const Config and for a mutable one.
template <class At>
Field Number(std::string key, At at, Range range, std::string meaning) {
  return {std::move(key),
          "number",
          range.Text(),
          std::move(meaning),
          [at, range](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return at(c) = at(Defaults()), "";
            return ReadNumber(v, range, &at(c));
          },
          [at](const Config& c) { return Json(at(c)); }};
}

template <class At>
Field NumberOrNull(std::string key, At at, Range range, std::string meaning) {
  return {std::move(key),
          "number or null",
          range.Text(),
          std::move(meaning),
          [at, range](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return at(c) = at(Defaults()), "";
            double x = 0;
            std::string wrong = ReadNumber(v, range, &x);
            if (wrong.empty()) at(c) = x;
            return wrong;
          },
          [at](const Config& c) { return at(c) ? Json(*at(c)) : Json(nullptr); }};
}

template <class At>
Field Integer(std::string key, At at, std::int64_t lo, std::string meaning) {
  using T = std::decay_t<decltype(at(Defaults()))>;
  // Signed limits: seeds end at 2^63, so that SQL and JSON readers can hold them.
  const auto hi = static_cast<std::int64_t>(
      std::min<std::uint64_t>(std::numeric_limits<T>::max(), std::uint64_t(INT64_MAX)));
  return {std::move(key),
          "integer",
          ">= " + std::to_string(lo),
          std::move(meaning),
          [at, lo, hi](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return at(c) = at(Defaults()), "";
            if (!v.is_number_integer()) return Must(v, "an integer");
            const bool large = v.is_number_unsigned() && v.get<std::uint64_t>() > std::uint64_t(hi);
            if (large || v.get<std::int64_t>() > hi || v.get<std::int64_t>() < lo) {
              return Must(v, "in [" + std::to_string(lo) + ", " + std::to_string(hi) + "]");
            }
            at(c) = static_cast<T>(v.get<std::int64_t>());
            return "";
          },
          [at](const Config& c) { return Json(at(c)); }};
}

template <class At>
Field Flag(std::string key, At at, std::string meaning) {
  return {std::move(key),
          "true or false",
          "",
          std::move(meaning),
          [at](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return at(c) = at(Defaults()), "";
            if (!v.is_boolean()) return Must(v, "true or false");
            at(c) = v.get<bool>();
            return "";
          },
          [at](const Config& c) { return Json(at(c)); }};
}

template <class At>
Field Text(std::string key, At at, std::string meaning) {
  return {std::move(key),
          "string",
          "",
          std::move(meaning),
          [at](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return at(c) = at(Defaults()), "";
            if (!v.is_string()) return Must(v, "a string");
            at(c) = v.get<std::string>();
            return "";
          },
          [at](const Config& c) { return Json(at(c)); }};
}

template <class At>
Field Choice(std::string key, At at, std::vector<std::string> choices, std::string meaning) {
  return {std::move(key),
          "string",
          "one of " + Join(choices),
          std::move(meaning),
          [at, choices](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return at(c) = at(Defaults()), "";
            for (const std::string& choice : choices) {
              if (v == Json(choice)) return at(c) = choice, "";
            }
            return Must(v, "one of " + Join(choices));
          },
          [at](const Config& c) {
            // Optional choices are written as null, so that null reads back as "by default".
            if constexpr (std::is_same_v<std::decay_t<decltype(at(c))>, std::string>) {
              return Json(at(c));
            } else {
              return at(c) ? Json(*at(c)) : Json(nullptr);
            }
          }};
}

Field Rewards() {
  return {"rewards",
          "list",
          "{\"script\", \"rule\", \"model\" or \"remote\", \"name\", \"weight\", ...}",
          "what scores a completion; the score is the weighted sum; grpo needs at least one, or "
          "data.task",
          [](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return c.rewards.clear(), "";
            return ReadRewards(v, &c.rewards);
          },
          [](const Config& c) { return WriteRewards(c.rewards); }};
}

Field ResumeAllow() {
  return {"resume_allow",
          "list of strings",
          "",
          "keys that may differ from the run's config when it is resumed",
          [](Config& c, const Json& v) -> std::string {
            c.resume_allow.clear();
            if (v.is_null()) return "";
            if (!v.is_array()) return Must(v, "a list of keys");
            for (const Json& key : v) {
              if (!key.is_string()) return Must(key, "a key such as \"grpo.max_steps\"");
              c.resume_allow.push_back(key.get<std::string>());
            }
            return "";
          },
          [](const Config& c) { return Json(c.resume_allow); }};
}

Field KeepVersions() {
  return {"keep_versions",
          "string or integer",
          "all, checkpoints, or a number",
          "weights kept under versions/ for replay",
          [](Config& c, const Json& v) -> std::string {
            const std::string rule = "\"all\", \"checkpoints\" or a number >= 0";
            if (v.is_null()) return c.keep_versions = Defaults().keep_versions, "";
            if (v.is_number_unsigned()) return c.keep_versions = v.dump(), "";
            if (!v.is_string()) return Must(v, rule);
            const std::string text = v.get<std::string>();
            const bool digits = !text.empty() && text.size() < 10 &&
                                text.find_first_not_of("0123456789") == std::string::npos;
            if (!digits && text != "all" && text != "checkpoints") return Must(v, rule);
            c.keep_versions = text;
            return "";
          },
          [](const Config& c) { return Json(c.keep_versions); }};
}

Field TargetModules() {
  return {"lora.target_modules",
          "list of strings",
          "",
          "last parts of the names of matrices that get an adapter",
          [](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return c.lora.target_modules = Defaults().lora.target_modules, "";
            const std::string rule = "a list of names such as [\"q_proj\", \"o_proj\"]";
            if (!v.is_array() || v.empty()) return Must(v, rule);
            std::vector<std::string> names;
            for (const Json& name : v) {
              if (!name.is_string() || name.get<std::string>().empty()) return Must(v, rule);
              names.push_back(name.get<std::string>());
            }
            c.lora.target_modules = std::move(names);
            return "";
          },
          [](const Config& c) { return Json(c.lora.target_modules); }};
}

Field SoftOverlong() {
  return {"grpo.soft_overlong",
          "object or null",
          "{\"max_length\", \"buffer\"}, tokens",
          "a penalty that grows from 0 to -1 over the last `buffer` tokens before max_length",
          [](Config& c, const Json& v) -> std::string {
            if (v.is_null()) return c.grpo.soft_overlong.reset(), "";
            const std::string rule =
                "{\"max_length\": tokens, \"buffer\": tokens} with 1 <= buffer <= max_length";
            if (!v.is_object() || v.size() != 2) return Must(v, rule);
            for (const char* key : {"max_length", "buffer"}) {
              if (!v.contains(key) || !v[key].is_number_unsigned()) return Must(v, rule);
            }
            const auto buffer = v["buffer"].get<std::uint64_t>();
            if (buffer < 1 || buffer > v["max_length"].get<std::uint64_t>()) return Must(v, rule);
            c.grpo.soft_overlong = v;
            return "";
          },
          [](const Config& c) { return c.grpo.soft_overlong.value_or(Json(nullptr)); }};
}

// The key is the member's path: one spelling for the file, --set, the structs and the help.
#define AT(path) \
#path, [](auto& c) -> auto& { return c.path; }

void AddRun(std::vector<Field>* t) {
  t->push_back(Text(AT(name), "what the run is called"));
  t->push_back(Integer(AT(seed), 0, "of the data order and of sampling"));
  t->push_back(Text(AT(output_dir), "the run's folder, made by the run; required"));
  t->push_back(Text(AT(model), "a model folder in Hugging Face layout; required"));
  t->push_back(
      Choice(AT(dtype), {"fp32", "bf16", "fp8", "fp8-w8a8"}, "numeric mode of actor and learner"));
  t->push_back(Choice(AT(cache_dtype), {"fp32", "bf16", "fp8"}, "how keys and values are stored"));
  t->push_back(Choice(AT(fp8_scale), {"pow2", "fp32"}, "block scales of fp8 weights"));
  t->push_back(Choice(AT(numerics), {"strict", "mixed"},
                      "strict refuses actors with another order of arithmetic"));
  t->push_back(Choice(AT(arithmetic), {"canon-1", "cuda-1"},
                      "order of sums of actor and learner; cuda-1: tensor cores, on devices alone"));
  t->push_back(Text(AT(device), "the learner's: cpu, or cuda:N in a build with CUDA"));
  t->push_back(Integer(AT(threads), 0, "of all local processes together; 0 = all cores"));
  t->push_back(Flag(AT(resume), "continue the run in output_dir"));
  t->push_back(ResumeAllow());
  t->push_back(KeepVersions());
  t->push_back(Text(AT(data.train), "JSONL; required"));
  t->push_back(Text(AT(data.eval), "JSONL of held-out rows; null = none"));
  t->push_back(Text(
      AT(data.task),
      "a Lua file that makes prompts instead of data.train; it rewards them too, unless rewards "
      "is given; grpo only"));
  t->push_back(
      Integer(AT(data.heldout), 0,
              "first prompts of data.task that no group gets; temper eval --task scores them"));
  t->push_back(Text(AT(data.prompt_column), "null = the first known name that is there"));
  t->push_back(Text(AT(data.answer_column), "null = the first known name that is there"));
  t->push_back(Integer(AT(data.max_prompt_length), 1, "tokens; a longer row is an error"));
  t->push_back(Flag(AT(data.shuffle), "by (seed, epoch)"));
}

/// `at` gives the section; a section's optimizer keys are the same in sft and grpo.
#define OF(section, member) \
#section "." #member, [](auto& c) -> auto& { return c.section.member; }
#define OPTIMIZER(s)                                                                               \
  t->push_back(Number(OF(s, learning_rate), kPositive, "AdamW's, after warm-up"));                 \
  t->push_back(Number(OF(s, adam_beta1), {0, 1, false, true}, "decay of the first moment"));       \
  t->push_back(Number(OF(s, adam_beta2), {0, 1, false, true}, "decay of the second moment"));      \
  t->push_back(Number(OF(s, adam_epsilon), kPositive, "added to the root of the second moment"));  \
  t->push_back(Number(OF(s, weight_decay), kNotNegative, "decoupled; not on norms and biases"));   \
  t->push_back(Number(OF(s, max_grad_norm), kNotNegative, "global norm; 0 = no clipping"));        \
  t->push_back(Integer(OF(s, warmup_steps), 0, "linear from 0"));                                  \
  t->push_back(Choice(OF(s, lr_scheduler_type), {"constant", "cosine"}, "after warm-up"));         \
  t->push_back(Number(OF(s, min_lr_ratio), kRatio, "floor of cosine, times learning_rate"));       \
  t->push_back(Integer(OF(s, max_steps), 1, "optimizer steps of the run"));                        \
  t->push_back(Integer(OF(s, save_steps), 0, "between checkpoints; 0 = only at the end"));         \
  t->push_back(Integer(OF(s, save_total_limit), 0, "checkpoints kept; 0 = all"));                  \
  t->push_back(Integer(OF(s, eval_steps), 0, "between evaluations on data.eval; 0 = never"));      \
  t->push_back(Integer(OF(s, logging_steps), 1, "between metric lines"));                          \
  t->push_back(Number(OF(s, mtp_loss_scale), kNotNegative, "0 = the MTP layer is not trained"));   \
  t->push_back(                                                                                    \
      Number(OF(s, router_bias_update_speed), kNotNegative, "loss-free balancing; 0 = off"));      \
  t->push_back(Number(OF(s, expert_balance_loss), kNotNegative, "factor; V2: 0.003, V3: 0.0001")); \
  t->push_back(Number(OF(s, device_balance_loss), kNotNegative,                                    \
                      "factor, groups of experts as devices; V2: 0.05"));                          \
  t->push_back(Number(OF(s, communication_balance_loss), kNotNegative,                             \
                      "factor, of the groups that tokens are sent to; V2: 0.02"))

void AddSft(std::vector<Field>* t) {
  OPTIMIZER(sft);
  t->push_back(Integer(AT(sft.max_length), 2, "tokens a row"));
  t->push_back(Flag(AT(sft.packing), "rows share a forward; none sees another"));
  t->push_back(Choice(AT(sft.packing_strategy), {"bfd"}, "best fit, longest first"));
  t->push_back(Flag(AT(sft.completion_only_loss), "the prompt's tokens are not trained"));
  t->push_back(Flag(AT(sft.assistant_only_loss), "only assistant turns of messages are trained"));
  t->push_back(
      Integer(AT(sft.tokens_per_step), 1, "rows are added until the next would exceed it"));
  t->push_back(Integer(AT(sft.gradient_accumulation_steps), 1,
                       "a micro-batch holds tokens_per_step / this tokens"));
  t->push_back(Integer(AT(sft.num_train_rows), 0, "rows used; 0 = all"));
  t->push_back(Number(AT(sft.token_drop_capacity), kNotNegative,
                      "pairs of token and expert a device takes, times its even share; 0 = all"));
  t->push_back(Number(AT(sft.token_drop_exempt), kRatio, "share of rows that lose no token"));
  t->push_back(Number(AT(sft.distillation_alpha), kRatio,
                      "weight of a row's teacher distribution against its own tokens"));
  t->push_back(Choice(AT(sft.loss_type), {"nll", "pairwise"},
                      "next tokens, or a reward model's order of chosen and rejected"));
}

void AddGrpo(std::vector<Field>* t) {
  OPTIMIZER(grpo);
  t->push_back(Integer(AT(grpo.groups_per_step), 1, "prompts a step"));
  t->push_back(Integer(AT(grpo.num_generations), 2, "samples a prompt"));
  t->push_back(Integer(AT(grpo.max_completion_length), 1, "tokens"));
  t->push_back(Flag(AT(grpo.ignore_eos), "samples go on to max_completion_length"));
  t->push_back(Number(AT(grpo.temperature), kPositive, "of sampling, and of the log-probs"));
  t->push_back(Number(AT(grpo.top_p), {0, 1, true}, "needs truncated_sampling below 1"));
  t->push_back(Integer(AT(grpo.top_k), 0, "0 = off; needs truncated_sampling"));
  t->push_back(Number(AT(grpo.min_p), {0, 1, false, true}, "0 = off; needs truncated_sampling"));
  t->push_back(Choice(AT(grpo.truncated_sampling), {"renormalise"}, "kept ids travel; null = off"));
  t->push_back(Integer(AT(grpo.num_iterations), 1, "passes over a batch"));
  t->push_back(Integer(AT(grpo.mini_batches), 1, "optimizer steps a pass"));
  t->push_back(Integer(AT(grpo.max_lag), 0, "versions a rollout may be behind; 0 = synchronous"));
  t->push_back(Choice(AT(grpo.loss_type),
                      {"dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "gspo"},
                      "gspo = grpo at the level of sequences"));
  t->push_back(Choice(AT(grpo.importance_sampling_level), {"token", "sequence"}, "of the ratio"));
  t->push_back(Number(AT(grpo.epsilon), {0, 1, true, true}, "the ratio's floor is 1 - epsilon"));
  t->push_back(NumberOrNull(AT(grpo.epsilon_high), kPositive,
                            "the ratio's ceiling is 1 + this; null = epsilon; cispo: the cap"));
  t->push_back(NumberOrNull(AT(grpo.delta), {1, kInf, true}, "cap of the unclipped ratio"));
  t->push_back(Number(AT(grpo.beta), kNotNegative, "KL coefficient; > 0 loads a reference policy"));
  t->push_back(Flag(AT(grpo.sync_ref_model), "the reference follows the policy; needs beta"));
  t->push_back(Number(AT(grpo.ref_model_mixup_alpha), kRatio,
                      "share of the policy when the reference follows"));
  t->push_back(Integer(AT(grpo.ref_model_sync_steps), 1, "optimizer steps between"));
  t->push_back(Choice(AT(grpo.kl_estimator), {"k1", "k2", "k3"}, "of the KL term"));
  t->push_back(Flag(AT(grpo.use_bias_correction_kl), "the KL term is multiplied by the ratio"));
  t->push_back(Flag(AT(grpo.kl_in_reward), "the KL is subtracted from the reward instead"));
  t->push_back(Choice(AT(grpo.scale_rewards), {"group", "batch", "none"},
                      "whose standard deviation divides"));
  t->push_back(Choice(AT(grpo.advantage_estimator),
                      {"grpo", "rloo", "opo", "reinforce_plus_plus_baseline"},
                      "from rewards to advantages"));
  t->push_back(
      Choice(AT(grpo.loss_aggregation),
             {"token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"},
             "null = by loss_type"));
  t->push_back(
      Choice(AT(grpo.rollout_correction.mode),
             {"none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"},
             "weights for a rollout that another policy sampled"));
  t->push_back(NumberOrNull(AT(grpo.rollout_correction.clip_max), kPositive, "null = none"));
  t->push_back(NumberOrNull(AT(grpo.rollout_correction.clip_min), kPositive, "null = none"));
  t->push_back(NumberOrNull(AT(grpo.off_policy_mask_threshold), kPositive,
                            "a sequence with a negative advantage and a larger KL is masked"));
  t->push_back(
      Flag(AT(grpo.mask_truncated_completions), "rollouts without a stop are not trained"));
  t->push_back(Number(AT(grpo.entropy_coef), {-kInf, kInf, true}, "added entropy"));
  t->push_back(Flag(AT(grpo.dynamic_sampling), "groups without a spread of rewards are replaced"));
  t->push_back(Integer(AT(grpo.max_gen_batches), 1, "of dynamic_sampling"));
  t->push_back(SoftOverlong());
  t->push_back(Choice(AT(grpo.routing_replay), {"none", "rollout"},
                      "rollout: the learner uses the actor's experts"));
  t->push_back(Flag(AT(grpo.cispo_relative), "verl's bounds of cispo: 1 + epsilon_high"));
}

void AddRest(std::vector<Field>* t) {
  t->push_back(Rewards());
  t->push_back(Choice(AT(reward.aggregation), {"sum", "normalize_then_sum"},
                      "of several rewards; normalize_then_sum is GDPO, with scale_rewards batch"));
  t->push_back(Choice(AT(reward.on_error), {"drop", "score", "stop"}, "what a failed reward does"));
  t->push_back(Number(AT(reward.on_error_score), {-kInf, kInf, true}, "of on_error: score"));
  t->push_back(Number(AT(reward.timeout_s), {0, 3600, true}, "seconds of wall clock a sample"));
  t->push_back(Integer(AT(reward.max_instructions), 1000, "of Lua's machine a sample"));
  t->push_back(Integer(AT(reward.memory_mib), 1, "a script"));
  t->push_back(Integer(AT(actors.count), 0, "local processes; 0 = only those that connect"));
  t->push_back(Integer(AT(actors.threads), 0, "an actor; 0 = its share of the cores"));
  t->push_back(Text(AT(actors.device),
                    "cpu, or in a build with CUDA cuda:N, or cuda:N-M: experts over devices N to M"));
  t->push_back(
      Integer(AT(reward_workers.count), 0, "local processes; 0 = only those that connect"));
  t->push_back(Text(AT(wire.bind), "ZeroMQ endpoint; null = ipc://OUTPUT_DIR/wire"));
  t->push_back(Text(AT(wire.keys),
                    "the learner's CURVE key file (temper keys new); null = none, loopback only"));
  t->push_back(
      Number(AT(wire.peer_timeout_s), kPositive, "seconds without a peer before giving up"));
  t->push_back(Integer(AT(learner.ranks), 1, "learner processes that share each step"));
  t->push_back(Number(AT(learner.rank_timeout_s), kPositive,
                      "seconds that a rank waits for another before giving up"));
  t->push_back(Choice(AT(learner.forward), {"kernels", "libtorch"}, "whose forward trains"));
  t->push_back(Choice(AT(learner.weights_fabric), {"zmq", "nccl"},
                      "full sets to actors on devices; nccl: broadcast, else pulled as by zmq"));
  t->push_back(Flag(AT(learner.gradient_checkpointing),
                    "activations of a layer are not kept but computed again"));
  t->push_back(Integer(AT(lora.r), 0, "rank of the adapters; 0 = the weights are trained"));
  t->push_back(Number(AT(lora.lora_alpha), kPositive, "adapters count lora_alpha / r times"));
  t->push_back(Flag(AT(lora.use_rslora), "lora_alpha / sqrt(r) times"));
  t->push_back(TargetModules());
  t->push_back(Text(AT(lora.adapter), "a PEFT folder to begin with; null = a new adapter"));
}

#undef AT
#undef OF
#undef OPTIMIZER

}  // namespace

const std::vector<Field>& Fields() {
  static const std::vector<Field> table = [] {
    std::vector<Field> t;
    AddRun(&t);
    AddSft(&t);
    AddGrpo(&t);
    AddRest(&t);
    return t;
  }();
  return table;
}

}  // namespace temper::configs
