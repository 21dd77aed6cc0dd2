#pragma once
// Procedural tasks: seeded rows with a taught completion and a true answer.
#include <cstdint>
#include <functional>
#include <set>
#include <string>

#include "configs/json.h"

namespace temper::cli {

/// A stream of random numbers that is the same on every machine (Philox4x32-10).
class Random {
 public:
  Random(std::uint64_t seed, std::uint32_t stream) : seed_(seed), stream_(stream) {}
  /// Uniform in [0, n), n <= 2^20 (the bias of taking the remainder stays below 2^-12).
  int Below(int n);
  double Share();  // in [0, 1)

 private:
  std::uint64_t seed_;
  std::uint32_t stream_;
  std::uint64_t next_ = 0;
};

struct TaskRow {
  std::string prompt;
  std::string taught;  // what the teacher writes: SFT learns it
  std::string answer;  // the truth: GRPO rewards it
};

struct Task {
  const char* name;
  const char* reward;  // the script, below DataFile
  const char* config;  // the template of both runs' settings, below DataFile
  const char* story;   // what the model learns, for people
  double threshold;    // a score at least this is right
  TaskRow (*make)(Random*);
};

/// sums: "17+25+8;" is worked out as "17+25=42;<50>". The teacher drops 60 % of the carries out of
/// the units. reverse-text: "stone;" becomes "enots". Throws UserError for another name.
const Task& FindTask(const std::string& name);

struct TaskFiles {
  std::string sft, grpo,
      heldout;  // JSONL: prompt and completion; prompt and answer; prompt and answer
};
struct TaskSizes {
  int sft = 420000, grpo = 20000, heldout = 500;
};

/// Writes the three files into `dir`. No held-out prompt stands in the other two.
TaskFiles WriteTask(const Task& task, std::uint64_t seed, const TaskSizes& sizes,
                    const std::string& dir);

}  // namespace temper::cli
