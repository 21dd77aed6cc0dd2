#pragma once
// A small GRPO run on disk, and the processes of a supervisor that trains it.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "tests/cli/programs.h"

namespace temper::cli {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// Processes by parent: pid and command line.
inline std::vector<std::pair<pid_t, std::string>> ChildrenOf(pid_t parent) {
  std::vector<std::pair<pid_t, std::string>> children;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream stat(entry.path() / "stat"), command(entry.path() / "cmdline");
    std::string line, words;
    std::getline(stat, line);
    const std::size_t after = line.rfind(')');
    if (after == std::string::npos) continue;
    char state = 0;
    pid_t its_parent = 0;
    std::istringstream(line.substr(after + 1)) >> state >> its_parent;
    if (its_parent != parent || state == 'Z') continue;
    std::getline(command, words);
    for (char& c : words) {
      if (c == '\0') c = ' ';
    }
    children.emplace_back(std::stoi(name), words);
  }
  return children;
}

template <class Done>
bool Eventually(Done done, double seconds = 30) {
  const auto until = Clock::now() + std::chrono::duration<double>(seconds);
  while (!done()) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

class TrainingTest : public ProgramTest {
 protected:
  TrainingTest() {
    Model();
    std::string sft, grpo;
    for (int i = 0; i < 40; ++i) {
      const std::string a = std::to_string(i), b = std::to_string(2 * i);
      sft += "{\"prompt\": \"" + a + ";\", \"completion\": \"<" + b + ">\"}\n";
      grpo += "{\"prompt\": \"" + a + ";\", \"answer\": \"" + b + "\"}\n";
    }
    Write("sft.jsonl", sft);
    Write("grpo.jsonl", grpo);
    Write("reward.lua", "function score(s) return #s.completion_ids % 2 end");
    config_ = Write("grpo.json", R"({"output_dir": "run", "model": "model", "threads": 2,
        "data": {"train": "grpo.jsonl"}, "rewards": [{"script": "reward.lua"}],
        "grpo": {"max_steps": 3, "groups_per_step": 2, "num_generations": 2,
                 "max_completion_length": 8, "learning_rate": 1e-4}})");
  }
  ~TrainingTest() override {
    if (supervisor_ > 0) kill(supervisor_, SIGKILL);
  }

  /// `temper ARGS` in the background, its stderr in the file err.
  void Start(const std::vector<std::string>& args) {
    supervisor_ = fork();
    if (supervisor_ == 0) {
      std::vector<char*> list = {const_cast<char*>(TEMPER_PROGRAM)};
      for (const std::string& arg : args) list.push_back(const_cast<char*>(arg.c_str()));
      list.push_back(nullptr);
      dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
      dup2(open(Path("err").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), STDERR_FILENO);
      execv(TEMPER_PROGRAM, list.data());
      _exit(127);
    }
  }

  int Wait() {
    int status = 0;
    waitpid(supervisor_, &status, 0);
    supervisor_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  pid_t Child(const std::string& role) const {
    for (const auto& [pid, command] : ChildrenOf(supervisor_)) {
      if (command.find(" " + role + " ") != std::string::npos) return pid;
    }
    return -1;
  }

  std::int64_t Steps() const {
    const std::string text = Read(Path("run/metrics.jsonl"));
    return std::count(text.begin(), text.end(), '\n');
  }

  std::string config_;
  pid_t supervisor_ = -1;
};

/// Settings as --set.
inline std::vector<std::string> Sets(const std::vector<std::string>& list) {
  std::vector<std::string> args;
  for (const std::string& set : list) args.insert(args.end(), {"--set", set});
  return args;
}

}  // namespace temper::cli
