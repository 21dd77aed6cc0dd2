#include "configs/aliases.h"

#include <functional>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "configs/error.h"

namespace temper::configs {
namespace {

/// Gives our value, or nothing where theirs has none.
using Convert = std::function<std::optional<Json>(const Json&)>;

struct Alias {
  std::string theirs, ours;
  Convert convert;   // null: as it is
  std::string says;  // what is converted, for people
};

Convert Names(std::vector<std::pair<Json, Json>> names) {
  return [names = std::move(names)](const Json& value) -> std::optional<Json> {
    for (const auto& [theirs, ours] : names) {
      if (value == theirs) return ours;
    }
    return std::nullopt;
  };
}

/// Numbers, of which negative ones mean "off": our 0.
std::optional<Json> OffIsZero(const Json& value) {
  if (!value.is_number()) return std::nullopt;
  return value < 0 ? Json(0) : value;
}

std::optional<Json> OneFile(const Json& value) {
  if (value.is_array()) return value.size() == 1 ? std::optional<Json>(value[0]) : std::nullopt;
  return value;
}

const Convert kKl = Names(
    {{"low_var_kl", "k3"}, {"k3", "k3"}, {"kl", "k1"}, {"k1", "k1"}, {"mse", "k2"}, {"k2", "k2"}});

std::vector<Alias> Data() {
  return {{"data.train_files", "data.train", OneFile, "one file"},
          {"data.val_files", "data.eval", OneFile, "one file"},
          {"data.prompt_key", "data.prompt_column", nullptr, ""},
          {"data.train_batch_size", "grpo.groups_per_step", nullptr, ""},
          {"data.max_response_length", "grpo.max_completion_length", nullptr, ""},
          {"grpo.max_prompt_length", "data.max_prompt_length", nullptr, ""},
          {"grpo.seed", "seed", nullptr, ""},
          {"sft.seed", "seed", nullptr, ""},
          {"grpo.output_dir", "output_dir", nullptr, ""},
          {"sft.output_dir", "output_dir", nullptr, ""},
          {"grpo.max_staleness", "grpo.max_lag", nullptr, ""},
          {"grpo.gradient_checkpointing", "learner.gradient_checkpointing", nullptr, ""},
          {"sft.gradient_checkpointing", "learner.gradient_checkpointing", nullptr, ""},
          {"actor_rollout_ref.model.enable_gradient_checkpointing",
           "learner.gradient_checkpointing", nullptr, ""}};
}

std::vector<Alias> Adapters() {
  const std::string m = "actor_rollout_ref.model.", p = "peft_config.";
  return {{m + "lora_rank", "lora.r", nullptr, ""},
          {m + "lora_alpha", "lora.lora_alpha", nullptr, ""},
          {m + "target_modules", "lora.target_modules", nullptr, ""},
          {m + "lora_adapter_path", "lora.adapter", nullptr, ""},
          {p + "r", "lora.r", nullptr, ""},
          {p + "lora_alpha", "lora.lora_alpha", nullptr, ""},
          {p + "target_modules", "lora.target_modules", nullptr, ""},
          {p + "use_rslora", "lora.use_rslora", nullptr, ""}};
}

std::vector<Alias> Actor() {
  const std::string a = "actor_rollout_ref.actor.", r = "actor_rollout_ref.rollout.";
  return {{"actor_rollout_ref.model.path", "model", nullptr, ""},
          {r + "n", "grpo.num_generations", nullptr, ""},
          {r + "temperature", "grpo.temperature", nullptr, ""},
          {r + "top_p", "grpo.top_p", nullptr, ""},
          {r + "top_k", "grpo.top_k", OffIsZero, "-1 = 0"},
          {a + "ppo_epochs", "grpo.num_iterations", nullptr, ""},
          {a + "clip_ratio_low", "grpo.epsilon", nullptr, ""},
          {a + "clip_ratio_high", "grpo.epsilon_high", nullptr, ""},
          {a + "clip_ratio_c", "grpo.delta", nullptr, "dual clip"},
          {a + "kl_loss_type", "grpo.kl_estimator", kKl, "low_var_kl = k3, kl = k1, mse = k2"},
          {a + "loss_agg_mode", "grpo.loss_aggregation", nullptr, ""},
          {a + "entropy_coeff", "grpo.entropy_coef", nullptr, ""},
          {a + "grad_clip", "grpo.max_grad_norm", nullptr, ""},
          {a + "optim.lr", "grpo.learning_rate", nullptr, ""},
          {a + "optim.weight_decay", "grpo.weight_decay", nullptr, ""},
          {a + "optim.lr_warmup_steps", "grpo.warmup_steps", OffIsZero, "-1 = 0"},
          {a + "optim.lr_scheduler_type", "grpo.lr_scheduler_type", nullptr, ""},
          {a + "optim.warmup_style", "grpo.lr_scheduler_type", nullptr, ""},
          {a + "optim.min_lr_ratio", "grpo.min_lr_ratio", nullptr, ""}};
}

std::vector<Alias> Algorithm() {
  const std::string a = "algorithm.", t = "trainer.";
  return {
      {a + "adv_estimator", "grpo.advantage_estimator", nullptr, ""},
      {a + "norm_adv_by_std_in_grpo", "grpo.scale_rewards",
       Names({{true, "group"}, {false, "none"}}), "true = group, false = none"},
      {a + "kl_penalty", "grpo.kl_estimator", kKl, "low_var_kl = k3, kl = k1, mse = k2"},
      {a + "filter_groups.enable", "grpo.dynamic_sampling", nullptr, ""},
      {a + "filter_groups.max_num_gen_batches", "grpo.max_gen_batches", nullptr, ""},
      {a + "rollout_correction.rollout_is", "grpo.rollout_correction.mode",
       Names({{nullptr, "none"}, {"token", "token_truncate"}, {"sequence", "sequence_truncate"}}),
       "null = none, token = token_truncate, sequence = sequence_truncate"},
      {a + "rollout_correction.rollout_is_threshold", "grpo.rollout_correction.clip_max", nullptr,
       ""},
      {t + "total_training_steps", "grpo.max_steps", nullptr, ""},
      {t + "save_freq", "grpo.save_steps", OffIsZero, "-1 = 0"},
      {t + "test_freq", "grpo.eval_steps", OffIsZero, "-1 = 0"},
      {t + "max_actor_ckpt_to_keep", "grpo.save_total_limit", nullptr, ""},
      {t + "default_local_dir", "output_dir", nullptr, ""},
      {t + "experiment_name", "name", nullptr, ""}};
}

/// What several of theirs say together.
constexpr std::pair<const char*, const char*> kTogether[] = {
    {"actor_rollout_ref.actor.clip_ratio", "grpo.epsilon, where clip_ratio_low is not given"},
    {"actor_rollout_ref.actor.ppo_mini_batch_size",
     "grpo.mini_batches = data.train_batch_size / ppo_mini_batch_size"},
    {"actor_rollout_ref.actor.use_kl_loss, kl_loss_coef",
     "grpo.beta = kl_loss_coef (0.001) if use_kl_loss, else 0"},
    {"actor_rollout_ref.actor.policy_loss.loss_mode",
     "grpo.loss_type: vanilla = dapo, gspo, sapo; cispo with cispo_relative"},
    {"algorithm.use_kl_in_reward, algorithm.kl_ctrl.kl_coef",
     "grpo.kl_in_reward and grpo.beta = kl_coef (0.001)"},
    {"reward_model.overlong_buffer.enable, len",
     "grpo.soft_overlong = {max_length: data.max_response_length, buffer: len}"}};

class Tree {
 public:
  Tree(Json* root, const std::string& where) : root_(root), where_(where) {}

