#pragma once
// The latent cache: fixed pages of token rows, reference-counted so that sequences share prefixes.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/memory.h"

namespace temper::engine {

/// A token row holds the latent rows of all cached layers: [layers] of CacheRowBytes. A page holds
/// kPageTokens of them and returns to the cache with its last owner.
class LatentCache {
 public:
  static constexpr int kPageTokens = 16;

  /// max_pages 0: as many as memory has.
  explicit LatentCache(std::int64_t bytes_per_token, std::int64_t max_pages = 0)
      : row_(bytes_per_token), max_pages_(max_pages) {}
  /// All pages lie in `memory`, which only their user may touch: it may be a device's.
  LatentCache(std::int64_t bytes_per_token, std::int64_t pages, std::shared_ptr<std::byte> memory);

  struct Page {
    LatentCache* owner;
    std::byte* data;
    Page(LatentCache* cache, std::byte* bytes) : owner(cache), data(bytes) {}
    ~Page() { owner->free_.push_back(data); }
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
  };

  /// Null if all pages are taken.
  std::shared_ptr<Page> Allocate();

  /// Bytes of a token.
  std::int64_t row() const { return row_; }
  std::int64_t max_pages() const { return max_pages_; }
  std::int64_t used_pages() const { return pages_ - std::int64_t(free_.size()); }
  /// Pages that Allocate can still give.
  std::int64_t free_pages() const {
    return max_pages_ == 0 ? INT64_MAX : max_pages_ - used_pages();
  }

 private:
  void Grow();

  std::int64_t row_, max_pages_;
  std::int64_t pages_ = 0;
  std::vector<AlignedBytes> slabs_;
  std::shared_ptr<std::byte> memory_;
  std::vector<std::byte*> free_;
};

/// The rows of one sequence by position. A fork shares the rows so far and continues in pages of
/// its own: a row that two sequences see is never written again.
class LatentRows {
 public:
  explicit LatentRows(LatentCache* cache) : cache_(cache) {}

  /// Makes sure of pages for `tokens` more; false if the cache has too few (those that it gave are
  /// kept).
  bool Reserve(int tokens);
  /// Room for one more token; its base pointer. Throws std::logic_error past what the cache holds.
  std::byte* Append();
  /// Forgets the rows from `size` on, which this sequence appended itself.
  void Truncate(int size);
  /// Takes a whole page of another sequence's rows as its next ones. All rows so far are whole
  /// pages.
  void Share(const std::shared_ptr<LatentCache::Page>& page);
  LatentRows Fork() const;
  void Clear();

  /// Where another decoder (engine/cuda) keeps a copy of these places; a fork has none at first.
  struct Mirror {
    int number = 0;
    int written = 0;  // places [0, written) are there
    int laid = 0;     // by its so-many-th layout
  };
  std::shared_ptr<Mirror>& mirror() const { return mirror_; }

  const void* const* keys() const { return keys_.data(); }
  std::byte* at(int position) const {
    return static_cast<std::byte*>(const_cast<void*>(keys_[position]));
  }
  int size() const { return int(keys_.size()); }
  /// The page of rows [16 i, 16 i + 16) of rows that were never forked.
  const std::shared_ptr<LatentCache::Page>& page(int i) const { return pages_[i]; }

 private:
  LatentCache* cache_;
  std::vector<std::shared_ptr<LatentCache::Page>> pages_;
  std::vector<const void*> keys_;
  int open_ = 0;  // pages from here on are empty or this sequence's own: rows may be appended
  int room_ = 0;  // rows left in pages_[open_ ..]
  mutable std::shared_ptr<Mirror> mirror_;
};

}  // namespace temper::engine
