#pragma once
// Settings under the names of other trainers: verl's whole paths, TRL's where ours stand elsewhere.
#include <string>

#include "configs/json.h"

namespace temper::configs {

/// Moves what stands under another trainer's name to our key, converted where the meaning differs
/// in form (top_k -1 is 0, use_kl_loss is beta 0). Throws UserError "WHERE: NAME: ..." for a value
/// that has no counterpart, and for a setting given under both names.
void ResolveAliases(Json* tree, const std::string& where);

/// "actor_rollout_ref.rollout.n -> grpo.num_generations", a line each.
std::string AliasTable();

}  // namespace temper::configs
