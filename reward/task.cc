#include "reward/task.h"

#include <algorithm>
#include <set>

#include "configs/error.h"
#include "configs/json.h"
#include "reward/channel.h"
#include "reward/function.h"
#include "reward/host.h"
#include "reward/zygote.h"

namespace temper::reward {
namespace {

constexpr int kBatch = 100;                         // rows a call; a part of the format of seeds
constexpr std::uint64_t kTrainStream = 1ull << 40;  // batches of training rows begin here
constexpr int kMaxBarren = 200;                     // calls without one new row

class RowMaker {
 public:
  RowMaker(const std::string& script, const TaskOptions& options)
      : script_(script),
        options_(options),
        zygote_(options.zygote_argv),
        channel_(zygote_, MakeJob(script, options), HostOptions().start_timeout_s) {}

  std::vector<std::string> Batch(std::uint64_t batch) {
    RowsRequest request;
    request.seed = options_.seed;
    request.batch = batch;
    request.count = kBatch;
    MadeRows made = channel_.Prompts(request);
    if (made.outcome.status == Status::kOk) return std::move(made.rows);
    const std::string line =
        made.outcome.line > 0 ? ":" + std::to_string(made.outcome.line) : std::string();
    throw UserError(script_ + line + ": " + std::string(StatusName(made.outcome.status)) + ": " +
                    made.outcome.message);
  }

 private:
  static Job MakeJob(const std::string& script, const TaskOptions& options) {
    const FunctionSpec spec = ParseRewardArgument(script);
    Job job;
    job.name = spec.path;
    job.script = spec.script;
    job.rule = spec.rule;
    job.limits = options.limits;
    return job;
  }

  const std::string script_;
  const TaskOptions options_;
  Zygote zygote_;
  Channel channel_;
};

std::string PromptOf(const std::string& row) { return Json::parse(row).at("prompt").dump(); }

std::vector<std::string> Heldout(RowMaker& maker, int count) {
  std::vector<std::string> rows;
  std::set<std::string> seen;
  int barren = 0;
  for (std::uint64_t batch = 0; static_cast<int>(rows.size()) < count; ++batch) {
    bool found = false;
    for (std::string& row : maker.Batch(batch)) {
      if (static_cast<int>(rows.size()) >= count || !seen.insert(PromptOf(row)).second) continue;
      rows.push_back(std::move(row));
      found = true;
    }
    barren = found ? 0 : barren + 1;
    if (barren > kMaxBarren) {
      throw UserError("prompts(): the task has only " + std::to_string(rows.size()) +
                      " different prompts; ask for fewer held-out rows");
    }
  }
  return rows;
}

}  // namespace

std::vector<std::string> HeldoutRows(const std::string& script, const TaskOptions& options,
                                     int count) {
  RowMaker maker(script, options);
  return Heldout(maker, count);
}

struct TaskRows::State {
  State(const std::string& path, const TaskOptions& options)
      : script(path), held(options.heldout), maker(path, options) {
    for (const std::string& row : Heldout(maker, options.heldout)) heldout.insert(PromptOf(row));
  }

  const std::string script;
  const int held;
  RowMaker maker;
  std::set<std::string> heldout;
  std::uint64_t batch = kTrainStream;
  std::vector<std::string> rows;  // of the last batch
  std::size_t next = 0;           // of rows
};

TaskRows::TaskRows(const std::string& script, const TaskOptions& options)
    : state_(std::make_unique<State>(script, options)) {}
TaskRows::TaskRows(TaskRows&&) noexcept = default;
TaskRows& TaskRows::operator=(TaskRows&&) noexcept = default;
TaskRows::~TaskRows() = default;

std::string TaskRows::Next() {
  State& s = *state_;
  for (int barren = 0; barren <= kMaxBarren; ++barren) {
    for (; s.next < s.rows.size(); ++s.next) {
      std::string& row = s.rows[s.next];
      if (s.heldout.count(PromptOf(row)) != 0) continue;
      ++s.next;
      return std::move(row);
    }
    s.rows = s.maker.Batch(s.batch++);
    s.next = 0;
  }
  throw UserError(s.script + ": prompts() knows no prompt outside the " + std::to_string(s.held) +
                  " held-out ones; keep fewer (data.heldout, --heldout)");
}

std::vector<std::string> TrainRows(const std::string& script, const TaskOptions& options,
                                   int count) {
  TaskRows stream(script, options);
  std::vector<std::string> rows;
  while (static_cast<int>(rows.size()) < count) rows.push_back(stream.Next());
  return rows;
}

}  // namespace temper::reward
