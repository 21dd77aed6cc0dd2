#include "store/verify.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/sha256.h"
#include "store/open.h"
#include "store/rows.h"
#include "store/trajectories.h"

namespace temper::store {
namespace {

namespace fs = std::filesystem;

class Report {
 public:
  void Add(const std::string& problem) {
    if (problems_.size() < kMaxProblems) {
      problems_.push_back(problem);
    } else {
      ++more_;
    }
  }
  Json Done(Json counts) const {
    Json out{{"ok", problems_.empty()}};
    out.update(counts);
    out["problems"] = problems_;
    out["more"] = more_;
    return out;
  }

 private:
  Json problems_ = Json::array();
  std::int64_t more_ = 0;
};

/// %KEPT: a database of schema 1 has no such column.
constexpr char kColumns[] =
    "SELECT grp, sample, attempt, version, version_last, seed, state, reason, text, ids, logp, "
    "versions, loss_mask, crc32c, experts, %KEPT FROM rollout ORDER BY grp, sample, attempt";

void CheckRollout(Statement& s, Report* report) {
  RolloutRow row;
  row.grp = static_cast<std::uint64_t>(s.GetInt(0));
  row.sample = static_cast<std::uint32_t>(s.GetInt(1));
  row.attempt = static_cast<int>(s.GetInt(2));
  row.version = static_cast<std::uint32_t>(s.GetInt(3));
  row.version_last = static_cast<std::uint32_t>(s.GetInt(4));
  row.seed = static_cast<std::uint64_t>(s.GetInt(5));
  row.text = s.GetText(8);
  const std::string name = row.Name();
  try {
    row.ids = FromBlob<std::int32_t>(s.GetBlob(9), "ids");
    row.logp = FromBlob<float>(s.GetBlob(10), "logp");
    if (!s.IsNull(11)) row.versions = FromBlob<std::uint32_t>(s.GetBlob(11), "versions");
    row.loss_mask = FromBlob<std::uint8_t>(s.GetBlob(12), "loss_mask");
    row.experts = FromBlob<std::uint16_t>(s.GetBlob(14), "experts");
    row.kept = FromBlob<std::int32_t>(s.GetBlob(15), "kept");
  } catch (const MachineError& error) {
    return report->Add(name + ": " + error.what());
  }
  const std::size_t n = row.ids.size();
  if (row.logp.size() != n || row.loss_mask.size() != n ||
      (!row.versions.empty() && row.versions.size() != n)) {
    return report->Add(name + ": its arrays differ in length");
  }
  if (RowCrc(row) != static_cast<std::uint32_t>(s.GetInt(13))) {
    report->Add(name + ": its checksum does not hold; the row is not what was written");
  }
}

struct Rule {
  const char* sql;  // gives the rows that break it: one text each
  const char* what;
};

constexpr char kName[] =
    "'g' || grp || '.s' || sample || CASE attempt WHEN 0 THEN '' ELSE '.a' || attempt END";

/// What no row may be. %N is the rollout's name.
constexpr Rule kRules[] = {
    {"SELECT %N FROM rollout WHERE grp NOT IN (SELECT grp FROM prompt_group)",
     "no prompt_group row"},
    {"SELECT %N || ' part ' || name FROM reward_part p WHERE NOT EXISTS (SELECT 1 FROM rollout r "
     "WHERE r.grp = p.grp AND r.sample = p.sample AND r.attempt = p.attempt)",
     "no rollout row"},
    {"SELECT 'g' || grp || '.s' || sample FROM rollout WHERE state <> 'dropped' GROUP BY grp, "
     "sample HAVING count(*) > 1",
     "more than one live attempt"},
    {"SELECT %N FROM rollout WHERE (state = 'dropped') <> (reason <> '')",
     "dropped without a reason, or a reason without being dropped"},
    {"SELECT %N FROM rollout WHERE state IN ('scored', 'trained') AND status = ''",
     "scored without a status"},
    {"SELECT %N FROM rollout WHERE state = 'trained' AND (advantage IS NULL OR lag IS NULL)",
     "trained without advantage or lag"},
    {"SELECT %N FROM rollout WHERE trained_step IS NOT NULL AND trained_step NOT IN (SELECT step "
     "FROM step)",
     "trained in a step that is not there"},
    {"SELECT %N FROM rollout WHERE version_last < version", "its last version is below its first"},
    {"SELECT 'step ' || step FROM step WHERE step > 1 AND step - 1 NOT IN (SELECT step FROM step)",
     "the step before it is not there"},
    {"SELECT 'metric of step ' || step FROM metric WHERE step NOT IN (SELECT step FROM step)",
     "its step is not there"},
};

std::string Expand(std::string sql) {
  const std::size_t at = sql.find("%N");
  if (at != std::string::npos) sql.replace(at, 2, kName);
  return sql;
}

std::int64_t Count(Connection& db, const char* table) {
  Statement s = db.Prepare(std::string("SELECT count(*) FROM ") + table);
  s.Step();
  return s.GetInt(0);
}

void CheckDatabase(Connection& db, Report* report, Json* counts) {
  db.Execute("BEGIN");  // one snapshot for all of it
  {
    Statement s = db.Prepare("PRAGMA integrity_check(20)");
    while (s.Step()) {
      if (s.GetText(0) != "ok") report->Add("integrity_check: " + s.GetText(0));
    }
  }
  {
    std::string columns = kColumns;
    columns.replace(columns.find("%KEPT"), 5, db.Pragma("user_version") == "1" ? "NULL" : "kept");
    Statement s = db.Prepare(columns);
    while (s.Step()) CheckRollout(s, report);
  }
  for (const Rule& rule : kRules) {
    Statement s = db.Prepare(Expand(rule.sql));
    while (s.Step()) report->Add(s.GetText(0) + ": " + rule.what);
  }
  *counts = Json{{"rollouts", Count(db, "rollout")},
                 {"groups", Count(db, "prompt_group")},
                 {"parts", Count(db, "reward_part")},
                 {"steps", Count(db, "step")}};
  db.Execute("COMMIT");
}

std::string FileSha256(const std::string& path) {
  const configs::InputFile file(path);
  configs::Sha256 sha;
  std::vector<std::byte> buffer(1 << 20);
  for (std::uint64_t at = 0; at < file.size(); at += buffer.size()) {
    const auto take =
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), file.size() - at));
    file.ReadAt(at, std::span(buffer.data(), take));
    sha.Add(std::span<const std::byte>(buffer.data(), take));
  }
  return sha.Hex();
}

