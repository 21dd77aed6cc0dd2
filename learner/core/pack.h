#pragma once
// Sequences laid back to back: each token knows its position, each sequence sees only itself.
#include <cstdint>
#include <span>
#include <vector>

namespace temper::learner {

struct Pack {
  std::vector<std::int32_t> ids;       // [T]
  std::vector<std::int32_t> position;  // [T] from 0 in each sequence
  std::vector<std::int32_t> start{0};  // [S + 1] first token of each sequence, then T

  int tokens() const { return int(ids.size()); }
  int sequences() const { return int(start.size()) - 1; }
  int length(int s) const { return start[s + 1] - start[s]; }

  /// Appends one sequence; an empty one keeps its number.
  void Add(std::span<const std::int32_t> sequence) {
    for (std::size_t i = 0; i < sequence.size(); ++i) {
      ids.push_back(sequence[i]);
      position.push_back(std::int32_t(i));
    }
    start.push_back(std::int32_t(ids.size()));
  }
};

/// Rows of a pack whose next-token log-prob is wanted: `row` t predicts `target`.
struct Targets {
  std::vector<std::int32_t> row;     // [R] token index in the pack, strictly ascending
  std::vector<std::int32_t> target;  // [R] id

  int count() const { return int(row.size()); }
};

}  // namespace temper::learner
