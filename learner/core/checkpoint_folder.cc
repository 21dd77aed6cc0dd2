#include "learner/core/checkpoint_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/sha256.h"

namespace temper::learner {

namespace {

namespace fs = std::filesystem;
constexpr int kFormat = 1;
constexpr const char* kAside = ".tmp";  // being written
constexpr const char* kGone = ".gone";  // being removed
constexpr std::uint64_t kSmallFile = std::uint64_t{64} << 20;

std::string Numbered(const char* prefix, std::uint64_t number) {
  char text[32];
  std::snprintf(text, sizeof text, "%s%06llu", prefix, static_cast<unsigned long long>(number));
  return text;
}

/// N of "<prefix>N<suffix>", or nothing.
std::optional<std::uint64_t> NumberOf(const std::string& name, const std::string& prefix,
                                      const std::string& suffix) {
  if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) ||
      !name.ends_with(suffix))
    return {};
  const char* end = name.data() + name.size() - suffix.size();
  std::uint64_t number = 0;
  const auto [rest, error] = std::from_chars(name.data() + prefix.size(), end, number);
  if (error != std::errc() || rest != end) return {};
  return number;
}

std::string FileSha256(const std::string& path, std::uint64_t* size) {
  const configs::InputFile file(path);
  *size = file.size();
  configs::Sha256 hash;
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (std::uint64_t at = 0; at < file.size();) {
    const std::size_t n = std::min<std::uint64_t>(buffer.size(), file.size() - at);
    file.ReadAt(at, {buffer.data(), n});
    hash.Add({buffer.data(), n});
    at += n;
  }
  return hash.Hex();
}

void Rename(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    throw MachineError(to.string() + ": rename: " + std::strerror(errno));
  }
}

void RemoveAll(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw MachineError(path.string() + ": cannot be removed: " + error.message());
}

Json ToJson(const TrainState& s) {
  return {{"format", kFormat},
          {"step", s.step},
          {"version", s.version},
          {"incarnation", s.incarnation},
          {"data", {{"epoch", s.epoch}, {"position", s.position}, {"next_group", s.next_group}}},
          {"numerics", s.numerics},
          {"config", s.config}};
}

TrainState ReadState(const std::string& path) {
  const Json json = configs::ParseJson(configs::ReadWholeFile(path, kSmallFile), path);
  const auto number = [&](const Json& object, const char* key) {
    if (!object.is_object() || !object.contains(key))
      throw UserError(path + ": " + key + " is missing");
    return configs::GetInt(object[key], path + ": " + key, 0, INT64_MAX);
  };
  if (number(json, "format") != kFormat)
    throw UserError(path + ": format must be " + std::to_string(kFormat));
  TrainState s;
  s.step = number(json, "step");
  s.version = std::uint32_t(number(json, "version"));
  s.incarnation = number(json, "incarnation");
  const Json data = json.value("data", Json());
  s.epoch = std::uint64_t(number(data, "epoch"));
  s.position = std::uint64_t(number(data, "position"));
  s.next_group = std::uint64_t(number(data, "next_group"));
  s.numerics = json.value("numerics", "");
  s.config = json.value("config", Json());
  return s;
}

/// Throws UserError saying what is torn.
void CheckManifest(const fs::path& dir) {
  const std::string path = (dir / "manifest.json").string();
  const Json manifest = configs::ParseJson(configs::ReadWholeFile(path, kSmallFile), path);
  const Json files = manifest.is_object() ? manifest.value("files", Json()) : Json();
  if (!files.is_array() || files.empty()) throw UserError(path + ": files must be a list");
  for (const Json& file : files) {
    const std::string name =
        file.is_object() && file.contains("name") && file["name"].is_string() ? file["name"] : "";
    const fs::path plain = fs::path(name).lexically_normal();
    if (name.empty() || plain != name || plain.is_absolute() || *plain.begin() == "..")
      throw UserError(path + ": a file has no plain name");
    std::uint64_t size = 0;
    const std::string sha256 = FileSha256((dir / name).string(), &size);
    if (file.value("size", std::uint64_t{0}) != size)
      throw UserError((dir / name).string() + ": its size is not the manifest's");
    if (file.value("sha256", "") != sha256)
      throw UserError((dir / name).string() + ": its SHA-256 is not the manifest's");
  }
}

