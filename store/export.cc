#include "store/export.h"

#include <filesystem>

#include "configs/error.h"
#include "store/trajectories.h"

namespace temper::store {
namespace {

std::string Path(const std::string& run_dir) {
  return (std::filesystem::path(run_dir) / "trajectories.db").string();
}

Json Parsed(const Json& text) {
  const Json parsed = Json::parse(text.get<std::string>(), nullptr, false);
  return parsed.is_discarded() ? text : parsed;
}

std::string NameOf(const Json& row) {
  RolloutRow name;
  name.grp = row["grp"].get<std::uint64_t>();
  name.sample = row["sample"].get<std::uint32_t>();
  name.attempt = row["attempt"].get<int>();
  name.version = row["version"].get<std::uint32_t>();
  return name.Name();
}

/// The rollouts that are meant, in order, with their prompts.
std::string Select(const ExportOptions& options, const std::string& columns) {
  std::string where = options.where;
  if (where.empty()) where = options.sft ? "score IS NOT NULL AND finish_reason = 'stop'" : "1";
  const std::string order = options.best_of > 0 ? "grp, score IS NULL, score DESC, sample, attempt"
                                                : "grp, sample, attempt";
  // The expression's columns are those of both tables; a line of its own ends a comment in it.
  std::string inner =
      "SELECT *, row_number() OVER (PARTITION BY grp ORDER BY score IS NULL, score DESC, sample, "
      "attempt) AS place FROM (SELECT r.*, g.prompt_json, g.row_json, g.prompt_ids, "
      "g.granted_version, g.granted_step FROM rollout r JOIN prompt_group g USING (grp)) WHERE (" +
      where + "\n)";
  std::string sql = "SELECT " + columns + " FROM (" + inner + ")";
  if (options.best_of > 0) sql += " WHERE place <= " + std::to_string(options.best_of);
  return sql + " ORDER BY " + order;
}

Json SftRow(const Json& row) {
  const Json prompt = Parsed(row["prompt_json"]);
  const std::string name = NameOf(row);
  Json completion = row["text"];
  if (prompt.is_array()) {
    if (prompt.empty() || !prompt[0].is_object()) {
      throw UserError(name + ": its prompt is token ids; export --sft needs texts or messages");
    }
    completion = Json::array({Json{{"role", "assistant"}, {"content", row["text"]}}});
  }
  return Json{
      {"prompt", prompt}, {"completion", completion}, {"score", row["score"]}, {"rollout", name}};
}

Json WholeRow(const Json& row, Reader& parts) {
  Json out{{"name", NameOf(row)}, {"prompt", Parsed(row["prompt_json"])}};
  out["row"] = Parsed(row["row_json"]);
  out["prompt_ids"] = row["prompt_ids"];
  for (const auto& [key, value] : row.items()) {
    const bool of_prompt = key == "prompt_json" || key == "row_json" || key == "prompt_ids";
    if (!of_prompt && key != "experts" && key != "kept" && key != "place") out[key] = value;
  }
  out["parts"] = Json::array();
  parts.Query(
      "SELECT name, value, weight, status, message, line, script_sha256, micros FROM "
      "reward_part WHERE grp = " +
          row["grp"].dump() + " AND sample = " + row["sample"].dump() +
          " AND attempt = " + row["attempt"].dump() + " ORDER BY name",
      [&](const Json& part) { out["parts"].push_back(part); });
  return out;
}

}  // namespace

void ExportRun(const std::string& run_dir, const ExportOptions& options,
               const std::function<void(const Json&)>& give) {
  Reader reader(Path(run_dir)), parts(Path(run_dir));
  if (options.sft) {
    reader.Query(Select(options, "grp, sample, attempt, version, text, score, prompt_json"),
                 [&](const Json& row) { give(SftRow(row)); });
  } else {
    reader.Query(Select(options, "*"), [&](const Json& row) { give(WholeRow(row, parts)); });
  }
}

}  // namespace temper::store
