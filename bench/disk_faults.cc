#include "bench/disk_faults.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <functional>
#include <random>
#include <set>
#include <sstream>

#include "bench/disk_calls.h"
#include "bench/disk_image.h"
#include "configs/error.h"
#include "configs/files.h"
#include "store/trajectories.h"
#include "store/verify.h"

namespace temper::bench {
namespace {

namespace fs = std::filesystem;
using Acks = std::set<wire::RolloutId>;

/// What a child process said and how it ended.
struct Ending {
  Acks acks;
  bool fresh = false, done = false, killed = false;
  std::string weights, error, failure;
  std::uint64_t consumed = 0;
  std::int64_t late_acks = 0;
  int code = -1;
};

DiskPlan Plan(DiskPlan::What what, std::int64_t at = -1, int error = 0) {
  DiskPlan plan;
  plan.what = what;
  plan.at = at;
  plan.error = error;
  return plan;
}

class Sweep {
 public:
  Sweep(const DiskFaultOptions& options, const std::string& folder) : o_(options), folder_(folder) {
    fs::create_directory(Path("start"));
    if (o_.resumed) {
      // Killed where two thirds of its calls were done.
      fs::create_directory(Path("work"));
      const std::int64_t all = Run(DiskPlan()).calls;
      fs::remove_all(Path("work"));
      fs::rename(Path("start"), Path("work"));
      before_ = Child(Plan(DiskPlan::kKill, all * 2 / 3)).acks;
      fs::rename(Path("work"), Path("start"));
    }
    fs::copy(Path("start"), Path("work"), kCopy);
    DiskPlan plan;
    plan.never_synced = o_.never_synced;
    Recorded recorded = Run(plan);
    record_ = std::move(recorded.record);
    report_.calls = recorded.calls;
    reference_ = recorded.report.weights;
    fs::remove_all(Path("work"));
    random_.seed(o_.seed);
  }

  DiskFaultReport Kill() {
    for (const std::int64_t at : Points(report_.calls)) {
      for (const DiskPlan::What what : {DiskPlan::kKill, DiskPlan::kKillTorn}) {
        fs::copy(Path("start"), Path("work"), kCopy);
        Ending ending = Child(Plan(what, at));
        Acks acks = before_;
        acks.merge(ending.acks);
        GoOn(acks, "kill -9 at call " + std::to_string(at));
      }
    }
    return report_;
  }

  DiskFaultReport Power() {
    const std::vector<std::int64_t> points = Points(static_cast<std::int64_t>(record_.size()));
    DiskModel disk(Path("start"));
    Acks acks = before_;
    std::set<std::pair<std::uint64_t, std::size_t>> seen;
    auto next = points.begin();
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(record_.size()); ++i) {
      const DiskCall& call = record_[static_cast<std::size_t>(i)];
      disk.Apply(call);
      if (call.kind == DiskCall::kMark) acks.insert(ParseId(call.data));
      if (next == points.end() || *next != i) continue;
      ++next;
      std::vector<Kept> kinds = {Kept::kNone, Kept::kAll, Kept::kData, Kept::kNames};
      kinds.insert(kinds.end(), static_cast<std::size_t>(o_.images), Kept::kSome);
      for (const Kept kept : kinds) {
        const std::uint64_t hash = disk.Image(kept, random_(), Path("work"));
        // The same disk with the same promises has been tried.
        if (!seen.insert({hash, acks.size()}).second) {
          fs::remove_all(Path("work"));
          continue;
        }
        GoOn(acks, "power lost behind " + std::string(NameOf(call.kind)) + " " + call.path +
                       " (call " + std::to_string(i) + ", kept " +
                       std::to_string(static_cast<int>(kept)) + ")");
      }
    }
    return report_;
  }

