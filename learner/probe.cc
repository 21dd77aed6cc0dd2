#include "learner/probe.h"

#include <torch/torch.h>

#include "configs/error.h"
#include "engine/probe.h"
#include "engine/safetensors.h"
#include "learner/policy.h"
#include "learner/process.h"

namespace temper::learner {

namespace {

std::unique_ptr<Policy> Load(const ProbeOptions& o, bool gradients) {
  Policy::Options options;
  options.numerics = engine::ParseNumerics(o.dtype, o.cache_dtype, o.fp8_scale);
  options.threads = UseThreads(o.threads);
  options.gradients = gradients;
  auto policy = std::make_unique<Policy>(engine::ReadModelConfig(o.model_dir), options);
  const engine::ModelConfig& c = policy->config();
  for (std::size_t i = 0; i < o.ids.size(); ++i) {
    const std::string where = "ids: sequence " + std::to_string(i);
    if (o.ids[i].empty()) throw UserError(where + " is empty; every sequence needs a token");
    if (int(o.ids[i].size()) > c.max_positions) {
      throw UserError(where + " has " + std::to_string(o.ids[i].size()) +
                      " tokens; the model has " + std::to_string(c.max_positions) + " positions");
    }
    for (std::int32_t id : o.ids[i]) {
      if (id < 0 || id >= c.vocab_size) {
        throw UserError(where + ": id " + std::to_string(id) + " must be in [0, " +
                        std::to_string(c.vocab_size) + ")");
      }
    }
  }
  policy->Load(o.model_dir);
  return policy;
}

std::shared_ptr<Pack> MakePack(const ProbeOptions& o) {
  auto pack = std::make_shared<Pack>();
  for (const auto& sequence : o.ids) pack->Add(sequence);
  return pack;
}

/// The sequences' prompts, each once for neighbours that share it, with the rest as branches.
struct PromptPack {
  std::shared_ptr<Pack> pack = std::make_shared<Pack>();
  std::vector<int> sequence;  // the branch of each sequence
};

PromptPack SharePrompts(const ProbeOptions& o) {
  PromptPack out;
  std::span<const std::int32_t> last;
  int trunk = -1;
  for (std::size_t i = 0; i < o.ids.size(); ++i) {
    const std::span<const std::int32_t> ids(o.ids[i]);
    const auto n = std::size_t(o.prompt_lens[i]);
    const auto prompt = ids.first(n);
    if (trunk < 0 || !std::equal(prompt.begin(), prompt.end(), last.begin(), last.end()))
      trunk = out.pack->Add(prompt);
    last = prompt;
    out.sequence.push_back(out.pack->AddBranch(trunk, ids.subspan(n)));
  }
  return out;
}

}  // namespace

void ProbeLogprobs(const ProbeOptions& options) {
  const auto policy = Load(options, /*gradients=*/false);
  const engine::ModelConfig& c = policy->config();
  const PromptPack packed = SharePrompts(options);
  const Pack& pack = *packed.pack;
  Targets targets;
  std::vector<std::vector<std::int32_t>> rows(options.ids.size());  // of a sequence's tokens
  for (std::size_t i = 0; i < options.ids.size(); ++i) {
    const int s = packed.sequence[i];
    for (int part : {pack.trunk[s], s}) {
      for (std::int32_t t = pack.start[part]; t < pack.start[part + 1]; ++t) rows[i].push_back(t);
    }
    targets.row.insert(targets.row.end(), rows[i].begin(), rows[i].end() - 1);
    targets.target.insert(targets.target.end(), options.ids[i].begin() + 1, options.ids[i].end());
  }
  Policy::Request request;
  request.gradients = false;
  const Policy::Result found = policy->Forward(packed.pack, targets, request);
  engine::LogprobsResult result;
  const float* logp = found.logp.data_ptr<float>();
  for (const std::vector<std::int32_t>& of : rows) {
    result.logp.emplace_back(logp, logp + of.size() - 1);
    logp += of.size() - 1;
    std::vector<std::int32_t> experts;
    for (const Routing& routing : found.routing) {
      for (std::int32_t t : of) {
        const auto first = routing.ids.begin() + std::int64_t(t) * c.top_k;
        experts.insert(experts.end(), first, first + c.top_k);
      }
    }
    result.experts.push_back(std::move(experts));
  }
  engine::WriteLogprobs(options.out, options.ids, int(found.routing.size()), c.top_k, result);
}

void ProbeGrad(const ProbeOptions& options, const std::vector<std::vector<std::int32_t>>& mask) {
  if (mask.size() != options.ids.size()) {
    throw UserError("mask: " + std::to_string(mask.size()) + " masks for " +
                    std::to_string(options.ids.size()) + " sequences; give one each");
  }
  Targets targets;
  std::int32_t first = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const std::string where = "mask: sequence " + std::to_string(i);
    if (mask[i].size() != options.ids[i].size()) {
      throw UserError(where + " has " + std::to_string(mask[i].size()) + " entries for " +
                      std::to_string(options.ids[i].size()) + " ids; give one each");
    }
    for (std::size_t t = 0; t < mask[i].size(); ++t) {
      if (mask[i][t] != 0 && (mask[i][t] != 1 || t == 0)) {
        throw UserError(where + ", entry " + std::to_string(t) + ": " + std::to_string(mask[i][t]) +
                        "; entries are 0 or 1, the first 0");
      }
      if (mask[i][t] == 0) continue;
      targets.row.push_back(first + std::int32_t(t) - 1);
      targets.target.push_back(options.ids[i][t]);
    }
    first += std::int32_t(mask[i].size());
  }
  if (targets.count() == 0) throw UserError("mask: no entry is 1; the loss would have no token");

  const auto policy = Load(options, /*gradients=*/true);
  const Policy::Result found = policy->Forward(MakePack(options), targets, {});
  const torch::Tensor loss = -found.logp.sum() / double(targets.count());
  loss.backward();
  policy->CollectGradients();

  Parameters& parameters = policy->parameters();
  std::vector<engine::SafetensorsWriter::Entry> entries{{"loss", engine::Dtype::kF32, {1}}};
  std::vector<const Parameters::Entry*> written;
  for (const Parameters::Entry& entry : parameters.entries()) {
    if (entry.spec.kind == engine::TensorSpec::Kind::kRouterBias ||
        parameters.IsMtp(entry.spec.name))
      continue;
    entries.push_back({entry.spec.name, engine::Dtype::kF32, entry.spec.shape});
    written.push_back(&entry);
  }
  engine::SafetensorsWriter writer(options.out, std::move(entries));
  const float value = loss.item<float>();
  writer.WriteFloats({&value, 1});
  for (const Parameters::Entry* entry : written) {
    writer.WriteFloats({parameters.gradients() + entry->offset, std::size_t(entry->spec.count())});
  }
  writer.Close();
}

}  // namespace temper::learner
