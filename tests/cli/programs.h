#pragma once
// Runs the built programs the way a shell does.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "configs/json.h"

namespace temper::cli {

struct Ran {
  int code = 0;
  std::string out, err;
  /// The JSON lines of stdout.
  std::vector<Json> Lines() const {
    std::vector<Json> lines;
    std::istringstream in(out);
    for (std::string line; std::getline(in, line);)
      lines.push_back(configs::ParseJson(line, "stdout"));
    return lines;
  }
};

/// A test with a folder of its own.
class ProgramTest : public testing::Test {
 protected:
  ProgramTest() {
    std::string name = testing::TempDir() + "temper_cli_XXXXXX";
    dir_ = mkdtemp(name.data());
  }
  ~ProgramTest() override { std::filesystem::remove_all(dir_); }

  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name), std::ios::binary) << text;
    return Path(name);
  }

  static std::string Read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }

  static std::string Quoted(const std::string& text) {
    std::string quoted = "'";
    for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
  }

  /// `temper ARGS`, with `input` on stdin.
  Ran Temper(const std::vector<std::string>& args, const std::string& input = "",
             const std::string& environment = "") const {
    std::string command = environment + " " + Quoted(TEMPER_PROGRAM);
    for (const std::string& arg : args) command += " " + Quoted(arg);
    command += " <" + Quoted(Write("stdin", input)) + " >" + Quoted(Path("stdout")) + " 2>" +
               Quoted(Path("stderr"));
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), Read(Path("stdout")),
            Read(Path("stderr"))};
  }

  /// A fresh random model of a megabyte or so.
  std::string Model() const {
    const std::string source = TEMPER_SOURCE_DIR;
    const Ran ran =
        Temper({"init", "--arch", source + "/configs/arch/quickstart.json", "--tokenizer",
                source + "/configs/tokenizers/bytes", "--seed", "1", "--out", Path("model")});
    EXPECT_EQ(ran.code, 0) << ran.err;
    return Path("model");
  }

  std::string dir_;
};

}  // namespace temper::cli
