#include "store/open.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "configs/error.h"
#include "store/schema.h"

namespace temper::store {
namespace {

void RequireFile(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    throw UserError(path + ": no such trajectory database; give a run's folder that has one");
  }
}

}  // namespace

WriterLock::WriterLock(const std::string& path) {
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw MachineError(path + ": " + std::strerror(errno));
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    close(fd_);
    throw MachineError(path + ": another process writes this database; stop that run first");
  }
}

WriterLock::~WriterLock() { close(fd_); }

bool HasWriter(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(fd);
  return held;
}

void CheckIdentity(Connection& connection) {
  const std::string& path = connection.path();
  std::string id, version;
  try {
    id = connection.Pragma("application_id");
    version = connection.Pragma("user_version");
  } catch (const MachineError&) {
    if ((sqlite3_extended_errcode(connection.handle()) & 0xFF) != SQLITE_NOTADB) throw;
    throw UserError(path + ": not a database; a run keeps its trajectories in trajectories.db");
  }
  if (id != std::to_string(kApplicationId)) {
    throw UserError(path + ": another program's database (application_id " + id +
                    "); a run's has TMPR");
  }
  if (std::stoll(version) > kSchemaVersion) {
    throw UserError(path + ": schema " + version + " is newer than this program's " +
                    std::to_string(kSchemaVersion) + "; use a newer temper");
  }
  if (std::stoll(version) < 1) {
    throw UserError(path + ": schema " + version + " is none of ours; start another run");
  }
}

void Migrate(Connection& connection) {
  if (connection.Pragma("user_version") != "1") return;
  connection.Execute("BEGIN IMMEDIATE");
  connection.Execute("ALTER TABLE rollout ADD COLUMN kept BLOB");
  connection.Pragma("user_version=2");
  connection.Execute("COMMIT");
}

void SetWriterPragmas(Connection& connection) {
  connection.SetPragma("busy_timeout", "5000", "5000");
  connection.SetPragma("journal_mode", "WAL", "wal");
  connection.SetPragma("synchronous", "FULL", "2");
  connection.SetPragma("wal_autocheckpoint", "0", "0");
  connection.SetPragma("journal_size_limit", "67108864", "67108864");
  connection.SetPragma("foreign_keys", "ON", "1");
  // A SQLite built without mmap answers nothing at all.
  connection.Pragma("mmap_size=0");
  const std::string mapped = connection.Pragma("mmap_size");
  if (mapped != "0" && !mapped.empty()) {
    throw MachineError(connection.path() + ": PRAGMA mmap_size stays at " + mapped);
  }
  connection.SetPragma("temp_store", "MEMORY", "2");
  connection.SetPragma("cell_size_check", "ON", "1");
}

std::unique_ptr<Connection> OpenForReading(const std::string& path) {
  RequireFile(path);
  auto connection = std::make_unique<Connection>(path, SQLITE_OPEN_READONLY);
  int on = 0;
  sqlite3_db_config(connection->handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, &on);
  connection->SetPragma("busy_timeout", "5000", "5000");
  CheckIdentity(*connection);
  connection->SetPragma("query_only", "ON", "1");
  connection->Pragma("mmap_size=0");
  return connection;
}

}  // namespace temper::store
