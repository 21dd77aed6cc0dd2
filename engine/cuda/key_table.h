#pragma once
// Where each sequence's rows lie in the cache, on the device: a row of places for every sequence,
// of which a step writes only what is new.
#include <memory>
#include <vector>

#include "engine/cuda/memory.h"
#include "engine/latent_cache.h"

namespace temper::engine::cuda {

class KeyTable {
 public:
  /// `reserved`: the place that row 0 begins with; it belongs to no sequence.
  KeyTable(const Device& device, std::int64_t reserved);

  /// Before a step's rows are added: room for sequences of `keys` keys.
  void Begin(int keys);
  /// The number of the sequence's row; whatever of its first `count` places the device lacks joins
  /// the step's writes. `base` and `row`: the cache's address and bytes of a token.
  int Add(const LatentRows& rows, int count, const std::byte* base, std::int64_t row);
  /// Sends the writes. True where addresses have changed since the last time.
  bool Flush();

  const std::int32_t* pages() const { return reinterpret_cast<const std::int32_t*>(table_.get()); }
  std::int64_t ld() const { return ld_; }
  std::int64_t reserved() const { return reserved_; }

 private:
  void Write(int number, int position, std::int64_t place);
  void Lay();
  std::shared_ptr<LatentRows::Mirror> Take();

  const Device& device_;
  const std::int64_t reserved_;
  /// Rows that sequences gave back; these may outlive the table.
  std::shared_ptr<std::vector<int>> free_ = std::make_shared<std::vector<int>>();
  int rows_ = 1, room_ = 0;  // taken once, laid out
  std::int64_t ld_ = 256;
  int layout_ = 0;
  bool moved_ = false, lay_ = true;
  std::vector<std::int64_t> index_;
  std::vector<std::int32_t> place_;
  std::shared_ptr<std::byte> table_, staging_, writes_;
  std::size_t staged_ = 0;
};

}  // namespace temper::engine::cuda