std::vector<std::uint64_t> Steps(const fs::path& checkpoints) {
  std::vector<std::uint64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error)) {
    if (const auto step = NumberOf(entry.path().filename().string(), "step-", ""))
      steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

/// Takes its name first, then its files: nothing half removed looks like a checkpoint.
void RemoveSteps(const fs::path& checkpoints, const std::vector<std::string>& names) {
  if (names.empty()) return;
  for (const std::string& name : names) {
    RemoveAll(checkpoints / (name + kGone));
    Rename(checkpoints / name, checkpoints / (name + kGone));
  }
  configs::SyncFolder(checkpoints.string());
  for (const std::string& name : names) RemoveAll(checkpoints / (name + kGone));
}

/// What a process that died was removing or writing.
void RemoveLeftovers(const fs::path& checkpoints) {
  std::vector<fs::path> left;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error)) {
    const std::string name = entry.path().filename().string();
    if (NumberOf(name, "step-", kGone) || NumberOf(name, "step-", kAside))
      left.push_back(entry.path());
  }
  for (const fs::path& path : left) RemoveAll(path);
}

void WriteManifest(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (!entry.is_directory()) names.push_back(entry.path().lexically_relative(dir).string());
  }
  std::sort(names.begin(), names.end());
  Json files = Json::array();
  for (const std::string& file : names) {
    std::uint64_t size = 0;
    const std::string sha256 = FileSha256((dir / file).string(), &size);
    files.push_back({{"name", file}, {"size", size}, {"sha256", sha256}});
  }
  configs::WriteWholeFile((dir / "manifest.json").string(),
                          Json{{"format", kFormat}, {"files", files}}.dump(1) + "\n");
}

void PointLatestAt(const std::string& name, const fs::path& checkpoints) {
  const fs::path link = checkpoints / "latest.tmp";
  std::error_code error;
  fs::remove(link, error);
  fs::create_directory_symlink(name, link, error);
  if (error) throw MachineError(link.string() + ": cannot be made: " + error.message());
  Rename(link, checkpoints / "latest");
}

}  // namespace

std::string WriteCheckpointFolder(const std::string& run_dir, const TrainState& state, int keep,
                                  const std::function<void(const std::string& dir)>& write) {
  const fs::path checkpoints = fs::path(run_dir) / "checkpoints";
  const std::string name = Numbered("step-", std::uint64_t(state.step));
  const fs::path aside = checkpoints / (name + kAside), final = checkpoints / name;
  RemoveLeftovers(checkpoints);
  configs::MakeFolders(aside);
  try {
    write(aside.string());
    configs::WriteWholeFile((aside / "state.json").string(), ToJson(state).dump(1) + "\n");
    WriteManifest(aside);
    configs::SyncFolder(aside.string());
  } catch (...) {
    std::error_code error;
    fs::remove_all(aside, error);  // of a full disk, above all
    throw;
  }

  // A folder of this name is a torn one, or a lost future that this run replaces.
  if (fs::exists(final)) RemoveSteps(checkpoints, {name});
  Rename(aside, final);
  PointLatestAt(name, checkpoints);
  configs::SyncFolder(checkpoints.string());

  if (keep > 0) {
    std::vector<std::uint64_t> steps = Steps(checkpoints);
    std::erase_if(steps, [&](std::uint64_t step) { return step > std::uint64_t(state.step); });
    std::vector<std::string> old;
    for (std::size_t i = 0; i + std::size_t(keep) < steps.size(); ++i)
      old.push_back(Numbered("step-", steps[i]));
    RemoveSteps(checkpoints, old);
  }
  return name;
}

FoundCheckpoint FindCheckpoint(const std::string& run_dir) {
  const fs::path checkpoints = fs::path(run_dir) / "checkpoints";
  std::vector<std::uint64_t> steps = Steps(checkpoints);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path dir = checkpoints / Numbered("step-", *step);
    try {
      CheckManifest(dir);
      return {dir.string(), ReadState((dir / "state.json").string())};
    } catch (const UserError& torn) {
      std::fprintf(stderr, "temper-learner: checkpoint %s is torn and skipped: %s\n", dir.c_str(),
                   torn.what());
    }
  }
  throw UserError(run_dir +
                  ": no valid checkpoint to resume from; begin a new run in another output_dir");
}

void WriteVersionFile(const std::string& run_dir, std::uint32_t version,
                      const std::function<void(const std::string& path)>& write) {
  const fs::path versions = fs::path(run_dir) / "versions";
  configs::MakeFolders(versions);
  const fs::path path = versions / (Numbered("v", version) + ".safetensors");
  const std::string aside = path.string() + ".tmp";
  write(aside);
  Rename(aside, path);
  configs::SyncFolder(versions.string());
}

void PruneVersions(const std::string& run_dir, const std::string& keep_versions,
                   std::uint32_t newest) {
  std::uint64_t keep = 0;
  const auto [end, bad] =
      std::from_chars(keep_versions.data(), keep_versions.data() + keep_versions.size(), keep);
  if (bad != std::errc() || end != keep_versions.data() + keep_versions.size())
    return;  // all, checkpoints
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(run_dir) / "versions", error)) {
    const auto version = NumberOf(entry.path().filename().string(), "v", ".safetensors");
    if (version && *version + keep <= newest) RemoveAll(entry.path());
  }
}

}  // namespace temper::learner
