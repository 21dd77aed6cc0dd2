#include "cli/commands.h"
#include "reward/zygote.h"

namespace temper::cli {

int RewardZygote(const Arguments&) { return reward::ZygoteMain(reward::kZygoteFd); }

}  // namespace temper::cli
