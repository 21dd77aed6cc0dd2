#pragma once
// SQLite with our errors: a connection that checks its own settings, a statement that resets
// itself.
#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper::store {

/// Thrown types: MachineError for I/O, full disk, busy, corrupt; std::logic_error for misuse and
/// broken constraints.
[[noreturn]] void ThrowSqlite(sqlite3* db, int code, const std::string& where);

class Statement;

/// Owns one connection and its prepared statements.
class Connection {
 public:
  /// flags as sqlite3_open_v2. Extension loading is off, the schema untrusted, the connection
  /// defensive. `frozen`: nobody writes the file or its log as long as this lives.
  Connection(const std::string& path, int flags, bool frozen = false);
  Connection(const Connection&) = delete;
  ~Connection();

  /// Throws MachineError also where a folder of this process's databases could not be synced: what
  /// was committed may be in a file without a name.
  void Execute(const char* sql);
  /// A reset statement with no bindings, prepared once for each text.
  Statement Prepare(std::string_view sql);
  /// Sets a pragma and reads it back; MachineError when SQLite kept another value.
  void SetPragma(const std::string& name, const std::string& value, const std::string& expected);
  std::string Pragma(const std::string& name);
  bool in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }
  int changes() const { return sqlite3_changes(db_); }
  sqlite3* handle() const { return db_; }
  const std::string& path() const { return path_; }

 private:
  void CheckFolders() const;

  std::string path_;
  sqlite3* db_ = nullptr;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

/// Binds in order, steps, reads by column; resets on destruction.
class Statement {
 public:
  Statement(Connection& connection, sqlite3_stmt* statement)
      : connection_(connection), statement_(statement) {}
  Statement(const Statement&) = delete;
  ~Statement();

  Statement& Int(std::int64_t value);
  Statement& Unsigned(std::uint64_t value);  // std::logic_error from 2^63 on
  Statement& Real(double value);             // NaN becomes NULL
  Statement& Text(std::string_view value);
  Statement& Blob(const std::string& bytes);
  Statement& Null();
  Statement& Real(const std::optional<double>& value);
  Statement& Int(const std::optional<std::int64_t>& value);

  bool Step();  // false at the end
  void Run();   // steps to the end

  bool IsNull(int column) const;
  std::int64_t GetInt(int column) const;
  double GetReal(int column) const;
  std::string GetText(int column) const;
  std::string_view GetBlob(int column) const;  // until the next Step
  std::optional<double> GetOptionalReal(int column) const;
  std::optional<std::int64_t> GetOptionalInt(int column) const;

 private:
  void Check(int code);
  Connection& connection_;
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

}  // namespace temper::store