  DiskFaultReport Fail() {
    const DiskPlan plans[] = {Plan(DiskPlan::kFail, 0, EIO),
                              Plan(DiskPlan::kFailOn, 0, EIO),
                              Plan(DiskPlan::kFailOn, 0, ENOSPC),
                              Plan(DiskPlan::kFailOn, 0, EROFS),
                              Plan(DiskPlan::kShort),
                              Plan(DiskPlan::kInterrupt)};
    for (const std::int64_t at : Points(report_.calls)) {
      for (DiskPlan plan : plans) {
        fs::copy(Path("start"), Path("work"), kCopy);
        plan.at = at;
        Ending ending = Child(plan);
        const std::string what = "call " + std::to_string(at) + " failed (" +
                                 (plan.error != 0 ? strerror(plan.error) : "in part") + ", " +
                                 ending.failure + ")";
        report_.late_acks += ending.late_acks;
        if (ending.late_acks > 0)
          Note(what + ": acknowledged behind a failed fsync, exit " + std::to_string(ending.code));
        const bool must = plan.what == DiskPlan::kShort || plan.what == DiskPlan::kInterrupt;
        const bool orderly = ending.code == 3 && !must && !ending.error.empty() &&
                             ending.error.find('\n') == std::string::npos;
        report_.stopped += orderly;
        if (!orderly && ending.code != 0) {
          ++report_.disorderly;
          Note(what + ": exit " + std::to_string(ending.code) + " " + ending.error);
        }
        Acks acks = before_;
        acks.merge(ending.acks);
        GoOn(acks, what);
      }
    }
    return report_;
  }

 private:
  static constexpr auto kCopy = fs::copy_options::recursive | fs::copy_options::copy_symlinks;

  struct Recorded {
    std::vector<DiskCall> record;
    std::int64_t calls = 0;
    StandInReport report;
  };

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  static wire::RolloutId ParseId(const std::string& text) {
    wire::RolloutId id;
    std::istringstream(text) >> id.grp >> id.sample >> id.attempt;
    return id;
  }
  static std::string ToText(const wire::RolloutId& id) {
    return std::to_string(id.grp) + " " + std::to_string(id.sample) + " " +
           std::to_string(id.attempt);
  }

  StandInOptions RunOptions() const {
    StandInOptions run = o_.run;
    run.folder = Path("work");
    return run;
  }

  Recorded Run(DiskPlan plan) {
    plan.root = Path("work");
    Recorded recorded;
    WatchDisk(plan);
    recorded.report =
        StandInRun(RunOptions(), [](const wire::RolloutId& id) { MarkDisk(ToText(id)); });
    recorded.calls = DiskCalls();
    recorded.record = DiskRecord();
    report_.acknowledged = static_cast<std::int64_t>(
        before_.size() + static_cast<std::size_t>(std::count_if(
                             recorded.record.begin(), recorded.record.end(),
                             [](const DiskCall& c) { return c.kind == DiskCall::kMark; })));
    return recorded;
  }

  std::vector<std::int64_t> Points(std::int64_t all) {
    std::vector<std::int64_t> points;
    for (std::int64_t i = 0; i < all; ++i) points.push_back(i);
    if (o_.sample == 0 || o_.sample >= all) return points;
    std::shuffle(points.begin(), points.end(), random_);
    points.resize(static_cast<std::size_t>(o_.sample));
    std::sort(points.begin(), points.end());
    return points;
  }

  /// The run in a process of its own.
  Ending Child(DiskPlan plan) const {
    int ends[2];
    if (pipe(ends) != 0) throw MachineError("pipe: no more files");
    const pid_t pid = fork();
    if (pid < 0) throw MachineError("fork: no more processes");
    if (pid == 0) {
      close(ends[0]);
      plan.root = Path("work");
      dup2(::open("/dev/null", O_WRONLY), 2);
      _exit(Inside(plan, ends[1]));
    }
    close(ends[1]);
    Ending ending = Listen(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    ending.killed = WIFSIGNALED(status);
    ending.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return ending;
  }

  int Inside(const DiskPlan& plan, int out) const {
    const auto say = [out](const std::string& line) {
      if (write(out, (line + "\n").data(), line.size() + 1) < 0) _exit(9);
    };
    const auto leave = [&](int code, const std::string& what) {
      say("failure " + DiskFailure());
      say("error " + what);
      return code;
    };
    WatchDisk(plan);
    try {
      const StandInReport report = StandInRun(RunOptions(), [&](const wire::RolloutId& id) {
        const bool late = DiskFailure().starts_with("fsync");
        say((late ? "late " : "ack ") + ToText(id));
      });
      say("failure " + DiskFailure());
      if (report.fresh) say("fresh");
      say("done " + report.weights + " " + std::to_string(report.consumed));
      return 0;
    } catch (const UserError& error) {
      return leave(2, error.what());
    } catch (const MachineError& error) {
      return leave(3, error.what());
    } catch (const std::exception& error) {
      return leave(4, error.what());
    }
  }

  static Ending Listen(int in) {
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(n));
    close(in);
    Ending ending;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      const std::size_t space = line.find(' ');
      const std::string word = line.substr(0, space);
      const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
      if (word == "ack" || word == "late") ending.acks.insert(ParseId(rest));
      ending.late_acks += word == "late";
      if (word == "fresh") ending.fresh = true;
      if (word == "failure") ending.failure = rest;
      if (word == "error") ending.error = rest;
      if (word == "done") {
        ending.done = true;
        std::istringstream(rest) >> ending.weights >> ending.consumed;
      }
    }
    return ending;
  }

