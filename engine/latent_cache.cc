#include "engine/latent_cache.h"

#include <algorithm>
#include <stdexcept>

namespace temper::engine {

LatentCache::LatentCache(std::int64_t bytes_per_token, std::int64_t pages,
                         std::shared_ptr<std::byte> memory)
    : row_(bytes_per_token), max_pages_(pages), pages_(pages), memory_(std::move(memory)) {
  for (std::int64_t i = pages - 1; i >= 0; --i)
    free_.push_back(memory_.get() + i * kPageTokens * row_);
}

std::shared_ptr<LatentCache::Page> LatentCache::Allocate() {
  if (free_.empty()) Grow();
  if (free_.empty()) return nullptr;
  std::byte* data = free_.back();
  free_.pop_back();
  return std::make_shared<Page>(this, data);
}

void LatentCache::Grow() {
  constexpr std::int64_t kSlabPages = 64;
  const std::int64_t count =
      max_pages_ == 0 ? kSlabPages : std::min(kSlabPages, max_pages_ - pages_);
  if (count <= 0) return;
  slabs_.emplace_back(std::size_t(row_ * kPageTokens * count));
  for (std::int64_t i = count - 1; i >= 0; --i)
    free_.push_back(slabs_.back().data() + i * kPageTokens * row_);
  pages_ += count;
}

bool LatentRows::Reserve(int tokens) {
  while (room_ < tokens) {
    std::shared_ptr<LatentCache::Page> page = cache_->Allocate();
    if (!page) return false;
    pages_.push_back(std::move(page));
    room_ += LatentCache::kPageTokens;
  }
  return true;
}

std::byte* LatentRows::Append() {
  if (!Reserve(1)) throw std::logic_error("LatentRows: the cache is full");
  // Pages from open_ on hold room_ free rows, all but the first of them whole.
  const int pages = int(pages_.size()) - open_;
  const int used = pages * LatentCache::kPageTokens - room_;
  const int page = open_ + used / LatentCache::kPageTokens;
  std::byte* base =
      pages_[page]->data + std::int64_t(used % LatentCache::kPageTokens) * cache_->row();
  --room_;
  keys_.push_back(base);
  return base;
}

void LatentRows::Truncate(int size) {
  while (int(keys_.size()) > size) {
    keys_.pop_back();
    ++room_;
  }
  if (mirror_) mirror_->written = std::min(mirror_->written, size);
}

void LatentRows::Share(const std::shared_ptr<LatentCache::Page>& page) {
  if (room_ != 0) throw std::logic_error("LatentRows: shared pages come first");
  pages_.push_back(page);
  for (int i = 0; i < LatentCache::kPageTokens; ++i)
    keys_.push_back(page->data + i * cache_->row());
  open_ = int(pages_.size());
}

LatentRows LatentRows::Fork() const {
  LatentRows copy = *this;
  copy.open_ = int(copy.pages_.size());  // never writes into a shared page
  copy.room_ = 0;
  copy.mirror_ = nullptr;
  return copy;
}

void LatentRows::Clear() {
  pages_.clear();
  keys_.clear();
  open_ = room_ = 0;
  if (mirror_) mirror_->written = 0;
}

}  // namespace temper::engine
