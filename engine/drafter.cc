#include "engine/drafter.h"

#include <algorithm>

namespace temper::engine {

Drafter::Drafter(Forward* forward, const ModelConfig& config, int layers)
    : forward_(forward),
      layers_(layers),
      main_layers_(config.num_layers),
      vocab_(config.vocab_size),
      hidden_(std::size_t(config.hidden_size)),
      out_(std::size_t(layers)) {}

void Drafter::Restore(Sequence& s, int tokens, std::span<const float> states) const {
  if (layers_ == 0 || states.empty()) return;
  s.last_state.assign(states.begin(), states.begin() + std::int64_t(hidden_));
  s.mtp_given.assign(states.begin() + std::int64_t(hidden_), states.end());
  s.mtp_keys.resize(std::size_t(layers_));
  for (int j = 0; j < layers_; ++j) {
    for (int p = 1 + j; p < tokens; ++p) s.mtp_keys[j].push_back(s.rows.at(p) + Offset(j));
  }
  s.mtp_next = tokens;
  s.mtp_run = tokens - 1;
}

void Drafter::Follow(Sequences running, bool prompts) {
  rows_.clear();
  for (const auto& s : running) {
    if (!s->states || s->ended || s->is_prompt() != prompts) continue;
    s->mtp_keys.resize(std::size_t(layers_));
    s->mtp_given.resize(std::size_t(layers_ - 1) * hidden_);
    const int known = s->from + s->planned;  // states of tokens [from, known), and of from - 1
    const int begin = std::max(s->mtp_next, s->last_state.empty() ? s->from + 1 : s->from);
    if (begin != s->mtp_next) s->mtp_run = 0;
    s->mtp_first = begin;
    s->mtp_row = rows_.size();
    for (int p = begin; p < s->length() && p <= known; ++p) {
      if (p == s->rows.size()) {
        if (!s->rows.Reserve(1)) break;
        s->rows.Append();
      }
      const float* state = p == s->from
                               ? s->last_state.data()
                               : s->states + std::int64_t(p - 1 - s->from) * std::int64_t(hidden_);
      rows_.push_back({s.get(), p, s->token(p), s->mtp_run++, state, s->mtp_given.data()});
      s->mtp_next = p + 1;
    }
  }
  Pass(0);
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    Sequence& s = *rows_[r].sequence;
    if (rows_[r].token == s.mtp_next - 1) Carry(0, r, &s.mtp_given);
  }
}

void Drafter::Pass(int first) {
  for (int j = first; j < layers_ && !rows_.empty(); ++j) {
    ids_.clear();
    positions_.clear();
    latent_.clear();
    attention_.clear();
    taken_.clear();
    in_.clear();
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      const Row& row = rows_[r];
      if (row.run < j) continue;
      Sequence& s = *row.sequence;
      const bool follows = r > 0 && rows_[r - 1].sequence == row.sequence;
      const float* from = j == 0    ? row.state
                          : follows ? Out(j - 1, r - 1)
                                    : row.given + std::size_t(j - 1) * hidden_;
      in_.insert(in_.end(), from, from + hidden_);
      s.mtp_keys[j].push_back(s.rows.at(row.token) + Offset(j));
      ids_.push_back(row.id);
      positions_.push_back(row.token - 1 - j);
      latent_.push_back(s.rows.at(row.token) + Offset(j));
      attention_.push_back({nullptr, int(s.mtp_keys[j].size())});
      taken_.push_back(r);
    }
    for (std::size_t i = 0; i < taken_.size(); ++i)
      attention_[i].keys = rows_[taken_[i]].sequence->mtp_keys[j].data();
    out_[j].resize(rows_.size() * hidden_);
    if (taken_.empty()) continue;
    given_.resize(in_.size());
    forward_->Mtp(
        j, {int(ids_.size()), ids_.data(), positions_.data(), latent_.data(), attention_.data()},
        in_.data(), given_.data());
    for (std::size_t i = 0; i < taken_.size(); ++i)
      std::copy_n(given_.data() + i * hidden_, hidden_, Out(j, taken_[i]));
  }
}

void Drafter::Carry(int first, std::size_t row, std::vector<float>* given) const {
  for (int j = first; j < layers_ - 1 && j <= rows_[row].run; ++j)
    std::copy_n(Out(j, row), hidden_, given->data() + std::size_t(j) * hidden_);
}

std::span<const float> Drafter::StatesAfter(const Sequence& s, int position) {
  const bool whole = layers_ > 0 && s.mtp_run == s.mtp_next - 1 && position < s.mtp_next;
  if (!whole || !s.states || position < s.from) return {};
  if (layers_ > 1 && position < s.mtp_first) return {};
  states_.resize(std::size_t(layers_) * hidden_);
  std::copy_n(s.states + std::size_t(position - s.from) * hidden_, hidden_, states_.data());
  for (int j = 1; j < layers_; ++j) {
    std::copy_n(Out(j - 1, s.mtp_row + std::size_t(position - s.mtp_first)), hidden_,
                states_.data() + std::size_t(j) * hidden_);
  }
  return states_;
}

void Drafter::Draft(Sequences running, int depth, const Sampler& sample) {
  Follow(running, /*prompts=*/false);
  std::vector<Target> targets;
  std::vector<std::size_t> at, real;  // a target's row; its real keys in each layer
  std::vector<Sequence*> drafted;
  const auto left = [](const Sequence& s) {
    return s.request->max_new_tokens - int(s.out.ids.size());
  };
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    Sequence& s = *rows_[r].sequence;
    if (rows_[r].token != s.length() - 1 || left(s) < 2) continue;
    targets.push_back({&s, 0, int(targets.size())});
    at.push_back(r);
    drafted.push_back(&s);
    for (const auto& keys : s.mtp_keys) real.push_back(keys.size());
    s.mtp_guessed = s.mtp_given;
  }
  for (int i = 0; i < std::min(depth, layers_) && !targets.empty(); ++i) {
    in_.clear();
    for (std::size_t r : at) in_.insert(in_.end(), Out(i, r), Out(i, r) + hidden_);
    logits_.resize(targets.size() * std::size_t(vocab_));
    forward_->Logits(in_.data(), int(targets.size()), logits_.data());
    const std::vector<Drawn> tokens = sample(targets, logits_.data());
    rows_.clear();
    std::vector<Target> next;
    for (std::size_t t = 0; t < targets.size(); ++t) {
      Sequence& s = *targets[t].sequence;
      s.drafts.push_back(tokens[t].token.id);
      // The draft itself goes through the layers that can guess further.
      if (i + 1 == std::min(depth, layers_) || left(s) < i + 3 || s.mtp_run + i < i + 1) continue;
      if (!s.rows.Reserve(1)) continue;
      s.rows.Append();
      rows_.push_back(
          {&s, s.length() + i, tokens[t].token.id, s.mtp_run + i, nullptr, s.mtp_guessed.data()});
      next.push_back({&s, i + 1, int(next.size())});
    }
    Pass(i + 1);
    targets = std::move(next);
    at.resize(targets.size());
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      at[r] = r;
      Carry(i + 1, r, &rows_[r].sequence->mtp_guessed);
    }
  }
  for (std::size_t t = 0; t < drafted.size(); ++t) {
    drafted[t]->rows.Truncate(drafted[t]->length());
    for (int j = 0; j < layers_; ++j)
      drafted[t]->mtp_keys[j].resize(real[t * std::size_t(layers_) + std::size_t(j)]);
  }
}

}  // namespace temper::engine
