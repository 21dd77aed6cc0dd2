#include "learner/core/run_folder.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "configs/error.h"
#include "configs/files.h"

namespace temper::learner {

namespace {

namespace fs = std::filesystem;

bool HoldsOnlyLogs(const fs::path& dir) {
  bool any = false;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().filename() != "logs") return false;
    any = true;
  }
  return any;
}

void WriteConfig(const configs::Config& config) {
  WriteFileWhole(config.output_dir + "/config.json", configs::ToJson(config).dump(1) + "\n");
}

}  // namespace

void WriteFileWhole(const std::string& path, std::string_view bytes) {
  const std::string aside = path + ".tmp";
  configs::WriteWholeFile(aside, bytes);
  if (std::rename(aside.c_str(), path.c_str()) != 0)
    throw MachineError(path + ": rename: " + std::strerror(errno));
  configs::SyncFolder(fs::path(path).parent_path().string());
}

void BeginRun(const configs::Config& config) {
  const fs::path run = config.output_dir;
  std::error_code error;
  if (fs::exists(run, error) && !(fs::is_directory(run, error) && HoldsOnlyLogs(run))) {
    throw UserError(run.string() +
                    ": output_dir exists already; a fresh run needs a new folder: go on with "
                    "--resume, or name another one");
  }
  configs::MakeFolders(run / "checkpoints");
  configs::MakeFolders(run / "tb");
  WriteConfig(config);
}

void ContinueRun(const configs::Config& config, const Json& before) {
  std::vector<std::string> ignore = config.resume_allow;
  for (const char* key : {"resume", "resume_allow", "output_dir", "wire.bind", "wire.keys"})
    ignore.push_back(key);
  const std::vector<std::string> differences =
      configs::Differences(before, configs::ToJson(config), ignore);
  if (!differences.empty()) {
    std::string list;
    for (const std::string& line : differences) list += (list.empty() ? "" : "; ") + line;
    throw UserError(
        config.output_dir + ": the run was made with other settings: " + list +
        "; a resumed run keeps its settings: undo them, or name the keys in resume_allow");
  }
  WriteConfig(config);
}

}  // namespace temper::learner
