// The arrows between the rooms (README, "Rooms"): a reversed include fails here.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>

namespace temper {
namespace {

namespace fs = std::filesystem;
using Rooms = std::set<std::string>;

/// A room to the rooms whose headers it may include; its own is always allowed.
const std::map<std::string, Rooms>& Arrows() {
  static const std::map<std::string, Rooms> arrows = {
      {"configs", {}},
      {"kernels", {}},
      {"engine", {"kernels", "configs"}},
      {"wire", {"configs"}},
      {"store", {"configs"}},
      {"actor", {"wire", "engine", "kernels", "configs"}},
      {"reward", {"wire", "engine", "kernels", "configs"}},
      {"learner", {"store", "wire", "reward", "engine", "kernels", "configs"}},
      {"sft", {"learner", "engine", "kernels", "configs", "store"}},
      {"cli",
       {"sft", "learner", "store", "wire", "reward", "actor", "engine", "kernels", "configs"}},
  };
  return arrows;
}

struct Include {
  std::string file, header;
};

/// What `room` includes with quotes, by file. learner/core belongs to learner, engine/data to
/// engine.
std::vector<Include> Includes(const std::string& room) {
  static const std::regex line_form(R"(\s*#\s*include\s+["<]([^">]+)[">].*)");
  std::vector<Include> includes;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(TEMPER_SOURCE_DIR) / room)) {
    const std::string type = entry.path().extension().string();
    if (type != ".h" && type != ".cc" && type != ".cu") continue;
    std::ifstream in(entry.path());
    for (std::string line; std::getline(in, line);) {
      std::smatch match;
      if (std::regex_match(line, match, line_form)) {
        includes.push_back(
            {fs::relative(entry.path(), TEMPER_SOURCE_DIR).string(), match[1].str()});
      }
    }
  }
  return includes;
}

TEST(LayeringTest, EveryIncludeFollowsTheArrows) {
  for (const auto& [room, may] : Arrows()) {
    const std::vector<Include> includes = Includes(room);
    EXPECT_FALSE(includes.empty()) << room << " has no sources";
    for (const auto& [file, header] : includes) {
      const std::string other = header.substr(0, header.find('/'));
      if (header == "configs/error.h" && room != "kernels") continue;  // who must act: for all
      if (other == room || Arrows().count(other) == 0) continue;
      EXPECT_EQ(may.count(other), 1u)
          << file << " includes " << header << ": " << room << "/ may not know " << other << "/";
    }
  }
}

TEST(LayeringTest, OnlyTheTrainingSideIncludesLibTorch) {
  for (const auto& [room, may] : Arrows()) {
    for (const auto& [file, header] : Includes(room)) {
      const bool torch = header.rfind("torch/", 0) == 0 || header.rfind("ATen/", 0) == 0 ||
                         header.rfind("c10/", 0) == 0;
      const bool training =
          (room == "learner" && file.rfind("learner/core/", 0) != 0) || room == "sft";
      EXPECT_TRUE(!torch || training) << file << " includes " << header;
    }
  }
}

TEST(LayeringTest, TheTorchFreeHalfOfTheLearnerDoesNotKnowTheOther) {
  for (const auto& [file, header] : Includes("learner")) {
    if (file.rfind("learner/core/", 0) != 0 || header.rfind("learner/", 0) != 0) continue;
    EXPECT_EQ(header.rfind("learner/core/", 0), 0u) << file << " includes " << header;
  }
}

TEST(LayeringTest, EveryFolderWithSourcesIsARoom) {
  const Rooms others = {"tests", "bench", "build", "runs"};
  for (const auto& entry : fs::directory_iterator(TEMPER_SOURCE_DIR)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || name[0] == '.' || others.count(name) != 0 ||
        name.rfind("build", 0) == 0) {
      continue;
    }
    for (const auto& file : fs::recursive_directory_iterator(entry.path())) {
      if (file.path().extension() != ".cc") continue;
      EXPECT_EQ(Arrows().count(name), 1u) << name << "/ holds sources but is not in the map";
      break;
    }
  }
}

}  // namespace
}  // namespace temper
