#include "cli/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <vector>

#include "configs/error.h"

namespace temper::cli {
namespace {

/// execv's argument list; the strings must outlive it.
std::vector<char*> Pointers(const std::string& program, const Arguments& args) {
  std::vector<char*> list = {const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) list.push_back(const_cast<char*>(arg.c_str()));
  list.push_back(nullptr);
  return list;
}

/// execve's environment: ours with `variables` over it, of which they are the texts.
class Environment {
 public:
  explicit Environment(const std::vector<std::pair<std::string, std::string>>& variables) {
    for (char** entry = environ; *entry; ++entry) {
      const std::string_view text = *entry;
      const bool ours = std::any_of(variables.begin(), variables.end(), [&](const auto& variable) {
        return text.starts_with(variable.first + "=");
      });
      if (!ours) texts_.emplace_back(text);
    }
    for (const auto& [name, value] : variables) texts_.push_back(name + "=" + value);
    for (std::string& text : texts_) pointers_.push_back(text.data());
    pointers_.push_back(nullptr);
  }
  char* const* get() const { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<char*> pointers_;
};

/// -1 for "": the child keeps ours.
int OpenLog(const std::string& path) {
  if (path.empty()) return -1;
  const int log = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) throw MachineError(path + ": " + std::strerror(errno));
  return log;
}

int CodeOf(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

std::string ThisProgram() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) throw MachineError("/proc/self/exe: " + error.message());
  return path.string();
}

std::string LearnerProgram() {
  const auto path = std::filesystem::path(ThisProgram()).parent_path() / "temper-learner";
  if (access(path.c_str(), X_OK) != 0) {
    throw MachineError(path.string() + ": " + std::strerror(errno) +
                       "; training needs it: build with LibTorch (scripts/setup does)");
  }
  return path.string();
}

void ExecLearner(const Arguments& args) {
  const std::string program = LearnerProgram();
  const std::vector<char*> list = Pointers(program, args);
  execv(program.c_str(), list.data());
  throw MachineError(program + ": " + std::strerror(errno));
}

Outcome RunAndRead(const std::string& program, const Arguments& args) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw MachineError(std::string("pipe: ") + std::strerror(errno));
  const std::vector<char*> list = Pointers(program, args);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    execv(program.c_str(), list.data());
    _exit(3);
  }
  close(ends[1]);
  Outcome outcome;
  char bytes[4096];
  for (ssize_t got = 1; got != 0;) {
    got = pid > 0 ? read(ends[0], bytes, sizeof bytes) : 0;
    if (got < 0 && errno != EINTR) break;
    if (got > 0) outcome.output.append(bytes, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  if (pid < 0) throw MachineError("fork for " + program + ": " + std::strerror(errno));
  int status = 0;
  waitpid(pid, &status, 0);
  outcome.code = CodeOf(status);
  return outcome;
}

std::string LastLine(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  in.seekg(0, std::ios::end);
  const std::streamoff size = in.tellg();
  in.seekg(std::max<std::streamoff>(0, size - 2000));
  std::string last;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

Child::Child(std::string name, const std::string& program, const Arguments& args,
             const std::string& out_log, const std::string& err_log,
             const std::vector<std::pair<std::string, std::string>>& variables)
    : name_(std::move(name)) {
  const int out = OpenLog(out_log), err = OpenLog(err_log);
  // Prepared before fork: between fork and exec nothing may allocate.
  const std::vector<char*> list = Pointers(program, args);
  const Environment environment(variables);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(3);  // it died in between
    signal(SIGINT, SIG_IGN);
    if (out >= 0) dup2(out, STDOUT_FILENO);
    if (err >= 0) dup2(err, STDERR_FILENO);
    execve(program.c_str(), list.data(), environment.get());
    _exit(3);
  }
  const int why = errno;
  for (const int log : {out, err}) {
    if (log >= 0) close(log);
  }
  if (pid_ < 0) throw MachineError("fork for " + name_ + ": " + std::strerror(why));
}

Child::Child(Child&& other) noexcept
    : name_(std::move(other.name_)),
      pid_(other.pid_),
      code_(other.code_),
      started_(other.started_) {
  other.pid_ = -1;
}

Child::~Child() {
  if (pid_ <= 0 || code_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::optional<int> Child::Ended() {
  if (code_ || pid_ <= 0) return code_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    code_ = CodeOf(status);
  }
  return code_;
}

int Child::Wait() {
  int status = 0;
  while (!code_) {
    if (waitpid(pid_, &status, 0) == pid_) {
      code_ = CodeOf(status);
    } else if (errno != EINTR) {
      throw MachineError("waiting for " + name_ + ": " + std::strerror(errno));
    }
  }
  return *code_;
}

void Child::Signal(int signal) const {
  if (pid_ > 0 && !code_) kill(pid_, signal);
}

double Child::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

}  // namespace temper::cli