  void Note(const std::string& what) {
    if (report_.first.size() < 5) report_.first.push_back(what);
  }

  /// What the disk holds goes on to the end, and is judged; the folder is gone then.
  void GoOn(Acks acks, const std::string& what) {
    ++report_.points;
    if (const std::int64_t lost = Lost(acks); lost > 0) {
      report_.lost += lost;
      Note(what + ": acknowledged rollouts are lost");
    }
    Ending ending = Child(DiskPlan());
    if (!ending.done) {
      ++report_.broken;
      Note(what + ": could not go on: " + ending.error);
    } else {
      if (ending.fresh && !acks.empty()) {
        ++report_.broken;
        Note(what + ": no checkpoint is left");
      }
      acks.merge(ending.acks);
      report_.lost += Lost(acks);
      Judge(ending, what);
    }
    fs::remove_all(Path("work"));
  }

  /// Those of `acks` that the database, as it lies there, does not have.
  std::int64_t Lost(const Acks& acks) const {
    const std::string path = Path("work/run/trajectories.db");
    if (acks.empty()) return 0;
    Acks stored;
    if (configs::Exists(path)) {
      store::Reader(path).Query("SELECT grp, sample, attempt FROM rollout", [&](const Json& row) {
        stored.insert({row["grp"], row["sample"], row["attempt"]});
      });
    }
    return std::count_if(acks.begin(), acks.end(),
                         [&](const wire::RolloutId& id) { return !stored.contains(id); });
  }

  void Judge(const Ending& ending, const std::string& what) {
    const std::string run = Path("work/run");
    std::int64_t trained = 0;
    store::Reader(run + "/trajectories.db")
        .Query("SELECT count(*) AS n FROM rollout WHERE state = 'trained'",
               [&](const Json& row) { trained = row["n"]; });
    const std::int64_t all =
        std::int64_t{o_.run.steps} * o_.run.groups_per_step * o_.run.group_size;
    const auto again = static_cast<std::int64_t>(ending.consumed) - trained;
    report_.twice += std::max<std::int64_t>(0, again);
    if (again != 0) Note(what + ": " + std::to_string(again) + " rollouts were trained again");
    const Json verified = store::VerifyRun(run);
    if (trained != all || !verified["ok"]) {
      ++report_.broken;
      Note(what + ": " + std::to_string(trained) + " rollouts trained; " + verified.dump());
    }
    // Asynchronous histories may differ; each is still what its database says.
    const bool same = o_.run.max_lag > 0 || ending.weights == reference_;
    if (!same || ending.weights != ChainOf(run)) {
      ++report_.differ;
      Note(what + ": another last link");
    }
  }

  const DiskFaultOptions o_;
  const std::string folder_;
  DiskFaultReport report_;
  std::vector<DiskCall> record_;
  std::string reference_;  // the last link of the run that nothing befell
  Acks before_;            // acknowledged before the record begins
  std::mt19937_64 random_;
};

}  // namespace

DiskFaultReport TryDisk(DiskFault fault, const DiskFaultOptions& options,
                        const std::string& folder) {
  Sweep sweep(options, folder);
  if (fault == DiskFault::kKill) return sweep.Kill();
  return fault == DiskFault::kPower ? sweep.Power() : sweep.Fail();
}

}  // namespace temper::bench
