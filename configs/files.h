#pragma once
// Regular files only: whole reads by pread, durable writes.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace temper::configs {

/// A regular file open for reading. FIFOs, devices and folders are refused without blocking;
/// symlinks are followed.
class InputFile {
 public:
  /// Throws UserError "<path>: cannot be opened: <why>" or "<path>: is not a regular file";
  /// MachineError when the machine is at fault (EIO, too many open files, no memory).
  explicit InputFile(const std::string& path);
  /// The file `name` of a model's `folder`: wherever symlinks lead, it must lie inside the folder. Where that is a
  /// snapshot of a download cache (ROOT/snapshots/NAME, with links to ROOT/blobs), inside ROOT. Throws as above; UserError
  /// "<path>: leaves the model's folder".
  InputFile(const std::string& folder, const std::string& name);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  InputFile& operator=(InputFile&&) = delete;

  std::uint64_t size() const { return size_; }  // bytes, when it was opened
  const std::string& path() const { return path_; }
  /// Fills `out` from byte `offset`. Throws UserError if the file ends earlier (it shrank),
  /// MachineError on I/O errors.
  void ReadAt(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  void Take(int fd);

  std::string path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

/// The whole file. Throws UserError if it is larger than max_bytes.
std::string ReadWholeFile(const InputFile& file, std::uint64_t max_bytes);
std::string ReadWholeFile(const std::string& path, std::uint64_t max_bytes);

/// Removes a regular file that could not be written to its end; devices stay.
void RemoveHalfWritten(const std::string& path);

/// Creates (or replaces) a file with these bytes and fsyncs it. Throws MachineError with errno's
/// text.
void WriteWholeFile(const std::string& path, std::string_view bytes);

/// A folder and its missing parents, the name of each made durable in its own parent. Throws
/// MachineError.
void MakeFolders(const std::string& path);

/// fsync of a folder: makes the names in it durable. Throws MachineError.
void SyncFolder(const std::string& path);

bool Exists(const std::string& path);  // anything of this name, a dangling symlink too

}  // namespace temper::configs
