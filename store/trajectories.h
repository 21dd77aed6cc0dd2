#pragma once
// The trajectory database of a run: one connection writes, everybody else reads.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/json.h"

namespace temper::store {

struct GroupRow {
  std::uint64_t grp = 0;
  std::string prompt_json;               // the prompt as the dataset row spells it
  std::string row_json;                  // all columns
  std::vector<std::int32_t> prompt_ids;
  std::uint32_t granted_version = 0;
  std::int64_t granted_step = 0;
  int attempt = 0;
};

struct RewardPart {
  std::string name;
  std::optional<double> value;
  double weight = 1.0;
  std::string status, message;
  int line = 0;
  std::string script_sha256;
  std::int64_t micros = 0;
};

struct RolloutRow {
  std::uint64_t grp = 0;
  std::uint32_t sample = 0;
  int attempt = 0;
  std::uint32_t version = 0, version_last = 0;
  std::uint64_t seed = 0;
  std::string state;                      // received | scored | trained | dropped
  std::string reason;                     // why dropped; "" otherwise
  std::string actor, text;
  std::vector<std::int32_t> ids;
  std::vector<float> logp;
  std::vector<std::uint32_t> versions;    // empty = all equal to version
  std::vector<std::uint8_t> loss_mask;    // one an id
  std::vector<std::uint16_t> experts;     // [prompt + ids - 1][MoE layers][top_k]; empty = not recorded
  std::vector<std::int32_t> kept;         // of each id the number of ids it was sampled from, then those; empty = not recorded
  std::string finish_reason;
  std::optional<double> score;
  std::string status;                     // reward status; "" until scored
  std::optional<double> advantage;
  std::optional<std::int64_t> trained_step, lag;
  std::int64_t received_ms = 0;
  std::string Name() const;               // g41.s3@v17, g41.s3.a1@v17
};

struct StepRow {
  std::int64_t step = 0;
  std::uint32_t version = 0;              // published when the step began
  double loss = 0, reward_mean = 0, seconds = 0;
  std::string checkpoint;                 // folder name, "" = none
};

struct TrainedSample {
  std::uint64_t grp; std::uint32_t sample; int attempt;
  double advantage; std::int64_t lag;
};

/// The writer. WAL, synchronous FULL, mmap off, every pragma read back. Not thread-safe: one thread owns it.
/// Throws MachineError for I/O, a full disk, a busy or corrupt file; UserError for a foreign or newer schema.
class Trajectories {
 public:
  struct RunInfo { std::string name, temper_version, numerics, config_json; std::int64_t created_ms = 0; };
  /// Creates PATH (must not exist) with incarnation 0.
  static Trajectories Create(const std::string& path, const RunInfo& run);
  /// Opens an existing database for writing.
  static Trajectories Open(const std::string& path);
  Trajectories(Trajectories&&) noexcept;
  ~Trajectories();

  /// Groups the following writes into one transaction (BEGIN IMMEDIATE .. COMMIT with fsync). Not nested.
  void Begin();
  void Commit();
  void Rollback();

  void PutGroup(const GroupRow& group);                       // insert or replace by grp
  /// False when (grp, sample) has a live (not dropped) earlier attempt or this very row: then it is stored as
  /// dropped/`duplicate` unless the very row (same attempt) is there, which changes nothing.
  bool PutRollout(const RolloutRow& row);
  void PutScore(std::uint64_t grp, std::uint32_t sample, int attempt, std::optional<double> score,
                const std::string& status, const std::vector<RewardPart>& parts);  // received -> scored
  void Drop(std::uint64_t grp, std::uint32_t sample, int attempt, const std::string& reason);
  void PutStep(const StepRow& step, const std::vector<TrainedSample>& trained, const Json& metrics);  // one transaction of its own if none is open
  void SetCheckpoint(std::int64_t step, const std::string& folder);

  /// Resume from `step`, one transaction: incarnation + 1; rows trained later go back to scored (advantage, trained_step, lag NULL);
  /// step and metric rows after it are deleted; where keep_version is set (asynchronous runs), those back in scored/received whose version > it are
  /// dropped as version_lost. Groups from `first_group` on that a later batch passed over (`zero_std`) go back to scored.
  /// Returns the new incarnation.
  std::int64_t Resume(std::int64_t step, std::optional<std::uint32_t> keep_version,
                      std::optional<std::uint64_t> first_group = std::nullopt);

  // Reads on the writer's connection (resume).
  std::vector<RolloutRow> LiveRollouts(std::uint64_t grp);     // by sample: not dropped, or dropped for its reward
  std::vector<RewardPart> Parts(const RolloutRow& row);        // by name
  std::optional<GroupRow> Group(std::uint64_t grp);
  std::optional<std::uint64_t> LastGroup();
  std::int64_t incarnation();

 private:
  struct State;
  explicit Trajectories(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Read-only access for the commands. query_only, never checkpoints.
class Reader {
 public:
  explicit Reader(const std::string& path);
  Reader(Reader&&) noexcept;
  ~Reader();
  /// Calls `row` with an object a row; blobs of the stable columns become number arrays (ids, logp, versions, loss_mask, prompt_ids).
  /// Throws UserError with SQLite's message for bad SQL or anything but a single reading statement.
  void Query(const std::string& sql, const std::function<void(const Json&)>& row);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::store
