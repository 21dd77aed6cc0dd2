#pragma once
// What a reward function sees of a sample and what it may answer.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace temper::reward {

struct SampleInput {
  std::string prompt_json;  // JSON text: a string, or a list of messages
  std::string completion;   // text without special tokens; any bytes
  std::vector<std::int32_t> completion_ids;
  std::optional<std::string> answer;  // the dataset's answer as text; none if the row has none
  std::string row_json;               // JSON object: all dataset columns; "" = none
  std::string finish_reason;          // stop | length
  std::uint32_t version = 0;          // of the first generated token
  std::int64_t step = 0;
};

/// How a reward function ended. Only kOk carries a score.
enum class Status : std::uint8_t {
  kOk,
  kNotApplicable,
  kScriptError,
  kBudget,
  kTimeout,
  kMemory,
  kCrashed,
  kInvalidReturn,
  kUnavailable,
};
constexpr int kStatusCount = 9;

/// ok, not_applicable, script_error, budget, timeout, memory, crashed, invalid_return, unavailable.
std::string_view StatusName(Status status);

/// True for everything but ok and not_applicable.
inline bool IsFailure(Status status) {
  return status != Status::kOk && status != Status::kNotApplicable;
}

/// What `temper reward try` shows of a run.
struct Trace {
  std::string printed;                                       // at most kMaxPrinted bytes
  std::vector<std::pair<std::int32_t, std::int64_t>> lines;  // line and its instructions, by line
};
constexpr std::size_t kMaxPrinted = std::size_t{16} << 10;
constexpr std::size_t kMaxTraceLines = 2000;

/// One function on one sample.
struct Outcome {
  Status status = Status::kOk;
  std::optional<double> score;                         // finite
  std::vector<std::pair<std::string, double>> fields;  // other numbers of a table, by name; finite
  std::string message;  // of a failure; UTF-8, at most kMaxMessage bytes
  int line = 0;         // in the script; 0 = none
  std::int64_t micros = 0;
  std::int64_t instructions = 0;  // counted, of a script
  Trace trace;                    // filled when the job asks for it
};

/// An outcome without a score.
Outcome Failed(Status status, const std::string& message);

constexpr std::size_t kMaxMessage = 1000;
constexpr std::size_t kMaxFields = 64;
constexpr std::size_t kMaxFieldName = 64;

struct Limits {
  double timeout_s = 1.0;                   // wall clock a sample
  std::int64_t max_instructions = 1000000;  // Lua instructions a sample, to the next 1000
  int memory_mib = 64;                      // of one script's state
};

}  // namespace temper::reward
