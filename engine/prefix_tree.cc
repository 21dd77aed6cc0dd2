#include "engine/prefix_tree.h"

#include <algorithm>

namespace temper::engine {

PrefixTree::Key PrefixTree::KeyAt(std::span<const std::int32_t> ids, int page) {
  Key key;
  std::copy_n(ids.begin() + page * LatentCache::kPageTokens, LatentCache::kPageTokens, key.begin());
  return key;
}

PrefixTree::Found PrefixTree::Find(std::span<const std::int32_t> ids, LatentRows* rows) {
  Found found;
  Node* node = &root_;
  const int pages = int(ids.size()) / LatentCache::kPageTokens;
  for (int i = 0; i < pages; ++i) {
    const auto child = node->children.find(KeyAt(ids, i));
    if (child == node->children.end()) break;
    node = child->second;
    node->used = ++clock_;
    rows->Share(node->page);
    found.tokens += LatentCache::kPageTokens;
    found.last_state = node->last_state;
  }
  return found;
}

PrefixTree::Node* PrefixTree::Add(Node* parent, const Key& key,
                                  std::shared_ptr<LatentCache::Page> page,
                                  std::vector<float> last_state) {
  auto node = std::make_unique<Node>();
  node->parent = parent;
  node->key = key;
  node->page = std::move(page);
  node->last_state = std::move(last_state);
  nodes_.push_back(std::move(node));
  return nodes_.back().get();
}

bool PrefixTree::MakeRoom(const Node* keep) {
  if (max_pages_ <= 0) return false;
  return pages() < max_pages_ || EvictLeaf(keep);
}

bool PrefixTree::Evict() { return EvictLeaf(nullptr); }

bool PrefixTree::EvictLeaf(const Node* keep) {
  auto oldest = nodes_.end();
  for (auto it = nodes_.begin(); it != nodes_.end(); ++it) {
    if (!(*it)->children.empty() || it->get() == keep) continue;
    if (oldest == nodes_.end() || (*it)->used < (*oldest)->used) oldest = it;
  }
  if (oldest == nodes_.end()) return false;
  (*oldest)->parent->children.erase((*oldest)->key);
  *oldest = std::move(nodes_.back());
  nodes_.pop_back();
  return true;
}

void PrefixTree::Clear() {
  root_.children.clear();
  nodes_.clear();
}

}  // namespace temper::engine
