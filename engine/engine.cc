#include "engine/engine.h"

#include <algorithm>
#include <deque>

#include "configs/error.h"
#include "engine/forward.h"
#include "engine/latent_cache.h"

namespace temper::engine {

std::string FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

namespace {

/// A prompt being computed: its rows so far.
struct Prefill {
  GroupRequest request;
  LatentRows rows;
};

/// A running sample.
struct Live {
  std::shared_ptr<const GroupRequest> request;
  LatentRows rows;
  FinishedSample out;
};

}  // namespace

struct Engine::State {
  std::shared_ptr<Weights> weights;
  EngineOptions options;
  kernels::ThreadPool pool;
  Forward forward;
  LatentCache cache;
  std::deque<Prefill> waiting;  // front ones partly computed
  std::vector<Live> live;
  std::function<bool(std::uint64_t, std::uint32_t, const std::vector<std::int32_t>&)> stop;
  std::uint32_t version = 0;
  std::uint64_t generated = 0;
  // Buffers of a step.
  std::vector<std::int32_t> ids, positions;
  std::vector<float*> latent;
  std::vector<kernels::AttentionRow> attention;
  std::vector<float> hidden, picked, logits;

  State(std::shared_ptr<Weights> w, const EngineOptions& o)
      : weights(std::move(w)),
        options(o),
        pool(o.threads),
        forward(*weights, pool),
        cache(std::int64_t(weights->config().num_layers) * weights->config().latent_dim()) {}

  void AddRow(LatentRows& rows, std::int32_t id) {
    positions.push_back(rows.size());
    ids.push_back(id);
    latent.push_back(rows.Append());
    attention.push_back(
        {nullptr, rows.size()});  // keys are filled in when no vector moves any more
  }

  /// Samples one token for each (sample, logits row) and files it. Rows are independent, so threads
  /// share them freely.
  void Sample(const std::vector<std::pair<Live*, int>>& targets) {
    const int v = weights->config().vocab_size;
    const int valid = options.valid_ids > 0 ? std::min(options.valid_ids, v) : v;
    std::vector<kernels::SampledToken> tokens(targets.size());
    constexpr int kPart = 8;
    pool.Run(int((targets.size() + kPart - 1) / kPart), [&](int part) {
      const std::size_t end = std::min(targets.size(), std::size_t(part + 1) * kPart);
      for (std::size_t i = std::size_t(part) * kPart; i < end; ++i) {
        const Live& s = *targets[i].first;
        const float u = kernels::SampleUniform(s.request->seed, s.out.group, s.out.sample,
                                               std::uint32_t(s.out.ids.size()));
        tokens[i] = kernels::SampleToken(logits.data() + std::int64_t(targets[i].second) * v, v,
                                         valid, s.request->params, u);
      }
    });
    for (std::size_t i = 0; i < targets.size(); ++i) {
      FinishedSample& out = targets[i].first->out;
      out.ids.push_back(tokens[i].id);
      out.logp.push_back(tokens[i].logp);
      out.logp_processed.push_back(tokens[i].logp_processed);
      out.log_kept_mass.push_back(tokens[i].log_kept_mass);
      out.versions.push_back(version);
    }
    generated += targets.size();
  }

  /// Whether the sample ended with its newest token.
  bool Ended(Live& s) {
    const std::vector<std::int32_t>& stops = s.request->stop_ids;
    if (std::find(stops.begin(), stops.end(), s.out.ids.back()) != stops.end() ||
        (stop && stop(s.out.group, s.out.sample, s.out.ids))) {
      s.out.finish = FinishReason::kStop;
      return true;
    }
    s.out.finish = FinishReason::kLength;
    return int(s.out.ids.size()) >= s.request->max_new_tokens;
  }

