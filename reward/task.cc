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
        zygote_(HostOptions().zygote_argv),
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

std::vector<std::string> TrainRows(const std::string& script, const TaskOptions& options,
                                   int count) {
  RowMaker maker(script, options);
  std::set<std::string> heldout;
  for (const std::string& row : Heldout(maker, options.heldout)) heldout.insert(PromptOf(row));
  std::vector<std::string> rows;
  int barren = 0;
  for (std::uint64_t batch = kTrainStream; static_cast<int>(rows.size()) < count; ++batch) {
    bool found = false;
    for (std::string& row : maker.Batch(batch)) {
      if (static_cast<int>(rows.size()) >= count || heldout.count(PromptOf(row)) != 0) continue;
      rows.push_back(std::move(row));
      found = true;
    }
    barren = found ? 0 : barren + 1;
    if (barren > kMaxBarren) {
      throw UserError(script + ": prompts() knows no prompt outside the " +
                      std::to_string(options.heldout) + " held-out ones; lower --heldout");
    }
  }
  return rows;
}

}  // namespace temper::reward
