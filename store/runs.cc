#include "store/runs.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>

#include "configs/error.h"
#include "store/open.h"
#include "store/trajectories.h"

namespace temper::store {
namespace {

namespace fs = std::filesystem;

std::string DatabasePath(const std::string& run_dir) {
  return (fs::path(run_dir) / "trajectories.db").string();
}

std::string RunName(const std::string& run_dir) {
  fs::path path = fs::path(run_dir).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

bool IsRun(const fs::path& path) {
  std::error_code ignored;
  // A config.json alone may be a model's.
  return fs::exists(path / "trajectories.db", ignored) ||
         fs::exists(path / "metrics.jsonl", ignored);
}

/// The folders in `dir`, by name.
std::vector<fs::path> Folders(const fs::path& dir, std::error_code* error) {
  std::vector<fs::path> folders;
  for (fs::directory_iterator it(dir, *error), end; !*error && it != end; it.increment(*error)) {
    std::error_code unreadable;
    if (it->is_directory(unreadable)) folders.push_back(it->path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

Json First(Reader& reader, const std::string& sql) {
  Json found = Json::object();
  reader.Query(sql, [&](const Json& row) { found = row; });
  return found;
}

std::vector<Json> All(Reader& reader, const std::string& sql) {
  std::vector<Json> rows;
  reader.Query(sql, [&](const Json& row) { rows.push_back(row); });
  return rows;
}

/// A count by the text in the first column.
Json Counts(Reader& reader, const std::string& sql) {
  Json counts = Json::object();
  reader.Query(sql, [&](const Json& row) { counts[row["k"].get<std::string>()] = row["n"]; });
  return counts;
}

/// The section's configured number of steps, -1 if the stored config does not say.
std::int64_t MaxSteps(const std::string& config_json, const char* section) {
  const Json config = Json::parse(config_json, nullptr, false);
  if (!config.is_object() || !config.contains(section)) return -1;
  const Json& job = config[section];
  if (!job.is_object() || !job.contains("max_steps")) return -1;
  return job["max_steps"].is_number_integer() ? job["max_steps"].get<std::int64_t>() : -1;
}

/// The last whole line of a JSONL file, read from its end.
Json LastLine(const fs::path& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return nullptr;
  const std::int64_t size = file.tellg();
  const std::int64_t take = std::min<std::int64_t>(size, 1 << 20);
  std::string tail(static_cast<std::size_t>(take), '\0');
  file.seekg(size - take);
  file.read(tail.data(), take);
  const std::size_t end = tail.rfind('\n');  // what follows is still being written
  if (end == std::string::npos || end == 0) return nullptr;
  const std::size_t before = tail.rfind('\n', end - 1);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  Json line = Json::parse(tail.substr(begin, end - begin), nullptr, false);
  return line.is_object() ? line : Json();
}

Json Row(const std::string& run_dir) {
  return Json{{"name", RunName(run_dir)}, {"path", run_dir},      {"state", "stopped"},
              {"steps", nullptr},         {"reward", nullptr},    {"rollouts", nullptr},
              {"dropped", nullptr},       {"created_ms", nullptr}};
}

/// The row of a run with a database. `running` must have been asked before the database was opened.
Json DatabaseRow(const std::string& run_dir, bool running, Reader& reader) {
  Json row = Row(run_dir);
  const Json run = First(reader, "SELECT * FROM run");
  const Json step = First(reader, "SELECT step, reward_mean FROM step ORDER BY step DESC LIMIT 1");
  const Json counts =
      First(reader, "SELECT count(*) n, count(*) FILTER (WHERE state = 'dropped') d FROM rollout");
  row["steps"] = step.value("step", std::int64_t{0});
  row["reward"] = step.contains("reward_mean") ? step["reward_mean"] : Json();
  row["rollouts"] = counts["n"];
  row["dropped"] = counts["d"];
  if (run.contains("created_ms")) row["created_ms"] = run["created_ms"];
  const std::int64_t goal = MaxSteps(run.value("config_json", std::string()), "grpo");
  if (running) {
    row["state"] = "running";
  } else if (goal >= 0 && row["steps"].get<std::int64_t>() >= goal) {
    row["state"] = "finished";
  }
  return row;
}

Json ListOne(const std::string& run_dir) {
  const std::string path = DatabasePath(run_dir);
  if (!fs::exists(path)) {
    Json row = Row(run_dir);
    const Json last = LastLine(fs::path(run_dir) / "metrics.jsonl");
    if (!last.is_object() || !last.contains("step")) return row;
    row["steps"] = last["step"];
    std::ifstream config(fs::path(run_dir) / "config.json");
    const std::string text{std::istreambuf_iterator<char>(config),
                           std::istreambuf_iterator<char>()};
    const std::int64_t goal = MaxSteps(text, "sft");
    if (goal >= 0 && row["steps"] == goal) row["state"] = "finished";
    return row;
  }
  try {
    const bool running = HasWriter(path);
    Reader reader(path);
    return DatabaseRow(run_dir, running, reader);
  } catch (const std::runtime_error& error) {
    // One broken run must not hide the others.
    Json row = Row(run_dir);
    row["state"] = "broken";
    row["error"] = error.what();
    return row;
  }
}

struct RolloutName {
  std::string grp, sample, attempt, version;
};

RolloutName ParseName(const std::string& name) {
  static const std::regex kForm(R"(g(\d{1,19})\.s(\d{1,9})(?:\.a(\d{1,9}))?(?:@v(\d{1,9}))?)");
  std::smatch match;
  if (!std::regex_match(name, match, kForm)) {
    throw UserError("'" + name + "' is no rollout's name; write it as g41.s3@v17");
  }
  return {match[1], match[2], match[3].matched ? match[3].str() : "0", match[4]};
}

Json ParsedOrText(const Json& text) {
  const Json parsed = Json::parse(text.get<std::string>(), nullptr, false);
  return parsed.is_discarded() ? text : parsed;
}

}  // namespace

std::vector<Json> ListRuns(const std::string& dir) {
  std::vector<fs::path> folders;
  if (IsRun(dir)) {
    folders.push_back(dir);
  } else {
    std::error_code error;
    const std::vector<fs::path> children = Folders(dir, &error);
    if (error) throw UserError(dir + ": " + error.message() + "; give the folder that holds runs");
    for (const fs::path& child : children) {
      if (IsRun(child)) {
        folders.push_back(child);
        continue;
      }
      // Runs that belong together share a folder: the quickstart's sft and grpo.
      std::error_code ignored;
      for (const fs::path& grandchild : Folders(child, &ignored)) {
        if (IsRun(grandchild)) folders.push_back(grandchild);
      }
    }
  }
  std::vector<Json> rows;
  for (const fs::path& folder : folders) {
    rows.push_back(ListOne(folder.string()));
    const fs::path name = folder.lexically_relative(dir);
    if (name != ".") rows.back()["name"] = name.string();
  }
  return rows;
}

Json ShowRun(const std::string& run_dir) {
  const std::string path = DatabasePath(run_dir);
  const bool running = HasWriter(path);
  Reader reader(path);
  Json run = DatabaseRow(run_dir, running, reader);
  const Json stored = First(reader, "SELECT * FROM run");
  run["temper_version"] = stored.value("temper_version", "");
  run["numerics"] = stored.value("numerics", "");
  run["incarnation"] = stored.value("incarnation", std::int64_t{0});
  const Json version = First(reader, "SELECT max(version) v FROM rollout");
  run["version"] = version["v"];
  const Json saved = First(
      reader, "SELECT checkpoint c FROM step WHERE checkpoint <> '' ORDER BY step DESC LIMIT 1");
  run["checkpoint"] = saved.contains("c") ? saved["c"] : Json();
  run["rollouts_by_state"] =
      Counts(reader, "SELECT state k, count(*) n FROM rollout GROUP BY 1 ORDER BY 1");
  run["statuses"] = Counts(
      reader, "SELECT status k, count(*) n FROM rollout WHERE status <> '' GROUP BY 1 ORDER BY 1");
  run["dropped_reasons"] = Counts(
      reader,
      "SELECT reason k, count(*) n FROM rollout WHERE state = 'dropped' GROUP BY 1 ORDER BY 1");
  run["last_steps"] =
      All(reader, "SELECT * FROM (SELECT * FROM step ORDER BY step DESC LIMIT 10) ORDER BY step");
  return run;
}

Json ShowRollout(const std::string& run_dir, const std::string& name) {
  const RolloutName parsed = ParseName(name);
  Reader reader(DatabasePath(run_dir));
  const std::string where = " WHERE grp = " + parsed.grp + " AND sample = " + parsed.sample +
                            " AND attempt = " + parsed.attempt;
  Json row = First(reader, "SELECT * FROM rollout" + where);
  if (row.empty()) {
    throw UserError(run_dir + ": no rollout " + name + "; `temper runs query` lists grp, sample");
  }
  RolloutRow full;
  full.grp = row["grp"];
  full.sample = row["sample"];
  full.attempt = row["attempt"];
  full.version = row["version"];
  if (!parsed.version.empty() && parsed.version != std::to_string(full.version)) {
    throw UserError(run_dir + ": no rollout " + name + "; there is " + full.Name());
  }
  Json shown{{"name", full.Name()}};
  const Json group = First(
      reader,
      "SELECT prompt_json, row_json, prompt_ids, granted_step FROM prompt_group WHERE grp = " +
          parsed.grp);
  if (!group.empty()) {
    shown["prompt"] = ParsedOrText(group["prompt_json"]);
    shown["row"] = ParsedOrText(group["row_json"]);
    shown["prompt_ids"] = group["prompt_ids"];
    shown["granted_step"] = group["granted_step"];
  }
  for (const auto& [key, value] : row.items()) shown[key] = value;
  shown["parts"] = All(reader,
                       "SELECT name, value, weight, status, message, line, script_sha256, micros "
                       "FROM reward_part" +
                           where + " ORDER BY name");
  return shown;
}

}  // namespace temper::store
