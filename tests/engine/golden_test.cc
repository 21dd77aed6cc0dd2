// Logits, experts and MTP logits against transformers (goldens/make_v3_small.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "engine/model_config.h"
#include "engine/probe.h"
#include "engine/safetensors.h"
#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

const std::string kModel = std::string(TEMPER_SOURCE_DIR) + "/tests/engine/goldens/v3_small";

/// The largest difference as a share of the golden's range.
double WorstOfRange(const std::vector<float>& got, const std::vector<float>& golden) {
  EXPECT_EQ(got.size(), golden.size());
  const auto [low, high] = std::minmax_element(golden.begin(), golden.end());
  double worst = 0;
  for (std::size_t i = 0; i < golden.size(); ++i) {
    worst = std::max(worst, std::abs(double(got[i]) - double(golden[i])));
  }
  return worst / (double(*high) - double(*low));
}

class GoldenTest : public testing::Test {
 protected:
  GoldenTest() : golden_(kModel + "/golden.safetensors") {
    std::ofstream ids(dir_.path() + "/ids.json");
    ids << "[";
    for (; golden_.Has("tokens." + std::to_string(count_)); ++count_) {
      ids << (count_ > 0 ? ",[" : "[");
      const std::vector<std::int32_t> tokens = golden_.ReadInts("tokens." + std::to_string(count_));
      for (std::size_t i = 0; i < tokens.size(); ++i) ids << (i > 0 ? "," : "") << tokens[i];
      ids << "]";
    }
    ids << "]";
  }

  SafetensorsFile Probe(int chunk) {
    ProbeOptions options;
    options.model = kModel;
    options.ids = dir_.path() + "/ids.json";
    options.out = dir_.path() + "/out.safetensors";
    options.chunk = chunk;
    ProbeLogits(options);
    return SafetensorsFile(options.out);
  }

  TempDir dir_;
  SafetensorsFile golden_;
  int count_ = 0;
};

TEST_F(GoldenTest, LogitsExpertsAndMtpAreThoseOfTransformers) {
  ASSERT_EQ(count_, 4);
  for (int chunk : {512, 9}) {
    const SafetensorsFile got = Probe(chunk);
    for (int i = 0; i < count_; ++i) {
      const std::string n = std::to_string(i);
      EXPECT_LE(WorstOfRange(got.ReadFloats("logits." + n), golden_.ReadFloats("logits." + n)), 1e-5);
      if (golden_.Has("mtp_logits." + n)) {
        EXPECT_LE(WorstOfRange(got.ReadFloats("mtp_logits." + n), golden_.ReadFloats("mtp_logits." + n)),
                  1e-5);
      }
      const std::vector<float> gap = golden_.ReadFloats("gap." + n);
      const std::vector<std::int32_t> ours = got.ReadInts("experts." + n);
      const std::vector<std::int32_t> theirs = golden_.ReadInts("experts." + n);
      ASSERT_EQ(ours.size(), theirs.size());
      const std::size_t k = ours.size() / gap.size();
      for (std::size_t row = 0; row < gap.size(); ++row) {
        if (gap[row] <= 1e-5f) continue;
        EXPECT_TRUE(std::equal(ours.begin() + row * k, ours.begin() + (row + 1) * k,
                               theirs.begin() + row * k))
            << "sequence " << i << ", row " << row;
      }
    }
  }
}

TEST_F(GoldenTest, TheComparisonSeesASmallDifference) {
  const std::vector<float> golden = golden_.ReadFloats("logits.2");
  std::vector<float> wrong = golden;
  wrong[golden.size() / 2] += 1e-3f;
  EXPECT_GT(WorstOfRange(wrong, golden), 1e-5);
}

}  // namespace
}  // namespace temper::engine
