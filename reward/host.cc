#include "reward/host.h"

#include <cmath>
#include <optional>
#include <set>

#include "configs/error.h"
#include "reward/channel.h"
#include "reward/function.h"
#include "reward/remote.h"
#include "reward/reward_model.h"
#include "reward/rules.h"
#include "reward/sandbox.h"
#include "reward/zygote.h"

namespace temper::reward {
namespace {

bool IsRule(const FunctionSpec& f) {
  return f.script.empty() && f.model.empty() && f.remote.empty();
}

void CheckOptionsOf(const FunctionSpec& f) {
  try {
    CheckRuleOptions(*FindRule(f.rule), Json::parse(f.options));
  } catch (const std::exception& error) {
    throw UserError("rewards: " + f.name + ": " + error.what());
  }
}

void CheckOptions(const HostOptions& options) {
  if (options.functions.empty()) {
    throw UserError("rewards: no reward function; name a script or a rule");
  }
  std::set<std::string> names;
  for (const FunctionSpec& f : options.functions) {
    if (f.name.empty() || !names.insert(f.name).second) {
      throw UserError("rewards: two functions are named '" + f.name + "'; give one a `name`");
    }
    if (IsRule(f) && FindRule(f.rule) == nullptr) {
      throw UserError("rewards: " + f.name + ": there is no rule '" + f.rule + "'; there are " +
                      RuleNames());
    }
    if (IsRule(f) && !f.options.empty()) CheckOptionsOf(f);
    if (!std::isfinite(f.weight)) throw UserError("rewards: " + f.name + ": weight must be finite");
  }
  if (options.aggregation != "sum" && options.aggregation != "normalize_then_sum") {
    throw UserError("reward.aggregation: must be \"sum\" or \"normalize_then_sum\"");
  }
  const Limits& limits = options.limits;
  if (!(limits.timeout_s > 0 && limits.timeout_s <= 3600) || limits.max_instructions < 1000 ||
      limits.memory_mib < 1 || limits.memory_mib > 1 << 20) {
    throw UserError(
        "reward: timeout_s must be in (0, 3600], max_instructions at least 1000, memory_mib at "
        "least 1");
  }
}

Job MakeJob(const FunctionSpec& f, const HostOptions& options) {
  Job job;
  job.name = f.path.empty() ? f.name : f.path;
  job.script = f.script;
  if (f.script.empty()) {
    job.rule = f.rule;
    job.options = f.options;
  }
  job.trace = options.trace;
  job.limits = options.limits;
  return job;
}

std::unique_ptr<Backend> MakeBackend(const FunctionSpec& f, const HostOptions& options,
                                     Zygote& zygote) {
  if (!f.model.empty()) {
    return std::make_unique<RewardModel>(f.model, f.dtype, options.model_threads);
  }
  if (!f.remote.empty()) {
    return std::make_unique<RemoteReward>(f.remote, f.timeout_s, f.retries);
  }
  return std::make_unique<Channel>(zygote, MakeJob(f, options), options.start_timeout_s);
}

void AddParts(const FunctionSpec& f, Outcome outcome, ScoreResult* result) {
  result->parts.reserve(result->parts.size() + 1 + outcome.fields.size());
  ScorePart part;
  part.name = f.name;
  part.value = outcome.score;
  part.weight = f.weight;
  part.status = StatusName(outcome.status);
  part.message = std::move(outcome.message);
  part.line = outcome.line;
  part.script_sha256 = f.sha256;
  part.micros = outcome.micros;
  part.instructions = outcome.instructions;
  part.trace = std::move(outcome.trace);
  result->parts.push_back(std::move(part));
  for (const auto& [field, value] : outcome.fields) {
    ScorePart extra;
    extra.name = f.name + "/" + field;
    extra.value = value;
    extra.weight = 0;
    extra.status = StatusName(Status::kOk);
    extra.script_sha256 = f.sha256;
    result->parts.push_back(std::move(extra));
  }
}

/// (score - mean) / (std + 1e-4) over the samples that a function applies to, with n - 1 in the
/// standard deviation; a lone one gives 0 (TRL's normalize_then_sum, rl-facts 6.1).
void Normalise(std::vector<std::optional<double>>* scores) {
  double sum = 0, count = 0, squares = 0, first = 0;
  for (const auto& score : *scores) {
    if (!score) continue;
    if (count == 0) first = *score;
    sum += *score - first;  // equal scores give exactly 0 whatever their value
    ++count;
  }
  const double mean = count > 0 ? sum / count : 0;
  for (const auto& score : *scores) {
    if (score) squares += (*score - first - mean) * (*score - first - mean);
  }
  const double deviation = count > 1 ? std::sqrt(squares / (count - 1)) : 0;
  for (auto& score : *scores) {
    if (score) *score = (*score - first - mean) / (deviation + 1e-4);
  }
}

}  // namespace

struct RewardHost::State {
  explicit State(HostOptions given) : options(std::move(given)) {
    CheckOptions(options);
    zygote = options.zygote ? options.zygote : std::make_shared<Zygote>(options.zygote_argv);
    for (const FunctionSpec& f : options.functions) {
      backends.push_back(MakeBackend(f, options, *zygote));
    }
  }

