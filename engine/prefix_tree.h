#pragma once
// Whole cache pages by the tokens that lead to them: prompts that begin alike are computed once.
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/latent_cache.h"

namespace temper::engine {

/// Pages computed by one weights version (the engine clears the tree when weights change). A page
/// that no sequence uses any more stays until it is evicted, least recently used first.
class PrefixTree {
 public:
  /// Keeps at most max_pages pages.
  explicit PrefixTree(std::int64_t max_pages) : max_pages_(max_pages) {}

  struct Found {
    int tokens = 0;                     // a multiple of kPageTokens
    std::span<const float> last_state;  // hidden state of the last of them, as given to Insert
  };
  /// Appends the pages of the longest known prefix of `ids` to `rows`.
  Found Find(std::span<const std::int32_t> ids, LatentRows* rows);

  /// Remembers the whole pages of rows [0, ids.size()) of a prompt. `state(position)` gives the
  /// hidden state at a page's last position (empty spans are kept as such).
  template <typename State>
  void Insert(std::span<const std::int32_t> ids, const LatentRows& rows, const State& state) {
    Node* node = &root_;
    const int pages = int(ids.size()) / LatentCache::kPageTokens;
    for (int i = 0; i < pages; ++i) {
      const Key key = KeyAt(ids, i);
      Node*& child = node->children[key];
      if (!child) {
        if (!MakeRoom(node)) {
          node->children.erase(key);
          return;
        }
        const std::span<const float> last = state((i + 1) * LatentCache::kPageTokens - 1);
        child = Add(node, key, rows.page(i), {last.begin(), last.end()});
      }
      node = child;
      node->used = ++clock_;
    }
  }

  /// Frees the least recently used page that no longer prefix needs; false if there is none.
  bool Evict();
  void Clear();
  std::int64_t pages() const { return std::int64_t(nodes_.size()); }

 private:
  using Key = std::array<std::int32_t, LatentCache::kPageTokens>;
  struct Node {
    Node* parent = nullptr;
    Key key{};
    std::shared_ptr<LatentCache::Page> page;
    std::vector<float> last_state;
    std::map<Key, Node*> children;
    std::uint64_t used = 0;
  };

  static Key KeyAt(std::span<const std::int32_t> ids, int page);
  Node* Add(Node* parent, const Key& key, std::shared_ptr<LatentCache::Page> page,
            std::vector<float> last_state);
  /// Room for one more page below `keep`, which stays.
  bool MakeRoom(const Node* keep);
  bool EvictLeaf(const Node* keep);

  std::int64_t max_pages_;
  std::uint64_t clock_ = 0;
  Node root_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace temper::engine
