#pragma once
// Something that scores the samples of a group: a sandboxed script or rule, a model, a remote.
#include <span>
#include <vector>

#include "reward/sample.h"

namespace temper::reward {

class Backend {
 public:
  virtual ~Backend() = default;
  /// One outcome a sample, in order. What goes wrong with a sample is its status.
  virtual std::vector<Outcome> Score(std::span<const SampleInput> samples) = 0;
  /// ok, or why no sample can be scored.
  virtual Outcome Check() = 0;
};

}  // namespace temper::reward
