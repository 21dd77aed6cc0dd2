#pragma once
// The bytes between a host, its zygote and its sandboxes: one machine, one build, but a sandbox may
// lie.
//
//   frame   := size:u32 body                     native byte order; size <= kMaxFrame
//   body    := kind:u8 fields
//   text    := size:u32 bytes
//
//   host to sandbox    kJob, kCheck, kSample
//   sandbox to host    kReady once, kOutcome for each kCheck and kSample, in order
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "reward/sandbox.h"

namespace temper::reward {

enum class FrameKind : std::uint8_t { kReady = 1, kJob, kCheck, kSample, kOutcome };

constexpr std::uint32_t kMaxFrame = 64u << 20;        // to a sandbox
constexpr std::uint32_t kMaxAnswerFrame = 64u << 10;  // from one

/// A sandbox sent what is no frame of ours.
struct FrameError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Appends a whole frame to `bytes`.
void AppendReady(const std::string& isolation, std::string* bytes);
void AppendJob(const Job& job, std::string* bytes);
void AppendCheck(std::string* bytes);
void AppendSample(const SampleInput& sample, std::string* bytes);
void AppendOutcome(const Outcome& outcome, std::string* bytes);

/// Takes the first whole frame off `bytes` from `*offset` on: its body, or an empty view if there
/// is none yet. FrameError when the size is 0 or over `limit`.
std::string_view TakeFrame(std::string_view bytes, std::uint32_t limit, std::size_t* offset);

FrameKind KindOf(std::string_view body);

/// Each reads a whole body, total: FrameError for too few or too many bytes and for values out of
/// range.
std::string ReadReady(std::string_view body);
Job ReadJob(std::string_view body);
SampleInput ReadSample(std::string_view body);
/// The message comes back as valid UTF-8 of at most kMaxMessage bytes, the fields as names that
/// JSON can carry.
Outcome ReadOutcome(std::string_view body);

}  // namespace temper::reward
