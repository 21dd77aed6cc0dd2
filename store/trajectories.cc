#include "store/trajectories.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "configs/error.h"
#include "store/open.h"
#include "store/rows.h"
#include "store/schema.h"
#include "store/sqlite.h"

namespace temper::store {
namespace {

// In pages of 8 KiB: large enough that checkpoints are rare, small enough that the log stays below
// 64 MiB.
constexpr int kCheckpointPages = 1024;

const char* const kRolloutColumns =
    "grp, sample, attempt, version, version_last, seed, state, reason, actor, text, ids, logp, "
    "versions, loss_mask, finish_reason, score, status, advantage, trained_step, lag, "
    "received_ms, crc32c";

RolloutRow ReadRollout(const Statement& row, const std::string& path) {
  RolloutRow r;
  r.grp = static_cast<std::uint64_t>(row.GetInt(0));
  r.sample = static_cast<std::uint32_t>(row.GetInt(1));
  r.attempt = static_cast<int>(row.GetInt(2));
  r.version = static_cast<std::uint32_t>(row.GetInt(3));
  r.version_last = static_cast<std::uint32_t>(row.GetInt(4));
  r.seed = static_cast<std::uint64_t>(row.GetInt(5));
  r.state = row.GetText(6);
  r.reason = row.GetText(7);
  r.actor = row.GetText(8);
  r.text = row.GetText(9);
  const std::string where = path + ": " + r.Name();
  r.ids = FromBlob<std::int32_t>(row.GetBlob(10), where);
  r.logp = FromBlob<float>(row.GetBlob(11), where);
  r.versions = FromBlob<std::uint32_t>(row.GetBlob(12), where);
  r.loss_mask = FromBlob<std::uint8_t>(row.GetBlob(13), where);
  r.finish_reason = row.GetText(14);
  r.score = row.GetOptionalReal(15);
  r.status = row.GetText(16);
  r.advantage = row.GetOptionalReal(17);
  r.trained_step = row.GetOptionalInt(18);
  r.lag = row.GetOptionalInt(19);
  r.received_ms = row.GetInt(20);
  if (static_cast<std::uint32_t>(row.GetInt(21)) != RowCrc(r)) {
    throw MachineError(where + ": the stored checksum differs; the database is damaged");
  }
  return r;
}

void CheckArrays(const RolloutRow& row) {
  const std::size_t n = row.ids.size();
  if (row.logp.size() != n || row.loss_mask.size() != n ||
      (!row.versions.empty() && row.versions.size() != n)) {
    throw std::logic_error(row.Name() + ": ids, logp, versions and loss_mask differ in length");
  }
}

void SyncFolder(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool good = fd >= 0 && fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!good) throw MachineError(folder + ": " + std::strerror(error));
}

}  // namespace

std::string RolloutRow::Name() const {
  std::string name = "g" + std::to_string(grp) + ".s" + std::to_string(sample);
  if (attempt > 0) name += ".a" + std::to_string(attempt);
  return name + "@v" + std::to_string(version);
}

