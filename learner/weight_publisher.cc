#include "learner/weight_publisher.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <utility>

#include "configs/sha256.h"
#include "engine/canary.h"
#include "learner/core/gradients.h"

namespace temper::learner {

namespace {

/// Bytes that are equal.
std::uint64_t Same(const std::byte* a, const std::byte* b, std::size_t n) {
  std::uint64_t same = 0;
  for (std::size_t begin = 0; begin < n; begin += 255) {
    std::uint8_t some = 0;  // counts fit the lanes of a vector
    for (std::size_t i = begin; i < std::min(begin + 255, n); ++i) some += a[i] == b[i];
    same += some;
  }
  return same;
}

}  // namespace

std::shared_ptr<const WeightSet> WeightPublisher::Next(Policy& policy, std::uint32_t version,
                                                       int tokens) {
  // The set before the last one, once nobody reads it: fresh memory would cost more than the copy.
  std::shared_ptr<WeightSet> set = std::exchange(spare_, nullptr);
  if (!set || set.use_count() > 1) set = std::make_shared<WeightSet>();
  std::atomic_thread_fence(std::memory_order_acquire);  // behind the last reader's release
  set->version = version;
  const Published& published = policy.published();
  set->bytes.resize(published.size());
  set->tensors.resize(published.tensors().size());
  std::vector<std::uint64_t> changed(set->tensors.size());
  ForRows(
      policy.pool(), std::int64_t(changed.size()), 8, [&](std::int64_t begin, std::int64_t end) {
        std::vector<std::span<const std::byte>> texts;
        for (std::int64_t i = begin; i < end; ++i) {
          const Published::Tensor& tensor = published.tensors()[std::size_t(i)];
          const std::span<const std::byte> bytes = published.Bytes(tensor);
          std::memcpy(set->bytes.data() + tensor.begin, bytes.data(), bytes.size());
          changed[std::size_t(i)] = bytes.size();
          if (served_) {
            changed[std::size_t(i)] -=
                Same(bytes.data(), served_->bytes.data() + tensor.begin, bytes.size());
          }
          texts.push_back(bytes);
        }
        std::vector<std::string> hashes = configs::Sha256Hex(texts);
        for (std::int64_t i = begin; i < end; ++i) {
          const Published::Tensor& tensor = published.tensors()[std::size_t(i)];
          set->tensors[std::size_t(i)] = {tensor.name,  engine::DtypeName(tensor.dtype),
                                          tensor.shape, tensor.begin,
                                          tensor.end,   std::move(hashes[std::size_t(i - begin)])};
        }
      });
  changed_ = double(std::accumulate(changed.begin(), changed.end(), std::uint64_t{0})) /
             double(published.size());
  set->canary = engine::Canary(policy.weights(), tokens, policy.pool());
  spare_ = std::exchange(served_, set);
  return set;
}

}  // namespace temper::learner
