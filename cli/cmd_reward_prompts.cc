#include <cstdio>

#include "cli/args.h"
#include "cli/reward_commands.h"
#include "configs/error.h"
#include "configs/files.h"
#include "reward/task.h"

namespace temper::cli {

int RewardPrompts(const Arguments& arguments) {
  std::string script, out, split = "train";
  int count = 1000;
  std::int64_t seed = 0;
  int held = 500;
  bool json = false;
  Args args("temper reward prompts", "Writes the rows that a script's prompts(rng, n) makes.");
  args.Positional("SCRIPT", "a Lua file with prompts(rng, n)", &script);
  args.Integer("--n", "rows", 1, 100000000, &count);
  args.Integer("--seed", "other seeds make other rows", std::int64_t{0}, INT64_MAX, &seed);
  args.Text("--split", "train|heldout", "no prompt of heldout is in train", &split);
  args.Integer("--heldout", "rows of the held-out split that train must not have", 0, 1000000,
               &held);
  args.Text("--out", "F.jsonl", "the file; by default stdout", &out);
  args.Flag("--json", "a row a line (the only form)", &json);
  if (!args.Parse(arguments)) return 0;
  if (split != "train" && split != "heldout") {
    args.Fail("--split: must be train or heldout");
  }
  reward::TaskOptions options;
  options.seed = static_cast<std::uint64_t>(seed);
  options.heldout = held;
  const std::vector<std::string> rows = split == "train"
                                            ? reward::TrainRows(script, options, count)
                                            : reward::HeldoutRows(script, options, count);
  std::string text;
  for (const std::string& row : rows) text += row + "\n";
  if (out.empty()) {
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else {
    configs::WriteWholeFile(out, text);
  }
  return 0;
}

}  // namespace temper::cli
