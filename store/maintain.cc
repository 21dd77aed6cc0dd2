#include "store/maintain.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "configs/error.h"
#include "configs/files.h"
#include "store/open.h"

namespace temper::store {
namespace {

namespace fs = std::filesystem;

std::string Path(const std::string& run_dir) {
  return (fs::path(run_dir) / "trajectories.db").string();
}

std::int64_t Number(Connection& db, const std::string& sql) {
  Statement s = db.Prepare(sql);
  return s.Step() ? s.GetInt(0) : 0;
}

void Copy(Connection& from, const std::string& out) {
  Connection to(out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  sqlite3_backup* const backup = sqlite3_backup_init(to.handle(), "main", from.handle(), "main");
  if (backup == nullptr) ThrowSqlite(to.handle(), sqlite3_errcode(to.handle()), out);
  // All pages in one step: one read transaction, so that a busy writer never makes it begin again.
  const int code = sqlite3_backup_step(backup, -1);
  sqlite3_backup_finish(backup);
  if (code != SQLITE_DONE) ThrowSqlite(to.handle(), code, out);
}

std::uint64_t Size(const std::string& path) {
  std::error_code error;
  const std::uint64_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

constexpr char kPrunable[] =
    "SELECT grp FROM rollout GROUP BY grp HAVING sum(state <> 'dropped' AND NOT (state = 'trained' "
    "AND trained_step < ?1)) = 0 AND max(coalesce(trained_step, 0)) > 0";

}  // namespace

Json BackupRun(const std::string& run_dir, const std::string& out) {
  if (configs::Exists(out)) throw UserError(out + ": is there already; choose another file");
  const std::string aside = out + ".tmp";
  Json report;
  try {
    const auto from = OpenForReading(Path(run_dir));
    Copy(*from, aside);
    const auto copy = OpenForReading(aside);
    report = Json{{"bytes", Size(aside)},
                  {"rollouts", Number(*copy, "SELECT count(*) FROM rollout")},
                  {"groups", Number(*copy, "SELECT count(*) FROM prompt_group")}};
  } catch (...) {
    for (const char* end : {"", "-wal", "-shm", "-journal"}) unlink((aside + end).c_str());
    throw;
  }
  for (const char* end : {"-wal", "-shm"}) unlink((aside + end).c_str());
  if (std::rename(aside.c_str(), out.c_str()) != 0) {
    throw MachineError(out + ": " + std::strerror(errno));
  }
  const std::string folder = fs::path(out).parent_path().string();
  configs::SyncFolder(folder.empty() ? "." : folder);
  return report;
}

Json PruneRun(const std::string& run_dir, const PruneOptions& options) {
  const std::string path = Path(run_dir);
  OpenForReading(path);  // a foreign file is told before anything is locked
  const WriterLock lock(path);
  Connection db(path, SQLITE_OPEN_READWRITE);
  CheckIdentity(db);
  SetWriterPragmas(db);
  const std::int64_t saved =
      Number(db, "SELECT coalesce(max(step), 0) FROM step WHERE checkpoint <> ''");
  if (options.before_step > saved + 1) {
    throw UserError(path + ": --before-step " + std::to_string(options.before_step) +
                    ": the newest checkpoint is of step " + std::to_string(saved) +
                    "; a resume needs the rollouts behind it, so give at most " +
                    std::to_string(saved + 1));
  }
  Json report{{"groups", 0}, {"rollouts", 0}, {"parts", 0}, {"bytes_before", Size(path)}};
  db.Execute("BEGIN IMMEDIATE");
  db.Execute("CREATE TEMP TABLE gone (grp INTEGER PRIMARY KEY)");
  db.Prepare(std::string("INSERT INTO temp.gone ") + kPrunable).Int(options.before_step).Run();
  const char* const tables[] = {"reward_part", "rollout", "prompt_group"};
  const char* const names[] = {"parts", "rollouts", "groups"};
  for (int i = 0; i < 3; ++i) {
    db.Prepare(std::string("DELETE FROM ") + tables[i] +
               " WHERE grp IN (SELECT grp FROM temp.gone)")
        .Run();
    report[names[i]] = db.changes();
  }
  db.Execute(options.dry_run ? "ROLLBACK" : "COMMIT");
  if (!options.dry_run) {
    db.Execute("VACUUM");
    db.Pragma("wal_checkpoint(TRUNCATE)");
  }
  report["bytes_after"] = Size(path);
  return report;
}

}  // namespace temper::store
