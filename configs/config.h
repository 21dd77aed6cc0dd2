#pragma once
// Every setting of a run: defaults, units and ranges stand here and nowhere else (docs: temper grpo --help-keys).
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "configs/json.h"

namespace temper::configs {

struct Data {
  std::string train;                         // JSONL; required by sft and grpo
  std::string eval;                          // JSONL; "" = none
  std::string task;                          // a Lua task file instead of `train`; "" = none
  int heldout = 500;                         // rows of `task` that are kept out of training
  std::string prompt_column;                 // "" = the first of the field's names that is there
  std::string answer_column;                 // "" = the first of the field's names that is there
  int max_prompt_length = 512;               // tokens, >= 1; longer rows are an error that names the line
  bool shuffle = true;                       // seeded; the order is a function of (seed, epoch)
};

/// Keys that sft and grpo share.
struct Optimizer {
  double learning_rate = 1e-5;               // > 0
  double adam_beta1 = 0.9;                   // [0, 1)
  double adam_beta2 = 0.95;                  // [0, 1)
  double adam_epsilon = 1e-8;                // > 0
  double weight_decay = 0.1;                 // >= 0; not on norms, biases and embeddings of dimension 1
  double max_grad_norm = 1.0;                // > 0; 0 = no clipping
  int warmup_steps = 0;                      // >= 0
  std::string lr_scheduler_type = "constant";  // constant | cosine (to min_lr_ratio)
  double min_lr_ratio = 0.1;                 // [0, 1]; floor of cosine, times learning_rate
  int max_steps = 100;                       // >= 1
  int save_steps = 100;                      // >= 0; 0 = only at the end
  int save_total_limit = 0;                  // >= 0; checkpoints kept, 0 = all
  int eval_steps = 0;                        // >= 0; 0 = never
  int logging_steps = 1;                     // >= 1
  double mtp_loss_scale = 0.1;               // >= 0; 0 = the MTP layer is not trained
  double router_bias_update_speed = 0.001;   // >= 0; loss-free balancing, 0 = off
  double expert_balance_loss = 0;            // >= 0; V2's alpha_1 (0.003), V3's (0.0001)
  double device_balance_loss = 0;            // >= 0; V2's alpha_2 (0.05); groups of experts are devices
  double communication_balance_loss = 0;     // >= 0; V2's alpha_3 (0.02)
};

struct Sft : Optimizer {
  Sft() { max_steps = 300; }
  int max_length = 1024;                     // tokens a row, >= 2
  bool packing = true;
  std::string packing_strategy = "bfd";      // best fit, longest first
  bool completion_only_loss = true;
  bool assistant_only_loss = false;          // of rows of messages
  int tokens_per_step = 8192;                // >= 1; rows are added until the next would exceed it
  int gradient_accumulation_steps = 1;       // >= 1; a micro-batch holds tokens_per_step / this tokens
  int num_train_rows = 0;                    // 0 = all
  double token_drop_capacity = 0;            // >= 0; of a device's even share of the pairs (V2: 1), 0 = off
  double token_drop_exempt = 0.1;            // [0, 1]; share of rows that lose no token
  double distillation_alpha = 1;             // [0, 1]; of a teacher's distribution, the rest is the row's own token
  std::string loss_type = "nll";             // nll | pairwise (a reward model, of chosen and rejected)
};

struct RolloutCorrection {
  std::string mode = "none";                 // none | token_truncate | token_mask | sequence_truncate | sequence_mask
  std::optional<double> clip_max;            // > 0; null = none
  std::optional<double> clip_min;            // > 0; null = none
};

struct Grpo : Optimizer {
  Grpo() {
    learning_rate = 1e-6;
    router_bias_update_speed = 0.0;
  }
  int groups_per_step = 8;                   // prompts a step, >= 1
  int num_generations = 8;                   // samples a prompt, >= 2
  int max_completion_length = 512;           // tokens, >= 1
  bool ignore_eos = false;                   // samples go on to max_completion_length
  double temperature = 1.0;                  // > 0
  double top_p = 1.0;                        // (0, 1]
  int top_k = 0;                             // >= 0; 0 = off
  double min_p = 0.0;                        // [0, 1)
  std::optional<std::string> truncated_sampling;  // null | renormalise; top_p < 1, top_k, min_p need it
  int num_iterations = 1;                    // passes over a batch, >= 1
  int mini_batches = 1;                      // optimizer steps a pass, >= 1; divides groups_per_step
  int max_lag = 0;                           // versions; 0 is synchronous
  // The loss (design.md 10).
  std::string loss_type = "dapo";            // dapo | grpo | bnpo | dr_grpo | cispo | sapo | gspo
  std::string importance_sampling_level = "token";  // token | sequence
  double epsilon = 0.2;                      // (0, 1)
  std::optional<double> epsilon_high;        // null = epsilon; recipes write 0.28; cispo requires it
  std::optional<double> delta;               // cap of the unclipped ratio, > 1 + epsilon_high
  double beta = 0.0;                         // KL coefficient, >= 0; > 0 loads a reference policy
  bool sync_ref_model = false;               // the reference follows the policy
  double ref_model_mixup_alpha = 0.6;        // [0, 1]; reference = alpha policy + (1 - alpha) reference
  int ref_model_sync_steps = 512;            // >= 1; optimizer steps between
  std::string kl_estimator = "k3";           // k1 | k2 | k3
  bool use_bias_correction_kl = false;
  bool kl_in_reward = false;
  std::string scale_rewards = "group";       // group | batch | none
  std::string advantage_estimator = "grpo";  // grpo | rloo | opo | reinforce_plus_plus_baseline
  std::optional<std::string> loss_aggregation;  // null = by loss_type | token-mean | seq-mean-token-mean | seq-mean-token-sum | seq-mean-token-sum-norm
  RolloutCorrection rollout_correction;
  std::optional<double> off_policy_mask_threshold;
  bool mask_truncated_completions = false;
  double entropy_coef = 0.0;
  bool dynamic_sampling = false;
  int max_gen_batches = 4;                   // >= 1
  std::optional<Json> soft_overlong;         // {"max_length", "buffer"}
  std::string routing_replay = "none";       // none | rollout
  bool cispo_relative = false;               // verl's cispo bounds