  [[noreturn]] void Fail(const std::string& key, const std::string& what) const {
    throw UserError(where_ + ": " + key + ": " + what);
  }

  const Json* Find(const std::string& key) const {
    const Json* at = root_;
    std::stringstream in(key);
    for (std::string part; std::getline(in, part, '.');) {
      if (!at->is_object() || !at->contains(part)) return nullptr;
      at = &(*at)[part];
    }
    return at;
  }

  /// The value, taken out with the sections that it leaves empty.
  std::optional<Json> Take(const std::string& key) { return Take(root_, key); }

  void Put(const std::string& theirs, const std::string& ours, Json value) {
    if (Find(ours)) Fail(theirs, "given twice, also as " + ours + "; keep one");
    Json* at = root_;
    std::stringstream in(ours);
    for (std::string part; std::getline(in, part, '.');) {
      if (at->is_null()) *at = Json::object();
      if (!at->is_object()) Fail(theirs, ours + " lies inside a value that is no section");
      at = &(*at)[part];
    }
    *at = std::move(value);
  }

 private:
  std::optional<Json> Take(Json* at, const std::string& key) {
    const std::size_t dot = key.find('.');
    const std::string part = key.substr(0, dot);
    if (!at->is_object() || !at->contains(part)) return std::nullopt;
    std::optional<Json> value;
    Json& inner = (*at)[part];
    if (dot == std::string::npos) {
      value = std::move(inner);
      at->erase(part);
      return value;
    }
    value = Take(&inner, key.substr(dot + 1));
    if (value && inner.empty()) at->erase(part);
    return value;
  }

