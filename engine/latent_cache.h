#pragma once
// The latent cache: fixed pages of token rows, reference-counted so that samples of a group share
// their prompt.
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/weights.h"

namespace temper::engine {

/// A token row holds the latent rows of all layers: [layers][L + R] floats. A page holds
/// kPageTokens of them.
class LatentCache {
 public:
  static constexpr int kPageTokens = 16;

  explicit LatentCache(std::int64_t floats_per_token) : row_(floats_per_token) {}

  struct Page {
    LatentCache* owner;
    float* data;
    Page(LatentCache* cache, float* floats) : owner(cache), data(floats) {}
    ~Page() { owner->free_.push_back(data); }
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
  };

  std::shared_ptr<Page> Allocate() {
    if (free_.empty()) Grow();
    float* data = free_.back();
    free_.pop_back();
    return std::make_shared<Page>(this, data);
  }

  std::int64_t row() const { return row_; }

 private:
  void Grow() {
    constexpr int kSlabPages = 64;
    slabs_.emplace_back(std::size_t(row_) * kPageTokens * kSlabPages);
    for (int i = kSlabPages - 1; i >= 0; --i) {
      free_.push_back(slabs_.back().data() + std::int64_t(i) * kPageTokens * row_);
    }
  }

  std::int64_t row_;
  std::vector<AlignedFloats> slabs_;
  std::vector<float*> free_;
};

/// The rows of one sequence by position. A fork shares the rows so far and continues in pages of
/// its own.
class LatentRows {
 public:
  explicit LatentRows(LatentCache* cache) : cache_(cache) {}

  /// Room for one more token; its base pointer.
  float* Append() {
    if (used_ == LatentCache::kPageTokens || pages_.empty() || forked_) {
      pages_.push_back(cache_->Allocate());
      used_ = 0;
      forked_ = false;
    }
    float* base = pages_.back()->data + std::int64_t(used_++) * cache_->row();
    keys_.push_back(base);
    return base;
  }

  LatentRows Fork() const {
    LatentRows copy = *this;
    copy.forked_ = true;  // never writes into a shared page
    return copy;
  }

  const void* const* keys() const { return keys_.data(); }
  int size() const { return int(keys_.size()); }

 private:
  LatentCache* cache_;
  std::vector<std::shared_ptr<LatentCache::Page>> pages_;
  std::vector<const void*> keys_;
  int used_ = 0;
  bool forked_ = false;
};

}  // namespace temper::engine
