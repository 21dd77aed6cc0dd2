#pragma once
// What every test on the machine of simt.h needs: three orders of threads, exact comparison.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/kernels/testing.h"
#include "tests/simt/buffer.h"

namespace simt {

/// Runs body under each order; the forward one is left behind.
template <typename Body>
void UnderEveryOrder(const Body& body) {
  const char* const names[] = {"forward", "reverse", "shuffled"};
  for (Order order : {Order::kForward, Order::kReverse, Order::kShuffled}) {
    SCOPED_TRACE(names[static_cast<int>(order)]);
    SetOrder(order, 7);
    body();
  }
  SetOrder(Order::kForward);
}

/// Results of body(order) under the three orders; equal where nothing races.
template <typename Body>
std::vector<std::vector<float>> Results(const Body& body) {
  std::vector<std::vector<float>> results;
  UnderEveryOrder([&] { results.push_back(body()); });
  return results;
}

inline bool SameUnderEveryOrder(const std::vector<std::vector<float>>& results) {
  for (const std::vector<float>& r : results) {
    if (r.size() != results[0].size() ||
        std::memcmp(r.data(), results[0].data(), r.size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace simt
