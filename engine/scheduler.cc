#include "engine/scheduler.h"

#include <algorithm>
#include <stdexcept>

namespace temper::engine {

namespace {

constexpr int kPageTokens = LatentCache::kPageTokens;
constexpr std::int64_t kPrefixBytes = std::int64_t{512} << 20;  // kept for later prompts

int Pages(std::int64_t tokens) { return int((tokens + kPageTokens - 1) / kPageTokens); }

int DraftLayers(Decoder& decoder, const ModelConfig& config, const EngineOptions& options) {
  const bool off = options.speculation == Speculation::kOff || decoder.forward() == nullptr;
  return off ? 0 : config.mtp_layers;
}

LatentCache MakeCache(Decoder& decoder, int layers, std::int64_t max_pages) {
  const std::int64_t row = decoder.CacheBytes(layers);
  const CacheMemory memory = decoder.TakeCache(row * kPageTokens, max_pages);
  return memory.data ? LatentCache(row, memory.pages, memory.data) : LatentCache(row, max_pages);
}

}  // namespace

Scheduler::Scheduler(std::shared_ptr<Weights> weights, const EngineOptions& options)
    : weights_(std::move(weights)),
      options_(options),
      pool_(options.threads),
      decoder_(MakeDecoder(weights_, options_, pool_)),
      cache_(MakeCache(*decoder_, config().num_layers + DraftLayers(*decoder_, config(), options_),
                       Pages(options.cache_tokens))),
      prefixes_(std::min(options.prefix_tokens, kPrefixBytes / cache_.row()) / kPageTokens),
      rule_(config(), weights_->numerics().weight_bytes()),
      drafter_(decoder_->forward(), config(), DraftLayers(*decoder_, config(), options)) {}

bool Scheduler::Fits(const GroupRequest& r) const {
  // A fork leaves the rest of the prompt's last page; a draft looks one token ahead.
  return cache_.max_pages() == 0 ||
         Pages(std::int64_t(r.prompt.size())) + Pages(r.max_new_tokens + 1) <= cache_.max_pages();
}

void Scheduler::Add(GroupRequest request) { waiting_.push_back(std::move(request)); }

int Scheduler::live() const {
  std::size_t count = preempted_.size();
  for (const GroupRequest& r : waiting_) count += r.samples.size();
  for (const Owned& s : preempted_) count += s->is_prompt() ? s->forks.size() - 1 : 0;
  return int(count) + RunningSamples();
}

int Scheduler::RunningSamples() const {
  std::size_t count = 0;
  for (const Owned& s : running_) count += s->is_prompt() ? s->forks.size() : 1;
  return int(count);
}

void Scheduler::Cancel(std::uint64_t group) {
  const auto of_group = [&](const Owned& s) { return s->request->group == group; };
  std::erase_if(waiting_, [&](const GroupRequest& r) { return r.group == group; });
  std::erase_if(preempted_, of_group);
  std::erase_if(running_, of_group);
}

void Scheduler::SetVersion(std::uint32_t version, CachePolicy policy) {
  version_ = version;
  decoder_->WeightsChanged();
  prefixes_.Clear();
  rule_.Reset();
  if (policy == CachePolicy::kKeep) return;
  for (Owned& s : running_) s->Reset();
  if (policy == CachePolicy::kRecompute) return;
  const auto drop = [&](Owned& s) {
    if (s->is_prompt() || s->out.ids.empty()) return false;
    s->out.finish = FinishReason::kCancelled;
    dropped_.push_back(std::move(s->out));
    return true;
  };
  std::erase_if(running_, drop);
  std::erase_if(preempted_, drop);
}

bool Scheduler::HasRoom(int pages) const {
  return cache_.max_pages() == 0 || running_.empty() ||
         cache_.free_pages() + prefixes_.pages() >= pages;
}

void Scheduler::Admit() {
  const auto start = [&](Owned s) {
    const int usable = std::min(s->prompt_length(), s->length() - 1);
    if (!s->request->experts) {
      const PrefixTree::Found found =
          prefixes_.Find(std::span(s->request->prompt).first(usable), &s->rows);
      s->computed = found.tokens;
      stats_.prefix_hits += found.tokens;
      drafter_.Restore(*s, found.tokens, found.last_state);
    }
    running_.push_back(std::move(s));
  };
  while (!preempted_.empty() && HasRoom(Pages(preempted_.front()->length()) + 1)) {
    start(std::move(preempted_.front()));
    preempted_.pop_front();
  }
  if (!preempted_.empty()) return;
  while (!waiting_.empty()) {
    const int samples = int(waiting_.front().samples.size());
    const int prompt = int(waiting_.front().prompt.size());
    if (!running_.empty() && RunningSamples() + samples > options_.max_rows) return;
    if (!HasRoom(Pages(prompt) + samples)) return;
    auto request = std::make_shared<const GroupRequest>(std::move(waiting_.front()));
    waiting_.pop_front();
    auto sequence = std::make_unique<Sequence>(request, LatentRows(&cache_));
    sequence->forks = request->samples;
    start(std::move(sequence));
  }
}

void Scheduler::Plan() {
  drafts_ = options_.speculation == Speculation::kAlways
                ? drafter_.layers()
                : std::min(drafter_.layers(), rule_.Drafts(RunningSamples()));
  for (Owned& s : running_) {
    s->planned = 0;
    if (int(s->drafts.size()) > drafts_) s->drafts.resize(std::size_t(drafts_));
  }
  const auto decodes = [](const Sequence& s) { return !s.is_prompt() && s.pending() == 1; };
  // Reserve may take sequences off the end of the list, this one included.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (!decodes(*running_[i])) continue;
    running_[i]->planned = 1 + int(running_[i]->drafts.size());
    Reserve(i);
  }
  int budget = options_.chunk;
  for (std::size_t i = 0; i < running_.size() && budget > 0; ++i) {
    if (decodes(*running_[i])) continue;
    const int planned = std::min(running_[i]->pending(), budget);
    running_[i]->planned = planned;
    budget -= planned;
    Reserve(i);
  }
}