struct Trajectories::State {
  explicit State(const std::string& path) : lock(path), db(path, SQLITE_OPEN_READWRITE) {
    CheckIdentity(db);
    SetWriterPragmas(db);
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

  void Insert(const RolloutRow& row, const std::string& state, const std::string& reason);
  void Train(const StepRow& step, const TrainedSample& sample);

  WriterLock lock;
  Connection db;
  int wal_pages = 0;
};

Trajectories::Trajectories(std::unique_ptr<State> state) : state_(std::move(state)) {}
Trajectories::Trajectories(Trajectories&&) noexcept = default;
Trajectories::~Trajectories() = default;

Trajectories Trajectories::Create(const std::string& path, const RunInfo& run) {
  if (access(path.c_str(), F_OK) == 0) {
    throw UserError(path + ": there is a database already; resume that run or take another folder");
  }
  // Made aside and renamed, so that PATH is never half a database.
  const std::string aside = path + ".new";
  unlink(aside.c_str());
  {
    Connection db(aside, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    db.SetPragma("page_size", "8192", "8192");
    db.Execute("BEGIN IMMEDIATE");
    db.Execute(kSchemaSql);
    db.Pragma("application_id=" + std::to_string(kApplicationId));
    db.Pragma("user_version=" + std::to_string(kSchemaVersion));
    db.Prepare("INSERT INTO run VALUES (?, ?, ?, ?, 0, ?)")
        .Text(run.name)
        .Text(run.temper_version)
        .Text(run.numerics)
        .Text(run.config_json)
        .Int(run.created_ms)
        .Run();
    db.Execute("COMMIT");
  }
  if (std::rename(aside.c_str(), path.c_str()) != 0) {
    throw MachineError(path + ": " + std::strerror(errno));
  }
  SyncFolder(path);
  return Open(path);
}

Trajectories Trajectories::Open(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    throw UserError(path + ": no such trajectory database");
  }
  return Trajectories(std::make_unique<State>(path));
}

void Trajectories::Begin() {
  if (state_->db.in_transaction()) throw std::logic_error("store: Begin inside a transaction");
  state_->Begin();
}

void Trajectories::Commit() { state_->Commit(); }
void Trajectories::Rollback() { state_->Rollback(); }

void Trajectories::PutGroup(const GroupRow& group) {
  state_->Atomically([&] {
    state_->db.Prepare("INSERT OR REPLACE INTO prompt_group VALUES (?, ?, ?, ?, ?, ?, ?)")
        .Unsigned(group.grp)
        .Text(group.prompt_json)
        .Text(group.row_json)
        .Blob(ToBlob(group.prompt_ids))
        .Int(group.granted_version)
        .Int(group.granted_step)
        .Int(group.attempt)
        .Run();
  });
}

void Trajectories::State::Insert(const RolloutRow& row, const std::string& state,
                                 const std::string& reason) {
  Statement s = db.Prepare(
      "INSERT INTO rollout (grp, sample, attempt, version, version_last, seed, state, reason, "
      "actor, text, ids, logp, versions, loss_mask, finish_reason, score, status, advantage, "
      "trained_step, lag, received_ms, crc32c) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  s.Unsigned(row.grp).Int(row.sample).Int(row.attempt).Int(row.version).Int(row.version_last);
  s.Unsigned(row.seed).Text(state).Text(reason).Text(row.actor).Text(row.text);
  s.Blob(ToBlob(row.ids)).Blob(ToBlob(row.logp));
  row.versions.empty() ? s.Null() : s.Blob(ToBlob(row.versions));
  s.Blob(ToBlob(row.loss_mask)).Text(row.finish_reason).Real(row.score).Text(row.status);
  s.Real(row.advantage).Int(row.trained_step).Int(row.lag).Int(row.received_ms).Int(RowCrc(row));
  s.Run();
}

bool Trajectories::PutRollout(const RolloutRow& row) {
  CheckArrays(row);
  bool live = false;
  state_->Atomically([&] {
    bool same = false, rival = false;
    {
      Statement s =
          state_->db.Prepare("SELECT attempt, state FROM rollout WHERE grp = ? AND sample = ?");
      s.Unsigned(row.grp).Int(row.sample);
      while (s.Step()) {
        if (s.GetInt(0) == row.attempt) {
          same = true;
        } else if (s.GetText(1) != "dropped") {
          rival = true;
        }
      }
    }
    if (same) return;
    live = !rival;
    live ? state_->Insert(row, row.state, row.reason) : state_->Insert(row, "dropped", "duplicate");
  });
  return live;
}

void Trajectories::PutScore(std::uint64_t grp, std::uint32_t sample, int attempt,
                            std::optional<double> score, const std::string& status,
                            const std::vector<RewardPart>& parts) {
  state_->Atomically([&] {
    state_->db
        .Prepare(
            "UPDATE rollout SET state = 'scored', score = ?, status = ? "
            "WHERE grp = ? AND sample = ? AND attempt = ? AND state = 'received'")
        .Real(score)
        .Text(status)
        .Unsigned(grp)
        .Int(sample)
        .Int(attempt)
        .Run();
    // The first score stands: a late second answer changes nothing.
    if (state_->db.changes() == 0) return;
    for (const RewardPart& part : parts) {
      state_->db
          .Prepare("INSERT OR REPLACE INTO reward_part VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
          .Unsigned(grp)
          .Int(sample)
          .Int(attempt)
          .Text(part.name)
          .Real(part.value)
          .Real(part.weight)
          .Text(part.status)
          .Text(part.message)
          .Int(part.line)
          .Text(part.script_sha256)
          .Int(part.micros)
          .Run();
    }
  });
}

void Trajectories::Drop(std::uint64_t grp, std::uint32_t sample, int attempt,
                        const std::string& reason) {
  state_->Atomically([&] {
    state_->db
        .Prepare(
            "UPDATE rollout SET state = 'dropped', reason = ?, advantage = NULL, "
            "trained_step = NULL, lag = NULL "
            "WHERE grp = ? AND sample = ? AND attempt = ? AND state <> 'dropped'")
        .Text(reason)
        .Unsigned(grp)
        .Int(sample)
        .Int(attempt)
        .Run();
  });
}

void Trajectories::State::Train(const StepRow& step, const TrainedSample& sample) {
  db.Prepare(
        "UPDATE rollout SET state = 'trained', advantage = ?, trained_step = ?, lag = ? "
        "WHERE grp = ? AND sample = ? AND attempt = ? AND state IN ('scored', 'trained')")
      .Real(sample.advantage)
      .Int(step.step)
      .Int(sample.lag)
      .Unsigned(sample.grp)
      .Int(sample.sample)
      .Int(sample.attempt)
      .Run();
  if (db.changes() == 1) return;
  throw std::logic_error("store: step " + std::to_string(step.step) + " trained g" +
                         std::to_string(sample.grp) + ".s" + std::to_string(sample.sample) +
                         ", which is not there with a score");
}

void Trajectories::PutStep(const StepRow& step, const std::vector<TrainedSample>& trained,
                           const Json& metrics) {
  state_->Atomically([&] {
    state_->db.Prepare("INSERT OR REPLACE INTO step VALUES (?, ?, ?, ?, ?, ?)")
        .Int(step.step)
        .Int(step.version)
        .Real(step.loss)
        .Real(step.reward_mean)
        .Real(step.seconds)
        .Text(step.checkpoint)
        .Run();
    for (const TrainedSample& sample : trained) state_->Train(step, sample);
    if (metrics.is_null()) return;
    for (const auto& [name, value] : metrics.items()) {
      if (!value.is_number() && !value.is_null()) continue;  // names and notes stay in the JSONL
      Statement s = state_->db.Prepare("INSERT OR REPLACE INTO metric VALUES (?, ?, ?)");
      s.Int(step.step).Text(name);
      value.is_null() ? s.Null() : s.Real(value.get<double>());
      s.Run();
    }
  });
}

void Trajectories::SetCheckpoint(std::int64_t step, const std::string& folder) {
  state_->Atomically([&] {
    state_->db.Prepare("UPDATE step SET checkpoint = ? WHERE step = ?")
        .Text(folder)
        .Int(step)
        .Run();
    if (state_->db.changes() != 1) {
      throw std::logic_error("store: a checkpoint of step " + std::to_string(step) +
                             ", which is not there");
    }
  });
}

std::int64_t Trajectories::Resume(std::int64_t step, std::optional<std::uint32_t> keep_version) {
  state_->Atomically([&] {
    Connection& db = state_->db;
    db.Prepare("UPDATE run SET incarnation = incarnation + 1").Run();
    db.Prepare(
          "UPDATE rollout SET state = 'scored', advantage = NULL, trained_step = NULL, lag = NULL "
          "WHERE trained_step > ?")
        .Int(step)
        .Run();
    db.Prepare("DELETE FROM step WHERE step > ?").Int(step).Run();
    db.Prepare("DELETE FROM metric WHERE step > ?").Int(step).Run();
    if (!keep_version) return;
    // A rollout is lost when any of its tokens came from weights that this history never publishes.
    db.Prepare(
          "UPDATE rollout SET state = 'dropped', reason = 'version_lost' "
          "WHERE state IN ('received', 'scored') AND max(version, version_last) > ?")
        .Int(*keep_version)
        .Run();
  });
  return incarnation();
}

std::vector<RolloutRow> Trajectories::LiveRollouts(std::uint64_t grp) {
  static const std::string sql = std::string("SELECT ") + kRolloutColumns +
                                 " FROM rollout WHERE grp = ? AND state <> 'dropped' "
                                 "ORDER BY sample";
  Statement s = state_->db.Prepare(sql);
  s.Unsigned(grp);
  std::vector<RolloutRow> rows;
  while (s.Step()) rows.push_back(ReadRollout(s, state_->db.path()));
  return rows;
}

std::optional<GroupRow> Trajectories::Group(std::uint64_t grp) {
  Statement s = state_->db.Prepare(
      "SELECT prompt_json, row_json, prompt_ids, granted_version, granted_step, attempt "
      "FROM prompt_group WHERE grp = ?");
  s.Unsigned(grp);
  if (!s.Step()) return std::nullopt;
  GroupRow group;
  group.grp = grp;
  group.prompt_json = s.GetText(0);
  group.row_json = s.GetText(1);
  group.prompt_ids = FromBlob<std::int32_t>(s.GetBlob(2), state_->db.path() + ": prompt_group");
  group.granted_version = static_cast<std::uint32_t>(s.GetInt(3));
  group.granted_step = s.GetInt(4);
  group.attempt = static_cast<int>(s.GetInt(5));
  return group;
}

std::optional<std::uint64_t> Trajectories::LastGroup() {
  Statement s = state_->db.Prepare("SELECT max(grp) FROM prompt_group");
  s.Step();
  if (s.IsNull(0)) return std::nullopt;
  return static_cast<std::uint64_t>(s.GetInt(0));
}

std::int64_t Trajectories::incarnation() {
  Statement s = state_->db.Prepare("SELECT incarnation FROM run");
  if (!s.Step()) throw MachineError(state_->db.path() + ": the run row is missing");
  return s.GetInt(0);
}

}  // namespace temper::store
