#pragma once
// The file calls of this process below one folder: recorded, stopped at, or made to fail.
//
// bench/disk_calls.cc defines the C library's calls themselves (open, write, pwrite, fsync, rename
// ...), so that SQLite, the C++ library and our own code all come through it. One thread only.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace temper::bench {

struct DiskCall {
  enum Kind {
    kCreate,    // a new file
    kWrite,     // data at offset
    kTruncate,  // to offset bytes
    kSync,      // fsync, fdatasync: of a file or a folder
    kRename,    // path -> other
    kUnlink,    // a file or a link
    kMakeFolder,
    kRemoveFolder,
    kLink,  // symbolic: other is where it leads
    kMark,  // no call: something was promised at this point; data says what
  };
  Kind kind;
  std::string path;  // relative to the folder
  std::uint64_t offset = 0;
  std::string data, other;
};
const char* NameOf(DiskCall::Kind kind);

/// What happens at call number `at` (from 0, of those below `root` that change something).
struct DiskPlan {
  enum What {
    kNothing,
    kKill,       // SIGKILL before it
    kKillTorn,   // a write: half of it happens, then SIGKILL. Other calls: as kKill
    kFail,       // it gives -1 and `error`, nothing happens
    kFailOn,     // it and all later ones that `error` concerns: a full disk, a dead one
    kShort,      // a write: half of it happens and is returned
    kInterrupt,  // a write: EINTR once
  };
  std::string root;
  What what = kNothing;
  std::int64_t at = -1;
  int error = 0;
  bool fast = true;          // fsync does nothing: images are made of the record
  std::string never_synced;  // paths that contain it: fsync is not even recorded (a control)
};

/// Begins anew: counts from 0, forgets what was recorded.
void WatchDisk(const DiskPlan& plan);
/// Stops watching and gives the record.
std::vector<DiskCall> DiskRecord();
/// Into the record.
void MarkDisk(const std::string& what);
/// Calls so far, and the one that was made to fail first ("" = none): "fsync run/trajectories.db".
std::int64_t DiskCalls();
std::string DiskFailure();

}  // namespace temper::bench
