#include "store/trajectories.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "configs/error.h"
#include "store/rows.h"
#include "store/schema.h"
#include "store/writer.h"

namespace temper::store {
namespace {

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
      "actor, text, ids, logp, versions, loss_mask, experts, kept, finish_reason, score, status, "
      "advantage, trained_step, lag, received_ms, crc32c) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  s.Unsigned(row.grp).Int(row.sample).Int(row.attempt).Int(row.version).Int(row.version_last);
  s.Unsigned(row.seed).Text(state).Text(reason).Text(row.actor).Text(row.text);
  s.Blob(ToBlob(row.ids)).Blob(ToBlob(row.logp));
  row.versions.empty() ? s.Null() : s.Blob(ToBlob(row.versions));
  s.Blob(ToBlob(row.loss_mask));
  row.experts.empty() ? s.Null() : s.Blob(ToBlob(row.experts));
  row.kept.empty() ? s.Null() : s.Blob(ToBlob(row.kept));
  s.Text(row.finish_reason).Real(row.score).Text(row.status);
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

}  // namespace temper::store
