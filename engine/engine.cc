// Requests in and out: checks, cancelling, weight updates. The step is in scheduler.cc.
#include "engine/engine.h"

#include <algorithm>

#include "configs/error.h"
#include "engine/scheduler.h"

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

struct Engine::State : Scheduler {
  using Scheduler::Scheduler;
};

Engine::Engine(std::shared_ptr<Weights> weights, const EngineOptions& options)
    : state_(std::make_unique<State>(std::move(weights), options)) {}
Engine::~Engine() = default;

void Engine::Add(GroupRequest request) {
  const ModelConfig& c = state_->config();
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
  const std::string length = std::to_string(request.prompt.size()) + " tokens and " +
                             std::to_string(request.max_new_tokens) + " new ones pass ";
  const std::int64_t tokens = std::int64_t(request.prompt.size()) + request.max_new_tokens;
  if (tokens > c.max_positions) {
    throw UserError(where + length + "the model's " + std::to_string(c.max_positions) +
                    " positions (max_position_embeddings)");
  }
  if (!state_->Fits(request)) {
    throw UserError(where + length + "what the cache holds; raise cache_tokens");
  }
  if (!request.samples.empty()) state_->Add(std::move(request));
}

bool Engine::Step(std::vector<FinishedSample>* finished) { return state_->Step(finished); }

void Engine::OnToken(
    std::function<bool(std::uint64_t, std::uint32_t, const std::vector<std::int32_t>&)> stop) {
  state_->OnToken(std::move(stop));
}

void Engine::Cancel(std::uint64_t group) { state_->Cancel(group); }

void Engine::SetVersion(std::uint32_t version, CachePolicy policy) {
  state_->SetVersion(version, policy);
}
std::uint32_t Engine::version() const { return state_->version(); }
int Engine::live() const { return state_->live(); }
std::int64_t Engine::cache_bytes() const {
  return state_->cache().used_pages() * LatentCache::kPageTokens * state_->cache().row();
}
std::int64_t Engine::cache_row_bytes() const { return state_->cache().row(); }
const EngineStats& Engine::stats() const { return state_->stats(); }

}  // namespace temper::engine
