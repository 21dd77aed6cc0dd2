#include "store/open.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "configs/error.h"
#include "store/schema.h"

namespace temper::store {
namespace {

void RequireFile(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    throw UserError(path + ": no such trajectory database; give a run's folder that has one");
  }
}

/// SQL without comments, its white space single: how a schema's text is compared.
std::string Plain(const std::string& sql) {
  std::string plain;
  for (std::size_t i = 0; i < sql.size(); ++i) {
    if (sql.compare(i, 2, "--") == 0) i = std::min(sql.find('\n', i), sql.size() - 1);
    if (std::isspace(static_cast<unsigned char>(sql[i])) == 0) {
      plain += sql[i];
    } else if (!plain.empty() && plain.back() != ' ') {
      plain += ' ';
    }
  }
  return plain;
}

/// Name to type and text of everything in the schema that has a text.
std::multimap<std::string, std::pair<std::string, std::string>> Schema(Connection& connection) {
  std::multimap<std::string, std::pair<std::string, std::string>> schema;
  Statement s =
      connection.Prepare("SELECT name, type, sql FROM sqlite_schema WHERE sql IS NOT NULL");
  while (s.Step()) {
    schema.emplace(s.GetText(0), std::make_pair(s.GetText(1), Plain(s.GetText(2))));
  }
  return schema;
}

/// The names we read and write mean what we made: a file from elsewhere may have a view, a virtual
/// table or a trigger in their place, which would run its own SQL. The text is compared, as the
/// other columns of sqlite_schema can lie. Tables, views and indexes of other names are nobody's.
void CheckSchema(Connection& connection) {
  Connection model(":memory:", SQLITE_OPEN_READWRITE);
  model.Execute(kSchemaSql);
  const auto found = Schema(connection);
  for (const auto& [name, made] : Schema(model)) {
    const auto [begin, end] = found.equal_range(name);
    const std::string what = connection.path() + ": " + made.first + " \"" + name + "\" ";
    if (begin == end) throw UserError(what + "is missing; this is not a run's whole database");
    if (std::next(begin) == end && begin->second == made) continue;
    const std::string& type = begin->second.first;
    throw UserError(what + (type != made.first ? "is a " + type : "is not as temper makes it") +
                    "; use only the database that a run has written");
  }
  for (const auto& [name, made] : found) {
    if (made.first != "trigger") continue;
    throw UserError(connection.path() + ": trigger \"" + name +
                    "\": a run's database has none; drop it, if you know what it does");
  }
}

/// Pages that do not hold together are found before they are used, in files where that is soon
/// done; `temper runs verify` does more for any size.
void CheckPages(Connection& connection) {
  constexpr std::int64_t kAtMost = std::int64_t{256} << 20;  // bytes
  const std::int64_t pages = std::stoll(connection.Pragma("page_count"));
  if (pages > kAtMost / std::stoll(connection.Pragma("page_size"))) return;
  const std::string found = connection.Pragma("quick_check(1)");
  if (found == "ok") return;
  throw MachineError(connection.path() + ": " + found.substr(0, found.find('\n')) +
                     "; restore the file or start another run");
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
  CheckSchema(connection);
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
  auto connection = std::make_unique<Connection>(path, SQLITE_OPEN_READONLY);
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
