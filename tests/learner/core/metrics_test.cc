#include "learner/core/metrics.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "configs/crc32c.h"
#include "configs/error.h"
#include "learner/core/progress.h"

namespace temper::learner {
namespace {

namespace fs = std::filesystem;

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() {
    char name[] = "/tmp/temper_metrics_XXXXXX";
    dir_ = mkdtemp(name);
  }
  ~MetricsTest() override { fs::remove_all(dir_); }

  static std::string Read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }

  /// The events of the newest file, checked against their checksums.
  std::vector<std::string> Events() const {
    std::string newest;
    for (const auto& entry : fs::directory_iterator(dir_ + "/tb")) {
      newest = std::max(newest, entry.path().string());
    }
    const std::string bytes = Read(newest);
    std::vector<std::string> events;
    for (std::size_t at = 0; at < bytes.size();) {
      std::uint64_t length = 0;
      std::uint32_t crc = 0;
      std::memcpy(&length, bytes.data() + at, 8);
      std::memcpy(&crc, bytes.data() + at + 8, 4);
      EXPECT_EQ(crc, Masked(bytes.substr(at, 8)));
      events.push_back(bytes.substr(at + 12, length));
      std::memcpy(&crc, bytes.data() + at + 12 + length, 4);
      EXPECT_EQ(crc, Masked(events.back()));
      at += 16 + length;
    }
    return events;
  }

  static std::uint32_t Masked(const std::string& bytes) {
    const std::uint32_t crc = configs::Crc32c(bytes);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
  }

  std::string dir_;
};

TEST_F(MetricsTest, WritesALineAndAnEventAStep) {
  MetricsLog log(dir_, 0);
  log.Write({{"step", 1}, {"loss", 0.5}, {"who", "text"}, {"seconds", {{"sft", 2}}}});
  log.Write({{"step", 2}, {"loss", 0.25}});
  EXPECT_EQ(Read(dir_ + "/metrics.jsonl"),
            "{\"step\":1,\"loss\":0.5,\"who\":\"text\",\"seconds\":{\"sft\":2}}\n"
            "{\"step\":2,\"loss\":0.25}\n");
  const std::vector<std::string> events = Events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_NE(events[0].find("brain.Event:2"), std::string::npos);
  // The step's varint behind its tag, and loss = 0.5f little-endian behind its own.
  EXPECT_EQ(events[1].substr(9, 2), std::string("\x10\x01", 2));
  const std::string loss("\x0a\x04loss\x15\x00\x00\x00\x3f", 11);
  EXPECT_NE(events[1].find(loss), std::string::npos);
  EXPECT_NE(events[1].find("seconds/sft"), std::string::npos);
  EXPECT_EQ(events[1].find("who"), std::string::npos);
}

TEST_F(MetricsTest, AResumedRunForgetsLinesOfStepsThatWillComeAgain) {
  {
    MetricsLog log(dir_, 0);
    for (int step = 1; step <= 4; ++step) log.Write({{"step", step}});
  }
  std::ofstream(dir_ + "/metrics.jsonl", std::ios::app) << "{\"step\":5,\"lo";  // torn by a crash
  MetricsLog log(dir_, 2);
  log.Write({{"step", 3}, {"again", 1}});
  EXPECT_EQ(Read(dir_ + "/metrics.jsonl"),
            "{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"again\":1}\n");
  const std::vector<std::string> events = Events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1].substr(9), std::string("\x10\x03\x3a\x02\x08\x01", 6));  // restart at 3
}

TEST_F(MetricsTest, AFolderThatCannotBeWrittenIsTheMachinesFault) {
  std::ofstream(dir_ + "/tb") << "a file where a folder belongs";
  EXPECT_THROW(MetricsLog(dir_, 0), MachineError);
}

TEST(ProgressTest, SpellsDurations) {
  EXPECT_EQ(Duration(0.0004), "0 ms");
  EXPECT_EQ(Duration(0.85), "850 ms");
  EXPECT_EQ(Duration(59.4), "59 s");
  EXPECT_EQ(Duration(60), "1 min");
  EXPECT_EQ(Duration(250), "4 min 10 s");
  EXPECT_EQ(Duration(7500), "2 h 5 min");
}

TEST(ProgressTest, PrintsFirstAndLastAsPlainLinesWhereThereIsNoTerminal) {
  testing::internal::CaptureStderr();
  {
    Progress progress("sft", "step", 3);
    progress.At(1, "loss 1.5");
    progress.At(2, "loss 1.4");
    progress.At(3, "loss 1.3");
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.rfind("sft: step 1/3", 0), 0u) << text;
  EXPECT_EQ(text.find("loss 1.4"), std::string::npos) << text;
  EXPECT_NE(text.find("sft: step 3/3"), std::string::npos) << text;
  EXPECT_NE(text.find("took"), std::string::npos) << text;
}

}  // namespace
}  // namespace temper::learner
