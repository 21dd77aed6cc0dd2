#pragma once
// A small model and rows of additions in a folder of their own, and runs on them.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/checkpoint.h"
#include "sft/sft.h"
#include "tests/engine/temp_dir.h"

namespace temper::sft {

namespace fs = std::filesystem;

class SftTest : public testing::Test {
 protected:
  SftTest() {
    Json arch = configs::ReadJsonFile(TEMPER_SOURCE_DIR "/configs/arch/quickstart.json");
    arch["hidden_size"] = 64;
    arch["intermediate_size"] = 96;
    arch["moe_intermediate_size"] = 32;
    Write("arch.json", arch.dump());
    engine::InitModel(Path("arch.json"), TEMPER_SOURCE_DIR "/configs/tokenizers/bytes", 1,
                      engine::Dtype::kF32, Path("model"));
    std::string rows;
    for (int i = 0; i < 40; ++i) {
      rows += Json{{"prompt", std::to_string(i) + "+1="},
                   {"completion", std::to_string(i + 1) + std::string(i % 7, '!')}}
                  .dump() +
              "\n";
    }
    Write("rows.jsonl", rows);
  }

  std::string Path(const std::string& name) const {
    return (fs::path(dir_.path()) / name).string();
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name), std::ios::binary) << text;
  }
  static std::string Bytes(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  configs::Config Config(const std::string& run, std::vector<std::string> sets = {}) const {
    const Json json = {{"seed", 3},
                       {"output_dir", Path(run)},
                       {"model", Path("model")},
                       {"threads", 1},
                       {"data", {{"train", Path("rows.jsonl")}}},
                       {"sft",
                        {{"max_steps", 6},
                         {"learning_rate", 3e-3},
                         {"max_length", 64},
                         {"tokens_per_step", 90},
                         {"save_steps", 3}}}};
    return configs::ParseConfig(json.dump(), Path("config.json"), sets, configs::Job::kSft);
  }
  /// The metric lines of a run.
  std::vector<Json> Run(const configs::Config& config) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunSft(config, alone_);
    testing::internal::GetCapturedStderr();
    const std::string out = testing::internal::GetCapturedStdout();
    EXPECT_EQ(code, 0);
    std::vector<Json> lines;
    std::istringstream in(out);
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  TempDir dir_;
  learner::Communicator alone_;
};

}  // namespace temper::sft
