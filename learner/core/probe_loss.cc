#include "learner/core/probe_loss.h"

#include <cmath>
#include <limits>
#include <vector>

#include "configs/error.h"
#include "engine/safetensors.h"
#include "learner/core/loss.h"

namespace temper::learner {
namespace {

using Shape = std::vector<std::int64_t>;

std::string Show(const Shape& shape) {
  std::string text = "[";
  for (std::int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

/// The file, with errors that name it and the tensor.
class BatchFile {
 public:
  explicit BatchFile(const std::string& path) : file_(path) {}

  [[noreturn]] void Refuse(const std::string& what) const {
    throw UserError(file_.path() + ": " + what);
  }

  /// [N, T] of a tensor that must be there.
  const Shape& MatrixShape(const std::string& name) const {
    const Shape& shape = Info(name).shape;
    if (shape.size() != 2) Refuse(name + ": found shape " + Show(shape) + "; must be [N, T]");
    for (std::int64_t size : shape) {
      if (size > std::numeric_limits<int>::max()) {
        Refuse(name + ": found shape " + Show(shape) + "; sizes must be below 2^31");
      }
    }
    return shape;
  }

  std::vector<float> Read(const std::string& name, const Shape& shape,
                          const std::string& reason) const {
    const engine::TensorInfo& info = Info(name);
    if (info.dtype != engine::Dtype::kF32) {
      Refuse(name + ": found " + engine::DtypeName(info.dtype) + "; must be F32");
    }
    if (info.shape != shape) {
      Refuse(name + ": found shape " + Show(info.shape) + "; must be " + Show(shape) + " " +
             reason);
    }
    return file_.ReadFloats(name);
  }

 private:
  const engine::TensorInfo& Info(const std::string& name) const {
    const auto it = file_.tensors().find(name);
    if (it == file_.tensors().end()) {
      Refuse(name +
             ": missing; needed are logp, old_logp, rollout_logp, mask, rewards, and "
             "ref_logp with grpo.beta > 0");
    }
    return it->second;
  }

  engine::SafetensorsFile file_;
};

struct ProbeBatch {
  int n = 0, t = 0;
  std::vector<float> logp, old_logp, rollout_logp, ref_logp, mask;
  std::vector<double> rewards;

  LossInput Input() const { return {n, t, logp, old_logp, rollout_logp, ref_logp, mask}; }
};

void CheckBatch(const configs::Grpo& config, const BatchFile& file, const ProbeBatch& batch) {
  if (config.num_generations < 2) {
    file.Refuse("grpo.num_generations: found " + std::to_string(config.num_generations) +
                "; a group of one has nothing to compare with, must be >= 2");
  }
  if (batch.n % config.num_generations != 0) {
    file.Refuse("rewards: found " + std::to_string(batch.n) +
                " rows; must be a multiple of grpo.num_generations = " +
                std::to_string(config.num_generations));
  }
  for (int i = 0; i < batch.n; ++i) {
    if (std::isinf(batch.rewards[i])) {
      file.Refuse("rewards: found an infinite value in row " + std::to_string(i) +
                  "; must be finite, or NaN for not applicable");
    }
  }
  for (std::size_t i = 0; i < batch.mask.size(); ++i) {
    if (batch.mask[i] != 0 && batch.mask[i] != 1) {
      file.Refuse("mask: found " + std::to_string(batch.mask[i]) + " in row " +
                  std::to_string(i / batch.t) + ", column " + std::to_string(i % batch.t) +
                  "; must be 0 or 1");
    }
  }
}

ProbeBatch ReadBatch(const configs::Grpo& config, const std::string& path) {
  const BatchFile file(path);
  const Shape shape = file.MatrixShape("logp");
  const std::string as_logp = "as logp";
  ProbeBatch batch;
  batch.n = static_cast<int>(shape[0]);
  batch.t = static_cast<int>(shape[1]);
  batch.logp = file.Read("logp", shape, as_logp);
  batch.old_logp = file.Read("old_logp", shape, as_logp);
  batch.rollout_logp = file.Read("rollout_logp", shape, as_logp);
  if (config.beta != 0) batch.ref_logp = file.Read("ref_logp", shape, as_logp);
  batch.mask = file.Read("mask", shape, as_logp);
  const std::vector<float> rewards = file.Read("rewards", {shape[0]}, "(a value a row of logp)");
  batch.rewards.assign(rewards.begin(), rewards.end());
  CheckBatch(config, file, batch);
  return batch;
}

void WriteResult(const std::string& path, const ProbeBatch& batch, const LossOutput& out,
                 const std::vector<double>& advantages) {
  const auto f32 = engine::Dtype::kF32;
  engine::SafetensorsWriter writer(
      path,
      {{"loss", f32, {1}}, {"grad", f32, {batch.n, batch.t}}, {"advantages", f32, {batch.n}}});
  const float loss = static_cast<float>(out.loss);
  writer.WriteFloats({&loss, 1});
  writer.WriteFloats(out.grad);
  writer.WriteFloats(std::vector<float>(advantages.begin(), advantages.end()));
  writer.Close();
}

}  // namespace

Json ProbeLoss(const configs::Grpo& config, const std::string& in_path,
               const std::string& out_path) {
  const ProbeBatch batch = ReadBatch(config, in_path);
  const LossInput in = batch.Input();
  const std::vector<double> rewards = PenalizeRewards(config, batch.rewards, in);
  const std::vector<double> advantages = Advantages(config, rewards, batch.mask, batch.t);
  const LossOutput out = PolicyLoss(config, in, advantages, CountTotals(in));
  WriteResult(out_path, batch, out, advantages);
  Json result;
  result["loss"] = out.loss;
  result.update(RewardMetrics(config, batch.rewards));
  result.update(out.metrics);
  return result;
}

}  // namespace temper::learner
