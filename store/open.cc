#include "store/open.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include "configs/error.h"
#include "store/schema.h"

namespace temper::store {
namespace {

void RequireFile(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    throw UserError(path + ": no such trajectory database; give a run's folder that has one");
  }
}

using Columns = std::map<std::string, std::string>;  // name to all else that it is

Columns ColumnsOf(Connection& connection, const std::string& table) {
  Columns columns;
  Statement s = connection.Prepare(
      "SELECT name, type, \"notnull\", ifnull(dflt_value, ''), pk, hidden FROM "
      "pragma_table_xinfo(?)");
  s.Text(table);
  while (s.Step()) {
    std::string& is = columns[s.GetText(0)];
    for (int i = 1; i < 6; ++i) is += s.GetText(i) + ";";
  }
  return columns;
}

/// The tables by name.
std::vector<std::string> TablesOf(Connection& connection) {
  std::vector<std::string> tables;
  Statement s = connection.Prepare("SELECT name FROM sqlite_schema WHERE type = 'table'");
  while (s.Step()) tables.push_back(s.GetText(0));
  return tables;
}

/// Whether the text is that of a table: a virtual one has the same type. (A type that lies about
/// its text SQLite refuses itself.)
bool IsTable(Connection& connection, const std::string& name, const std::string& what) {
  Statement s = connection.Prepare("SELECT type, sql FROM sqlite_schema WHERE name = ?");
  s.Text(name);
  if (!s.Step()) throw UserError(what + "is missing; this is not a run's whole database");
  if (s.GetText(0) != "table") {
    throw UserError(what + "is a " + s.GetText(0) +
                    "; use only the database that a run has written");
  }
  return s.GetText(1).rfind("CREATE TABLE ", 0) == 0;
}

/// The names we read and write mean what we made: a file from elsewhere may have a view, a virtual
/// table or a trigger in their place, which would run its own SQL. Tables, views and indexes of
/// other names are nobody's. An older schema may lack columns that Migrate adds.
void CheckSchema(Connection& connection, bool older) {
  Connection model(":memory:", SQLITE_OPEN_READWRITE);
  model.Execute(kSchemaSql);
  for (const std::string& name : TablesOf(model)) {
    const std::string what = connection.path() + ": table \"" + name + "\" ";
    bool same = IsTable(connection, name, what);
    if (same) {
      const Columns made = ColumnsOf(model, name), found = ColumnsOf(connection, name);
      same = older ? std::includes(made.begin(), made.end(), found.begin(), found.end())
                   : made == found;
    }
    if (same) continue;
    throw UserError(what +
                    "is not as temper makes it; use only the database that a run has written");
  }
  Statement s = connection.Prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'");
  if (s.Step()) {
    throw UserError(connection.path() + ": trigger \"" + s.GetText(0) +
                    "\": a run's database has none; drop it, if you know what it does");
  }
}

/// Pages that do not hold together are found before they are used, in files where that is soon
/// done; `temper runs verify` does more for any size.
void CheckPages(Connection& connection) {
  constexpr std::int64_t kAtMost = std::int64_t{256} << 20;  // bytes
  const std::int64_t pages = std::stoll(connection.Pragma("page_count"));
  if (pages > kAtMost / std::stoll(connection.Pragma("page_size"))) return;
  std::string found = connection.Pragma("quick_check(1)");
  if (found == "ok") return;
  if (found.starts_with("***")) found.erase(0, found.find('\n') + 1);  // which database it is in
  throw MachineError(connection.path() + ": " + found.substr(0, found.find('\n')) +
                     "; restore the file or start another run");
}

/// Whether it lies on a disk that nobody writes, so that its log needs none of the locks for which
/// SQLite makes files beside it. Throws MachineError where the log would be needed too.
bool IsFrozen(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == path.npos ? "." : path.substr(0, slash + 1);
  if (access(folder.c_str(), W_OK) == 0 || errno != EROFS) return false;
  struct stat log {};
  if (stat((path + "-wal").c_str(), &log) == 0 && log.st_size > 0) {
    throw MachineError(path +
                       ": its newest rows are in the log beside it, and its disk cannot be "
                       "written; copy the run to one that can");
  }
  return true;
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
  CheckSchema(connection, std::stoll(version) < kSchemaVersion);
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
  CheckPages(connection);
}

std::unique_ptr<Connection> OpenForReading(const std::string& path) {
  RequireFile(path);
  auto connection = std::make_unique<Connection>(path, SQLITE_OPEN_READONLY, IsFrozen(path));
  int on = 0;
  sqlite3_db_config(connection->handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, &on);
  connection->SetPragma("busy_timeout", "5000", "5000");
  connection->SetPragma("cell_size_check", "ON", "1");
  CheckIdentity(*connection);
  connection->SetPragma("query_only", "ON", "1");
  connection->Pragma("mmap_size=0");
  return connection;
}

}  // namespace temper::store