  HostOptions options;
  std::shared_ptr<Zygote> zygote;
  std::vector<std::unique_ptr<Backend>> backends;  // one a function; closed before the zygote
  std::string missing;
};

RewardHost::RewardHost(HostOptions options) : state_(std::make_unique<State>(std::move(options))) {}
RewardHost::RewardHost(RewardHost&&) noexcept = default;
RewardHost& RewardHost::operator=(RewardHost&&) noexcept = default;
RewardHost::~RewardHost() = default;

std::vector<ScoreResult> RewardHost::ScoreGroup(std::span<const SampleInput> samples) {
  std::vector<ScoreResult> results(samples.size());
  std::vector<bool> applies(samples.size(), false);
  std::vector<double> sums(samples.size(), 0.0);
  for (std::size_t f = 0; f < state_->backends.size(); ++f) {
    const FunctionSpec& spec = state_->options.functions[f];
    std::vector<Outcome> outcomes = state_->backends[f]->Score(samples);
    std::vector<std::optional<double>> scores;
    for (const Outcome& outcome : outcomes) scores.push_back(outcome.score);
    if (state_->options.aggregation == "normalize_then_sum") Normalise(&scores);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const Status status = outcomes[i].status;
      AddParts(spec, std::move(outcomes[i]), &results[i]);
      if (status == Status::kOk) {
        applies[i] = true;
        sums[i] += spec.weight * *scores[i];
      } else if (IsFailure(status) && results[i].status.empty()) {
        results[i].status = StatusName(status);
      }
    }
  }
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (!results[i].status.empty()) continue;
    results[i].status = StatusName(applies[i] ? Status::kOk : Status::kNotApplicable);
    if (!applies[i]) continue;
    if (std::isfinite(sums[i])) {
      results[i].score = sums[i];
    } else {
      results[i].status = StatusName(Status::kInvalidReturn);  // finite parts, infinite sum
    }
  }
  return results;
}

void RewardHost::UseScripts(const ScriptTexts& files) {
  for (std::size_t f = 0; f < state_->backends.size(); ++f) {
    FunctionSpec& spec = state_->options.functions[f];
    if (spec.path.empty()) continue;
    for (const auto& [path, text] : files) {
      if (path != spec.path || text == spec.script) continue;
      spec.script = text;
      spec.sha256 = Sha256Hex(text);
      state_->backends[f] = MakeBackend(spec, state_->options, *state_->zygote);
    }
  }
}

void RewardHost::Check() {
  for (std::size_t f = 0; f < state_->backends.size(); ++f) {
    const Outcome outcome = state_->backends[f]->Check();
    if (outcome.status == Status::kOk) continue;
    const FunctionSpec& spec = state_->options.functions[f];
    throw UserError((spec.path.empty() ? spec.name : spec.path) + ":" +
                    (outcome.line > 0 ? std::to_string(outcome.line) + ":" : "") + " " +
                    outcome.message);
  }
}

const std::string& RewardHost::missing_isolation() const {
  for (const auto& backend : state_->backends) {
    const auto* const channel = dynamic_cast<const Channel*>(backend.get());
    if (channel == nullptr || channel->missing_isolation().empty()) continue;
    state_->missing = channel->missing_isolation();
  }
  return state_->missing;
}

int RewardHost::spawned() const {
  int total = 0;
  for (const auto& backend : state_->backends) {
    const auto* const channel = dynamic_cast<const Channel*>(backend.get());
    if (channel != nullptr) total += channel->spawned();
  }
  return total;
}

}  // namespace temper::reward
