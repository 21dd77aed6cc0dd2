#pragma once
// Sequences laid back to back: each token knows its position, each sequence sees only itself and
// the trunk that it may branch from.
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace temper::learner {

/// The completions of a group branch from its prompt, which is computed once: a branch's tokens
/// follow those of its trunk in position, and see them.
struct Pack {
  std::vector<std::int32_t> ids;       // [T]
  std::vector<std::int32_t> position;  // [T] from 0 in each sequence, trunk included
  std::vector<std::int32_t> start{0};  // [S + 1] first token of each sequence, then T
  std::vector<std::int32_t> trunk;     // [S] an earlier sequence without a trunk; -1: none
  /// [T][MoE layers][top_k] ascending, which routers use instead of choosing; empty: they choose.
  std::vector<std::uint16_t> experts;
  /// [S] 1: loses no token to a device's capacity; empty: all may.
  std::vector<char> exempt;

  int tokens() const { return int(ids.size()); }
  int sequences() const { return int(trunk.size()); }
  /// Of its own tokens.
  int length(int s) const { return start[s + 1] - start[s]; }
  /// Tokens of its trunk.
  int before(int s) const { return trunk[s] < 0 ? 0 : length(trunk[s]); }
  /// The branches of s are (s, BranchesEnd(s)).
  int BranchesEnd(int s) const {
    int end = s + 1;
    while (end < sequences() && trunk[end] == s) ++end;
    return end;
  }
  /// The sequence of token t.
  int SequenceOf(std::int32_t t) const {
    return int(std::upper_bound(start.begin(), start.end(), t) - start.begin()) - 1;
  }

  /// The token at a position of sequence s and its trunk.
  std::int32_t RowAt(int s, int at) const {
    const int first = before(s);
    return at < first ? start[trunk[s]] + at : start[s] + at - first;
  }

  /// Appends one sequence and gives its number; an empty one has a number too.
  int Add(std::span<const std::int32_t> sequence) { return Append(-1, 0, sequence); }
  /// The same behind the tokens of `from`; between the two only other branches of `from` may have
  /// been added.
  int AddBranch(int from, std::span<const std::int32_t> sequence) {
    return Append(from, length(from), sequence);
  }

 private:
  int Append(int from, int at, std::span<const std::int32_t> sequence) {
    for (std::int32_t id : sequence) {
      ids.push_back(id);
      position.push_back(std::int32_t(at++));
    }
    start.push_back(std::int32_t(ids.size()));
    trunk.push_back(from);
    return sequences() - 1;
  }
};

/// Rows of a pack whose next-token log-prob is wanted: `row` t predicts `target`. A trunk's last
/// row may predict the first token of each branch.
struct Targets {
  std::vector<std::int32_t> row;     // [R] token index in the pack
  std::vector<std::int32_t> target;  // [R] id

  int count() const { return int(row.size()); }
};

}  // namespace temper::learner
