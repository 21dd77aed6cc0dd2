#include "engine/new_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "configs/error.h"
#include "configs/files.h"

namespace temper::engine {
namespace {

std::string WithoutTrailingSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

NewFolder::NewFolder(std::string target)
    : target_(WithoutTrailingSlash(std::move(target))),
      temporary_(target_ + ".tmp-" + std::to_string(::getpid())) {
  if (configs::Exists(target_)) throw UserError(target_ + ": exists already: choose another");
  if (::mkdir(temporary_.c_str(), 0777) != 0) {
    const std::string message =
        temporary_ + ": cannot be created: " + std::generic_category().message(errno);
    if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) throw UserError(message);
    throw MachineError(message);
  }
}

NewFolder::~NewFolder() {
  if (temporary_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
}

void NewFolder::Commit() {
  configs::SyncFolder(temporary_);
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) != 0) {
    const std::string message =
        target_ + ": cannot be put in place: " + std::generic_category().message(errno);
    if (errno == EEXIST) throw UserError(message);
    throw MachineError(message);
  }
  temporary_.clear();
  const std::string parent = std::filesystem::path(target_).parent_path().string();
  configs::SyncFolder(parent.empty() ? "." : parent);
}

}  // namespace temper::engine
