#include "cli/args.h"
#include "cli/commands.h"
#include "cli/model.h"
#include "cli/storing.h"
#include "configs/error.h"
#include "configs/json.h"
#include "engine/checkpoint.h"

namespace temper::cli {

int Init(const Arguments& arguments) {
  std::string arch, tokenizer, dtype = "fp32", scale = "fp32", out;
  std::int64_t seed = 0;
  int threads = 0;
  Args args("temper init", "Makes a random model in Hugging Face layout.");
  args.Text("--arch", "FILE.json", "a config.json without weights", &arch).Required();
  args.Text("--tokenizer", "DIR", "folder with tokenizer.json", &tokenizer).Required();
  args.Integer("--seed", "of the weights", std::int64_t{0}, INT64_MAX, &seed);
  args.Text("--dtype", "D", "fp32, bf16 or fp8: how the weights are stored", &dtype);
  args.Text("--scale", "S", "of fp8 blocks: fp32 (as published) or pow2", &scale);
  args.Integer("--threads", "0 = all cores", 0, 4096, &threads);
  args.Text("--out", "DIR", "the model's folder; must not exist", &out).Required();
  if (!args.Parse(arguments)) return 0;
  engine::InitModel(arch, tokenizer, static_cast<std::uint64_t>(seed),
                    engine::ParseStorage(dtype, scale, args.command() + ": --dtype"), out,
                    Threads(threads), engine::kShardBytes, ShowStoring("init"));
  const engine::ModelConfig config =
      engine::ParseModelConfig(configs::ReadJsonFile(out + "/config.json"), out);
  std::int64_t parameters = 0;
  for (const engine::TensorSpec& tensor : engine::RequiredTensors(config)) {
    parameters += tensor.count();
  }
  PrintLine(
      Json{{"model", out}, {"parameters", parameters}, {"seed", seed}, {"dtype", dtype}}.dump());
  return 0;
}

}  // namespace temper::cli
