#include "cli/args.h"
#include "cli/commands.h"
#include "cli/storing.h"
#include "engine/checkpoint.h"

namespace temper::cli {

int Convert(const Arguments& arguments) {
  std::string to, scale = "fp32", adapter, in, out;
  Args args("temper convert", "Stores a model another way: FP8 blocks, BF16 or FP32.");
  args.Text("--to", "D", "fp8, bf16 or fp32", &to).Required();
  args.Text("--scale", "S", "of fp8 blocks: fp32 (as published) or pow2", &scale);
  args.Text("--adapter", "DIR",
            "a LoRA folder as PEFT and temper write it, merged into the weights", &adapter);
  args.Positional("IN", "model folder", &in).Required();
  args.Positional("OUT", "the new folder; must not exist", &out).Required();
  args.Note(
      "Codes of a model that is FP8 already stay as they are; with --scale pow2 those of blocks "
      "whose multiplier is a power of two.\n");
  if (!args.Parse(arguments)) return 0;
  engine::ConvertModel(in, engine::ParseStorage(to, scale, args.command() + ": --to"), out,
                       engine::kShardBytes, ShowStoring("convert"), adapter);
  PrintLine(Json{{"model", out}, {"dtype", to}}.dump());
  return 0;
}

}  // namespace temper::cli
