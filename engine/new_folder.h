#pragma once
// A folder that becomes its target by one rename, or vanishes.
#include <string>

namespace temper::engine {

class NewFolder {
 public:
  /// Makes a folder beside `target` to write into. Throws UserError where the target exists or its parent can't be written.
  explicit NewFolder(std::string target);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::string& path() const { return temporary_; }
  /// Syncs it and puts it in place; without this the destructor removes it.
  void Commit();

 private:
  std::string target_, temporary_;
};

}  // namespace temper::engine