void Scheduler::Reserve(std::size_t i) {
  Sequence& s = *running_[i];
  while (!s.rows.Reserve(s.computed + s.planned - s.rows.size())) {
    if (prefixes_.Evict()) continue;
    if (!s.drafts.empty()) {
      s.drafts.pop_back();
      --s.planned;
      continue;
    }
    const std::size_t last = running_.size() - 1;
    if (last == 0) throw std::logic_error("Scheduler: one sequence alone fills the cache");
    Preempt(last);
    if (last == i) return;
  }
}

void Scheduler::Preempt(std::size_t i) {
  ++stats_.preempted;
  running_[i]->Reset();
  preempted_.push_front(std::move(running_[i]));
  running_.erase(running_.begin() + std::int64_t(i));
}

void Scheduler::BuildRows() {
  ids_.clear();
  positions_.clear();
  latent_.clear();
  attention_.clear();
  owners_.clear();
  places_.clear();
  head_rows_.clear();
  for (Owned& s : running_) {
    s->from = s->computed;
    s->states = nullptr;
    s->mtp_first = Sequence::kNone;
    for (int i = 0; i < s->planned; ++i) {
      const int position = s->computed + i, ahead = position - s->length();
      if (position == s->rows.size()) s->rows.Append();
      ids_.push_back(ahead >= 0 ? s->drafts[std::size_t(ahead)] : s->token(position));
      positions_.push_back(position);
      latent_.push_back(s->rows.at(position));
      attention_.push_back({nullptr, position + 1});
      owners_.push_back(s.get());
      places_.push_back(&s->rows);
      if (position == s->length() - 1) s->head_row = int(head_rows_.size());
      if (position >= s->length() - 1) head_rows_.push_back(int(ids_.size()) - 1);
    }
  }
  for (std::size_t r = 0; r < owners_.size(); ++r) attention_[r].keys = owners_[r]->rows.keys();
}

