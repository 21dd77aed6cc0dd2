// A run on a disk that nobody can write: an archive, another machine's export.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "tests/error_of.h"
#include "tests/store/fixtures.h"

namespace temper::store {
namespace {

constexpr int kNoNamespaces = 77;

/// The count of a run's rollouts, or why it cannot be read, as a process sees it for which the
/// folder is mounted read-only. None where a process may not mount anything.
std::optional<std::string> ReadOnlyCount(const std::string& folder) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const bool bound =
        unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) == 0 &&
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        mount(folder.c_str(), folder.c_str(), nullptr, MS_BIND, nullptr) == 0 &&
        mount(nullptr, folder.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0;
    if (!bound) _exit(kNoNamespaces);
    std::string text;
    const std::string error = ErrorOf<std::exception>([&] {
      text = Rows(folder + "/trajectories.db", "SELECT count(*) AS n FROM rollout")[0].dump();
    });
    text += error;
    _exit(write(ends[1], text.data(), text.size()) == ssize_t(text.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof(part))) > 0;) text.append(part, std::size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) &&
              (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == kNoNamespaces))
      << status;
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoNamespaces) return std::nullopt;
  return text;
}

TEST(ReadOnlyDisk, AWholeRunIsReadAndOneWithALogSaysWhatToDo) {
  const Folder folder;
  const std::string name = "a?b#c%20";  // nothing of it is an option
  std::filesystem::create_directories(folder / name);
  std::filesystem::create_directory(folder / "logged");
  {
    Trajectories db = Trajectories::Create(folder / (name + "/trajectories.db"), SomeRun());
    db.PutGroup(SomeGroup(1));
    db.PutRollout(SomeRollout(1, 0));
    for (const char* file : {"/trajectories.db", "/trajectories.db-wal"}) {
      std::filesystem::copy_file(folder / (name + file), folder / ("logged" + std::string(file)));
    }
  }
  ASSERT_FALSE(std::filesystem::exists(folder / (name + "/trajectories.db-wal")));
  const std::optional<std::string> count = ReadOnlyCount(folder / name);
  if (!count) GTEST_SKIP() << "no mount namespaces here";
  EXPECT_EQ(count, "{\"n\":1}");
  const std::string logged = ReadOnlyCount(folder / "logged").value();
  EXPECT_NE(logged.find("copy the run"), std::string::npos) << logged;
}

}  // namespace
}  // namespace temper::store
