#include "cli/model.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>
#include <utility>

#include "engine/stop_ids.h"

namespace temper::cli {
namespace {

/// Watches the newest text of live samples for stop strings.
class StopStrings {
 public:
  StopStrings(const engine::Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : tokenizer_(tokenizer), stops_(stops) {}

  /// True when the newest token completes a stop string.
  bool Ends(std::uint64_t group, std::uint32_t sample, const std::vector<std::int32_t>& ids) {
    Tail& tail = tails_[{group, sample}];
    const std::size_t before = tail.text.size();
    for (; tail.tokens < ids.size(); ++tail.tokens) {
      tail.text += tokenizer_.TokenBytes(ids[tail.tokens]);
    }
    for (const std::string& stop : stops_) {
      const std::size_t from = before >= stop.size() ? before - stop.size() + 1 : 0;
      if (tail.text.find(stop, from) != std::string::npos) return true;
    }
    return false;
  }

  void Forget(std::uint64_t group, std::uint32_t sample) { tails_.erase({group, sample}); }

  /// The text up to the first stop string.
  std::string Cut(const std::string& text) const {
    std::size_t end = text.size();
    for (const std::string& stop : stops_) end = std::min(end, text.find(stop));
    return text.substr(0, end);
  }

 private:
  struct Tail {
    std::string text;
    std::size_t tokens = 0;
  };
  const engine::Tokenizer& tokenizer_;
  const std::vector<std::string>& stops_;
  std::map<std::pair<std::uint64_t, std::uint32_t>, Tail> tails_;
};

}  // namespace

int Threads(int wish) {
  return wish > 0 ? wish : std::max(1u, std::thread::hardware_concurrency());
}

Model LoadModel(const std::string& dir, const engine::Numerics& numerics) {
  engine::ModelConfig config = engine::ReadModelConfig(dir);
  engine::Tokenizer tokenizer(dir);
  std::vector<std::int32_t> stops = engine::StopIds(config, tokenizer);
  auto weights = std::make_shared<engine::Weights>(engine::Weights::Load(dir, config, numerics));
  return {std::move(config), std::move(weights), std::move(tokenizer), std::move(stops)};
}

double SampleAll(const Model& model, const std::vector<std::vector<std::int32_t>>& prompts,
                 const Sampling& sampling, const std::function<void(Completion)>& give) {
  engine::EngineOptions options;
  options.threads = Threads(sampling.threads);
  options.valid_ids = model.tokenizer.size();
  options.device = sampling.device;
  engine::Engine engine(model.weights, options);
  std::vector<std::uint32_t> samples;
  for (int i = 0; i < sampling.n; ++i) samples.push_back(static_cast<std::uint32_t>(i));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    engine.Add({i, prompts[i], samples, sampling.seed, sampling.max_new_tokens, sampling.params,
                model.stop_ids});
  }
  StopStrings stops(model.tokenizer, sampling.stops);
  if (!sampling.stops.empty()) {
    engine.OnToken(
        [&](std::uint64_t group, std::uint32_t sample, const std::vector<std::int32_t>& ids) {
          return stops.Ends(group, sample, ids);
        });
  }
  const auto began = std::chrono::steady_clock::now();
  std::map<std::pair<std::uint64_t, std::uint32_t>, engine::FinishedSample> early;
  std::pair<std::uint64_t, std::uint32_t> next{0, 0};
  std::vector<engine::FinishedSample> finished;
  for (bool more = true; more;) {
    finished.clear();
    more = engine.Step(&finished);
    for (engine::FinishedSample& sample : finished) {
      stops.Forget(sample.group, sample.sample);
      early.emplace(std::pair(sample.group, sample.sample), std::move(sample));
    }
    for (auto found = early.find(next); found != early.end(); found = early.find(next)) {
      std::string text = stops.Cut(model.tokenizer.Decode(found->second.ids, true));
      give({next.first, std::move(found->second), std::move(text)});
      early.erase(found);
      if (++next.second == samples.size()) next = {next.first + 1, 0};
    }
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

Json CompletionJson(const Completion& completion, const std::vector<std::int32_t>& prompt,
                    std::uint64_t seed) {
  const engine::FinishedSample& s = completion.sample;
  return {{"prompt_index", completion.prompt},
          {"sample", s.sample},
          {"seed", seed},
          {"text", completion.text},
          {"prompt_ids", prompt},
          {"ids", s.ids},
          {"logp", s.logp},
          {"logp_processed", s.logp_processed},
          {"log_kept_mass", s.log_kept_mass},
          {"versions", s.versions},
          {"finish_reason", engine::FinishReasonName(s.finish)}};
}

}  // namespace temper::cli
