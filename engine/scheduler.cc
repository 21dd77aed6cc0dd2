#include "engine/scheduler.h"

#include <algorithm>
#include <stdexcept>

namespace temper::engine {

namespace {

constexpr int kPageTokens = LatentCache::kPageTokens;
constexpr std::int64_t kPrefixBytes = std::int64_t{512} << 20;  // kept for later prompts

int Pages(std::int64_t tokens) { return int((tokens + kPageTokens - 1) / kPageTokens); }

}  // namespace

Scheduler::Scheduler(std::shared_ptr<Weights> weights, const EngineOptions& options)
    : weights_(std::move(weights)),
      options_(options),
      pool_(options.threads),
      forward_(*weights_, pool_),
      cache_(forward_.CacheBytes(config().num_layers + (config().mtp_layers > 0 &&
                                                        options.speculation != Speculation::kOff)),
             Pages(options.cache_tokens)),
      prefixes_(std::min(options.prefix_tokens, kPrefixBytes / cache_.row()) / kPageTokens),
      rule_(config(), weights_->numerics().weight_bytes()),
      can_draft_(config().mtp_layers > 0 && options.speculation != Speculation::kOff) {}

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

std::int64_t Scheduler::MtpOffset() const { return forward_.CacheBytes(config().num_layers); }

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
      if (can_draft_ && !found.last_state.empty()) {
        s->last_state.assign(found.last_state.begin(), found.last_state.end());
        for (int p = 1; p < found.tokens; ++p) s->mtp_keys.push_back(s->rows.at(p) + MtpOffset());
        s->mtp_next = found.tokens;
      }
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
  drafting_ =
      can_draft_ && (options_.speculation == Speculation::kAlways || rule_.Pays(RunningSamples()));
  for (Owned& s : running_) {
    s->planned = 0;
    if (!drafting_) s->draft.reset();
  }
  const auto decodes = [](const Sequence& s) { return !s.is_prompt() && s.pending() == 1; };
  // Reserve may take sequences off the end of the list, this one included.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (!decodes(*running_[i])) continue;
    running_[i]->planned = running_[i]->draft ? 2 : 1;
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
    if (s.draft) {
      s.draft.reset();
      s.planned = 1;
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
  head_rows_.clear();
  for (Owned& s : running_) {
    s->from = s->computed;
    s->states = nullptr;
    for (int i = 0; i < s->planned; ++i) {
      const int position = s->computed + i;
      const bool draft = position == s->length();
      if (position == s->rows.size()) s->rows.Append();
      ids_.push_back(draft ? *s->draft : s->token(position));
      positions_.push_back(position);
      latent_.push_back(s->rows.at(position));
      attention_.push_back({nullptr, position + 1});
      owners_.push_back(s.get());
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
  hidden_.resize(std::size_t(m) * h);
  const bool experts = std::any_of(owners_.begin(), owners_.end(),
                                   [](const Sequence* s) { return s->request->experts; });
  Forward::Experts file;
  if (experts) file = [this](int layer, const std::int32_t* ids) { FileExperts(layer, ids); };
  forward_.Hidden({m, ids_.data(), positions_.data(), latent_.data(), attention_.data()},
                  hidden_.data(), file);
  for (int r = m - 1; r >= 0; --r) owners_[r]->states = hidden_.data() + std::int64_t(r) * h;
  picked_.resize(head_rows_.size() * h);
  for (std::size_t i = 0; i < head_rows_.size(); ++i) {
    std::copy_n(hidden_.begin() + std::int64_t(head_rows_[i]) * h, h,
                picked_.begin() + std::int64_t(i) * h);
  }
  logits_.resize(head_rows_.size() * config().vocab_size);
  if (!head_rows_.empty()) forward_.Logits(picked_.data(), int(head_rows_.size()), logits_.data());
}

std::vector<Scheduler::Target> Scheduler::Advance() {
  std::vector<Owned> next;
  std::vector<Target> targets;
  for (Owned& s : running_) {
    s->computed += s->planned - (s->draft && s->planned > 0 ? 1 : 0);
    if (s->is_prompt()) KeepPrefix(*s);
    if (s->planned == 0 || s->pending() > 0) {
      next.push_back(std::move(s));
    } else if (!s->is_prompt()) {
      targets.push_back({s.get(), 0, s->head_row});
      if (s->draft) targets.push_back({s.get(), 1, s->head_row + 1});
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
  const int h = config().hidden_size;
  const bool drafted = can_draft_ && int(s.mtp_keys.size()) >= s.computed - 1;
  const auto state = [&](int position) {
    return drafted && s.states && position >= s.from
               ? std::span(s.states + std::int64_t(position - s.from) * h, h)
               : std::span<const float>();
  };
  prefixes_.Insert(std::span(s.request->prompt).first(s.computed), s.rows, state);
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
  s->last_state = prompt.last_state;
  s->states = prompt.states;
  s->from = prompt.from;
  return s;
}

std::vector<kernels::SampledToken> Scheduler::Sample(const std::vector<Target>& targets,
                                                     const float* logits) {
  const int v = config().vocab_size;
  const int valid = options_.valid_ids > 0 ? std::min(options_.valid_ids, v) : v;
  std::vector<kernels::SampledToken> tokens(targets.size());
  kept_.resize(targets.size());
  constexpr int kPart = 8;
  const int part_size = v > 4096 ? 1 : kPart;
  pool_.Run(int((targets.size() + part_size - 1) / part_size), [&](int part) {
    const std::size_t end = std::min(targets.size(), std::size_t(part + 1) * part_size);
    for (std::size_t i = std::size_t(part) * part_size; i < end; ++i) {
      const Sequence& s = *targets[i].sequence;
      const float u = kernels::SampleUniform(
          s.request->seed, s.out.group, s.out.sample,
          s.request->begun + std::uint32_t(s.out.ids.size()) + targets[i].ahead);
      tokens[i] = kernels::SampleToken(logits + std::int64_t(targets[i].logits_row) * v, v, valid,
                                       s.request->params, u);
      if (!s.request->kept) continue;
      kernels::KeptIds(logits + std::int64_t(targets[i].logits_row) * v, v, valid,
                       s.request->params, &kept_[i]);
    }
  });
  return tokens;
}

void Scheduler::Accept(Sequence& s, const kernels::SampledToken& token,
                       const std::vector<std::int32_t>& kept) {
  s.out.ids.push_back(token.id);
  s.out.logp.push_back(token.logp);
  s.out.logp_processed.push_back(token.logp_processed);
  s.out.log_kept_mass.push_back(token.log_kept_mass);
  s.out.versions.push_back(version_);
  if (s.request->kept) {
    s.out.kept.push_back(std::int32_t(kept.size()));
    s.out.kept.insert(s.out.kept.end(), kept.begin(), kept.end());
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

void Scheduler::File(const std::vector<Target>& targets,
                     const std::vector<kernels::SampledToken>& tokens) {
  const std::size_t stride = std::size_t(config().moe_layers()) * config().top_k;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    Sequence& s = *targets[i].sequence;
    if (targets[i].ahead == 0) {
      Accept(s, tokens[i], kept_[i]);
      continue;
    }
    const bool holds = *s.draft == tokens[i - 1].id;
    s.draft.reset();
    ++stats_.drafted;
    rule_.Count(1, holds);
    if (holds && !s.ended) {
      ++s.computed;
      ++stats_.accepted;
      Accept(s, tokens[i], kept_[i]);
    } else {
      s.rows.Truncate(s.computed);
      if (s.experts.size() > s.computed * stride) s.experts.resize(s.computed * stride);
    }
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

void Scheduler::RunMtp(bool prompts) {
  const int h = config().hidden_size;
  ids_.clear();
  positions_.clear();
  latent_.clear();
  attention_.clear();
  owners_.clear();
  picked_.clear();
  for (Owned& s : running_) {
    if (!s->states || s->ended || s->is_prompt() != prompts) continue;
    const int known = s->from + s->planned;  // states of tokens [from, known), and of from - 1
    for (int p = std::max(s->mtp_next, s->last_state.empty() ? s->from + 1 : s->from);
         p < s->length() && p <= known; ++p) {
      if (p == s->rows.size()) {
        if (!s->rows.Reserve(1)) break;
        s->rows.Append();
      }
      const float* state =
          p == s->from ? s->last_state.data() : s->states + std::int64_t(p - 1 - s->from) * h;
      s->mtp_next = p + 1;
      s->mtp_keys.push_back(s->rows.at(p) + MtpOffset());
      ids_.push_back(s->token(p));
      positions_.push_back(p - 1);
      latent_.push_back(s->rows.at(p) + MtpOffset());
      attention_.push_back({nullptr, int(s->mtp_keys.size())});
      owners_.push_back(s.get());
      picked_.insert(picked_.end(), state, state + h);
    }
  }
  for (std::size_t r = 0; r < owners_.size(); ++r) attention_[r].keys = owners_[r]->mtp_keys.data();
  if (ids_.empty()) return;
  mtp_hidden_.resize(picked_.size());
  forward_.Mtp(
      0, {int(ids_.size()), ids_.data(), positions_.data(), latent_.data(), attention_.data()},
      picked_.data(), mtp_hidden_.data());
}

void Scheduler::Draft() {
  const int h = config().hidden_size;
  RunMtp(/*prompts=*/false);
  std::vector<Target> targets;
  picked_.clear();
  for (std::size_t r = 0; r < owners_.size(); ++r) {
    Sequence& s = *owners_[r];
    const int left = s.request->max_new_tokens - int(s.out.ids.size());
    if (positions_[r] + 1 != s.length() - 1 || left < 2) continue;
    targets.push_back({&s, 0, int(targets.size())});
    picked_.insert(picked_.end(), mtp_hidden_.begin() + std::int64_t(r) * h,
                   mtp_hidden_.begin() + std::int64_t(r + 1) * h);
  }
  if (targets.empty()) return;
  logits_.resize(targets.size() * config().vocab_size);
  forward_.Logits(picked_.data(), int(targets.size()), logits_.data());
  // The best guess of what the position's own uniform picks is what it picks here.
  const std::vector<kernels::SampledToken> tokens = Sample(targets, logits_.data());
  for (std::size_t i = 0; i < targets.size(); ++i) targets[i].sequence->draft = tokens[i].id;
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
  if (drafting_) RunMtp(/*prompts=*/true);
  const std::vector<Target> targets = Advance();
  File(targets, Sample(targets, logits_.data()));
  if (drafting_) {
    Draft();
    KeepStates();
  }
  Collect(finished);
  return live() > 0;
}

}  // namespace temper::engine
