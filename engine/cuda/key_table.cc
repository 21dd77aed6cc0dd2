#include "engine/cuda/key_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cuda/cuda_kernels.h"

namespace temper::engine::cuda {

KeyTable::KeyTable(const Device& device, std::int64_t reserved)
    : device_(device), reserved_(reserved) {}

void KeyTable::Begin(int keys) {
  index_.clear();
  place_.clear();
  while (ld_ < keys) {
    ld_ *= 2;
    lay_ = true;
  }
  if (lay_) Lay();
}

/// A new table; every sequence's places are written again when it next appears.
void KeyTable::Lay() {
  device_.Wait();
  if (room_ == 0 || rows_ > room_) room_ = std::max(64, 2 * rows_);
  table_.reset();
  table_ = device_.Allocate(std::size_t(room_) * std::size_t(ld_) * 4, "the table of cache rows");
  ++layout_;
  moved_ = true;
  lay_ = false;
  Write(0, 0, reserved_);
}

std::shared_ptr<LatentRows::Mirror> KeyTable::Take() {
  int number = rows_;
  if (free_->empty()) {
    ++rows_;
  } else {
    number = free_->back();
    free_->pop_back();
  }
  const auto give_back = [free = free_](LatentRows::Mirror* m) {
    free->push_back(m->number);
    delete m;
  };
  return {new LatentRows::Mirror{number, 0, layout_}, give_back};
}

int KeyTable::Add(const LatentRows& rows, int count, const std::byte* base, std::int64_t row) {
  std::shared_ptr<LatentRows::Mirror>& mirror = rows.mirror();
  if (!mirror) mirror = Take();
  if (mirror->number >= room_) {
    // More sequences than rows: laid out anew, and this step's sequences are told again.
    index_.clear();
    place_.clear();
    Lay();
    return -1;
  }
  if (mirror->laid != layout_) {
    mirror->laid = layout_;
    mirror->written = 0;
  }
  for (int p = mirror->written; p < count; ++p) Write(mirror->number, p, (rows.at(p) - base) / row);
  mirror->written = std::max(mirror->written, count);
  return mirror->number;
}

void KeyTable::Write(int number, int position, std::int64_t place) {
  index_.push_back(number * ld_ + position);
  place_.push_back(std::int32_t(place));
}

bool KeyTable::Flush() {
  const std::size_t count = index_.size(), bytes = count * 12;
  if (bytes > staged_) {
    device_.Wait();
    staged_ = 2 * bytes;
    staging_ = device_.AllocateHost(staged_);
    writes_ = device_.Allocate(staged_, "new rows of the cache");
  }
  if (count > 0) {
    std::memcpy(staging_.get(), index_.data(), count * 8);
    std::memcpy(staging_.get() + count * 8, place_.data(), count * 4);
    device_.Copy(writes_.get(), staging_.get(), bytes, cudaMemcpyHostToDevice);
    kernels::cuda::Scatter(reinterpret_cast<const std::int64_t*>(writes_.get()),
                           reinterpret_cast<const std::int32_t*>(writes_.get() + count * 8),
                           int(count), reinterpret_cast<std::int32_t*>(table_.get()),
                           device_.stream());
  }
  return std::exchange(moved_, false);
}

}  // namespace temper::engine::cuda
