#include "store/stored_rows.h"

#include "configs/error.h"
#include "store/rows.h"

namespace temper::store {
namespace {

const char* const kRolloutColumns =
    "grp, sample, attempt, version, version_last, seed, state, reason, actor, text, ids, logp, "
    "versions, loss_mask, experts, kept, finish_reason, score, status, advantage, trained_step, "
    "lag, "
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
  r.experts = FromBlob<std::uint16_t>(row.GetBlob(14), where);
  r.kept = FromBlob<std::int32_t>(row.GetBlob(15), where);
  r.finish_reason = row.GetText(16);
  r.score = row.GetOptionalReal(17);
  r.status = row.GetText(18);
  r.advantage = row.GetOptionalReal(19);
  r.trained_step = row.GetOptionalInt(20);
  r.lag = row.GetOptionalInt(21);
  r.received_ms = row.GetInt(22);
  if (static_cast<std::uint32_t>(row.GetInt(23)) != RowCrc(r)) {
    throw MachineError(where + ": the stored checksum differs; the database is damaged");
  }
  return r;
}

}  // namespace

std::vector<RolloutRow> ReadLive(Connection& db, std::uint64_t grp) {
  static const std::string sql = std::string("SELECT ") + kRolloutColumns +
                                 " FROM rollout WHERE grp = ? AND (state <> 'dropped' OR "
                                 "(reason = status AND status <> '')) ORDER BY sample";
  Statement s = db.Prepare(sql);
  s.Unsigned(grp);
  std::vector<RolloutRow> rows;
  while (s.Step()) rows.push_back(ReadRollout(s, db.path()));
  return rows;
}

std::vector<RewardPart> ReadParts(Connection& db, const RolloutRow& row) {
  Statement s = db.Prepare(
      "SELECT name, value, weight, status, message, line, script_sha256, micros FROM reward_part "
      "WHERE grp = ? AND sample = ? AND attempt = ? ORDER BY name");
  s.Unsigned(row.grp).Int(row.sample).Int(row.attempt);
  std::vector<RewardPart> parts;
  while (s.Step()) {
    RewardPart& part = parts.emplace_back();
    part.name = s.GetText(0);
    part.value = s.GetOptionalReal(1);
    part.weight = s.GetOptionalReal(2).value_or(0);
    part.status = s.GetText(3);
    part.message = s.GetText(4);
    part.line = static_cast<int>(s.GetInt(5));
    part.script_sha256 = s.GetText(6);
    part.micros = s.GetInt(7);
  }
  return parts;
}

std::optional<GroupRow> ReadGroup(Connection& db, std::uint64_t grp) {
  Statement s = db.Prepare(
      "SELECT prompt_json, row_json, prompt_ids, granted_version, granted_step, attempt "
      "FROM prompt_group WHERE grp = ?");
  s.Unsigned(grp);
  if (!s.Step()) return std::nullopt;
  GroupRow group;
  group.grp = grp;
  group.prompt_json = s.GetText(0);
  group.row_json = s.GetText(1);
  group.prompt_ids = FromBlob<std::int32_t>(s.GetBlob(2), db.path() + ": prompt_group");
  group.granted_version = static_cast<std::uint32_t>(s.GetInt(3));
  group.granted_step = s.GetInt(4);
  group.attempt = static_cast<int>(s.GetInt(5));
  return group;
}

}  // namespace temper::store
