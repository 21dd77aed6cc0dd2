// What the database promises when the process or the disk gives up in the middle.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <functional>

#include "configs/error.h"
#include "store/trajectories.h"
#include "tests/store/fixtures.h"

namespace temper::store {
namespace {

/// Runs `body` in a child whose output end of a pipe it gets; returns (pid, read end).
std::pair<pid_t, int> Child(const std::function<int(int)>& body) {
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    _exit(body(ends[1]));
  }
  close(ends[1]);
  return {pid, ends[0]};
}

TEST(Crash, LosesNoAcknowledgedRolloutWhenTheWriterIsKilled) {
  int swept = 0;
  for (int round = 0; round < 12; ++round) {
    const Folder folder;
    const std::string path = folder / "t.db";
    auto [pid, in] = Child([&](int out) {
      Trajectories db = Trajectories::Create(path, SomeRun());
      for (std::uint32_t grp = 0; grp < 100000; ++grp) {
        db.Begin();
        db.PutGroup(SomeGroup(grp));
        for (std::uint32_t s = 0; s < 4; ++s) db.PutRollout(SomeRollout(grp, s));
        db.Commit();
        if (write(out, &grp, sizeof grp) != sizeof grp) return 1;
      }
      return 0;
    });
    // Killed at a different point of its work each round; no commit is in step with the reads.
    std::uint32_t acknowledged = 0;
    for (int i = 0; i <= round * 7; ++i) {
      ASSERT_EQ(read(in, &acknowledged, sizeof acknowledged), 4);
    }
    usleep(137 * round);
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    while (read(in, &acknowledged, sizeof acknowledged) == 4) {
    }
    close(in);

    Trajectories db = Trajectories::Open(path);
    ASSERT_TRUE(db.LastGroup());
    EXPECT_GE(*db.LastGroup(), acknowledged);
    // At most the one transaction that was committed but not yet told.
    EXPECT_LE(*db.LastGroup(), acknowledged + 1);
    for (std::uint64_t grp = 0; grp <= *db.LastGroup(); ++grp) {
      ASSERT_EQ(db.LiveRollouts(grp).size(), 4u) << "group " << grp;
      ++swept;
    }
    EXPECT_EQ(Rows(path, "PRAGMA integrity_check")[0]["integrity_check"], "ok");
  }
  EXPECT_GT(swept, 100);
}

TEST(Crash, ReportsAFullDiskAndKeepsWhatWasCommitted) {
  const Folder folder;
  const std::string path = folder / "t.db";
  auto [pid, in] = Child([&](int out) {
    signal(SIGXFSZ, SIG_IGN);
    Trajectories db = Trajectories::Create(path, SomeRun());
    const rlimit limit{1 << 20, 1 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::uint32_t grp = 0;
    try {
      for (; grp < 100000; ++grp) {
        db.PutRollout(SomeRollout(grp, 0));
        if (write(out, &grp, sizeof grp) != sizeof grp) return 1;
      }
    } catch (const MachineError&) {
      return 42;
    }
    return 0;
  });
  std::uint32_t acknowledged = 0;
  while (read(in, &acknowledged, sizeof acknowledged) == 4) {
  }
  close(in);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_GT(acknowledged, 10u);
  Trajectories db = Trajectories::Open(path);
  EXPECT_EQ(Rows(path, "SELECT max(grp) g FROM rollout")[0]["g"], acknowledged);
  EXPECT_TRUE(db.PutRollout(SomeRollout(acknowledged + 1, 0)));
}

TEST(Crash, LeavesNoHalfMadeDatabase) {
  // A creation that dies leaves only the file aside: the next creation starts afresh.
  const Folder folder;
  FILE* torn = std::fopen((folder / "t.db.new").c_str(), "wb");
  std::fputs("half a header", torn);
  std::fclose(torn);
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  EXPECT_EQ(db.incarnation(), 0);
}

TEST(Crash, KeepsTheLogSmallWhileWriting) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  RolloutRow row = SomeRollout(0, 0);
  row.text = std::string(100000, 'x');
  std::uintmax_t peak = 0;
  for (std::uint32_t i = 0; i < 400; ++i) {
    row.grp = i;
    db.PutRollout(row);
    peak = std::max(peak, std::filesystem::file_size(folder / "t.db-wal"));
  }
  EXPECT_LT(peak, std::uintmax_t{16} << 20);  // of 40 MB written
  EXPECT_GT(peak, std::uintmax_t{1} << 20);
}

}  // namespace
}  // namespace temper::store