void Scheduler::FileExperts(int layer, const std::int32_t* ids) {
  const int k = config().top_k, layers = config().moe_layers();
  for (std::size_t r = 0; r < owners_.size(); ++r) {
    if (!owners_[r]->request->experts) continue;
    std::vector<std::int32_t>& to = owners_[r]->experts;
    const std::size_t at = (std::size_t(positions_[r]) * layers + layer) * k;
    if (to.size() < at + k) to.resize(std::size_t(positions_[r] + 1) * layers * k, -1);
    if (to[at] < 0) std::copy_n(ids + r * k, k, to.begin() + std::int64_t(at));
  }
}

void Scheduler::RunModel() {
  const int m = int(ids_.size()), h = config().hidden_size;
  stats_.computed += m;
  stats_.cache_tokens =
      std::max(stats_.cache_tokens, std::uint64_t(cache_.used_pages() * kPageTokens));
  const bool experts = std::any_of(owners_.begin(), owners_.end(),
                                   [](const Sequence* s) { return s->request->experts; });
  Forward::Experts file;
  if (experts) file = [this](int layer, const std::int32_t* ids) { FileExperts(layer, ids); };
  decoder_->Run(
      {m, ids_.data(), positions_.data(), latent_.data(), attention_.data(), places_.data()},
      head_rows_, file);
  const float* states = decoder_->states();
  for (int r = m - 1; states != nullptr && r >= 0; --r)
    owners_[r]->states = states + std::int64_t(r) * h;
}

std::vector<Target> Scheduler::Advance() {
  std::vector<Owned> next;
  std::vector<Target> targets;
  for (Owned& s : running_) {
    const int drafts = s->planned > 0 ? int(s->drafts.size()) : 0;
    s->computed += s->planned - drafts;
    if (s->is_prompt()) KeepPrefix(*s);
    if (s->planned == 0 || s->pending() > 0) {
      next.push_back(std::move(s));
    } else if (!s->is_prompt()) {
      for (int i = 0; i <= drafts; ++i) targets.push_back({s.get(), i, s->head_row + i});
      next.push_back(std::move(s));
    } else {
      for (std::uint32_t sample : s->forks) {
        next.push_back(Fork(*s, sample));
        targets.push_back({next.back().get(), 0, s->head_row});
      }
    }
  }
  running_ = std::move(next);
  return targets;
}

void Scheduler::KeepPrefix(const Sequence& s) {
  prefixes_.Insert(std::span(s.request->prompt).first(s.computed), s.rows,
                   [&](int position) { return drafter_.StatesAfter(s, position); });
}

Scheduler::Owned Scheduler::Fork(const Sequence& prompt, std::uint32_t sample) const {
  auto s = std::make_unique<Sequence>(prompt.request, prompt.rows.Fork());
  s->out.group = prompt.request->group;
  s->out.sample = sample;
  s->computed = prompt.computed;
  s->planned = prompt.planned;
  s->experts = prompt.experts;
  s->mtp_keys = prompt.mtp_keys;
  s->mtp_next = prompt.mtp_next;
  s->mtp_run = prompt.mtp_run;
  s->mtp_given = prompt.mtp_given;
  s->last_state = prompt.last_state;
  s->states = prompt.states;
  s->from = prompt.from;
  return s;
}

std::vector<Draw> Scheduler::DrawsOf(const std::vector<Target>& targets) const {
  std::vector<Draw> draws;
  draws.reserve(targets.size());
  for (const Target& t : targets) {
    const Sequence& s = *t.sequence;
    const auto position =
        s.request->begun + std::uint32_t(s.out.ids.size()) + std::uint32_t(t.ahead);
    draws.push_back({s.request->seed, s.out.group, s.out.sample, position, &s.request->params,
                     t.logits_row, s.request->kept});
  }
  return draws;
}

