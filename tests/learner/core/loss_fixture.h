#pragma once
// Batches for the loss's tests: the fixture of the golden rows, and random ones on a grid that
// float holds exactly.
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/core/loss.h"

namespace temper::learner {

/// Owns what a LossInput views.
struct Batch {
  int n = 0, t = 0;
  std::vector<float> logp, old_logp, rollout_logp, ref_logp, mask;
  std::vector<double> rewards;

  LossInput Input() const { return Rows(0, n); }
  LossInput Rows(int begin, int end) const {
    const auto cut = [&](const std::vector<float>& all) {
      return std::span<const float>(all).subspan(static_cast<std::size_t>(begin) * t,
                                                 static_cast<std::size_t>(end - begin) * t);
    };
    return {end - begin, t, cut(logp), cut(old_logp), cut(rollout_logp), cut(ref_logp), cut(mask)};
  }
};

/// {"key": value} of the golden file as `--set grpo.key=value`.
inline configs::Grpo GrpoOf(const Json& set) {
  std::vector<std::string> sets;
  for (const auto& [key, value] : set.items()) {
    sets.push_back("grpo." + key + "=" +
                   (value.is_string() ? value.get<std::string>() : value.dump()));
  }
  return configs::GrpoFromSets(sets);
}

inline Json LoadFixture() {
  std::ifstream in(std::string(TEMPER_SOURCE_DIR) +
                   "/tests/learner/core/goldens/loss_fixture.json");
  return Json::parse(std::string(std::istreambuf_iterator<char>(in), {}));
}

inline Batch FixtureBatch(const Json& fixture) {
  Batch batch;
  batch.n = fixture.at("n").get<int>();
  batch.t = fixture.at("t").get<int>();
  batch.logp = fixture.at("logp").get<std::vector<float>>();
  batch.old_logp = fixture.at("old_logp").get<std::vector<float>>();
  batch.rollout_logp = fixture.at("rollout_logp").get<std::vector<float>>();
  batch.ref_logp = fixture.at("ref_logp").get<std::vector<float>>();
  batch.mask = fixture.at("mask").get<std::vector<float>>();
  batch.rewards = fixture.at("rewards").get<std::vector<double>>();
  return batch;
}

constexpr double kGrid =
    1.0 / 1024;  // every log-prob is a multiple: adding a step to several of them is exact

/// 8 rows of 10 in groups of 4; ragged, with holes, row 5 empty, NaN outside the mask.
inline Batch RandomBatch(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  const auto snap = [](double x) { return static_cast<float>(std::round(x / kGrid) * kGrid); };
  Batch batch;
  batch.n = 8;
  batch.t = 10;
  for (int i = 0; i < batch.n; ++i) {
    const int length = i == 5 ? 0 : 2 + static_cast<int>(random() % 9);
    for (int t = 0; t < batch.t; ++t) {
      const bool trained = t < length && (t == 0 || random() % 5 != 0);
      const double logp = -0.2 - std::abs(normal(random));
      const double old_logp = logp + 0.3 * normal(random);
      const auto put = [&](std::vector<float>& to, double x) {
        to.push_back(trained ? snap(x) : std::numeric_limits<float>::quiet_NaN());
      };
      put(batch.logp, logp);
      put(batch.old_logp, old_logp);
      put(batch.rollout_logp, old_logp + 0.2 * normal(random));
      put(batch.ref_logp, logp + 0.4 * normal(random));
      batch.mask.push_back(trained);
    }
    batch.rewards.push_back(std::round(normal(random) * 16) / 16);
  }
  return batch;
}

/// The loss of a whole step in one batch.
inline LossOutput Loss(const configs::Grpo& config, const Batch& batch,
                       const std::vector<double>& advantages) {
  return PolicyLoss(config, batch.Input(), advantages, CountTotals(batch.Input()));
}

}  // namespace temper::learner
