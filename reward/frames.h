#pragma once
// The bytes between a host, its zygote and its sandboxes: one machine, one build, but a sandbox may
// lie.
//
//   frame   := size:u32 body                     native byte order; size <= kMaxFrame
//   body    := kind:u8 fields
//   text    := size:u32 bytes
//
//   host to sandbox    kJob once; then kSample, kGroup with that many kSample after it, kPrompts
//   sandbox to host    kReady once; kLoaded for kJob; kOutcome for each kSample, in order; kRows
//   for
//                      each kPrompts
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "reward/sandbox.h"

namespace temper::reward {

enum class FrameKind : std::uint8_t {
  kReady = 1,
  kJob,
  kLoaded,
  kSample,
  kGroup,
  kOutcome,
  kPrompts,
  kRows
};

constexpr std::uint32_t kMaxFrame = 64u << 20;        // to a sandbox
constexpr std::uint32_t kMaxAnswerFrame = 64u << 10;  // from one, kRows apart
constexpr std::uint32_t kMaxRowsFrame = 16u << 20;
constexpr int kMaxRowsAtOnce = 1000;

/// What a sandbox says of its job.
struct Loaded {
  Outcome outcome;
  bool scores_groups = false;
};
/// Rows that a task script made.
struct MadeRows {
  Outcome outcome;
  std::vector<std::string> rows;
};
struct RowsRequest {
  std::uint64_t seed = 0, batch = 0;
  int count = 0;
};

/// A sandbox sent what is no frame of ours.
struct FrameError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Appends a whole frame to `bytes`.
void AppendReady(const std::string& isolation, std::string* bytes);
void AppendJob(const Job& job, std::string* bytes);
void AppendLoaded(const Loaded& loaded, std::string* bytes);
/// What a sample shares with `before` (null: nothing) is not sent again.
void AppendSample(const SampleInput& sample, const SampleInput* before, std::string* bytes);
void AppendGroup(std::uint32_t count, std::string* bytes);
void AppendOutcome(const Outcome& outcome, std::string* bytes);
void AppendRowsRequest(const RowsRequest& request, std::string* bytes);
void AppendRows(const MadeRows& made, std::string* bytes);

/// Takes the first whole frame off `bytes` from `*offset` on: its body, or an empty view if there
/// is none yet. FrameError when the size is 0 or over `limit`.
std::string_view TakeFrame(std::string_view bytes, std::uint32_t limit, std::size_t* offset);

FrameKind KindOf(std::string_view body);

/// Each reads a whole body, total: FrameError for too few or too many bytes and for values out of
/// range.
std::string ReadReady(std::string_view body);
Job ReadJob(std::string_view body);
Loaded ReadLoaded(std::string_view body);
/// `sample` holds the one before.
void ReadSample(std::string_view body, SampleInput* sample);
std::uint32_t ReadGroup(std::string_view body);
RowsRequest ReadRowsRequest(std::string_view body);
MadeRows ReadRows(std::string_view body);
/// The message comes back as valid UTF-8 of at most kMaxMessage bytes, the fields as names that
/// JSON can carry.
Outcome ReadOutcome(std::string_view body);

}  // namespace temper::reward
