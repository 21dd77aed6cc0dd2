#pragma once
// The commands of `temper runs` beyond looking: export, verify, replay, diff, backup, prune.
#include "cli/program.h"

namespace temper::cli {

int RunsExport(const Arguments& args);
int RunsVerify(const Arguments& args);
int RunsDiff(const Arguments& args);
int RunsBackup(const Arguments& args);
int RunsPrune(const Arguments& args);
int RunsReplay(const Arguments& args);

}  // namespace temper::cli