  Json* root_;
  const std::string& where_;
};

bool IsOn(Tree& tree, const std::string& key) {
  const std::optional<Json> value = tree.Take(key);
  if (!value || value->is_null()) return false;
  if (!value->is_boolean()) tree.Fail(key, Brief(*value) + " must be true or false");
  return value->get<bool>();
}

void ResolveMiniBatches(Tree& tree) {
  const std::string key = "actor_rollout_ref.actor.ppo_mini_batch_size";
  const std::optional<Json> size = tree.Take(key);
  if (!size) return;
  const Json* groups = tree.Find("grpo.groups_per_step");
  const bool fits = groups && groups->is_number_unsigned() && size->is_number_unsigned() &&
                    *size > 0 && groups->get<std::uint64_t>() % size->get<std::uint64_t>() == 0;
  if (!fits) {
    tree.Fail(key, Brief(*size) + " must divide data.train_batch_size = " +
                       (groups ? Brief(*groups) : std::string("(not given)")));
  }
  tree.Put(key, "grpo.mini_batches", groups->get<std::uint64_t>() / size->get<std::uint64_t>());
}

void ResolveKl(Tree& tree) {
  const std::string actor = "actor_rollout_ref.actor.";
  const std::optional<Json> coefficient = tree.Take(actor + "kl_loss_coef");
  const std::optional<Json> in_reward = tree.Take("algorithm.kl_ctrl.kl_coef");
  if (IsOn(tree, actor + "use_kl_loss"))
    tree.Put(actor + "use_kl_loss", "grpo.beta", coefficient.value_or(0.001));
  if (IsOn(tree, "algorithm.use_kl_in_reward")) {
    tree.Put("algorithm.use_kl_in_reward", "grpo.kl_in_reward", true);
    tree.Put("algorithm.use_kl_in_reward", "grpo.beta", in_reward.value_or(0.001));
  }
}

void ResolveLossMode(Tree& tree) {
  const std::string key = "actor_rollout_ref.actor.policy_loss.loss_mode";
  const std::optional<Json> mode = tree.Take(key);
  if (!mode) return;
  const auto name =
      Names({{"vanilla", "dapo"}, {"gspo", "gspo"}, {"sapo", "sapo"}, {"cispo", "cispo"}})(*mode);
  if (!name) tree.Fail(key, Brief(*mode) + " must be one of vanilla, gspo, sapo, cispo");
  tree.Put(key, "grpo.loss_type", *name);
  if (*mode == "cispo") tree.Put(key, "grpo.cispo_relative", true);
}

void ResolveTogether(Tree& tree) {
  const std::string clip = "actor_rollout_ref.actor.clip_ratio";
  if (const std::optional<Json> ratio = tree.Take(clip); ratio && !tree.Find("grpo.epsilon"))
    tree.Put(clip, "grpo.epsilon", *ratio);
  ResolveMiniBatches(tree);
  ResolveKl(tree);
  ResolveLossMode(tree);
  const std::string overlong = "reward_model.overlong_buffer.";
  const std::optional<Json> length = tree.Take(overlong + "len");
  const std::optional<Json> factor = tree.Take(overlong + "penalty_factor");
  if (factor && *factor != 1)
    tree.Fail(overlong + "penalty_factor", Brief(*factor) + " must be 1: the penalty ends at -1");
  if (!IsOn(tree, overlong + "enable")) return;
  const Json* most = tree.Find("grpo.max_completion_length");
  if (!length || !most) tree.Fail(overlong + "enable", "needs len and data.max_response_length");
  tree.Put(overlong + "enable", "grpo.soft_overlong", {{"max_length", *most}, {"buffer", *length}});
}

const std::vector<Alias>& Table() {
  static const std::vector<Alias> table = [] {
    std::vector<Alias> all = Data();
    for (const auto& part : {Adapters(), Actor(), Algorithm()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return table;
}

}  // namespace

void ResolveAliases(Json* root, const std::string& where) {
  Tree tree(root, where);
  for (const Alias& alias : Table()) {
    const std::optional<Json> value = tree.Take(alias.theirs);
    if (!value) continue;
    const std::optional<Json> ours = alias.convert ? alias.convert(*value) : value;
    if (!ours) {
      tree.Fail(alias.theirs, Brief(*value) + " has no counterpart in " + alias.ours +
                                  (alias.says.empty() ? "" : " (" + alias.says + ")"));
    }
    tree.Put(alias.theirs, alias.ours, *ours);
  }
  ResolveTogether(tree);
}

std::string AliasTable() {
  std::ostringstream out;
  for (const Alias& alias : Table()) {
    out << alias.theirs << " -> " << alias.ours
        << (alias.says.empty() ? "" : " (" + alias.says + ")") << "\n";
  }
  for (const auto& [theirs, ours] : kTogether) out << theirs << " -> " << ours << "\n";
  return out.str();
}

}  // namespace temper::configs
