#pragma once
// What a disk may hold after the power failed: a model of which calls were durable.
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/disk_calls.h"

namespace temper::bench {

/// Which of the calls that no fsync has made sure of are on the disk.
enum class Kept {
  kNone,   // only what was synced: contents by the file's own fsync, names by their folder's
  kAll,    // as after kill -9
  kSome,   // a seeded half of them, each by itself; a kept write may lack some of its sectors
  kData,   // every write, no name: files as long as they got, under their old names
  kNames,  // every name, no write: renamed files whose bytes never arrived
};

/// One disk. Apply() the calls in order; at any moment Image() writes what a restart would find.
class DiskModel {
 public:
  /// `folder` as it is now: durable.
  explicit DiskModel(const std::string& folder);
  ~DiskModel();
  void Apply(const DiskCall& call);
  /// Writes the image into `folder`, which must not exist. Returns a hash of it.
  std::uint64_t Image(Kept kept, std::uint64_t seed, const std::string& folder) const;

  static constexpr std::uint64_t kSector = 512;

 private:
  struct Node;
  using NodePtr = std::shared_ptr<Node>;
  struct Change {  // not yet synced
    const DiskCall* call = nullptr;
    std::vector<std::pair<std::string, NodePtr>> names;  // of a folder; null: the name goes
  };
  struct Node {
    bool folder = false;
    std::string link;                                     // where a symbolic link leads
    std::string durable;                                  // a file's bytes
    std::map<std::string, NodePtr> durable_names, names;  // a folder's: on the disk, and as seen
    std::vector<Change> changes;
  };
  static NodePtr Load(const std::string& path);
  NodePtr Find(const std::string& path) const;
  Node& Parent(const std::string& path, std::string* name) const;
  void Name(const std::string& path, NodePtr node);
  static void Do(const DiskCall& call, std::string* bytes);

  NodePtr root_;
};

}  // namespace temper::bench