  bool Step(std::vector<FinishedSample>* finished);
};

bool Engine::State::Step(std::vector<FinishedSample>* finished) {
  if (live.empty() && waiting.empty()) return false;
  const int h = weights->config().hidden_size;
  ids.clear();
  positions.clear();
  latent.clear();
  attention.clear();
  // One token for every live sample: its newest, not yet in the cache.
  for (Live& s : live) AddRow(s.rows, s.out.ids.back());
  const int decode_rows = int(ids.size());

  // Prompt tokens under the chunk budget, as long as their samples find room.
  int budget = options.chunk, room = options.max_rows - decode_rows, touched = 0;
  std::vector<int> last_rows;  // of prompts complete with this step
  while (touched < int(waiting.size()) && budget > 0) {
    Prefill& p = waiting[touched];
    if (room < int(p.request.samples.size()) && !(live.empty() && touched == 0)) break;
    room -= int(p.request.samples.size());
    while (budget > 0 && p.rows.size() < int(p.request.prompt.size())) {
      AddRow(p.rows, p.request.prompt[p.rows.size()]);
      --budget;
    }
    ++touched;
    if (p.rows.size() < int(p.request.prompt.size())) break;
    last_rows.push_back(int(ids.size()) - 1);
  }
  // Now that no LatentRows grows, the key pointers are stable.
  int row = 0;
  for (Live& s : live) attention[row++].keys = s.rows.keys();
  for (int i = 0; i < touched; ++i) {
    for (; row < int(ids.size()) && latent[row] == waiting[i].rows.keys()[positions[row]]; ++row) {
      attention[row].keys = waiting[i].rows.keys();
    }
  }

  const int m = int(ids.size());
  hidden.resize(std::size_t(m) * h);
  forward.Hidden({m, ids.data(), positions.data(), latent.data(), attention.data()}, hidden.data());
  // Logits of decode rows and of each finished prompt's last row.
  const int heads = decode_rows + int(last_rows.size());
  picked.resize(std::size_t(heads) * h);
  std::copy_n(hidden.begin(), std::size_t(decode_rows) * h, picked.begin());
  for (std::size_t i = 0; i < last_rows.size(); ++i) {
    std::copy_n(hidden.begin() + std::int64_t(last_rows[i]) * h, h,
                picked.begin() + std::int64_t(decode_rows + i) * h);
  }
  logits.resize(std::size_t(heads) * weights->config().vocab_size);
  if (heads > 0) forward.Logits(picked.data(), heads, logits.data());

  std::vector<int> logits_row(live.size());
  for (int i = 0; i < int(live.size()); ++i) logits_row[i] = i;
  for (std::size_t i = 0; i < last_rows.size(); ++i) {
    auto request = std::make_shared<const GroupRequest>(std::move(waiting.front().request));
    for (std::uint32_t sample : request->samples) {
      FinishedSample out;
      out.group = request->group;
      out.sample = sample;
      live.push_back({request, waiting.front().rows.Fork(), std::move(out)});
      logits_row.push_back(decode_rows + int(i));
    }
    waiting.pop_front();
  }
  std::vector<std::pair<Live*, int>> targets;
  for (std::size_t i = 0; i < live.size(); ++i) targets.push_back({&live[i], logits_row[i]});
  Sample(targets);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < live.size(); ++i) {
    if (Ended(live[i])) {
      finished->push_back(std::move(live[i].out));
    } else {
      if (kept != i) live[kept] = std::move(live[i]);
      ++kept;
    }
  }
  live.erase(live.begin() + std::int64_t(kept), live.end());
  return !(live.empty() && waiting.empty());
}

Engine::Engine(std::shared_ptr<Weights> weights, const EngineOptions& options)
    : state_(std::make_unique<State>(std::move(weights), options)) {}
Engine::~Engine() = default;

void Engine::Add(GroupRequest request) {
  const ModelConfig& c = state_->weights->config();
  const std::string where = "prompt of group " + std::to_string(request.group) + ": ";
  if (request.prompt.empty()) throw UserError(where + "empty; at least one token is needed");
  for (std::int32_t id : request.prompt) {
    if (id < 0 || id >= c.vocab_size) {
      throw UserError(where + "id " + std::to_string(id) +
                      " is outside the model's vocabulary [0, " + std::to_string(c.vocab_size) +
                      ")");
    }
  }
  if (request.max_new_tokens < 1) throw UserError(where + "max_new_tokens must be at least 1");
  if (std::int64_t(request.prompt.size()) + request.max_new_tokens > c.max_positions) {
    throw UserError(where + std::to_string(request.prompt.size()) + " tokens and " +
                    std::to_string(request.max_new_tokens) + " new ones pass the model's " +
                    std::to_string(c.max_positions) + " positions (max_position_embeddings)");
  }
  if (request.samples.empty()) return;
  LatentRows rows(&state_->cache);
  state_->waiting.push_back({std::move(request), std::move(rows)});
}

bool Engine::Step(std::vector<FinishedSample>* finished) { return state_->Step(finished); }

void Engine::OnToken(
    std::function<bool(std::uint64_t, std::uint32_t, const std::vector<std::int32_t>&)> stop) {
  state_->stop = std::move(stop);
}

void Engine::Cancel(std::uint64_t group) {
  std::erase_if(state_->live, [&](const Live& s) { return s.out.group == group; });
  std::erase_if(state_->waiting, [&](const Prefill& p) { return p.request.group == group; });
}

void Engine::SetVersion(std::uint32_t version) { state_->version = version; }
std::uint32_t Engine::version() const { return state_->version; }

int Engine::live() const {
  int waiting = 0;
  for (const Prefill& p : state_->waiting) waiting += int(p.request.samples.size());
  return int(state_->live.size()) + waiting;
}

std::uint64_t Engine::tokens_generated() const { return state_->generated; }

}  // namespace temper::engine
