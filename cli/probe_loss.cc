#include <cmath>
#include <map>

#include "cli/args.h"
#include "cli/commands.h"
#include "configs/error.h"
#include "engine/safetensors.h"
#include "learner/core/loss.h"

namespace temper::cli {
namespace {

using Shape = std::vector<std::int64_t>;

std::string Text(const Shape& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return (text.empty() ? "[" : text) + "]";
}

struct Inputs {
  std::int64_t n = 0, t = 0;
  std::vector<float> logp, old_logp, rollout_logp, ref_logp, mask;
  std::vector<double> rewards;
};

std::vector<float> Read(const engine::SafetensorsFile& file, const std::string& name,
                        const Shape& want) {
  if (!file.Has(name)) {
    throw UserError(file.path() + ": tensor " + name + " is missing; it must be F32 " + Text(want));
  }
  const Shape& shape = file.tensors().at(name).shape;
  if (shape != want) {
    throw UserError(file.path() + ": " + name + " is " + Text(shape) + "; it must be " +
                    Text(want) + " as logp says");
  }
  return file.ReadFloats(name);
}

Inputs ReadInputs(const std::string& path, const configs::Grpo& grpo) {
  const engine::SafetensorsFile file(path);
  if (!file.Has("logp") || file.tensors().at("logp").shape.size() != 2) {
    throw UserError(path + ": a tensor logp F32 [N, T] is required");
  }
  const Shape shape = file.tensors().at("logp").shape;
  Inputs in;
  in.n = shape[0];
  in.t = shape[1];
  if (in.n % grpo.num_generations != 0) {
    throw UserError(path + ": logp has " + std::to_string(in.n) + " rows; groups of " +
                    std::to_string(grpo.num_generations) + " (grpo.num_generations) must fit");
  }
  in.logp = Read(file, "logp", shape);
  in.old_logp = Read(file, "old_logp", shape);
  in.rollout_logp = Read(file, "rollout_logp", shape);
  if (grpo.beta != 0 || file.Has("ref_logp")) in.ref_logp = Read(file, "ref_logp", shape);
  in.mask = Read(file, "mask", shape);
  for (const float m : in.mask) {
    if (m != 0 && m != 1)
      throw UserError(path + ": mask holds " + std::to_string(m) + "; only 0 and 1 may be");
  }
  const std::vector<float> rewards = Read(file, "rewards", {in.n});
  in.rewards.assign(rewards.begin(), rewards.end());
  return in;
}

void Write(const std::string& path, const Inputs& in, const learner::LossOutput& out,
           const std::vector<double>& advantages) {
  engine::SafetensorsWriter writer(path, {{"loss", engine::Dtype::kF32, {1}},
                                          {"grad", engine::Dtype::kF32, {in.n, in.t}},
                                          {"advantages", engine::Dtype::kF32, {in.n}}});
  const float loss = static_cast<float>(out.loss);
  writer.WriteFloats({&loss, 1});
  writer.WriteFloats(out.grad);
  writer.WriteFloats(std::vector<float>(advantages.begin(), advantages.end()));
  writer.Close();
}

}  // namespace

int ProbeLoss(const Arguments& arguments) {
  std::string in_path, out_path;
  std::vector<std::string> sets;
  bool json = false;
  Args args("temper probe loss", "Loss, gradient and advantages of given log-probs and rewards.");
  args.Text("--in", "F.safetensors", "logp old_logp rollout_logp ref_logp mask [N,T], rewards [N]",
            &in_path);
  args.Required();
  args.Text("--out", "O.safetensors", "loss [1], grad [N,T], advantages [N]", &out_path).Required();
  args.List("--set", "grpo.KEY=VALUE", "a setting of the loss", &sets);
  args.Flag("--json", "metrics as JSON (the only form)", &json);
  if (!args.Parse(arguments)) return 0;
  const configs::Grpo grpo = configs::GrpoFromSets(sets);
  const Inputs in = ReadInputs(in_path, grpo);
  const learner::LossInput input{static_cast<int>(in.n),
                                 static_cast<int>(in.t),
                                 in.logp,
                                 in.old_logp,
                                 in.rollout_logp,
                                 in.ref_logp,
                                 in.mask};
  const std::vector<double> rewards = learner::PenalizeRewards(grpo, in.rewards, input);
  const std::vector<double> advantages =
      learner::Advantages(grpo, rewards, in.mask, static_cast<int>(in.t));
  const learner::LossOutput out =
      learner::PolicyLoss(grpo, input, advantages, learner::CountTotals(input));
  Write(out_path, in, out, advantages);
  Json metrics = {{"loss", out.loss}};
  for (const Json& part : {learner::RewardMetrics(grpo, in.rewards), out.metrics}) {
    for (const auto& [key, value] : part.items()) metrics[key] = value;
  }
  PrintLine(metrics.dump());
  return 0;
}

}  // namespace temper::cli