void Scheduler::Accept(Sequence& s, const Drawn& drawn) {
  const kernels::SampledToken& token = drawn.token;
  s.out.ids.push_back(token.id);
  s.out.logp.push_back(token.logp);
  s.out.logp_processed.push_back(token.logp_processed);
  s.out.log_kept_mass.push_back(token.log_kept_mass);
  s.out.versions.push_back(version_);
  if (s.request->kept) {
    s.out.kept.push_back(std::int32_t(drawn.kept.size()));
    s.out.kept.insert(s.out.kept.end(), drawn.kept.begin(), drawn.kept.end());
  }
  ++stats_.generated;
  const std::vector<std::int32_t>& stops = s.request->stop_ids;
  if (std::find(stops.begin(), stops.end(), token.id) != stops.end() ||
      (stop_ && stop_(s.out.group, s.out.sample, s.out.ids))) {
    s.out.finish = FinishReason::kStop;
    s.ended = true;
  } else if (int(s.out.ids.size()) >= s.request->max_new_tokens) {
    s.out.finish = FinishReason::kLength;
    s.ended = true;
  }
}

void Scheduler::File(const std::vector<Target>& targets, const std::vector<Drawn>& tokens) {
  const std::size_t stride = std::size_t(config().moe_layers()) * config().top_k;
  for (std::size_t i = 0; i < targets.size();) {
    Sequence& s = *targets[i].sequence;
    Accept(s, tokens[i]);
    ++i;
    std::size_t held = 0;
    for (std::size_t d = 0; d < s.drafts.size(); ++d, ++i) {
      ++stats_.drafted;
      if (held < d) continue;  // a guess on from a wrong one
      const bool holds = s.drafts[d] == tokens[i - 1].token.id;
      rule_.Count(1, holds, int(d));
      if (!holds || s.ended) continue;
      ++held;
      ++s.computed;
      ++stats_.accepted;
      Accept(s, tokens[i]);
    }
    if (held < s.drafts.size()) {
      s.rows.Truncate(s.computed);
      if (s.experts.size() > s.computed * stride) s.experts.resize(s.computed * stride);
    }
    s.drafts.clear();
  }
}

void Scheduler::Collect(std::vector<FinishedSample>* finished) {
  const std::size_t stride = std::size_t(config().moe_layers()) * config().top_k;
  std::erase_if(running_, [&](Owned& s) {
    if (!s->ended) return false;
    if (s->request->experts) {
      s->experts.resize(std::size_t(s->length() - 1) * stride);
      s->out.experts.assign(s->experts.begin(), s->experts.end());
    }
    finished->push_back(std::move(s->out));
    return true;
  });
}

void Scheduler::KeepStates() {
  const int h = config().hidden_size;
  for (Owned& s : running_) {
    if (!s->states) continue;
    s->last_state.clear();
    if (s->pending() <= 1 && !s->is_prompt()) continue;  // its next state comes with its next row
    const float* last = s->states + std::int64_t(s->planned - 1) * h;
    s->last_state.assign(last, last + h);
  }
}

bool Scheduler::Step(std::vector<FinishedSample>* finished) {
  for (FinishedSample& sample : dropped_) finished->push_back(std::move(sample));
  dropped_.clear();
  Admit();
  if (running_.empty()) return false;
  Plan();
  BuildRows();
  RunModel();
  if (drafts_ > 0) drafter_.Follow(running_, /*prompts=*/true);
  const std::vector<Target> targets = Advance();
  if (!targets.empty()) File(targets, decoder_->Sample(DrawsOf(targets)));
  if (drafts_ > 0) {
    drafter_.Draft(running_, drafts_, [this](const std::vector<Target>& next, const float* logits) {
      return decoder_->SampleFrom(DrawsOf(next), logits);
    });
    KeepStates();
  }
  Collect(finished);
  return live() > 0;
}

}  // namespace temper::engine
