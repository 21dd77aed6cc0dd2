#pragma once
// The inside of Trajectories: its lock, its connection, its transactions.
#include <string>

#include "configs/error.h"
#include "store/open.h"
#include "store/sqlite.h"
#include "store/trajectories.h"

namespace temper::store {

// In pages of 8 KiB: large enough that checkpoints are rare, small enough that the log stays below
// 64 MiB.
constexpr int kCheckpointPages = 1024;

struct Trajectories::State {
  explicit State(const std::string& path) : lock(path), db(path, SQLITE_OPEN_READWRITE) {
    CheckIdentity(db);
    SetWriterPragmas(db);
    Migrate(db);
    sqlite3_wal_hook(
        db.handle(),
        [](void* self, sqlite3*, const char*, int pages) {
          static_cast<State*>(self)->wal_pages = pages;
          return SQLITE_OK;
        },
        this);
  }
  ~State() {
    // Tidiness only: whatever stays in the log is durable there.
    sqlite3_wal_checkpoint_v2(db.handle(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  }

  void Begin() { db.Execute("BEGIN IMMEDIATE"); }
  void Commit() {
    db.Execute("COMMIT");
    if (wal_pages < kCheckpointPages) return;
    // A reader in the way is no error: the next commit tries again.
    const int code = sqlite3_wal_checkpoint_v2(db.handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE,
                                               nullptr, nullptr);
    if (code != SQLITE_OK && (code & 0xFF) != SQLITE_BUSY) {
      ThrowSqlite(db.handle(), code, db.path());
    }
    wal_pages = 0;
  }
  void Rollback() {
    // A full disk may already have rolled back.
    if (db.in_transaction()) db.Execute("ROLLBACK");
  }

  /// Runs `work` in the open transaction, or in one of its own.
  template <typename Work>
  void Atomically(const Work& work) {
    if (db.in_transaction()) return work();
    Begin();
    try {
      work();
      Commit();
    } catch (...) {
      try {
        Rollback();
      } catch (const MachineError&) {  // the first error is the one to report
      }
      throw;
    }
  }

  /// One new row, whatever its own state says.
  void Insert(const RolloutRow& row, const std::string& state, const std::string& reason);
  /// std::logic_error when the sample is not there with a score.
  void Train(const StepRow& step, const TrainedSample& sample);

  WriterLock lock;
  Connection db;
  int wal_pages = 0;
};

}  // namespace temper::store
