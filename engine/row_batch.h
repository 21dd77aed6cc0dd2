#pragma once
// Token rows of sequences on their way into a forward pass, with their places in the cache.
#include <cstdint>
#include <vector>

#include "engine/forward.h"
#include "engine/latent_cache.h"

namespace temper::engine {

/// Rows of any sequences, a sequence's own in order. The sequences must outlive it.
struct RowBatch {
  std::vector<std::int32_t> ids, positions;
  std::vector<std::byte*> latent;
  std::vector<kernels::AttentionRow> attention;
  std::vector<LatentRows*> owner;

  /// The next row of `rows` is token `id`.
  void Add(LatentRows& rows, std::int32_t id) {
    positions.push_back(rows.size());
    ids.push_back(id);
    latent.push_back(rows.Append());
    attention.push_back({nullptr, rows.size()});
    owner.push_back(&rows);
  }
  int size() const { return int(ids.size()); }
  /// Valid until the next Add.
  ForwardRows View() {
    for (std::size_t i = 0; i < ids.size(); ++i) attention[i].keys = owner[i]->keys();
    return {size(), ids.data(), positions.data(), latent.data(), attention.data()};
  }
};

}  // namespace temper::engine
