#include "store/sqlite.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "configs/error.h"

namespace temper::store {
namespace {

std::atomic<int> folder_error{0};  // errno of the first fsync of a folder that failed

/// SQLite fsyncs a folder that has a new journal in it and forgets how that went: it is done here.
int SyncFolderOf(const char* path, int*) {
  const std::string file = path;
  const std::size_t slash = file.rfind('/');
  const std::string folder = slash == file.npos ? "." : file.substr(0, slash + 1);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) {
    int none = 0;
    folder_error.compare_exchange_strong(none, errno);
  }
  if (fd >= 0) close(fd);
  return SQLITE_CANTOPEN;  // nothing is left for SQLite to do
}

bool WatchFolderSyncs() {
  sqlite3_initialize();
  sqlite3_vfs* const vfs = sqlite3_vfs_find("unix");
  return vfs != nullptr &&
         vfs->xSetSystemCall(vfs, "openDirectory",
                             reinterpret_cast<sqlite3_syscall_ptr>(SyncFolderOf)) == SQLITE_OK;
}

std::string FrozenUri(const std::string& path) {
  std::string uri = "file:";
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      char escaped[4];
      std::snprintf(escaped, sizeof(escaped), "%%%02X", static_cast<unsigned char>(c));
      uri += escaped;
    } else {
      uri += c;
    }
  }
  return uri + "?immutable=1";
}

}  // namespace

void ThrowSqlite(sqlite3* db, int code, const std::string& where) {
  const char* text = db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  const std::string message = where + ": " + text;
  switch (code & 0xFF) {
    case SQLITE_FULL:
      throw MachineError(message + "; free some space and resume");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw MachineError(message + "; another program writes this database: stop it");
    case SQLITE_CORRUPT:
      throw MachineError(message + "; restore the file or start another run");
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
    case SQLITE_MISMATCH:
    case SQLITE_ERROR:
      throw std::logic_error(message);
    default: {
      const int system = db != nullptr ? sqlite3_system_errno(db) : 0;
      throw MachineError(message + (system != 0 ? " (errno " + std::to_string(system) + ")" : ""));
    }
  }
}

Connection::Connection(const std::string& path, int flags, bool frozen) : path_(path) {
  [[maybe_unused]] static const bool watched = WatchFolderSyncs();
  const std::string name = frozen ? FrozenUri(path) : path;
  flags |= SQLITE_OPEN_EXRESCODE | (frozen ? SQLITE_OPEN_URI : 0);
  int code = sqlite3_open_v2(name.c_str(), &db_, flags, nullptr);
  const auto configure = [&](int option, int value) {
    int now = -1;
    if (code == SQLITE_OK) code = sqlite3_db_config(db_, option, value, &now);
    if (code == SQLITE_OK && now != value) code = SQLITE_MISUSE;
  };
  configure(SQLITE_DBCONFIG_DEFENSIVE, 1);
  configure(SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0);
  configure(SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0);
  if (code != SQLITE_OK) {
    try {
      ThrowSqlite(db_, code, path);
    } catch (...) {
      sqlite3_close(db_);
      throw;
    }
  }
}

Connection::~Connection() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

void Connection::Execute(const char* sql) {
  const int code = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) ThrowSqlite(db_, code, path_);
  CheckFolders();
}

void Connection::CheckFolders() const {
  const int error = folder_error;
  if (error != 0)
    throw MachineError(path_ + ": its folder cannot be synced: " + std::strerror(error));
}

Statement Connection::Prepare(std::string_view sql) {
  auto found = statements_.find(sql);
  if (found == statements_.end()) {
    sqlite3_stmt* statement = nullptr;
    const int code = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) ThrowSqlite(db_, code, path_);
    found = statements_.emplace(std::string(sql), statement).first;
  }
  return Statement(*this, found->second);
}

std::string Connection::Pragma(const std::string& name) {
  // Not kept: a schema change would only make SQLite prepare it again.
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v2(db_, ("PRAGMA " + name).c_str(), -1, &raw, nullptr);
  if (code != SQLITE_OK) ThrowSqlite(db_, code, path_);
  std::string value;
  const int stepped = sqlite3_step(raw);
  if (stepped == SQLITE_ROW) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(raw, 0));
    if (text != nullptr) value = text;
  }
  // One that writes (journal_mode) commits behind its row, and may fail there.
  const int ended = sqlite3_finalize(raw);
  if (ended != SQLITE_OK) ThrowSqlite(db_, ended, path_);
  CheckFolders();
  return value;
}

void Connection::SetPragma(const std::string& name, const std::string& value,
                           const std::string& expected) {
  Pragma(name + "=" + value);
  const std::string now = Pragma(name);
  if (now != expected) {
    throw MachineError(path_ + ": PRAGMA " + name + " is '" + now + "', '" + expected +
                       "' is needed; use a local file system");
  }
}

Statement::~Statement() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

void Statement::Check(int code) {
  if (code != SQLITE_OK) ThrowSqlite(connection_.handle(), code, connection_.path());
}

Statement& Statement::Int(std::int64_t value) {
  Check(sqlite3_bind_int64(statement_, ++bound_, value));
  return *this;
}

Statement& Statement::Unsigned(std::uint64_t value) {
  if (value > INT64_MAX) {
    throw std::logic_error("store: " + std::to_string(value) + " must be less than 2^63");
  }
  return Int(static_cast<std::int64_t>(value));
}

Statement& Statement::Real(double value) {
  if (std::isnan(value)) return Null();
  Check(sqlite3_bind_double(statement_, ++bound_, value));
  return *this;
}

Statement& Statement::Text(std::string_view value) {
  // A null pointer would bind NULL.
  const char* data = value.empty() ? "" : value.data();
  Check(
      sqlite3_bind_text64(statement_, ++bound_, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  return *this;
}

Statement& Statement::Blob(const std::string& bytes) {
  Check(sqlite3_bind_blob64(statement_, ++bound_, bytes.data(), bytes.size(), SQLITE_TRANSIENT));
  return *this;
}

Statement& Statement::Null() {
  Check(sqlite3_bind_null(statement_, ++bound_));
  return *this;
}

Statement& Statement::Real(const std::optional<double>& value) {
  return value ? Real(*value) : Null();
}

Statement& Statement::Int(const std::optional<std::int64_t>& value) {
  return value ? Int(*value) : Null();
}

bool Statement::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) ThrowSqlite(connection_.handle(), code, connection_.path());
  return false;
}

void Statement::Run() {
  while (Step()) {
  }
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

std::int64_t Statement::GetInt(int column) const {
  return sqlite3_column_int64(statement_, column);
}

double Statement::GetReal(int column) const { return sqlite3_column_double(statement_, column); }

std::string Statement::GetText(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return text != nullptr ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

std::string_view Statement::GetBlob(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return data != nullptr ? std::string_view(data, static_cast<std::size_t>(size))
                         : std::string_view();
}

std::optional<double> Statement::GetOptionalReal(int column) const {
  if (IsNull(column)) return std::nullopt;
  return GetReal(column);
}

std::optional<std::int64_t> Statement::GetOptionalInt(int column) const {
  if (IsNull(column)) return std::nullopt;
  return GetInt(column);
}

}  // namespace temper::store
