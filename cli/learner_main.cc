// `temper-learner`: the training side, the only program that links LibTorch. `temper` starts it
// where it is needed.
#include <climits>
#include <cstdio>
#include <filesystem>
#include <string_view>

#include "cli/args.h"
#include "cli/child.h"
#include "cli/job_args.h"
#include "cli/model.h"
#include "cli/program.h"
#include "configs/error.h"
#include "configs/version.h"
#include "engine/model_config.h"
#include "engine/probe.h"
#include "learner/communicator.h"
#include "learner/grpo.h"
#include "learner/probe.h"
#include "learner/process.h"
#include "learner/shared_batch.h"
#include "sft/sft.h"

namespace temper::cli {
namespace {

/// A job as one of its ranks: `run` gets the config and the others.
template <class Run>
int AsRank(const JobArgs& job, configs::Job kind, Run run) {
  const learner::RankPlace place = learner::ReadRankPlace();
  configs::Config config = job.Read(kind, /*owns=*/place.rank == 0);
  if (config.learner.ranks > 1 && config.learner.ranks != place.size) {
    throw UserError("learner.ranks: is " + std::to_string(config.learner.ranks) +
                    ", but WORLD_SIZE is " + std::to_string(place.size) +
                    (place.size == 1 ? " or not set; start the ranks with temper or torchrun"
                                     : "; unset learner.ranks, or start as many"));
  }
  config.learner.ranks = place.size;  // torchrun decides
  learner::UseThreads(config.threads);
  return learner::OnDevice(learner::DeviceOf(place, config.device), [&] {
    learner::Communicator ranks(place, config.device, config.learner.rank_timeout_s);
    learner::MustRunTheSame(ranks, config);
    return run(config, ranks);
  });
}

int Sft(const Arguments& arguments) {
  JobArgs job;
  Args args("temper sft", "Supervised fine-tuning on rows of prompt and completion.");
  job.Declare(&args);
  if (!job.Parse(&args, arguments)) return 0;
  return AsRank(job, configs::Job::kSft, sft::RunSft);
}

int Grpo(const Arguments& arguments) {
  JobArgs job;
  std::string bind, from;
  Args args("temper-learner grpo",
            "The learner of a GRPO run; actors and reward workers connect to it.");
  job.Declare(&args);
  args.Text("--bind", "EP", "ZeroMQ endpoint instead of wire.bind", &bind);
  args.Text("--from", "RUN", "train the rollouts that RUN has stored; nobody connects", &from);
  if (!job.Parse(&args, arguments)) return 0;
  const auto folder = std::filesystem::path(ThisProgram()).parent_path();
  return AsRank(job, configs::Job::kGrpo, [&](const auto& config, learner::Communicator& ranks) {
    return learner::RunGrpo(config, ranks, bind, {(folder / "temper").string(), "reward-zygote"},
                            from);
  });
}

void DeclareProbe(Args* args, learner::ProbeOptions* options, std::string* ids) {
  options->threads = 0;
  args->Text("--model", "DIR", "model folder", &options->model_dir).Required();
  args->Text("--ids", "F.json", "[[ids...], ...], used as given", ids).Required();
  args->Text("--out", "O.safetensors", "written", &options->out).Required();
  args->Text("--dtype", "M", "fp32, bf16, fp8 or fp8-w8a8", &options->dtype);
  args->Text("--cache-dtype", "C", "how the actor stores keys and values", &options->cache_dtype);
  args->Text("--fp8-scale", "S", "of weights quantised here: pow2 or fp32", &options->fp8_scale);
  args->Integer("--threads", "0 = all cores", 0, 4096, &options->threads);
}

void ReadIds(learner::ProbeOptions* options, const std::string& ids) {
  options->threads = learner::UseThreads(options->threads);
  options->ids = engine::ReadSequences(ids, engine::ReadModelConfig(options->model_dir).vocab_size);
}

int Logprobs(const Arguments& arguments) {
  learner::ProbeOptions options;
  std::string ids, side, prompt_lens;
  int batch = 1, chunk = 1;
  Args args("temper probe logprobs", "The learner's side: one packed forward.");
  DeclareProbe(&args, &options, &ids);
  args.Text("--side", "S", "learner", &side);
  args.Text("--prompt-lens", "[..]", "neighbours with the same prompt share it; 1 each by default",
            &prompt_lens);
  // The actor's options may stand in the same command line; packing has no use for them.
  args.Integer("--batch", "of no effect here", 1, INT_MAX, &batch);
  args.Integer("--chunk", "of no effect here", 1, INT_MAX, &chunk);
  if (!args.Parse(arguments)) return 0;
  ReadIds(&options, ids);
  options.prompt_lens = engine::PromptLengths(engine::ParsePromptLens(prompt_lens), options.ids);
  learner::ProbeLogprobs(options);
  return 0;
}

int Grad(const Arguments& arguments) {
  learner::ProbeOptions options;
  std::string ids, mask_path;
  Args args("temper probe grad", "Gradient of every weight for given ids and masks.");
  DeclareProbe(&args, &options, &ids);
  args.Text("--mask", "M.json", "[[0 or 1, ...], ...], like the ids", &mask_path).Required();
  if (!args.Parse(arguments)) return 0;
  ReadIds(&options, ids);
  const Json list = configs::ReadJsonFile(mask_path);
  if (!list.is_array()) throw UserError(mask_path + ": must be [[0 or 1, ...], ...]");
  std::vector<std::vector<std::int32_t>> mask;
  for (const Json& row : list) {
    if (!row.is_array()) throw UserError(mask_path + ": must be [[0 or 1, ...], ...]");
    mask.emplace_back();
    for (const Json& item : row) {
      mask.back().push_back(static_cast<std::int32_t>(configs::GetInt(item, mask_path, 0, 1)));
    }
  }
  learner::ProbeGrad(options, mask);
  return 0;
}

int Probe(const Arguments& args) {
  constexpr Command kProbes[] = {{"logprobs", "log-probs of given ids, packed", Logprobs},
                                 {"grad", "gradient of every weight", Grad}};
  return RunGroup("temper-learner probe", "The training side's probes.", kProbes, args);
}

}  // namespace
}  // namespace temper::cli

int main(int argc, char** argv) {
  using namespace temper::cli;
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    std::printf("temper-learner %s, built with LibTorch %s\n", temper::kVersion,
                TEMPER_TORCH_VERSION);
    return 0;
  }
  temper::learner::PinNumerics(argv);
  constexpr Command kCommands[] = {
      {"sft", "supervised fine-tuning", Sft},
      {"grpo", "the learner of a GRPO run", Grpo},
      {"probe", "log-probs and gradients of the training side", Probe},
  };
  return RunProgram("temper-learner", "The training side of Temper.", kCommands, argc, argv);
}
