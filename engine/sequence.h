#pragma once
// One sequence in the engine: a prompt on its way, or a sample that forked from it.
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/engine.h"
#include "engine/latent_cache.h"

namespace temper::engine {

struct Sequence {
  Sequence(std::shared_ptr<const GroupRequest> r, LatentRows l)
      : request(std::move(r)), rows(std::move(l)) {}

  std::shared_ptr<const GroupRequest> request;
  std::vector<std::uint32_t> forks;  // a prompt: the samples that start when it is computed
  FinishedSample out;                // a sample: what it has so far
  LatentRows rows;                   // at least `computed`; one more where a draft waits
  int computed = 0;                  // tokens whose latent rows are in the cache
  int planned = 0;                   // tokens of this step, a draft included
  int head_row = 0;                  // of this step's logits, if its last token is computed
  bool ended = false;
  std::vector<std::int32_t> experts;  // [tokens][moe layers][top_k] if asked for; -1: not yet known

  // MTP: the row of token p holds the MTP layer's latent row of (state p-1, token p) too, where
  // mtp_keys says so. Gaps cost acceptance, never correctness.
  std::vector<const void*> mtp_keys;
  int mtp_next = 1;               // tokens before it have had their turn
  std::vector<float> last_state;  // of the token before `from`; empty where unknown
  const float* states = nullptr;  // of this step's tokens from `from` on
  int from = 0;
  std::optional<std::int32_t> draft;

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
    mtp_next = 1;
    last_state.clear();
    states = nullptr;
    draft.reset();
  }
};

}  // namespace temper::engine
