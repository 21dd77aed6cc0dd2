#include "cli/data_dir.h"

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "cli/child.h"
#include "configs/error.h"

namespace temper::cli {

std::string DataFile(const std::string& relative) {
  namespace fs = std::filesystem;
  std::vector<fs::path> places;
  if (const char* set = std::getenv("TEMPER_DATA"); set != nullptr && *set != '\0') {
    places.push_back(set);
  } else {
    places.push_back(fs::path(ThisProgram()).parent_path().parent_path() / "share" / "temper");
    places.push_back(TEMPER_SOURCE_DIR);
  }
  std::string looked;
  for (const fs::path& place : places) {
    std::error_code error;
    if (fs::exists(place / relative, error)) return fs::absolute(place / relative).string();
    looked += (looked.empty() ? "" : " and ") + place.string();
  }
  throw MachineError(relative + ": not found in " + looked +
                     "; set TEMPER_DATA to the folder that has it");
}

}  // namespace temper::cli