void CheckCheckpoint(const fs::path& dir, Report* report) {
  const std::string path = (dir / "manifest.json").string();
  const Json manifest = configs::ReadJsonFile(path);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_array()) {
    return report->Add(path + ": lists no files");
  }
  for (const Json& file : manifest["files"]) {
    const bool good = file.is_object() && file.contains("name") && file["name"].is_string() &&
                      file.contains("size") && file.contains("sha256");
    const std::string name = good ? file["name"].get<std::string>() : "";
    const fs::path plain = fs::path(name).lexically_normal();
    if (name.empty() || plain != name || plain.is_absolute() || *plain.begin() == "..") {
      return report->Add(path + ": a file has no plain name");
    }
    const std::string full = (dir / name).string();
    if (configs::InputFile(full).size() != file["size"]) {
      report->Add(full + ": its size is not the manifest's");
    } else if (FileSha256(full) != file["sha256"]) {
      report->Add(full + ": its SHA-256 is not the manifest's");
    }
  }
}

std::int64_t CheckCheckpoints(const std::string& run_dir, Report* report) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(run_dir) / "checkpoints", error)) {
    const std::string name = entry.path().filename().string();
    // What is being written aside ends in .tmp and is nobody's yet.
    if (name.rfind("step-", 0) == 0 && name.find('.') == std::string::npos) {
      folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end());
  for (const fs::path& folder : folders) {
    try {
      CheckCheckpoint(folder, report);
    } catch (const UserError& what) {
      report->Add(what.what());
    }
  }
  return static_cast<std::int64_t>(folders.size());
}

}  // namespace

Json VerifyRun(const std::string& run_dir) {
  Report report;
  Json counts;
  const auto db = OpenForReading((fs::path(run_dir) / "trajectories.db").string());
  try {
    CheckDatabase(*db, &report, &counts);
  } catch (const MachineError& error) {
    // A page that cannot be read is what this command is for.
    const int code = sqlite3_errcode(db->handle()) & 0xFF;
    if (code != SQLITE_CORRUPT && code != SQLITE_NOTADB) throw;
    report.Add(error.what());
  }
  counts["checkpoints"] = CheckCheckpoints(run_dir, &report);
  return report.Done(counts);
}

}  // namespace temper::store
