#pragma once
// Who may write a database: the file's identity, one writer's lock, the settings that make a commit
// durable.
#include <memory>
#include <string>

#include "store/sqlite.h"

namespace temper::store {

/// An advisory lock on the database file, held while its writer lives.
class WriterLock {
 public:
  /// MachineError when another process writes PATH.
  explicit WriterLock(const std::string& path);
  WriterLock(const WriterLock&) = delete;
  ~WriterLock();

 private:
  int fd_ = -1;
};

/// True when some process holds the lock. Must not be called while this process has PATH open:
/// closing the probe's file would drop SQLite's own locks.
bool HasWriter(const std::string& path);

/// UserError unless PATH is a file with our application_id, a schema we know, and in it our tables
/// as we made them.
void CheckIdentity(Connection& connection);

/// What a database of an older schema lacks is added to it.
void Migrate(Connection& connection);

/// WAL, synchronous FULL, no mmap, checkpoints only when we ask; each read back. MachineError for
/// pages that do not hold together.
void SetWriterPragmas(Connection& connection);

/// Read-only, query_only, never checkpoints. UserError for a missing, foreign or newer file.
std::unique_ptr<Connection> OpenForReading(const std::string& path);

}  // namespace temper::store
