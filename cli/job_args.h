#pragma once
// CONFIG [--set k=v]... [--resume]: how sft and grpo are told what to do.
#include "cli/args.h"
#include "configs/config.h"

namespace temper::cli {

struct JobArgs {
  std::string config_path;
  std::vector<std::string> sets;
  bool resume = false, help_keys = false;

  void Declare(Args* args);
  /// Parses; false: help was printed.
  bool Parse(Args* args, const std::vector<std::string>& arguments);
  /// Reads and checks the file. An output_dir that exists is a UserError unless the run is resumed,
  /// or another rank, which may have begun, `owns` it.
  configs::Config Read(configs::Job job, bool owns = true) const;
};

}  // namespace temper::cli
