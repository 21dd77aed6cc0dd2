#pragma once
// The same requests to the CPU's engine and to a device's, results by sample.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "engine/engine.h"
#include "tests/engine/results.h"
#include "tests/engine/tiny_model.h"
#include "tests/simt/buffer.h"
#ifndef TEMPER_ON_DEVICE
#include "tests/simt/host_runtime.h"
#endif

namespace temper::engine {

inline GroupRequest Group(std::uint64_t group, int prompt, int samples, int max_new,
                          bool experts = false) {
  GroupRequest r;
  r.group = group;
  for (int i = 0; i < prompt; ++i)
    r.prompt.push_back((int(group % 3) * 37 + i * 13 + i * i) % 97 + 3);
  for (int s = 0; s < samples; ++s) r.samples.push_back(std::uint32_t(s));
  r.seed = 3;
  r.max_new_tokens = max_new;
  r.stop_ids = {1};
  r.experts = experts;
  return r;
}

inline Results Drive(Engine& engine, const std::vector<GroupRequest>& groups) {
  for (const GroupRequest& g : groups) engine.Add(g);
  return Finish(engine);
}

inline EngineOptions On(const std::string& device) {
  EngineOptions o;
  o.device = device;
  o.max_rows = 24;
  o.chunk = 16;
  o.cache_tokens = 2048;
  o.valid_ids = 99;
  return o;
}

inline Results Drive(std::shared_ptr<Weights> weights, const EngineOptions& options,
                     const std::vector<GroupRequest>& groups) {
  Engine engine(std::move(weights), options);
  return Drive(engine, groups);
}

inline bool Same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

/// Tokens, log-probs, experts, kept ids: bit for bit.
inline void ExpectSame(const Results& a, const Results& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [key, sample] : a) {
    SCOPED_TRACE("group " + std::to_string(key.first) + " sample " + std::to_string(key.second));
    const FinishedSample& other = b.at(key);
    EXPECT_EQ(sample.ids, other.ids);
    EXPECT_TRUE(Same(sample.logp, other.logp));
    EXPECT_TRUE(Same(sample.logp_processed, other.logp_processed));
    EXPECT_TRUE(Same(sample.log_kept_mass, other.log_kept_mass));
    EXPECT_EQ(sample.versions, other.versions);
    EXPECT_EQ(sample.finish, other.finish);
    EXPECT_EQ(sample.experts, other.experts);
    EXPECT_EQ(sample.kept, other.kept);
  }
}

}  // namespace temper::engine