  /// Optimizer steps a batch of groups_per_step groups.
  int updates() const { return num_iterations * mini_batches; }
  /// Whether sampling leaves tokens out.
  bool truncates() const { return top_p < 1 || top_k > 0 || min_p > 0; }
};

struct RewardFunction {
  std::string script;                        // a Lua file, or
  std::string rule = {};                     // a rule's name, or
  std::string name = {};                     // default: the file's stem, the rule, the folder
  double weight = 1.0;
  std::string options = {};                  // of the rule: a JSON object's text; "" = none
  std::string model = {};                    // a reward model's folder, or
  std::string dtype = "fp32";                // of the model: fp32 | bf16 | fp8 | fp8-w8a8
  std::string remote = {};                   // an endpoint that answers score requests
  double timeout_s = 10;                     // of the remote: (0, 3600] a try
  int retries = 3;                           // of the remote: [0, 100] further tries
};

struct Reward {
  std::string aggregation = "sum";           // sum | normalize_then_sum (GDPO)
  std::string on_error = "drop";             // drop | score | stop
  double on_error_score = 0.0;
  double timeout_s = 1.0;                    // (0, 3600] wall clock a sample
  std::int64_t max_instructions = 1000000;   // >= 1000 a sample
  int memory_mib = 64;                       // >= 1 a script
};

struct Actors {                              // the run's own processes
  int count = 1;
  int threads = 0;                           // 0 = share of the cores
  std::string device = "cpu";                // cpu | cuda:N
};
struct RewardWorkers { int count = 1; };
struct Wire {
  std::string bind;                          // "" = ipc in output_dir
  std::string keys;                          // the learner's CURVE keys; "" = none (loopback only)
  double peer_timeout_s = 300;
};
struct Learner {
  int ranks = 1;                             // processes that share each step
  double rank_timeout_s = 120;               // longer than a rank may come later than another
  std::string forward = "kernels";           // kernels | libtorch
  std::string weights_fabric = "zmq";        // zmq | nccl: how full sets travel to actors on devices
  bool gradient_checkpointing = false;       // a layer's activations are computed again
};

/// Adapters that are trained instead of the weights (LoRA, arXiv 2106.09685); PEFT's names.
struct Lora {
  int r = 0;                                 // rank; 0 = off
  double lora_alpha = 8;                     // > 0; the product is scaled by lora_alpha / r
  bool use_rslora = false;                   // ... by lora_alpha / sqrt(r)
  std::vector<std::string> target_modules = {"q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
                                             "o_proj"};  // last parts of matrices' names
  std::string adapter;                       // a PEFT folder to begin with; "" = A drawn by the seed, B zero
};

struct Config {
  std::string name = "run";
  std::uint64_t seed = 0;                    // [0, 2^63)
  std::string output_dir;                    // required
  std::string model;                         // required: a Hugging Face folder
  std::string dtype = "fp32";                // fp32 | bf16 | fp8 | fp8-w8a8
  std::string cache_dtype = "fp32";          // fp32 | bf16 | fp8
  std::string fp8_scale = "pow2";            // pow2 | fp32
  std::string numerics = "strict";           // strict | mixed
  std::string arithmetic = "canon-1";        // canon-1 | cuda-1: order of sums; cuda-1 on devices alone
  std::string device = "cpu";
  int threads = 0;                           // 0 = all cores
  bool resume = false;
  std::vector<std::string> resume_allow;
  std::string keep_versions = "checkpoints";  // all | a number | checkpoints
  Data data;
  Sft sft;
  Grpo grpo;
  std::vector<RewardFunction> rewards;
  Reward reward;
  Actors actors;
  RewardWorkers reward_workers;
  Wire wire;
  Learner learner;
  Lora lora;
};

/// Which section a command needs: what is missing or refused depends on it.
enum class Job { kSft, kGrpo };

/// Reads the file, applies `--set a.b=VALUE` in order, checks every key, type and range, resolves paths against the file's
/// folder (output_dir too). `text` replaces the file's content if given (quickstart).
/// Throws UserError "FILE: key.path: found X; rule; did you mean ...".
Config ReadConfig(const std::string& path, const std::vector<std::string>& sets, Job job);
Config ParseConfig(const std::string& text, const std::string& path, const std::vector<std::string>& sets, Job job);

/// The same strict table for a bare `--set grpo.KEY=VALUE` list (probe loss).
Grpo GrpoFromSets(const std::vector<std::string>& sets);

/// The resolved config, every key written out; ParseConfig(ToJson(c)) == c.
Json ToJson(const Config& config);

/// Dotted keys whose values differ, "key: old -> new" (for resume). `ignore`: keys that may differ freely.
std::vector<std::string> Differences(const Json& before, const Json& after, const std::vector<std::string>& ignore);

/// A table of every key: name, default, range, meaning.
std::string HelpKeys();

}  // namespace temper::configs
