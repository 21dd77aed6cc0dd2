#pragma once
// A paged latent cache with scattered pages, as both sides see it.
#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/cuda_kernels.h"
#include "tests/simt/testing.h"

namespace simt {

class Paged {
 public:
  /// Row r sees counts[r] keys of its own pages; what no row sees is poisoned.
  Paged(temper::kernels::CacheType type, int latent, int rope, int page_tokens,
        const std::vector<int>& counts, float spread = 1.0f)
      : type_(type),
        latent_(latent),
        rope_(rope),
        page_tokens_(page_tokens),
        counts_(counts),
        bytes_(static_cast<std::int64_t>(temper::kernels::CacheRowBytes(type, latent, rope))),
        ld_((*std::max_element(counts.begin(), counts.end()) + page_tokens - 1) / page_tokens),
        pool_(static_cast<std::size_t>(Pages() * page_tokens * 2 * bytes_)),
        pages_(Shuffled()),
        device_counts_(counts) {
    const int dim = latent + rope;
    for (std::size_t r = 0; r < counts.size(); ++r) {
      const std::vector<float> keys = temper::kernels::Normal(
          static_cast<std::size_t>(counts[r]) * static_cast<std::size_t>(dim), 50 + r, spread);
      for (int j = 0; j < counts[r]; ++j) {
        temper::kernels::StoreCacheRow(type, keys.data() + std::int64_t{j} * dim, latent, rope,
                                       Token(r, j) + offset());
      }
    }
  }

  std::int64_t offset() const { return bytes_; }  // the second of two layers

  std::vector<temper::kernels::AttentionRow> Rows() const {
    bases_.assign(counts_.size(), {});
    std::vector<temper::kernels::AttentionRow> rows;
    for (std::size_t r = 0; r < counts_.size(); ++r) {
      for (int j = 0; j < counts_[r]; ++j) bases_[r].push_back(Token(r, j));
      rows.push_back({bases_[r].data(), counts_[r]});
    }
    return rows;
  }

  temper::kernels::cuda::AttentionArgs Args(const float* q, int heads, float scale,
                                            float* o) const {
    return {{pool_.data(), 2 * bytes_, offset(), page_tokens_, type_, latent_, rope_},
            q,
            pages_.data(),
            ld_,
            device_counts_.data(),
            static_cast<int>(counts_.size()),
            heads,
            scale,
            o};
  }

 private:
  std::int64_t Pages() const { return ld_ * static_cast<std::int64_t>(counts_.size()); }

  std::vector<std::int32_t> Shuffled() const {
    std::vector<std::int32_t> pages(static_cast<std::size_t>(Pages()));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(5));
    return pages;
  }

  unsigned char* Token(std::size_t r, int j) const {
    const std::int64_t page = pages_.data()[static_cast<std::int64_t>(r) * ld_ + j / page_tokens_];
    return pool_.data() + (page * page_tokens_ + j % page_tokens_) * 2 * bytes_;
  }

  temper::kernels::CacheType type_;
  int latent_, rope_, page_tokens_;
  std::vector<int> counts_;
  std::int64_t bytes_, ld_;
  Buffer<unsigned char> pool_;
  Buffer<std::int32_t> pages_, device_counts_;
  mutable std::vector<std::vector<const void*>> bases_;
};

}  // namespace simt
