#pragma once
// The subcommands of `temper`: each gets what follows its name and returns the exit code.
#include "cli/program.h"

namespace temper::cli {

int Quickstart(const Arguments& args);
int Init(const Arguments& args);
int Convert(const Arguments& args);
int Teach(const Arguments& args);
int Sft(const Arguments& args);
int Grpo(const Arguments& args);
int Actor(const Arguments& args);
int RewardWorker(const Arguments& args);
int RewardZygote(const Arguments& args);
int Generate(const Arguments& args);
int Eval(const Arguments& args);
int Reward(const Arguments& args);
int Runs(const Arguments& args);
int Probe(const Arguments& args);
int ProbeLoss(const Arguments& args);
int ProbeFp8(const Arguments& args);
int Bench(const Arguments& args);
int Doctor(const Arguments& args);
int Keys(const Arguments& args);

}  // namespace temper::cli
