#pragma once
// One sequence in the engine: a prompt on its way, or a sample that forked from it.
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/latent_cache.h"

namespace temper::engine {

struct Sequence;

/// A token to sample: the sequence's next but `ahead`, from a row of logits.
struct Target {
  Sequence* sequence;
  int ahead, logits_row;
};

struct Sequence {
  Sequence(std::shared_ptr<const GroupRequest> r, LatentRows l)
      : request(std::move(r)), rows(std::move(l)) {}

  std::shared_ptr<const GroupRequest> request;
  std::vector<std::uint32_t> forks;  // a prompt: the samples that start when it is computed
  FinishedSample out;                // a sample: what it has so far
  LatentRows rows;                   // at least `computed`; one more where drafts wait
  int computed = 0;                  // tokens whose latent rows are in the cache
  int planned = 0;                   // tokens of this step, drafts included
  int head_row = 0;                  // of this step's logits, if its last token is computed
  bool ended = false;
  std::vector<std::int32_t> experts;  // [tokens][moe layers][top_k] if asked for; -1: not yet known

  // What the MTP layers know of it (engine/drafter.h). Gaps cost acceptance, never correctness.
  std::vector<std::vector<const void*>> mtp_keys;  // [layers] their latent rows
  int mtp_next = 1;                                // tokens before it have had their turn
  int mtp_run = 0;                                 // so many of them without a gap
  std::vector<float> mtp_given;    // [layers - 1][H] for mtp_next: by layers 0 .. mtp_run - 1
  std::vector<float> mtp_guessed;  // the same while drafts are made
  int mtp_first = kNone;           // of this step's pass: its first token,
  std::size_t mtp_row = 0;         // and that token's row
  std::vector<float> last_state;   // of the token before `from`; empty where unknown
  const float* states = nullptr;   // of this step's tokens from `from` on
  int from = 0;
  std::vector<std::int32_t> drafts;  // of the tokens from length() on

  static constexpr int kNone = std::numeric_limits<int>::max();

  bool is_prompt() const { return !forks.empty(); }
  int prompt_length() const { return int(request->prompt.size()); }
  int length() const { return prompt_length() + int(out.ids.size()); }
  int pending() const { return length() - computed; }
  std::int32_t token(int i) const {
    return i < prompt_length() ? request->prompt[i] : out.ids[i - prompt_length()];
  }
  /// Forgets everything in the cache: it is computed again from the tokens.
  void Reset() {
    rows.Clear();
    computed = planned = 0;
    experts.clear();
    mtp_keys.clear();
    mtp_given.clear();
    mtp_next = 1;
    mtp_run = 0;
    mtp_first = kNone;
    last_state.clear();
    states = nullptr;
    drafts.clear();
  }
};

}  // namespace temper::engine
